//! Checks of the control area: VMRUN intercept, ASID, permission maps, TLB control, virtual NMI, injected event.

use super::look::Look;
use super::{Corrections, Missing};
use crate::bitmap::{Iopm, Msrpm};
use crate::vmcb::{EventInfo, EventKind, Field, IntCtl, Intercept, TlbControl};
use rootmode_arch::{Feature, vector};

type Answer = Result<bool, Missing>;

/// The bit of `intercept` in its field.
const fn mask(intercept: Intercept) -> u64 {
    1 << intercept.bit_in_field()
}

#[inline(always)]
pub(super) fn vmrun_intercept(cx: &Look) -> Answer {
    Ok(cx.control(Field::Intercept4)? & mask(Intercept::VMRUN) != 0)
}
pub(super) fn fix_vmrun_intercept(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::Intercept4, 0, mask(Intercept::VMRUN));
}

#[inline(always)]
pub(super) fn asid(cx: &Look) -> Answer {
    Ok(cx.control(Field::Asid)? != 0)
}
pub(super) fn fix_asid(cx: &Look, out: &mut Corrections) {
    out.control(Field::Asid, 1);
    // ASIDs below this one may be reserved for SEV-ES.
    out.control(Field::Asid, cx.processor.sev.min_asid_without_es.into());
}

/// Whether a table of `size` bytes at `base` (bits 11:0 ignored) ends below the physical limit.
#[inline(always)]
pub(super) fn fits(cx: &Look, base: u64, size: u64) -> bool {
    base & !0xfff <= cx.processor.physical_limit() - size
}

#[inline(always)]
pub(super) fn iopm(cx: &Look) -> Answer {
    Ok(fits(cx, cx.control(Field::IopmBase)?, Iopm::SIZE as u64))
}
pub(super) fn fix_iopm(cx: &Look, out: &mut Corrections) {
    out.control(Field::IopmBase, cx.processor.physical_limit() - Iopm::SIZE as u64);
}

#[inline(always)]
pub(super) fn msrpm(cx: &Look) -> Answer {
    // Its last byte must not be the last that the processor can reach either: every byte of the map is defined, so that a
    // map which ends there extends to the maximum address. (Most of the third page of the I/O map is not.)
    Ok(fits(cx, cx.control(Field::MsrpmBase)?, Msrpm::SIZE as u64 + 1))
}
pub(super) fn fix_msrpm(cx: &Look, out: &mut Corrections) {
    out.control(Field::MsrpmBase, cx.processor.physical_limit() - Msrpm::SIZE as u64 - 0x1000);
}

#[inline(always)]
pub(super) fn tlb_control(cx: &Look) -> Answer {
    Ok(match TlbControl::from_byte(cx.control(Field::TlbControl)? as u8) {
        Some(command) => !command.needs_flush_by_asid() || cx.processor.has(Feature::FlushByAsid),
        None => false,
    })
}
pub(super) fn fix_tlb_control(cx: &Look, out: &mut Corrections) {
    if cx.processor.has(Feature::FlushByAsid) {
        out.control(Field::TlbControl, TlbControl::FlushGuest as u64);
    }
    out.control(Field::TlbControl, TlbControl::FlushAll as u64);
    out.control(Field::TlbControl, TlbControl::Nothing as u64);
}

#[inline(always)]
pub(super) fn vnmi_intercept(cx: &Look) -> Answer {
    Ok(!cx.processor.has(Feature::VirtualNmi)
        || !cx.int_ctl()?.contains(IntCtl::V_NMI_ENABLE)
        || cx.control(Field::Intercept3)? & mask(Intercept::NMI) != 0)
}
pub(super) fn fix_vnmi_intercept(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::Intercept3, 0, mask(Intercept::NMI));
    out.control_bits(cx, Field::IntCtl, IntCtl::V_NMI_ENABLE.0.into(), 0);
}

#[inline(always)]
pub(super) fn event_type(cx: &Look) -> Answer {
    let event = cx.injection()?;
    Ok(!event.is_valid() || event.kind().is_some())
}

#[inline(always)]
pub(super) fn event_vector(cx: &Look) -> Answer {
    let event = cx.injection()?;
    let exception = event.is_valid() && matches!(event.kind(), Some(EventKind::Exception));
    Ok(!exception || event.vector() < 32 && event.vector() != vector::NMI)
}

#[inline(always)]
pub(super) fn event_mode(cx: &Look) -> Answer {
    let event = cx.injection()?;
    let legacy_only = event.is_valid()
        && matches!(event.kind(), Some(EventKind::Exception))
        && matches!(event.vector(), vector::OF | vector::BR);
    Ok(!(legacy_only && cx.is_long_mode()? && cx.guest(Field::CsAttrib)? & super::guest::CS_L != 0))
}

/// Proposes #GP with the error code that is there, and to inject nothing.
pub(super) fn fix_event(cx: &Look, out: &mut Corrections) {
    let Ok(event) = cx.injection() else { return };
    let general_protection = EventInfo::new(EventKind::Exception, vector::GP, None).0
        | EventInfo::ERROR_CODE_VALID
        | event.0 & 0xffff_ffff_0000_0000;
    let nothing = event.0 & !EventInfo::VALID;
    let interrupt = EventInfo::new(EventKind::Interrupt, event.vector(), None).0;
    for value in [general_protection, interrupt, nothing] {
        if cx.sev_features().is_ok_and(|features| features & super::sev::ALTERNATE_INJECTION != 0) {
            out.vmsa(Field::GuestEventInj, value);
        } else {
            out.control(Field::EventInj, value);
        }
    }
}
