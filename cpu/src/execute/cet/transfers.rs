//! Shadow stacks through far CALL and RET, IRET, deliveries, SYSCALL and SYSENTER
//! (SDM Vol. 1 "Shadow Stack Usage on Privilege Level Changes", the pseudo-code of each instruction).

use super::super::Exec;
use super::Violation;
use crate::fault::{Fault, Result};
use rootmode_arch::{AccessRights, Linear, Segment, SegmentName};
use rootmode_mmu::Access;

/// Bytes of a far frame: CS, linear return address, SSP.
const FRAME: u64 = 24;

/// What a far CALL or delivery puts on shadow stacks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// The new privilege level.
    pub(crate) level: u8,
    /// Where to return to, as an offset in CS.
    pub(crate) next: u64,
    /// The gate's IST field; not 0: the shadow stack comes from the interrupt SSP table.
    pub(crate) ist: u64,
}

/// A return by far RET or IRET.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Return {
    pub(crate) code: Segment,
    pub(crate) offset: u64,
}

impl Exec<'_, '_> {
    /// The code address that shadow stacks keep.
    fn linear_code(&self, segment: &Segment, offset: u64) -> u64 {
        if self.is_long() && segment.rights.contains(AccessRights::L) {
            offset
        } else {
            segment.base.wrapping_add(offset) & 0xffff_ffff
        }
    }

    /// Takes the shadow stack whose token lies at `at`: it must be free, and becomes busy.
    pub(super) fn take_token(&mut self, at: u64, level: u8, fault: Fault) -> Result {
        if at & 7 != 0 {
            return Err(Fault::GP0);
        }
        let token = self.read(Linear(at), 8, Access::shadow_stack(true, level == 3))?;
        if token != at {
            return Err(fault);
        }
        self.shadow_write(at, 8, at | 1, level)
    }

    /// Gives back the supervisor shadow stack whose token lies at `at`. Whether it was busy.
    pub(super) fn free_token(&mut self, at: u64) -> Result<bool> {
        let token = self.read(Linear(at), 8, Access::shadow_stack(true, false))?;
        let busy = token == at | 1;
        if busy {
            self.shadow_write(at, 8, at, 0)?;
        }
        Ok(busy)
    }

    /// The shadow-stack side of a far CALL or a delivery, before registers are committed. Answers the new SSP and whether
    /// IA32_PL3_SSP takes the old one.
    ///
    /// # Errors
    /// #GP(0) for a token that is not free, #PF.
    pub(crate) fn shadow_enter(&mut self, frame: Frame) -> Result<u64> {
        let (cpl, old) = (self.cpu.cpl, self.cpu.control_flow.ssp);
        let had = self.cpu.has_shadow_stack(cpl) && !self.cpu.rflags().contains(rootmode_arch::RFlags::VM);
        if !self.cpu.has_shadow_stack(frame.level) {
            return Ok(old);
        }
        let mut ssp = old;
        if frame.ist != 0 || frame.level != cpl {
            ssp = if frame.ist != 0 {
                let slot = Linear(self.cpu.control_flow.table.wrapping_add(frame.ist * 8));
                self.read(slot, 8, Access::implicit(rootmode_mmu::AccessKind::Read))?
            } else {
                self.cpu.control_flow.levels[usize::from(frame.level)]
            };
            self.take_token(ssp, frame.level, Fault::GP0)?;
            if cpl == 3 || !had {
                return Ok(ssp);
            }
        } else if ssp & 4 != 0 {
            self.shadow_write(ssp.wrapping_sub(4), 4, 0, frame.level)?;
            ssp = ssp.wrapping_sub(4);
        }
        let cs = *self.cpu.segment(SegmentName::Cs);
        let words = [u64::from(cs.selector.0), self.linear_code(&cs, frame.next), old];
        for word in words {
            ssp = ssp.wrapping_sub(8);
            self.shadow_write(ssp, 8, word, frame.level)?;
        }
        Ok(ssp)
    }

    /// Commits what [`Self::shadow_enter`] answered; `from` is the privilege level that was left.
    pub(crate) fn commit_shadow_enter(&mut self, from: u8, ssp: u64) {
        let flow = &mut self.cpu.control_flow;
        if from == 3 && self.cpu.cpl != 3 {
            flow.levels[3] = flow.ssp;
        }
        flow.ssp = ssp;
        self.track_far();
    }

    /// The shadow-stack side of a far RET or IRET, before registers are committed. Answers the new SSP.
    ///
    /// # Errors
    /// #CP(FAR-RET/IRET) when the shadow stack says something else.
    pub(crate) fn shadow_leave(&mut self, to: Return) -> Result<u64> {
        let (cpl, old) = (self.cpu.cpl, self.cpu.control_flow.ssp);
        let level = to.code.selector.rpl();
        let mut ssp = old;
        if self.cpu.has_shadow_stack(cpl) {
            let mut token = old;
            if level == cpl || level != 3 {
                if old & 7 != 0 {
                    return Err(Violation::FarReturn.into());
                }
                ssp = self.shadow_read(old, 8)?;
                let address = self.shadow_read(old.wrapping_add(8), 8)?;
                let selector = self.shadow_read(old.wrapping_add(16), 8)?;
                let same = selector == u64::from(to.code.selector.0)
                    && address == self.linear_code(&to.code, to.offset);
                if !same || ssp & 3 != 0 {
                    return Err(Violation::FarReturn.into());
                }
                token = old.wrapping_add(FRAME);
            }
            // The stack that is left becomes free. Within a level only another stack (an IST's) has a token there.
            if cpl != 3 && (level != cpl || ssp != token) && token & 7 == 0 {
                self.free_token_if_mapped(token, level != cpl)?;
            }
        }
        if level == 3 && cpl != 3 {
            ssp = self.cpu.control_flow.levels[3];
        }
        let compatible = self.is_long() && !to.code.rights.contains(AccessRights::L);
        if self.cpu.has_shadow_stack(level) && compatible && ssp >> 32 != 0 {
            return Err(Fault::GP0);
        }
        Ok(ssp)
    }

    fn free_token_if_mapped(&mut self, at: u64, leaves: bool) -> Result {
        if leaves || self.translate(Linear(at), Access::shadow_stack(true, false)).is_ok() {
            self.free_token(at)?;
        }
        Ok(())
    }

    /// SYSCALL and SYSENTER: the user's SSP goes to IA32_PL3_SSP, the supervisor starts without one. Call it at the new level.
    pub(crate) fn shadow_system_call(&mut self, from: u8) {
        if self.cpu.has_shadow_stack(from) {
            self.cpu.control_flow.levels[3] = self.cpu.control_flow.ssp;
        }
        if self.cpu.has_shadow_stack(0) {
            self.cpu.control_flow.ssp = 0;
        }
        self.track_far();
    }

    /// SYSRET and SYSEXIT, at level 3 again.
    pub(crate) fn shadow_system_return(&mut self) {
        if self.cpu.has_shadow_stack(3) {
            self.cpu.control_flow.ssp = self.cpu.control_flow.levels[3];
        }
    }
}
