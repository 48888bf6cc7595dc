//! The queue of deadlines, totally ordered by tick, source and sequence.

use rootmode_mmu::Digest;
use std::collections::BTreeSet;

/// Who is called when a deadline comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The bus, with the number that the device gave.
    Bus(u32),
}

/// A point in time that something waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline {
    /// When.
    pub tick: u64,
    /// Who waits.
    pub source: Source,
    /// Tells deadlines of the same tick and source apart, by age.
    pub sequence: u64,
}

/// Every pending deadline of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deadlines {
    queue: BTreeSet<Deadline>,
    sequence: u64,
}

impl Deadlines {
    /// Adds one.
    pub fn add(&mut self, tick: u64, source: Source) {
        self.sequence += 1;
        self.queue.insert(Deadline { tick, source, sequence: self.sequence });
    }

    /// The next one.
    pub fn next(&self) -> Option<Deadline> {
        self.queue.first().copied()
    }

    /// Takes the next one, if it has come by `now`.
    pub fn take_due(&mut self, now: u64) -> Option<Deadline> {
        if self.next()?.tick > now {
            return None;
        }
        self.queue.pop_first()
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        for Deadline { tick, source: Source::Bus(number), sequence } in &self.queue {
            digest.all(&[*tick, u64::from(*number), *sequence]);
        }
    }
}
