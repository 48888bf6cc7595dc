//! What the rules look at: the VMCB, the processor, the host's state at VMRUN, and physical memory.

use crate::capabilities::Processor;
use crate::vmcb::{Field, Vmcb, Vmsa};
use rootmode_arch::{Cr0, Cr4, Efer, HostPhysical};

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
            Self::Field(field) => write!(f, "{}", field.name()),
            Self::Vmsa(field) => write!(f, "{} of the VMSA", field.name()),
            Self::Host(value) => write!(f, "the host's {value:?}"),
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
}
