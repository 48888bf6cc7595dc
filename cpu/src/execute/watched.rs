//! Memory as walks see it while an extension watches them: a page-modification log, and the APIC-access page.

use crate::state::ModificationLog;
use rootmode_arch::{GuestPhysical, HostPhysical};
use rootmode_mmu::{EntryMemory, PhysicalMemory};

/// What a walk reads and updates, watched.
pub(super) struct Watched<'a> {
    pub(super) memory: &'a mut PhysicalMemory,
    /// The APIC-access page.
    pub(super) apic: Option<HostPhysical>,
    pub(super) log: Option<&'a mut ModificationLog>,
    /// An entry lay on the APIC-access page.
    pub(super) met: bool,
}

impl Watched<'_> {
    fn note(&mut self, at: HostPhysical) {
        self.met |= self.apic == Some(at.page_base());
    }
}

impl EntryMemory for Watched<'_> {
    fn entry_u32(&mut self, at: HostPhysical) -> u32 {
        self.note(at);
        self.memory.read_u32(at)
    }
    fn entry_u64(&mut self, at: HostPhysical) -> u64 {
        self.note(at);
        self.memory.read_u64(at)
    }
    fn set_entry_u32(&mut self, at: HostPhysical, entry: u32) {
        self.memory.write_u32(at, entry);
    }
    fn set_entry_u64(&mut self, at: HostPhysical, entry: u64) {
        self.memory.write_u64(at, entry);
    }
    fn log_modification(&mut self, guest: GuestPhysical) -> bool {
        match &mut self.log {
            Some(log) => log.add(self.memory, guest),
            None => true,
        }
    }
}
