//! Watch marks: who wants to know of stores to a 128-byte line.

use super::PhysicalMemory;
use rootmode_arch::HostPhysical;

/// Bytes a mark covers.
pub(super) const LINE: usize = 128;
/// The mark of a line whose page was written since the last snapshot and that nobody watches.
pub(super) const WRITTEN: u8 = 0x80;

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

    /// Whether every reason of `other` is in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// The reasons of both sets.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl PhysicalMemory {
    /// Watches every line that `bytes` bytes from `address` touch. Lines without RAM cannot change and are ignored.
    pub fn watch(&mut self, address: HostPhysical, bytes: u64, kinds: Watch) {
        let mut at = address.0 & !(LINE as u64 - 1);
        while at < address.0 + bytes {
            if let Some((offset, _)) = self.locate(at) {
                let line = &mut self.lines[offset / LINE];
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
                self.lines[offset / LINE] &= !kinds.0;
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

    /// After a store to line number `line`, which lies at `address`.
    pub(super) fn touch(&mut self, address: u64, line: usize) {
        if self.lines[line] & WRITTEN == 0 {
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
        let kinds = Watch(self.lines[line] & !WRITTEN);
        if kinds.contains(Watch::CODE) {
            let page = line * LINE / 4096;
            self.code_versions[page] = self.code_versions[page].wrapping_add(1);
            self.code_writes += 1;
            let first = page * (4096 / LINE);
            for mark in &mut self.lines[first..first + 4096 / LINE] {
                *mark &= !Watch::CODE.0;
            }
        }
        let reported = Watch(kinds.0 & !(Watch::CODE.0 | Watch::TABLE.0));
        if reported.0 != 0 {
            self.hits.push((address, reported));
        }
        self.lines[line] &= WRITTEN | Watch::TABLE.0;
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
    fn unwatched_lines_stay_silent() {
        let mut memory = memory();
        memory.watch(HostPhysical(0x2000), 1, Watch::CONTROL);
        memory.unwatch(HostPhysical(0x2000), 1, Watch::CONTROL);
        memory.write_u8(HostPhysical(0x2000), 1);
        assert_eq!(memory.take_hits(), []);
    }
}
