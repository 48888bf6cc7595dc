//! [`Model`]: which processor it is. CPUID, legal MSRs and legal control-register bits all come from here.
//!
//! A model advertises only what works. [`Model::max_intel`] and [`Model::max_amd`] have everything that this simulator has.

use crate::counters::Counters;
use crate::time;
use rootmode_arch::cpuid::{Output, TABLE};
use rootmode_arch::{Cr4, Feature, FeatureSet, Vendor, encryption};
use std::collections::BTreeMap;

/// A processor model: vendor, features and the CPUID leaves that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    vendor: Vendor,
    features: FeatureSet,
    physical_width: u8,
    signature: u32,
    c_bit: u64,
    leaves: BTreeMap<(u32, u32), [u32; 4]>,
}

/// What every model of this simulator has.
const COMMON: &[Feature] = &[
    Feature::Vme,
    Feature::De,
    Feature::Pse,
    Feature::Tsc,
    Feature::Msr,
    Feature::Pae,
    Feature::Mce,
    Feature::Cx8,
    Feature::Apic,
    Feature::X2apic,
    Feature::Arat,
    Feature::Sep,
    Feature::Pge,
    Feature::Mca,
    Feature::Cmov,
    Feature::Pat,
    Feature::Pse36,
    Feature::Clflush,
    Feature::Cmpxchg16b,
    Feature::Pcid,
    Feature::Movbe,
    Feature::Popcnt,
    Feature::Rdrand,
    Feature::Rdseed,
    Feature::Fsgsbase,
    Feature::TscAdjust,
    Feature::Smep,
    Feature::Smap,
    Feature::Umip,
    Feature::Pku,
    Feature::La57,
    Feature::Rdpid,
    Feature::Invpcid,
    Feature::Erms,
    Feature::LahfLm,
    Feature::Syscall,
    Feature::Nx,
    Feature::Page1Gb,
    Feature::Rdtscp,
    Feature::LongMode,
    Feature::InvariantTsc,
    Feature::Bmi1,
    Feature::Bmi2,
    Feature::Abm,
    Feature::Adx,
    Feature::Clflushopt,
    Feature::Clwb,
    Feature::Cldemote,
    Feature::Movdiri,
    Feature::Movdir64b,
    Feature::Fpu,
    Feature::Mmx,
    Feature::Sse,
    Feature::Sse2,
    Feature::Sse3,
    Feature::Ssse3,
    Feature::Sse41,
    Feature::Sse42,
    Feature::Aes,
    Feature::Pclmulqdq,
    Feature::Sha,
    Feature::Avx,
    Feature::Avx2,
    Feature::Fma,
    Feature::F16c,
    Feature::Vaes,
    Feature::Vpclmulqdq,
    Feature::Fxsr,
    Feature::Xsave,
    Feature::XsaveOpt,
    Feature::XsaveC,
    Feature::Xgetbv1,
    Feature::Xsaves,
    Feature::Shstk,
    Feature::Aperfmperf,
    Feature::Mtrr,
    Feature::FlushL1d,
    // A promise about speed.
    Feature::Fsrm,
    Feature::Prefetchw,
    Feature::Wbnoinvd,
];

/// What only the Intel model has.
const INTEL: &[Feature] = &[
    Feature::Vmx,
    Feature::Monitor,
    Feature::Waitpkg,
    Feature::BusLockDetect,
    Feature::TscDeadline,
    Feature::Pks,
    Feature::Lam,
    Feature::Ibt,
    Feature::Pdcm,
    Feature::SpecCtrl,
    Feature::Stibp,
    Feature::Ssbd,
    Feature::ArchCapabilities,
    Feature::Serialize,
    // There are no buffers for VERW to clear, and string instructions are as quick as they are.
    Feature::MdClear,
    Feature::FastZeroRepMovsb,
    Feature::FastShortRepStosb,
    Feature::FastShortRepCmpsb,
];

/// What only the AMD model has.
const AMD: &[Feature] = &[
    Feature::Ffxsr,
    Feature::Svm,
    Feature::AltMovCr8,
    Feature::NestedPaging,
    Feature::LbrVirtualization,
    Feature::NripSave,
    Feature::TscRateMsr,
    Feature::VmcbClean,
    Feature::FlushByAsid,
    Feature::DecodeAssists,
    Feature::PauseFilter,
    Feature::PauseFilterThreshold,
    Feature::VirtualVmloadVmsave,
    Feature::VirtualGif,
    Feature::VirtualNmi,
    Feature::Gmet,
    Feature::Avic,
    Feature::X2Avic,
    Feature::VirtualSpecCtrl,
    Feature::BusLockThreshold,
    Feature::IdleHltIntercept,
    Feature::PerfCtrExtCore,
    Feature::PerfMonV2,
    Feature::Rdpru,
    Feature::AmdIbrs,
    Feature::AmdStibp,
    Feature::AmdSsbd,
    Feature::NullSelectorClearsBase,
    Feature::MmxExtensions,
    Feature::LfenceAlwaysSerializing,
    // There is no speculation.
    Feature::SrsoNo,
    Feature::TsaSqNo,
    Feature::TsaL1No,
];

/// The C-bit of CPUID 0x8000001f EBX bits 5:0.
fn c_bit(features: &FeatureSet, leaves: &BTreeMap<(u32, u32), [u32; 4]>) -> u64 {
    let encrypts = features.has(Feature::Sme) || features.has(Feature::Sev);
    leaves.get(&(0x8000_001f, 0)).filter(|_| encrypts).map_or(0, |registers| 1 << (registers[1] & 0x3f))
}

/// The registers that CPUID's answers depend on.
#[derive(Clone, Copy, Debug)]
pub struct CpuidInputs {
    /// CR4.
    pub cr4: Cr4,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// IA32_APIC_BASE: whether the local APIC is on.
    pub apic: bool,
    /// The processor's number.
    pub index: u8,
}

impl Model {
    /// The model of `vendor` with everything that works.
    pub fn max(vendor: Vendor) -> Self {
        match vendor {
            Vendor::Intel => Self::max_intel(),
            Vendor::Amd => Self::max_amd(),
        }
    }

    /// The Intel model with everything that works.
    pub fn max_intel() -> Self {
        Self::new(Vendor::Intel, FeatureSet::none().with_all(COMMON).with_all(INTEL))
    }

    /// The AMD model with everything that works.
    pub fn max_amd() -> Self {
        Self::new(Vendor::Amd, FeatureSet::none().with_all(COMMON).with_all(AMD))
    }

    /// A model with exactly `features`.
    pub fn new(vendor: Vendor, features: FeatureSet) -> Self {
        let signature = match vendor {
            Vendor::Intel => 0x000c_06f2,
            Vendor::Amd => 0x00a1_0f11,
        };
        Self::part(vendor, signature, 46, features)
    }

    /// A model with exactly `features`, this CPUID.1:EAX and this MAXPHYADDR.
    pub fn part(vendor: Vendor, signature: u32, physical_width: u8, features: FeatureSet) -> Self {
        let name: &[u8; 12] = match vendor {
            Vendor::Intel => b"GenuineIntel",
            Vendor::Amd => b"AuthenticAMD",
        };
        let word = |at: usize| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]);
        let identity = |highest| [highest, word(0), word(8), word(4)];
        let mut leaves = BTreeMap::new();
        leaves.insert((0, 0), identity(if vendor == Vendor::Intel { 0x16 } else { 0xd }));
        leaves.insert((1, 0), [signature, 0x0000_0800, 0, 0]);
        leaves.insert((7, 0), [0; 4]);
        if features.has(Feature::X2apic) {
            // One thread a core, one package; EDX is the x2APIC ID.
            leaves.insert((0xb, 0), [0, 1, 1 << 8, 0]);
            leaves.insert((0xb, 1), [8, 1, 2 << 8 | 1, 0]);
        }
        if vendor == Vendor::Intel {
            let (tsc, crystal) = (time::TSC, time::CRYSTAL);
            let ratio = [tsc.ticks * crystal.counts, tsc.counts * crystal.ticks, crystal.hertz(), 0];
            leaves.insert((0x15, 0), ratio.map(|value| value as u32));
            // Base and highest frequency, and the bus's, in MHz.
            let megahertz =
                [tsc.hertz(), tsc.hertz(), crystal.hertz(), 0].map(|hertz| (hertz / 1_000_000) as u32);
            leaves.insert((0x16, 0), megahertz);
        }
        leaves.insert((0x8000_0000, 0), identity(0x8000_0022));
        leaves.insert((0x8000_0001, 0), [signature, 0, 0, 0]);
        if features.has(Feature::Monitor) {
            // Lines of 64 bytes; masked interrupts end MWAIT if it says so. There are no deeper states to name.
            leaves.insert((5, 0), [64, 64, 3, 0]);
        }
        // The highest register of RDPRU.
        let readable = if features.has(Feature::Rdpru) { 1 << 16 } else { 0 };
        leaves.insert((0x8000_0008, 0), [u32::from(physical_width) | 57 << 8, 0, 0, readable]);
        if vendor == Vendor::Intel && features.has(Feature::Pdcm) {
            leaves.insert((0xa, 0), Counters::leaf());
        }
        if features.has(Feature::PerfMonV2) {
            // EBX: the core's counters.
            leaves.insert((0x8000_0022, 0), [0, 6, 0, 0]);
        }
        if features.has(Feature::Svm) {
            // Revision 1, 32768 ASIDs.
            leaves.insert((0x8000_000a, 0), [1, 0x8000, 0, 0]);
        }
        if features.has(Feature::Sme) {
            leaves.insert((0x8000_001f, 0), encryption::leaf(&features));
        }
        if features.has(Feature::Xsave) {
            let subleaves = crate::components::leaves(&features, vendor);
            leaves.extend(subleaves.into_iter().map(|(subleaf, registers)| ((0xd, subleaf), registers)));
        }
        for feature in features.iter() {
            let row = feature.row();
            let registers = leaves.entry((row.leaf, row.subleaf)).or_insert([0; 4]);
            registers[row.output as usize] |= 1 << row.bit;
        }
        if vendor == Vendor::Intel
            && let Some(extended) = leaves.get_mut(&(0x8000_0001, 0))
        {
            // Only AMD repeats leaf 1 here; Intel has the long-mode bits alone.
            extended[Output::Eax as usize] = 0;
        }
        for (at, text) in b"rootmode virtual processor".chunks(16).enumerate() {
            let mut brand = [0_u8; 16];
            brand[..text.len()].copy_from_slice(text);
            let words = brand.chunks(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
            let mut registers = [0; 4];
            registers.iter_mut().zip(words).for_each(|(register, word)| *register = word);
            leaves.insert((0x8000_0002 + at as u32, 0), registers);
        }
        let c_bit = c_bit(&features, &leaves);
        Self { vendor, features, physical_width, signature, c_bit, leaves }
    }

    /// A model with these CPUID leaves (keyed by leaf and subleaf): a hosted VM's processor, or a dump of a real one.
    /// Features follow from the leaves.
    pub fn from_leaves(vendor: Vendor, leaves: BTreeMap<(u32, u32), [u32; 4]>) -> Self {
        let mut features = FeatureSet::none();
        for row in TABLE {
            let registers = leaves.get(&(row.leaf, row.subleaf));
            if registers.is_some_and(|r| r[row.output as usize] >> row.bit & 1 != 0) {
                features = features.with(row.feature);
            }
        }
        let width = leaves.get(&(0x8000_0008, 0)).map_or(36, |r| r[0] as u8).clamp(32, 52);
        let signature = leaves.get(&(1, 0)).map_or(0, |r| r[0]);
        let c_bit = c_bit(&features, &leaves);
        Self { vendor, features, physical_width: width, signature, c_bit, leaves }
    }

    /// The CPUID leaves, by leaf and subleaf.
    pub const fn leaves(&self) -> &BTreeMap<(u32, u32), [u32; 4]> {
        &self.leaves
    }
    /// Whose extension and quirks.
    pub const fn vendor(&self) -> Vendor {
        self.vendor
    }
    /// What it has.
    pub const fn features(&self) -> &FeatureSet {
        &self.features
    }
    /// Whether it has `feature`.
    pub const fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }
    /// MAXPHYADDR.
    pub const fn physical_width(&self) -> u8 {
        self.physical_width
    }
    /// The bit of physical addresses that asks for memory encryption, as a mask; 0 if the model has none.
    pub const fn c_bit(&self) -> u64 {
        self.c_bit
    }
    /// CPUID.1:EAX.
    pub const fn signature(&self) -> u32 {
        self.signature
    }

    /// CPUID's EAX, EBX, ECX, EDX, given CR4 and the processor's number.
    /// Unknown leaves are 0 (AMD) or those of the highest basic leaf (Intel), as on real parts.
    pub fn cpuid(&self, leaf: u32, subleaf: u32, cr4: Cr4, index: u8) -> [u32; 4] {
        let highest = |base| self.leaves.get(&(base, 0)).map_or(0, |r| r[0]);
        // Those of a hypervisor end where their first one says.
        let software = leaf & 0xffff_ff00;
        if leaf >> 28 == 4 && (software..=highest(software)).contains(&leaf) {
            return self.leaves.get(&(leaf, 0)).copied().unwrap_or_default();
        }
        let known = if leaf >= 0x8000_0000 { leaf <= highest(0x8000_0000) } else { leaf <= highest(0) };
        let leaf = match (known, self.vendor) {
            (true, _) => leaf,
            (false, Vendor::Amd) => return [0; 4],
            (false, Vendor::Intel) => highest(0),
        };
        let subleaf =
            if matches!(leaf, 4 | 7 | 0xb | 0xd | 0xf | 0x10 | 0x14 | 0x8000_001d) { subleaf } else { 0 };
        let mut registers = self.leaves.get(&(leaf, subleaf)).copied().unwrap_or_default();
        let set = |register: &mut u32, feature: Feature, on: bool| {
            let bit = 1 << feature.row().bit;
            *register = *register & !bit | if on { bit } else { 0 };
        };
        match (leaf, subleaf) {
            (1, _) => {
                registers[1] = registers[1] & 0x00ff_ffff | u32::from(index) << 24;
                set(&mut registers[2], Feature::Osxsave, cr4.contains(Cr4::OSXSAVE));
            }
            // Of levels that do not exist only the number and the ID remain.
            (0xb, _) if self.leaves.contains_key(&(0xb, 0)) => {
                registers[2] = registers[2] & !0xff | subleaf & 0xff;
                registers[3] = u32::from(index);
            }
            (7, 0) => set(&mut registers[2], Feature::Ospke, cr4.contains(Cr4::PKE)),
            _ => {}
        }
        registers
    }

    /// CPUID's EAX, EBX, ECX, EDX as software finds them: [`Model::cpuid`], with what follows from other registers (SDM Vol. 2A
    /// "CPUID—CPU Identification"; APM Vol. 3 "Instruction Subsets and CPUID Feature Flags").
    pub fn cpuid_with(&self, leaf: u32, subleaf: u32, inputs: &CpuidInputs) -> [u32; 4] {
        let mut answer = self.cpuid(leaf, subleaf, inputs.cr4, inputs.index);
        if leaf == 1 && !inputs.apic {
            answer[3] &= !(1 << Feature::Apic.row().bit);
        }
        if leaf == 0xd && self.has(Feature::Xsave) {
            let size = crate::components::enabled_size(self, subleaf, inputs.xcr0, inputs.xss);
            answer[1] = size.unwrap_or(answer[1]);
        }
        answer
    }

    /// Bits that CR4 may have.
    pub fn cr4_bits(&self) -> Cr4 {
        let rows = [
            (Feature::Vme, Cr4::VME | Cr4::PVI),
            (Feature::Tsc, Cr4::TSD),
            (Feature::De, Cr4::DE),
            (Feature::Pse, Cr4::PSE),
            (Feature::Pae, Cr4::PAE),
            (Feature::Mce, Cr4::MCE),
            (Feature::Pge, Cr4::PGE),
            (Feature::LongMode, Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::PCE),
            (Feature::Umip, Cr4::UMIP),
            (Feature::La57, Cr4::LA57),
            (Feature::Vmx, Cr4::VMXE),
            (Feature::Fsgsbase, Cr4::FSGSBASE),
            (Feature::Pcid, Cr4::PCIDE),
            (Feature::Xsave, Cr4::OSXSAVE),
            (Feature::Smep, Cr4::SMEP),
            (Feature::Smap, Cr4::SMAP),
            (Feature::Pku, Cr4::PKE),
            (Feature::Pks, Cr4::PKS),
            (Feature::Lam, Cr4::LAM_SUP),
            (Feature::Shstk, Cr4::CET),
            (Feature::Ibt, Cr4::CET),
        ];
        rows.iter().filter(|(feature, _)| self.has(*feature)).fold(Cr4(0), |all, (_, bits)| all | *bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_and_features_tell_the_same_story() {
        for model in [Model::max_intel(), Model::max_amd()] {
            let copy = Model::from_leaves(model.vendor(), model.leaves().clone());
            assert_eq!(copy, model);
            for row in TABLE {
                let bit = model.cpuid(row.leaf, row.subleaf, Cr4(0), 0)[row.output as usize] >> row.bit & 1;
                let expected = model.has(row.feature) && row.leaf != 0x8000_000a
                    || row.leaf == 0x8000_000a && model.has(row.feature) && model.vendor() == Vendor::Amd;
                // Leaves above the highest basic one repeat it on Intel; the table has none of them.
                assert_eq!(bit != 0, expected, "{}", row.name);
            }
        }
    }

    #[test]
    fn frequencies_are_those_of_time() {
        let model = Model::max_intel();
        let [denominator, numerator, crystal, _] = model.cpuid(0x15, 0, Cr4(0), 0);
        assert_eq!(u64::from(crystal) * u64::from(numerator) / u64::from(denominator), 4_000_000_000);
        assert_eq!(model.cpuid(0x16, 0, Cr4(0), 0), [4000, 4000, 1000, 0]);
        let apic = crate::apic::Abilities::of(&model);
        assert_eq!(apic.timer_clock.hertz(), u64::from(crystal), "SDM \"APIC Timer\"");
    }

    #[test]
    fn ospke_follows_cr4_and_the_apic_id_the_processor() {
        let model = Model::max_intel();
        assert_eq!(model.cpuid(7, 0, Cr4::PKE, 0)[2] >> 4 & 1, 1);
        assert_eq!(model.cpuid(7, 0, Cr4(0), 0)[2] >> 4 & 1, 0);
        assert_eq!(model.cpuid(1, 0, Cr4(0), 3)[1] >> 24, 3);
        assert_eq!(model.cpuid(0, 0, Cr4(0), 0)[1].to_le_bytes(), *b"Genu");
    }
}
