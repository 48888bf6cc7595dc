//! RFLAGS: the status flags are computed when somebody asks; and whose TLB shortcuts an access uses.

use super::{Attention, Cpu};
use crate::execute::flags::{self, STATUS};
use rootmode_arch::{Cr4, RFlags, Vendor};
use rootmode_mmu::Bank;

impl Cpu {
    /// RFLAGS.
    pub const fn rflags(&self) -> RFlags {
        if self.pending { RFlags(self.flags & !STATUS | self.pending_status()) } else { RFlags(self.flags) }
    }

    /// RFLAGS as an event that comes now saves it: with RF between the iterations of a REP instruction on Intel's parts
    /// (SDM Vol. 3B "Instruction-Breakpoint Exception Condition"). AMD's leave RF as it is, as a host of theirs shows.
    pub fn saved_flags(&self) -> RFlags {
        let amid = self.repeating && self.model.vendor() == Vendor::Intel;
        self.rflags().set(RFlags::RF, amid || self.flags & RFlags::RF.0 != 0)
    }

    /// RFLAGS without the status flags, which may be out of date: for tests of IF, DF, AC and the like.
    #[inline(always)]
    pub(crate) const fn control_flags(&self) -> RFlags {
        RFlags(self.flags & !STATUS)
    }

    /// The status flags that `result` and `carries` stand for.
    const fn pending_status(&self) -> u64 {
        let (result, carries) = (self.result, self.carries);
        let parity = if (result as u8).count_ones() & 1 == 0 { flags::PF } else { 0 };
        let zero = if result == 0 { flags::ZF } else { 0 };
        (carries >> 63) * flags::CF
            | parity
            | carries << 1 & flags::AF
            | zero
            | (result >> 63) * flags::SF
            | ((carries ^ carries << 1) >> 63) * flags::OF
    }

    /// Replaces RFLAGS (bit 1 is set, reserved bits are cleared) and recomputes [`Cpu::attention`].
    pub fn set_rflags(&mut self, flags: RFlags) {
        self.load_rflags(flags);
        self.update_attention();
    }

    /// [`Self::set_rflags`] for extensions amid a transition, which call [`Cpu::refresh`] at its end.
    pub const fn load_rflags(&mut self, flags: RFlags) {
        self.pending = false;
        self.flags = flags.0 & !RFlags::RESERVED_ZERO | RFlags::ONE.0;
    }

    /// Clears RFLAGS.RF behind the instruction that it was for.
    #[inline]
    pub(crate) const fn end_resume(&mut self) {
        self.flags &= !RFlags::RF.0;
        self.attention.0 &= !Attention::RESUME;
    }

    /// Replaces the status flags in `mask` (of CF, PF, AF, ZF, SF and OF) only: no effect on interruptibility.
    pub const fn set_status(&mut self, mask: u64, flags: u64) {
        self.flags = self.rflags().0 & !mask | flags & mask;
        self.pending = false;
    }

    /// Leaves all status flags to be computed from `result` and `carries` when somebody asks.
    #[inline(always)]
    pub(crate) const fn set_pending_status(&mut self, result: u64, carries: u64) {
        self.pending = true;
        self.result = result;
        self.carries = carries;
    }

    /// Whose tables instruction fetches use.
    #[inline(always)]
    pub(crate) const fn code_bank(&self) -> Bank {
        if self.cpl == 3 { Bank::User } else { Bank::Supervisor }
    }

    /// Replaces CF and OF.
    #[inline(always)]
    pub(crate) const fn set_carry_overflow(&mut self, carry: bool, overflow: bool) {
        if self.pending {
            self.carries =
                self.carries & (u64::MAX >> 2) | (carry as u64) << 63 | ((carry != overflow) as u64) << 62;
        } else {
            let set = carry as u64 * flags::CF | overflow as u64 * flags::OF;
            self.flags = self.flags & !(flags::CF | flags::OF) | set;
        }
    }

    /// Replaces CF alone.
    #[inline(always)]
    pub(crate) const fn set_carry(&mut self, carry: bool) {
        if self.pending {
            // Bit 62 keeps what it says of OF.
            let flip = (self.carries >> 63) ^ carry as u64;
            self.carries ^= flip << 63 | flip << 62;
        } else {
            self.flags = self.flags & !flags::CF | carry as u64 * flags::CF;
        }
    }

    /// CF.
    #[inline(always)]
    pub(crate) const fn carry(&self) -> bool {
        if self.pending { self.carries >> 63 != 0 } else { self.flags & flags::CF != 0 }
    }

    /// Whether condition `code` (as encoded in Jcc) holds.
    #[inline(always)]
    pub(crate) const fn holds(&self, code: u8) -> bool {
        if !self.pending {
            return flags::condition(self.flags, code);
        }
        let (result, carries) = (self.result, self.carries);
        let holds = match code >> 1 {
            0 => (carries ^ carries << 1) >> 63 != 0,
            1 => carries >> 63 != 0,
            2 => result == 0,
            3 => carries >> 63 != 0 || result == 0,
            4 => result >> 63 != 0,
            5 => (result as u8).count_ones() & 1 == 0,
            6 => (result ^ carries ^ carries << 1) >> 63 != 0,
            _ => result == 0 || (result ^ carries ^ carries << 1) >> 63 != 0,
        };
        holds != (code & 1 != 0)
    }

    /// Whose tables of the TLB's shortcuts a data access of the running program uses.
    #[inline(always)]
    pub(crate) const fn bank(&self) -> Bank {
        if self.cpl == 3 {
            Bank::User
        } else if self.flags & RFlags::AC.0 != 0 && self.cr4.contains(Cr4::SMAP) {
            Bank::SupervisorOverride
        } else {
            Bank::Supervisor
        }
    }
}
