//! What VM entry looks at besides the VMCS: capabilities, the logical processor, physical memory. Each may be unknown.

use crate::Vmcs;
use crate::definitions::capabilities::Capabilities;
use crate::definitions::models::Model;
use rootmode_arch::{Feature, FeatureSet, HostPhysical};

macro_rules! items {
    ($($name:ident = $mask:literal $text:literal;)*) => {
        /// A value of the logical processor that VM entry looks at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Item { $(#[doc = concat!($text, ".")] $name,)* }

        impl Item {
            /// Every item.
            pub const ALL: &'static [Item] = &[$(Item::$name),*];
            /// What it is, in a few words.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            /// The bits that the item's values may have.
            pub const fn mask(self) -> u64 {
                match self { $(Self::$name => $mask,)* }
            }
        }
    };
}

items! {
    PhysicalWidth = 0x3f "physical-address width (MAXPHYADDR), in bits";
    LinearWidth = 0x7f "linear-address width that the processor supports, 48 or 57 bits";
    LongModeActive = 1 "IA32_EFER.LMA before the entry";
    InVmxRoot = 1 "whether the processor is in VMX root operation";
    CompatibilityOrVirtual = 1 "whether the instruction runs in real-address, virtual-8086 or compatibility mode";
    Cpl = 3 "current privilege level";
    CurrentVmcs = 0xffff_ffff_ffff_ffff "current-VMCS pointer, all ones if there is none";
    CurrentIsShadow = 1 "whether the current VMCS is a shadow VMCS";
    MovSsBlocking = 1 "whether events are blocked by MOV SS";
    IsResume = 1 "0 for VMLAUNCH, 1 for VMRESUME";
    Launched = 1 "launch state of the current VMCS: 0 clear, 1 launched";
    InSmm = 1 "whether the processor is in SMM";
    TraceEnabled = 1 "IA32_RTIT_CTL.TraceEn before the entry";
    NmiNeedsNoSti = 1 "whether injecting an NMI demands that blocking by STI is 0 (processors differ)";
    PerfGlobalMask = 0xffff_ffff_ffff_ffff "bits of IA32_PERF_GLOBAL_CTRL that exist";
    RtitCtlMask = 0xffff_ffff_ffff_ffff "bits of IA32_RTIT_CTL that exist";
}

/// The logical processor: each [`Item`] and the feature set, known or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    values: [u64; Item::ALL.len()],
    known: u32,
    features: FeatureSet,
    features_known: bool,
}

impl Processor {
    /// Nothing known.
    pub const fn unknown() -> Self {
        Self { values: [0; Item::ALL.len()], known: 0, features: FeatureSet::none(), features_known: false }
    }
    /// A processor of `model` in 64-bit mode and VMX root operation, about to launch a clear VMCS at `current`.
    pub fn new(model: &Model, current: HostPhysical) -> Self {
        let mut processor = Self::unknown();
        for item in Item::ALL {
            processor.set(*item, 0);
        }
        processor.set_features(model.features);
        processor
            .with(Item::PhysicalWidth, u64::from(model.physical_width))
            .with(Item::LinearWidth, u64::from(model.linear_width))
            .with(Item::LongModeActive, 1)
            .with(Item::InVmxRoot, 1)
            .with(Item::CurrentVmcs, current.0)
            .with(Item::PerfGlobalMask, 0x0001_000f_0000_00ff)
            .with(Item::RtitCtlMask, 0x0180_ffff_8f7b_ffff)
    }
    /// The value of `item`, if known.
    pub fn get(&self, item: Item) -> Option<u64> {
        (self.known >> item as u32 & 1 != 0).then(|| self.value(item))
    }
    /// The value of `item`, 0 if unknown.
    #[inline]
    pub const fn value(&self, item: Item) -> u64 {
        self.values[item as usize]
    }
    /// Makes `item` known, with the bits that it may have.
    pub const fn set(&mut self, item: Item, value: u64) {
        self.values[item as usize] = value & item.mask();
        self.known |= 1 << item as u32;
    }
    /// The same with `item` set.
    #[must_use]
    pub const fn with(mut self, item: Item, value: u64) -> Self {
        self.set(item, value);
        self
    }
    /// Makes `item` unknown.
    pub const fn forget(&mut self, item: Item) {
        self.values[item as usize] = 0;
        self.known &= !(1 << item as u32);
    }
    /// The CPUID features, if known.
    pub fn features(&self) -> Option<&FeatureSet> {
        self.features_known.then_some(&self.features)
    }
    /// Makes the CPUID features known.
    pub const fn set_features(&mut self, features: FeatureSet) {
        self.features = features;
        self.features_known = true;
    }
    /// Makes the CPUID features unknown.
    pub const fn forget_features(&mut self) {
        self.features = FeatureSet::none();
        self.features_known = false;
    }
    /// Whether the processor has `feature`; false if the features are unknown.
    #[inline]
    pub const fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }
    /// Whether everything is known.
    pub const fn is_complete(&self) -> bool {
        self.known == (1 << Item::ALL.len()) - 1 && self.features_known
    }
}

/// Physical memory as VM entry reads it. An address whose content is not known answers `None`.
pub trait Memory {
    /// The 8 bytes at `address`, which is a multiple of 8, as a little-endian number.
    fn read_u64(&self, address: HostPhysical) -> Option<u64>;
}

/// Memory of which nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMemory;

impl Memory for NoMemory {
    fn read_u64(&self, _: HostPhysical) -> Option<u64> {
        None
    }
}

/// A few words of known memory; the rest is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    words: [(u64, u64); Words::CAPACITY],
    len: usize,
}

impl Default for Words {
    fn default() -> Self {
        Self::new()
    }
}

impl Words {
    /// How many words fit.
    pub const CAPACITY: usize = 24;

    /// Nothing known.
    pub const fn new() -> Self {
        Self { words: [(0, 0); Self::CAPACITY], len: 0 }
    }
    /// Sets the 8 bytes at `address`, a multiple of 8; false if there is no room.
    pub fn set(&mut self, address: HostPhysical, value: u64) -> bool {
        debug_assert!(address.is_aligned(8));
        if let Some(word) = self.words[..self.len].iter_mut().find(|word| word.0 == address.0) {
            word.1 = value;
            return true;
        }
        if self.len == Self::CAPACITY {
            return false;
        }
        self.words[self.len] = (address.0, value);
        self.len += 1;
        true
    }
    /// The known words: address and value, in the order in which they were first set.
    pub fn iter(&self) -> impl Iterator<Item = (HostPhysical, u64)> + '_ {
        self.words[..self.len].iter().map(|word| (HostPhysical(word.0), word.1))
    }
}

impl Memory for Words {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        self.iter().find(|word| word.0 == address).map(|word| word.1)
    }
}

/// Everything that the checks of VM entry read.
#[derive(Clone, Copy)]
pub struct EntryContext<'a> {
    /// The current VMCS.
    pub vmcs: &'a Vmcs,
    /// The capability MSRs.
    pub capabilities: &'a Capabilities,
    /// The logical processor.
    pub processor: &'a Processor,
    /// Physical memory.
    pub memory: &'a dyn Memory,
}

impl EntryContext<'_> {
    /// Whether VMCS, capabilities and processor are known throughout. (Memory is asked when it is needed.)
    pub const fn is_complete(&self) -> bool {
        self.vmcs.is_complete() && self.capabilities.is_complete() && self.processor.is_complete()
    }
}
