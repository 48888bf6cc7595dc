//! [`Process`]: this process's own memory as the model's client memory. It is copied by the kernel, which answers an error
//! where nothing is mapped, so that no reference to memory of others is ever made.

use std::io::{IoSlice, IoSliceMut};
use std::sync::OnceLock;
use std::time::Instant;

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use rootmode_models::kvm::Errno;
use rootmode_models::kvm::vm::{ClientMemory, EventCounter, HostFault};

use crate::event::Counter;

/// This process.
pub(crate) struct Process;

/// What the clock starts with: a machine that was switched on a second ago.
const BEFORE: u64 = 1_000_000_000;

impl ClientMemory for Process {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), HostFault> {
        let len = bytes.len();
        let remote = RemoteIoVec { base: address as usize, len };
        let done = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(bytes)], &[remote]);
        if done == Ok(len) { Ok(()) } else { Err(HostFault { address }) }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), HostFault> {
        let len = bytes.len();
        let remote = RemoteIoVec { base: address as usize, len };
        let done = process_vm_writev(Pid::this(), &[IoSlice::new(bytes)], &[remote]);
        if done == Ok(len) { Ok(()) } else { Err(HostFault { address }) }
    }

    fn nanoseconds(&mut self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        let elapsed = START.get_or_init(Instant::now).elapsed();
        Some(BEFORE + elapsed.as_nanos() as u64)
    }

    fn event(&mut self, descriptor: i32) -> Result<Box<dyn EventCounter>, Errno> {
        Ok(Box::new(Counter::open(descriptor)?))
    }
}
