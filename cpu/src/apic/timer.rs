//! The APIC timer (SDM Vol. 3A "APIC Timer", "TSC-Deadline Mode"). Nothing ticks: counts are computed from the clock.
//!
//! The count runs at the rate of the core crystal clock, divided by the divide configuration.

use crate::time::{self, TSC};
use rootmode_mmu::Digest;

/// What time it is for one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// In ticks.
    pub tick: u64,
    /// The time-stamp counter without virtualization.
    pub tsc: u64,
}

/// LVT timer bits 18:17.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// Counts down once.
    OneShot,
    /// Starts again at zero.
    Periodic,
    /// Fires when the time-stamp counter reaches IA32_TSC_DEADLINE.
    TscDeadline,
}

impl TimerMode {
    /// The mode that the LVT timer register says. The reserved encoding counts down once.
    pub const fn of(lvt: u32) -> Self {
        match lvt >> 17 & 3 {
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::OneShot,
        }
    }
}

/// The divisor that the divide configuration register says.
pub const fn divisor(configuration: u32) -> u64 {
    match (configuration >> 1 & 4) | configuration & 3 {
        7 => 1,
        exponent => 2 << exponent,
    }
}

/// The timer's state beyond its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Timer {
    /// The count-down started at this tick.
    anchor: u64,
    /// So many counts after the anchor it is zero next; 0: it does not run.
    target: u64,
    /// Derived: the tick at which that is.
    zero: u64,
    /// IA32_TSC_DEADLINE; 0: disarmed.
    pub(super) deadline: u64,
}

/// How fast the timer counts: at the clock's rate, divided by `divisor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Before division.
    pub(super) clock: time::Rate,
    pub(super) divisor: u64,
}

impl Rate {
    /// Counts in `ticks`.
    fn counts(self, ticks: u64) -> u64 {
        let counts = u128::from(ticks) * u128::from(self.clock.counts)
            / (u128::from(self.clock.ticks) * u128::from(self.divisor));
        u64::try_from(counts).unwrap_or(u64::MAX)
    }

    /// The fewest ticks in which so many counts pass.
    fn ticks(self, counts: u64) -> u64 {
        let per = u128::from(self.clock.ticks) * u128::from(self.divisor);
        let ticks = (u128::from(counts) * per).div_ceil(u128::from(self.clock.counts));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

impl Timer {
    /// Starts counting down from `initial`; 0 stops.
    pub(super) fn start(&mut self, initial: u32, rate: Rate, clock: Clock) {
        self.anchor = clock.tick;
        self.aim(initial.into(), rate);
    }

    /// It is zero next when so many counts passed since the anchor.
    fn aim(&mut self, target: u64, rate: Rate) {
        self.target = target;
        self.zero = self.anchor.saturating_add(rate.ticks(target));
    }

    /// The current count.
    pub(super) fn current(&self, mode: TimerMode, initial: u32, rate: Rate, clock: Clock) -> u32 {
        if mode == TimerMode::TscDeadline || self.target == 0 {
            return 0;
        }
        let elapsed = rate.counts(clock.tick.saturating_sub(self.anchor));
        if elapsed < self.target {
            return (self.target - elapsed) as u32;
        }
        match (mode, u64::from(initial)) {
            (TimerMode::Periodic, 1..) => {
                let initial = u64::from(initial);
                (initial - (elapsed - self.target) % initial) as u32
            }
            _ => 0,
        }
    }

    /// When it fires next, in ticks.
    pub(super) fn expiry(&self, mode: TimerMode, clock: Clock) -> Option<u64> {
        match mode {
            TimerMode::TscDeadline => {
                (self.deadline != 0).then(|| TSC.after(clock.tick, self.deadline.saturating_sub(clock.tsc)))
            }
            _ => (self.target != 0).then_some(self.zero),
        }
    }

    /// Whether it has fired by now. A periodic count goes on to its next zero after now, a one-shot count and a deadline end.
    pub(super) fn fire(&mut self, mode: TimerMode, initial: u32, rate: Rate, clock: Clock) -> bool {
        if mode == TimerMode::TscDeadline {
            let fires = self.deadline != 0 && clock.tsc >= self.deadline;
            if fires {
                self.deadline = 0;
            }
            return fires;
        }
        if self.target == 0 || clock.tick < self.zero {
            return false;
        }
        let elapsed = rate.counts(clock.tick - self.anchor);
        let target = match (mode, u64::from(initial)) {
            (TimerMode::Periodic, initial @ 1..) => {
                self.target + ((elapsed - self.target) / initial + 1) * initial
            }
            _ => 0,
        };
        self.aim(target, rate);
        true
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        if *self != Self::default() {
            digest.all(&[self.anchor, self.target, self.deadline]);
        }
    }
}
