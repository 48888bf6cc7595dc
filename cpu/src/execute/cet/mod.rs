//! Control-flow enforcement: what enables it, shadow stacks, and the tracker of indirect branches
//! (SDM Vol. 1 "Control-Flow Enforcement Technology (CET)").
//!
//! `transfers` keeps shadow stacks through far transfers and deliveries, `instructions` are CET's own.

mod instructions;
mod transfers;

pub(crate) use instructions::{
    clear_busy, endbranch, increment, read_pointer, restore, save_previous, set_busy, write, write_user,
};
pub(crate) use transfers::{Frame, Return};

use super::Exec;
use crate::Cpu;
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use crate::state::Attention;
use rootmode_arch::{Cr4, Linear, vector};
use rootmode_mmu::{Access, AccessKind};

/// Bits of IA32_U_CET and IA32_S_CET.
pub(crate) mod bit {
    /// Shadow stacks.
    pub(crate) const SHADOW_STACK: u64 = 1;
    /// WRSS.
    pub(crate) const WRITE: u64 = 1 << 1;
    /// Indirect-branch tracking.
    pub(crate) const ENDBRANCH: u64 = 1 << 2;
    /// The bitmap of legacy code counts.
    pub(crate) const LEGACY: u64 = 1 << 3;
    /// The NOTRACK prefix counts.
    pub(crate) const NO_TRACK: u64 = 1 << 4;
    /// Legacy code does not suppress tracking.
    pub(crate) const SUPPRESS_DISABLED: u64 = 1 << 5;
    /// Bits that must be 0.
    pub(crate) const RESERVED: u64 = 0xf << 6;
    /// Tracking is suppressed.
    pub(crate) const SUPPRESS: u64 = 1 << 10;
    /// The next instruction must be ENDBRANCH.
    pub(crate) const WAIT: u64 = 1 << 11;
}

/// Error codes of #CP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Violation {
    NearReturn = 1,
    FarReturn = 2,
    Endbranch = 3,
    Restore = 4,
    SetBusy = 5,
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::with_code(vector::CP, violation as u32)
    }
}

/// CET's registers but for CR4.CET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ControlFlow {
    /// IA32_U_CET.
    pub user: u64,
    /// IA32_S_CET.
    pub supervisor: u64,
    /// SSP.
    pub ssp: u64,
    /// IA32_PL0_SSP to IA32_PL3_SSP.
    pub levels: [u64; 4],
    /// IA32_INTERRUPT_SSP_TABLE_ADDR.
    pub table: u64,
}

impl Cpu {
    /// IA32_U_CET or IA32_S_CET, whichever governs privilege level `cpl`; 0 where CET does not apply.
    const fn control_flow_at(&self, cpl: u8) -> u64 {
        if !self.cr4.contains(Cr4::CET) || !self.is_protected() {
            0
        } else if cpl == 3 {
            self.control_flow.user
        } else {
            self.control_flow.supervisor
        }
    }

    /// Whether shadow stacks are in use at privilege level `cpl`.
    pub(crate) const fn has_shadow_stack(&self, cpl: u8) -> bool {
        self.control_flow_at(cpl) & bit::SHADOW_STACK != 0
    }

    /// Whether indirect branches are tracked at privilege level `cpl`.
    pub(crate) const fn tracks_branches(&self, cpl: u8) -> bool {
        self.control_flow_at(cpl) & bit::ENDBRANCH != 0
    }

    /// Whether the next instruction needs the careful way: there is a shadow stack, or it must be ENDBRANCH.
    pub(crate) const fn enforces_control_flow(&self) -> bool {
        let control = self.control_flow_at(self.cpl);
        control & bit::SHADOW_STACK != 0 || control & bit::ENDBRANCH != 0 && control & bit::WAIT != 0
    }

    const fn tracker(&mut self) -> &mut u64 {
        if self.cpl == 3 { &mut self.control_flow.user } else { &mut self.control_flow.supervisor }
    }
}

impl Exec<'_, '_> {
    /// Bytes of a near return address on the shadow stack.
    const fn shadow_size(&self) -> u8 {
        if self.cpu.is_64_bit() { 8 } else { 4 }
    }

    /// Reads a shadow stack of the current privilege level.
    fn shadow_read(&mut self, at: u64, size: u8) -> Result<u64> {
        self.read(Linear(at), size, Access::shadow_stack(false, self.cpu.cpl == 3))
    }

    /// Writes a shadow stack of privilege level `level`.
    fn shadow_write(&mut self, at: u64, size: u8, value: u64, level: u8) -> Result {
        self.write(Linear(at), size, value, Access::shadow_stack(true, level == 3))
    }

    /// A near CALL: the shadow stack gets the return address as well. Nothing is committed but memory.
    /// Answers what SSP becomes.
    pub(crate) fn shadow_call(&mut self, next: u64) -> Result<u64> {
        let ssp = self.cpu.control_flow.ssp;
        if !self.cpu.has_shadow_stack(self.cpu.cpl) {
            return Ok(ssp);
        }
        let size = self.shadow_size();
        let ssp = ssp.wrapping_sub(u64::from(size));
        self.shadow_write(ssp, size, next, self.cpu.cpl)?;
        Ok(ssp)
    }

    /// A near RET to `target`. Answers what SSP becomes.
    ///
    /// # Errors
    /// #CP(NEAR-RET) when the shadow stack says something else.
    pub(crate) fn shadow_return(&mut self, target: u64) -> Result<u64> {
        let ssp = self.cpu.control_flow.ssp;
        if !self.cpu.has_shadow_stack(self.cpu.cpl) {
            return Ok(ssp);
        }
        let size = self.shadow_size();
        if self.shadow_read(ssp, size)? != target {
            return Err(Violation::NearReturn.into());
        }
        Ok(ssp.wrapping_add(u64::from(size)))
    }

    /// After an indirect near CALL or JMP: the next instruction must be ENDBRANCH, unless NOTRACK says otherwise.
    pub(crate) fn track_indirect(&mut self, op: &Decoded) {
        let control = self.cpu.control_flow_at(self.cpu.cpl);
        let no_track = control & bit::NO_TRACK != 0 && has_no_track(op);
        if control & bit::ENDBRANCH != 0 && control & bit::SUPPRESS == 0 && !no_track {
            *self.cpu.tracker() |= bit::WAIT;
            self.cpu.attention.0 |= Attention::CONTROL_FLOW;
        }
    }

    /// After a far transfer or a delivery, at the new privilege level.
    pub(crate) fn track_far(&mut self) {
        if self.cpu.tracks_branches(self.cpu.cpl) {
            let tracker = self.cpu.tracker();
            *tracker = *tracker & !bit::SUPPRESS | bit::WAIT;
            self.cpu.attention.0 |= Attention::CONTROL_FLOW;
        }
    }

    /// Before an instruction executes: an indirect branch must have led to ENDBRANCH, or into code that the legacy bitmap
    /// names. INT3 and INT1 go first.
    ///
    /// # Errors
    /// #CP(ENDBRANCH).
    pub(crate) fn check_tracker(&mut self, op: &Decoded) -> Result {
        let control = self.cpu.control_flow_at(self.cpu.cpl);
        let waits = control & bit::ENDBRANCH != 0 && control & bit::WAIT != 0;
        if !waits || instructions::is_endbranch(self.cpu, op) || matches!(op.current.bytes[0], 0xcc | 0xf1) {
            return Ok(());
        }
        if control & bit::LEGACY == 0 {
            return Err(Violation::Endbranch.into());
        }
        // One bit for every page of the address space that the mode has.
        let address = self.cpu.code_address().0 & 0xffff_ffff_ffff;
        let page = address >> 12;
        let at = Linear((control & !0xfff).wrapping_add(page >> 3));
        let byte =
            self.read(at, 1, Access { user: self.cpu.cpl == 3, ..Access::implicit(AccessKind::Read) })?;
        if byte >> (page & 7) & 1 == 0 {
            return Err(Violation::Endbranch.into());
        }
        let tracker = self.cpu.tracker();
        *tracker &= !bit::WAIT;
        if control & bit::SUPPRESS_DISABLED == 0 {
            *tracker |= bit::SUPPRESS;
        }
        self.cpu.update_attention();
        Ok(())
    }
}

/// Whether a near branch has the prefix 3EH, and no later segment prefix that replaces it.
fn has_no_track(op: &Decoded) -> bool {
    let prefixes = op.current.bytes.iter().take_while(|byte| is_prefix(**byte));
    prefixes.filter(|byte| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65)).last() == Some(&0x3e)
}

const fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}
