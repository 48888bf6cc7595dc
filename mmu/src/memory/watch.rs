//! Watch marks: who wants to know of stores to a 128-byte line.

use super::PhysicalMemory;
use crate::Digest;
use rootmode_arch::HostPhysical;
use std::collections::BTreeSet;

/// Bytes a mark covers.
pub(super) const LINE: usize = 128;
/// Lines of a page.
pub(super) const LINES: usize = 4096 / LINE;
/// The mark of a line whose page was written since the last snapshot and that nobody watches. (Not the sign bit: a comparison
/// with that takes one more register on x86.)
pub(super) const WRITTEN: u8 = 0x40;

/// Why a line is watched: a set of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Watch(pub(super) u8);

impl Watch {
    /// Decoded instructions.
    pub const CODE: Self = Self(1);
    /// Dirty tracking.
    pub const DIRTY: Self = Self(2);
    /// A cached control structure.
    pub const CONTROL: Self = Self(4);

    /// Paging-structure entries behind cached translations, whose changes go to the ledger. Such a watch stays.
    pub const TABLE: Self = Self(8);
    /// A line that a processor monitors.
    const MONITOR: Self = Self(16);

    /// Whether every reason of `other` is in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// The reasons of both sets.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The lines that processors monitor (SDM Vol. 3A "MONITOR/MWAIT Instruction"): state that decides who wakes, unlike other
/// watches, so that snapshots have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Monitored {
    /// Addresses.
    lines: BTreeSet<u64>,
    hits: u64,
}

impl Monitored {
    pub(super) fn digest(&self, digest: &mut Digest) {
        if *self != Self::default() {
            digest.u64(self.hits);
            self.lines.iter().for_each(|line| digest.u64(*line));
        }
    }
}

impl PhysicalMemory {
    /// Watches every line that `bytes` bytes from `address` touch. Lines without RAM cannot change and are ignored.
    pub fn watch(&mut self, address: HostPhysical, bytes: u64, kinds: Watch) {
        let mut at = address.0 & !(LINE as u64 - 1);
        while at < address.0 + bytes {
            if let Some((offset, _)) = self.locate(at) {
                let line = &mut self.lines.as_flattened_mut()[offset / LINE];
                if !Watch(*line).contains(kinds) {
                    *line |= kinds.0;
                    self.epoch += 1;
                }
            }
            at += LINE as u64;
        }
    }

    /// Stops watching the lines that `bytes` bytes from `address` touch, for `kinds`.
    pub fn unwatch(&mut self, address: HostPhysical, bytes: u64, kinds: Watch) {
        let mut at = address.0 & !(LINE as u64 - 1);
        while at < address.0 + bytes {
            if let Some((offset, _)) = self.locate(at) {
                self.lines.as_flattened_mut()[offset / LINE] &= !kinds.0;
            }
            at += LINE as u64;
        }
    }

    /// Stores to lines watched as [`Watch::DIRTY`] or [`Watch::CONTROL`] since the last call, in order, by line address.
    /// Each hit ends that watch.
    pub fn take_hits(&mut self) -> Vec<(HostPhysical, Watch)> {
        std::mem::take(&mut self.hits)
    }

    /// How often stores hit code marks, anywhere: a running block compares it after each instruction.
    pub const fn code_writes(&self) -> u64 {
        self.code_writes
    }

    /// How often stores hit code marks of the page of `address`; decoded code of an older version is stale.
    pub fn code_version(&self, address: HostPhysical) -> u32 {
        self.locate(address.0).map_or(0, |(offset, _)| self.code_versions[offset / 4096])
    }

    /// Monitors the line of `address` for stores, until one comes. False: it is no RAM, and nothing would be noticed.
    pub fn monitor(&mut self, address: HostPhysical) -> bool {
        let line = address.0 & !(LINE as u64 - 1);
        let is_ram = self.locate(line).is_some();
        if is_ram {
            self.monitored.lines.insert(line);
            self.watch(HostPhysical(line), 1, Watch::MONITOR);
        }
        is_ram
    }

    /// How often stores hit monitored lines, anywhere: who waits for one looks again when it grows.
    pub const fn monitor_hits(&self) -> u64 {
        self.monitored.hits
    }

    /// Monitors what `monitored` says, and nothing else.
    pub(super) fn restore_monitored(&mut self, monitored: &Monitored) {
        for line in std::mem::take(&mut self.monitored.lines) {
            self.unwatch(HostPhysical(line), 1, Watch::MONITOR);
        }
        self.monitored.clone_from(monitored);
        for line in &monitored.lines {
            self.watch(HostPhysical(*line), 1, Watch::MONITOR);
        }
    }

    /// After a store to line number `line`, which lies at `address`.
    pub(super) fn touch(&mut self, address: u64, line: usize) {
        if self.lines.as_flattened()[line] & WRITTEN == 0 {
            self.note_written(line);
        }
        self.notice(HostPhysical(address), line);
    }

    /// Before `bytes` are stored to a line with paging-structure entries, at `address` and `offset`.
    #[cold]
    pub(super) fn write_table(&mut self, address: u64, offset: usize, bytes: &[u8]) {
        let Some(ledger) = &mut self.ledger else { return };
        let (skew, start) = (offset & 7, offset & !7);
        let mut line = [0; LINE];
        let length = (skew + bytes.len()).next_multiple_of(8);
        let held = &self.bytes[start..start + length];
        line[..length].copy_from_slice(held);
        line[skew..skew + bytes.len()].copy_from_slice(bytes);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        for at in (0..length).step_by(8) {
            let (old, new) = (word(&held[at..at + 8]), word(&line[at..at + 8]));
            if old != new {
                ledger.note_change(HostPhysical((address & !7) + at as u64), old, new);
            }
        }
    }

    /// Tells the watches of line number `line`, which lies at `address`, that its bytes may have changed.
    pub(super) fn notice(&mut self, address: HostPhysical, line: usize) {
        let kinds = Watch(self.lines.as_flattened()[line] & !WRITTEN);
        if kinds.contains(Watch::CODE) {
            let page = line * LINE / 4096;
            self.code_versions[page] = self.code_versions[page].wrapping_add(1);
            self.code_writes += 1;
            for mark in &mut self.lines[page] {
                *mark &= !Watch::CODE.0;
            }
        }
        if kinds.contains(Watch::MONITOR) {
            self.monitored.lines.remove(&address.0);
            self.monitored.hits += 1;
        }
        let reported = Watch(kinds.0 & !(Watch::CODE.0 | Watch::TABLE.0 | Watch::MONITOR.0));
        if reported.0 != 0 {
            self.hits.push((address, reported));
        }
        self.lines.as_flattened_mut()[line] &= WRITTEN | Watch::TABLE.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> PhysicalMemory {
        let mut memory = PhysicalMemory::new();
        memory.add_ram(HostPhysical(0), 0x4000).unwrap();
        memory
    }

    #[test]
    fn a_store_to_a_code_line_makes_the_whole_page_stale_once() {
        let mut memory = memory();
        memory.watch(HostPhysical(0x1070), 0x20, Watch::CODE);
        memory.watch(HostPhysical(0x1800), 1, Watch::CODE);
        memory.write_u8(HostPhysical(0x1100), 1);
        assert_eq!(memory.code_version(HostPhysical(0x1000)), 0, "0x1100 is the line after the watched two");
        memory.write_u64(HostPhysical(0x107c), 1);
        assert_eq!(memory.code_version(HostPhysical(0x1fff)), 1);
        memory.write_u8(HostPhysical(0x1800), 1);
        assert_eq!(memory.code_version(HostPhysical(0x1000)), 1, "marks of the page went with the first hit");
        assert_eq!(memory.code_version(HostPhysical(0x2000)), 0);
        assert_eq!(memory.code_writes(), 1);
    }

    #[test]
    fn control_and_dirty_watches_report_the_line_and_end() {
        let mut memory = memory();
        memory.watch(HostPhysical(0x2000), 0x100, Watch::CONTROL);
        memory.watch(HostPhysical(0x2080), 1, Watch::DIRTY);
        memory.write(HostPhysical(0x207f), &[1, 2]);
        memory.write_u8(HostPhysical(0x2000), 1);
        let expected = [
            (HostPhysical(0x2000), Watch::CONTROL),
            (HostPhysical(0x2080), Watch::CONTROL.with(Watch::DIRTY)),
        ];
        assert_eq!(memory.take_hits(), expected);
        assert_eq!(memory.take_hits(), []);
    }

    #[test]
    fn a_monitored_line_counts_one_hit_and_a_snapshot_knows_what_is_monitored() {
        let mut memory = memory();
        assert!(!memory.monitor(HostPhysical(0x10_0000)), "no RAM there");
        assert!(memory.monitor(HostPhysical(0x2040)));
        let armed = memory.snapshot();
        memory.write_u8(HostPhysical(0x2080), 1);
        assert_eq!(memory.monitor_hits(), 0, "the next line");
        memory.write_u8(HostPhysical(0x207f), 1);
        memory.write_u8(HostPhysical(0x207f), 2);
        assert_eq!(memory.monitor_hits(), 1, "a hit ends the watch");
        assert_eq!(memory.take_hits(), []);
        memory.monitor(HostPhysical(0x3000));
        memory.restore(&armed).unwrap();
        memory.write_u8(HostPhysical(0x3000), 1);
        assert_eq!(memory.monitor_hits(), 0, "monitored later");
        memory.write_u8(HostPhysical(0x2000), 1);
        assert_eq!(memory.monitor_hits(), 1);
    }

    #[test]
    fn unwatched_lines_stay_silent() {
        let mut memory = memory();
        memory.watch(HostPhysical(0x2000), 1, Watch::CONTROL);
        memory.unwatch(HostPhysical(0x2000), 1, Watch::CONTROL);
        memory.write_u8(HostPhysical(0x2000), 1);
        assert_eq!(memory.take_hits(), []);
    }
}
