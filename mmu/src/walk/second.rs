//! The second stage: EPT (SDM Vol. 3C "The Extended Page Table Mechanism (EPT)") and nested paging
//! (APM Vol. 2 "Nested Paging").

use super::{AccessKind, Ept, GuestRights, Npt, SecondRights, SecondStage, WalkFault};
use crate::PhysicalMemory;
use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{GuestPhysical, HostPhysical, Linear};

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PAGE_SIZE: u64 = 1 << 7;

/// Why a guest-physical address is accessed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// The page that a linear address maps to.
    Final { linear: Linear, kind: AccessKind, rights: GuestRights },
    /// A guest paging-structure entry, to read it or to `update` its accessed and dirty flags.
    Table { linear: Linear, update: bool },
    /// Neither: an access that has no linear address (PDPTE loads, APIC pages).
    Direct { kind: AccessKind },
}

/// Where a guest-physical address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) host: HostPhysical,
    pub(super) rights: SecondRights,
    pub(super) shift: u8,
}

/// Translates a guest-physical address that is accessed without a linear one.
///
/// # Errors
/// The access, if the second stage refuses it.
pub fn translate_guest_physical(
    memory: &mut PhysicalMemory,
    second: &SecondStage,
    guest: GuestPhysical,
    kind: AccessKind,
) -> Result<HostPhysical, WalkFault> {
    translate_for(memory, second, guest, Purpose::Direct { kind }).map(|mapped| mapped.host)
}

pub(super) fn translate_for(
    memory: &mut PhysicalMemory,
    second: &SecondStage,
    guest: GuestPhysical,
    purpose: Purpose,
) -> Result<Mapped, WalkFault> {
    match second {
        SecondStage::None => Ok(Mapped { host: guest.identity(), rights: SecondRights::ALL, shift: 48 }),
        SecondStage::Ept(ept) => walk_ept(memory, ept, guest, purpose),
        SecondStage::Npt(npt) => walk_npt(memory, npt, guest, purpose),
    }
}

/// The access as exits report it.
fn describe(guest: GuestPhysical, purpose: Purpose, table_is_write: bool) -> GuestPhysicalAccess {
    let blank = GuestPhysicalAccess { address: guest, ..GuestPhysicalAccess::default() };
    match purpose {
        Purpose::Final { linear, kind, rights } => GuestPhysicalAccess {
            linear: Some(linear),
            read: kind == AccessKind::Read,
            write: kind == AccessKind::Write,
            fetch: kind == AccessKind::Execute,
            user: rights.user,
            linear_writable: rights.write,
            linear_execute_disable: rights.no_execute,
            ..blank
        },
        Purpose::Table { linear, update } => GuestPhysicalAccess {
            linear: Some(linear),
            read: true,
            write: update || table_is_write,
            table_walk: true,
            ..blank
        },
        Purpose::Direct { kind } => GuestPhysicalAccess {
            read: kind == AccessKind::Read,
            write: kind == AccessKind::Write,
            fetch: kind == AccessKind::Execute,
            ..blank
        },
    }
}

/// What the access needs: bits as in [`SecondRights`].
fn needed(access: &GuestPhysicalAccess) -> u8 {
    let execute = if access.user { 8 } else { 4 };
    u8::from(access.read) | u8::from(access.write) << 1 | if access.fetch { execute } else { 0 }
}

fn walk_ept(
    memory: &mut PhysicalMemory,
    ept: &Ept,
    guest: GuestPhysical,
    purpose: Purpose,
) -> Result<Mapped, WalkFault> {
    const ACCESSED: u64 = 1 << 8;
    const DIRTY: u64 = 1 << 9;
    // With accessed and dirty flags on, every access to a guest paging-structure entry counts as a write.
    let mut access = describe(guest, purpose, ept.accessed_dirty);
    let mut table = ept.root.0 & ADDRESS;
    let mut entries = [(HostPhysical(0), 0_u64); 4];
    let mut rights = 0xf_u8;
    let mut level = 4;
    if guest.0 >> 48 != 0 {
        access.permissions = 0;
        return Err(WalkFault::SecondStage(access));
    }
    let leaf_level = loop {
        let at = HostPhysical(table + (guest.0 >> (12 + 9 * (level - 1)) & 0x1ff) * 8);
        let value = memory.read_u64(at);
        let present_mask = if ept.mode_based_execute { 7 | 1 << 10 } else { 7 };
        if value & present_mask == 0 {
            access.permissions = 0;
            return Err(WalkFault::SecondStage(access));
        }
        let leaf = level == 1 || value & PAGE_SIZE != 0;
        if ept_misconfigured(ept, value, level, leaf) {
            return Err(WalkFault::SecondStage(GuestPhysicalAccess {
                entry: value,
                misconfigured: true,
                ..access
            }));
        }
        let user_execute = if ept.mode_based_execute { value >> 10 & 1 } else { value >> 2 & 1 };
        rights &= (value & 7) as u8 | (user_execute as u8) << 3;
        entries[level - 1] = (at, value);
        if leaf {
            break level;
        }
        table = value & ADDRESS;
        level -= 1;
    };
    if needed(&access) & !rights != 0 {
        access.permissions = rights;
        access.entry = entries[leaf_level - 1].1;
        return Err(WalkFault::SecondStage(access));
    }
    let mut dirty = true;
    if ept.accessed_dirty {
        for (index, (at, value)) in entries.iter().enumerate().skip(leaf_level - 1).rev() {
            let leaf = index == leaf_level - 1;
            let new = value | ACCESSED | if leaf && access.write { DIRTY } else { 0 };
            if new != *value {
                memory.write_u64(*at, new);
            }
            if leaf {
                dirty = new & DIRTY != 0;
            }
        }
    }
    Ok(mapped(entries[leaf_level - 1].1, guest, leaf_level, SecondRights { bits: rights, dirty }))
}

/// SDM Vol. 3C "EPT Misconfigurations".
fn ept_misconfigured(ept: &Ept, value: u64, level: usize, leaf: bool) -> bool {
    let readable = value & 1 != 0;
    let write_only = !readable && value & 2 != 0;
    // Execute-only is supported, also by user mode.
    let beyond_width = !((1 << ept.physical_width) - 1) & ADDRESS;
    let reserved = match (level, leaf) {
        (4, _) => 0xf8,
        (3 | 2, false) => 0x78,
        (3, true) => 0x3fff_f000,
        (2, true) => 0x1f_f000,
        _ => 0,
    };
    let huge_unsupported = level == 3 && leaf && !ept.huge_pages;
    let memory_type = value >> 3 & 7;
    let bad_type = leaf && level < 4 && matches!(memory_type, 2 | 3 | 7);
    write_only || value & (beyond_width | reserved) != 0 || huge_unsupported || bad_type
}

fn walk_npt(
    memory: &mut PhysicalMemory,
    npt: &Npt,
    guest: GuestPhysical,
    purpose: Purpose,
) -> Result<Mapped, WalkFault> {
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    const NO_EXECUTE: u64 = 1 << 63;
    // Guest page-table walks are user writes for the nested tables, and so is every access a user access:
    // entries without U/S refuse it.
    let mut access = describe(guest, purpose, true);
    let levels = if npt.five_level { 5 } else { 4 };
    let mut table = npt.root.0 & ADDRESS;
    let mut entries = [(HostPhysical(0), 0_u64); 5];
    let (mut write, mut user, mut no_execute) = (true, true, false);
    if guest.0 >> (12 + 9 * levels) != 0 {
        return Err(WalkFault::SecondStage(access));
    }
    let mut level = levels;
    let leaf_level = loop {
        let at = HostPhysical(table + (guest.0 >> (12 + 9 * (level - 1)) & 0x1ff) * 8);
        let value = memory.read_u64(at);
        if value & 1 == 0 {
            access.permissions = 0;
            return Err(WalkFault::SecondStage(access));
        }
        let leaf = level == 1 || value & PAGE_SIZE != 0 && matches!(level, 2 | 3);
        let mut reserved = !((1 << npt.physical_width) - 1) & ADDRESS;
        if !npt.no_execute {
            reserved |= NO_EXECUTE;
        }
        reserved |= match level {
            4 | 5 => PAGE_SIZE,
            3 if leaf && !npt.huge_pages => PAGE_SIZE,
            3 if leaf => 0x3fff_e000,
            2 if leaf => 0x1f_e000,
            _ => 0,
        };
        if value & reserved != 0 {
            let rights = 1;
            return Err(WalkFault::SecondStage(GuestPhysicalAccess {
                permissions: rights,
                entry: value,
                misconfigured: true,
                ..access
            }));
        }
        entries[level - 1] = (at, value);
        write &= value & 2 != 0;
        user &= value & 4 != 0;
        no_execute |= value & NO_EXECUTE != 0;
        if leaf {
            break level;
        }
        table = value & ADDRESS;
        level -= 1;
    };
    let execute = if no_execute { 0 } else { 0b1100 };
    let rights = if user { 1 | u8::from(write) << 1 | execute } else { 0 };
    if needed(&access) & !rights != 0 {
        access.permissions = 1 | u8::from(write) << 1 | execute;
        access.entry = entries[leaf_level - 1].1;
        return Err(WalkFault::SecondStage(access));
    }
    let mut dirty = false;
    for (index, (at, value)) in entries.iter().enumerate().take(levels).skip(leaf_level - 1).rev() {
        let leaf = index == leaf_level - 1;
        let new = value | ACCESSED | if leaf && access.write { DIRTY } else { 0 };
        if new != *value {
            memory.write_u64(*at, new);
        }
        if leaf {
            dirty = new & DIRTY != 0;
        }
    }
    Ok(mapped(entries[leaf_level - 1].1, guest, leaf_level, SecondRights { bits: rights, dirty }))
}

fn mapped(leaf: u64, guest: GuestPhysical, level: usize, rights: SecondRights) -> Mapped {
    let shift = 12 + 9 * (level as u8 - 1);
    let offset = (1 << shift) - 1;
    Mapped { host: HostPhysical(leaf & ADDRESS & !offset | guest.0 & offset), rights, shift }
}
