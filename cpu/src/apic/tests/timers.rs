//! The timer against counting (SDM Vol. 3A "APIC Timer", "TSC-Deadline Mode").

use super::*;
use crate::apic::divisor;
use proptest::prelude::*;

const ONE_SHOT: u32 = 0x40;
const PERIODIC: u32 = 0x2_0040;
const DEADLINE: u32 = 0x4_0040;

fn at(tick: u64) -> Clock {
    Clock { tick, tsc: 4 * tick }
}

#[test]
fn the_divide_configuration_is_the_figures() {
    let table = [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)];
    for (configuration, expected) in table {
        assert_eq!(divisor(configuration), expected);
    }
}

/// A counter that is clocked tick by tick.
struct Counter {
    ratio: (u64, u64),
    divisor: u64,
    initial: u64,
    count: u64,
    fraction: u64,
    periodic: bool,
}

impl Counter {
    /// Passes one tick; how often zero was reached.
    fn tick(&mut self) -> u32 {
        self.fraction += self.ratio.0;
        let mut fired = 0;
        while self.fraction >= self.ratio.1 * self.divisor {
            self.fraction -= self.ratio.1 * self.divisor;
            if self.count > 0 {
                self.count -= 1;
                if self.count == 0 {
                    fired += 1;
                    if self.periodic {
                        self.count = self.initial;
                    }
                }
            }
        }
        fired
    }
}

proptest! {
    #[test]
    fn counts_and_expiries_are_those_of_a_clocked_counter(
        initial in 1..60_u32,
        periodic in any::<bool>(),
        configuration in 0..4_u32,
        slow in any::<bool>(),
        ratio in (1..5_u64, 1..5_u64),
        switch in prop::option::of(1..400_u64),
    ) {
        let configuration = if slow { configuration } else { 11 };
        let mut apic = fresh(Abilities { timer_clock: Rate { counts: ratio.0, ticks: ratio.1 }, ..INTEL }, 0);
        apic.write(SVR, 4, 0x1ff, at(1000));
        apic.write(TIMER_DIVIDE, 4, configuration.into(), at(1000));
        apic.write(LVT_TIMER, 4, if periodic { PERIODIC } else { ONE_SHOT }.into(), at(1000));
        apic.write(TIMER_INITIAL, 4, initial.into(), at(1000));
        let divisor = divisor(configuration);
        let initial = u64::from(initial);
        let mut counter = Counter { ratio, divisor, initial, count: initial, fraction: 0, periodic };
        for tick in 1001..1500 {
            let due = apic.next_expiry(at(tick - 1));
            let fired = counter.tick();
            prop_assert_eq!(due == Some(tick), fired > 0, "at {}", tick);
            apic.expire(at(tick));
            prop_assert_eq!(vectors(&apic, IRR).len(), usize::from(fired > 0));
            if fired > 0 {
                apic.acknowledge();
                apic.write(EOI, 4, 0, at(tick));
            }
            prop_assert_eq!(apic.read(TIMER_CURRENT, 4, at(tick)), counter.count);
            if switch == Some(tick - 1000) {
                counter.periodic = !counter.periodic;
                let lvt = if counter.periodic { PERIODIC } else { ONE_SHOT };
                apic.write(LVT_TIMER, 4, lvt.into(), at(tick));
                prop_assert_eq!(apic.read(TIMER_CURRENT, 4, at(tick)), counter.count, "it goes on");
            }
        }
    }
}

#[test]
fn a_masked_timer_counts_and_does_not_interrupt_and_zero_stops_it() {
    let mut apic = xapic();
    apic.write(TIMER_DIVIDE, 4, 11, at(0));
    apic.write(LVT_TIMER, 4, (0x1_0000 | PERIODIC).into(), at(0));
    apic.write(TIMER_INITIAL, 4, 100, at(0));
    apic.expire(at(100));
    assert_eq!((vectors(&apic, IRR), apic.next_expiry(at(100))), (vec![], Some(200)));
    assert_eq!(apic.read(TIMER_CURRENT, 4, at(130)), 70);
    apic.write(TIMER_INITIAL, 4, 0, at(130));
    assert_eq!((apic.read(TIMER_CURRENT, 4, at(131)), apic.next_expiry(at(131))), (0, None));
}

#[test]
fn late_periodic_expiries_merge_and_keep_the_grid() {
    let mut apic = xapic();
    apic.write(TIMER_DIVIDE, 4, 11, at(0));
    apic.write(LVT_TIMER, 4, PERIODIC.into(), at(0));
    apic.write(TIMER_INITIAL, 4, 100, at(0));
    apic.expire(at(350));
    assert_eq!((vectors(&apic, IRR), apic.next_expiry(at(350))), (vec![0x40], Some(400)));
}

#[test]
fn a_new_divisor_goes_on_from_the_current_count() {
    let mut apic = xapic();
    apic.write(TIMER_DIVIDE, 4, 11, at(0));
    apic.write(LVT_TIMER, 4, ONE_SHOT.into(), at(0));
    apic.write(TIMER_INITIAL, 4, 100, at(0));
    apic.write(TIMER_DIVIDE, 4, 0, at(40));
    assert_eq!(apic.read(TIMER_CURRENT, 4, at(60)), 50);
    assert_eq!(apic.next_expiry(at(60)), Some(40 + 120));
}

#[test]
fn a_tsc_deadline_fires_when_the_counter_reaches_it_and_reads_as_zero_then() {
    let mut apic = xapic();
    let clock = |tick: u64| Clock { tick, tsc: 4 * tick + 5000 };
    // Tick 4000 is the first with a count of 5000 + 15 997 or more.
    let deadline = 5000 + 15_997;
    apic.set_tsc_deadline(deadline, clock(100));
    assert_eq!(apic.tsc_deadline(clock(100)), 0, "ignored outside the mode");
    apic.write(LVT_TIMER, 4, DEADLINE.into(), clock(100));
    apic.set_tsc_deadline(deadline, clock(100));
    assert_eq!((apic.tsc_deadline(clock(100)), apic.next_expiry(clock(100))), (deadline, Some(4000)));
    apic.write(TIMER_INITIAL, 4, 77, clock(100));
    assert_eq!((apic.read(TIMER_INITIAL, 4, clock(100)), apic.read(TIMER_CURRENT, 4, clock(100))), (0, 0));
    apic.expire(clock(3999));
    assert_eq!(vectors(&apic, IRR), []);
    apic.expire(clock(4000));
    assert_eq!((vectors(&apic, IRR), apic.tsc_deadline(clock(4000))), (vec![0x40], 0));
    assert_eq!(apic.next_expiry(clock(4000)), None);
}

#[test]
fn a_deadline_that_has_passed_fires_at_once_and_zero_disarms() {
    let mut apic = xapic();
    apic.write(LVT_TIMER, 4, DEADLINE.into(), at(100));
    apic.set_tsc_deadline(2000, at(100));
    apic.set_tsc_deadline(0, at(100));
    assert_eq!(apic.next_expiry(at(100)), None);
    apic.set_tsc_deadline(400, at(100));
    assert_eq!((vectors(&apic, IRR), apic.tsc_deadline(at(100))), (vec![0x40], 0));
}

#[test]
fn going_to_or_from_deadline_mode_disarms() {
    for (from, to) in [(ONE_SHOT, DEADLINE), (PERIODIC, DEADLINE), (DEADLINE, ONE_SHOT), (DEADLINE, PERIODIC)]
    {
        let mut apic = xapic();
        apic.write(LVT_TIMER, 4, from.into(), at(0));
        apic.write(TIMER_INITIAL, 4, 1000, at(0));
        apic.set_tsc_deadline(1000, at(0));
        assert!(apic.next_expiry(at(0)).is_some());
        apic.write(LVT_TIMER, 4, to.into(), at(10));
        assert_eq!(apic.next_expiry(at(10)), None, "{from:#x} to {to:#x}");
        assert_eq!(apic.read(TIMER_INITIAL, 4, at(10)), 0);
    }
}

#[test]
fn without_the_feature_the_deadline_bit_is_reserved() {
    let mut apic = x2apic(AMD);
    assert!(apic.write_msr(0x832, 0x4_0040, NOW).is_err());
    assert!(apic.write_msr(0x832, 0x2_0040, NOW).is_ok());
}
