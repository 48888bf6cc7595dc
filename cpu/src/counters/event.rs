//! What an event-select register selects, and how often that happened.

use super::{INVERT, Totals};
use crate::time;
use rootmode_arch::Vendor;

/// What can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    /// Clocks in which the processor was not halted.
    Clocks,
    /// The time-stamp counter's clocks while the processor was not halted.
    ReferenceClocks,
    /// Instructions that completed.
    Instructions,
    /// Branches that completed, taken or not.
    Branches,
}

/// Event and unit mask of Intel's parts (SDM Vol. 3B "Pre-defined Architectural Performance Events"). The reference clock of
/// 0x013c is the core crystal's, which runs as fast as the processor here.
const INTEL: [(u64, Counted); 4] = [
    (0x003c, Counted::Clocks),
    (0x013c, Counted::Clocks),
    (0x00c0, Counted::Instructions),
    (0x00c4, Counted::Branches),
];
/// Events of AMD's (the PPR's "CPU clocks not halted", "Retired instructions", "Retired branch instructions"), which have
/// no unit masks.
const AMD: [(u64, Counted); 3] =
    [(0x76, Counted::Clocks), (0xc0, Counted::Instructions), (0xc2, Counted::Branches)];

impl Counted {
    /// What `control` selects; `None` if that never happens here.
    pub(super) fn of(vendor: Vendor, control: u64) -> Option<Self> {
        let (rows, event) = match vendor {
            Vendor::Intel => (INTEL.as_slice(), control & 0xffff),
            Vendor::Amd => (AMD.as_slice(), control & 0xff | control >> 24 & 0xf00),
        };
        rows.iter().find(|(select, _)| *select == event).map(|(_, counted)| *counted)
    }

    /// How often it happens in a tick at most.
    pub(super) const fn in_a_tick(self) -> u64 {
        match self {
            Self::ReferenceClocks => time::TSC.counts,
            Self::Clocks | Self::Instructions | Self::Branches => 1,
        }
    }

    /// How often it happened in `passed`, as `control`'s threshold has it. It happens at most once a clock, so a threshold
    /// (CMASK) of 1 is reached by what happens, a larger one never, and INV turns that round.
    pub(super) const fn events(self, vendor: Vendor, control: u64, passed: &Totals) -> u64 {
        // Intel's parts do not count exceptions and interrupts among instructions and branches, AMD's do.
        let amd = matches!(vendor, Vendor::Amd);
        let (uncounted, branches) = if amd { (0, passed.deliveries) } else { (passed.deliveries, 0) };
        let events = match self {
            Self::Clocks => passed.clocks,
            // Only a fixed-function counter has these, and no threshold.
            Self::ReferenceClocks => passed.clocks.saturating_mul(time::TSC.counts),
            Self::Instructions => passed.clocks.saturating_sub(passed.iterations + uncounted),
            Self::Branches => passed.branches + branches,
        };
        match (control >> 24 & 0xff, control & INVERT != 0) {
            (0, _) | (1, false) => events,
            (1, true) => passed.clocks.saturating_sub(events),
            (_, false) => 0,
            (_, true) => passed.clocks,
        }
    }
}
