//! Draws cases: MSRs, filters, configurations, L1's maps. Small numbers give simple cases.

use rootmode_arch::{Choices, Feature, Site, Vendor, msr};
use rootmode_models::kvm::filter::{FilterRange, MsrBits};
use rootmode_models::kvm::interception::{
    Access, Accesses, ApicMode, Confidential, Configuration, Kernel, LastBranch, MediatedPmu, ProcessorTrace,
};
use rootmode_models::kvm::nested::{GuestMemory, Unreadable};
use rootmode_models::kvm::{DisabledExits, Filter, Regressions};

/// MSRs that some rule names, simple ones first, with neighbours that share a byte or a chunk with them.
const NAMED: &[u32] = &[
    msr::IA32_STAR,
    msr::IA32_EFER,
    msr::IA32_FS_BASE,
    msr::IA32_SPEC_CTRL,
    msr::IA32_PRED_CMD,
    msr::IA32_TSC,
    msr::IA32_MPERF,
    msr::IA32_APERF,
    msr::IA32_FLUSH_CMD,
    msr::IA32_SYSENTER_CS,
    msr::IA32_SYSENTER_ESP,
    msr::IA32_SYSENTER_EIP,
    msr::IA32_DEBUGCTL,
    msr::LASTBRANCHFROMIP,
    msr::LASTBRANCHTOIP,
    msr::LASTINTFROMIP,
    msr::LASTINTTOIP,
    msr::IA32_PAT,
    msr::IA32_XFD,
    msr::IA32_XFD_ERR,
    msr::IA32_GS_BASE,
    msr::IA32_KERNEL_GS_BASE,
    msr::IA32_TSC_AUX,
    msr::IA32_LSTAR,
    msr::IA32_CSTAR,
    msr::IA32_FMASK,
    msr::IA32_XSS,
    msr::IA32_U_CET,
    msr::IA32_S_CET,
    msr::IA32_PL0_SSP,
    msr::IA32_PL3_SSP,
    msr::IA32_INTERRUPT_SSP_TABLE_ADDR,
    msr::MSR_CORE_C1_RES,
    msr::MSR_CORE_C3_RESIDENCY,
    msr::MSR_CORE_C7_RESIDENCY,
    msr::IA32_TSC_DEADLINE,
    msr::IA32_X2APIC_APICID,
    msr::IA32_X2APIC_TPR,
    msr::IA32_X2APIC_EOI,
    msr::IA32_X2APIC_ICR,
    msr::IA32_X2APIC_LVT_TIMER,
    msr::IA32_X2APIC_CUR_COUNT,
    msr::IA32_X2APIC_SELF_IPI,
    msr::SEV_ES_GHCB,
    msr::GUEST_TSC_FREQ,
    msr::VM_HSAVE_PA,
    msr::PERF_LEGACY_CTR0,
    msr::PERF_CTR0,
    msr::PERF_CTR5,
    msr::PERF_CNTR_GLOBAL_CTL,
    msr::IA32_RTIT_STATUS,
    msr::IA32_RTIT_ADDR0_A,
    msr::IA32_PERF_GLOBAL_CTRL,
    0xc000_0117,
    0x101,
    0x4c1,
    0x7ff,
    0x8ff,
    0x900,
    0,
];

/// First and last MSRs of ranges, and their neighbours outside.
const EDGES: &[u32] = &[
    0x1fff,
    0x2000,
    0xc000_1fff,
    0xc000_2000,
    0xc000_ffff,
    0xc001_0000,
    0xc001_1fff,
    0xc001_2000,
    0xbfff_ffff,
    0x4000_0000,
    0xffff_ffff,
    0xc000_0000,
    0x2048,
    0xc000_2081,
    0x1_0048,
    0xc001_2117,
];

/// An MSR number: mostly one with a meaning, sometimes an edge, sometimes any.
pub fn any_msr(c: &mut dyn Choices) -> u32 {
    match c.choose(Site::State, 8) {
        6 => EDGES[c.choose(Site::State, EDGES.len() as u64) as usize],
        7 => c.choose(Site::State, 1 << 32) as u32,
        _ => named_msr(c),
    }
}

/// An MSR number that some rule names.
pub(crate) fn named_msr(c: &mut dyn Choices) -> u32 {
    NAMED[c.choose(Site::State, NAMED.len() as u64) as usize]
}

/// A few MSRs that a whole case keeps to, so that L0, L1 and L2 meet at the same one.
pub(crate) struct Pool([u32; 3]);

impl Pool {
    /// Draws the pool: mostly MSRs that some rule names.
    pub(crate) fn draw(c: &mut dyn Choices) -> Self {
        Self([named_msr(c), named_msr(c), any_msr(c)])
    }

    /// One of its MSRs.
    pub(crate) fn msr(&self, c: &mut dyn Choices) -> u32 {
        self.0[c.choose(Site::State, 3) as usize]
    }

    /// A map with up to four exceptions, all of the pool.
    pub(crate) fn map(&self, c: &mut dyn Choices) -> MapDraw {
        let mut map = MapDraw { fill: c.flip(Site::State), flipped: Vec::new() };
        for _ in 0..c.choose(Site::State, 5) {
            map.toggle((self.msr(c), access(c)));
        }
        map
    }
}

/// RDMSR or WRMSR.
pub fn access(c: &mut dyn Choices) -> Access {
    if c.flip(Site::State) { Access::Write } else { Access::Read }
}

/// One or both accesses.
pub(crate) fn accesses(c: &mut dyn Choices) -> Accesses {
    [Accesses::RW, Accesses::R, Accesses::W][c.choose(Site::State, 3) as usize]
}

/// What a range of a drawn filter says about its MSRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// All are denied.
    Deny,
    /// All are allowed.
    Allow,
    /// All are denied but the one at this offset.
    AllowOnly(u32),
    /// All are allowed but the one at this offset.
    DenyOnly(u32),
}

impl Pattern {
    /// Whether the MSR at `offset` of the range is allowed.
    pub(crate) const fn allows(self, offset: u32) -> bool {
        match self {
            Self::Deny => false,
            Self::Allow => true,
            Self::AllowOnly(one) => offset == one,
            Self::DenyOnly(one) => offset != one,
        }
    }

    /// The bitmap of a range with `nmsrs` MSRs, in whole 64-bit words.
    pub(crate) fn bitmap(self, nmsrs: u32) -> MsrBits {
        let fill = matches!(self, Self::Allow | Self::DenyOnly(_));
        let mut bits = MsrBits::repeat(fill, nmsrs.div_ceil(64) as usize * 64);
        if let Self::AllowOnly(one) | Self::DenyOnly(one) = self {
            bits.set(one as usize, !fill);
        }
        bits
    }
}

/// A drawn range of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeDraw {
    /// The accesses that the range decides.
    pub accesses: Accesses,
    /// First MSR.
    pub base: u32,
    /// Number of MSRs, at least 1.
    pub nmsrs: u32,
    /// What it says.
    pub pattern: Pattern,
}

/// A drawn filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterDraw {
    /// Accesses that no range decides are allowed.
    pub default_allow: bool,
    /// Ranges, in their order.
    pub ranges: Vec<RangeDraw>,
}

impl FilterDraw {
    /// No filtering.
    pub(crate) const OFF: Self = Self { default_allow: true, ranges: Vec::new() };

    /// The filter as the model holds it.
    pub fn build(&self) -> Filter {
        let range = |r: &RangeDraw| FilterRange {
            accesses: r.accesses,
            base: r.base,
            nmsrs: r.nmsrs,
            bitmap: r.pattern.bitmap(r.nmsrs),
        };
        Filter { default_allow: self.default_allow, ranges: self.ranges.iter().map(range).collect() }
    }
}

/// A range around an MSR that some rule names; one in 16 ends at or beyond 2^32.
pub(crate) fn range(c: &mut dyn Choices) -> RangeDraw {
    let accesses = accesses(c);
    let (base, nmsrs) = match c.choose(Site::State, 16) {
        15 => {
            let before = 1 + c.choose(Site::State, 64) as u32;
            (
                before.wrapping_neg(),
                before + c.choose(Site::State, 3) as u32 - c.choose(Site::State, 2) as u32,
            )
        }
        14 => (named_msr(c) & !0xff, 256 + c.choose(Site::State, 2048) as u32),
        _ => {
            let msr = named_msr(c);
            let back = c.choose(Site::State, 3) as u32;
            (msr.saturating_sub(back), back + 1 + c.choose(Site::State, 4) as u32)
        }
    };
    let nmsrs = nmsrs.max(1);
    let pattern = match c.choose(Site::State, 4) {
        0 => Pattern::Deny,
        1 => Pattern::Allow,
        2 => Pattern::AllowOnly(c.choose(Site::State, u64::from(nmsrs)) as u32),
        _ => Pattern::DenyOnly(c.choose(Site::State, u64::from(nmsrs)) as u32),
    };
    RangeDraw { accesses, base, nmsrs, pattern }
}

/// A filter with at most four ranges.
pub fn filter(c: &mut dyn Choices) -> FilterDraw {
    let count = c.choose(Site::State, 5);
    let ranges = (0..count).map(|_| range(c)).collect::<Vec<_>>();
    let default_allow = ranges.is_empty() || !c.flip(Site::State);
    FilterDraw { default_allow, ranges }
}

const SPEC_CTRL: [Feature; 4] = [Feature::SpecCtrl, Feature::AmdIbrs, Feature::AmdStibp, Feature::AmdSsbd];
const COMMANDS: [Feature; 3] = [Feature::AmdIbpb, Feature::Sbpb, Feature::FlushL1d];
const CET: [Feature; 2] = [Feature::Shstk, Feature::Ibt];
const SEV: [Feature; 3] = [Feature::Rdtscp, Feature::Rdpid, Feature::Xsaves];
const REST: [Feature; 2] = [Feature::Xfd, Feature::PerfCtrExtCore];

/// Families of features that a case may have; a family that is off draws nothing.
struct Swarm(u64);

impl Swarm {
    const SPECULATION: u32 = 0;
    const COMMANDS: u32 = 1;
    const LAST_BRANCH: u32 = 2;
    const EXITS: u32 = 3;
    const CET: u32 = 4;
    const CONFIDENTIAL: u32 = 5;
    const APIC: u32 = 6;
    const TRACE: u32 = 7;
    const PMU: u32 = 8;
    const BITS: u32 = 9;

    const fn has(&self, family: u32) -> bool {
        self.0 >> family & 1 != 0
    }
}

/// Draws configurations of one vendor, all within the families that were on at the start of the case.
pub(crate) struct Machine {
    swarm: Swarm,
    vendor: Vendor,
}

impl Machine {
    /// First draws which families are on.
    pub(crate) fn draw(c: &mut dyn Choices, vendor: Vendor) -> Self {
        Self { swarm: Swarm(c.choose(Site::Swarm, 1 << Swarm::BITS)), vendor }
    }

    /// A configuration as it is when the vCPU is created.
    pub(crate) fn configuration(&self, c: &mut dyn Choices, regressions: Regressions) -> Configuration {
        let mut config = Configuration { regressions, ..Configuration::plain(self.vendor) };
        config.kernel = Kernel::ALL[3 - c.choose(Site::State, 4) as usize];
        let subset = |c: &mut dyn Choices, features: &[Feature]| pick(c, features);
        if self.swarm.has(Swarm::SPECULATION) && c.flip(Site::State) {
            config.host = config.host.with(Feature::VirtualSpecCtrl);
        }
        if self.swarm.has(Swarm::COMMANDS) {
            config.host =
                config.host.with_all(&subset(c, &[Feature::AmdIbpb, Feature::SpecCtrl, Feature::FlushL1d]));
        }
        if self.swarm.has(Swarm::CET) {
            config.kvm = config.kvm.with_all(&subset(c, &CET));
        }
        if self.swarm.has(Swarm::TRACE) {
            config.kvm = config.kvm.with_all(&subset(c, &[Feature::Xfd]));
        }
        if self.swarm.has(Swarm::CONFIDENTIAL) && self.vendor == Vendor::Amd {
            config.confidential = match c.choose(Site::State, 4) {
                0 => Confidential::SevEs,
                1 => Confidential::No,
                k => Confidential::SevSnp { secure_tsc: k == 3 },
            };
            config.host = config.host.with_all(&subset(c, &[Feature::VirtualTscAux]));
            config.kvm = config.kvm.with_all(&subset(c, &[Feature::Xsaves]));
        }
        if self.swarm.has(Swarm::LAST_BRANCH) {
            config.last_branch = LastBranch { module: true, vmcb01: c.flip(Site::State), vmcb02: None };
        }
        self.redraw_exits(c, &mut config);
        self.redraw_guest(c, &mut config);
        self.redraw_apic(c, &mut config);
        config
    }

    /// What KVM_SET_CPUID2 and writes of PMU and PT registers can change.
    pub(crate) fn redraw_guest(&self, c: &mut dyn Choices, config: &mut Configuration) {
        let mut guest = rootmode_arch::FeatureSet::none();
        let families: [(u32, &[Feature]); 5] = [
            (Swarm::SPECULATION, &SPEC_CTRL),
            (Swarm::COMMANDS, &COMMANDS),
            (Swarm::CET, &CET),
            (Swarm::CONFIDENTIAL, &SEV),
            (Swarm::PMU, &REST),
        ];
        for (family, features) in families {
            if self.swarm.has(family) {
                guest = guest.with_all(&pick(c, features));
            }
        }
        if self.swarm.has(Swarm::TRACE) && c.flip(Site::State) {
            guest = guest.with(Feature::Xfd);
        }
        config.guest = guest;
        let crossed = c.choose(Site::State, 4) == 3;
        config.guest_vendor = match (self.vendor, crossed) {
            (Vendor::Intel, false) | (Vendor::Amd, true) => Vendor::Intel,
            (Vendor::Amd, false) | (Vendor::Intel, true) => Vendor::Amd,
        };
        if self.swarm.has(Swarm::TRACE) && self.vendor == Vendor::Intel {
            let pairs = c.choose(Site::State, 6) as u8;
            config.processor_trace =
                pairs.checked_sub(1).map(|address_pairs| ProcessorTrace { address_pairs });
        }
        if self.swarm.has(Swarm::PMU) {
            let counters = c.choose(Site::State, 8) as u8;
            config.pmu = counters.checked_sub(1).map(|counters| MediatedPmu {
                counters,
                fixed_counters: c.choose(Site::State, 4) as u8,
                full_width: c.flip(Site::State),
                global: c.flip(Site::State),
            });
        }
    }

    /// What KVM_CAP_X86_DISABLE_EXITS can change.
    pub(crate) fn redraw_exits(&self, c: &mut dyn Choices, config: &mut Configuration) {
        if self.swarm.has(Swarm::EXITS) {
            config.disabled_exits = DisabledExits::from_bits(c.choose(Site::State, 32));
        }
    }

    /// What writes of APIC_BASE and APICv's inhibitions can change.
    pub(crate) fn redraw_apic(&self, c: &mut dyn Choices, config: &mut Configuration) {
        if self.swarm.has(Swarm::APIC) {
            config.apic = match (self.vendor, c.choose(Site::State, 4)) {
                (_, 0) => ApicMode::Emulated,
                (Vendor::Amd, _) => ApicMode::X2Avic,
                (Vendor::Intel, k) => ApicMode::VirtualizeX2apic { apicv: k > 1, ipi: k > 2 },
            };
        }
    }

    /// Whether LBR virtualization exists in this case.
    pub(crate) const fn has_last_branch(&self) -> bool {
        self.swarm.has(Swarm::LAST_BRANCH)
    }
}

/// A subset of `features`, drawn as one number: 0 is none.
fn pick(c: &mut dyn Choices, features: &[Feature]) -> Vec<Feature> {
    let bits = c.choose(Site::State, 1 << features.len());
    features.iter().enumerate().filter(|(i, _)| bits >> i & 1 != 0).map(|(_, f)| *f).collect()
}

/// L1's map, as a description: a fill and the accesses that differ from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapDraw {
    /// Whether everything else is intercepted.
    pub(crate) fill: bool,
    /// The exceptions.
    pub(crate) flipped: Vec<(u32, Access)>,
}

impl MapDraw {
    /// Makes the access an exception, or no exception any more; true if it was one.
    pub(crate) fn toggle(&mut self, one: (u32, Access)) -> bool {
        let at = self.flipped.iter().position(|e| *e == one);
        match at {
            Some(at) => drop(self.flipped.remove(at)),
            None => self.flipped.push(one),
        }
        at.is_some()
    }

    /// Whether L1 intercepts an access that its map covers.
    pub(crate) fn intercepts(&self, msr: u32, access: Access) -> bool {
        self.fill != self.flipped.contains(&(msr, access))
    }
}

/// L1's memory with one map in it, read as the processor would lay the map out.
pub(crate) struct L1Memory<'a> {
    /// Guest-physical address of the map.
    pub(crate) base: u64,
    /// Bytes of the map.
    pub(crate) size: u64,
    /// What it says.
    pub(crate) map: &'a MapDraw,
    /// Where the bit of an access lies: byte and bit.
    pub(crate) layout: fn(u32, Access) -> Option<(usize, u32)>,
    /// An address that does not answer.
    pub(crate) hole: Option<u64>,
    /// Every read: address and length.
    pub(crate) reads: Vec<(u64, usize)>,
}

impl GuestMemory for L1Memory<'_> {
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), Unreadable> {
        self.reads.push((address, buffer.len()));
        let range = address..address + buffer.len() as u64;
        if self.hole.is_some_and(|hole| range.contains(&hole)) {
            return Err(Unreadable { address });
        }
        if address < self.base || range.end > self.base + self.size {
            // Some other page of L1: neither zeros nor ones.
            buffer.fill(0x5a);
            return Ok(());
        }
        let offset = (address - self.base) as usize;
        buffer.fill(if self.map.fill { 0xff } else { 0 });
        let mut done: Vec<(usize, u32)> = Vec::new();
        for (byte, bit) in self.map.flipped.iter().filter_map(|(msr, access)| (self.layout)(*msr, *access)) {
            let inside = byte >= offset && byte < offset + buffer.len();
            if inside && !done.contains(&(byte, bit)) {
                buffer[byte - offset] ^= 1 << bit;
                done.push((byte, bit));
            }
        }
        Ok(())
    }
}
