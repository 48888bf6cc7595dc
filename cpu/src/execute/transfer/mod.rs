//! Transfers between segments, privilege levels and tasks. Every one checks everything first, then writes the new stack,
//! then commits registers.
//!
//! - `deliver`: exceptions and interrupts, real mode's vector table and virtual-8086 redirection; `gates`: protected mode's
//!   IDT; `long`: that of long mode.
//! - `far`: far JMP and CALL; `call_gate`; `task`: task switches; `returns`: far RET; `iret`.
//! - `fast`: SYSCALL, SYSENTER and their returns.

mod call_gate;
mod deliver;
mod far;
mod fast;
mod gates;
mod iret;
mod long;
mod returns;
mod stack;
mod task;

pub(crate) use far::{call_far, jmp_far};
pub(crate) use fast::{syscall, sysenter, sysexit, sysret};
pub(crate) use iret::iret;
pub(crate) use returns::ret_far;

use super::Exec;
use super::descriptors::Descriptor;
use super::flags::mask;
use crate::fault::{Fault, Result};
use rootmode_arch::{AccessRights, Efer, Linear, Segment, SegmentName, Selector, Vendor, vector};

impl Exec<'_, '_> {
    /// Whether the processor is in IA-32e mode: 64-bit or compatibility mode.
    pub(crate) const fn is_long(&self) -> bool {
        self.cpu.efer.contains(Efer::LMA)
    }

    /// # Errors
    /// `fault` if `offset` is outside of `code`: not canonical in 64-bit code, beyond the limit elsewhere.
    fn check_code_offset(&self, code: &Segment, offset: u64, fault: Fault) -> Result {
        let inside = if self.is_long() && code.rights.contains(AccessRights::L) {
            Linear(offset).is_canonical(self.cpu.linear_width())
        } else {
            offset <= u64::from(code.limit)
        };
        if inside { Ok(()) } else { Err(fault) }
    }

    /// The part of a far pointer's or far return's `offset` that counts in `code`: outside 64-bit code Intel's parts take 32 bits.
    fn far_offset(&self, code: &Segment, offset: u64) -> u64 {
        let whole = code.rights.contains(AccessRights::L) || self.cpu.model.vendor() == Vendor::Amd;
        if whole { offset } else { offset & mask(4) }
    }

    /// The code segment of `descriptor` with `cpl` as its selector's RPL, once its accessed flag is set.
    fn code_segment(&mut self, descriptor: Descriptor, selector: Selector, cpl: u8) -> Result<Segment> {
        self.mark(descriptor, 1)?;
        let selector = Selector(selector.0 & !3 | u16::from(cpl));
        Ok(descriptor.segment(selector, AccessRights::ACCESSED))
    }

    /// Code that may run in long mode has L or D, not both.
    fn check_code_size(&self, rights: AccessRights, code: u32) -> Result {
        if self.is_long() && rights.contains(AccessRights::L | AccessRights::DB) {
            return Err(Fault::with_code(vector::GP, code));
        }
        Ok(())
    }

    /// On a return to the lower privilege level `cpl`, data segments that it may not use become null.
    fn forget_privileged_segments(&mut self, cpl: u8) {
        for name in [SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs] {
            let segment = self.cpu.segment_mut(name);
            let conforming = super::inspect::is_conforming(segment.rights);
            if segment.rights.is_usable() && !conforming && segment.rights.dpl() < cpl {
                segment.selector = Selector(0);
                segment.rights = segment.rights.with(AccessRights::UNUSABLE);
            }
        }
    }
}

/// Whether `rights` are those of a code segment.
const fn is_code(rights: AccessRights) -> bool {
    rights.contains(AccessRights(AccessRights::S.0 | AccessRights::CODE.0))
}

/// Whether `rights` are those of a writable data segment.
const fn is_stack(rights: AccessRights) -> bool {
    rights.contains(AccessRights(AccessRights::S.0 | AccessRights::WRITABLE.0))
        && !rights.contains(AccessRights::CODE)
}

/// The selector as error codes carry it.
const fn selector_code(selector: Selector) -> u32 {
    (selector.0 & !3) as u32
}

/// SS after a privilege change in 64-bit mode: null with the level as RPL and DPL.
const fn null_stack(cpl: u8) -> Segment {
    Segment {
        selector: Selector(cpl as u16),
        rights: AccessRights(AccessRights::UNUSABLE.0 | (cpl as u32) << 5),
        limit: 0,
        base: 0,
    }
}
