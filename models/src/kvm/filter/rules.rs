//! [`Filter`]: which MSR accesses userspace allows.

use bitvec::order::Lsb0;
use bitvec::vec::BitVec;

use crate::kvm::interception::{Access, Accesses};
use crate::kvm::{Regression, Regressions};

/// A bit for each MSR of a range, laid out as userspace does: MSR 0 is bit 0 of byte 0.
pub type MsrBits = BitVec<u8, Lsb0>;

/// A range of a filter: `nmsrs` MSRs from `base` on, for the accesses in its flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRange {
    /// The accesses that the range decides.
    pub accesses: Accesses,
    /// First MSR.
    pub base: u32,
    /// Number of MSRs, at least 1.
    pub nmsrs: u32,
    /// Bit `n`: 1 allows MSR `base + n`.
    pub bitmap: MsrBits,
}

impl FilterRange {
    fn covers(&self, msr: u32, bugs: Regressions) -> bool {
        if bugs.has(Regression::WrappingRangeMatches) {
            return u64::from(msr) >= u64::from(self.base)
                && u64::from(msr) < u64::from(self.base) + u64::from(self.nmsrs);
        }
        // The end is computed in 32 bits: a range whose end wraps covers nothing.
        msr >= self.base && msr < self.base.wrapping_add(self.nmsrs)
    }

    fn allows(&self, msr: u32) -> bool {
        self.bitmap.get((msr - self.base) as usize).is_some_and(|bit| *bit)
    }
}

/// A filter: ranges in the order in which userspace gave them, and what holds for everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Accesses that no range decides are allowed.
    pub default_allow: bool,
    /// Ranges; empty ones are left out.
    pub ranges: Vec<FilterRange>,
}

/// First and last of the x2APIC MSRs, which cannot be filtered: the processor virtualizes them.
pub(crate) const UNFILTERABLE: [u32; 2] = [0x800, 0x8ff];

impl Filter {
    /// No filtering.
    pub const fn off() -> Self {
        Self { default_allow: true, ranges: Vec::new() }
    }

    /// Whether userspace allows the access. The first range that covers `msr` and has `access` decides.
    pub fn allows(&self, msr: u32, access: Access, bugs: Regressions) -> bool {
        let [first, last] = bugs.tables().unfilterable;
        if (first..=last).contains(&msr) && !bugs.has(Regression::FilterAppliesToX2apic) {
            return true;
        }
        let decides = |range: &&FilterRange| {
            range.covers(msr, bugs) && (range.accesses.has(access) || bugs.has(Regression::RangeFlagsIgnored))
        };
        let found = if bugs.has(Regression::LastRangeWins) {
            self.ranges.iter().rfind(decides)
        } else {
            self.ranges.iter().find(decides)
        };
        found.map_or(self.default_allow, |range| range.allows(msr))
    }
}
