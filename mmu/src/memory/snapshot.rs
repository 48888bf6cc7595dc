//! [`MemorySnapshot`]: the contents of a memory at one moment, shared page by page with the memory and with other snapshots.
//!
//! A page is copied when a snapshot is taken for the first time after a store to it, so a snapshot costs what was written
//! since the last one, and restoring costs what differs. Stores pay once a page: the first one after a snapshot takes the
//! slow path.

use super::watch::{LINE, LINES, Monitored, WRITTEN};
use super::{LayoutError, MemoryMap, PhysicalMemory, Region, Window};
use crate::stale::Ledger;
use rootmode_arch::HostPhysical;
use std::sync::Arc;

const PAGE: usize = 4096;
/// Pages a chunk: what is copied of the tree when one page of it changes.
const CHUNK: usize = 64;

type Page = [u8; PAGE];
type Chunk = [Option<Arc<Page>>; CHUNK];

const NO_PAGES: Chunk = [const { None }; CHUNK];

/// Copies of pages by their number in RAM. A page without one is zero.
#[derive(Clone, Debug, Default)]
pub(super) struct SavedPages {
    chunks: Vec<Option<Arc<Chunk>>>,
}

impl SavedPages {
    pub(super) fn page(&self, number: usize) -> Option<&Arc<Page>> {
        self.chunks.get(number / CHUNK)?.as_ref()?[number % CHUNK].as_ref()
    }

    fn put(&mut self, number: usize, page: Page) {
        if self.chunks.len() <= number / CHUNK {
            self.chunks.resize(number / CHUNK + 1, None);
        }
        let chunk = self.chunks[number / CHUNK].get_or_insert_with(|| Arc::new(NO_PAGES));
        Arc::make_mut(chunk)[number % CHUNK] = Some(Arc::new(page));
    }

    /// The pages whose copies are not those of `other`, ascending.
    fn differing(&self, other: &Self) -> Vec<usize> {
        let same = |a: Option<&Arc<Page>>, b: Option<&Arc<Page>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let mut pages = Vec::new();
        for index in 0..self.chunks.len().max(other.chunks.len()) {
            let one = self.chunks.get(index).and_then(Option::as_ref);
            let two = other.chunks.get(index).and_then(Option::as_ref);
            if let (Some(one), Some(two)) = (one, two)
                && Arc::ptr_eq(one, two)
            {
                continue;
            }
            if one.is_some() || two.is_some() {
                let numbers = index * CHUNK..(index + 1) * CHUNK;
                pages.extend(numbers.filter(|number| !same(self.page(*number), other.page(*number))));
            }
        }
        pages
    }
}

/// The contents of a memory at one moment.
#[derive(Clone, Debug)]
pub struct MemorySnapshot {
    regions: Vec<Region>,
    windows: Vec<Window>,
    map: MemoryMap,
    saved: SavedPages,
    ledger: Option<Box<Ledger>>,
    monitored: Monitored,
}

impl PhysicalMemory {
    /// Whether the page numbered `page` may hold something else than zeroes.
    pub(super) fn is_used(&self, page: usize) -> bool {
        self.is_unsaved(page) || self.saved.page(page).is_some()
    }

    /// Whether the page was written since its copy in `saved` was made.
    fn is_unsaved(&self, page: usize) -> bool {
        self.lines[page][0] & WRITTEN != 0
    }

    /// Remembers that the page of line number `line` is written.
    #[cold]
    pub(super) fn note_written(&mut self, line: usize) {
        let page = line / LINES;
        self.unsaved.push(page);
        for marks in &mut self.lines[page] {
            *marks |= WRITTEN;
        }
    }

    fn forget_written(&mut self, page: usize) {
        for marks in &mut self.lines[page] {
            *marks &= !WRITTEN;
        }
    }

    /// The contents as they are. Changes nothing that anybody can observe; costs what was written since the last snapshot.
    pub fn snapshot(&mut self) -> MemorySnapshot {
        for page in std::mem::take(&mut self.unsaved) {
            if let Some(bytes) = self.bytes[page * PAGE..].first_chunk() {
                self.saved.put(page, *bytes);
            }
            self.forget_written(page);
        }
        MemorySnapshot {
            regions: self.regions.clone(),
            windows: self.windows.clone(),
            map: self.map.clone(),
            saved: self.saved.clone(),
            ledger: self.ledger.clone(),
            monitored: self.monitored.clone(),
        }
    }

    /// Puts back what [`Self::snapshot`] kept, of this memory or of one with the same RAM. Decoded code of pages that change
    /// becomes stale, and watches of their lines report as for stores.
    ///
    /// # Errors
    /// [`LayoutError::Different`]: RAM lies elsewhere; nothing was changed.
    pub fn restore(&mut self, snapshot: &MemorySnapshot) -> Result<(), LayoutError> {
        if self.regions != snapshot.regions {
            return Err(LayoutError::Different);
        }
        let mut pages = std::mem::take(&mut self.unsaved);
        for page in &pages {
            self.forget_written(*page);
        }
        pages.extend(self.saved.differing(&snapshot.saved));
        pages.sort_unstable();
        pages.dedup();
        for page in pages {
            let bytes = &mut self.bytes[page * PAGE..(page + 1) * PAGE];
            match snapshot.saved.page(page) {
                Some(saved) => bytes.copy_from_slice(&saved[..]),
                None => bytes.fill(0),
            }
            self.notice_page(page);
        }
        self.saved = snapshot.saved.clone();
        self.windows.clone_from(&snapshot.windows);
        self.ledger.clone_from(&snapshot.ledger);
        self.set_map(snapshot.map.clone());
        self.restore_monitored(&snapshot.monitored);
        Ok(())
    }

    /// Tells the watches of a page that it changed.
    fn notice_page(&mut self, page: usize) {
        let offset = page * PAGE;
        let region = self.regions.iter().find(|r| offset.wrapping_sub(r.offset) < r.bytes as usize);
        let Some(base) = region.map(|r| r.base + (offset - r.offset) as u64) else { return };
        for index in 0..LINES {
            self.notice(HostPhysical(base + (index * LINE) as u64), page * LINES + index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PageKind, Watch};
    use super::*;
    use crate::Digest;

    fn memory() -> PhysicalMemory {
        let mut memory = PhysicalMemory::new();
        memory.add_ram(HostPhysical(0x10_0000), 0x2000).unwrap();
        memory.add_ram(HostPhysical(0), 0x2000).unwrap();
        memory.add_mmio(HostPhysical(0xfee0_0000), 0x1000).unwrap();
        memory
    }

    fn digest(memory: &PhysicalMemory) -> u128 {
        let mut digest = Digest::new();
        memory.digest(&mut digest);
        digest.finish()
    }

    #[test]
    fn a_snapshot_shares_what_did_not_change_and_restores_exactly() {
        let mut memory = memory();
        memory.write_u64(HostPhysical(0x10_0ffc), 0x1234_5678_9abc_def0);
        memory.write_u8(HostPhysical(5), 7);
        let before = digest(&memory);
        let first = memory.snapshot();
        assert_eq!(digest(&memory), before, "taking a snapshot changes nothing");
        memory.write_u64(HostPhysical(0x1000), 1);
        memory.write_u8(HostPhysical(5), 8);
        let changed = digest(&memory);
        assert_ne!(changed, before);
        let second = memory.snapshot();
        let shared = (first.saved.page(0), second.saved.page(0));
        assert!(
            Arc::ptr_eq(shared.0.unwrap(), shared.1.unwrap()),
            "a page that was not written is not copied"
        );
        assert_eq!(first.saved.differing(&second.saved), [2, 3]);
        memory.write_u8(HostPhysical(0x1800), 3);
        memory.restore(&first).unwrap();
        assert_eq!(digest(&memory), before);
        assert_eq!(memory.read_u64(HostPhysical(0x10_0ffc)), 0x1234_5678_9abc_def0);
        memory.restore(&second).unwrap();
        assert_eq!(digest(&memory), changed);
        memory.write_u8(HostPhysical(5), 9);
        memory.restore(&second).unwrap();
        assert_eq!(digest(&memory), changed, "a store after a restore is undone by the next");
    }

    #[test]
    fn another_memory_of_the_same_layout_takes_a_snapshot_and_a_different_one_refuses() {
        let mut one = memory();
        one.write_u32(HostPhysical(0x1ff0), 5);
        let snapshot = one.snapshot();
        let mut two = memory();
        two.write_u32(HostPhysical(0x10_0000), 6);
        two.restore(&snapshot).unwrap();
        assert_eq!(digest(&two), digest(&one));
        let mut other = PhysicalMemory::new();
        other.add_ram(HostPhysical(0), 0x2000).unwrap();
        assert_eq!(other.restore(&snapshot), Err(LayoutError::Different));
    }

    #[test]
    fn ram_that_is_added_after_a_snapshot_leaves_contents_as_they_are() {
        let mut memory = memory();
        memory.write_u32(HostPhysical(0x1ff0), 5);
        memory.snapshot();
        memory.add_ram(HostPhysical(0x20_0000), 0x1000).unwrap();
        assert_eq!(memory.read_u32(HostPhysical(0x1ff0)), 5);
    }

    #[test]
    fn decoded_code_is_stale_after_a_restore_that_changes_its_page() {
        let mut memory = memory();
        let snapshot = memory.snapshot();
        memory.write_u8(HostPhysical(0x1000), 0x90);
        memory.watch(HostPhysical(0x1000), 1, Watch::CODE);
        memory.watch(HostPhysical(0), 1, Watch::CODE);
        memory.restore(&snapshot).unwrap();
        assert_eq!(memory.code_version(HostPhysical(0x1000)), 1);
        assert_eq!(memory.code_version(HostPhysical(0)), 0);
        assert_eq!(memory.code_writes(), 1);
    }

    #[test]
    fn absent_memory_reads_ones_and_drops_writes_also_across_an_edge() {
        let mut memory = memory();
        memory.write_u64(HostPhysical(0x1ffc), 0x1111_1111_2222_2222);
        assert_eq!(memory.read_u64(HostPhysical(0x1ffc)), 0xffff_ffff_2222_2222);
        assert_eq!(memory.read_u32(HostPhysical(0xfee0_0000)), 0xffff_ffff);
    }

    #[test]
    fn kinds_follow_the_layout_and_overlaps_are_refused() {
        let mut memory = memory();
        assert_eq!(memory.kind(HostPhysical(0x1fff)), PageKind::Ram);
        assert_eq!(memory.kind(HostPhysical(0x2000)), PageKind::Absent);
        assert_eq!(memory.kind(HostPhysical(0xfee0_0fff)), PageKind::Mmio);
        let overlap = memory.add_ram(HostPhysical(0x1000), 0x1000);
        assert!(matches!(overlap, Err(LayoutError::Overlap { other: HostPhysical(0), .. })));
        assert!(matches!(memory.add_mmio(HostPhysical(0x10), 0x1000), Err(LayoutError::Alignment { .. })));
        assert!(matches!(memory.add_ram(HostPhysical(1 << 52), 0x1000), Err(LayoutError::Width { .. })));
    }
}
