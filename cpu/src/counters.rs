//! Performance counters of AMD processors: the four of the first generation, which no CPUID bit announces
//! (APM Vol. 2 (24593 rev. 3.42) "Performance Monitoring Counters").
//!
//! The event that counts is "CPU clocks not halted" (076h): one a tick that the processor executed. Others stay where they
//! were written. A clock belongs to what the processor is at its end: that of IRET to the level that it returns to.

use rootmode_mmu::Digest;

/// Counters, and their event-select registers.
pub(crate) const COUNTERS: usize = 4;

const WIDTH: u64 = (1 << 48) - 1;
/// PERF_CTL bits that exist: event, unit mask, USR, OS, edge, INT, EN, INV, CntMask, event bits 11:8, host or guest only.
const CONTROL: u64 = 0x0000_030f_ffd7_ffff;
const USER: u64 = 1 << 16;
const SUPERVISOR: u64 = 1 << 17;
const ENABLE: u64 = 1 << 22;
const INVERT: u64 = 1 << 23;
const GUEST_ONLY: u64 = 1 << 40;
const HOST_ONLY: u64 = 1 << 41;
const EVENT: u64 = 0xf_0000_00ff;
const CLOCKS_NOT_HALTED: u64 = 0x76;

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

/// The counters, up to date at clock `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Counters {
    control: [u64; COUNTERS],
    value: [u64; COUNTERS],
    since: u64,
    occupation: Occupation,
}

impl Counters {
    /// Whether any counter counts.
    pub(crate) const fn are_enabled(&self) -> bool {
        let [a, b, c, d] = self.control;
        (a | b | c | d) & ENABLE != 0
    }

    /// Counts the clocks up to `clock`; from then on the processor does `occupation`.
    pub(crate) fn settle(&mut self, clock: u64, occupation: Occupation) {
        let passed = clock.wrapping_sub(self.since);
        for (value, control) in self.value.iter_mut().zip(self.control) {
            if counts(control, self.occupation) {
                *value = value.wrapping_add(passed) & WIDTH;
            }
        }
        self.since = clock;
        self.occupation = occupation;
    }

    /// PERF_CTL`n`.
    pub(crate) const fn control(&self, n: usize) -> u64 {
        self.control[n]
    }

    /// Writes PERF_CTL`n`; reserved bits are ignored. The counters must be settled.
    pub(crate) const fn set_control(&mut self, n: usize, value: u64) {
        self.control[n] = value & CONTROL;
    }

    /// PERF_CTR`n`, 48 bits. The counters must be settled.
    pub(crate) const fn value(&self, n: usize) -> u64 {
        self.value[n]
    }

    /// Writes PERF_CTR`n`. The counters must be settled.
    pub(crate) const fn set_value(&mut self, n: usize, value: u64) {
        self.value[n] = value & WIDTH;
    }

    /// Adds the state to `digest`. The counters must be settled: what they were settled at follows from the clock then.
    pub(crate) fn digest(&self, digest: &mut Digest) {
        if (self.control, self.value) != ([0; COUNTERS], [0; COUNTERS]) {
            digest.all(&self.control);
            digest.all(&self.value);
        }
    }
}

/// Whether a counter under `control` counts a clock of `occupation`.
const fn counts(control: u64, occupation: Occupation) -> bool {
    let level = if occupation.user { USER } else { SUPERVISOR };
    let side = match control & (GUEST_ONLY | HOST_ONLY) {
        GUEST_ONLY => occupation.guest,
        HOST_ONLY => !occupation.guest,
        _ => true,
    };
    // One event a clock: a threshold (CntMask) above 1 is never reached, and INV turns that round.
    let mask = control >> 24 & 0xff;
    let reached = if mask == 0 { true } else { (mask == 1) != (control & INVERT != 0) };
    let counted = control & EVENT == CLOCKS_NOT_HALTED && reached;
    control & ENABLE != 0 && control & level != 0 && counted && (side || !occupation.svm)
}
