//! What a processor can do: CPUID 0x8000000a, address widths, the bits that its control registers have
//! (APM Vol. 3 (24594) "Obtaining Processor Information Via the CPUID Instruction").

use rootmode_arch::{Cr4, Efer, Feature, FeatureSet, cpuid::Output, cpuid::TABLE, encryption};

/// Capabilities of SEV (CPUID 0x8000001f). The sub-features that the feature table does not list (allowed SEV features,
/// secure AVIC, side-channel protections) go with SEV-SNP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SevCapabilities {
    /// ECX: ASIDs 1 to this number can be used by encrypted guests.
    pub encrypted_guests: u32,
    /// EDX: the least ASID of a guest with SEV but without SEV-ES.
    pub min_asid_without_es: u32,
    /// EAX bit 11: encrypted guests can be run only by a host in 64-bit mode.
    pub host_64_bit_only: bool,
    /// EBX bits 5:0: the page-table bit that marks encrypted pages.
    pub c_bit: u8,
}

impl SevCapabilities {
    /// Those of the models.
    pub const MODELLED: Self = Self {
        encrypted_guests: encryption::ENCRYPTED_GUESTS,
        min_asid_without_es: encryption::MIN_ASID_WITHOUT_ES,
        host_64_bit_only: true,
        c_bit: encryption::C_BIT,
    };
}

/// A processor model, as far as VMRUN and the intercepts depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// What the command line calls it.
    pub name: &'static str,
    /// What the name means.
    pub text: &'static str,
    /// Physical address bits (MAXPHYADDR), 32 to 52.
    pub physical_address_bits: u8,
    /// CPUID 0x8000000a EAX bits 7:0.
    pub revision: u8,
    /// CPUID 0x8000000a EBX: number of ASIDs; guests have 1 to this less 1.
    pub asids: u32,
    /// CPUID 0x8000000a ECX bit 6: physical APIC ID tables of up to 4096 entries.
    pub x2avic_extended: bool,
    /// Numbers of SEV; they count only with [`Feature::Sev`].
    pub sev: SevCapabilities,
    /// CPUID.1:EAX: family, model and stepping.
    pub signature: u32,
    /// What the part has and `features` leaves out.
    pub beyond: &'static [Feature],
    /// CPUID leaves of the part that are more than feature bits.
    pub leaves: &'static [u32],
    features: FeatureSet,
    cr4_allowed: u64,
    efer_allowed: u64,
}

impl Processor {
    /// A model with `features`.
    pub const fn new(name: &'static str, features: FeatureSet, physical_address_bits: u8) -> Self {
        Self {
            name,
            text: "",
            physical_address_bits,
            revision: 1,
            asids: 0x8000,
            x2avic_extended: false,
            sev: SevCapabilities::MODELLED,
            signature: 0x00a1_0f11,
            beyond: &[],
            leaves: &[],
            features,
            cr4_allowed: cr4_allowed(&features),
            efer_allowed: efer_allowed(&features),
        }
    }

    /// The model that `rootmode` calls `name`.
    pub fn by_name(name: &str) -> Option<&'static Processor> {
        PROCESSORS.iter().copied().find(|processor| processor.name == name)
    }

    /// The model's features.
    pub const fn features(&self) -> &FeatureSet {
        &self.features
    }
    /// Whether the model has `feature`.
    #[inline(always)]
    pub const fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }
    /// The same model with other features.
    pub const fn with_features(mut self, features: FeatureSet) -> Self {
        self.features = features;
        self.cr4_allowed = cr4_allowed(&features);
        self.efer_allowed = efer_allowed(&features);
        self
    }
    /// The bits of CR4 that can be 1.
    #[inline(always)]
    pub const fn cr4_allowed(&self) -> u64 {
        self.cr4_allowed
    }
    /// The bits of EFER that can be 1.
    #[inline(always)]
    pub const fn efer_allowed(&self) -> u64 {
        self.efer_allowed
    }
    /// The first address that the model cannot reach: 2 to the power of `physical_address_bits`, which count as 32 below
    /// 32 and as 52 above 52.
    #[inline(always)]
    pub const fn physical_limit(&self) -> u64 {
        let bits = self.physical_address_bits;
        1 << if bits < 32 {
            32
        } else if bits > 52 {
            52
        } else {
            bits
        }
    }
    /// CPUID 0x8000000a: EAX, EBX, ECX, EDX.
    pub fn svm_leaf(&self) -> [u32; 4] {
        let edx = TABLE
            .iter()
            .filter(|row| row.leaf == 0x8000_000a && row.output == Output::Edx && self.has(row.feature))
            .fold(0, |bits, row| bits | 1 << row.bit);
        [self.revision.into(), self.asids, u32::from(self.x2avic_extended) << 6, edx]
    }
}

/// The bits of CR4 that exist given `features`
/// (APM Vol. 2 (24593 rev. 3.43) "CR4 Register"; AMD has no VMX, SMX, KL, PKS, UINTR, LASS, LAM or FRED bit).
const fn cr4_allowed(features: &FeatureSet) -> u64 {
    let pairs = [
        (Feature::Vme, Cr4::VME),
        (Feature::Vme, Cr4::PVI),
        (Feature::Tsc, Cr4::TSD),
        (Feature::De, Cr4::DE),
        (Feature::Pse, Cr4::PSE),
        (Feature::Pae, Cr4::PAE),
        (Feature::Mce, Cr4::MCE),
        (Feature::Pge, Cr4::PGE),
        (Feature::Fxsr, Cr4::OSFXSR),
        (Feature::Sse, Cr4::OSXMMEXCPT),
        (Feature::Umip, Cr4::UMIP),
        (Feature::La57, Cr4::LA57),
        (Feature::Fsgsbase, Cr4::FSGSBASE),
        (Feature::Pcid, Cr4::PCIDE),
        (Feature::Xsave, Cr4::OSXSAVE),
        (Feature::Smep, Cr4::SMEP),
        (Feature::Smap, Cr4::SMAP),
        (Feature::Pku, Cr4::PKE),
        (Feature::Shstk, Cr4::CET),
    ];
    let mut bits = Cr4::PCE.0;
    let mut i = 0;
    while i < pairs.len() {
        if features.has(pairs[i].0) {
            bits |= pairs[i].1.0;
        }
        i += 1;
    }
    bits
}

/// The bits of EFER that exist given `features` (APM Vol. 2 (24593 rev. 3.43) "Extended Feature Enable Register (EFER)").
const fn efer_allowed(features: &FeatureSet) -> u64 {
    let pairs = [
        (Feature::Syscall, Efer::SCE),
        (Feature::LongMode, Efer::LME),
        (Feature::LongMode, Efer::LMA),
        (Feature::Nx, Efer::NXE),
        (Feature::Svm, Efer::SVME),
        (Feature::Ffxsr, Efer::FFXSR),
        (Feature::TranslationCacheExtension, Efer::TCE),
        (Feature::Mcommit, Efer::MCOMMIT),
        (Feature::IntWbinvd, Efer::INTWB),
        (Feature::UpperAddressIgnore, Efer::UAIE),
        (Feature::AutomaticIbrs, Efer::AUTOIBRS),
    ];
    let lmsle = features.has(Feature::LongMode) && !features.has(Feature::EferLmsleUnsupported);
    let mut bits = if lmsle { Efer::LMSLE.0 } else { 0 };
    let mut i = 0;
    while i < pairs.len() {
        if features.has(pairs[i].0) {
            bits |= pairs[i].1.0;
        }
        i += 1;
    }
    bits
}

/// Features of the table that AMD processors do not have.
const INTEL_ONLY: &[Feature] = &[
    Feature::Vmx,
    Feature::Smx,
    Feature::Pdcm,
    Feature::TscDeadline,
    Feature::TscAdjust,
    Feature::Sgx,
    Feature::Rtm,
    Feature::Mpx,
    Feature::IntelPt,
    Feature::Waitpkg,
    Feature::KeyLocker,
    Feature::Cldemote,
    Feature::Enqcmd,
    Feature::Pks,
    Feature::Uintr,
    Feature::Serialize,
    Feature::Pconfig,
    Feature::Ibt,
    Feature::ArchCapabilities,
    Feature::Lass,
    Feature::Fred,
    Feature::Lam,
    Feature::Xfd,
    Feature::Dtes64,
    Feature::DsCpl,
    Feature::SpeedStep,
    Feature::ThermalMonitor2,
    Feature::Sdbg,
    Feature::Xtpr,
    Feature::DirectCacheAccess,
    Feature::DebugStore,
    Feature::ThermalClock,
    Feature::SelfSnoop,
    Feature::ThermalMonitor,
    Feature::PendingBreak,
    Feature::ThermalSensor,
    Feature::TurboBoost,
    Feature::PowerLimitNotification,
    Feature::PackageThermal,
    Feature::HardwarePstates,
    Feature::EnergyBias,
    Feature::Hle,
    Feature::ZeroFcsFds,
    Feature::MemoryEncryption,
    Feature::SgxLaunch,
    Feature::MdClear,
    Feature::TsxLoadTracking,
    Feature::AmxBf16,
    Feature::Avx512fp16,
    Feature::AmxTile,
    Feature::AmxInt8,
    Feature::CoreCapability,
    Feature::FastZeroRepMovsb,
    Feature::FastShortRepStosb,
    Feature::FastShortRepCmpsb,
    Feature::Msrlist,
    Feature::ArchLbr,
    Feature::SpecCtrl,
    Feature::Stibp,
    Feature::Ssbd,
];

/// Features of the table that came after Zen 4, or that this model leaves out: memory encryption needs a security
/// processor, which nothing here models.
const NOT_IN_GENOA: &[Feature] = &[
    Feature::BusLockDetect,
    Feature::Movdiri,
    Feature::Movdir64b,
    Feature::PmcVirtualization,
    Feature::ReadOnlyGuestPageTables,
    Feature::BusLockThreshold,
    Feature::IdleHltIntercept,
    Feature::Skinit,
    Feature::Sbpb,
    Feature::SrsoNo,
    Feature::TsaSqNo,
    Feature::TsaL1No,
    Feature::Hypervisor,
    Feature::Sme,
    Feature::Sev,
    Feature::SevEs,
    Feature::SevSnp,
    Feature::VirtualTscAux,
    Feature::AvxVnni,
];

const fn all_but(lists: &[&[Feature]]) -> FeatureSet {
    let mut set = FeatureSet::all();
    let mut i = 0;
    while i < lists.len() {
        let mut j = 0;
        while j < lists[i].len() {
            set = set.without(lists[i][j]);
            j += 1;
        }
        i += 1;
    }
    set
}

/// EPYC 9004 (Zen 4), memory encryption left out.
pub const GENOA: Processor = Processor {
    text: "EPYC 9004 (Zen 4)",
    beyond: &[Feature::Sme, Feature::Sev, Feature::SevEs, Feature::SevSnp],
    leaves: &[
        5,
        0xf,
        0x10,
        0x8000_0005,
        0x8000_0006,
        0x8000_0019,
        0x8000_001a,
        0x8000_001b,
        0x8000_001d,
        0x8000_001e,
        0x8000_0020,
        0x8000_0022,
        0x8000_0026,
    ],
    ..Processor::new("amd-genoa", all_but(&[INTEL_ONLY, NOT_IN_GENOA]), 52)
};

/// Every feature that the table has for AMD; 48 physical address bits, so that every address can be out of range.
pub const MAX_AMD: Processor = Processor::new("max-amd", all_but(&[INTEL_ONLY]), 48);

/// Every model.
pub const PROCESSORS: &[&Processor] = &[&GENOA, &MAX_AMD];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genoa_reports_the_svm_leaf_of_its_features() {
        let [eax, ebx, _, edx] = GENOA.svm_leaf();
        assert_eq!((eax, ebx), (1, 0x8000));
        for (bit, present) in
            [(0, true), (3, true), (7, true), (13, true), (18, true), (25, true), (29, false), (30, false)]
        {
            assert_eq!(edx >> bit & 1 != 0, present, "EDX bit {bit}");
        }
        assert_eq!(Processor::by_name("amd-genoa"), Some(&GENOA));
        assert!(!GENOA.has(Feature::SevEs) && MAX_AMD.has(Feature::SevEs));
    }

    #[test]
    fn the_physical_limit_stays_in_what_the_architecture_allows() {
        for (bits, limit) in [(0, 1 << 32), (32, 1 << 32), (43, 1 << 43), (52, 1 << 52), (255, 1 << 52)] {
            assert_eq!(Processor { physical_address_bits: bits, ..GENOA }.physical_limit(), limit);
        }
    }

    #[test]
    fn a_register_bit_exists_exactly_with_its_feature() {
        for (feature, cr4, efer) in [
            (Feature::La57, 1 << 12, 0),
            (Feature::Pcid, 1 << 17, 0),
            (Feature::Shstk, 1 << 23, 0),
            (Feature::Svm, 0, 1 << 12),
            (Feature::LongMode, 0, 1 << 8 | 1 << 10),
            (Feature::UpperAddressIgnore, 0, 1 << 20),
        ] {
            let without = MAX_AMD.with_features(MAX_AMD.features().without(feature));
            assert_eq!(MAX_AMD.cr4_allowed() & !without.cr4_allowed(), cr4, "{feature:?}");
            assert_eq!(MAX_AMD.efer_allowed() & !without.efer_allowed() & !(1 << 13), efer, "{feature:?}");
        }
        assert_eq!(MAX_AMD.cr4_allowed() & (1 << 13 | 1 << 24 | 1 << 32), 0, "Intel's bits");
    }
}
