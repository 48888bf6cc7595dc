//! The first stage as the manual tells it, one sentence a line (SDM Vol. 3A (325384-083, Mar 2024), chapter "Paging").

use crate::second;
use crate::world::{World, bit, field};
use rootmode_arch::{GuestPhysical, HostPhysical, Linear};
use rootmode_mmu::walk::{GuestRights, SecondRights};
use rootmode_mmu::{Access, AccessKind, Paging, PagingMode, SecondStage, Translation, WalkFault};

/// One entry that is used: where it is (guest-physical and host-physical), its contents, and the lowest bit of the
/// linear address that selects it (48 for a PML5E ... 12 for a PTE, 22 for a PDE of 32-bit paging).
#[derive(Clone, Copy)]
pub(crate) struct Used {
    pub(crate) guest: u64,
    pub(crate) host: u64,
    /// Without the C-bit.
    pub(crate) value: u64,
    pub(crate) raw: u64,
    pub(crate) low: u32,
    pub(crate) size: usize,
}

/// What makes bits reserved.
pub(crate) struct Shape {
    pub(crate) mode: PagingMode,
    pub(crate) xd_enabled: bool,
    pub(crate) gigabyte_pages: bool,
    pub(crate) amd: bool,
    pub(crate) width: u32,
    /// The C-bit as a mask: entries are seen without it.
    pub(crate) c_bit: u64,
}

/// How a chain of entries ends.
pub(crate) enum Chain {
    Page(Vec<Used>),
    NotPresent(u64),
    Reserved(u64),
    Refused(WalkFault),
}

/// "Bit 7 selects whether the entry maps a page" for those entries that have such a bit.
fn maps_page(shape: &Shape, entry: u64, low: u32) -> bool {
    match low {
        12 => true,
        21 | 30 => bit(entry, 7),
        22 => bit(entry, 7) && shape.mode == PagingMode::Bits32 { pse: true },
        _ => false,
    }
}

/// Tables "Format of ... Entry": the rows "Reserved (must be 0)".
fn has_reserved_bit(shape: &Shape, entry: u64, low: u32, size: usize) -> bool {
    let page = maps_page(shape, entry, low);
    if size == 4 {
        let m = shape.width.min(40);
        return low == 22 && page && field(entry, 21, m - 19) != 0;
    }
    let pae = shape.mode == PagingMode::Pae;
    shape.width < 52 && field(entry, 51, shape.width) != 0
        || !shape.xd_enabled && bit(entry, 63)
        || pae && field(entry, 62, 52) != 0
        || (low == 48 || low == 39) && (bit(entry, 7) || shape.amd && bit(entry, 8))
        || low == 30 && page && (!shape.gigabyte_pages || field(entry, 29, 13) != 0)
        || low == 21 && page && field(entry, 20, 13) != 0
}

/// The physical address of the page frame that `entry` maps.
pub(crate) fn frame(entry: u64, low: u32, size: usize) -> u64 {
    match (low, size) {
        (22, _) => field(entry, 20, 13) << 32 | field(entry, 31, 22) << 22,
        (12, 4) => field(entry, 31, 12) << 12,
        _ => field(entry, 51, low) << low,
    }
}

/// Follows the tables; `reach` says where a guest-physical place is.
pub(crate) fn chain(
    world: &mut World,
    shape: &Shape,
    rows: &[(u32, u32)],
    size: usize,
    mut table: u64,
    address: u64,
    mut reach: impl FnMut(&mut World, u64) -> Result<u64, WalkFault>,
) -> Chain {
    let mut used = Vec::with_capacity(5);
    for &(high, low) in rows {
        let guest = table + field(address, high, low) * size as u64;
        let host = match reach(world, guest) {
            Ok(host) => host,
            Err(fault) => return Chain::Refused(fault),
        };
        let raw = world.entry(host, size);
        let value = if size == 8 { raw & !shape.c_bit } else { raw };
        if !bit(value, 0) {
            return Chain::NotPresent(raw);
        }
        if has_reserved_bit(shape, value, low, size) {
            return Chain::Reserved(raw);
        }
        used.push(Used { guest, host, value, raw, low, size });
        if maps_page(shape, value, low) {
            break;
        }
        table = if size == 4 { field(value, 31, 12) << 12 } else { field(value, 51, 12) << 12 };
    }
    Chain::Page(used)
}

/// Index fields of the linear address, from the top table down.
pub(crate) fn rows(mode: PagingMode) -> &'static [(u32, u32)] {
    match mode {
        PagingMode::None => &[],
        PagingMode::Bits32 { .. } => &[(31, 22), (21, 12)],
        PagingMode::Pae => &[(29, 21), (20, 12)],
        PagingMode::Level4 => &[(47, 39), (38, 30), (29, 21), (20, 12)],
        PagingMode::Level5 => &[(56, 48), (47, 39), (38, 30), (29, 21), (20, 12)],
    }
}

const fn is_write(access: Access) -> bool {
    matches!(access.kind, AccessKind::Write | AccessKind::ShadowStackWrite)
}

const fn is_shadow_stack(access: Access) -> bool {
    matches!(access.kind, AccessKind::ShadowStackRead | AccessKind::ShadowStackWrite)
}

/// What the entries of a chain say together.
#[derive(Clone, Copy)]
pub(crate) struct Together {
    pub(crate) user_page: bool,
    pub(crate) writable: bool,
    pub(crate) execute_disable: bool,
    pub(crate) shadow_stack_page: bool,
    pub(crate) key: u8,
}

pub(crate) fn together(mode: PagingMode, values: &[u64]) -> Together {
    let (leaf, above) = values.split_last().unwrap();
    Together {
        user_page: values.iter().all(|e| bit(*e, 2)),
        writable: values.iter().all(|e| bit(*e, 1)),
        execute_disable: values.iter().any(|e| bit(*e, 63)),
        shadow_stack_page: !bit(*leaf, 1) && bit(*leaf, 6) && above.iter().all(|e| bit(*e, 1)),
        key: if mode.is_long() { field(*leaf, 62, 59) as u8 } else { 0 },
    }
}

/// "Determination of Access Rights", without protection keys.
fn permitted(p: &Paging, page: Together, access: Access) -> bool {
    let smap_allows = !p.smap || access.smap_override;
    match (access.user, access.kind, page.user_page) {
        (false, AccessKind::Read, false) => true,
        (false, AccessKind::Read, true) => smap_allows,
        (false, AccessKind::Write, false) => !p.write_protect || page.writable,
        (false, AccessKind::Write, true) => smap_allows && (!p.write_protect || page.writable),
        (false, AccessKind::Execute, false) => !page.execute_disable,
        (false, AccessKind::Execute, true) => !p.smep && !page.execute_disable,
        (false, _, user_page) => !user_page && page.shadow_stack_page,
        (true, _, false) => false,
        (true, AccessKind::Read, true) => true,
        (true, AccessKind::Write, true) => page.writable,
        (true, AccessKind::Execute, true) => !page.execute_disable,
        (true, _, true) => page.shadow_stack_page,
    }
}

/// "Protection Keys".
fn key_permits(p: &Paging, page: Together, access: Access) -> bool {
    let applies = p.mode.is_long() && if page.user_page { p.protection_keys } else { p.supervisor_keys };
    let register = if page.user_page { p.pkru } else { p.pkrs };
    let access_disable = bit(register.into(), 2 * u32::from(page.key));
    let write_disable = bit(register.into(), 2 * u32::from(page.key) + 1);
    if !applies || access.kind == AccessKind::Execute {
        true
    } else if access_disable {
        false
    } else {
        !(write_disable && is_write(access) && (access.user || p.write_protect))
    }
}

/// The error code without P, RSVD and PK ("Page-Fault Exceptions").
pub(crate) fn code(p: &Paging, access: Access) -> u32 {
    let entries_have_bit_63 = !matches!(p.mode, PagingMode::Bits32 { .. });
    let fetch = access.kind == AccessKind::Execute && (p.smep || entries_have_bit_63 && p.no_execute);
    [(is_write(access), 2), (access.user, 4), (fetch, 16), (is_shadow_stack(access), 64)]
        .into_iter()
        .filter_map(|(on, bit)| on.then_some(bit))
        .sum()
}

/// The error code of a protection violation, if there is one.
pub(crate) fn violation(p: &Paging, page: Together, access: Access) -> Option<u32> {
    let key = key_permits(p, page, access);
    if permitted(p, page, access) && key {
        return None;
    }
    Some(code(p, access) | 1 | if key { 0 } else { 32 })
}

/// Translates, and sets accessed and dirty flags in `world`.
pub(crate) fn translate(
    world: &mut World,
    p: &Paging,
    stage: &SecondStage,
    linear: u64,
    access: Access,
) -> Result<Translation, WalkFault> {
    let name = Linear(linear);
    let found = |guest: u64, guest_shift: u32, rights, host: u64, second: SecondRights, host_shift| {
        let guest_shift = guest_shift as u8;
        Translation {
            host: HostPhysical(host),
            guest: GuestPhysical(guest),
            rights,
            second,
            guest_shift,
            host_shift,
        }
    };
    if p.mode == PagingMode::None {
        let everything = GuestRights {
            write: true,
            user: true,
            no_execute: false,
            dirty: true,
            shadow_stack: false,
            global: false,
            key: 0,
        };
        let guest = field(linear, 31, 0);
        let (host, second, shift) = second::page(world, stage, guest, name, access, everything)?;
        return Ok(found(guest, 12, everything, host, second, shift));
    }
    let size = if matches!(p.mode, PagingMode::Bits32 { .. }) { 4 } else { 8 };
    let table = match p.mode {
        PagingMode::Bits32 { .. } => field(p.cr3.0, 31, 12) << 12,
        PagingMode::Pae => {
            let entry = if let SecondStage::Npt(_) = stage {
                let place = (field(p.cr3.0, 31, 5) << 5) + 8 * field(linear, 31, 30);
                let host = second::table(world, stage, place, name, false)?;
                world.entry(host, 8)
            } else {
                p.pdptes[field(linear, 31, 30) as usize]
            } & !p.c_bit;
            if !bit(entry, 0) {
                return Err(WalkFault::Page(code(p, access)));
            }
            if field(entry, 2, 1) != 0
                || field(entry, 8, 5) != 0
                || field(entry, 63, p.physical_width.into()) != 0
            {
                return Err(WalkFault::Page(code(p, access) | 9));
            }
            field(entry, 51, 12) << 12
        }
        _ => field(p.cr3.0, 51, 12) << 12,
    };
    let shape = Shape {
        mode: p.mode,
        xd_enabled: p.no_execute,
        gigabyte_pages: p.huge_pages,
        amd: p.top_global_reserved,
        width: p.physical_width.into(),
        c_bit: p.c_bit,
    };
    let reach = |world: &mut World, place| second::table(world, stage, place, name, false);
    let used = match chain(world, &shape, rows(p.mode), size, table, linear, reach) {
        Chain::Page(used) => used,
        Chain::NotPresent(_) => return Err(WalkFault::Page(code(p, access))),
        Chain::Reserved(_) => return Err(WalkFault::Page(code(p, access) | 9)),
        Chain::Refused(fault) => return Err(fault),
    };
    let values: Vec<u64> = used.iter().map(|e| e.value).collect();
    let page = together(p.mode, &values);
    if let Some(code) = violation(p, page, access) {
        return Err(WalkFault::Page(code));
    }
    let leaf = *used.last().unwrap();
    for (n, entry) in used.iter().enumerate() {
        let dirties = is_write(access) && n == used.len() - 1;
        let now = world.entry(entry.host, entry.size);
        if !bit(now, 5) || dirties && !bit(now, 6) {
            second::table(world, stage, entry.guest, name, true)?;
            world.set(entry.host, 5);
            if dirties {
                world.set(entry.host, 6);
            }
        }
    }
    let rights = GuestRights {
        write: page.writable,
        user: page.user_page,
        no_execute: page.execute_disable,
        dirty: bit(leaf.value, 6) || is_write(access),
        shadow_stack: page.shadow_stack_page,
        global: bit(leaf.value, 8) && p.global,
        key: page.key,
    };
    let guest = frame(leaf.value, leaf.low, leaf.size) | field(linear, leaf.low - 1, 0);
    let (host, second, shift) = second::page(world, stage, guest, name, access, rights)?;
    Ok(found(guest, leaf.low, rights, host, second, shift))
}
