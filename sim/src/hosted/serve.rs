//! What a vCPU leaves to its client, answered by the devices of a PC.

use rootmode_arch::record::Stop;
use rootmode_arch::{HostPhysical, Linear};
use rootmode_cpu::{Bus as _, Effects};
use rootmode_models::kvm::Errno;
use rootmode_models::kvm::abi::IrqLevel;
use rootmode_models::kvm::vm::{ClientExit, ERROR_DELIVERY, ERROR_EMULATION, Failure};

use super::Hosted;

impl Hosted {
    /// Answers an exit. `Some`: the run is over.
    ///
    /// # Errors
    /// [`Failure`] if a call fails that should not.
    pub(super) fn serve(&mut self, vcpu: usize) -> Result<Option<Stop>, Failure> {
        self.told = self.told.max(self.vm.ticks_of(vcpu));
        let tick = self.told;
        let mut effects = Effects::default();
        match self.vm.exit(vcpu)? {
            ClientExit::Io { input, port, size, data } => {
                for item in data.chunks_exact_mut((*size).into()) {
                    let mut word = [0; 4];
                    if *input {
                        word = self.pc.read_port(*port, *size, tick, &mut effects).to_le_bytes();
                        item.copy_from_slice(&word[..item.len()]);
                    } else {
                        word[..item.len()].copy_from_slice(item);
                        self.pc.write_port(*port, *size, u32::from_le_bytes(word), tick, &mut effects);
                    }
                }
            }
            ClientExit::Mmio { address, data, len, write } => {
                let at = HostPhysical(*address);
                if *write {
                    self.pc.write_mmio(at, *len, u64::from_le_bytes(*data), tick, &mut effects);
                } else {
                    *data = self.pc.read_mmio(at, *len, tick, &mut effects).to_le_bytes();
                }
            }
            ClientExit::Shutdown => return Ok(Some(Stop::TripleFault)),
            exit => {
                let why = describe(exit);
                let rip = self.vm.regs(vcpu)?.rip;
                self.cannot(format!("{why}, vCPU {vcpu} at {rip:#x}"));
                return Ok(Some(Stop::Unmodelled(Linear(rip))));
            }
        }
        let stop = self.apply(effects)?;
        if stop.is_some() {
            self.complete(vcpu)?;
        }
        Ok(stop)
    }

    /// Lets the vCPU complete the instruction that it asked its client for, and nothing behind it.
    fn complete(&mut self, vcpu: usize) -> Result<(), Failure> {
        self.vm.request(vcpu, false, true)?;
        match self.vm.run(vcpu) {
            Ok(_) | Err(Failure::Errno(Errno::Eintr)) => {}
            Err(failure) => return Err(failure),
        }
        self.vm.request(vcpu, false, false)
    }

    /// Drives the line of an ISA interrupt.
    pub(super) fn set_line(&mut self, irq: u8, high: bool) -> Result<(), Failure> {
        self.vm.irq_line(&IrqLevel { irq: irq.into(), level: high.into() }).map(drop)
    }
}

/// An exit that ends a run, in KVM's words.
fn describe(exit: &ClientExit) -> String {
    match exit {
        ClientExit::InternalError { suberror: ERROR_EMULATION, data } => {
            let bytes: Vec<u8> = data.iter().skip(1).flat_map(|word| word.to_le_bytes()).collect();
            let count = bytes.first().copied().unwrap_or(0).into();
            let shown: Vec<_> = bytes.iter().skip(1).take(count).map(|byte| format!("{byte:02x}")).collect();
            format!("KVM_INTERNAL_ERROR_EMULATION of {}", shown.join(" "))
        }
        ClientExit::InternalError { suberror: ERROR_DELIVERY, data } => {
            format!("KVM_INTERNAL_ERROR_DELIVERY_EV {data:x?}")
        }
        ClientExit::InternalError { suberror, data } => {
            format!("KVM_EXIT_INTERNAL_ERROR {suberror} {data:x?}")
        }
        ClientExit::FailEntry { reason, .. } => {
            format!("KVM_EXIT_FAIL_ENTRY, hardware reason {reason:#x}")
        }
        exit => format!("KVM_RUN ended with reason {}", exit.reason()),
    }
}
