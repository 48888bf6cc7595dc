//! [`Condition`]: when a row of a pass-through table applies. A closed list, each a function of [`Configuration`].

use rootmode_arch::{Feature, FeatureSet, Vendor};

use super::{ApicMode, Confidential, Configuration};
use crate::kvm::{DisabledExits, Regression};

/// Why an MSR may be passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Always.
    Always,
    /// The guest's CPUID does not name Intel: AMD processors keep 32 bits of SYSENTER_ESP and SYSENTER_EIP only.
    GuestNotIntel,
    /// SVM: the processor virtualizes SPEC_CTRL and the guest has it; else, the guest wrote a non-zero value.
    SpecCtrlOnSvm,
    /// VMX: the guest wrote a non-zero SPEC_CTRL.
    SpecCtrlOnVmx,
    /// Host and guest have PRED_CMD.
    PredCmd,
    /// Host and guest have FLUSH_CMD.
    FlushCmd,
    /// LBR virtualization is enabled in the current VMCB.
    LastBranch,
    /// The same, of an SEV-ES guest.
    LastBranchOfSevEs,
    /// APERF/MPERF exits are disabled.
    AperfMperf,
    /// C-state exits are disabled.
    CStates,
    /// KVM and the guest have shadow stacks.
    ShadowStack,
    /// KVM and the guest have shadow stacks or indirect-branch tracking.
    Cet,
    /// SEV-ES.
    SevEs,
    /// SEV-ES, the processor virtualizes TSC_AUX, and the guest has RDTSCP or RDPID.
    SevEsTscAux,
    /// SEV-ES, and KVM and the guest have XSAVES.
    SevEsXss,
    /// SEV-SNP with a secure TSC.
    SecureTsc,
    /// x2AVIC is active.
    X2Avic,
    /// Never: the LVT timer's TSC-deadline mode, which a guest may set, faults in AVIC hardware.
    NeverLvtTimer,
    /// Mediated PMU: the guest has more than this many general-purpose counters.
    Counter(u8),
    /// The same, and the guest has the extended core counters (AMD).
    CoreCounter(u8),
    /// The same as `Counter`, and full-width writes are enabled (Intel).
    FullWidthCounter(u8),
    /// Mediated PMU: the guest has more than this many fixed counters.
    FixedCounter(u8),
    /// Mediated PMU: guest and host have the same counters.
    GlobalCounters,
    /// The guest traces (Intel PT).
    ProcessorTrace,
    /// The guest traces, and has more than this many address pairs.
    TraceAddress(u8),
    /// The guest wrote a non-zero XFD.
    XfdWritten,
    /// KVM and the guest have XFD.
    Xfd,
    /// "Virtualize x2APIC mode" is 1.
    VirtualX2apic,
    /// The same, and APICv is active.
    Apicv,
    /// The same, and IPIs are virtualized.
    VirtualIpi,
}

fn has_any(set: FeatureSet, features: &[Feature]) -> bool {
    features.iter().any(|f| set.has(*f))
}

impl Condition {
    /// Whether the condition holds.
    pub fn holds(self, config: &Configuration) -> bool {
        let bugs = config.regressions;
        let guest = |feature| config.guest.has(feature);
        let both = |feature| config.kvm.has(feature) && config.guest.has(feature);
        let sev_es = config.confidential.has_protected_state();
        let counters = config.pmu.map_or(0, |pmu| pmu.counters);
        match self {
            Self::Always => true,
            Self::GuestNotIntel => {
                config.guest_vendor != Vendor::Intel || bugs.has(Regression::SysenterPassedForIntel)
            }
            Self::SpecCtrlOnSvm if config.host.has(Feature::VirtualSpecCtrl) => {
                guest_has_spec_ctrl(config) || bugs.has(Regression::SpecCtrlAlwaysPassed)
            }
            Self::SpecCtrlOnSvm | Self::SpecCtrlOnVmx => config.spec_ctrl != 0,
            Self::PredCmd => {
                let commands = [Feature::SpecCtrl, Feature::AmdIbpb];
                has_any(config.host, &commands) && (has_any(config.guest, &commands) || guest(Feature::Sbpb))
            }
            Self::FlushCmd => config.host.has(Feature::FlushL1d) && guest(Feature::FlushL1d),
            Self::LastBranch => lbr_virtualized(config),
            Self::LastBranchOfSevEs => sev_es && lbr_virtualized(config),
            Self::AperfMperf => config.disabled_exits.has(DisabledExits::APERF_MPERF, bugs),
            Self::CStates => config.disabled_exits.has(DisabledExits::CSTATE, bugs),
            Self::ShadowStack => both(Feature::Shstk),
            Self::Cet => both(Feature::Shstk) || both(Feature::Ibt),
            Self::SevEs => sev_es || bugs.has(Regression::GhcbAlwaysPassed),
            Self::SevEsTscAux => {
                let (rdtscp, rdpid) = (guest(Feature::Rdtscp), guest(Feature::Rdpid));
                let allowed =
                    if bugs.has(Regression::TscAuxNeedsBoth) { rdtscp && rdpid } else { rdtscp || rdpid };
                sev_es && config.host.has(Feature::VirtualTscAux) && allowed
            }
            Self::SevEsXss if bugs.has(Regression::XssNeedsEither) => {
                sev_es && (config.kvm.has(Feature::Xsaves) || guest(Feature::Xsaves))
            }
            Self::SevEsXss => sev_es && both(Feature::Xsaves),
            Self::SecureTsc => config.confidential == Confidential::SevSnp { secure_tsc: true },
            Self::X2Avic => config.apic == ApicMode::X2Avic,
            Self::NeverLvtTimer => bugs.has(Regression::LvttPassed) && config.apic == ApicMode::X2Avic,
            Self::Counter(n) => counters > n,
            Self::CoreCounter(n) => counters > n && guest(Feature::PerfCtrExtCore),
            Self::FullWidthCounter(n) => counters > n && config.pmu.is_some_and(|pmu| pmu.full_width),
            Self::FixedCounter(n) => config.pmu.is_some_and(|pmu| pmu.fixed_counters > n),
            Self::GlobalCounters => config.pmu.is_some_and(|pmu| pmu.global),
            Self::ProcessorTrace => config.processor_trace.is_some(),
            Self::TraceAddress(n) => config.processor_trace.is_some_and(|pt| pt.address_pairs > n),
            Self::XfdWritten => {
                config.xfd_written || (bugs.has(Regression::XfdPassedEarly) && both(Feature::Xfd))
            }
            Self::Xfd => both(Feature::Xfd),
            Self::VirtualX2apic => matches!(config.apic, ApicMode::VirtualizeX2apic { .. }),
            Self::Apicv => matches!(config.apic, ApicMode::VirtualizeX2apic { apicv: true, .. }),
            Self::VirtualIpi => config.apic == ApicMode::VirtualizeX2apic { apicv: true, ipi: true },
        }
    }
}

/// Any of the four CPUID bits that bring SPEC_CTRL.
fn guest_has_spec_ctrl(config: &Configuration) -> bool {
    has_any(config.guest, &[Feature::SpecCtrl, Feature::AmdIbrs, Feature::AmdStibp, Feature::AmdSsbd])
}

fn lbr_virtualized(config: &Configuration) -> bool {
    let lbr = config.last_branch;
    let enabled =
        if config.regressions.has(Regression::LbrConditionFromVmcb01) { lbr.vmcb01 } else { lbr.current() };
    lbr.module && enabled
}
