//! Checks of memory encryption: SEV, SEV-ES, SEV-SNP. Checks against the reverse map table are not among them: they
//! depend on who owns pages, not on the VMCB.

use super::context::HostValue;
use super::control::fits;
use super::look::Look;
use super::{Corrections, Missing};
use crate::vmcb::{EventInfo, EventKind, Field, NestedControl, VirtExt};
use rootmode_arch::{Feature, vector};

type Answer = Result<bool, Missing>;

const SNP_ACTIVE: u64 = 1 << 0;
const RESTRICTED_INJECTION: u64 = 1 << 3;
/// SEV_FEATURES: injection is controlled from the VMSA.
pub(super) const ALTERNATE_INJECTION: u64 = 1 << 4;
const PREVENT_HOST_IBS: u64 = 1 << 6;
const PMC_VIRTUALIZATION: u64 = 1 << 11;
const IBS_VIRTUALIZATION: u64 = 1 << 12;
const GUEST_INTERCEPT_CONTROL: u64 = 1 << 13;
const SMT_PROTECTION: u64 = 1 << 15;
const SECURE_AVIC: u64 = 1 << 16;
/// Features that a guest has only while the mask of allowed features is enabled.
const NEED_MASK: u64 = PMC_VIRTUALIZATION | GUEST_INTERCEPT_CONTROL | SECURE_AVIC;
const ALLOWED_ENABLE: u64 = 1 << 63;
const ALLOWED_MASK: u64 = (1 << 62) - 1;
const VINTR_BUSY: u64 = 1 << 63;
/// PerfEvtSel: the counter is enabled.
const PERF_ENABLE: u64 = 1 << 22;
/// PerfCntGlobalCtl: enables of the six counters.
const PERF_GLOBAL_ENABLE: u64 = 0x3f;
const PERF_CTLS: [Field; 6] =
    [Field::PerfCtl0, Field::PerfCtl1, Field::PerfCtl2, Field::PerfCtl3, Field::PerfCtl4, Field::PerfCtl5];
/// #HV in an encoding that restricted injection allows.
const HV_EVENT: EventInfo = EventInfo::new(EventKind::Exception, vector::HV, None);

const fn host(value: HostValue) -> Missing {
    Missing::Host(value)
}

#[inline(always)]
fn has_feature(cx: &Look, feature: u64) -> Answer {
    Ok(cx.sev_features()? & feature != 0)
}
fn drop_feature(cx: &Look, feature: u64, out: &mut Corrections) {
    out.vmsa_bits(cx, Field::SevFeatures, feature, 0);
}
fn drop_sev(cx: &Look, out: &mut Corrections) {
    let both = NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE;
    out.control_bits(cx, Field::NestedControl, both.0, 0);
}

#[inline(always)]
pub(super) fn nested_paging(cx: &Look) -> Answer {
    Ok(!cx.is_sev()? || cx.is_nested_paging()?)
}
pub(super) fn fix_nested_paging(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::NestedControl, 0, NestedControl::NP_ENABLE.0);
    drop_sev(cx, out);
}

#[inline(always)]
pub(super) fn smm_lock(cx: &Look) -> Answer {
    Ok(!cx.is_sev()? || cx.host.smm_locked.ok_or(host(HostValue::SmmLock))?)
}
pub(super) fn fix_host(cx: &Look, out: &mut Corrections) {
    drop_sev(cx, out);
}

#[inline(always)]
pub(super) fn asid_range(cx: &Look) -> Answer {
    Ok(!cx.is_sev()? || cx.control(Field::Asid)? <= cx.processor.sev.encrypted_guests.into())
}
pub(super) fn fix_asid_range(cx: &Look, out: &mut Corrections) {
    out.control(Field::Asid, cx.processor.sev.encrypted_guests.into());
    drop_sev(cx, out);
}

/// ASID 0 has a rule of its own.
#[inline(always)]
pub(super) fn asid_without_es(cx: &Look) -> Answer {
    if !cx.is_sev()? || cx.is_sev_es()? {
        return Ok(true);
    }
    let asid = cx.control(Field::Asid)?;
    Ok(asid == 0 || asid >= cx.processor.sev.min_asid_without_es.into())
}
pub(super) fn fix_asid_without_es(cx: &Look, out: &mut Corrections) {
    out.control(Field::Asid, cx.processor.sev.min_asid_without_es.into());
    drop_sev(cx, out);
}

#[inline(always)]
pub(super) fn host_mode(cx: &Look) -> Answer {
    Ok(!cx.is_sev()?
        || !cx.processor.sev.host_64_bit_only
        || cx.host.in_64_bit_mode.ok_or(host(HostValue::In64BitMode))?)
}

#[inline(always)]
pub(super) fn es_needs_sev(cx: &Look) -> Answer {
    if !cx.processor.has(Feature::SevEs) {
        return Ok(true);
    }
    let control = cx.nested_control()?;
    Ok(!control.contains(NestedControl::SEV_ES_ENABLE)
        || control.contains(NestedControl::SEV_ENABLE)
        || !cx.host.memory_encryption.ok_or(host(HostValue::MemoryEncryption))?)
}
pub(super) fn fix_es_needs_sev(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::NestedControl, NestedControl::SEV_ES_ENABLE.0, 0);
    out.control_bits(cx, Field::NestedControl, 0, NestedControl::SEV_ENABLE.0);
}

#[inline(always)]
pub(super) fn es_needs_lbr(cx: &Look) -> Answer {
    Ok(!cx.is_sev_es()? || cx.control(Field::VirtExt)? & VirtExt::LBR_ENABLE.0 != 0)
}
pub(super) fn fix_es_needs_lbr(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::VirtExt, 0, VirtExt::LBR_ENABLE.0);
}

#[inline(always)]
pub(super) fn vmsa_pointer(cx: &Look) -> Answer {
    Ok(!cx.is_sev_es()? || fits(cx, cx.control(Field::VmsaPointer)?, 0x1000))
}
pub(super) fn fix_vmsa_pointer(cx: &Look, out: &mut Corrections) {
    out.control_bits(cx, Field::VmsaPointer, !(cx.processor.physical_limit() - 1), 0);
}

/// The event that the hypervisor injects into an SEV-ES guest. With alternate injection it is ignored.
#[inline(always)]
fn host_injection(cx: &Look) -> Result<EventInfo, Missing> {
    if !cx.is_sev_es()? || has_feature(cx, ALTERNATE_INJECTION)? {
        return Ok(EventInfo::NONE);
    }
    cx.control(Field::EventInj).map(EventInfo)
}
#[inline(always)]
pub(super) fn es_software_event(cx: &Look) -> Answer {
    let event = host_injection(cx)?;
    Ok(!event.is_valid()
        || match event.kind() {
            Some(EventKind::SoftwareInterrupt) => false,
            Some(EventKind::Exception) => !matches!(event.vector(), vector::BP | vector::OF),
            _ => true,
        })
}
#[inline(always)]
pub(super) fn hv_event(cx: &Look) -> Answer {
    let event = host_injection(cx)?;
    let hv =
        event.is_valid() && event.type_bits() == EventKind::Exception as u8 && event.vector() == vector::HV;
    Ok(!hv || has_feature(cx, RESTRICTED_INJECTION)?)
}
pub(super) fn fix_es_event(cx: &Look, out: &mut Corrections) {
    let Ok(event) = host_injection(cx) else { return };
    out.control(Field::EventInj, EventInfo::new(EventKind::Interrupt, event.vector(), None).0);
    out.control(Field::EventInj, event.0 & !EventInfo::VALID);
}

#[inline(always)]
pub(super) fn busy(cx: &Look) -> Answer {
    Ok(!cx.processor.has(Feature::SevSnp) || !cx.is_sev_es()? || cx.vmsa(Field::VintrCtrl)? & VINTR_BUSY == 0)
}
pub(super) fn fix_busy(cx: &Look, out: &mut Corrections) {
    out.vmsa_bits(cx, Field::VintrCtrl, VINTR_BUSY, 0);
}

#[inline(always)]
pub(super) fn snp_enabled(cx: &Look) -> Answer {
    Ok(!has_feature(cx, SNP_ACTIVE)?
        || cx.host.secure_nested_paging.ok_or(host(HostValue::SecureNestedPaging))?)
}
pub(super) fn fix_snp_enabled(cx: &Look, out: &mut Corrections) {
    drop_feature(cx, SNP_ACTIVE, out);
}

#[inline(always)]
pub(super) fn injection_exclusive(cx: &Look) -> Answer {
    let both = RESTRICTED_INJECTION | ALTERNATE_INJECTION;
    Ok(cx.sev_features()? & both != both)
}
pub(super) fn fix_injection_exclusive(cx: &Look, out: &mut Corrections) {
    drop_feature(cx, ALTERNATE_INJECTION, out);
    drop_feature(cx, RESTRICTED_INJECTION, out);
}

#[inline(always)]
pub(super) fn restricted_event(cx: &Look) -> Answer {
    let event = host_injection(cx)?;
    if !event.is_valid() || !has_feature(cx, RESTRICTED_INJECTION)? {
        return Ok(true);
    }
    let looked_at = EventInfo::VALID | EventInfo::ERROR_CODE_VALID | 0x7ff;
    Ok(event.0 & looked_at == HV_EVENT.0)
}
pub(super) fn fix_restricted_event(_: &Look, out: &mut Corrections) {
    out.control(Field::EventInj, HV_EVENT.0);
    out.control(Field::EventInj, 0);
}

#[inline(always)]
pub(super) fn restricted_avic(cx: &Look) -> Answer {
    Ok(!has_feature(cx, RESTRICTED_INJECTION)? || !cx.is_avic()?)
}
#[inline(always)]
pub(super) fn alternate_avic(cx: &Look) -> Answer {
    Ok(!has_feature(cx, ALTERNATE_INJECTION)? || !cx.is_avic()?)
}
pub(super) fn fix_avic(cx: &Look, out: &mut Corrections) {
    let both = crate::vmcb::IntCtl::AVIC_ENABLE | crate::vmcb::IntCtl::X2AVIC_ENABLE;
    out.control_bits(cx, Field::IntCtl, both.0.into(), 0);
    drop_feature(cx, RESTRICTED_INJECTION | ALTERNATE_INJECTION, out);
}

#[inline(always)]
pub(super) fn allowed_features(cx: &Look) -> Answer {
    let features = cx.sev_features()?;
    if features == 0 {
        return Ok(true);
    }
    let allowed = cx.control(Field::AllowedSevFeatures)?;
    Ok(allowed & ALLOWED_ENABLE == 0 || features & !(allowed & ALLOWED_MASK) == 0)
}
pub(super) fn fix_allowed_features(cx: &Look, out: &mut Corrections) {
    if let (Ok(features), Ok(allowed)) = (cx.sev_features(), cx.control(Field::AllowedSevFeatures)) {
        drop_feature(cx, !(allowed & ALLOWED_MASK), out);
        out.control_bits(cx, Field::AllowedSevFeatures, 0, features & ALLOWED_MASK);
    }
}

#[inline(always)]
pub(super) fn features_need_mask(cx: &Look) -> Answer {
    Ok(!has_feature(cx, NEED_MASK)? || cx.control(Field::AllowedSevFeatures)? & ALLOWED_ENABLE != 0)
}
pub(super) fn fix_features_need_mask(cx: &Look, out: &mut Corrections) {
    drop_feature(cx, NEED_MASK, out);
    if let Ok(features) = cx.sev_features() {
        out.control_bits(cx, Field::AllowedSevFeatures, 0, ALLOWED_ENABLE | features & ALLOWED_MASK);
    }
}

#[inline(always)]
fn without_host_ibs(cx: &Look, feature: u64) -> Answer {
    Ok(!has_feature(cx, feature)? || !cx.host.ibs_enabled.ok_or(host(HostValue::IbsEnabled))?)
}
#[inline(always)]
pub(super) fn prevent_host_ibs(cx: &Look) -> Answer {
    without_host_ibs(cx, PREVENT_HOST_IBS)
}
pub(super) fn fix_prevent_host_ibs(cx: &Look, out: &mut Corrections) {
    drop_feature(cx, PREVENT_HOST_IBS, out);
}
#[inline(always)]
pub(super) fn ibs_virtualization(cx: &Look) -> Answer {
    without_host_ibs(cx, IBS_VIRTUALIZATION)
}
pub(super) fn fix_ibs_virtualization(cx: &Look, out: &mut Corrections) {
    drop_feature(cx, IBS_VIRTUALIZATION, out);
}

#[inline(always)]
pub(super) fn secure_avic(cx: &Look) -> Answer {
    let features = cx.sev_features()?;
    if features & SECURE_AVIC == 0 {
        return Ok(true);
    }
    Ok(features & (RESTRICTED_INJECTION | ALTERNATE_INJECTION) == 0 && !cx.is_avic()?)
}
pub(super) fn fix_secure_avic(cx: &Look, out: &mut Corrections) {
    fix_avic(cx, out);
    drop_feature(cx, SECURE_AVIC, out);
}

#[inline(always)]
pub(super) fn secure_avic_page(cx: &Look) -> Answer {
    if !has_feature(cx, SECURE_AVIC)? {
        return Ok(true);
    }
    let control = cx.vmsa(Field::SecureAvicCtl)?;
    Ok(control & 1 == 0 || fits(cx, control, 0x1000))
}
pub(super) fn fix_secure_avic_page(cx: &Look, out: &mut Corrections) {
    out.vmsa_bits(cx, Field::SecureAvicCtl, !(cx.processor.physical_limit() - 1), 0);
    out.vmsa_bits(cx, Field::SecureAvicCtl, 1, 0);
}

#[inline(always)]
pub(super) fn sibling_idle(cx: &Look) -> Answer {
    Ok(!has_feature(cx, SMT_PROTECTION)? || cx.host.sibling_idle.ok_or(host(HostValue::SiblingIdle))?)
}
pub(super) fn fix_sibling_idle(cx: &Look, out: &mut Corrections) {
    drop_feature(cx, SMT_PROTECTION, out);
}

/// The manual names bit 22 of the counters; the enable is bit 22 of the event selects.
#[inline(always)]
pub(super) fn pmc_state(cx: &Look) -> Answer {
    if !has_feature(cx, PMC_VIRTUALIZATION)? || cx.control(Field::VirtExt)? & VirtExt::PMC_ENABLE.0 != 0 {
        return Ok(true);
    }
    for field in PERF_CTLS {
        if cx.vmsa(field)? & PERF_ENABLE != 0 {
            return Ok(false);
        }
    }
    Ok(cx.vmsa(Field::PerfCtrGlobalCtl)? & PERF_GLOBAL_ENABLE == 0)
}
pub(super) fn fix_pmc_state(cx: &Look, out: &mut Corrections) {
    for field in PERF_CTLS {
        if cx.vmsa(field).is_ok_and(|value| value & PERF_ENABLE != 0) {
            out.vmsa_bits(cx, field, PERF_ENABLE, 0);
        }
    }
    if cx.vmsa(Field::PerfCtrGlobalCtl).is_ok_and(|value| value & PERF_GLOBAL_ENABLE != 0) {
        out.vmsa_bits(cx, Field::PerfCtrGlobalCtl, PERF_GLOBAL_ENABLE, 0);
    }
    out.control_bits(cx, Field::VirtExt, 0, VirtExt::PMC_ENABLE.0);
}
