//! [`Hosted`]: an image as a guest of the model of KVM, with the machine's own devices around it.
//!
//! The model is L0, and what is here is its client, a virtual machine monitor: it makes a VM with the interrupt controllers
//! and the 8254 in the kernel, gives it memory, CPUID and the state in which the bare machine would start the image, and
//! answers what the VM leaves to its client with the same [`Pc`]. A guest that is a hypervisor finds VMX or SVM, nested.
//!
//! Not for hosted images: firmware (the VM's slots do not follow the chipset's attribute maps), and hostile hardware.
//!
//! ```
//! use rootmode::hosted::Hosted;
//! use rootmode::machine::{Parts, System as _};
//! use rootmode_arch::{choices::Tame, record::Stop};
//! // mov al, 'K'; mov dx, 0x3f8; out dx, al; mov al, 3; mov dx, 0xf4; out dx, al
//! let image = vec![0xb0, b'K', 0xba, 0xf8, 0x03, 0xee, 0xb0, 3, 0xba, 0xf4, 0, 0xee];
//! let mut hosted = Hosted::new(&Parts::of_image(image), Box::new(Tame)).unwrap();
//! assert_eq!(hosted.run(1_000_000).stop, Stop::Requested(3));
//! assert_eq!(hosted.take_output().0, b"K");
//! ```

mod serve;
mod setup;

use std::collections::BTreeMap;

use rootmode_arch::Linear;
use rootmode_arch::record::Stop;
use rootmode_cpu::Effects;
use rootmode_cpu::board::Stopped;
use rootmode_mmu::Digest;
use rootmode_models::devices::pc::Pc;
use rootmode_models::kvm::Errno;
use rootmode_models::kvm::vm::{Failure, Passed, Vm};

use crate::machine::{MachineError, System};

/// Why an image cannot be hosted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostedError {
    /// Not even a bare machine could start it.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// It needs what a VM does not have here.
    #[error("a hosted image has no {0}")]
    Absent(&'static str),
    /// A call that makes the VM failed.
    #[error("the VM cannot be made: {0}")]
    Vm(#[from] Failure),
}

/// An image in a VM of the model of KVM.
pub struct Hosted {
    vm: Vm,
    pc: Pc,
    /// Deadlines of the devices: when, in the order in which they were asked for.
    deadlines: BTreeMap<(u64, u64), u32>,
    asked: u64,
    /// The latest time that a device was told.
    told: u64,
    trouble: Option<String>,
}

impl Hosted {
    /// Runs until time reaches `limit`, or something stops the VM.
    ///
    /// # Errors
    /// [`Failure`] if a call fails that should not.
    fn go(&mut self, limit: u64) -> Result<(Stop, usize), Failure> {
        loop {
            if let Some(stop) = self.expire()? {
                return Ok((stop, 0));
            }
            if let Some(((next, _), _)) = self.deadlines.first_key_value() {
                self.vm.set_alarm(*next);
            }
            match self.vm.pass(limit)? {
                Passed::Out(vcpu, Ok(())) => {
                    if let Some(stop) = self.serve(vcpu)? {
                        return Ok((stop, vcpu));
                    }
                    self.vm.start(vcpu)?;
                }
                // A vCPU that waited for INIT, which has come.
                Passed::Out(vcpu, Err(Failure::Errno(Errno::Eagain))) => self.vm.start(vcpu)?,
                Passed::Out(_, Err(failure)) => return Err(failure),
                Passed::Alarm => {}
                Passed::Limit => return Ok((Stop::Limit, 0)),
                Passed::Idle => return Ok((Stop::Idle, 0)),
            }
        }
    }

    /// Calls the devices whose deadlines have come.
    fn expire(&mut self) -> Result<Option<Stop>, Failure> {
        let now = self.vm.ticks();
        self.told = self.told.max(now);
        while let Some(first) = self.deadlines.first_entry().filter(|first| first.key().0 <= now) {
            let source = first.remove();
            let mut effects = Effects::default();
            self.pc.expire(source, now, &mut self.vm, &mut effects);
            if let Some(stop) = self.apply(effects)? {
                return Ok(Some(stop));
            }
        }
        Ok(None)
    }

    /// Does what a device caused. Its interrupt controllers, and with them messages to processors, are the kernel's.
    fn apply(&mut self, effects: Effects) -> Result<Option<Stop>, Failure> {
        for (tick, source) in effects.deadlines {
            self.deadlines.insert((tick, self.asked), source);
            self.asked += 1;
        }
        for (irq, high) in self.pc.take_lines() {
            self.set_line(irq, high)?;
        }
        if effects.memory_map.is_some() {
            return Ok(Some(self.cannot("the chipset moves memory, which a VM's slots do not follow")));
        }
        Ok(effects.stop)
    }

    /// The run ends because L0 or this client of its cannot go on.
    fn cannot(&mut self, why: impl Into<String>) -> Stop {
        self.trouble = Some(why.into());
        Stop::Unmodelled(Linear(0))
    }
}

impl System for Hosted {
    fn now(&self) -> u64 {
        self.vm.ticks()
    }

    fn run(&mut self, limit: u64) -> Stopped {
        let (stop, vcpu) = self.go(limit).unwrap_or_else(|failure| (self.cannot(failure.to_string()), 0));
        Stopped { stop, processor: vcpu as u8, tick: self.vm.ticks_of(vcpu) }
    }

    fn take_output(&mut self) -> (Vec<u8>, Vec<u8>) {
        (self.pc.take_serial_output(), self.pc.take_console_output())
    }

    fn serial_input(&mut self, bytes: &[u8]) {
        let mut effects = Effects::default();
        self.pc.serial_input(bytes, self.told, &mut effects);
        if let Err(failure) = self.apply(effects) {
            self.cannot(failure.to_string());
        }
    }

    fn digest(&self) -> u128 {
        let (below, mut digest) = (self.vm.digest(), Digest::new());
        digest.u128(below);
        digest.u64(self.told);
        rootmode_cpu::Bus::digest(&self.pc, &mut digest);
        for ((tick, asked), source) in &self.deadlines {
            digest.all(&[*tick, *asked, (*source).into()]);
        }
        digest.finish()
    }

    fn exits(&self) -> Option<u64> {
        Some(self.vm.exits())
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}
