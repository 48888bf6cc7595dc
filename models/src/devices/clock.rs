//! Device time: every oscillator is a declared rational of the machine's tick, so that counts are computed, never ticked.

pub use rootmode_cpu::time::TICK_HZ;

/// An oscillator that runs since tick 0, as a fraction in Hz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frequency {
    numerator: u64,
    denominator: u64,
}

/// The 8254's input clock: a twelfth of the 14.31818 MHz crystal, 1.193182 MHz.
pub const PIT: Frequency = Frequency::ratio(13_125_000, 11);
/// The ACPI power-management timer: a quarter of the same crystal, 3.579545 MHz.
pub const ACPI_TIMER: Frequency = Frequency::ratio(39_375_000, 11);
/// The real-time clock's crystal.
pub const RTC: Frequency = Frequency::ratio(32_768, 1);
/// The UART's input clock after its prescaler: one period a bit at divisor 1, 115 200 Hz.
pub const UART: Frequency = Frequency::ratio(115_200, 1);

impl Frequency {
    /// `numerator / denominator` Hz; the denominator is not zero.
    pub const fn ratio(numerator: u64, denominator: u64) -> Self {
        Self { numerator, denominator }
    }

    /// Complete cycles at `tick`.
    pub const fn cycles(self, tick: u64) -> u64 {
        let scaled = tick as u128 * self.numerator as u128;
        (scaled / (TICK_HZ as u128 * self.denominator as u128)) as u64
    }

    /// The first tick at which `cycles` cycles are complete; saturates at the end of time.
    pub const fn tick_of(self, cycles: u64) -> u64 {
        let scaled = cycles as u128 * TICK_HZ as u128 * self.denominator as u128;
        let tick = scaled.div_ceil(self.numerator as u128);
        if tick > u64::MAX as u128 { u64::MAX } else { tick as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_second_holds_as_many_cycles_as_the_name_of_the_frequency_says() {
        assert_eq!(PIT.cycles(TICK_HZ), 1_193_181);
        assert_eq!(ACPI_TIMER.cycles(TICK_HZ), 3_579_545);
        assert_eq!(RTC.cycles(TICK_HZ), 32_768);
        assert_eq!(RTC.cycles(TICK_HZ - 1), 32_767);
    }

    #[test]
    fn the_tick_of_a_cycle_is_the_first_at_which_it_is_complete() {
        for clock in [PIT, ACPI_TIMER, RTC, UART] {
            for cycles in [1, 2, 3, 1000, 65_536, 1 << 40] {
                let tick = clock.tick_of(cycles);
                assert_eq!(clock.cycles(tick), cycles);
                assert_eq!(clock.cycles(tick - 1), cycles - 1);
            }
        }
        assert_eq!(RTC.tick_of(u64::MAX), u64::MAX);
    }
}
