//! Linux's KVM as far as the client needs it: descriptors, calls, the shared page of a vCPU, guest memory
//! (Linux 6.12, Documentation/virt/kvm/api.rst).
//!
//! # Why `unsafe` is sound here
//!
//! - Every `ioctl` gets a structure of the type that its number says; the number is made from that type.
//! - Mappings are of the size that is kept beside their address, live as long as their owner, and are only read and written
//!   through volatile accesses of plain bytes: the guest and the kernel change them meanwhile.
#![allow(unsafe_code, reason = "ioctls and mappings")]

use std::io::{Error, Result};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;

use kvm_bindings::*;

/// KVM's letter in numbers of ioctls.
const KVMIO: u64 = 0xae;

const fn number(direction: u64, nr: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | KVMIO << 8 | nr
}

const fn plain(nr: u64) -> u64 {
    number(0, nr, 0)
}

const fn writes<T>(nr: u64) -> u64 {
    number(1, nr, size_of::<T>())
}

const fn reads<T>(nr: u64) -> u64 {
    number(2, nr, size_of::<T>())
}

const fn both<T>(nr: u64) -> u64 {
    number(3, nr, size_of::<T>())
}

/// A call whose argument is a number.
fn call(fd: RawFd, request: u64, argument: u64) -> Result<i32> {
    // SAFETY: the requests that come here take a number, not an address.
    check(unsafe { libc::ioctl(fd, request, argument) })
}

/// A call whose argument is a structure.
fn pass<T>(fd: RawFd, request: u64, argument: &mut T) -> Result<i32> {
    // SAFETY: the request was made for a `T`, which this is.
    check(unsafe { libc::ioctl(fd, request, &raw mut *argument) })
}

fn check(result: i32) -> Result<i32> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Memory of this process that others see: a guest, or the kernel.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: *mut u8,
    size: usize,
}

// SAFETY: it is only accessed by volatile accesses, from whichever thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: Option<RawFd>, size: usize) -> Result<Self> {
        let flags = if fd.is_some() { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, where the kernel wants it.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, fd.unwrap_or(-1), 0) };
        if address == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Self { address: address.cast(), size })
    }

    /// Memory for a guest.
    pub(crate) fn memory(size: usize) -> Result<Self> {
        Self::new(None, size)
    }

    /// Copies `bytes` to `offset`.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(
            offset.checked_add(bytes.len()).is_some_and(|end| end <= self.size),
            "{offset:#x} is outside"
        );
        // SAFETY: inside, as was just seen; bytes may have any value.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.add(offset), bytes.len()) };
    }

    /// The bytes at `offset`.
    pub(crate) fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
        assert!(offset.checked_add(N).is_some_and(|end| end <= self.size), "{offset:#x} is outside");
        // SAFETY: inside, as was just seen; bytes may have any value.
        std::array::from_fn(|index| unsafe { self.address.add(offset + index).read_volatile() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this size, and nobody else has it.
        let _ = unsafe { libc::munmap(self.address.cast(), self.size) };
    }
}

/// `/dev/kvm`.
pub(crate) struct Kvm {
    fd: OwnedFd,
}

/// `kvm_cpuid2` with room for what KVM supports.
#[repr(C)]
#[derive(Clone)]
pub(crate) struct Cpuid {
    nent: u32,
    padding: u32,
    entries: [kvm_cpuid_entry2; 256],
}

impl Cpuid {
    /// The entries.
    pub(crate) fn entries(&mut self) -> &mut [kvm_cpuid_entry2] {
        &mut self.entries[..self.nent as usize]
    }

    /// None.
    pub(crate) const fn clear(&mut self) {
        self.nent = 0;
    }

    /// One more.
    pub(crate) fn push(&mut self, entry: kvm_cpuid_entry2) {
        self.entries[self.nent as usize] = entry;
        self.nent += 1;
    }
}

/// `kvm_msrs` with one entry.
#[repr(C)]
#[derive(Default)]
struct OneMsr {
    nmsrs: u32,
    pad: u32,
    entry: kvm_msr_entry,
}

impl Kvm {
    /// Opens it.
    pub(crate) fn open() -> Result<Self> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
        Ok(Self { fd: file.into() })
    }

    /// KVM_GET_SUPPORTED_CPUID.
    pub(crate) fn supported_cpuid(&self) -> Result<Box<Cpuid>> {
        let mut cpuid =
            Box::new(Cpuid { nent: 256, padding: 0, entries: [kvm_cpuid_entry2::default(); 256] });
        pass(self.fd.as_raw_fd(), both::<kvm_cpuid2>(0x05), &mut *cpuid)?;
        Ok(cpuid)
    }

    /// KVM_CREATE_VM.
    pub(crate) fn create(&self) -> Result<Vm> {
        let fd = self.fd.as_raw_fd();
        let vm = descriptor(call(fd, plain(0x01), 0)?);
        let run_size = call(fd, plain(0x04), 0)? as usize;
        Ok(Vm { fd: vm, run_size, memory: Vec::new() })
    }
}

fn descriptor(fd: i32) -> OwnedFd {
    // SAFETY: a new descriptor that the kernel has just returned.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A virtual machine.
pub(crate) struct Vm {
    fd: OwnedFd,
    run_size: usize,
    /// What slots map, kept as long as they may.
    memory: Vec<Arc<Mapping>>,
}

impl Vm {
    /// KVM_SET_USER_MEMORY_REGION: all of `memory`, with KVM_MEM_* flags.
    pub(crate) fn slot(&mut self, slot: u32, address: u64, memory: &Arc<Mapping>, flags: u32) -> Result<()> {
        let mut region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: address,
            memory_size: memory.size as u64,
            userspace_addr: memory.address as u64,
        };
        self.memory.push(memory.clone());
        pass(self.fd.as_raw_fd(), writes::<kvm_userspace_memory_region>(0x46), &mut region).map(drop)
    }

    /// KVM_GET_DIRTY_LOG of a slot of up to 64 pages.
    pub(crate) fn dirty_log(&self, slot: u32) -> Result<u64> {
        let mut bitmap = 0_u64;
        let mut log = kvm_dirty_log {
            slot,
            padding1: 0,
            __bindgen_anon_1: kvm_dirty_log__bindgen_ty_1 { dirty_bitmap: (&raw mut bitmap).cast() },
        };
        pass(self.fd.as_raw_fd(), writes::<kvm_dirty_log>(0x42), &mut log)?;
        Ok(bitmap)
    }

    /// KVM_SET_TSS_ADDR and KVM_SET_IDENTITY_MAP_ADDR: three pages and one that real mode needs without unrestricted guests.
    pub(crate) fn set_tss(&self) -> Result<()> {
        let mut address = 0xfffb_c000_u64;
        pass(self.fd.as_raw_fd(), writes::<u64>(0x48), &mut address)?;
        call(self.fd.as_raw_fd(), plain(0x47), 0xfffb_d000).map(drop)
    }

    /// KVM_CREATE_IRQCHIP.
    pub(crate) fn create_irqchip(&self) -> Result<()> {
        call(self.fd.as_raw_fd(), plain(0x60), 0).map(drop)
    }

    /// KVM_CREATE_PIT2, with the port that gates its third channel.
    pub(crate) fn create_pit(&self) -> Result<()> {
        let mut pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        pass(self.fd.as_raw_fd(), writes::<kvm_pit_config>(0x77), &mut pit).map(drop)
    }

    /// KVM_IRQ_LINE.
    pub(crate) fn irq_line(&self, line: u32, level: u32) -> Result<()> {
        let mut irq = kvm_irq_level { __bindgen_anon_1: kvm_irq_level__bindgen_ty_1 { irq: line }, level };
        pass(self.fd.as_raw_fd(), writes::<kvm_irq_level>(0x61), &mut irq).map(drop)
    }

    /// KVM_SIGNAL_MSI.
    pub(crate) fn signal_msi(&self, address: u32, data: u32) -> Result<()> {
        let mut msi = kvm_msi { address_lo: address, data, ..Default::default() };
        pass(self.fd.as_raw_fd(), writes::<kvm_msi>(0xa5), &mut msi).map(drop)
    }

    /// KVM_ENABLE_CAP.
    pub(crate) fn enable(&self, cap: u32, argument: u64) -> Result<()> {
        let mut enable = kvm_enable_cap { cap, ..Default::default() };
        enable.args[0] = argument;
        pass(self.fd.as_raw_fd(), writes::<kvm_enable_cap>(0xa3), &mut enable).map(drop)
    }

    /// KVM_X86_SET_MSR_FILTER: reads and writes of `msr` are denied, all others allowed.
    pub(crate) fn deny_msr(&self, msr: u32) -> Result<()> {
        let mut bitmap = [0_u8; 8];
        let mut filter = kvm_msr_filter { flags: 0, ranges: [kvm_msr_filter_range::default(); 16] };
        filter.ranges[0] =
            kvm_msr_filter_range { flags: 3, nmsrs: 1, base: msr, bitmap: bitmap.as_mut_ptr() };
        pass(self.fd.as_raw_fd(), writes::<kvm_msr_filter>(0xc6), &mut filter).map(drop)
    }

    /// KVM_CREATE_VCPU.
    pub(crate) fn vcpu(&self, id: u8) -> Result<Vcpu> {
        let fd = descriptor(call(self.fd.as_raw_fd(), plain(0x41), id.into())?);
        let run = Mapping::new(Some(fd.as_raw_fd()), self.run_size)?;
        Ok(Vcpu { fd, run })
    }
}

/// A virtual processor.
pub(crate) struct Vcpu {
    fd: OwnedFd,
    run: Mapping,
}

/// Why KVM_RUN came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// `count` transfers of `size` bytes each.
    Out {
        port: u16,
        size: u8,
        count: u32,
        value: u32,
    },
    In {
        port: u16,
        size: u8,
        count: u32,
    },
    Write {
        address: u64,
        size: u32,
        value: u64,
    },
    Read {
        address: u64,
        size: u32,
    },
    ReadMsr {
        msr: u32,
    },
    WriteMsr {
        msr: u32,
        value: u64,
    },
    Halt,
    Window,
    Debug {
        address: u64,
    },
    Shutdown,
    /// A signal came, or the processor has been started.
    Interrupted,
    /// Any other, by its number, and the two words behind it.
    Other(u32, u64, u64),
}

/// Offset of the union of exits in `kvm_run`.
const UNION: usize = std::mem::offset_of!(kvm_run, __bindgen_anon_1);
const REASON: usize = std::mem::offset_of!(kvm_run, exit_reason);

impl Vcpu {
    fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.run.read(UNION + offset))
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.run.read(UNION + offset))
    }

    /// KVM_RUN.
    pub(crate) fn run(&self) -> Result<Exit> {
        if let Err(error) = call(self.fd.as_raw_fd(), plain(0x80), 0) {
            return match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => Ok(Exit::Interrupted),
                _ => Err(error),
            };
        }
        let reason = u32::from_le_bytes(self.run.read(REASON));
        Ok(match reason {
            KVM_EXIT_IO => {
                let [direction, size, low, high] = self.run.read(UNION);
                let (port, count) = (u16::from_le_bytes([low, high]), self.u32(4));
                if u32::from(direction) == KVM_EXIT_IO_IN {
                    Exit::In { port, size, count }
                } else {
                    let data: [u8; 4] = self.run.read(self.u64(8) as usize);
                    let mut value = [0; 4];
                    let bytes = (usize::from(size) * count as usize).min(4);
                    value[..bytes].copy_from_slice(&data[..bytes]);
                    Exit::Out { port, size, count, value: u32::from_le_bytes(value) }
                }
            }
            KVM_EXIT_MMIO => {
                let (address, size) = (self.u64(0), self.u32(16));
                let [is_write] = self.run.read(UNION + 20);
                if is_write == 0 {
                    Exit::Read { address, size }
                } else {
                    let mask = u64::MAX >> (64 - 8 * size.clamp(1, 8));
                    Exit::Write { address, size, value: self.u64(8) & mask }
                }
            }
            // A byte of error, seven of padding, the reason, the index, the data.
            KVM_EXIT_X86_RDMSR => Exit::ReadMsr { msr: self.u32(12) },
            KVM_EXIT_X86_WRMSR => Exit::WriteMsr { msr: self.u32(12), value: self.u64(16) },
            KVM_EXIT_HLT => Exit::Halt,
            KVM_EXIT_IRQ_WINDOW_OPEN => Exit::Window,
            // exception, pad, pc.
            KVM_EXIT_DEBUG => Exit::Debug { address: self.u64(8) },
            KVM_EXIT_SHUTDOWN => Exit::Shutdown,
            other => Exit::Other(other, self.u64(0), self.u64(8)),
        })
    }

    /// What the guest's IN, read or RDMSR gets.
    pub(crate) fn answer(&self, value: u64) {
        match u32::from_le_bytes(self.run.read(REASON)) {
            KVM_EXIT_IO => {
                let [_, size] = self.run.read(UNION);
                let bytes = (usize::from(size) * self.u32(4) as usize).min(8);
                self.run.write(self.u64(8) as usize, &value.to_le_bytes()[..bytes]);
            }
            KVM_EXIT_MMIO => self.run.write(UNION + 8, &value.to_le_bytes()),
            KVM_EXIT_X86_RDMSR => self.run.write(UNION + 16, &value.to_le_bytes()),
            other => panic!("exit {other} has no answer"),
        }
    }

    /// The guest's RDMSR or WRMSR gets #GP.
    pub(crate) fn refuse_msr(&self) {
        self.run.write(UNION, &[1]);
    }

    /// KVM_RUN comes back when an interrupt can be injected.
    pub(crate) fn request_window(&self, on: bool) {
        self.run.write(0, &[on.into()]);
    }

    /// KVM_INTERRUPT.
    pub(crate) fn interrupt(&self, vector: u8) -> Result<()> {
        let mut interrupt = kvm_interrupt { irq: vector.into() };
        pass(self.fd.as_raw_fd(), writes::<kvm_interrupt>(0x86), &mut interrupt).map(drop)
    }

    /// KVM_NMI.
    pub(crate) fn nmi(&self) -> Result<()> {
        call(self.fd.as_raw_fd(), plain(0x9a), 0).map(drop)
    }

    /// KVM_SET_VCPU_EVENTS.
    pub(crate) fn set_events(&self, mut events: kvm_vcpu_events) -> Result<()> {
        pass(self.fd.as_raw_fd(), writes::<kvm_vcpu_events>(0xa0), &mut events).map(drop)
    }

    /// KVM_SET_CPUID2.
    pub(crate) fn set_cpuid(&self, cpuid: &mut Cpuid) -> Result<()> {
        pass(self.fd.as_raw_fd(), writes::<kvm_cpuid2>(0x90), cpuid).map(drop)
    }

    /// KVM_GET_REGS.
    pub(crate) fn registers(&self) -> Result<kvm_regs> {
        let mut registers = kvm_regs::default();
        pass(self.fd.as_raw_fd(), reads::<kvm_regs>(0x81), &mut registers)?;
        Ok(registers)
    }

    /// KVM_SET_REGS.
    pub(crate) fn set_registers(&self, mut registers: kvm_regs) -> Result<()> {
        pass(self.fd.as_raw_fd(), writes::<kvm_regs>(0x82), &mut registers).map(drop)
    }

    /// KVM_GET_SREGS.
    pub(crate) fn system(&self) -> Result<kvm_sregs> {
        let mut registers = kvm_sregs::default();
        pass(self.fd.as_raw_fd(), reads::<kvm_sregs>(0x83), &mut registers)?;
        Ok(registers)
    }

    /// KVM_SET_SREGS.
    pub(crate) fn set_system(&self, mut registers: kvm_sregs) -> Result<()> {
        pass(self.fd.as_raw_fd(), writes::<kvm_sregs>(0x84), &mut registers).map(drop)
    }

    /// KVM_GET_MSRS of one.
    pub(crate) fn msr(&self, index: u32) -> Result<u64> {
        let mut msr =
            OneMsr { nmsrs: 1, entry: kvm_msr_entry { index, ..Default::default() }, ..Default::default() };
        match pass(self.fd.as_raw_fd(), both::<kvm_msrs>(0x88), &mut msr)? {
            1 => Ok(msr.entry.data),
            _ => Err(Error::other(format!("MSR {index:#x} is not there"))),
        }
    }

    /// KVM_SET_MSRS of one.
    pub(crate) fn set_msr(&self, index: u32, data: u64) -> Result<()> {
        let entry = kvm_msr_entry { index, data, ..Default::default() };
        let mut msr = OneMsr { nmsrs: 1, entry, ..Default::default() };
        match pass(self.fd.as_raw_fd(), writes::<kvm_msrs>(0x89), &mut msr)? {
            1 => Ok(()),
            _ => Err(Error::other(format!("MSR {index:#x} does not take {data:#x}"))),
        }
    }

    /// KVM_SET_GUEST_DEBUG: one instruction at a time.
    pub(crate) fn single_step(&self, on: bool) -> Result<()> {
        let control = if on { KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP } else { 0 };
        let mut debug = kvm_guest_debug { control, ..Default::default() };
        pass(self.fd.as_raw_fd(), writes::<kvm_guest_debug>(0x9b), &mut debug).map(drop)
    }
}
