//! Performance counters: version 2 of Intel's architectural ones (SDM Vol. 3B "Architectural Performance Monitoring
//! Version 2"), and AMD's with their core extension and its global registers (APM Vol. 2 "Performance Monitoring Counters").
//!
//! What counts is exact: clocks are the ticks in which the processor was not halted, instructions the ones that completed,
//! branches those of them that may jump. A counter is a value that was right at some moment; nothing adds to it while
//! instructions run. A clock belongs to what the processor is at its end: that of IRET to the level that it returns to.

mod event;
mod registers;

use crate::Model;
use event::Counted;
use rootmode_arch::{Feature, Vendor};
use rootmode_mmu::Digest;

pub(crate) use registers::Register;

/// Most general-purpose counters, and most fixed-function ones.
const GENERAL: usize = 8;
const FIXED: usize = 3;

/// Bits of a counter.
const WIDTH: u32 = 48;
const MASK: u64 = (1 << WIDTH) - 1;

/// Bits of event-select registers.
const USER: u64 = 1 << 16;
const SUPERVISOR: u64 = 1 << 17;
const INTERRUPT: u64 = 1 << 20;
const ENABLE: u64 = 1 << 22;
const INVERT: u64 = 1 << 23;
/// AMD's.
const GUEST_ONLY: u64 = 1 << 40;
const HOST_ONLY: u64 = 1 << 41;

/// Where the fixed-function counters are in the global registers.
const FIXED_BIT: u32 = 32;
/// What each fixed-function counter counts: instructions, clocks, clocks of the time-stamp counter.
const FIXED_EVENTS: [Counted; FIXED] = [Counted::Instructions, Counted::Clocks, Counted::ReferenceClocks];

/// Which counters a processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    vendor: Vendor,
    general: usize,
    fixed: usize,
    /// Global control and status.
    global: bool,
    /// Intel: the counters can be written in full. AMD: there are registers beyond those of the first four.
    extended: bool,
}

impl Shape {
    /// That of `model`: CPUID leaf 0xA, or AMD's extensions. The four counters of AMD's first generation have no CPUID bit.
    pub(crate) fn of(model: &Model) -> Self {
        let leaf = |number| model.leaves().get(&(number, 0)).copied().unwrap_or_default();
        if model.vendor() == Vendor::Intel {
            let [eax, _, _, edx] = leaf(0xa);
            let version = eax & 0xff;
            return Self {
                vendor: Vendor::Intel,
                general: if version == 0 { 0 } else { (eax >> 8 & 0xff).min(GENERAL as u32) as usize },
                fixed: if version < 2 { 0 } else { (edx & 0x1f).min(FIXED as u32) as usize },
                global: version > 1,
                extended: model.has(Feature::Pdcm),
            };
        }
        let extended = model.has(Feature::PerfCtrExtCore);
        Self {
            vendor: Vendor::Amd,
            general: if extended { 6 } else { 4 },
            fixed: 0,
            global: extended && model.has(Feature::PerfMonV2),
            extended,
        }
    }

    /// One bit for each counter, as the global registers have it.
    const fn all(&self) -> u64 {
        (1 << self.general) - 1 | ((1 << self.fixed) - 1) << FIXED_BIT
    }
}

/// What a processor does while clocks pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Occupation {
    /// CPL above 0.
    pub(crate) user: bool,
    /// It runs a guest of SVM.
    pub(crate) guest: bool,
    /// Whether EFER.SVME makes the host-only and guest-only bits count.
    pub(crate) svm: bool,
}

/// What happened on a processor since some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Totals {
    /// Ticks in which it was not halted.
    pub(crate) clocks: u64,
    /// Those that completed no instruction but an iteration of one.
    pub(crate) iterations: u64,
    /// Those that delivered an exception or interrupt.
    pub(crate) deliveries: u64,
    /// Those that completed a branch. Counted while [`Counters::count_branches`] says so.
    pub(crate) branches: u64,
}

impl Totals {
    const fn since(&self, earlier: &Self) -> Self {
        Self {
            clocks: self.clocks.wrapping_sub(earlier.clocks),
            iterations: self.iterations.wrapping_sub(earlier.iterations),
            deliveries: self.deliveries.wrapping_sub(earlier.deliveries),
            branches: self.branches.wrapping_sub(earlier.branches),
        }
    }
}

/// The counters, up to date at `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counters {
    shape: Shape,
    control: [u64; GENERAL],
    value: [u64; GENERAL],
    fixed_control: u64,
    fixed: [u64; FIXED],
    /// The global control register.
    enabled: u64,
    /// The global status register.
    status: u64,
    since: Totals,
    occupation: Occupation,
    /// Derived: whether any counter counts.
    counts: bool,
    /// Derived: whether one counts branches.
    branches: bool,
}

impl Counters {
    /// The counters of `model` after power-up: the general-purpose ones are enabled globally, and nowhere else.
    pub(crate) fn new(model: &Model) -> Self {
        let shape = Shape::of(model);
        Self {
            shape,
            control: [0; GENERAL],
            value: [0; GENERAL],
            fixed_control: 0,
            fixed: [0; FIXED],
            enabled: (1 << shape.general) - 1,
            status: 0,
            since: Totals::default(),
            occupation: Occupation::default(),
            counts: false,
            branches: false,
        }
    }

    /// Whether any counter counts.
    pub(crate) const fn are_enabled(&self) -> bool {
        self.counts
    }

    /// Whether branches are counted, which needs somebody to look at each instruction.
    pub(crate) const fn count_branches(&self) -> bool {
        self.branches
    }

    /// Counts what happened up to `totals`; from then on the processor does `occupation`. True: a counter that interrupts
    /// overflowed.
    pub(crate) fn settle(&mut self, totals: Totals, occupation: Occupation) -> bool {
        let mut interrupts = false;
        if self.counts {
            let passed = totals.since(&self.since);
            for n in 0..GENERAL + FIXED {
                let Some(Active { counted, control, interrupt }) = self.active(n) else { continue };
                let events = counted.events(self.shape.vendor, control, &passed);
                let value = if n < GENERAL { &mut self.value[n] } else { &mut self.fixed[n - GENERAL] };
                let sum = value.saturating_add(events);
                *value = sum & MASK;
                if sum > MASK {
                    self.status |= 1 << global_bit(n);
                    interrupts |= interrupt;
                }
            }
        }
        self.since = totals;
        self.occupation = occupation;
        interrupts
    }

    /// In how many ticks a counter that interrupts can overflow at the earliest.
    pub(crate) fn patience(&self) -> Option<u64> {
        let waits = |n| {
            let active = self.active(n)?;
            let value = if n < GENERAL { self.value[n] } else { self.fixed[n - GENERAL] };
            active.interrupt.then(|| (MASK + 1 - value).div_ceil(active.counted.in_a_tick()))
        };
        if self.counts { (0..GENERAL + FIXED).filter_map(waits).min() } else { None }
    }

    /// Counting stops: an overflow interrupt freezes the counters (IA32_DEBUGCTL.FREEZE_PERFMON_ON_PMI).
    pub(crate) fn freeze(&mut self) {
        self.enabled = 0;
        self.derive();
    }

    /// Counter `n`, fixed ones after [`GENERAL`]: what it counts now, if it does.
    fn active(&self, n: usize) -> Option<Active> {
        if self.shape.global && self.enabled >> global_bit(n) & 1 == 0 {
            return None;
        }
        let active = self.selected(n)?;
        let level = if self.occupation.user { USER } else { SUPERVISOR };
        let side = match active.control & (GUEST_ONLY | HOST_ONLY) {
            GUEST_ONLY => self.occupation.guest,
            HOST_ONLY => !self.occupation.guest,
            _ => true,
        };
        (active.control & level != 0 && (side || !self.occupation.svm)).then_some(active)
    }

    /// Counter `n`: what its own control selects, if that enables it.
    fn selected(&self, n: usize) -> Option<Active> {
        let (counted, control) = if n < GENERAL {
            let control = self.control[n];
            if control & ENABLE == 0 {
                return None;
            }
            (Counted::of(self.shape.vendor, control)?, control)
        } else {
            // Bits 0 and 1 are OS and USR, bit 3 interrupts: as the bits of an event-select register they are elsewhere.
            let bits = self.fixed_control >> (4 * (n - GENERAL));
            let level = |bit: u64, is: u64| if bits & bit != 0 { is } else { 0 };
            (FIXED_EVENTS[n - GENERAL], level(1, SUPERVISOR) | level(2, USER) | level(8, INTERRUPT))
        };
        Some(Active { counted, control, interrupt: control & INTERRUPT != 0 })
    }

    /// Recomputes what is derived from the control registers.
    fn derive(&mut self) {
        let (mut counts, mut branches) = (false, false);
        for n in 0..GENERAL + FIXED {
            let enabled = !self.shape.global || self.enabled >> global_bit(n) & 1 != 0;
            let active =
                self.selected(n).filter(|active| enabled && active.control & (USER | SUPERVISOR) != 0);
            counts |= active.is_some();
            branches |= active.is_some_and(|active| active.counted == Counted::Branches);
        }
        (self.counts, self.branches) = (counts, branches);
    }

    /// Adds the state to `digest`. The counters must be settled: what they were settled at follows from the clock then.
    pub(crate) fn digest(&self, digest: &mut Digest) {
        let state = |c: &Self| (c.control, c.value, c.fixed_control, c.fixed, c.enabled, c.status);
        let fresh = Self {
            control: [0; GENERAL],
            value: [0; GENERAL],
            fixed_control: 0,
            fixed: [0; FIXED],
            enabled: (1 << self.shape.general) - 1,
            status: 0,
            ..*self
        };
        if state(self) != state(&fresh) {
            digest.all(&self.control);
            digest.all(&self.value);
            digest.all(&self.fixed);
            digest.all(&[self.fixed_control, self.enabled, self.status]);
        }
    }
}

/// A counter at work.
#[derive(Clone, Copy)]
struct Active {
    counted: Counted,
    /// Its control, as an event-select register has it.
    control: u64,
    /// Whether its overflow interrupts.
    interrupt: bool,
}

/// The bit of counter `n` in the global registers.
const fn global_bit(n: usize) -> u32 {
    if n < GENERAL { n as u32 } else { (n - GENERAL) as u32 + FIXED_BIT }
}
