//! The high-precision event timers: one counter of 64 bits and three comparators.
//!
//! Nothing is counted: the counter follows from the tick, and matches from what it passed since the device was last looked at.
//! Source: Intel IA-PC HPET Specification 1.0a "Register Model", "Timer Operation", "Interrupt Mapping".

use super::clock::{Frequency, TICK_HZ};
use rootmode_mmu::Digest;

/// Where the registers lie, and how many bytes they take.
pub const BASE: u64 = 0xfed0_0000;
/// See [`BASE`].
pub const SIZE: u64 = 0x400;
/// Comparators.
pub const TIMERS: usize = 3;
/// Event Timer Block ID of the ACPI table, which is the low half of the capabilities: revision 1, three timers, 64 bits,
/// legacy replacement, Intel.
pub const BLOCK_ID: u32 = 0x8086_0001 | (TIMERS as u32 - 1) << 8 | 1 << 13 | 1 << 15;

/// The counter's clock.
const CLOCK: Frequency = Frequency::ratio(100_000_000, 1);
/// Its period in femtoseconds.
const PERIOD: u64 = 10_000_000;
/// Inputs of the I/O APIC that a timer may be routed to.
const ROUTES: u64 = 0x00f0_0000;

const ENABLE: u64 = 1;
const LEGACY: u64 = 2;

const LEVEL: u64 = 1 << 1;
const INTERRUPTS: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const SET_VALUE: u64 = 1 << 6;
const NARROW: u64 = 1 << 8;
const ROUTE: u64 = 0x1f << 9;
const WRITABLE: u64 = LEVEL | INTERRUPTS | PERIODIC | SET_VALUE | NARROW | ROUTE;
/// Periodic mode and 64 bits are there.
const CAPABLE: u64 = 1 << 4 | 1 << 5;

/// One comparator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Comparator {
    configuration: u64,
    value: u64,
    period: u64,
}

impl Comparator {
    const fn is(&self, bit: u64) -> bool {
        self.configuration & bit != 0
    }

    const fn mask(&self) -> u64 {
        if self.is(NARROW) { u32::MAX as u64 } else { u64::MAX }
    }

    /// Counts from `counter` to the next match behind it.
    const fn distance(&self, counter: u64) -> u128 {
        (self.value.wrapping_sub(counter).wrapping_sub(1) & self.mask()) as u128 + 1
    }

    /// Passes `elapsed` counts from `counter` on; whether a match was among them.
    fn pass(&mut self, counter: u64, elapsed: u64) -> bool {
        let first = self.distance(counter);
        if u128::from(elapsed) < first {
            return false;
        }
        let period = self.period & self.mask();
        if self.is(PERIODIC) && period != 0 {
            let more = ((u128::from(elapsed) - first) / u128::from(period)) as u64;
            let value = self.value.wrapping_add(period.wrapping_mul(more.wrapping_add(1)));
            self.value = value & self.mask();
        }
        true
    }
}

/// A pulse on an interrupt line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The input of the I/O APIC, or with legacy replacement the ISA line: 0 or 8.
    pub line: u8,
}

/// The device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hpet {
    configuration: u64,
    status: u64,
    /// The counter in cycle `seen` of its clock.
    counter: u64,
    seen: u64,
    timers: [Comparator; TIMERS],
}

impl Hpet {
    /// As after a reset: halted at 0, without interrupts.
    pub fn new() -> Self {
        let timer = Comparator { value: u64::MAX, ..Comparator::default() };
        Self { timers: [timer; TIMERS], ..Self::default() }
    }

    /// Whether timers 0 and 1 stand in for the interval timer and the real-time clock.
    pub const fn replaces_legacy(&self) -> bool {
        self.configuration & LEGACY != 0
    }

    const fn runs(&self) -> bool {
        self.configuration & ENABLE != 0
    }

    /// Brings the counter up to `tick`; the timers that matched and may interrupt, one bit each.
    #[must_use]
    fn settle(&mut self, tick: u64) -> u64 {
        let cycle = CLOCK.cycles(tick);
        let elapsed = cycle.saturating_sub(self.seen);
        self.seen = self.seen.max(cycle);
        if !self.runs() || elapsed == 0 {
            return 0;
        }
        let mut fired = 0;
        for (index, timer) in self.timers.iter_mut().enumerate() {
            if timer.pass(self.counter, elapsed) {
                fired |= 1 << index;
            }
        }
        self.counter = self.counter.wrapping_add(elapsed);
        fired
    }

    /// Brings the device up to `tick`; what pulses now. Levels are in [`Hpet::levels`].
    pub fn advance(&mut self, tick: u64) -> Vec<Request> {
        let fired = self.settle(tick);
        let mut pulses = Vec::new();
        for index in (0..TIMERS).filter(|index| fired & 1 << index != 0) {
            if self.timers[index].is(LEVEL) {
                self.status |= 1 << index;
            } else if self.timers[index].is(INTERRUPTS) {
                pulses.push(Request { line: self.line(index) });
            }
        }
        pulses
    }

    /// The lines that are held high, as bits by number.
    pub fn levels(&self) -> u32 {
        let held = |index: &usize| {
            let timer = &self.timers[*index];
            self.status & 1 << index != 0 && timer.is(LEVEL) && timer.is(INTERRUPTS)
        };
        (0..TIMERS).filter(held).fold(0, |lines, index| lines | 1 << self.line(index))
    }

    fn line(&self, index: usize) -> u8 {
        match index {
            0 if self.replaces_legacy() => 0,
            1 if self.replaces_legacy() => 8,
            _ => (self.timers[index].configuration >> 9 & 0x1f) as u8,
        }
    }

    /// When a timer matches next, as far as somebody would notice.
    pub fn next_event(&self) -> Option<u64> {
        if !self.runs() {
            return None;
        }
        let noticed = self.timers.iter().filter(|timer| timer.is(INTERRUPTS));
        let first = noticed.map(|timer| timer.distance(self.counter)).min()?;
        let cycle = u64::try_from(u128::from(self.seen) + first).ok()?;
        Some(CLOCK.tick_of(cycle))
    }

    fn register(&self, offset: u64) -> u64 {
        match offset {
            0x00 => PERIOD << 32 | u64::from(BLOCK_ID),
            0x10 => self.configuration,
            0x20 => self.status,
            0xf0 => self.counter,
            _ => match self.timer(offset) {
                Some((index, 0x00)) => {
                    let timer = &self.timers[index];
                    timer.configuration & !SET_VALUE | CAPABLE | ROUTES << 32
                }
                Some((index, 0x08)) => self.timers[index].value,
                _ => 0,
            },
        }
    }

    /// The timer whose register is at `offset`, and which.
    const fn timer(&self, offset: u64) -> Option<(usize, u64)> {
        let index = (offset.wrapping_sub(0x100) / 0x20) as usize;
        if offset >= 0x100 && index < TIMERS { Some((index, offset & 0x1f)) } else { None }
    }

    /// Reads `size` bytes at `offset`. What is due has been taken ([`Hpet::advance`]).
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let value = self.register(offset & !7) >> (8 * (offset & 7));
        value & u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
    }

    /// Writes `size` bytes at `offset`. What is due has been taken ([`Hpet::advance`]).
    pub fn write(&mut self, offset: u64, size: u8, value: u64) {
        let shift = 8 * (offset & 7);
        let written = (u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))) << shift;
        let value = value << shift & written;
        let over = |old: u64| old & !written | value;
        match offset & !7 {
            0x10 => self.configuration = over(self.configuration) & (ENABLE | LEGACY),
            // Bits of levels are cleared by ones.
            0x20 => self.status &= !value,
            0xf0 if !self.runs() => self.counter = over(self.counter),
            register => {
                if let Some((index, register)) = self.timer(register) {
                    self.timers[index].write(register, over);
                    if !self.timers[index].is(LEVEL) {
                        self.status &= !(1 << index);
                    }
                }
            }
        }
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        digest.all(&[self.configuration, self.status, self.counter, self.seen]);
        for Comparator { configuration, value, period } in &self.timers {
            digest.all(&[*configuration, *value, *period]);
        }
    }
}

impl Comparator {
    fn write(&mut self, register: u64, over: impl Fn(u64) -> u64) {
        match register {
            0x00 => {
                let wanted = over(self.configuration) & WRITABLE;
                let routed = ROUTES >> (wanted >> 9 & 0x1f) & 1 != 0;
                // A route that does not exist is not kept.
                self.configuration =
                    if routed { wanted } else { wanted & !ROUTE | self.configuration & ROUTE };
                if self.is(NARROW) {
                    (self.value, self.period) = (self.value & self.mask(), self.period & self.mask());
                }
            }
            0x08 => {
                // Of a periodic timer the accumulator is only written behind the bit that asks for it; the period always.
                if self.is(PERIODIC) {
                    self.period = over(self.period) & self.mask();
                }
                if !self.is(PERIODIC) || self.is(SET_VALUE) {
                    self.value = over(self.value) & self.mask();
                }
                self.configuration &= !SET_VALUE;
            }
            _ => {}
        }
    }
}

// One count is a whole number of ticks, and the period is the clock's.
const _: () = assert!(PERIOD == 1_000_000_000_000_000 / 100_000_000 && TICK_HZ.is_multiple_of(100_000_000));

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks of one count.
    const COUNT: u64 = TICK_HZ / 100_000_000;

    fn running(configuration: u64, value: u64) -> Hpet {
        let mut hpet = Hpet::new();
        hpet.write(0x100, 8, configuration);
        hpet.write(0x108, 8, value);
        hpet.write(0x10, 8, ENABLE);
        hpet
    }

    #[test]
    fn capabilities_say_three_timers_of_64_bits_and_the_period() {
        let hpet = Hpet::new();
        assert_eq!(hpet.read(0, 8), 0x0098_9680_8086_a201);
        assert_eq!(hpet.read(4, 4), 10_000_000);
        assert_eq!(hpet.read(0x100, 8), 0x00f0_0000_0000_0030);
        assert_eq!(hpet.read(0x160, 8), 0, "a fourth timer is not there");
    }

    #[test]
    fn the_counter_runs_while_enabled_and_is_only_written_while_halted() {
        let mut hpet = Hpet::new();
        assert_eq!(hpet.advance(100 * COUNT), []);
        assert_eq!(hpet.read(0xf0, 8), 0);
        hpet.write(0xf4, 4, 1);
        hpet.write(0x10, 4, ENABLE);
        assert_eq!(hpet.advance(150 * COUNT), []);
        assert_eq!(hpet.read(0xf0, 8), 1 << 32 | 50);
        hpet.write(0xf0, 8, 7);
        assert_eq!(hpet.read(0xf0, 4), 50);
    }

    #[test]
    fn a_single_match_is_a_pulse_at_its_count() {
        let mut hpet = running(INTERRUPTS | 20 << 9, 1000);
        assert_eq!(hpet.next_event(), Some(1000 * COUNT));
        assert_eq!(hpet.advance(1000 * COUNT - 1), []);
        assert_eq!(hpet.advance(1000 * COUNT), [Request { line: 20 }]);
        assert_eq!((hpet.levels(), hpet.read(0x20, 8)), (0, 0));
        assert_eq!(hpet.advance(1_000_000 * COUNT), [], "once");
    }

    #[test]
    fn a_narrow_timer_matches_whenever_the_low_half_comes_round() {
        let mut hpet = running(INTERRUPTS | NARROW | 20 << 9, 1000);
        assert_eq!(hpet.advance(1000 * COUNT).len(), 1);
        assert_eq!(hpet.next_event(), Some((1000 + (1 << 32)) * COUNT));
        assert_eq!(hpet.advance((1000 + (1 << 32)) * COUNT).len(), 1);
    }

    #[test]
    fn a_periodic_timer_adds_its_period_as_often_as_it_matched() {
        let mut hpet = running(INTERRUPTS | PERIODIC | SET_VALUE | 20 << 9, 1000);
        hpet.write(0x108, 8, 300);
        assert_eq!(hpet.advance(1000 * COUNT).len(), 1);
        assert_eq!((hpet.read(0x108, 8), hpet.next_event()), (1300, Some(1300 * COUNT)));
        assert_eq!(hpet.advance(1999 * COUNT).len(), 1, "several matches are one pulse");
        assert_eq!(hpet.next_event(), Some(2200 * COUNT));
    }

    #[test]
    fn a_level_stays_until_its_status_is_cleared_by_a_one() {
        let mut hpet = running(INTERRUPTS | LEVEL | 21 << 9, 10);
        assert_eq!(hpet.advance(10 * COUNT), []);
        assert_eq!((hpet.levels(), hpet.read(0x20, 8)), (1 << 21, 1));
        hpet.write(0x20, 8, 0);
        assert_eq!(hpet.levels(), 1 << 21);
        hpet.write(0x20, 8, 1);
        assert_eq!(hpet.levels(), 0);
    }

    #[test]
    fn legacy_replacement_moves_the_first_two_timers_and_no_other() {
        let mut hpet = Hpet::new();
        for timer in [0x100, 0x120, 0x140] {
            hpet.write(timer, 8, INTERRUPTS | 22 << 9);
            hpet.write(timer + 8, 8, 5);
        }
        hpet.write(0x10, 8, ENABLE | LEGACY);
        let lines: Vec<u8> = hpet.advance(5 * COUNT).iter().map(|request| request.line).collect();
        assert_eq!(lines, [0, 8, 22]);
    }

    #[test]
    fn a_route_that_does_not_exist_is_not_kept() {
        let mut hpet = Hpet::new();
        hpet.write(0x100, 8, 23 << 9);
        hpet.write(0x100, 8, INTERRUPTS | 3 << 9);
        assert_eq!(hpet.read(0x100, 4), INTERRUPTS | 23 << 9 | CAPABLE);
    }
}
