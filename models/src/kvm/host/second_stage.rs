//! Second-stage tables that L0 keeps: for L1, and the shadow of L1's own tables that L2 runs on.
//! Also L0's software walk of L1's tables.

use rootmode_arch::{GuestPhysical, HostPhysical, Vendor};
use rootmode_mmu::PhysicalMemory;

use super::frames::Frames;
use super::machine::Machine;

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// What a translation allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Reads.
    pub read: bool,
    /// Writes.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, execute: true };

    /// Bits 0 read, 1 write, 2 execute, as exit qualifications have them.
    pub const fn bits(self) -> u8 {
        self.read as u8 | (self.write as u8) << 1 | (self.execute as u8) << 2
    }

    const fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
            execute: self.execute && other.execute,
        }
    }
}

/// A four-level table in host-physical memory, of 4 KiB leaves.
#[derive(Clone, Debug)]
pub struct Tables {
    vendor: Vendor,
    root: HostPhysical,
    /// Frames of the levels below the root.
    below: Vec<HostPhysical>,
    /// Leaves that are set, in the order in which they were: guest-physical pages.
    mapped: Vec<GuestPhysical>,
}

impl Tables {
    /// An empty table.
    pub fn new(vendor: Vendor, frames: &mut Frames, memory: &mut PhysicalMemory) -> Option<Self> {
        Some(Self { vendor, root: frames.take(memory, 1)?, below: Vec::new(), mapped: Vec::new() })
    }

    /// Host-physical address of the top level.
    pub const fn root(&self) -> HostPhysical {
        self.root
    }

    fn leaf(&self, host: HostPhysical, rights: Rights) -> u64 {
        match self.vendor {
            // Write-back memory in bits 5:3.
            Vendor::Intel => host.0 | u64::from(rights.bits()) | 6 << 3,
            Vendor::Amd => {
                let write = if rights.write { 2 } else { 0 };
                host.0 | 5 | write | if rights.execute { 0 } else { NO_EXECUTE }
            }
        }
    }

    /// The place of the leaf for `guest`, if the tables above it exist.
    fn place(
        &self,
        memory: &PhysicalMemory,
        guest: GuestPhysical,
    ) -> Result<HostPhysical, (HostPhysical, u32)> {
        let mut table = self.root;
        for level in (1..4_u32).rev() {
            let at = table.offset((guest.0 >> (12 + 9 * level) & 0x1ff) * 8);
            let entry = memory.read_u64(at);
            if entry & 7 == 0 {
                return Err((at, level));
            }
            table = HostPhysical(entry & ADDRESS);
        }
        Ok(table.offset((guest.0 >> 12 & 0x1ff) * 8))
    }

    /// The place of the leaf for `guest`, below tables that are made if they are missing.
    fn place_of(
        &mut self,
        memory: &mut PhysicalMemory,
        frames: &mut Frames,
        guest: GuestPhysical,
    ) -> Option<HostPhysical> {
        loop {
            match self.place(memory, guest) {
                Ok(at) => return Some(at),
                Err((missing, _)) => {
                    let table = frames.take(memory, 1)?;
                    self.below.push(table);
                    memory.write_u64(missing, table.0 | 7);
                }
            }
        }
    }

    /// Maps the page of `guest` to that of `host`. `None` if no frame is left for a table.
    pub fn map(
        &mut self,
        memory: &mut PhysicalMemory,
        frames: &mut Frames,
        guest: GuestPhysical,
        host: HostPhysical,
        rights: Rights,
    ) -> Option<()> {
        let at = self.place_of(memory, frames, guest)?;
        if memory.read_u64(at) == 0 {
            self.mapped.push(guest.page_base());
        }
        memory.write_u64(at, self.leaf(host.page_base(), rights));
        Some(())
    }

    /// Makes the leaf for `guest` lead to `host` for a while. Answers the leaf's place and what was there, for whoever
    /// puts it back. `None` if no frame is left for a table.
    pub(crate) fn overlay(
        &mut self,
        memory: &mut PhysicalMemory,
        frames: &mut Frames,
        guest: GuestPhysical,
        host: HostPhysical,
    ) -> Option<(HostPhysical, u64)> {
        let at = self.place_of(memory, frames, guest)?;
        let old = memory.read_u64(at);
        memory.write_u64(at, self.leaf(host, Rights::ALL));
        Some((at, old))
    }

    /// Number of mapped pages.
    pub const fn len(&self) -> usize {
        self.mapped.len()
    }

    /// Whether nothing is mapped.
    pub const fn is_empty(&self) -> bool {
        self.mapped.is_empty()
    }

    /// The page whose leaf was set longest ago.
    pub fn oldest(&self) -> Option<GuestPhysical> {
        self.mapped.first().copied()
    }

    /// Clears the leaf for `guest`. The caller flushes.
    pub fn unmap(&mut self, memory: &mut PhysicalMemory, guest: GuestPhysical) {
        if let Ok(at) = self.place(memory, guest) {
            memory.write_u64(at, 0);
        }
        self.mapped.retain(|page| *page != guest.page_base());
    }

    /// Clears everything below the root. The caller flushes.
    pub fn clear(&mut self, memory: &mut PhysicalMemory, frames: &mut Frames) {
        memory.write(self.root, &[0; 4096]);
        for frame in self.below.drain(..) {
            frames.give_back(frame);
        }
        self.mapped.clear();
    }
}

/// How L1's tables are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest12 {
    /// Whose format.
    pub vendor: Vendor,
    /// Guest-physical address of L1's top level.
    pub root: u64,
    /// Accessed and dirty flags are kept (always for nested paging).
    pub accessed_dirty: bool,
    /// Nested paging: L1's EFER.NXE.
    pub no_execute: bool,
    /// MAXPHYADDR of L1's processor.
    pub physical_width: u8,
}

/// What L2's access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access12 {
    /// Data read.
    pub read: bool,
    /// Data write.
    pub write: bool,
    /// Instruction fetch.
    pub fetch: bool,
}

/// Why L1's tables do not allow an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The tables' entry is malformed (EPT misconfiguration, reserved bit).
    pub malformed: bool,
    /// An entry was found for the page, so that permissions are what is missing.
    pub present: bool,
    /// Permissions, ANDed over all levels; none if the page is not present.
    pub rights: u8,
}

/// Where an L2 page is in L1's memory, and with which rights L0 may map it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped12 {
    /// L1's guest-physical address.
    pub guest: GuestPhysical,
    /// Rights for the shadow: writes only once the dirty flag is set, where there is one.
    pub rights: Rights,
}

impl Guest12 {
    fn malformed(&self, entry: u64, level: u32, leaf: bool) -> bool {
        let beyond = !((1_u64 << self.physical_width) - 1) & ADDRESS;
        let low = match level {
            2 if leaf => 0x3fff_f000,
            1 if leaf => 0x1f_f000,
            _ => 0,
        };
        match self.vendor {
            Vendor::Intel => {
                let bad_type = leaf && matches!(entry >> 3 & 7, 2 | 3 | 7);
                let reserved = if level == 3 {
                    0xf8
                } else if leaf {
                    0
                } else {
                    0x78
                };
                entry & 3 == 2 || bad_type || entry & (beyond | low | reserved) != 0
            }
            Vendor::Amd => {
                // Bit 12 of a large page is its PAT bit.
                let low = low & !0x1000;
                let no_execute = if self.no_execute { 0 } else { NO_EXECUTE };
                let size = if level == 3 { LARGE } else { 0 };
                entry & (beyond | low | no_execute | size) != 0
            }
        }
    }

    fn rights(&self, entry: u64) -> Rights {
        match self.vendor {
            Vendor::Intel => Rights { read: entry & 1 != 0, write: entry & 2 != 0, execute: entry & 4 != 0 },
            Vendor::Amd => {
                // Every access of a guest is a user access for the nested tables.
                let user = entry & 4 != 0;
                Rights { read: user, write: user && entry & 2 != 0, execute: user && entry & NO_EXECUTE == 0 }
            }
        }
    }

    fn present(&self, entry: u64) -> bool {
        match self.vendor {
            Vendor::Intel => entry & 7 != 0,
            Vendor::Amd => entry & 1 != 0,
        }
    }

    /// Walks L1's tables for an access by L2 to `address`, and sets accessed and dirty flags as the processor would.
    ///
    /// # Errors
    /// [`Refused`]: L1 gets the exit.
    pub(super) fn walk(
        &self,
        machine: &mut Machine,
        address: GuestPhysical,
        access: Access12,
    ) -> Result<Mapped12, Refused> {
        let absent = Refused { malformed: false, present: false, rights: 0 };
        if address.0 >> 48 != 0 {
            return Err(absent);
        }
        let mut table = self.root & ADDRESS;
        let mut path = Vec::with_capacity(4);
        let mut rights = Rights::ALL;
        for level in (0..4_u32).rev() {
            let at = table + (address.0 >> (12 + 9 * level) & 0x1ff) * 8;
            let entry = machine.l1().quadword(at).ok_or(absent)?;
            if !self.present(entry) {
                return Err(absent);
            }
            let leaf = level == 0 || entry & LARGE != 0 && level < 3;
            if self.malformed(entry, level, leaf) {
                return Err(Refused { malformed: true, present: true, rights: 0 });
            }
            rights = rights.and(self.rights(entry));
            path.push((at, entry));
            table = entry & ADDRESS;
            if leaf {
                let missing = access.read && !rights.read
                    || access.write && !rights.write
                    || access.fetch && !rights.execute;
                if missing {
                    return Err(Refused { malformed: false, present: true, rights: rights.bits() });
                }
                let dirty = self.mark(machine, &path, access.write);
                let within = (1_u64 << (12 + 9 * level)) - 1;
                let guest = GuestPhysical(table & !within | address.0 & within);
                return Ok(Mapped12 { guest, rights: Rights { write: rights.write && dirty, ..rights } });
            }
        }
        Err(absent)
    }

    /// Sets the flags along the path; whether the leaf is dirty then (true without flags).
    fn mark(&self, machine: &mut Machine, path: &[(u64, u64)], write: bool) -> bool {
        if !self.accessed_dirty {
            return true;
        }
        let (accessed, dirty) = match self.vendor {
            Vendor::Intel => (1 << 8, 1 << 9),
            Vendor::Amd => (1 << 5, 1 << 6),
        };
        let mut is_dirty = false;
        for (index, (at, entry)) in path.iter().enumerate() {
            let leaf = index == path.len() - 1;
            let new = entry | accessed | if leaf && write { dirty } else { 0 };
            if new != *entry
                && let Some(host) = machine.place(GuestPhysical(*at), true)
            {
                machine.board.memory.write_u64(host, new);
            }
            is_dirty = new & dirty != 0;
        }
        is_dirty
    }
}
