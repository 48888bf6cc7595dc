//! The 8254 interval timer, with the gate and speaker bits of port 0x61.
//!
//! Nothing is counted down: a counter remembers in which cycle of its input clock it was loaded, and count and OUT follow.
//! Source: Intel 8254 data sheet (231164-005) "Programming the 8254", "Mode Definitions", "Read-Back Command".

mod counter;

use super::clock;
use counter::Counter;
pub use counter::Saved;
use rootmode_mmu::Digest;

/// Input clocks between two refresh requests; port 0x61 shows them as a toggling bit.
const REFRESH_CYCLES: u64 = 18;

/// Three counters. Gates of counters 0 and 1 are tied high; the gate of counter 2 is bit 0 of port 0x61.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pit {
    counters: [Counter; 3],
    /// Bit 1 of port 0x61: counter 2 reaches the speaker.
    speaker: bool,
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

impl Pit {
    /// As after power-on: no counter programmed.
    pub fn new() -> Self {
        Self { counters: [Counter::new(true), Counter::new(true), Counter::new(false)], speaker: false }
    }

    /// Reads port 0x40, 0x41, 0x42 (the counters), 0x43 (nothing drives it) or 0x61.
    pub fn read(&mut self, port: u16, tick: u64) -> u8 {
        let cycle = clock::PIT.cycles(tick);
        match port {
            0x40..=0x42 => self.counters[usize::from(port - 0x40)].read(cycle),
            0x61 => {
                let refresh = cycle / REFRESH_CYCLES & 1 != 0;
                let gate = self.counters[2].gate();
                let out = self.counters[2].out(cycle);
                u8::from(gate) | u8::from(self.speaker) << 1 | u8::from(refresh) << 4 | u8::from(out) << 5
            }
            _ => 0xff,
        }
    }

    /// Writes port 0x40, 0x41, 0x42, 0x43 (control word) or 0x61.
    pub fn write(&mut self, port: u16, value: u8, tick: u64) {
        let cycle = clock::PIT.cycles(tick);
        match port {
            0x40..=0x42 => self.counters[usize::from(port - 0x40)].write(value, cycle),
            0x43 if value >> 6 == 3 => self.read_back(value, cycle),
            0x43 => {
                let counter = &mut self.counters[usize::from(value >> 6)];
                if value & 0x30 == 0 {
                    counter.latch_count(cycle);
                } else {
                    counter.control(value);
                }
            }
            0x61 => {
                self.speaker = value & 2 != 0;
                self.counters[2].set_gate(value & 1 != 0, cycle);
            }
            _ => {}
        }
    }

    fn read_back(&mut self, value: u8, cycle: u64) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if value & 2 << index == 0 {
                continue;
            }
            if value & 0x20 == 0 {
                counter.latch_count(cycle);
            }
            if value & 0x10 == 0 {
                counter.latch_status(cycle);
            }
        }
    }

    /// The state of each counter.
    pub fn save(&self, tick: u64) -> [Saved; 3] {
        let cycle = clock::PIT.cycles(tick);
        [0, 1, 2].map(|counter: usize| self.counters[counter].save(cycle))
    }

    /// When a cycle of the input clock begins.
    pub fn tick_of(cycle: u64) -> u64 {
        clock::PIT.tick_of(cycle)
    }

    /// Replaces the state of every counter; their counts are loaded now.
    pub fn restore(&mut self, saved: &[Saved; 3], tick: u64) {
        let cycle = clock::PIT.cycles(tick);
        for (counter, saved) in self.counters.iter_mut().zip(saved) {
            counter.restore(saved, cycle);
        }
    }

    /// OUT of counter 0: the level of IRQ 0.
    pub fn out0(&self, tick: u64) -> bool {
        self.counters[0].out(clock::PIT.cycles(tick))
    }

    /// The next tick after `tick` at which OUT of counter 0 changes, unless something is written.
    pub fn next_event(&self, tick: u64) -> Option<u64> {
        let cycle = self.counters[0].next_change(clock::PIT.cycles(tick))?;
        Some(clock::PIT.tick_of(cycle))
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        for counter in &self.counters {
            counter.digest(digest);
        }
        digest.u64(u64::from(self.speaker));
    }
}

#[cfg(test)]
mod tests;
