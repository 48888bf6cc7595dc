//! Processor models with VMX: features, address widths and the capability MSRs that follow from them.
//! A control whose CPUID feature is absent is not settable; paired entry and exit controls are offered together.

use super::capabilities::{Basic, Capabilities, EptVpid, Misc};
use super::controls::{Control, Word};
use super::field::{Field, vmcs_enum};
use rootmode_arch::cpuid::Feature::{self, *};
use rootmode_arch::{Cr0, Cr4, FeatureSet, msr};

/// A processor model with VMX.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The name on the command line.
    pub name: &'static str,
    /// What the name means.
    pub text: &'static str,
    /// CPUID features.
    pub features: FeatureSet,
    /// MAXPHYADDR.
    pub physical_width: u8,
    /// Linear-address bits, 48 or 57.
    pub linear_width: u8,
    /// CPUID.1:EAX: family, model and stepping.
    pub signature: u32,
    /// What the part has and `features` leaves out.
    pub beyond: &'static [&'static [Feature]],
    /// CPUID leaves of the part that are more than feature bits.
    pub leaves: &'static [u32],
    /// Controls that the features would permit but the part does not have.
    pub lacks: &'static [Control],
    /// IA32_VMX_BASIC.
    pub basic: Basic,
    /// IA32_VMX_MISC.
    pub misc: Misc,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept_vpid: EptVpid,
}

const BASE: &[Feature] = &[
    Sse3,
    Pclmulqdq,
    Monitor,
    Vmx,
    Ssse3,
    Fma,
    Cmpxchg16b,
    Pdcm,
    Pcid,
    Sse41,
    Sse42,
    X2apic,
    Movbe,
    Popcnt,
    TscDeadline,
    Aes,
    Xsave,
    Avx,
    F16c,
    Rdrand,
    Fpu,
    Vme,
    De,
    Pse,
    Tsc,
    Msr,
    Pae,
    Mce,
    Cx8,
    Apic,
    Sep,
    Mtrr,
    Pge,
    Mca,
    Cmov,
    Pat,
    Pse36,
    Clflush,
    Mmx,
    Fxsr,
    Sse,
    Sse2,
    Arat,
    Aperfmperf,
    Fsgsbase,
    TscAdjust,
    Bmi1,
    Avx2,
    Smep,
    Bmi2,
    Erms,
    Invpcid,
    Rdseed,
    Adx,
    Smap,
    Clflushopt,
    SpecCtrl,
    Stibp,
    ArchCapabilities,
    Ssbd,
    XsaveOpt,
    XsaveC,
    Xgetbv1,
    Xsaves,
    LahfLm,
    Abm,
    Syscall,
    Nx,
    Page1Gb,
    Rdtscp,
    LongMode,
    InvariantTsc,
    Pku,
];
const SERVER: &[Feature] = &[
    Rtm,
    Clwb,
    Sha,
    Umip,
    Waitpkg,
    Shstk,
    Ibt,
    Gfni,
    Vaes,
    Vpclmulqdq,
    La57,
    Rdpid,
    BusLockDetect,
    Cldemote,
    Movdiri,
    Movdir64b,
    Enqcmd,
    Pks,
    Fsrm,
    Uintr,
    Serialize,
    Pconfig,
    ArchLbr,
    Xfd,
];
const NEWEST: &[Feature] = &[Smx, Sgx, IntelPt, KeyLocker, FlushL1d, Lass, Fred, Lam, Msrlist];

/// What servers have and no rule is about.
const SERVER_BEYOND: &[Feature] = &[
    Dtes64,
    DsCpl,
    SpeedStep,
    ThermalMonitor2,
    Sdbg,
    Xtpr,
    DirectCacheAccess,
    DebugStore,
    ThermalClock,
    SelfSnoop,
    MultiThreading,
    ThermalMonitor,
    PendingBreak,
    ThermalSensor,
    TurboBoost,
    PowerLimitNotification,
    PackageThermal,
    HardwarePstates,
    EnergyBias,
    Smx,
    IntelPt,
    Hle,
    ResourceMonitoring,
    ZeroFcsFds,
    ResourceAllocation,
    Avx512f,
    Avx512dq,
    Avx512cd,
    Avx512bw,
    Avx512vl,
    MdClear,
    FlushL1d,
    Prefetchw,
];
/// What Sapphire Rapids adds to them.
const SAPPHIRE_RAPIDS_BEYOND: &[Feature] = &[
    Sgx,
    SgxLaunch,
    Avx512ifma,
    Avx512vbmi,
    Avx512vbmi2,
    Avx512vnni,
    Avx512bitalg,
    Avx512vpopcntdq,
    Avx512bf16,
    Avx512fp16,
    AvxVnni,
    AmxTile,
    AmxInt8,
    AmxBf16,
    MemoryEncryption,
    TsxLoadTracking,
    CoreCapability,
    FastZeroRepMovsb,
    FastShortRepStosb,
    FastShortRepCmpsb,
    Wbnoinvd,
];

const fn secondary(bit: u8) -> Control {
    Control { word: Word::Secondary, bit }
}
const fn tertiary(bit: u8) -> Control {
    Control { word: Word::Tertiary, bit }
}

/// What every part with EPT and VPID since Skylake has of both.
pub const EPT_COMMON: EptVpid = EptVpid(
    EptVpid::EXECUTE_ONLY.0
        | EptVpid::WALK_4.0
        | EptVpid::MEMORY_UC.0
        | EptVpid::MEMORY_WB.0
        | EptVpid::PAGE_2M.0
        | EptVpid::PAGE_1G.0
        | EptVpid::INVEPT.0
        | EptVpid::ACCESSED_DIRTY.0
        | EptVpid::INVEPT_SINGLE.0
        | EptVpid::INVEPT_ALL.0
        | EptVpid::INVVPID.0
        | EptVpid::INVVPID_ADDRESS.0
        | EptVpid::INVVPID_SINGLE.0
        | EptVpid::INVVPID_ALL.0
        | EptVpid::INVVPID_SINGLE_GLOBALS.0,
);
const BASIC_COMMON: Basic =
    Basic(4 | 0x1000 << 32 | 6 << 50 | Basic::INS_OUTS_INFORMATION.0 | Basic::TRUE_CONTROLS.0);
const MISC_COMMON: Misc = Misc(
    5 | Misc::STORE_LMA.0
        | Misc::ACTIVITY_HLT.0
        | Misc::ACTIVITY_SHUTDOWN.0
        | Misc::ACTIVITY_SIPI.0
        | 4 << 16
        | Misc::WRITE_ANY.0
        | Misc::ZERO_LENGTH_INJECTION.0,
);

/// Skylake server: no CET, no 5-level paging, no tertiary or secondary exit controls.
pub const SKYLAKE: Model = Model {
    name: "intel-skylake",
    text: "Skylake server",
    features: FeatureSet::none().with_all(BASE).with(Rtm).with(Mpx).with(Clwb),
    physical_width: 46,
    linear_width: 48,
    signature: 0x0005_0654,
    beyond: &[SERVER_BEYOND],
    leaves: &[2, 4, 5, 6, 0xa, 0xb, 0xf, 0x10, 0x14, 0x15, 0x16, 0x8000_0006],
    lacks: &[
        Control { word: Word::Primary, bit: 17 },
        Control { word: Word::Exit, bit: 30 },
        Control { word: Word::Exit, bit: 31 },
        secondary(23),
        secondary(30),
        secondary(31),
    ],
    basic: BASIC_COMMON,
    misc: MISC_COMMON,
    ept_vpid: EPT_COMMON,
};

/// Sapphire Rapids: CET, PKS, 5-level paging, IPI virtualization; no MPX. The part's Intel PT, SGX and HLAT are left out.
pub const SAPPHIRE_RAPIDS: Model = Model {
    name: "intel-spr",
    text: "Sapphire Rapids",
    features: FeatureSet::none().with_all(BASE).with_all(SERVER),
    physical_width: 46,
    linear_width: 57,
    signature: 0x0008_06f8,
    beyond: &[SERVER_BEYOND, SAPPHIRE_RAPIDS_BEYOND],
    leaves: &[
        2,
        4,
        5,
        6,
        0xa,
        0xb,
        0xf,
        0x10,
        0x12,
        0x14,
        0x15,
        0x16,
        0x18,
        0x1c,
        0x1d,
        0x1e,
        0x1f,
        0x20,
        0x8000_0006,
    ],
    lacks: &[
        secondary(21),
        secondary(23),
        tertiary(1),
        tertiary(2),
        tertiary(3),
        tertiary(7),
        Control { word: Word::Exit, bit: 31 },
    ],
    basic: BASIC_COMMON.with(Basic::ERROR_CODE_OPTIONAL),
    misc: MISC_COMMON,
    ept_vpid: EPT_COMMON.with(EptVpid::WALK_5).with(EptVpid::ADVANCED_EXIT),
};

/// Everything that the tables know, though no part has all of it.
pub const MAX: Model = Model {
    name: "max-intel",
    text: "every control and feature of the tables",
    features: FeatureSet::none().with_all(BASE).with_all(SERVER).with_all(NEWEST).with(Mpx),
    physical_width: 52,
    linear_width: 57,
    signature: 0x000c_06f2,
    beyond: &[],
    leaves: &[],
    lacks: &[],
    basic: BASIC_COMMON
        .with(Basic::ERROR_CODE_OPTIONAL)
        .with(Basic::NESTED_EXCEPTION)
        .with(Basic::DUAL_MONITOR),
    misc: MISC_COMMON.with(Misc::PT_IN_VMX),
    ept_vpid: EPT_COMMON
        .with(EptVpid::WALK_5)
        .with(EptVpid::ADVANCED_EXIT)
        .with(EptVpid::SUPERVISOR_SHADOW_STACK)
        .with(EptVpid(52 << 48)),
};

impl Model {
    /// Every model.
    pub const ALL: [Self; 3] = [SKYLAKE, SAPPHIRE_RAPIDS, MAX];

    /// The model called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.name == name)
    }

    /// The same model with other features: what its capability MSRs offer follows.
    #[must_use]
    pub const fn with_features(mut self, features: FeatureSet) -> Self {
        self.features = features;
        self
    }

    /// Whether the model has `control`.
    pub fn has(&self, control: Control) -> bool {
        control.is_possible(&self.features)
            && !self.lacks.contains(&control)
            && control.word.activated_by().is_none_or(|by| self.has(by))
    }

    /// The bits of `word` that may be 1.
    fn permitted(&self, word: Word) -> u64 {
        word.rows()
            .iter()
            .filter(|row| self.has(Control { word, bit: row.bit }))
            .fold(0, |m, row| m | 1 << row.bit)
    }

    /// All capability MSRs.
    pub fn capabilities(&self) -> Capabilities {
        let pair = |word: Word, required: u32| {
            u64::from(required) | (self.permitted(word) | u64::from(word.default1())) << 32
        };
        let mut all = Capabilities::unknown()
            .with(msr::IA32_VMX_BASIC, self.basic.0)
            .with(msr::IA32_VMX_MISC, self.misc.0)
            .with(msr::IA32_VMX_CR0_FIXED0, (Cr0::PE | Cr0::NE | Cr0::PG).0)
            .with(msr::IA32_VMX_CR0_FIXED1, 0xffff_ffff)
            .with(msr::IA32_VMX_CR4_FIXED0, Cr4::VMXE.0)
            .with(msr::IA32_VMX_CR4_FIXED1, cr4_supported(&self.features).0)
            .with(msr::IA32_VMX_EPT_VPID_CAP, self.ept_vpid.0);
        for word in Word::ALL {
            let Some((plain, exact)) = word.capability() else { continue };
            match (word, exact) {
                (Word::Tertiary | Word::SecondaryExit | Word::VmFunction, _) => {
                    all.set(plain, self.permitted(word));
                }
                (_, None) => all.set(plain, self.permitted(word) << 32),
                (_, Some(exact)) => {
                    all.set(plain, pair(word, word.default1()));
                    all.set(exact, pair(word, word.default1() & !word.released()));
                }
            }
        }
        all.with(msr::IA32_VMX_VMCS_ENUM, vmcs_enum(|field| self.has_field(field)))
    }

    /// Whether the model has `field`.
    pub fn has_field(&self, field: Field) -> bool {
        let needs = field.row().needs;
        needs.is_empty() || needs.iter().any(|control| self.has(*control))
    }
}

/// The CR4 bits that a processor with `features` lets software set
/// (SDM Vol. 3A "Control Registers": each flag with the CPUID feature that brings it).
pub fn cr4_supported(features: &FeatureSet) -> Cr4 {
    const ROWS: &[(Cr4, &[Feature])] = &[
        (Cr4::VME, &[Vme]),
        (Cr4::PVI, &[Vme]),
        (Cr4::TSD, &[Tsc]),
        (Cr4::DE, &[De]),
        (Cr4::PSE, &[Pse]),
        (Cr4::PAE, &[Pae]),
        (Cr4::MCE, &[Mce]),
        (Cr4::PGE, &[Pge]),
        (Cr4::PCE, &[]),
        (Cr4::OSFXSR, &[Fxsr]),
        (Cr4::OSXMMEXCPT, &[Sse]),
        (Cr4::UMIP, &[Umip]),
        (Cr4::LA57, &[La57]),
        (Cr4::VMXE, &[Vmx]),
        (Cr4::SMXE, &[Smx]),
        (Cr4::FSGSBASE, &[Fsgsbase]),
        (Cr4::PCIDE, &[Pcid]),
        (Cr4::OSXSAVE, &[Xsave]),
        (Cr4::KL, &[KeyLocker]),
        (Cr4::SMEP, &[Smep]),
        (Cr4::SMAP, &[Smap]),
        (Cr4::PKE, &[Pku]),
        (Cr4::CET, &[Shstk, Ibt]),
        (Cr4::PKS, &[Pks]),
        (Cr4::UINTR, &[Uintr]),
        (Cr4::LASS, &[Lass]),
        (Cr4::LAM_SUP, &[Lam]),
        (Cr4::FRED, &[Fred]),
    ];
    let mut all = Cr4::empty();
    for (bit, any) in ROWS {
        if any.is_empty() || any.iter().any(|f| features.has(*f)) {
            all = all | *bit;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sapphire_rapids_offers_no_bndcfgs_controls_and_no_pt_in_vmx() {
        let caps = SAPPHIRE_RAPIDS.capabilities();
        assert!(caps.is_complete());
        assert_eq!(caps.supports(Control { word: Word::Entry, bit: 16 }), Some(false));
        assert_eq!(caps.supports(Control { word: Word::Exit, bit: 23 }), Some(false));
        assert!(!caps.misc().unwrap().contains(Misc::PT_IN_VMX));
        assert_eq!(caps.supports(Control { word: Word::Tertiary, bit: 4 }), Some(true));
    }

    #[test]
    fn entry_and_exit_controls_that_linux_pairs_are_offered_together() {
        for model in Model::ALL {
            let caps = model.capabilities();
            for (entry, exit) in [(13, 12), (14, 19), (15, 21), (16, 23), (18, 25)] {
                assert_eq!(
                    caps.supports(Control { word: Word::Entry, bit: entry }),
                    caps.supports(Control { word: Word::Exit, bit: exit }),
                    "{} {entry} {exit}",
                    model.name
                );
            }
        }
    }

    #[test]
    fn ept_capability_bits_of_named_parts_stay_within_what_kvm_unit_tests_know() {
        let known = [0u32, 6, 7, 8, 14, 16, 17, 20, 21, 22, 25, 26, 32, 40, 41, 42, 43];
        let mask = known.into_iter().fold(0u64, |m, bit| m | 1 << bit);
        assert_eq!(SAPPHIRE_RAPIDS.ept_vpid.0 & !mask, 0);
        assert_eq!(SKYLAKE.ept_vpid.0 & !mask, 0);
    }

    #[test]
    fn every_required_control_is_permitted() {
        for model in Model::ALL {
            for word in Word::ALL {
                let allowed = model.capabilities().allowed(word).unwrap();
                assert_eq!(allowed.required & !allowed.permitted, 0, "{} {word:?}", model.name);
            }
        }
    }
}
