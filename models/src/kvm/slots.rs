//! Memory slots: ranges of guest-physical memory, where their bytes are, and which of their pages the guest wrote.
//!
//! A slot occupies a window of simulated host-physical memory. The window is the memory itself, or it caches a client's
//! memory: then a page is copied in when the guest first touches it, and what the guest changed is copied out whenever
//! control goes back to the client, who may do what it likes with its memory meanwhile.

use core::cell::RefCell;
use std::collections::BTreeMap;

use rootmode_arch::{GuestPhysical, HostPhysical};
use rootmode_cpu::board::Board;
use rootmode_mmu::PhysicalMemory;

use super::Errno;
use super::abi::{MEM_LOG_DIRTY_PAGES as LOG_DIRTY, MEM_READONLY as READ_ONLY, PAGE, UserspaceMemoryRegion};
use super::host::{Frames, HostBug, Rights, Tables};
use super::nested::{GuestMemory, Unreadable};
use super::vm::{EventCounter, Failure};
use ring::Ring;

pub(crate) mod ring;

/// Pages of a word of a log.
const WORD: u64 = 64;
/// `KVM_CAP_NR_MEMSLOTS`.
pub const SLOTS: u32 = 32764;
/// Most pages of a slot (`KVM_MEM_MAX_NR_PAGES`).
const MOST_PAGES: u64 = (1 << 31) - 1;
/// The client's memory could not be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client's memory at {address:#x} cannot be accessed")]
pub struct HostFault {
    /// Where.
    pub address: u64,
}

impl From<HostFault> for Errno {
    fn from(_: HostFault) -> Self {
        Self::Efault
    }
}

/// A client's memory. Nothing of it is ever kept across a return to the client.
pub trait ClientMemory: Send {
    /// Copies from `address` on.
    ///
    /// # Errors
    /// [`HostFault`] if not all of it can be read.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), HostFault>;

    /// Copies to `address` on.
    ///
    /// # Errors
    /// [`HostFault`] if not all of it can be written.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), HostFault>;

    /// Nanoseconds of a clock of the client's that never goes back, for a VM that follows its time. `None`: the VM has its
    /// own.
    fn nanoseconds(&mut self) -> Option<u64> {
        None
    }

    /// The event counter (`eventfd`) behind a descriptor of the client's.
    ///
    /// # Errors
    /// [`Errno::Ebadf`] if there is no such descriptor, [`Errno::Einval`] if it is none of a counter.
    fn event(&mut self, descriptor: i32) -> Result<Box<dyn EventCounter>, Errno> {
        let _ = descriptor;
        Err(Errno::Ebadf)
    }
}

/// What became of an access to a guest-physical page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// The page is mapped now.
    Mapped,
    /// No memory is there, or none that may be written.
    Device,
}

#[derive(Debug)]
struct Region {
    id: u32,
    flags: u32,
    guest: u64,
    bytes: u64,
    user: u64,
    window: HostPhysical,
    /// One bit a page, while the slot is logged.
    dirty: Vec<u64>,
    /// Likewise: it has been mapped since logging began.
    mapped: Vec<u64>,
}

impl Region {
    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Marks a page; whether it is news.
    fn note_dirty(&mut self, page: u64) -> bool {
        let index = (page - self.guest) / PAGE;
        let Some(word) = self.dirty.get_mut((index / WORD) as usize) else { return false };
        let bit = 1 << (index % WORD);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Whether the guest touches a page for the first time since logging began. KVM maps it writable then, whatever the
    /// access is, and says that it is dirty.
    fn is_first_touch(&mut self, page: u64) -> bool {
        let index = (page - self.guest) / PAGE;
        let Some(word) = self.mapped.get_mut((index / 64) as usize) else { return false };
        let bit = 1 << (index % 64);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    /// The log that logging begins with.
    fn new_log(&self, dirty: bool) -> Vec<u64> {
        let mut log = self.empty_log();
        if dirty && self.has(LOG_DIRTY) {
            for page in 0..self.bytes / PAGE {
                log[(page / WORD) as usize] |= 1 << (page % WORD);
            }
        }
        log
    }

    fn empty_log(&self) -> Vec<u64> {
        let pages = if self.has(LOG_DIRTY) { self.bytes / PAGE } else { 0 };
        vec![0; pages.div_ceil(64) as usize]
    }
}

/// A page of a slot.
struct Located {
    /// Of the region.
    index: usize,
    page: GuestPhysical,
    host: HostPhysical,
    /// It may be mapped writable.
    writable: bool,
}

/// What windows lie in, and what leads to them.
pub(crate) struct Below<'a> {
    pub(crate) board: &'a mut Board,
    pub(crate) frames: &'a mut Frames,
    pub(crate) tables01: &'a mut Tables,
    /// Of nested guests, by processor.
    pub(crate) shadows: &'a mut [Option<Tables>],
    /// The physical processor on whose behalf memory is used.
    pub(crate) current: u8,
}

/// Guest memory as L0's pure functions read it.
pub(crate) struct Reader<'a>(RefCell<(&'a mut Memory, Below<'a>)>);

impl<'a> Reader<'a> {
    pub(crate) const fn new(memory: &'a mut Memory, below: Below<'a>) -> Self {
        Self(RefCell::new((memory, below)))
    }

    /// The 8 bytes at a guest-physical address that is a multiple of 8; `None` outside the slots.
    pub(crate) fn quadword(&self, address: u64) -> Option<u64> {
        let (memory, below) = &mut *self.0.borrow_mut();
        let host = memory.place(below, GuestPhysical(address), false)?;
        Some(below.board.memory.read_u64(host))
    }
}

impl GuestMemory for Reader<'_> {
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), Unreadable> {
        let (memory, below) = self.0.get_mut();
        let mut done = 0;
        while done < buffer.len() {
            let at = address.checked_add(done as u64).ok_or(Unreadable { address })?;
            let host = memory.place(below, GuestPhysical(at), false).ok_or(Unreadable { address })?;
            let count = (buffer.len() - done).min((PAGE - at % PAGE) as usize);
            below.board.memory.read(host, &mut buffer[done..done + count]);
            done += count;
        }
        Ok(())
    }
}

/// The slots of a VM.
pub(crate) struct Memory {
    regions: Vec<Region>,
    client: Option<Box<dyn ClientMemory>>,
    /// Pages that are copies of the client's; of those that may have changed, what they were.
    copies: BTreeMap<u64, Option<Box<[u8; PAGE as usize]>>>,
    /// Windows of deleted slots, by size.
    free: Vec<(u64, HostPhysical)>,
    next_window: u64,
    /// `KVM_GET_DIRTY_LOG` clears nothing, and slots are dirty all over when logging begins.
    pub(crate) manual: bool,
    /// Entries of a vCPU's ring, which takes the place of logs; 0: there are none.
    pub(crate) ring_entries: u32,
    /// By processor.
    rings: Vec<Ring>,
    pub(crate) initially_dirty: bool,
    /// Grows whenever a translation may have become stale.
    pub(crate) generation: u64,
}

impl Memory {
    /// No slots. With a client, its memory is what slots consist of. Windows lie from `first` on.
    pub(crate) const fn new(client: Option<Box<dyn ClientMemory>>, first: HostPhysical) -> Self {
        Self {
            regions: Vec::new(),
            client,
            copies: BTreeMap::new(),
            free: Vec::new(),
            next_window: first.0,
            manual: false,
            ring_entries: 0,
            rings: Vec::new(),
            initially_dirty: false,
            generation: 0,
        }
    }

    /// `KVM_SET_USER_MEMORY_REGION`: creates, moves, changes or (size 0) deletes a slot.
    ///
    /// # Errors
    /// [`Errno::Einval`] for what no slot can be or change to, [`Errno::Eexist`] if another slot is there,
    /// [`Errno::Enomem`] if there is no room.
    pub(crate) fn set_region(
        &mut self,
        below: &mut Below<'_>,
        region: &UserspaceMemoryRegion,
    ) -> Result<(), Errno> {
        let aligned = (region.guest_phys_addr | region.memory_size | region.userspace_addr) & (PAGE - 1) == 0;
        let end = region.guest_phys_addr.checked_add(region.memory_size);
        let user_end = region.userspace_addr.checked_add(region.memory_size);
        let known = region.flags & !(LOG_DIRTY | READ_ONLY) == 0;
        if !aligned || !known || region.slot >= SLOTS || end.is_none() || user_end.is_none() {
            return Err(Errno::Einval);
        }
        self.copy_out(below)?;
        let old = self.regions.iter().position(|other| other.id == region.slot);
        if region.memory_size == 0 {
            let gone = self.regions.remove(old.ok_or(Errno::Einval)?);
            self.free.push((gone.bytes, gone.window));
            self.changed(below);
            return Ok(());
        }
        if region.memory_size / PAGE > MOST_PAGES {
            return Err(Errno::Einval);
        }
        let guest = region.guest_phys_addr;
        let overlaps = |other: &Region| {
            other.id != region.slot
                && guest < other.guest + other.bytes
                && other.guest < guest + region.memory_size
        };
        if let Some(index) = old {
            let other = &self.regions[index];
            let same = other.user == region.userspace_addr
                && other.bytes == region.memory_size
                && (other.flags ^ region.flags) & READ_ONLY == 0;
            if !same {
                return Err(Errno::Einval);
            }
            if other.guest != guest && self.regions.iter().any(overlaps) {
                return Err(Errno::Eexist);
            }
            let other = &mut self.regions[index];
            let logs = other.has(LOG_DIRTY);
            (other.guest, other.flags) = (guest, region.flags);
            if other.has(LOG_DIRTY) != logs {
                other.dirty = other.new_log(self.initially_dirty);
                other.mapped = other.empty_log();
            }
        } else {
            if self.regions.iter().any(overlaps) {
                return Err(Errno::Eexist);
            }
            let window = self.window(below, region.memory_size)?;
            let (id, flags) = (region.slot, region.flags);
            let (bytes, user) = (region.memory_size, region.userspace_addr);
            let (dirty, mapped) = (Vec::new(), Vec::new());
            let mut new = Region { id, flags, guest, bytes, user, window, dirty, mapped };
            new.dirty = new.new_log(self.initially_dirty);
            new.mapped = new.empty_log();
            self.regions.push(new);
        }
        self.changed(below);
        Ok(())
    }

    fn window(&mut self, below: &mut Below<'_>, bytes: u64) -> Result<HostPhysical, Errno> {
        if let Some(index) = self.free.iter().position(|(size, _)| *size == bytes) {
            let (_, window) = self.free.swap_remove(index);
            for page in (0..bytes).step_by(PAGE as usize) {
                below.board.memory.write(window.offset(page), &[0; PAGE as usize]);
            }
            return Ok(window);
        }
        let window = HostPhysical(self.next_window);
        below.board.memory.add_ram(window, bytes).map_err(|_| Errno::Enomem)?;
        self.next_window += bytes;
        Ok(window)
    }

    /// Slots or their rights have changed: every translation is made anew.
    fn changed(&mut self, below: &mut Below<'_>) {
        self.copies.clear();
        self.unmap(below);
    }

    fn unmap(&mut self, below: &mut Below<'_>) {
        below.tables01.clear(&mut below.board.memory, below.frames);
        for shadow in below.shadows.iter_mut().flatten() {
            shadow.clear(&mut below.board.memory, below.frames);
        }
        // What an interprocessor interrupt to all would do: others may be in the guest, and must not go on with what was.
        for processor in below.board.processors_mut() {
            processor.cpu.tlb.flush_all();
        }
        self.generation += 1;
    }

    /// The page of `address`, with the client's bytes in it. `None`: no memory is there, or none that may be written.
    ///
    /// # Errors
    /// [`Errno::Efault`] if the client's memory is not there.
    fn locate(
        &mut self,
        below: &mut Below<'_>,
        address: GuestPhysical,
        write: bool,
    ) -> Result<Option<Located>, Errno> {
        let page = address.page_base();
        let found = self.regions.iter().position(|region| page.0.wrapping_sub(region.guest) < region.bytes);
        let Some(index) = found else { return Ok(None) };
        let region = &self.regions[index];
        if write && region.has(READ_ONLY) {
            return Ok(None);
        }
        let host = region.window.offset(page.0 - region.guest);
        let mut writable = !region.has(READ_ONLY);
        if let Some(client) = &mut self.client {
            let user = region.user + (page.0 - region.guest);
            let copy = match self.copies.entry(page.0) {
                std::collections::btree_map::Entry::Occupied(copy) => copy.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    let mut bytes = [0; PAGE as usize];
                    client.read(user, &mut bytes)?;
                    below.board.memory.write(host, &bytes);
                    place.insert(None)
                }
            };
            if write && copy.is_none() {
                *copy = Some(Box::new(page_at(&below.board.memory, host)));
            }
            writable &= copy.is_some();
        }
        Ok(Some(Located { index, page, host, writable }))
    }

    /// The page is dirty.
    fn note_dirty(&mut self, below: &Below<'_>, index: usize, page: GuestPhysical) {
        let region = &mut self.regions[index];
        let new = region.note_dirty(page.0);
        if let Some(ring) = self.rings.get_mut(usize::from(below.current)).filter(|_| new) {
            ring.push(region.id, (page.0 - region.guest) / PAGE);
        }
    }

    /// Where the page of `address` is for whoever maps it for the guest, and whether it may map it writable: an access of
    /// the guest's, which counts for the log. `None`: no memory is there, or none that may be written.
    ///
    /// # Errors
    /// [`Errno::Efault`] if the client's memory is not there.
    pub(crate) fn touch(
        &mut self,
        below: &mut Below<'_>,
        address: GuestPhysical,
        write: bool,
    ) -> Result<Option<(HostPhysical, bool)>, Errno> {
        let Some(Located { index, page, host, mut writable }) = self.locate(below, address, write)? else {
            return Ok(None);
        };
        if self.regions[index].has(LOG_DIRTY) {
            if self.regions[index].is_first_touch(page.0) || write {
                self.note_dirty(below, index, page);
            }
            writable &= write;
        }
        Ok(Some((host, writable)))
    }

    /// The guest touched the page of `address`.
    ///
    /// # Errors
    /// [`Errno::Efault`] if the client's memory is not there; a bug of L0.
    pub(crate) fn fault_in(
        &mut self,
        below: &mut Below<'_>,
        address: GuestPhysical,
        write: bool,
    ) -> Result<Touch, Failure> {
        let Some((host, writable)) = self.touch(below, address, write)? else { return Ok(Touch::Device) };
        let rights = Rights { write: writable, ..Rights::ALL };
        let Below { board, frames, tables01, .. } = below;
        tables01
            .map(&mut board.memory, frames, address.page_base(), host, rights)
            .ok_or(HostBug::OutOfFrames)?;
        Ok(Touch::Mapped)
    }

    /// Where L0 reads or writes a byte of the guest's. `None`: no memory is there, or none that can be accessed so.
    pub(crate) fn place(
        &mut self,
        below: &mut Below<'_>,
        address: GuestPhysical,
        write: bool,
    ) -> Option<HostPhysical> {
        let Located { index, page, host, .. } = self.locate(below, address, write).ok()??;
        if write && self.regions[index].has(LOG_DIRTY) {
            self.note_dirty(below, index, page);
        }
        Some(host.offset(address.0 & (PAGE - 1)))
    }

    /// Gives the client what the guest wrote, and forgets every copy.
    ///
    /// # Errors
    /// [`Errno::Efault`] if the client's memory is gone.
    pub(crate) fn copy_out(&mut self, below: &mut Below<'_>) -> Result<(), Errno> {
        let Some(client) = &mut self.client else { return Ok(()) };
        if self.copies.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        for (page, original) in std::mem::take(&mut self.copies) {
            let Some(original) = original else { continue };
            let found = self.regions.iter().find(|region| page.wrapping_sub(region.guest) < region.bytes);
            let Some(region) = found else { continue };
            let now = page_at(&below.board.memory, region.window.offset(page - region.guest));
            let user = region.user + (page - region.guest);
            for (start, end) in differences(&original, &now) {
                if let Err(fault) = client.write(user + start as u64, &now[start..end]) {
                    result = Err(fault.into());
                }
            }
        }
        self.unmap(below);
        result
    }

    /// `KVM_GET_DIRTY_LOG`: the bitmap so far, which starts anew.
    ///
    /// # Errors
    /// [`Errno::Enoent`] if there is no such slot, or it is not logged.
    pub(crate) fn take_log(&mut self, below: &mut Below<'_>, id: u32) -> Result<Vec<u64>, Errno> {
        if self.ring_entries > 0 {
            return Err(Errno::Enxio);
        }
        if id >= SLOTS {
            return Err(Errno::Einval);
        }
        let region = self.regions.iter_mut().find(|region| region.id == id).ok_or(Errno::Enoent)?;
        if !region.has(LOG_DIRTY) {
            return Err(Errno::Enoent);
        }
        if self.manual {
            return Ok(region.dirty.clone());
        }
        let empty = region.empty_log();
        let log = std::mem::replace(&mut region.dirty, empty);
        self.copy_out(below)?;
        self.unmap(below);
        Ok(log)
    }

    /// How many bits of `KVM_CLEAR_DIRTY_LOG`'s bitmap are read: those of `pages` pages from `first` on.
    ///
    /// # Errors
    /// [`Errno::Enoent`] if there is no such slot or it is not logged, [`Errno::Einval`] if that is no part of it in words.
    pub(crate) fn check_clear(&self, id: u32, first: u64, pages: u64) -> Result<(), Errno> {
        if self.ring_entries > 0 {
            return Err(Errno::Enxio);
        }
        if id >= SLOTS || !first.is_multiple_of(WORD) {
            return Err(Errno::Einval);
        }
        let region = self.regions.iter().find(|region| region.id == id && region.has(LOG_DIRTY));
        let left = (region.ok_or(Errno::Enoent)?.bytes / PAGE).checked_sub(first).ok_or(Errno::Einval)?;
        if pages > left || pages < left && !pages.is_multiple_of(WORD) { Err(Errno::Einval) } else { Ok(()) }
    }

    /// `KVM_CLEAR_DIRTY_LOG`: the pages whose bits are set, from page `first` on, are watched anew.
    ///
    /// # Errors
    /// [`Errno::Enoent`] if there is no such slot.
    pub(crate) fn clear_log(
        &mut self,
        below: &mut Below<'_>,
        id: u32,
        first: u64,
        bits: &[u64],
    ) -> Result<(), Errno> {
        let region = self.regions.iter_mut().find(|region| region.id == id).ok_or(Errno::Enoent)?;
        for (word, bits) in region.dirty.iter_mut().skip((first / WORD) as usize).zip(bits) {
            *word &= !bits;
        }
        self.copy_out(below)?;
        self.unmap(below);
        Ok(())
    }

    /// A vCPU was made.
    pub(crate) fn add_vcpu(&mut self) {
        if self.ring_entries > 0 {
            self.rings.push(Ring::new(self.ring_entries));
        }
    }

    /// A vCPU's ring, if there are any.
    pub(crate) fn ring(&mut self, vcpu: usize) -> Option<&mut Ring> {
        self.rings.get_mut(vcpu)
    }

    /// Watches pages anew that came back from a ring.
    ///
    /// # Errors
    /// [`Errno::Efault`] if the client's memory is gone.
    pub(crate) fn watch(&mut self, below: &mut Below<'_>, pages: &[(u32, u64)]) -> Result<(), Errno> {
        for (slot, offset) in pages {
            let region = self.regions.iter_mut().find(|region| region.id == *slot);
            if let Some(word) = region.and_then(|region| region.dirty.get_mut((offset / WORD) as usize)) {
                *word &= !(1 << (offset % WORD));
            }
        }
        if pages.is_empty() {
            return Ok(());
        }
        self.copy_out(below)?;
        self.unmap(below);
        Ok(())
    }

    /// Reads guest memory as a device would. False: not all of it is memory.
    pub(crate) fn read(&mut self, below: &Below<'_>, address: u64, bytes: &mut [u8]) -> bool {
        self.pieces(address, bytes.len()).is_some_and(|pieces| {
            pieces.into_iter().all(|(window, user, start, count)| {
                let part = &mut bytes[start..start + count];
                match &mut self.client {
                    Some(client) if !self.copies.contains_key(&((address + start as u64) & !(PAGE - 1))) => {
                        client.read(user, part).is_ok()
                    }
                    _ => {
                        below.board.memory.read(window, part);
                        true
                    }
                }
            })
        })
    }

    /// Writes guest memory as a loader or a device would. False: not all of it is memory, and nothing was written.
    pub(crate) fn write(&mut self, below: &mut Below<'_>, address: u64, bytes: &[u8]) -> bool {
        let Some(pieces) = self.pieces(address, bytes.len()) else { return false };
        if self.copy_out(below).is_err() {
            return false;
        }
        pieces.into_iter().all(|(window, user, start, count)| {
            let part = &bytes[start..start + count];
            match &mut self.client {
                Some(client) => client.write(user, part).is_ok(),
                None => {
                    below.board.memory.write(window, part);
                    true
                }
            }
        })
    }

    /// A range in pieces of pages: host-physical and client's address, offset, count.
    fn pieces(&self, address: u64, length: usize) -> Option<Vec<(HostPhysical, u64, usize, usize)>> {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < length {
            let at = address.checked_add(done as u64)?;
            let region = self.regions.iter().find(|region| at.wrapping_sub(region.guest) < region.bytes)?;
            let inside = at - region.guest;
            let count = (length - done).min((PAGE - at % PAGE) as usize);
            pieces.push((region.window.offset(inside), region.user + inside, done, count));
            done += count;
        }
        Some(pieces)
    }
}

fn page_at(memory: &PhysicalMemory, host: HostPhysical) -> [u8; PAGE as usize] {
    let mut bytes = [0; PAGE as usize];
    memory.read(host, &mut bytes);
    bytes
}

/// Where two pages differ, as half-open ranges.
fn differences(old: &[u8; PAGE as usize], new: &[u8; PAGE as usize]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (at, (old, new)) in old.chunks_exact(8).zip(new.chunks_exact(8)).enumerate() {
        if old == new {
            continue;
        }
        for byte in (0..8).filter(|byte| old[*byte] != new[*byte]) {
            let place = at * 8 + byte;
            match ranges.last_mut() {
                Some((_, end)) if *end == place => *end += 1,
                _ => ranges.push((place, place + 1)),
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_that_changed_are_given_back() {
        let old = [7; PAGE as usize];
        let mut new = old;
        assert!(differences(&old, &new).is_empty());
        for at in [3, 4, 8, 4095] {
            new[at] = 9;
        }
        assert_eq!(differences(&old, &new), [(3, 5), (8, 9), (4095, 4096)]);
    }
}
