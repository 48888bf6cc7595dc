//! A vCPU under its client's debugger: `KVM_SET_GUEST_DEBUG`, and what a guest then sees of the debug registers.

use rootmode_arch::{Cr4, Dr6, Dr7, Vendor, vector};
use rootmode_cpu::DeliveryKind;

use super::events::exception;
use super::exit::ClientExit;
use super::vcpu::Vcpu;
use super::{Failure, Shared};
use crate::kvm::Errno;
use crate::kvm::abi::GuestDebug;
use crate::kvm::host::{Arrival, Debugging, HostBug, Injection};

/// `KVM_GUESTDBG_*`.
const ENABLE: u32 = 1;
const SINGLE_STEP: u32 = 2;
const SOFTWARE: u32 = 1 << 16;
const HARDWARE: u32 = 1 << 17;
const INJECT_DB: u32 = 1 << 18;
const INJECT_BP: u32 = 1 << 19;
const BLOCK_IRQ: u32 = 1 << 20;
/// The breakpoints of DR6, which a new #DB clears.
const DR6_CAUSES: u64 = 0xf;
/// What DR6 and DR7 have set.
const DR6_ONES: u64 = 0xffff_0ff0;
const DR7_ONES: u64 = 0x400;

/// What the client's debugger wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Debugger {
    control: u32,
    registers: [u64; 4],
    dr7: u64,
}

impl Debugger {
    const fn wants(&self, flag: u32) -> bool {
        self.control & flag != 0
    }

    /// What the processor is asked for.
    pub(super) fn asks(&self) -> Debugging {
        Debugging {
            traps: self.wants(SINGLE_STEP | HARDWARE),
            breakpoints: self.wants(SOFTWARE),
            single_step: self.wants(SINGLE_STEP),
            registers: self.wants(HARDWARE).then_some((self.registers, self.dr7 & 0xffff_2bff | DR7_ONES)),
        }
    }

    /// Interrupts wait while it steps.
    pub(super) const fn blocks_interrupts(&self) -> bool {
        self.wants(SINGLE_STEP) && self.wants(BLOCK_IRQ)
    }
}

impl Vcpu {
    /// `KVM_SET_GUEST_DEBUG`.
    ///
    /// # Errors
    /// [`Errno::Ebusy`] if an exception is to be injected and one waits already.
    pub(super) fn set_guest_debug(&mut self, asked: &GuestDebug) -> Result<(), Failure> {
        if asked.control & (INJECT_DB | INJECT_BP) != 0 {
            if self.events.exception.is_some() {
                return Err(Errno::Ebusy.into());
            }
            self.events.exception = Some(if asked.control & INJECT_DB != 0 {
                exception(vector::DB, None)
            } else {
                self.breakpoint()?
            });
        }
        let control = if asked.control & ENABLE != 0 { asked.control } else { 0 };
        let [a, b, c, d, _, _, _, dr7] = asked.debugreg;
        self.debugger = Debugger { control, registers: [a, b, c, d], dr7 };
        Ok(())
    }

    /// The guest's own INT3, which the client gives back to it. SVM does not step over the instruction by itself.
    fn breakpoint(&mut self) -> Result<Injection, HostBug> {
        if self.model.vendor() == Vendor::Amd {
            let mut state = self.backend.save()?;
            state.rip = state.rip.wrapping_add(1);
            self.backend.load(&state)?;
        }
        let kind = DeliveryKind::SoftwareException;
        Ok(Injection { kind, vector: vector::BP, error_code: None, length: 1 })
    }

    /// Completes the instruction that exited: the debugger's step is over.
    pub(super) fn skip(&mut self) -> Result<(), HostBug> {
        self.stepped = true;
        if self.backend.skip()? {
            self.trap()?;
        }
        Ok(())
    }

    /// The #DB behind an instruction that L0 completed with RFLAGS.TF set, unless the step is the debugger's (Linux 6.12,
    /// `kvm_vcpu_do_singlestep`).
    pub(super) fn trap(&mut self) -> Result<(), HostBug> {
        if self.debugger.wants(SINGLE_STEP) {
            return Ok(());
        }
        let event = exception(vector::DB, None);
        self.events.exception = Some(event);
        self.detail = Dr6::BS.0;
        if !self.backend.in_l2() || !self.backend.reaches_l1(Arrival::Exception(event, self.detail))? {
            let mut state = self.backend.save()?;
            state.dr6 = state.dr6 & !DR6_CAUSES | DR6_ONES | Dr6::BS.0;
            self.backend.load(&state)?;
        }
        Ok(())
    }

    /// Whether L0 completed an instruction that the debugger stepped over: it is told as the processor would.
    pub(super) fn has_stepped(&mut self) -> Result<bool, HostBug> {
        let tells = std::mem::take(&mut self.stepped) && self.debugger.wants(SINGLE_STEP);
        if tells {
            self.exit = self.debug_exit(vector::DB, Dr6::BS.0)?;
        }
        Ok(tells)
    }

    /// What the client is told: the exception, and the causes in DR6.
    pub(super) fn debug_exit(&self, exception: u8, causes: u64) -> Result<ClientExit, HostBug> {
        let state = self.backend.save()?;
        let pc = state.rip.wrapping_add(state.segment(rootmode_arch::SegmentName::Cs).base);
        let dr7 = self.debugger.asks().registers.map_or(state.dr7, |(_, dr7)| dr7);
        Ok(ClientExit::Debug { exception, pc, dr6: causes | DR6_ONES, dr7 })
    }

    /// MOV to or from a debug register while the processor's are the debugger's. `None`: an exception is to be injected.
    pub(super) fn move_dr(
        &mut self,
        shared: &Shared,
        dr: u8,
        write: Option<u64>,
    ) -> Result<Option<u64>, Failure> {
        let mut state = self.backend.save()?;
        let raised = if state.cpl != 0 {
            Some(exception(vector::GP, Some(0)))
        } else if matches!(dr, 4 | 5) && state.cr4 & Cr4::DE.0 != 0 {
            Some(exception(vector::UD, None))
        } else if state.dr7 & Dr7::GD.0 != 0 {
            state.dr6 |= Dr6::BD.0;
            state.dr7 &= !Dr7::GD.0;
            self.backend.load(&state)?;
            Some(exception(vector::DB, None))
        } else if matches!(dr, 4..=7) && write.is_some_and(|value| value >> 32 != 0) {
            Some(exception(vector::GP, Some(0)))
        } else {
            None
        };
        if raised.is_some() {
            self.events.exception = raised;
            return Ok(None);
        }
        let Some(value) = write else {
            return Ok(Some(match dr {
                0..4 => shared.with(self.processor, |machine, _| machine.cpu().dr[usize::from(dr)]),
                4 | 6 => state.dr6,
                _ => state.dr7,
            }));
        };
        match dr {
            0..4 => shared.with(self.processor, |machine, _| machine.cpu_mut().dr[usize::from(dr)] = value),
            4 | 6 => state.dr6 = value & 0xe00f | DR6_ONES,
            _ => state.dr7 = value & 0xffff_2bff | DR7_ONES,
        }
        self.backend.load(&state)?;
        Ok(Some(value))
    }
}
