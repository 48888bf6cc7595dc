//! What the rules look at: the VMCB, the processor, the host's state at VMRUN, and physical memory.

use super::Missing::{Field as NoField, Host as NoHost, Vmsa as NoVmsa};
use crate::capabilities::Processor;
use crate::vmcb::{EventInfo, Field, IntCtl, NestedControl, Vmcb, Vmsa};
use rootmode_arch::{Cr0, Cr4, Efer, Feature, HostPhysical};

/// Reads physical memory for the checks that follow a pointer.
pub trait PhysicalMemory {
    /// The quadword at `address`, or `None` if it is not known.
    fn read_u64(&self, address: HostPhysical) -> Option<u64>;
}

/// Memory of which nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMemory;

impl PhysicalMemory for NoMemory {
    fn read_u64(&self, _: HostPhysical) -> Option<u64> {
        None
    }
}

/// A value of the host that a rule reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostValue {
    /// CR0 at VMRUN.
    Cr0,
    /// EFER at VMRUN.
    Efer,
    /// Whether VMRUN was executed in 64-bit mode.
    In64BitMode,
    /// The U_CET MSR.
    UCet,
    /// HWCR.SmmLock.
    SmmLock,
    /// SYSCFG.MemEncryptionModEn.
    MemoryEncryption,
    /// SYSCFG.SecureNestedPagingEn.
    SecureNestedPaging,
    /// IbsFetchCtl.IbsFetchEn or IbsOpCtl.IbsOpEn.
    IbsEnabled,
    /// Whether the sibling thread is idle in host mode.
    SiblingIdle,
}

/// What a rule would need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Missing {
    /// A field of the VMCB.
    Field(Field),
    /// A field of the VMSA.
    Vmsa(Field),
    /// A value of the host.
    Host(HostValue),
    /// The quadword at this address.
    Memory(HostPhysical),
}

impl core::fmt::Display for Missing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            NoField(field) => write!(f, "{}", field.name()),
            NoVmsa(field) => write!(f, "{} of the VMSA", field.name()),
            NoHost(value) => write!(f, "the host's {value:?}"),
            Self::Memory(address) => write!(f, "memory at {address:#x}"),
        }
    }
}

/// The host's state when it executes VMRUN, as far as the rules depend on it; `None` where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Host {
    /// CR0.
    pub cr0: Option<Cr0>,
    /// CR4. No rule reads it; nested paging takes its mode from it.
    pub cr4: Option<Cr4>,
    /// EFER.
    pub efer: Option<Efer>,
    /// CS.L with EFER.LMA.
    pub in_64_bit_mode: Option<bool>,
    /// The U_CET MSR, which VMRUN does not switch.
    pub u_cet: Option<u64>,
    /// HWCR.SmmLock.
    pub smm_locked: Option<bool>,
    /// SYSCFG.MemEncryptionModEn.
    pub memory_encryption: Option<bool>,
    /// SYSCFG.SecureNestedPagingEn.
    pub secure_nested_paging: Option<bool>,
    /// Instruction-based sampling is enabled.
    pub ibs_enabled: Option<bool>,
    /// The sibling thread is idle in host mode.
    pub sibling_idle: Option<bool>,
}

impl Host {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        cr0: None,
        cr4: None,
        efer: None,
        in_64_bit_mode: None,
        u_cet: None,
        smm_locked: None,
        memory_encryption: None,
        secure_nested_paging: None,
        ibs_enabled: None,
        sibling_idle: None,
    };
    /// A usual 64-bit host without memory encryption.
    pub const LONG_MODE: Self = Self {
        cr0: Some(Cr0(0x8005_0033)),
        cr4: Some(Cr4(0x0000_06f0)),
        efer: Some(Efer(0x1d01)),
        in_64_bit_mode: Some(true),
        u_cet: Some(0),
        smm_locked: Some(true),
        memory_encryption: Some(false),
        secure_nested_paging: Some(false),
        ibs_enabled: Some(false),
        sibling_idle: Some(true),
    };
    /// A 64-bit host that runs encrypted guests.
    pub const ENCRYPTING: Self =
        Self { memory_encryption: Some(true), secure_nested_paging: Some(true), ..Self::LONG_MODE };
}

/// Everything that VMRUN's checks depend on.
#[derive(Clone, Copy)]
pub struct EntryContext<'a> {
    /// The processor model.
    pub processor: &'a Processor,
    /// The VMCB.
    pub vmcb: &'a Vmcb,
    /// The VMSA of an SEV-ES guest, if it is known (the processor decrypts it; the hypervisor cannot).
    pub vmsa: Option<&'a Vmsa>,
    /// The host's state.
    pub host: Host,
    /// Physical memory.
    pub memory: &'a dyn PhysicalMemory,
}

type Answer<T> = Result<T, Missing>;

impl<'a> EntryContext<'a> {
    /// A context of which only processor and VMCB are known.
    pub const fn new(processor: &'a Processor, vmcb: &'a Vmcb) -> Self {
        Self { processor, vmcb, vmsa: None, host: Host::UNKNOWN, memory: &NoMemory }
    }
    /// The same with the host's state.
    pub const fn with_host(mut self, host: Host) -> Self {
        self.host = host;
        self
    }
    /// The same with a VMSA.
    pub const fn with_vmsa(mut self, vmsa: &'a Vmsa) -> Self {
        self.vmsa = Some(vmsa);
        self
    }
    /// The same with memory.
    pub const fn with_memory(mut self, memory: &'a dyn PhysicalMemory) -> Self {
        self.memory = memory;
        self
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
    pub(super) fn is_sev(&self) -> Answer<bool> {
        Ok(self.processor.has(Feature::Sev)
            && self.nested_control()?.contains(NestedControl::SEV_ENABLE)
            && self.host.memory_encryption.ok_or(NoHost(HostValue::MemoryEncryption))?)
    }

    /// SEV-ES on top of SEV: the guest's state is in the VMSA.
    #[inline(always)]
    pub(super) fn is_sev_es(&self) -> Answer<bool> {
        Ok(self.processor.has(Feature::SevEs)
            && self.nested_control()?.contains(NestedControl::SEV_ES_ENABLE)
            && self.is_sev()?)
    }

    /// SEV_FEATURES of the VMSA; 0 without SEV-ES or SEV-SNP.
    #[inline(always)]
    pub(super) fn sev_features(&self) -> Answer<u64> {
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
}
