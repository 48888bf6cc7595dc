//! The first stage: 4- and 5-level paging (SDM Vol. 3A "4-Level Paging and 5-Level Paging",
//! APM Vol. 2 "Long-Mode Page Translation").

use super::second::{Purpose, translate_for};
use super::{
    Access, AccessKind, GuestRights, Paging, SecondStage, Translation, WalkFault, error, error_code, refusal,
};
use crate::PhysicalMemory;
use rootmode_arch::{GuestPhysical, HostPhysical, Linear};

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;

/// Where a paging-structure entry was read.
#[derive(Clone, Copy, Default)]
struct Entry {
    guest: GuestPhysical,
    host: HostPhysical,
    value: u64,
}

/// Translates `linear` for `access`, with both stages.
///
/// On success accessed and dirty flags of both stages are up to date.
///
/// # Errors
/// [`WalkFault::Page`] from the first stage, [`WalkFault::SecondStage`] from the second.
pub fn translate(
    memory: &mut PhysicalMemory,
    paging: &Paging,
    second: &SecondStage,
    linear: Linear,
    access: Access,
) -> Result<Translation, WalkFault> {
    if !paging.enabled {
        // Without paging every linear address counts as a writable user-mode one.
        let guest = GuestPhysical(linear.0);
        let rights =
            GuestRights { write: true, user: true, no_execute: false, dirty: true, global: false, key: 0 };
        let purpose = Purpose::Final { linear, kind: access.kind, rights };
        let mapped = translate_for(memory, second, guest, purpose)?;
        return Ok(Translation {
            host: mapped.host,
            guest,
            rights,
            second: mapped.rights,
            guest_shift: 12,
            host_shift: mapped.shift,
        });
    }

    let levels = if paging.five_level { 5 } else { 4 };
    let mut table = paging.cr3.0 & 0x000f_ffff_ffff_f000;
    let mut entries = [Entry::default(); 5];
    let (mut write, mut user, mut no_execute) = (true, true, false);
    let mut level = levels;
    let leaf_level = loop {
        let index = linear.0 >> (12 + 9 * (level - 1)) & 0x1ff;
        let guest = GuestPhysical(table + index * 8);
        let host = translate_for(memory, second, guest, Purpose::Table { linear, update: false })?.host;
        let value = memory.read_u64(host);
        if value & PRESENT == 0 {
            return Err(WalkFault::Page(error_code(paging, access)));
        }
        let leaf = level == 1 || value & PAGE_SIZE != 0 && matches!(level, 2 | 3);
        if value & reserved(paging, level, leaf) != 0 {
            let code = error_code(paging, access) | error::PRESENT | error::RESERVED;
            return Err(WalkFault::Page(code));
        }
        entries[level - 1] = Entry { guest, host, value };
        write &= value & WRITE != 0;
        user &= value & USER != 0;
        no_execute |= value & NO_EXECUTE != 0 && paging.no_execute;
        if leaf {
            break level;
        }
        table = value & 0x000f_ffff_ffff_f000;
        level -= 1;
    };

    let leaf = entries[leaf_level - 1].value;
    let guest_shift = 12 + 9 * (leaf_level as u8 - 1);
    let mut rights = GuestRights {
        write,
        user,
        no_execute,
        dirty: leaf & DIRTY != 0,
        global: leaf & GLOBAL != 0 && paging.global,
        key: (leaf >> 59 & 15) as u8,
    };
    if let Some(code) = refusal(paging, &rights, access) {
        return Err(WalkFault::Page(code));
    }

    for (index, entry) in entries.iter().enumerate().take(levels).skip(leaf_level - 1).rev() {
        let mut value = entry.value | ACCESSED;
        if index == leaf_level - 1 && access.kind == AccessKind::Write {
            value |= DIRTY;
            rights.dirty = true;
        }
        if value != entry.value {
            translate_for(memory, second, entry.guest, Purpose::Table { linear, update: true })?;
            memory.write_u64(entry.host, value);
        }
    }

    let size = 1 << guest_shift;
    let guest = GuestPhysical(leaf & 0x000f_ffff_ffff_f000 & !(size - 1) | linear.0 & (size - 1));
    let purpose = Purpose::Final { linear, kind: access.kind, rights };
    let mapped = translate_for(memory, second, guest, purpose)?;
    Ok(Translation {
        host: mapped.host,
        guest,
        rights,
        second: mapped.rights,
        guest_shift,
        host_shift: mapped.shift,
    })
}

/// Bits that must be 0 in a present entry of `level` (SDM Vol. 3A "Reserved-Bit Checking" under "Page-Fault Exceptions").
fn reserved(paging: &Paging, level: usize, leaf: bool) -> u64 {
    let mut bits = !((1 << paging.physical_width) - 1) & 0x000f_ffff_ffff_f000;
    if !paging.no_execute {
        bits |= NO_EXECUTE;
    }
    match level {
        4 | 5 => bits |= PAGE_SIZE,
        3 if leaf && !paging.huge_pages => bits |= PAGE_SIZE,
        3 if leaf => bits |= 0x3fff_e000,
        2 if leaf => bits |= 0x1f_e000,
        _ => {}
    }
    bits
}
