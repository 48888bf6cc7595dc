//! The second stage as the manuals tell it (SDM Vol. 3C (326019-083, Mar 2024) "The Extended Page Table Mechanism (EPT)";
//! APM Vol. 2 (24593 rev. 3.42, Mar 2024) "Nested Paging").

use crate::oracle::{Chain, Shape, Used, chain, frame, rows};
use crate::world::{World, bit, field};
use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{GuestPhysical, HostPhysical, Linear};
use rootmode_mmu::walk::{GuestRights, SecondRights};
use rootmode_mmu::{Access, AccessKind, Ept, Npt, PagingMode, SecondStage, WalkFault};

/// Where the guest-physical page of a linear address is, with rights and log2 of the page's size.
pub(crate) fn page(
    world: &mut World,
    stage: &SecondStage,
    guest: u64,
    linear: Linear,
    by: Access,
    rights: GuestRights,
) -> Result<(u64, SecondRights, u8), WalkFault> {
    let kind = by.kind;
    let fetch = kind == AccessKind::Execute;
    let traps = matches!(stage, SecondStage::Npt(npt) if npt.execute_trap);
    let access = GuestPhysicalAccess {
        address: GuestPhysical(guest),
        linear: Some(linear),
        read: kind == AccessKind::Read || kind == AccessKind::ShadowStackRead,
        write: kind == AccessKind::Write || kind == AccessKind::ShadowStackWrite,
        fetch,
        user: rights.user,
        supervisor_fetch: traps && fetch && !by.user,
        linear_writable: rights.write,
        linear_execute_disable: rights.no_execute,
        ..GuestPhysicalAccess::default()
    };
    walk(world, stage, access).map_err(WalkFault::SecondStage)
}

/// Where a guest paging-structure entry is, to read it or to set flags in it.
pub(crate) fn table(
    world: &mut World,
    stage: &SecondStage,
    guest: u64,
    linear: Linear,
    sets_flags: bool,
) -> Result<u64, WalkFault> {
    let treated_as_write = match stage {
        SecondStage::None => false,
        SecondStage::Ept(ept) => ept.accessed_dirty,
        SecondStage::Npt(_) => true,
    };
    let access = GuestPhysicalAccess {
        address: GuestPhysical(guest),
        linear: Some(linear),
        read: true,
        write: sets_flags || treated_as_write,
        table_walk: true,
        ..GuestPhysicalAccess::default()
    };
    walk(world, stage, access).map(|found| found.0).map_err(WalkFault::SecondStage)
}

fn walk(
    world: &mut World,
    stage: &SecondStage,
    access: GuestPhysicalAccess,
) -> Result<(u64, SecondRights, u8), GuestPhysicalAccess> {
    match stage {
        SecondStage::None => Ok((access.address.0, SecondRights { bits: 15, dirty: true }, 48)),
        SecondStage::Ept(ept) => extended(world, ept, access),
        SecondStage::Npt(npt) => nested(world, npt, access),
    }
}

/// "EPT Misconfigurations".
fn is_misconfigured(ept: &Ept, entry: u64, low: u32, maps_page: bool) -> bool {
    let user_execute = ept.mode_based_execute && bit(entry, 10);
    let permissions = match (bit(entry, 0), bit(entry, 1), bit(entry, 2) || user_execute) {
        (false, true, _) => true,
        (false, false, true) => !ept.execute_only,
        _ => false,
    };
    let reserved = match (low, maps_page) {
        (48 | 39, _) => field(entry, 7, 3) != 0,
        (30, true) => !ept.huge_pages || field(entry, 29, 12) != 0,
        (21, true) => field(entry, 20, 12) != 0,
        (30 | 21, false) => field(entry, 6, 3) != 0,
        _ => false,
    };
    let width = u32::from(ept.physical_width);
    let too_wide = width < 52 && field(entry, 51, width) != 0;
    let memory_type = maps_page && [2, 3, 7].contains(&field(entry, 5, 3));
    permissions || reserved || too_wide || memory_type
}

fn extended(
    world: &mut World,
    ept: &Ept,
    access: GuestPhysicalAccess,
) -> Result<(u64, SecondRights, u8), GuestPhysicalAccess> {
    let guest = access.address.0;
    let mode = if ept.five_level { PagingMode::Level5 } else { PagingMode::Level4 };
    let limit = if ept.five_level { 57 } else { 48 };
    if field(guest, 63, limit) != 0 {
        return Err(access);
    }
    let mut table = ept.root.0;
    let mut used: Vec<(u64, u64)> = Vec::with_capacity(5);
    let mut low = 0;
    for &(high, bottom) in rows(mode) {
        low = bottom;
        let place = table + 8 * field(guest, high, low);
        let entry = world.entry(place, 8);
        let present = field(entry, 2, 0) != 0 || ept.mode_based_execute && bit(entry, 10);
        if !present {
            return Err(GuestPhysicalAccess { entry, ..access });
        }
        let maps_page = low == 12 || bit(entry, 7);
        if is_misconfigured(ept, entry, low, maps_page) {
            return Err(GuestPhysicalAccess { entry, misconfigured: true, ..access });
        }
        used.push((place, entry));
        if maps_page {
            break;
        }
        table = field(entry, 51, 12) << 12;
    }
    let every = |n| used.iter().all(|(_, entry)| bit(*entry, n));
    let (read, write, execute) = (every(0), every(1), every(2));
    let user_execute = every(if ept.mode_based_execute { 10 } else { 2 });
    let bits = u8::from(read) + 2 * u8::from(write) + 4 * u8::from(execute) + 8 * u8::from(user_execute);
    let (_, leaf) = *used.last().unwrap();
    let fetch_allowed = if access.user { user_execute } else { execute };
    if access.read && !read || access.write && !write || access.fetch && !fetch_allowed {
        return Err(GuestPhysicalAccess { permissions: bits, entry: leaf, ..access });
    }
    let mut dirty = true;
    if ept.accessed_dirty {
        for (place, _) in &used {
            world.set(*place, 8);
        }
        if access.write {
            world.set(used.last().unwrap().0, 9);
        }
        dirty = access.write || bit(leaf, 9);
    }
    let host = frame(leaf, low, 8) | field(guest, low - 1, 0);
    Ok((host, SecondRights { bits, dirty }, low as u8))
}

fn nested(
    world: &mut World,
    npt: &Npt,
    access: GuestPhysicalAccess,
) -> Result<(u64, SecondRights, u8), GuestPhysicalAccess> {
    let guest = access.address.0;
    // "I/D" of the error code follows the host's EFER.NXE and CR4.SMEP.
    let size = if matches!(npt.mode, PagingMode::Bits32 { .. }) { 4 } else { 8 };
    let says_fetch = npt.smep || npt.execute_trap || npt.no_execute && size == 8;
    let report =
        |access: GuestPhysicalAccess| GuestPhysicalAccess { fetch: access.fetch && says_fetch, ..access };
    let not_present = |entry| report(GuestPhysicalAccess { entry, ..access });
    let reserved =
        |entry| report(GuestPhysicalAccess { entry, permissions: 1, misconfigured: true, ..access });
    let limit = match npt.mode {
        PagingMode::Level5 => 57,
        PagingMode::Level4 => 48,
        _ => 32,
    };
    if field(guest, 63, limit) != 0 {
        return Err(not_present(0));
    }
    let table = match npt.mode {
        PagingMode::Pae => {
            let raw = world.entry((npt.root.0 >> 5 << 5) + 8 * field(guest, 31, 30), 8);
            let entry = raw & !npt.c_bit;
            if !bit(entry, 0) {
                return Err(not_present(raw));
            }
            if field(entry, 2, 1) != 0
                || field(entry, 8, 5) != 0
                || field(entry, 63, npt.physical_width.into()) != 0
            {
                return Err(reserved(raw));
            }
            field(entry, 51, 12) << 12
        }
        _ => npt.root.0 >> 12 << 12,
    };
    let shape = Shape {
        mode: npt.mode,
        xd_enabled: npt.no_execute,
        gigabyte_pages: npt.huge_pages,
        amd: true,
        width: npt.physical_width.into(),
        c_bit: npt.c_bit,
    };
    let used: Vec<Used> = match chain(world, &shape, rows(npt.mode), size, table, guest, |_, at| Ok(at)) {
        Chain::Page(used) => used,
        Chain::NotPresent(entry) => return Err(not_present(entry)),
        Chain::Reserved(entry) => return Err(reserved(entry)),
        Chain::Refused(_) => unreachable!("host-physical places are always reached"),
    };
    let writable = used.iter().all(|e| bit(e.value, 1));
    let user = used.iter().all(|e| bit(e.value, 2));
    let executable = used.iter().all(|e| !bit(e.value, 63));
    let bits = 1 + 2 * u8::from(writable) + 12 * u8::from(executable);
    let leaf = *used.last().unwrap();
    // Guest mode execute trap: U/S speaks about fetches alone, and of the two kinds lets one through.
    let refused = if npt.execute_trap { access.fetch && user == access.supervisor_fetch } else { !user };
    if refused || access.write && !writable || access.fetch && !executable {
        return Err(report(GuestPhysicalAccess { permissions: bits, entry: leaf.raw, ..access }));
    }
    for entry in &used {
        world.set(entry.host, 5);
    }
    if access.write {
        world.set(leaf.host, 6);
    }
    let dirty = access.write || bit(leaf.value, 6);
    let bits = match (npt.execute_trap, user) {
        (false, _) => bits,
        (true, true) => 16 | bits & 0b1011,
        (true, false) => 16 | bits & 0b0111,
    };
    let host = frame(leaf.value, leaf.low, leaf.size) | field(guest, leaf.low - 1, 0);
    Ok((host, SecondRights { bits, dirty }, leaf.low as u8))
}

/// EPT over the tables at `root` that forbids nothing by its configuration.
pub(crate) fn ept(root: u64) -> Ept {
    Ept {
        root: HostPhysical(root),
        five_level: false,
        accessed_dirty: false,
        mode_based_execute: false,
        execute_only: true,
        huge_pages: true,
        physical_width: 46,
    }
}
