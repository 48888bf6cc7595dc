//! Checks of the guest's state: control registers, EFER, debug registers, code segment, shadow stacks, PDPEs.

use super::look::Look;
use super::{Corrections, Missing};
use crate::vmcb::Field;
use rootmode_arch::{Cr0, Cr4, Efer, Feature, HostPhysical, RFlags};

type Answer = Result<bool, Missing>;

/// CS.L in the VMCB's attribute layout.
pub(super) const CS_L: u64 = 1 << 9;
/// CS.D in the VMCB's attribute layout.
const CS_D: u64 = 1 << 10;
/// S_CET and U_CET: SH_STK_EN.
const SH_STK_EN: u64 = 1;
/// S_CET and U_CET: bits other than SH_STK_EN and WR_SHSTK_EN.
const CET_RESERVED: u64 = !3;
const HIGH_HALF: u64 = 0xffff_ffff_0000_0000;
const LONG_MODE: u64 = Efer::LME.0 | Efer::LMA.0;

#[inline(always)]
pub(super) fn svme(cx: &Look) -> Answer {
    Ok(cx.guest(Field::Efer)? & Efer::SVME.0 != 0)
}
pub(super) fn fix_svme(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Efer, 0, Efer::SVME.0);
}

/// The bits of EFER that other rules leave to "must be zero": without long mode, LME and LMA have a rule of their own.
#[inline(always)]
fn efer_mbz(cx: &Look) -> u64 {
    !(cx.processor.efer_allowed() | LONG_MODE)
}
#[inline(always)]
pub(super) fn efer_reserved(cx: &Look) -> Answer {
    Ok(cx.guest(Field::Efer)? & efer_mbz(cx) == 0)
}
pub(super) fn fix_efer_reserved(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Efer, efer_mbz(cx), 0);
}

#[inline(always)]
pub(super) fn efer_long_mode(cx: &Look) -> Answer {
    Ok(cx.processor.has(Feature::LongMode) || cx.guest(Field::Efer)? & LONG_MODE == 0)
}
pub(super) fn fix_efer_long_mode(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Efer, LONG_MODE, 0);
}

#[inline(always)]
pub(super) fn nw_without_cd(cx: &Look) -> Answer {
    Ok(cx.guest(Field::Cr0)? & (Cr0::CD.0 | Cr0::NW.0) != Cr0::NW.0)
}
pub(super) fn fix_nw_without_cd(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Cr0, Cr0::NW.0, 0);
    out.guest_bits(cx, Field::Cr0, 0, Cr0::CD.0);
}

#[inline(always)]
pub(super) fn cr0_high(cx: &Look) -> Answer {
    Ok(cx.guest(Field::Cr0)? & HIGH_HALF == 0)
}
pub(super) fn fix_cr0_high(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Cr0, HIGH_HALF, 0);
}

/// Bits above the physical width, in every mode; SEV's C-bit is no address bit of the guest. Bits 11:0 are ignored or a
/// PCID.
#[inline(always)]
fn cr3_mbz(cx: &Look) -> Result<u64, Missing> {
    let c_bit = if cx.is_sev()? { 1 << (cx.processor.sev.c_bit & 63) } else { 0 };
    Ok(!(cx.processor.physical_limit() - 1) & !c_bit)
}
#[inline(always)]
pub(super) fn cr3(cx: &Look) -> Answer {
    Ok(cx.guest(Field::Cr3)? & cr3_mbz(cx)? == 0)
}
pub(super) fn fix_cr3(cx: &Look, out: &mut Corrections) {
    if let Ok(mbz) = cr3_mbz(cx) {
        out.guest_bits(cx, Field::Cr3, mbz, 0);
    }
}

#[inline(always)]
pub(super) fn cr4(cx: &Look) -> Answer {
    Ok(cx.guest(Field::Cr4)? & !cx.processor.cr4_allowed() == 0)
}
pub(super) fn fix_cr4(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Cr4, !cx.processor.cr4_allowed(), 0);
}

#[inline(always)]
pub(super) fn dr6_high(cx: &Look) -> Answer {
    Ok(cx.guest(Field::Dr6)? & HIGH_HALF == 0)
}
pub(super) fn fix_dr6_high(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Dr6, HIGH_HALF, 0);
}

#[inline(always)]
pub(super) fn dr7_high(cx: &Look) -> Answer {
    Ok(cx.guest(Field::Dr7)? & HIGH_HALF == 0)
}
pub(super) fn fix_dr7_high(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Dr7, HIGH_HALF, 0);
}

#[inline(always)]
pub(super) fn long_mode_pae(cx: &Look) -> Answer {
    Ok(!cx.is_long_mode()? || cx.guest(Field::Cr4)? & Cr4::PAE.0 != 0)
}
pub(super) fn fix_long_mode_pae(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Cr4, 0, Cr4::PAE.0);
    out.guest_bits(cx, Field::Efer, LONG_MODE, 0);
    out.guest_bits(cx, Field::Cr0, Cr0::PG.0, 0);
}

#[inline(always)]
pub(super) fn long_mode_pe(cx: &Look) -> Answer {
    Ok(!cx.is_long_mode()? || cx.guest(Field::Cr0)? & Cr0::PE.0 != 0)
}
pub(super) fn fix_long_mode_pe(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Cr0, 0, Cr0::PE.0);
    out.guest_bits(cx, Field::Efer, LONG_MODE, 0);
    out.guest_bits(cx, Field::Cr0, Cr0::PG.0, 0);
}

#[inline(always)]
pub(super) fn code_segment(cx: &Look) -> Answer {
    Ok(!cx.is_long_mode()?
        || cx.guest(Field::CsAttrib)? & (CS_L | CS_D) != CS_L | CS_D
        || cx.guest(Field::Cr4)? & Cr4::PAE.0 == 0)
}
pub(super) fn fix_code_segment(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::CsAttrib, CS_D, 0);
    out.guest_bits(cx, Field::CsAttrib, CS_L, 0);
}

#[inline(always)]
pub(super) fn s_cet(cx: &Look) -> Answer {
    Ok(!cx.processor.has(Feature::Shstk) || cx.guest(Field::SCet)? & CET_RESERVED == 0)
}
pub(super) fn fix_s_cet(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::SCet, CET_RESERVED, 0);
}

/// CR4.CET, on a processor that has it.
#[inline(always)]
fn cet(cx: &Look) -> Result<bool, Missing> {
    Ok(cx.processor.has(Feature::Shstk) && cx.guest(Field::Cr4)? & Cr4::CET.0 != 0)
}
#[inline(always)]
pub(super) fn cet_wp(cx: &Look) -> Answer {
    Ok(!cet(cx)? || cx.guest(Field::Cr0)? & Cr0::WP.0 != 0)
}
pub(super) fn fix_cet_wp(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Cr0, 0, Cr0::WP.0);
    out.guest_bits(cx, Field::Cr4, Cr4::CET.0, 0);
}

/// U_CET: the VMSA's with SEV-ES; otherwise VMRUN does not load it, and the MSR's value stays in effect.
#[inline(always)]
fn u_cet(cx: &Look) -> Result<u64, Missing> {
    if cx.is_sev_es()? {
        return cx.vmsa(Field::UCet);
    }
    cx.host.u_cet.ok_or(Missing::Host(super::HostValue::UCet))
}
#[inline(always)]
pub(super) fn cet_virtual_8086(cx: &Look) -> Answer {
    Ok(!cet(cx)? || cx.guest(Field::Rflags)? & RFlags::VM.0 == 0 || u_cet(cx)? & SH_STK_EN == 0)
}
pub(super) fn fix_cet_virtual_8086(cx: &Look, out: &mut Corrections) {
    out.guest_bits(cx, Field::Cr4, Cr4::CET.0, 0);
    out.guest_bits(cx, Field::Rflags, RFlags::VM.0, 0);
}

#[inline(always)]
pub(super) fn u_cet_reserved(cx: &Look) -> Answer {
    Ok(!cx.processor.has(Feature::Shstk) || !cx.is_sev_es()? || cx.vmsa(Field::UCet)? & CET_RESERVED == 0)
}
pub(super) fn fix_u_cet_reserved(cx: &Look, out: &mut Corrections) {
    out.vmsa_bits(cx, Field::UCet, CET_RESERVED, 0);
}

/// The first of the four PDPEs that legacy PAE paging loads at VMRUN and that has a reserved bit set: its address and the
/// bits. With nested paging PDPEs are read when they are used.
#[inline(always)]
fn bad_pdpe(cx: &Look) -> Result<Option<(HostPhysical, u64)>, Missing> {
    let cr0 = cx.guest(Field::Cr0)?;
    let cr4 = cx.guest(Field::Cr4)?;
    if cr0 & Cr0::PG.0 == 0 || cr4 & Cr4::PAE.0 == 0 || cx.is_long_mode()? || cx.is_nested_paging()? {
        return Ok(None);
    }
    scan_pdpes(cx)
}
#[cold]
fn scan_pdpes(cx: &Look) -> Result<Option<(HostPhysical, u64)>, Missing> {
    let table = cx.guest(Field::Cr3)? & 0xffff_ffe0;
    let reserved = !(cx.processor.physical_limit() - 1) | 0x1e6;
    let mut missing = None;
    for index in 0..4 {
        let address = HostPhysical(table + 8 * index);
        match cx.memory.read_u64(address) {
            Some(entry) if entry & 1 != 0 && entry & reserved != 0 => {
                return Ok(Some((address, entry & reserved)));
            }
            Some(_) => {}
            None => missing = missing.or(Some(Missing::Memory(address))),
        }
    }
    missing.map_or(Ok(None), Err)
}
#[inline(always)]
pub(super) fn pdpes(cx: &Look) -> Answer {
    Ok(bad_pdpe(cx)?.is_none())
}
pub(super) fn fix_pdpes(cx: &Look, out: &mut Corrections) {
    if let Ok(Some((address, bits))) = bad_pdpe(cx)
        && let Some(entry) = cx.memory.read_u64(address)
    {
        out.memory(address, entry & !bits);
        out.memory(address, entry & !1);
    }
}
