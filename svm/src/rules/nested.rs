//! Checks of nested paging, supervisor shadow stacks and AVIC.

use super::context::HostValue;
use super::control::fits;
use super::look::Look;
use super::{Corrections, Missing};
use crate::vmcb::{Field, IntCtl, NestedControl};
use rootmode_arch::{Cr0, Feature};

type Answer = Result<bool, Missing>;

/// Address bits of the AVIC pointers.
const POINTER: u64 = 0x000f_ffff_ffff_f000;
const MAX_INDEX: u64 = 0xfff;

#[inline(always)]
pub(super) fn host_paging(cx: &Look) -> Answer {
    Ok(!cx.is_nested_paging()? || cx.host.cr0.ok_or(Missing::Host(HostValue::Cr0))?.contains(Cr0::PG))
}
pub(super) fn fix_host_paging(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::NestedControl, NestedControl::NP_ENABLE.0, 0);
}

#[inline(always)]
pub(super) fn nested_cr3(cx: &Look) -> Answer {
    Ok(!cx.is_nested_paging()? || cx.control(Field::NestedCr3)? < cx.processor.physical_limit())
}
pub(super) fn fix_nested_cr3(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::NestedCr3, !(cx.processor.physical_limit() - 1), 0);
}

/// The bytes of a PAT that hold no memory type: types 2 and 3 are reserved, as are bits 7:3.
fn bad_pat_bytes(pat: u64) -> u64 {
    let mut bad = 0;
    for byte in 0..8 {
        if !matches!(pat >> (8 * byte) & 0xff, 0 | 1 | 4..=7) {
            bad |= 0xff << (8 * byte);
        }
    }
    bad
}
/// All eight bytes at once: no bit 7:3, and bit 1 only together with bit 2.
#[inline(always)]
const fn is_pat(pat: u64) -> bool {
    pat & 0xf8f8_f8f8_f8f8_f8f8 == 0 && (pat & 0x0202_0202_0202_0202) << 1 & !pat == 0
}
#[inline(always)]
pub(super) fn guest_pat(cx: &Look) -> Answer {
    Ok(!cx.is_nested_paging()? || is_pat(cx.guest(Field::GPat)?))
}
pub(super) fn fix_guest_pat(cx: &Look, out: &mut Corrections) {
    if let Ok(pat) = cx.guest(Field::GPat) {
        let bad = bad_pat_bytes(pat);
        out.guest_bits(cx, Field::GPat, bad, 0x0606_0606_0606_0606 & bad);
        out.guest_bits(cx, Field::GPat, bad, 0);
    }
}

#[inline(always)]
pub(super) fn shadow_stack_check(cx: &Look) -> Answer {
    Ok(!cx.processor.has(Feature::SupervisorShadowStack)
        || !cx.nested_control()?.contains(NestedControl::SSS_CHECK_ENABLE)
        || cx.is_nested_paging()?)
}
pub(super) fn fix_shadow_stack_check(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::NestedControl, NestedControl::SSS_CHECK_ENABLE.0, 0);
    out.control_bits(cx, Field::NestedControl, 0, NestedControl::NP_ENABLE.0);
}

#[inline(always)]
pub(super) fn avic_paging(cx: &Look) -> Answer {
    Ok(!cx.is_avic()? || cx.is_nested_paging()?)
}
pub(super) fn fix_avic_paging(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::IntCtl, (IntCtl::AVIC_ENABLE | IntCtl::X2AVIC_ENABLE).0.into(), 0);
    out.control_bits(cx, Field::NestedControl, 0, NestedControl::NP_ENABLE.0);
}

#[inline(always)]
pub(super) fn x2avic(cx: &Look) -> Answer {
    Ok(!cx.is_x2avic()? || cx.is_avic()?)
}
pub(super) fn fix_x2avic(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::IntCtl, IntCtl::X2AVIC_ENABLE.0.into(), 0);
    out.control_bits(cx, Field::IntCtl, 0, IntCtl::AVIC_ENABLE.0.into());
}

/// Whether the page that an AVIC pointer names exists.
#[inline(always)]
fn pointer(cx: &Look, field: Field) -> Answer {
    Ok(fits(cx, cx.control(field)? & POINTER, 0x1000))
}
fn fix_pointer(cx: &Look, field: Field, out: &mut Corrections) {
    out.control_bits(cx, field, POINTER & !(cx.processor.physical_limit() - 1), 0);
}

#[inline(always)]
pub(super) fn avic_backing_page(cx: &Look) -> Answer {
    Ok(!cx.is_avic()? || pointer(cx, Field::AvicBackingPage)?)
}
pub(super) fn fix_avic_backing_page(cx: &Look, out: &mut Corrections) {
    fix_pointer(cx, Field::AvicBackingPage, out);
}

#[inline(always)]
pub(super) fn avic_physical_table(cx: &Look) -> Answer {
    Ok(!cx.is_avic()? || pointer(cx, Field::AvicPhysicalTable)?)
}
pub(super) fn fix_avic_physical_table(cx: &Look, out: &mut Corrections) {
    fix_pointer(cx, Field::AvicPhysicalTable, out);
}

#[inline(always)]
pub(super) fn avic_logical_table(cx: &Look) -> Answer {
    Ok(!cx.is_avic()? || cx.is_x2avic()? || pointer(cx, Field::AvicLogicalTable)?)
}
pub(super) fn fix_avic_logical_table(cx: &Look, out: &mut Corrections) {
    fix_pointer(cx, Field::AvicLogicalTable, out);
}

#[inline(always)]
pub(super) fn avic_apic_bar(cx: &Look) -> Answer {
    Ok(!cx.is_avic()? || cx.is_x2avic()? || pointer(cx, Field::AvicApicBar)?)
}
pub(super) fn fix_avic_apic_bar(cx: &Look, out: &mut Corrections) {
    fix_pointer(cx, Field::AvicApicBar, out);
}

/// The greatest index of the physical APIC ID table in the VMCB's mode.
#[inline(always)]
fn greatest_index(cx: &Look) -> Result<u64, Missing> {
    Ok(match (cx.is_x2avic()?, cx.processor.x2avic_extended) {
        (false, _) => 255,
        (true, false) => 511,
        (true, true) => MAX_INDEX,
    })
}
#[inline(always)]
pub(super) fn avic_max_index(cx: &Look) -> Answer {
    Ok(!cx.is_avic()? || cx.control(Field::AvicPhysicalTable)? & MAX_INDEX <= greatest_index(cx)?)
}
pub(super) fn fix_avic_max_index(cx: &Look, out: &mut Corrections) {
    if let Ok(greatest) = greatest_index(cx) {
        out.control_bits(cx, Field::AvicPhysicalTable, MAX_INDEX, greatest);
    }
}
