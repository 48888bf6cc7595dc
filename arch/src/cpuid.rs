//! CPUID features: one row a feature, with its place
//! (SDM Vol. 2A "CPUID—CPU Identification", APM Vol. 3 "Obtaining Processor Information Via the CPUID Instruction").

/// Which extension a processor model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub enum Vendor {
    /// VMX.
    Intel,
    /// SVM.
    Amd,
}

/// The output register that holds a feature bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Output {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A row of the feature table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The feature.
    pub feature: Feature,
    /// Name, as in the enum.
    pub name: &'static str,
    /// EAX.
    pub leaf: u32,
    /// ECX.
    pub subleaf: u32,
    /// Output register.
    pub output: Output,
    /// Bit number.
    pub bit: u8,
}

macro_rules! features {
    ($($(#[$meta:meta])* $name:ident = $leaf:literal . $sub:literal $out:ident $bit:literal;)*) => {
        /// A CPUID feature that some rule, instruction or register depends on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Feature {
            $(#[doc = concat!("`CPUID.", stringify!($leaf), ".", stringify!($sub), ":", stringify!($out), "[", stringify!($bit), "]`.")] $name,)*
        }
        /// Every feature with its place, by leaf.
        pub const TABLE: &[Row] = &[$(Row { feature: Feature::$name, name: stringify!($name), leaf: $leaf, subleaf: $sub, output: Output::$out, bit: $bit }),*];
    };
}

features! {
    Sse3 = 0x1 . 0 Ecx 0;
    Pclmulqdq = 0x1 . 0 Ecx 1;
    Monitor = 0x1 . 0 Ecx 3;
    Vmx = 0x1 . 0 Ecx 5;
    Smx = 0x1 . 0 Ecx 6;
    Ssse3 = 0x1 . 0 Ecx 9;
    Fma = 0x1 . 0 Ecx 12;
    Cmpxchg16b = 0x1 . 0 Ecx 13;
    Pdcm = 0x1 . 0 Ecx 15;
    Pcid = 0x1 . 0 Ecx 17;
    Sse41 = 0x1 . 0 Ecx 19;
    Sse42 = 0x1 . 0 Ecx 20;
    X2apic = 0x1 . 0 Ecx 21;
    Movbe = 0x1 . 0 Ecx 22;
    Popcnt = 0x1 . 0 Ecx 23;
    TscDeadline = 0x1 . 0 Ecx 24;
    Aes = 0x1 . 0 Ecx 25;
    Xsave = 0x1 . 0 Ecx 26;
    Osxsave = 0x1 . 0 Ecx 27;
    Avx = 0x1 . 0 Ecx 28;
    F16c = 0x1 . 0 Ecx 29;
    Rdrand = 0x1 . 0 Ecx 30;
    Hypervisor = 0x1 . 0 Ecx 31;
    Fpu = 0x1 . 0 Edx 0;
    Vme = 0x1 . 0 Edx 1;
    De = 0x1 . 0 Edx 2;
    Pse = 0x1 . 0 Edx 3;
    Tsc = 0x1 . 0 Edx 4;
    Msr = 0x1 . 0 Edx 5;
    Pae = 0x1 . 0 Edx 6;
    Mce = 0x1 . 0 Edx 7;
    Cx8 = 0x1 . 0 Edx 8;
    Apic = 0x1 . 0 Edx 9;
    Sep = 0x1 . 0 Edx 11;
    Mtrr = 0x1 . 0 Edx 12;
    Pge = 0x1 . 0 Edx 13;
    Mca = 0x1 . 0 Edx 14;
    Cmov = 0x1 . 0 Edx 15;
    Pat = 0x1 . 0 Edx 16;
    Pse36 = 0x1 . 0 Edx 17;
    Clflush = 0x1 . 0 Edx 19;
    Mmx = 0x1 . 0 Edx 23;
    Fxsr = 0x1 . 0 Edx 24;
    Sse = 0x1 . 0 Edx 25;
    Sse2 = 0x1 . 0 Edx 26;
    Arat = 0x6 . 0 Eax 2;
    Aperfmperf = 0x6 . 0 Ecx 0;
    Fsgsbase = 0x7 . 0 Ebx 0;
    TscAdjust = 0x7 . 0 Ebx 1;
    Sgx = 0x7 . 0 Ebx 2;
    Bmi1 = 0x7 . 0 Ebx 3;
    Avx2 = 0x7 . 0 Ebx 5;
    Smep = 0x7 . 0 Ebx 7;
    Bmi2 = 0x7 . 0 Ebx 8;
    Erms = 0x7 . 0 Ebx 9;
    Invpcid = 0x7 . 0 Ebx 10;
    Rtm = 0x7 . 0 Ebx 11;
    Mpx = 0x7 . 0 Ebx 14;
    Rdseed = 0x7 . 0 Ebx 18;
    Adx = 0x7 . 0 Ebx 19;
    Smap = 0x7 . 0 Ebx 20;
    Clflushopt = 0x7 . 0 Ebx 23;
    Clwb = 0x7 . 0 Ebx 24;
    IntelPt = 0x7 . 0 Ebx 25;
    Sha = 0x7 . 0 Ebx 29;
    Umip = 0x7 . 0 Ecx 2;
    Pku = 0x7 . 0 Ecx 3;
    Ospke = 0x7 . 0 Ecx 4;
    Waitpkg = 0x7 . 0 Ecx 5;
    Shstk = 0x7 . 0 Ecx 7;
    Gfni = 0x7 . 0 Ecx 8;
    Vaes = 0x7 . 0 Ecx 9;
    Vpclmulqdq = 0x7 . 0 Ecx 10;
    La57 = 0x7 . 0 Ecx 16;
    Rdpid = 0x7 . 0 Ecx 22;
    KeyLocker = 0x7 . 0 Ecx 23;
    BusLockDetect = 0x7 . 0 Ecx 24;
    Cldemote = 0x7 . 0 Ecx 25;
    Movdiri = 0x7 . 0 Ecx 27;
    Movdir64b = 0x7 . 0 Ecx 28;
    Enqcmd = 0x7 . 0 Ecx 29;
    Pks = 0x7 . 0 Ecx 31;
    Fsrm = 0x7 . 0 Edx 4;
    Uintr = 0x7 . 0 Edx 5;
    Serialize = 0x7 . 0 Edx 14;
    Pconfig = 0x7 . 0 Edx 18;
    ArchLbr = 0x7 . 0 Edx 19;
    Ibt = 0x7 . 0 Edx 20;
    SpecCtrl = 0x7 . 0 Edx 26;
    Stibp = 0x7 . 0 Edx 27;
    FlushL1d = 0x7 . 0 Edx 28;
    ArchCapabilities = 0x7 . 0 Edx 29;
    Ssbd = 0x7 . 0 Edx 31;
    Lass = 0x7 . 1 Eax 6;
    Fred = 0x7 . 1 Eax 17;
    Lam = 0x7 . 1 Eax 26;
    Msrlist = 0x7 . 1 Eax 27;
    XsaveOpt = 0xd . 1 Eax 0;
    XsaveC = 0xd . 1 Eax 1;
    Xgetbv1 = 0xd . 1 Eax 2;
    Xsaves = 0xd . 1 Eax 3;
    Xfd = 0xd . 1 Eax 4;
    LahfLm = 0x8000_0001 . 0 Ecx 0;
    Svm = 0x8000_0001 . 0 Ecx 2;
    ExtApicSpace = 0x8000_0001 . 0 Ecx 3;
    AltMovCr8 = 0x8000_0001 . 0 Ecx 4;
    Abm = 0x8000_0001 . 0 Ecx 5;
    Sse4a = 0x8000_0001 . 0 Ecx 6;
    Skinit = 0x8000_0001 . 0 Ecx 12;
    TranslationCacheExtension = 0x8000_0001 . 0 Ecx 17;
    PerfCtrExtCore = 0x8000_0001 . 0 Ecx 23;
    Syscall = 0x8000_0001 . 0 Edx 11;
    Nx = 0x8000_0001 . 0 Edx 20;
    Ffxsr = 0x8000_0001 . 0 Edx 25;
    Page1Gb = 0x8000_0001 . 0 Edx 26;
    Rdtscp = 0x8000_0001 . 0 Edx 27;
    LongMode = 0x8000_0001 . 0 Edx 29;
    InvariantTsc = 0x8000_0007 . 0 Edx 8;
    Clzero = 0x8000_0008 . 0 Ebx 0;
    Invlpgb = 0x8000_0008 . 0 Ebx 3;
    Rdpru = 0x8000_0008 . 0 Ebx 4;
    Mcommit = 0x8000_0008 . 0 Ebx 8;
    Wbnoinvd = 0x8000_0008 . 0 Ebx 9;
    AmdIbpb = 0x8000_0008 . 0 Ebx 12;
    IntWbinvd = 0x8000_0008 . 0 Ebx 13;
    AmdIbrs = 0x8000_0008 . 0 Ebx 14;
    AmdStibp = 0x8000_0008 . 0 Ebx 15;
    EferLmsleUnsupported = 0x8000_0008 . 0 Ebx 20;
    AmdSsbd = 0x8000_0008 . 0 Ebx 24;
    NestedPaging = 0x8000_000a . 0 Edx 0;
    LbrVirtualization = 0x8000_000a . 0 Edx 1;
    SvmLock = 0x8000_000a . 0 Edx 2;
    NripSave = 0x8000_000a . 0 Edx 3;
    TscRateMsr = 0x8000_000a . 0 Edx 4;
    VmcbClean = 0x8000_000a . 0 Edx 5;
    FlushByAsid = 0x8000_000a . 0 Edx 6;
    DecodeAssists = 0x8000_000a . 0 Edx 7;
    PmcVirtualization = 0x8000_000a . 0 Edx 8;
    PauseFilter = 0x8000_000a . 0 Edx 10;
    PauseFilterThreshold = 0x8000_000a . 0 Edx 12;
    Avic = 0x8000_000a . 0 Edx 13;
    VirtualVmloadVmsave = 0x8000_000a . 0 Edx 15;
    VirtualGif = 0x8000_000a . 0 Edx 16;
    Gmet = 0x8000_000a . 0 Edx 17;
    X2Avic = 0x8000_000a . 0 Edx 18;
    SupervisorShadowStack = 0x8000_000a . 0 Edx 19;
    VirtualSpecCtrl = 0x8000_000a . 0 Edx 20;
    ReadOnlyGuestPageTables = 0x8000_000a . 0 Edx 21;
    HostMceOverride = 0x8000_000a . 0 Edx 23;
    TlbiControl = 0x8000_000a . 0 Edx 24;
    VirtualNmi = 0x8000_000a . 0 Edx 25;
    IbsVirtualization = 0x8000_000a . 0 Edx 26;
    BusLockThreshold = 0x8000_000a . 0 Edx 29;
    IdleHltIntercept = 0x8000_000a . 0 Edx 30;
    Sme = 0x8000_001f . 0 Eax 0;
    Sev = 0x8000_001f . 0 Eax 1;
    SevEs = 0x8000_001f . 0 Eax 3;
    SevSnp = 0x8000_001f . 0 Eax 4;
    VirtualTscAux = 0x8000_001f . 0 Eax 9;
    UpperAddressIgnore = 0x8000_0021 . 0 Eax 7;
    AutomaticIbrs = 0x8000_0021 . 0 Eax 8;
    Sbpb = 0x8000_0021 . 0 Eax 27;
}

impl Feature {
    /// The feature's row.
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

/// A set of [`Feature`]s: what one processor model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct FeatureSet([u64; 3]);

const _: () = assert!(TABLE.len() <= 192, "FeatureSet is 192 bits wide");

impl FeatureSet {
    /// The empty set.
    pub const fn none() -> Self {
        Self([0; 3])
    }
    /// Every feature of the table.
    pub const fn all() -> Self {
        let mut set = Self::none();
        let mut i = 0;
        while i < TABLE.len() {
            set = set.with(TABLE[i].feature);
            i += 1;
        }
        set
    }
    /// Whether the set has `feature`.
    pub const fn has(&self, feature: Feature) -> bool {
        self.0[feature as usize / 64] >> (feature as usize % 64) & 1 != 0
    }
    /// The set with `feature` added.
    pub const fn with(mut self, feature: Feature) -> Self {
        self.0[feature as usize / 64] |= 1 << (feature as usize % 64);
        self
    }
    /// The set with `feature` removed.
    pub const fn without(mut self, feature: Feature) -> Self {
        self.0[feature as usize / 64] &= !(1 << (feature as usize % 64));
        self
    }
    /// The set with all of `features` added.
    pub const fn with_all(mut self, features: &[Feature]) -> Self {
        let mut i = 0;
        while i < features.len() {
            self = self.with(features[i]);
            i += 1;
        }
        self
    }
    /// The features that the set has, in table order.
    pub fn iter(&self) -> impl Iterator<Item = Feature> + '_ {
        TABLE.iter().map(|row| row.feature).filter(|f| self.has(*f))
    }
}
