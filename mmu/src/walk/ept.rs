//! EPT (SDM Vol. 3C "The Extended Page Table Mechanism (EPT)").

use super::EntryMemory;
use super::SecondRights;
use super::WalkFault;
use super::second::{Mapped, Purpose};
use super::tables::{ADDRESS, beyond};
use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{GuestPhysical, HostPhysical};

const PAGE_SIZE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
const USER_EXECUTE: u64 = 1 << 10;

/// EPT as the EPTP and its controls set it up (SDM Vol. 3C "Extended-Page-Table Pointer (EPTP)").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Ept {
    /// Host-physical address of the topmost table.
    pub root: HostPhysical,
    /// EPTP bits 5:3 are 4: five levels rather than four.
    pub five_level: bool,
    /// Accessed and dirty flags are enabled (EPTP bit 6).
    pub accessed_dirty: bool,
    /// Mode-based execute control.
    pub mode_based_execute: bool,
    /// Entries that allow execution only are supported (IA32_VMX_EPT_VPID_CAP bit 0).
    pub execute_only: bool,
    /// 1-GByte pages are supported (IA32_VMX_EPT_VPID_CAP bit 17).
    pub huge_pages: bool,
    /// MAXPHYADDR.
    pub physical_width: u8,
}

impl Ept {
    /// SDM Vol. 3C "EPT Misconfigurations", of a present entry.
    const fn is_misconfigured(&self, entry: u64, level: u8, leaf: bool) -> bool {
        let readable = entry & 1 != 0;
        let writable = entry & 2 != 0;
        let executable = entry & 4 != 0 || self.mode_based_execute && entry & USER_EXECUTE != 0;
        let permissions = !readable && (writable || executable && !self.execute_only);
        let reserved = match (level, leaf) {
            (4 | 5, _) => 0xf8,
            (2 | 3, false) => 0x78,
            (3, true) if !self.huge_pages => PAGE_SIZE,
            (3, true) => 0x3fff_f000,
            (2, true) => 0x1f_f000,
            _ => 0,
        };
        let memory_type = leaf && matches!(entry >> 3 & 7, 2 | 3 | 7);
        permissions || memory_type || entry & (reserved | beyond(self.physical_width)) != 0
    }
}

/// Translates `guest` and sets accessed and dirty flags.
///
/// # Errors
/// The violation or misconfiguration, or a full page-modification log. `entry` is the one at which the walk ended, present or not; `permissions` are ANDed
/// over all entries used.
pub(super) fn walk<M: EntryMemory>(
    memory: &mut M,
    ept: &Ept,
    guest: GuestPhysical,
    purpose: Purpose,
) -> Result<Mapped, WalkFault> {
    if ept.five_level {
        walk_from::<5, M>(memory, ept, guest, purpose)
    } else {
        walk_from::<4, M>(memory, ept, guest, purpose)
    }
}

fn walk_from<const TOP: u8, M: EntryMemory>(
    memory: &mut M,
    ept: &Ept,
    guest: GuestPhysical,
    purpose: Purpose,
) -> Result<Mapped, WalkFault> {
    // With accessed and dirty flags on, every access to a guest paging-structure entry counts as a write.
    let table_is_write = ept.accessed_dirty;
    if guest.0 >> (12 + 9 * u32::from(TOP)) != 0 {
        return Err(WalkFault::SecondStage(purpose.describe(guest, table_is_write)));
    }
    let present = if ept.mode_based_execute { 7 | USER_EXECUTE } else { 7 };
    let user_execute = if ept.mode_based_execute { 10 } else { 2 };
    let mut table = ept.root.0 & ADDRESS;
    let mut all = !0;
    let mut level = TOP;
    let leaf = loop {
        let entry = memory.entry_u64(place(table, level, guest));
        if entry & present == 0 {
            let access = purpose.describe(guest, table_is_write);
            return Err(WalkFault::SecondStage(GuestPhysicalAccess { entry, ..access }));
        }
        let leaf = level == 1 || entry & PAGE_SIZE != 0;
        if ept.is_misconfigured(entry, level, leaf) {
            let access = purpose.describe(guest, table_is_write);
            return Err(WalkFault::SecondStage(GuestPhysicalAccess { entry, misconfigured: true, ..access }));
        }
        all &= entry;
        if leaf {
            break entry;
        }
        table = entry & ADDRESS;
        level -= 1;
    };
    let rights = (all & 7) as u8 | ((all >> user_execute & 1) as u8) << 3;
    if purpose.needs(table_is_write) & !rights != 0 {
        let access = purpose.describe(guest, table_is_write);
        return Err(WalkFault::SecondStage(GuestPhysicalAccess {
            permissions: rights,
            entry: leaf,
            ..access
        }));
    }
    let write = purpose.is_write(table_is_write);
    if ept.accessed_dirty && (all & ACCESSED == 0 || write && leaf & DIRTY == 0) {
        if write && leaf & DIRTY == 0 && !memory.log_modification(guest) {
            return Err(WalkFault::LogFull);
        }
        mark(memory, ept, guest, (TOP, level), write);
    }
    let shift = 12 + 9 * (level - 1);
    let offset = (1 << shift) - 1;
    let host = HostPhysical(leaf & ADDRESS & !offset | guest.0 & offset);
    let dirty = !ept.accessed_dirty || write || leaf & DIRTY != 0;
    Ok(Mapped { host, rights: SecondRights { bits: rights, dirty }, shift })
}

/// Goes the way from level `levels.0` to the leaf at `levels.1` once more, and sets accessed flags, and for a write the
/// leaf's dirty flag.
#[cold]
fn mark<M: EntryMemory>(memory: &mut M, ept: &Ept, guest: GuestPhysical, levels: (u8, u8), write: bool) {
    let mut table = ept.root.0 & ADDRESS;
    for level in (levels.1..=levels.0).rev() {
        let at = place(table, level, guest);
        let entry = memory.entry_u64(at);
        let flags = if write && level == levels.1 { ACCESSED | DIRTY } else { ACCESSED };
        if entry & flags != flags {
            memory.set_entry_u64(at, entry | flags);
        }
        table = entry & ADDRESS;
    }
}

/// Where the entry of `level` for `guest` is.
const fn place(table: u64, level: u8, guest: GuestPhysical) -> HostPhysical {
    HostPhysical(table + (guest.0 >> (12 + 9 * (level - 1)) & 0x1ff) * 8)
}
