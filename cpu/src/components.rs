//! State components of the XSAVE feature set: one table for CPUID leaf 0xD, XCR0, IA32_XSS and the layout of save areas
//! (SDM Vol. 1 "XSAVE-Supported Features and State-Component Bitmaps", "XSAVE Area").

use crate::apic::Mode;
use crate::model::CpuidInputs;
use crate::{Cpu, Model};
use rootmode_arch::{Feature, FeatureSet, Vendor};

/// x87 state.
pub(crate) const X87: u64 = 1;
/// XMM registers and MXCSR.
pub(crate) const SSE: u64 = 1 << 1;
/// Upper halves of YMM registers.
pub(crate) const AVX: u64 = 1 << AVX_NUMBER;
/// Their number.
pub(crate) const AVX_NUMBER: u32 = 2;
/// Number of PKRU.
pub(crate) const PKRU: u32 = 9;
/// Number of IA32_U_CET and IA32_PL3_SSP.
pub(crate) const CET_U: u32 = 11;
/// Number of IA32_PL0_SSP to IA32_PL2_SSP.
pub(crate) const CET_S: u32 = 12;
/// The legacy region.
pub(crate) const LEGACY: u64 = 512;
/// The legacy region and the header: where the extended region starts.
pub(crate) const EXTENDED: u64 = 576;

/// A component of the extended region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    /// Bit of XCR0 or IA32_XSS.
    pub(crate) number: u32,
    /// What a processor must have one of.
    pub(crate) features: &'static [Feature],
    /// Bytes, at most [`LARGEST`].
    pub(crate) size: u64,
    /// Offset in the standard format, Intel and AMD; 0 for supervisor components.
    pub(crate) offset: [u64; 2],
    /// Enabled in IA32_XSS rather than in XCR0.
    pub(crate) supervisor: bool,
    /// 64-byte aligned in the compacted format.
    pub(crate) aligned: bool,
}

/// 8-byte words of the largest component.
pub(crate) const LARGEST: usize = 32;

/// Every component of the extended region that is modelled, by number.
pub(crate) const TABLE: &[Component] = &[
    Component {
        number: AVX_NUMBER,
        features: &[Feature::Avx],
        size: 256,
        offset: [0x240; 2],
        supervisor: false,
        aligned: false,
    },
    Component {
        number: PKRU,
        features: &[Feature::Pku],
        size: 8,
        offset: [0xa80, 0x980],
        supervisor: false,
        aligned: false,
    },
    Component {
        number: CET_U,
        features: &[Feature::Shstk, Feature::Ibt],
        size: 16,
        offset: [0; 2],
        supervisor: true,
        aligned: false,
    },
    Component {
        number: CET_S,
        features: &[Feature::Shstk, Feature::Ibt],
        size: 24,
        offset: [0; 2],
        supervisor: true,
        aligned: false,
    },
];

impl Component {
    /// The offset in the standard format.
    pub(crate) const fn standard(&self, vendor: Vendor) -> u64 {
        match vendor {
            Vendor::Intel => self.offset[0],
            Vendor::Amd => self.offset[1],
        }
    }
}

/// The components of the extended region that `features` has.
pub(crate) fn present(features: &FeatureSet) -> impl Iterator<Item = &'static Component> {
    TABLE.iter().filter(|component| component.features.iter().any(|feature| features.has(*feature)))
}

/// Bits that XCR0 may have, or IA32_XSS.
pub(crate) fn supported(features: &FeatureSet, supervisor: bool) -> u64 {
    let legacy = if supervisor { 0 } else { X87 | SSE };
    present(features).filter(|c| c.supervisor == supervisor).fold(legacy, |all, c| all | 1 << c.number)
}

/// Bytes of an area in the standard format with `mask`.
pub(crate) fn standard_size(features: &FeatureSet, vendor: Vendor, mask: u64) -> u64 {
    let ends = present(features).filter(|c| mask >> c.number & 1 != 0).map(|c| c.standard(vendor) + c.size);
    ends.max().unwrap_or(EXTENDED)
}

/// The components of `mask` with their offsets in the compacted format, and the area's end.
pub(crate) fn compacted(features: &FeatureSet, mask: u64) -> (Vec<(&'static Component, u64)>, u64) {
    let mut at = EXTENDED;
    let mut places = Vec::new();
    for component in present(features).filter(|c| mask >> c.number & 1 != 0) {
        if component.aligned {
            at = at.next_multiple_of(64);
        }
        places.push((component, at));
        at += component.size;
    }
    (places, at)
}

/// CPUID leaf 0xD: subleaf and registers, with EBX of subleaves 0 and 1 as after reset.
pub(crate) fn leaves(features: &FeatureSet, vendor: Vendor) -> Vec<(u32, [u32; 4])> {
    let (user, supervisor) = (supported(features, false), supported(features, true));
    let all = standard_size(features, vendor, user) as u32;
    let mut leaves = vec![
        (0, [user as u32, EXTENDED as u32, all, (user >> 32) as u32]),
        (1, [0, EXTENDED as u32, supervisor as u32, (supervisor >> 32) as u32]),
    ];
    for c in present(features) {
        let offset = if c.supervisor { 0 } else { c.standard(vendor) };
        let bits = u32::from(c.supervisor) | u32::from(c.aligned) << 1;
        leaves.push((c.number, [c.size as u32, offset as u32, bits, 0]));
    }
    leaves
}

/// EBX of subleaf 0 or 1 of CPUID leaf 0xD: the size of an area for what XCR0 (and IA32_XSS) enable now.
pub(crate) fn enabled_size(model: &Model, subleaf: u32, xcr0: u64, xss: u64) -> Option<u32> {
    match subleaf {
        0 => Some(standard_size(model.features(), model.vendor(), xcr0) as u32),
        1 if model.has(Feature::XsaveC) => Some(compacted(model.features(), xcr0 | xss).1 as u32),
        _ => None,
    }
}

impl Cpu {
    /// What CPUID looks at here.
    pub fn cpuid_inputs(&self) -> CpuidInputs {
        let apic = self.apic.mode() != Mode::Disabled;
        CpuidInputs { cr4: self.cr4, xcr0: self.xcr0, xss: self.xss, apic, index: self.index }
    }

    /// Loads XCR0 and IA32_XSS from an area that an extension keeps, unchecked: bits that the processor lacks stay 0, and
    /// that of x87 1.
    pub fn load_components(&mut self, xcr0: u64, xss: u64) {
        self.xcr0 = xcr0 & supported(self.model.features(), false) | X87;
        self.xss = xss & supported(self.model.features(), true);
    }
}
