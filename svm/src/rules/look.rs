//! [`Look`]: an entry as the checks read it; what many of them ask is answered once.

use super::Missing::{Field as NoField, Host as NoHost, Vmsa as NoVmsa};
use super::{EntryContext, Host, HostValue, Missing, PhysicalMemory};
use crate::capabilities::Processor;
use crate::vmcb::{EventInfo, Field, IntCtl, NestedControl, Vmcb, Vmsa};
use rootmode_arch::{Cr0, Efer, Feature};

type Answer<T> = Result<T, Missing>;

/// An [`EntryContext`] with the answers that most checks start from.
pub(crate) struct Look<'a> {
    pub(super) processor: &'a Processor,
    pub(super) host: &'a Host,
    pub(super) memory: &'a dyn PhysicalMemory,
    vmcb: &'a Vmcb,
    vmsa: Option<&'a Vmsa>,
    sev: Answer<bool>,
    sev_es: Answer<bool>,
    sev_features: Answer<u64>,
}

impl<'a> Look<'a> {
    #[inline]
    pub(super) fn new(cx: &'a EntryContext<'_>) -> Self {
        let mut look = Self {
            processor: cx.processor,
            host: &cx.host,
            memory: cx.memory,
            vmcb: cx.vmcb,
            vmsa: cx.vmsa,
            sev: Ok(false),
            sev_es: Ok(false),
            sev_features: Ok(0),
        };
        look.sev = look.find_sev();
        look.sev_es = look.find_sev_es();
        look.sev_features = look.find_sev_features();
        look
    }

    /// A field of the control area.
    #[inline(always)]
    pub(super) fn control(&self, field: Field) -> Answer<u64> {
        self.vmcb.get(field).ok_or(NoField(field))
    }

    /// A field of the VMSA.
    #[inline(always)]
    pub(super) fn vmsa(&self, field: Field) -> Answer<u64> {
        self.vmsa.and_then(|vmsa| vmsa.get(field)).ok_or(NoVmsa(field))
    }

    /// A field of the guest's state: the VMSA's with SEV-ES, else the VMCB's.
    #[inline(always)]
    pub(super) fn guest(&self, field: Field) -> Answer<u64> {
        if self.is_sev_es()? { self.vmsa(field) } else { self.control(field) }
    }

    #[inline(always)]
    pub(super) fn nested_control(&self) -> Answer<NestedControl> {
        self.control(Field::NestedControl).map(NestedControl)
    }

    #[inline(always)]
    pub(super) fn int_ctl(&self) -> Answer<IntCtl> {
        self.control(Field::IntCtl).map(|bits| IntCtl(bits as u32))
    }

    /// Nested paging exists and is enabled.
    #[inline(always)]
    pub(super) fn is_nested_paging(&self) -> Answer<bool> {
        Ok(self.processor.has(Feature::NestedPaging)
            && self.nested_control()?.contains(NestedControl::NP_ENABLE))
    }

    /// AVIC exists and is enabled.
    #[inline(always)]
    pub(super) fn is_avic(&self) -> Answer<bool> {
        Ok(self.processor.has(Feature::Avic) && self.int_ctl()?.contains(IntCtl::AVIC_ENABLE))
    }

    /// x2AVIC exists and its bit is set.
    #[inline(always)]
    pub(super) fn is_x2avic(&self) -> Answer<bool> {
        Ok(self.processor.has(Feature::X2Avic) && self.int_ctl()?.contains(IntCtl::X2AVIC_ENABLE))
    }

    /// SEV exists, memory encryption is on, and the VMCB asks for it; otherwise its bits are ignored.
    #[inline(always)]
    fn find_sev(&self) -> Answer<bool> {
        Ok(self.processor.has(Feature::Sev)
            && self.nested_control()?.contains(NestedControl::SEV_ENABLE)
            && self.host.memory_encryption.ok_or(NoHost(HostValue::MemoryEncryption))?)
    }

    /// SEV-ES on top of SEV: the guest's state is in the VMSA.
    #[inline(always)]
    fn find_sev_es(&self) -> Answer<bool> {
        Ok(self.processor.has(Feature::SevEs)
            && self.nested_control()?.contains(NestedControl::SEV_ES_ENABLE)
            && self.is_sev()?)
    }

    /// SEV_FEATURES of the VMSA; 0 without SEV-ES or SEV-SNP.
    #[inline(always)]
    fn find_sev_features(&self) -> Answer<u64> {
        if self.processor.has(Feature::SevSnp) && self.is_sev_es()? {
            self.vmsa(Field::SevFeatures)
        } else {
            Ok(0)
        }
    }

    /// EFER.LME and CR0.PG: the guest runs in long mode.
    #[inline(always)]
    pub(super) fn is_long_mode(&self) -> Answer<bool> {
        Ok(self.guest(Field::Efer)? & Efer::LME.0 != 0 && self.guest(Field::Cr0)? & Cr0::PG.0 != 0)
    }

    /// The event to inject; only its low half is looked at.
    #[inline(always)]
    pub(super) fn injection(&self) -> Answer<EventInfo> {
        if self.sev_features()? & super::sev::ALTERNATE_INJECTION != 0 {
            self.vmsa(Field::GuestEventInj).map(EventInfo)
        } else {
            self.control(Field::EventInj).map(EventInfo)
        }
    }

    /// SEV is active.
    #[inline(always)]
    pub(super) fn is_sev(&self) -> Answer<bool> {
        self.sev
    }

    /// SEV-ES is active: the guest's state is in the VMSA.
    #[inline(always)]
    pub(super) fn is_sev_es(&self) -> Answer<bool> {
        self.sev_es
    }

    /// SEV_FEATURES of the VMSA; 0 without SEV-ES or SEV-SNP.
    #[inline(always)]
    pub(super) fn sev_features(&self) -> Answer<u64> {
        self.sev_features
    }
}
