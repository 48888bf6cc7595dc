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
    /// What command lines call it where that is not the name: QEMU's spelling, most of them Linux's too.
    pub flag: Option<&'static str>,
}

/// The first of at most one.
const fn first(flags: &[&'static str]) -> Option<&'static str> {
    if flags.is_empty() { None } else { Some(flags[0]) }
}

macro_rules! features {
    ($($(#[$meta:meta])* $name:ident = $leaf:literal . $sub:literal $out:ident $bit:literal $($flag:literal)?;)*) => {
        /// A CPUID feature that some rule, instruction or register depends on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Feature {
            $(#[doc = concat!("`CPUID.", stringify!($leaf), ".", stringify!($sub), ":", stringify!($out), "[", stringify!($bit), "]`.")] $name,)*
        }
        /// Every feature with its place, by leaf.
        pub const TABLE: &[Row] = &[$(Row { feature: Feature::$name, name: stringify!($name), leaf: $leaf, subleaf: $sub, output: Output::$out, bit: $bit, flag: first(&[$($flag)?]) }),*];
    };
}

features! {
    Sse3 = 0x1 . 0 Ecx 0 "pni";
    Pclmulqdq = 0x1 . 0 Ecx 1;
    Dtes64 = 0x1 . 0 Ecx 2;
    Monitor = 0x1 . 0 Ecx 3;
    DsCpl = 0x1 . 0 Ecx 4;
    Vmx = 0x1 . 0 Ecx 5;
    Smx = 0x1 . 0 Ecx 6;
    SpeedStep = 0x1 . 0 Ecx 7 "est";
    ThermalMonitor2 = 0x1 . 0 Ecx 8 "tm2";
    Ssse3 = 0x1 . 0 Ecx 9;
    Sdbg = 0x1 . 0 Ecx 11;
    Fma = 0x1 . 0 Ecx 12;
    Cmpxchg16b = 0x1 . 0 Ecx 13 "cx16";
    Xtpr = 0x1 . 0 Ecx 14;
    Pdcm = 0x1 . 0 Ecx 15;
    Pcid = 0x1 . 0 Ecx 17;
    DirectCacheAccess = 0x1 . 0 Ecx 18 "dca";
    Sse41 = 0x1 . 0 Ecx 19 "sse4.1";
    Sse42 = 0x1 . 0 Ecx 20 "sse4.2";
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
    Clflush = 0x1 . 0 Edx 19 "clfsh";
    DebugStore = 0x1 . 0 Edx 21 "ds";
    ThermalClock = 0x1 . 0 Edx 22 "acpi";
    Mmx = 0x1 . 0 Edx 23;
    Fxsr = 0x1 . 0 Edx 24;
    Sse = 0x1 . 0 Edx 25;
    Sse2 = 0x1 . 0 Edx 26;
    SelfSnoop = 0x1 . 0 Edx 27 "ss";
    MultiThreading = 0x1 . 0 Edx 28 "ht";
    ThermalMonitor = 0x1 . 0 Edx 29 "tm";
    PendingBreak = 0x1 . 0 Edx 31 "pbe";
    ThermalSensor = 0x6 . 0 Eax 0 "dts";
    TurboBoost = 0x6 . 0 Eax 1;
    Arat = 0x6 . 0 Eax 2;
    PowerLimitNotification = 0x6 . 0 Eax 4 "pln";
    PackageThermal = 0x6 . 0 Eax 6 "pts";
    HardwarePstates = 0x6 . 0 Eax 7 "hwp";
    Aperfmperf = 0x6 . 0 Ecx 0;
    EnergyBias = 0x6 . 0 Ecx 3 "epb";
    Fsgsbase = 0x7 . 0 Ebx 0;
    TscAdjust = 0x7 . 0 Ebx 1;
    Sgx = 0x7 . 0 Ebx 2;
    Bmi1 = 0x7 . 0 Ebx 3;
    Hle = 0x7 . 0 Ebx 4;
    Avx2 = 0x7 . 0 Ebx 5;
    Smep = 0x7 . 0 Ebx 7;
    Bmi2 = 0x7 . 0 Ebx 8;
    Erms = 0x7 . 0 Ebx 9;
    Invpcid = 0x7 . 0 Ebx 10;
    Rtm = 0x7 . 0 Ebx 11;
    ResourceMonitoring = 0x7 . 0 Ebx 12 "rdt-m";
    ZeroFcsFds = 0x7 . 0 Ebx 13;
    Mpx = 0x7 . 0 Ebx 14;
    ResourceAllocation = 0x7 . 0 Ebx 15 "rdt-a";
    Avx512f = 0x7 . 0 Ebx 16;
    Avx512dq = 0x7 . 0 Ebx 17;
    Rdseed = 0x7 . 0 Ebx 18;
    Adx = 0x7 . 0 Ebx 19;
    Smap = 0x7 . 0 Ebx 20;
    Avx512ifma = 0x7 . 0 Ebx 21;
    Clflushopt = 0x7 . 0 Ebx 23;
    Clwb = 0x7 . 0 Ebx 24;
    IntelPt = 0x7 . 0 Ebx 25;
    Avx512cd = 0x7 . 0 Ebx 28;
    Sha = 0x7 . 0 Ebx 29 "sha-ni";
    Avx512bw = 0x7 . 0 Ebx 30;
    Avx512vl = 0x7 . 0 Ebx 31;
    Avx512vbmi = 0x7 . 0 Ecx 1;
    Umip = 0x7 . 0 Ecx 2;
    Pku = 0x7 . 0 Ecx 3;
    Ospke = 0x7 . 0 Ecx 4;
    Waitpkg = 0x7 . 0 Ecx 5;
    Avx512vbmi2 = 0x7 . 0 Ecx 6;
    Shstk = 0x7 . 0 Ecx 7;
    Gfni = 0x7 . 0 Ecx 8;
    Vaes = 0x7 . 0 Ecx 9;
    Vpclmulqdq = 0x7 . 0 Ecx 10;
    Avx512vnni = 0x7 . 0 Ecx 11;
    Avx512bitalg = 0x7 . 0 Ecx 12;
    MemoryEncryption = 0x7 . 0 Ecx 13 "tme";
    Avx512vpopcntdq = 0x7 . 0 Ecx 14;
    La57 = 0x7 . 0 Ecx 16;
    Rdpid = 0x7 . 0 Ecx 22;
    KeyLocker = 0x7 . 0 Ecx 23 "aeskle";
    BusLockDetect = 0x7 . 0 Ecx 24;
    Cldemote = 0x7 . 0 Ecx 25;
    Movdiri = 0x7 . 0 Ecx 27;
    Movdir64b = 0x7 . 0 Ecx 28;
    Enqcmd = 0x7 . 0 Ecx 29;
    SgxLaunch = 0x7 . 0 Ecx 30 "sgxlc";
    Pks = 0x7 . 0 Ecx 31;
    Fsrm = 0x7 . 0 Edx 4;
    Uintr = 0x7 . 0 Edx 5;
    MdClear = 0x7 . 0 Edx 10;
    Serialize = 0x7 . 0 Edx 14;
    TsxLoadTracking = 0x7 . 0 Edx 16 "tsx-ldtrk";
    Pconfig = 0x7 . 0 Edx 18;
    ArchLbr = 0x7 . 0 Edx 19;
    Ibt = 0x7 . 0 Edx 20;
    AmxBf16 = 0x7 . 0 Edx 22;
    Avx512fp16 = 0x7 . 0 Edx 23;
    AmxTile = 0x7 . 0 Edx 24;
    AmxInt8 = 0x7 . 0 Edx 25;
    SpecCtrl = 0x7 . 0 Edx 26;
    Stibp = 0x7 . 0 Edx 27;
    FlushL1d = 0x7 . 0 Edx 28 "flush-l1d";
    ArchCapabilities = 0x7 . 0 Edx 29;
    CoreCapability = 0x7 . 0 Edx 30;
    Ssbd = 0x7 . 0 Edx 31;
    AvxVnni = 0x7 . 1 Eax 4;
    Avx512bf16 = 0x7 . 1 Eax 5;
    Lass = 0x7 . 1 Eax 6;
    FastZeroRepMovsb = 0x7 . 1 Eax 10 "fzrm";
    FastShortRepStosb = 0x7 . 1 Eax 11 "fsrs";
    FastShortRepCmpsb = 0x7 . 1 Eax 12 "fsrc";
    Fred = 0x7 . 1 Eax 17;
    Lam = 0x7 . 1 Eax 26;
    Msrlist = 0x7 . 1 Eax 27;
    XsaveOpt = 0xd . 1 Eax 0 "xsaveopt";
    XsaveC = 0xd . 1 Eax 1 "xsavec";
    Xgetbv1 = 0xd . 1 Eax 2;
    Xsaves = 0xd . 1 Eax 3;
    Xfd = 0xd . 1 Eax 4;
    LahfLm = 0x8000_0001 . 0 Ecx 0;
    CmpLegacy = 0x8000_0001 . 0 Ecx 1;
    Svm = 0x8000_0001 . 0 Ecx 2;
    ExtApicSpace = 0x8000_0001 . 0 Ecx 3 "extapic";
    AltMovCr8 = 0x8000_0001 . 0 Ecx 4 "cr8legacy";
    Abm = 0x8000_0001 . 0 Ecx 5;
    Sse4a = 0x8000_0001 . 0 Ecx 6;
    MisalignedSse = 0x8000_0001 . 0 Ecx 7 "misalignsse";
    Prefetchw = 0x8000_0001 . 0 Ecx 8 "3dnowprefetch";
    OsVisibleWorkaround = 0x8000_0001 . 0 Ecx 9 "osvw";
    Ibs = 0x8000_0001 . 0 Ecx 10;
    Skinit = 0x8000_0001 . 0 Ecx 12;
    Watchdog = 0x8000_0001 . 0 Ecx 13 "wdt";
    TranslationCacheExtension = 0x8000_0001 . 0 Ecx 17 "tce";
    TopologyExtensions = 0x8000_0001 . 0 Ecx 22 "topoext";
    PerfCtrExtCore = 0x8000_0001 . 0 Ecx 23 "perfctr-core";
    PerfCtrExtNb = 0x8000_0001 . 0 Ecx 24 "perfctr-nb";
    DataBreakpointExtension = 0x8000_0001 . 0 Ecx 26 "bpext";
    PerfTsc = 0x8000_0001 . 0 Ecx 27 "ptsc";
    PerfCtrExtLlc = 0x8000_0001 . 0 Ecx 28 "perfctr-llc";
    Mwaitx = 0x8000_0001 . 0 Ecx 29;
    AddressMaskExtension = 0x8000_0001 . 0 Ecx 30;
    Syscall = 0x8000_0001 . 0 Edx 11;
    Nx = 0x8000_0001 . 0 Edx 20;
    MmxExtensions = 0x8000_0001 . 0 Edx 22 "mmxext";
    Ffxsr = 0x8000_0001 . 0 Edx 25 "fxsr-opt";
    Page1Gb = 0x8000_0001 . 0 Edx 26 "pdpe1gb";
    Rdtscp = 0x8000_0001 . 0 Edx 27;
    LongMode = 0x8000_0001 . 0 Edx 29 "lm";
    OverflowRecovery = 0x8000_0007 . 0 Ebx 0 "overflow-recov";
    Succor = 0x8000_0007 . 0 Ebx 1;
    AmdThermalSensor = 0x8000_0007 . 0 Edx 0 "ts";
    AmdPstates = 0x8000_0007 . 0 Edx 7 "hw-pstate";
    InvariantTsc = 0x8000_0007 . 0 Edx 8 "invtsc";
    CorePerformanceBoost = 0x8000_0007 . 0 Edx 9 "cpb";
    RunningAveragePower = 0x8000_0007 . 0 Edx 14 "rapl";
    Clzero = 0x8000_0008 . 0 Ebx 0;
    InstructionsRetired = 0x8000_0008 . 0 Ebx 1 "irperf";
    XsaveErrorPointers = 0x8000_0008 . 0 Ebx 2 "xsaveerptr";
    Invlpgb = 0x8000_0008 . 0 Ebx 3;
    Rdpru = 0x8000_0008 . 0 Ebx 4;
    Mcommit = 0x8000_0008 . 0 Ebx 8;
    Wbnoinvd = 0x8000_0008 . 0 Ebx 9;
    AmdIbpb = 0x8000_0008 . 0 Ebx 12 "ibpb";
    IntWbinvd = 0x8000_0008 . 0 Ebx 13;
    AmdIbrs = 0x8000_0008 . 0 Ebx 14 "ibrs";
    AmdStibp = 0x8000_0008 . 0 Ebx 15;
    StibpAlwaysOn = 0x8000_0008 . 0 Ebx 17;
    EferLmsleUnsupported = 0x8000_0008 . 0 Ebx 20 "no-efer-lmsle";
    AmdSsbd = 0x8000_0008 . 0 Ebx 24;
    CollaborativePower = 0x8000_0008 . 0 Ebx 27 "cppc";
    PredictiveStoreForwarding = 0x8000_0008 . 0 Ebx 28 "amd-psfd";
    NestedPaging = 0x8000_000a . 0 Edx 0 "npt";
    LbrVirtualization = 0x8000_000a . 0 Edx 1 "lbrv";
    SvmLock = 0x8000_000a . 0 Edx 2;
    NripSave = 0x8000_000a . 0 Edx 3;
    TscRateMsr = 0x8000_000a . 0 Edx 4 "tsc-scale";
    VmcbClean = 0x8000_000a . 0 Edx 5;
    FlushByAsid = 0x8000_000a . 0 Edx 6 "flushbyasid";
    DecodeAssists = 0x8000_000a . 0 Edx 7 "decodeassists";
    PmcVirtualization = 0x8000_000a . 0 Edx 8;
    PauseFilter = 0x8000_000a . 0 Edx 10;
    PauseFilterThreshold = 0x8000_000a . 0 Edx 12 "pfthreshold";
    Avic = 0x8000_000a . 0 Edx 13;
    VirtualVmloadVmsave = 0x8000_000a . 0 Edx 15 "v-vmsave-vmload";
    VirtualGif = 0x8000_000a . 0 Edx 16 "vgif";
    Gmet = 0x8000_000a . 0 Edx 17;
    X2Avic = 0x8000_000a . 0 Edx 18 "x2avic";
    SupervisorShadowStack = 0x8000_000a . 0 Edx 19;
    VirtualSpecCtrl = 0x8000_000a . 0 Edx 20;
    ReadOnlyGuestPageTables = 0x8000_000a . 0 Edx 21;
    HostMceOverride = 0x8000_000a . 0 Edx 23;
    TlbiControl = 0x8000_000a . 0 Edx 24;
    VirtualNmi = 0x8000_000a . 0 Edx 25 "vnmi";
    IbsVirtualization = 0x8000_000a . 0 Edx 26;
    SvmeAddressCheck = 0x8000_000a . 0 Edx 28 "svme-addr-chk";
    BusLockThreshold = 0x8000_000a . 0 Edx 29;
    IdleHltIntercept = 0x8000_000a . 0 Edx 30;
    Sme = 0x8000_001f . 0 Eax 0;
    Sev = 0x8000_001f . 0 Eax 1;
    SevEs = 0x8000_001f . 0 Eax 3;
    SevSnp = 0x8000_001f . 0 Eax 4;
    VirtualTscAux = 0x8000_001f . 0 Eax 9;
    NoNestedDataBreakpoints = 0x8000_0021 . 0 Eax 0 "no-nested-data-bp";
    LfenceAlwaysSerializing = 0x8000_0021 . 0 Eax 2;
    NullSelectorClearsBase = 0x8000_0021 . 0 Eax 6 "null-sel-clr-base";
    UpperAddressIgnore = 0x8000_0021 . 0 Eax 7 "uai";
    AutomaticIbrs = 0x8000_0021 . 0 Eax 8 "auto-ibrs";
    Sbpb = 0x8000_0021 . 0 Eax 27;
    SrsoNo = 0x8000_0021 . 0 Eax 29;
    TsaSqNo = 0x8000_0021 . 0 Ecx 1;
    TsaL1No = 0x8000_0021 . 0 Ecx 2;
    PerfMonV2 = 0x8000_0022 . 0 Eax 0 "perfmon-v2";
}

impl Feature {
    /// The feature's row.
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
    /// The feature that command lines call `flag`, by its name or as QEMU spells it; case, `-`, `_` and `.` do not count.
    pub fn from_flag(flag: &str) -> Option<Self> {
        let calls =
            |row: &&Row| same_flag(row.name, flag) || row.flag.is_some_and(|own| same_flag(own, flag));
        TABLE.iter().find(calls).map(|row| row.feature)
    }
    /// Features without which a processor cannot have this one (SDM Vol. 1 "Detection of Intel AVX Instructions" and its
    /// neighbours, "Enumeration of CPU Support for XSAVE and Processor State Components"; Vol. 3A "Protection Keys";
    /// APM Vol. 2 "Enabling SEV", "Enabling SEV-ES").
    pub const fn needs(self) -> &'static [Self] {
        match self {
            Self::XsaveOpt | Self::XsaveC | Self::Xgetbv1 | Self::Avx | Self::AmxTile => &[Self::Xsave],
            Self::Xsaves | Self::Xfd => &[Self::XsaveC],
            Self::Avx2 | Self::Fma | Self::F16c | Self::Vaes | Self::Vpclmulqdq | Self::AvxVnni => {
                &[Self::Avx]
            }
            Self::Avx512f => &[Self::Avx2],
            Self::Avx512dq
            | Self::Avx512ifma
            | Self::Avx512cd
            | Self::Avx512bw
            | Self::Avx512vl
            | Self::Avx512vbmi
            | Self::Avx512vbmi2
            | Self::Avx512vnni
            | Self::Avx512bitalg
            | Self::Avx512vpopcntdq
            | Self::Avx512fp16
            | Self::Avx512bf16 => &[Self::Avx512f],
            Self::AmxBf16 | Self::AmxInt8 => &[Self::AmxTile],
            Self::Sse => &[Self::Fxsr],
            Self::Sse2 => &[Self::Sse],
            Self::Sse3 => &[Self::Sse2],
            Self::Ssse3 => &[Self::Sse3],
            Self::Sse41 => &[Self::Ssse3],
            Self::Sse42 => &[Self::Sse41],
            Self::Page1Gb | Self::La57 | Self::Lam | Self::UpperAddressIgnore => &[Self::LongMode],
            Self::LongMode | Self::Nx => &[Self::Pae],
            Self::X2apic | Self::TscDeadline => &[Self::Apic],
            Self::PauseFilterThreshold => &[Self::PauseFilter],
            Self::X2Avic => &[Self::Avic],
            Self::Sev => &[Self::Sme, Self::NestedPaging],
            Self::SevEs => &[Self::Sev, Self::LbrVirtualization],
            _ if self.row().leaf == 0x8000_000a => &[Self::Svm],
            _ => &[],
        }
    }
}

/// Whether two spellings of a flag are the same: case, `-`, `_` and `.` do not count.
pub fn same_flag(one: &str, other: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = u8> + '_ {
        let bytes = text.bytes().filter(|byte| !matches!(byte, b'-' | b'_' | b'.'));
        bytes.map(|byte| byte.to_ascii_lowercase())
    }
    letters(one).eq(letters(other))
}

/// A set of [`Feature`]s: what one processor model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct FeatureSet([u64; 4]);

const _: () = assert!(TABLE.len() <= 256, "FeatureSet is 256 bits wide");

impl FeatureSet {
    /// The empty set.
    pub const fn none() -> Self {
        Self([0; 4])
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
    /// The set with all of `features` removed.
    pub const fn without_all(mut self, features: &[Feature]) -> Self {
        let mut i = 0;
        while i < features.len() {
            self = self.without(features[i]);
            i += 1;
        }
        self
    }
    /// The features that the set has, in table order.
    pub fn iter(&self) -> impl Iterator<Item = Feature> + '_ {
        TABLE.iter().map(|row| row.feature).filter(|f| self.has(*f))
    }
}
