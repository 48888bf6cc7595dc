//! [`Configuration`]: everything but the filter that decides which MSR accesses exit.

use rootmode_arch::{FeatureSet, Vendor};

use crate::kvm::{DisabledExits, Regressions};

/// A kernel release, as far as interception differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kernel {
    /// Linux 6.12.
    V6_12,
    /// Linux 6.17: recalculation without shadow copies, APERF and MPERF.
    V6_17,
    /// Linux 6.18: CET, secure TSC.
    V6_18,
    /// After 6.18: the mediated PMU.
    Later,
}

impl Kernel {
    /// All, oldest first.
    pub const ALL: [Self; 4] = [Self::V6_12, Self::V6_17, Self::V6_18, Self::Later];
}

/// Whether and how the guest's state is hidden from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Confidential {
    /// An ordinary guest.
    #[default]
    No,
    /// SEV-ES: registers are encrypted.
    SevEs,
    /// SEV-SNP.
    SevSnp {
        /// The guest has a secure TSC.
        secure_tsc: bool,
    },
}

impl Confidential {
    /// Whether registers are encrypted (SEV-ES and beyond).
    pub const fn has_protected_state(self) -> bool {
        !matches!(self, Self::No)
    }
}

/// LBR virtualization (SVM).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct LastBranch {
    /// Module parameter `lbrv`.
    pub module: bool,
    /// Enabled in vmcb01 (bit 0 of the virtualization-extension word).
    pub vmcb01: bool,
    /// Enabled in vmcb02, while L2 runs.
    pub vmcb02: Option<bool>,
}

impl LastBranch {
    /// Enabled in the VMCB that is current.
    pub const fn current(self) -> bool {
        match self.vmcb02 {
            Some(enabled) => enabled,
            None => self.vmcb01,
        }
    }
}

/// Who answers accesses to x2APIC MSRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ApicMode {
    /// KVM, after an exit.
    #[default]
    Emulated,
    /// AMD's x2AVIC: the module has it, AVIC is active for the vCPU and the APIC is in x2APIC mode.
    X2Avic,
    /// Intel's "virtualize x2APIC mode".
    VirtualizeX2apic {
        /// APICv is active.
        apicv: bool,
        /// IPI virtualization is enabled.
        ipi: bool,
    },
}

/// Intel PT of a guest in host/guest mode with IA32_RTIT_CTL.TraceEn = 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessorTrace {
    /// Pairs of IA32_RTIT_ADDRn_A and _B, 0 to 4.
    pub address_pairs: u8,
}

/// A guest PMU whose counters are the hardware's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MediatedPmu {
    /// General-purpose counters of the guest.
    pub counters: u8,
    /// Fixed counters of the guest (Intel).
    pub fixed_counters: u8,
    /// Full-width writes (Intel).
    pub full_width: bool,
    /// The guest has as many counters as the host, and the global registers.
    pub global: bool,
}

/// What decides which MSR accesses exit, beside the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Which kernel is modelled.
    pub kernel: Kernel,
    /// The host processor's features.
    pub host: FeatureSet,
    /// What KVM supports for guests.
    pub kvm: FeatureSet,
    /// The guest's CPUID, limited to what KVM supports.
    pub guest: FeatureSet,
    /// The vendor that the guest's CPUID names.
    pub guest_vendor: Vendor,
    /// Exits that userspace gave up.
    pub disabled_exits: DisabledExits,
    /// The guest's saved IA32_SPEC_CTRL.
    pub spec_ctrl: u64,
    /// SEV-ES and beyond.
    pub confidential: Confidential,
    /// LBR virtualization.
    pub last_branch: LastBranch,
    /// x2APIC MSRs.
    pub apic: ApicMode,
    /// Intel PT.
    pub processor_trace: Option<ProcessorTrace>,
    /// The guest wrote a non-zero IA32_XFD at some time since reset.
    pub xfd_written: bool,
    /// Mediated PMU.
    pub pmu: Option<MediatedPmu>,
    /// Known bugs that the model has.
    pub regressions: Regressions,
}

impl Configuration {
    /// A plain guest of `vendor` on a host without any optional feature.
    pub const fn plain(vendor: Vendor) -> Self {
        Self {
            kernel: Kernel::Later,
            host: FeatureSet::none(),
            kvm: FeatureSet::none(),
            guest: FeatureSet::none(),
            guest_vendor: vendor,
            disabled_exits: DisabledExits::NONE,
            spec_ctrl: 0,
            confidential: Confidential::No,
            last_branch: LastBranch { module: false, vmcb01: false, vmcb02: None },
            apic: ApicMode::Emulated,
            processor_trace: None,
            xfd_written: false,
            pmu: None,
            regressions: Regressions::NONE,
        }
    }
}
