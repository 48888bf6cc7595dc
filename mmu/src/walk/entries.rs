//! Where walkers read and update entries: physical memory, or a copy-free look that remembers the way and changes nothing.

use super::{Access, Paging, SecondStage, Translation, WalkFault, translate};
use crate::PhysicalMemory;
use rootmode_arch::{GuestPhysical, HostPhysical, Linear};

/// Memory that holds paging-structure entries.
pub trait EntryMemory {
    /// A 4-byte entry.
    fn entry_u32(&mut self, at: HostPhysical) -> u32;
    /// An 8-byte entry.
    fn entry_u64(&mut self, at: HostPhysical) -> u64;
    /// Updates a 4-byte entry.
    fn set_entry_u32(&mut self, at: HostPhysical, entry: u32);
    /// Updates an 8-byte entry.
    fn set_entry_u64(&mut self, at: HostPhysical, entry: u64);
    /// A write is about to make the EPT entry of `guest`'s page dirty. False: it must not, the page-modification log is
    /// full.
    fn log_modification(&mut self, guest: GuestPhysical) -> bool {
        let _ = guest;
        true
    }
}

impl EntryMemory for PhysicalMemory {
    #[inline(always)]
    fn entry_u32(&mut self, at: HostPhysical) -> u32 {
        self.read_u32(at)
    }
    #[inline(always)]
    fn entry_u64(&mut self, at: HostPhysical) -> u64 {
        self.read_u64(at)
    }
    #[inline(always)]
    fn set_entry_u32(&mut self, at: HostPhysical, entry: u32) {
        self.write_u32(at, entry);
    }
    #[inline(always)]
    fn set_entry_u64(&mut self, at: HostPhysical, entry: u64) {
        self.write_u64(at, entry);
    }
}

/// The entries that a walk read, in the order in which it first read them: 8-byte units of memory and what they held.
pub type Way = Vec<(HostPhysical, u64)>;

struct Look<'a> {
    memory: &'a PhysicalMemory,
    way: Way,
}

impl Look<'_> {
    fn note(&mut self, at: HostPhysical) {
        let unit = HostPhysical(at.0 & !7);
        if !self.way.iter().any(|(known, _)| *known == unit) {
            self.way.push((unit, self.memory.read_u64(unit)));
        }
    }
}

impl EntryMemory for Look<'_> {
    fn entry_u32(&mut self, at: HostPhysical) -> u32 {
        self.note(at);
        self.memory.read_u32(at)
    }
    fn entry_u64(&mut self, at: HostPhysical) -> u64 {
        self.note(at);
        self.memory.read_u64(at)
    }
    fn set_entry_u32(&mut self, _: HostPhysical, _: u32) {}
    fn set_entry_u64(&mut self, _: HostPhysical, _: u64) {}
}

/// What [`translate`] would answer now, and the entries that it would use. Accessed and dirty flags stay as they are.
pub fn look(
    memory: &PhysicalMemory,
    paging: &Paging,
    second: &SecondStage,
    linear: Linear,
    access: Access,
) -> (Result<Translation, WalkFault>, Way) {
    let mut look = Look { memory, way: Vec::new() };
    let answer = translate(&mut look, paging, second, linear, access);
    (answer, look.way)
}
