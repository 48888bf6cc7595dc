//! What a tick is worth: the rates of the oscillators inside a processor, as declared rationals of the machine's tick.
//!
//! Nothing ticks: a count is computed from the tick. The rates of devices' oscillators follow from [`TICK_HZ`] the same way.

/// Ticks in a second of the guest's world: a tick is one nanosecond.
pub const TICK_HZ: u64 = 1_000_000_000;

/// The time-stamp counter: 4 counts a tick, nominally 4 GHz. Guests calibrated for real processors wait for numbers of TSC
/// counts, so a rate like a real part's lets them wait a real part's number of instructions.
pub const TSC: Rate = Rate { counts: 4, ticks: 1 };

/// The core crystal clock, which drives the APIC timer before its divider: 1 GHz. CPUID leaf 0x15 tells the ratio of [`TSC`]
/// to it (SDM Vol. 2A "CPUID—CPU Identification", Time Stamp Counter and Nominal Core Crystal Clock Information Leaf).
pub const CRYSTAL: Rate = Rate { counts: 1, ticks: 1 };

/// An oscillator: `counts` of it pass in `ticks` ticks. Neither is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Counts.
    pub counts: u64,
    /// Ticks.
    pub ticks: u64,
}

impl Rate {
    /// Complete counts at `tick`, modulo 2^64 like the counter itself.
    pub const fn at(self, tick: u64) -> u64 {
        (tick as u128 * self.counts as u128 / self.ticks as u128) as u64
    }

    /// The first tick from `tick` on at which `more` further counts are complete; saturates at the end of time.
    pub const fn after(self, tick: u64, more: u64) -> u64 {
        let target = tick as u128 * self.counts as u128 / self.ticks as u128 + more as u128;
        let at = (target * self.ticks as u128).div_ceil(self.counts as u128);
        if at > u64::MAX as u128 {
            u64::MAX
        } else if (at as u64) < tick {
            tick
        } else {
            at as u64
        }
    }

    /// In Hz, rounded down.
    pub const fn hertz(self) -> u64 {
        self.at(TICK_HZ)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_tick_after_is_the_first_at_which_so_many_counts_more_are_seen(
            rate in (1..9_u64, 1..9_u64).prop_map(|(counts, ticks)| Rate { counts, ticks }),
            tick in 0..1000_u64,
            more in 0..200_u64,
        ) {
            let found = (tick..).find(|t| rate.at(*t) - rate.at(tick) >= more);
            prop_assert_eq!(Some(rate.after(tick, more)), found);
        }
    }

    #[test]
    fn time_does_not_overflow() {
        let slow = Rate { counts: 1, ticks: u64::MAX };
        assert_eq!((slow.at(u64::MAX), slow.after(5, u64::MAX)), (1, u64::MAX));
        assert_eq!(TSC.after(u64::MAX - 1, u64::MAX), u64::MAX);
        assert_eq!(TSC.hertz(), 4_000_000_000);
    }
}
