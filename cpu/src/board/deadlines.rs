//! The queue of deadlines, totally ordered by tick, source and sequence.

use rootmode_mmu::Digest;
use std::collections::BTreeSet;

/// Who is called when a deadline comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The bus, with the number that the device gave.
    Bus(u32),
    /// The timer of this processor's local APIC, which has at most one deadline.
    Apic(u8),
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
    /// Those of the local APICs, by processor, once more.
    apics: Vec<Option<Deadline>>,
    sequence: u64,
}

impl Deadlines {
    /// Adds one.
    pub fn add(&mut self, tick: u64, source: Source) {
        self.sequence += 1;
        self.queue.insert(Deadline { tick, source, sequence: self.sequence });
    }

    /// Gives the timer of `processor`'s local APIC the deadline `tick`, or none, in place of the one that it had.
    pub fn set_apic(&mut self, processor: u8, tick: Option<u64>) {
        let source = Source::Apic(processor);
        let place = usize::from(processor);
        if self.apics.len() <= place {
            if tick.is_none() {
                return;
            }
            self.apics.resize(place + 1, None);
        }
        let held = self.apics[place];
        if held.map(|deadline| deadline.tick) == tick {
            return;
        }
        if let Some(old) = held {
            self.queue.remove(&old);
        }
        self.apics[place] = tick.map(|tick| {
            self.sequence += 1;
            Deadline { tick, source, sequence: self.sequence }
        });
        self.queue.extend(self.apics[place]);
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
        let due = self.queue.pop_first()?;
        if let Source::Apic(processor) = due.source {
            self.apics[usize::from(processor)] = None;
        }
        Some(due)
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        for Deadline { tick, source, sequence } in &self.queue {
            let source = match source {
                Source::Bus(number) => u64::from(*number),
                Source::Apic(processor) => 1 << 32 | u64::from(*processor),
            };
            digest.all(&[*tick, source, *sequence]);
        }
    }
}
