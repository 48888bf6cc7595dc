//! "Checks on Guest Non-Register State": pending debug exceptions.

use super::{HLT, MOV_SS, STI};
use crate::definitions::field::Field;
use crate::rules::rules;
use crate::rules::view::{Missing, View};
use rootmode_arch::{DebugCtl, Feature, RFlags};

/// Bit 11: a bus lock was detected.
const BUS_LOCK: u64 = 1 << 11;
/// Bit 12: at least one enabled breakpoint was met.
const ENABLED: u64 = 1 << 12;
/// Bit 14: single step.
const BS: u64 = 1 << 14;
/// Bit 16: inside a transactional region.
const RTM: u64 = 1 << 16;
/// Bits 63:17, 15, 13 and 10:4.
const RESERVED: u64 = !0x1_ffff | 1 << 15 | 1 << 13 | 0x7f0;

impl<const PARTIAL: bool> View<'_, PARTIAL> {
    /// Whether the guest stands at a point where a single step would be pending: blocking by STI or MOV SS, or HLT.
    #[inline(always)]
    fn holds_single_step(&self) -> Result<bool, Missing> {
        Ok(!self.zero(Field::GuestInterruptibility, STI | MOV_SS)? || self.get(Field::GuestActivity)? == HLT)
    }
    /// Whether every instruction is stepped: TF is 1 and IA32_DEBUGCTL.BTF is 0.
    #[inline(always)]
    fn steps(&self) -> Result<bool, Missing> {
        Ok(self.rflags()?.contains(RFlags::TF) && self.zero(Field::GuestDebugCtl, DebugCtl::BTF.0)?)
    }
}

rules! {
    group NonRegister;

    "vmx.guest.pending-debug.reserved", [GuestPendingDebug]
    "Bits 63:17, 15, 13 and 10:4 of the pending debug exceptions must be 0.",
    |v| v.zero(Field::GuestPendingDebug, RESERVED)?;

    "vmx.guest.pending-debug.bus-lock", [GuestPendingDebug]
    "Bit 11 (bus lock) of the pending debug exceptions must be 0 unless the processor has OS bus-lock detection.",
    |v| v.zero(Field::GuestPendingDebug, BUS_LOCK)? || v.feature(Feature::BusLockDetect)?;

    "vmx.guest.pending-debug.step-set", [GuestPendingDebug]
    "With blocking by STI or MOV SS, or in activity state HLT: if TF is 1 and IA32_DEBUGCTL.BTF is 0, bit 14 (BS) of the pending debug exceptions must be 1.",
    |v| !v.zero(Field::GuestPendingDebug, BS)? || !v.holds_single_step()? || !v.steps()?;

    "vmx.guest.pending-debug.step-clear", [GuestPendingDebug]
    "With blocking by STI or MOV SS, or in activity state HLT: if TF is 0 or IA32_DEBUGCTL.BTF is 1, bit 14 (BS) of the pending debug exceptions must be 0.",
    |v| v.zero(Field::GuestPendingDebug, BS)? || !v.holds_single_step()? || v.steps()?;

    "vmx.guest.pending-debug.rtm.others", [GuestPendingDebug]
    "If bit 16 (RTM) of the pending debug exceptions is 1, bits 11, 3:0 and 14 must be 0.",
    |v| v.zero(Field::GuestPendingDebug, RTM)?
        || v.zero(Field::GuestPendingDebug, BUS_LOCK | BS | 0xf)?
        || !v.zero(Field::GuestPendingDebug, BUS_LOCK)? && !v.feature(Feature::BusLockDetect)?;

    "vmx.guest.pending-debug.rtm.enabled", [GuestPendingDebug]
    "If bit 16 (RTM) of the pending debug exceptions is 1, bit 12 (enabled breakpoint) must be 1.",
    |v| v.zero(Field::GuestPendingDebug, RTM)? || !v.zero(Field::GuestPendingDebug, ENABLED)?;

    "vmx.guest.pending-debug.rtm.supported", [GuestPendingDebug]
    "If bit 16 (RTM) of the pending debug exceptions is 1, the processor must support RTM.",
    |v| v.zero(Field::GuestPendingDebug, RTM)? || v.feature(Feature::Rtm)?;

    "vmx.guest.pending-debug.rtm.mov-ss", [GuestPendingDebug, GuestInterruptibility]
    "If bit 16 (RTM) of the pending debug exceptions is 1, there must be no blocking by MOV SS.",
    |v| v.zero(Field::GuestPendingDebug, RTM)? || v.zero(Field::GuestInterruptibility, MOV_SS)?;
}
