//! [`PhysicalMemory`]: the host-physical address space of one machine.
//!
//! RAM is owned and flat: the regions lie one behind the other in one array, and a place in it is an offset that the
//! processor may keep with a cached translation. Every 128-byte line has a byte of marks: whether its page was written
//! since the last snapshot, and who watches it. A store by anyone to a line with a watch takes the slow
//! path. Addresses without RAM read as ones and ignore writes; MMIO windows are named so that the processor asks the
//! bus instead. What a chipset hides or moves of the RAM is a [`MemoryMap`].

mod map;
mod snapshot;
mod watch;
mod zeroes;

pub use map::{Decode, MemoryMap, Shadow};
pub use snapshot::MemorySnapshot;
pub use watch::Watch;

use crate::Digest;
use crate::stale::Ledger;
use map::View;
use rootmode_arch::HostPhysical;
use snapshot::SavedPages;
use watch::{LINE, LINES, Monitored, WRITTEN};
use zeroes::Zeroes;

/// What lies behind a host-physical page. The decision is made once, when a translation is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageKind {
    /// Bytes that may be read and written directly.
    Ram,
    /// A window of a device: every access goes to the bus.
    Mmio,
    /// Nothing: reads are all ones, writes are dropped.
    Absent,
    /// The registers of the accessing processor's local APIC. Not a matter of the layout: the processor decides it when it
    /// caches a translation.
    Apic,
    /// RAM that the chipset shows to loads alone, or to stores alone, or a different one to each.
    Shadow,
}

/// A layout that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Base or size is not a multiple of 4096, or the size is 0.
    #[error("region at {base:#x} of {bytes:#x} bytes: base and size must be non-zero multiples of 4096")]
    Alignment {
        /// Base.
        base: HostPhysical,
        /// Size in bytes.
        bytes: u64,
    },
    /// The end lies beyond 2^52 or the size beyond what the host can address.
    #[error("region at {base:#x} of {bytes:#x} bytes: must end at or below 2^52")]
    Width {
        /// Base.
        base: HostPhysical,
        /// Size in bytes.
        bytes: u64,
    },
    /// Another region is there.
    #[error("region at {base:#x} of {bytes:#x} bytes: overlaps the region at {other:#x}")]
    Overlap {
        /// Base.
        base: HostPhysical,
        /// Size in bytes.
        bytes: u64,
        /// Base of the region that is in the way.
        other: HostPhysical,
    },
    /// The host gives no room for so much RAM.
    #[error("region at {base:#x} of {bytes:#x} bytes: the host has no room for it")]
    NoRoom {
        /// Base.
        base: HostPhysical,
        /// Size in bytes.
        bytes: u64,
    },
    /// A snapshot is of a memory whose RAM lies elsewhere.
    #[error(
        "the snapshot's RAM does not lie where this memory's does: restore it into a machine of the same parts"
    )]
    Different,
}

/// A region of RAM, and where it lies in [`PhysicalMemory::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    base: u64,
    bytes: u64,
    offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    base: u64,
    bytes: u64,
}

/// The host-physical address space: the only way to touch guest bytes.
#[derive(Debug, Default)]
pub struct PhysicalMemory {
    /// Ascending by base; their offsets are in the order in which they were added.
    regions: Vec<Region>,
    bytes: Zeroes,
    /// One byte of marks a line, by page.
    lines: Vec<[u8; LINES]>,
    /// One number a page: how often its code marks were hit.
    code_versions: Vec<u32>,
    windows: Vec<Window>,
    map: MemoryMap,
    /// Accesses are those of a processor in system-management mode.
    management: bool,
    /// The map and the mode at work on the regions.
    view: View,
    /// How often the view was computed.
    layout: u64,
    epoch: u64,
    code_writes: u64,
    hits: Vec<(HostPhysical, Watch)>,
    monitored: Monitored,
    /// Numbers of the pages that were written since the last snapshot.
    unsaved: Vec<usize>,
    saved: SavedPages,
    /// Who changed watched tables, in machines that ask.
    pub(crate) ledger: Option<Box<Ledger>>,
}

impl PhysicalMemory {
    /// An empty address space.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds zeroed RAM.
    ///
    /// # Errors
    /// [`LayoutError`] if the range is not page-aligned, too high, or taken, or if the host has no room.
    pub fn add_ram(&mut self, base: HostPhysical, bytes: u64) -> Result<(), LayoutError> {
        self.check_free(base, bytes)?;
        let size = usize::try_from(bytes).map_err(|_| LayoutError::Width { base, bytes })?;
        let offset = self.bytes.len();
        // A fresh array of zeroes costs nothing until it is written; growing one would write it.
        let total = offset.checked_add(size).ok_or(LayoutError::Width { base, bytes })?;
        let mut all = Zeroes::new(total).ok_or(LayoutError::NoRoom { base, bytes })?;
        for page in (0..offset / 4096).filter(|page| self.is_used(*page)) {
            let range = page * 4096..(page + 1) * 4096;
            all[range.clone()].copy_from_slice(&self.bytes[range]);
        }
        let mut lines = vec![[0; LINES]; all.len() / 4096];
        for (page, marks) in self.lines.iter().enumerate().filter(|(_, marks)| **marks != [0; LINES]) {
            lines[page] = *marks;
        }
        self.bytes = all;
        self.lines = lines;
        self.code_versions.resize(self.bytes.len() / 4096, 0);
        let at = self.regions.partition_point(|r| r.base < base.0);
        self.regions.insert(at, Region { base: base.0, bytes, offset });
        self.show();
        Ok(())
    }

    /// Adds a window whose accesses go to the bus.
    ///
    /// # Errors
    /// [`LayoutError`] if the range is not page-aligned, too high, or taken.
    pub fn add_mmio(&mut self, base: HostPhysical, bytes: u64) -> Result<(), LayoutError> {
        self.check_free(base, bytes)?;
        let at = self.windows.partition_point(|w| w.base < base.0);
        self.windows.insert(at, Window { base: base.0, bytes });
        self.epoch += 1;
        Ok(())
    }

    fn check_free(&self, base: HostPhysical, bytes: u64) -> Result<(), LayoutError> {
        if bytes == 0 || (base.0 | bytes) & 0xfff != 0 {
            return Err(LayoutError::Alignment { base, bytes });
        }
        if base.0.checked_add(bytes).is_none_or(|end| end > 1 << 52) {
            return Err(LayoutError::Width { base, bytes });
        }
        let ram = self.regions.iter().map(|r| (r.base, r.bytes));
        let taken = ram.chain(self.windows.iter().map(|w| (w.base, w.bytes)));
        for (other, size) in taken {
            if base.0 < other + size && other < base.0 + bytes {
                return Err(LayoutError::Overlap { base, bytes, other: HostPhysical(other) });
            }
        }
        Ok(())
    }

    /// Grows whenever a cached translation's page kind or a watch may have changed.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Grows whenever [`Self::offset`] may answer otherwise.
    pub(crate) const fn layout(&self) -> u64 {
        self.layout
    }

    /// The offset in RAM of what loads from `address` find: what [`Self::load_at`] takes, and [`Self::store_at`] where
    /// [`Self::kind`] is [`PageKind::Ram`]. Offsets of a page are contiguous.
    pub fn offset(&self, address: HostPhysical) -> Option<usize> {
        self.locate(address.0).map(|(offset, _)| offset)
    }

    /// Reads `N` bytes at `offset`. `None`: they do not lie in RAM.
    #[inline(always)]
    pub fn load_at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    /// The `N` bytes at `offset`, to be read and written. `None`: they do not lie in RAM, or in two lines, or the line is watched
    /// or its page was not written since the last snapshot, so that [`Self::write`] must write them.
    #[inline(always)]
    pub fn open_at<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        const { assert!(N <= LINE) };
        let inside = offset % LINE <= LINE - N;
        if !inside || *self.lines.as_flattened().get(offset / LINE)? != WRITTEN {
            return None;
        }
        self.bytes.get_mut(offset..)?.first_chunk_mut()
    }

    /// Stores `N` bytes at `offset`. False, and nothing happened: as [`Self::open_at`].
    #[inline(always)]
    pub fn store_at<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> bool {
        let open = self.open_at(offset);
        let plain = open.is_some();
        if let Some(bytes) = open {
            *bytes = value;
        }
        plain
    }

    /// The same for bytes that may lie in two lines.
    #[inline]
    pub fn store_across<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> bool {
        self.store_at(offset, value)
            || self.plain(offset, N).map(|bytes| bytes.copy_from_slice(&value)).is_some()
    }

    /// The `bytes` bytes at `offset`, if they lie in RAM and nobody needs to notice stores to them.
    fn plain(&mut self, offset: usize, bytes: usize) -> Option<&mut [u8]> {
        let end = offset.checked_add(bytes)?;
        let lines = self.lines.as_flattened().get(offset / LINE..end.div_ceil(LINE))?;
        lines.iter().all(|marks| *marks == WRITTEN).then(|| self.bytes.get_mut(offset..end))?
    }

    /// Copies `bytes` bytes from one offset in RAM to another. False, and nothing happened: [`Self::write`] must do it.
    pub fn copy_within(&mut self, from: usize, to: usize, bytes: usize) -> bool {
        let readable = from.checked_add(bytes).is_some_and(|end| end <= self.bytes.len());
        let open = readable && self.plain(to, bytes).is_some();
        if open {
            self.bytes.copy_within(from..from + bytes, to);
        }
        open
    }

    /// Stores `value` `count` times from an offset in RAM on. False, and nothing happened: [`Self::write`] must do it.
    pub fn fill(&mut self, offset: usize, value: &[u8], count: usize) -> bool {
        let Some(bytes) = self.plain(offset, value.len() * count) else { return false };
        bytes.chunks_exact_mut(value.len()).for_each(|element| element.copy_from_slice(value));
        true
    }

    /// The page of `address`, if it lies in RAM and nobody needs to notice stores to any of its lines.
    ///
    /// # Errors
    /// The memory itself: the page is to be read and written through it.
    pub fn open_page(&mut self, address: HostPhysical) -> Result<&mut [u8; 4096], &mut Self> {
        let open =
            |offset: &usize| self.lines.get(offset >> 12).is_some_and(|lines| *lines == [WRITTEN; LINES]);
        let plain = self.kind(address) == PageKind::Ram;
        match self.offset(address.page_base()).filter(|offset| plain && open(offset)) {
            Some(offset) => {
                let page = self.bytes[offset..].first_chunk_mut();
                Ok(page.expect("there are marks of as many lines as there are bytes for"))
            }
            None => Err(self),
        }
    }

    /// Reads `N` bytes that may cross pages and regions.
    #[inline]
    fn load<const N: usize>(&self, address: HostPhysical) -> [u8; N] {
        if let Some((offset, rest)) = self.locate(address.0)
            && rest >= N
            && let Some(bytes) = self.load_at(offset)
        {
            return bytes;
        }
        let mut bytes = [0; N];
        self.read(address, &mut bytes);
        bytes
    }

    /// One byte.
    pub fn read_u8(&self, address: HostPhysical) -> u8 {
        u8::from_le_bytes(self.load(address))
    }
    /// Two bytes, little-endian, at any alignment.
    pub fn read_u16(&self, address: HostPhysical) -> u16 {
        u16::from_le_bytes(self.load(address))
    }
    /// Four bytes, little-endian, at any alignment.
    pub fn read_u32(&self, address: HostPhysical) -> u32 {
        u32::from_le_bytes(self.load(address))
    }
    /// Eight bytes, little-endian, at any alignment.
    pub fn read_u64(&self, address: HostPhysical) -> u64 {
        u64::from_le_bytes(self.load(address))
    }
    /// Stores one byte.
    pub fn write_u8(&mut self, address: HostPhysical, value: u8) {
        self.store(address, value.to_le_bytes());
    }
    /// Stores two bytes, little-endian, at any alignment.
    pub fn write_u16(&mut self, address: HostPhysical, value: u16) {
        self.store(address, value.to_le_bytes());
    }
    /// Stores four bytes, little-endian, at any alignment.
    pub fn write_u32(&mut self, address: HostPhysical, value: u32) {
        self.store(address, value.to_le_bytes());
    }
    /// Stores eight bytes, little-endian, at any alignment.
    pub fn write_u64(&mut self, address: HostPhysical, value: u64) {
        self.store(address, value.to_le_bytes());
    }

    #[inline]
    fn store<const N: usize>(&mut self, address: HostPhysical, value: [u8; N]) {
        if let Some((offset, rest)) = self.locate_store(address.0)
            && rest >= N
            && self.store_across(offset, value)
        {
            return;
        }
        self.write(address, &value);
    }

    /// Reads any number of bytes; bytes without RAM are 0xff.
    pub fn read(&self, address: HostPhysical, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.0.wrapping_add(done as u64);
            let rest = bytes.len() - done;
            if let Some((offset, available)) = self.locate(at) {
                let count = rest.min(available).min(4096 - offset % 4096);
                let bytes = &mut bytes[done..done + count];
                if self.is_used(offset / 4096) {
                    bytes.copy_from_slice(&self.bytes[offset..offset + count]);
                } else {
                    // The host need not give a page for that.
                    bytes.fill(0);
                }
                done += count;
            } else {
                let count = rest.min(4096 - (at & 0xfff) as usize);
                bytes[done..done + count].fill(0xff);
                done += count;
            }
        }
    }

    /// Writes any number of bytes; bytes without RAM are dropped. Watches of the touched lines are reported.
    pub fn write(&mut self, address: HostPhysical, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.0.wrapping_add(done as u64);
            let count = (bytes.len() - done).min(LINE - (at as usize & (LINE - 1)));
            let at = self.on_lines(HostPhysical(at)).0;
            if let Some((offset, _)) = self.locate_store(at) {
                if self.lines[offset / 4096][offset % 4096 / LINE] & Watch::TABLE.0 != 0 {
                    self.write_table(at, offset, &bytes[done..done + count]);
                }
                self.bytes[offset..offset + count].copy_from_slice(&bytes[done..done + count]);
                self.touch(at & !(LINE as u64 - 1), offset / LINE);
            }
            done += count;
        }
    }

    /// Adds the contents of all lines that are not zero, and where they are, to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        for region in &self.regions {
            digest.all(&[region.base, region.bytes]);
            for page in (0..region.bytes as usize).step_by(4096) {
                // A page of zeroes is the same state whether or not it was written.
                if !self.is_used((region.offset + page) / 4096) {
                    continue;
                }
                for at in (page..page + 4096).step_by(LINE) {
                    let line = &self.bytes[region.offset + at..][..LINE];
                    if line.iter().any(|b| *b != 0) {
                        digest.u64((at / LINE) as u64);
                        digest.bytes(line);
                    }
                }
            }
        }
        for window in &self.windows {
            digest.all(&[window.base, window.bytes]);
        }
        self.monitored.digest(digest);
    }
}
