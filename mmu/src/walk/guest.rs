//! The first stage: linear to guest-physical in every paging mode (SDM Vol. 3A, chapter "Paging";
//! APM Vol. 2 "Page Translation and Protection").

use super::EntryMemory;
use super::access::error_code;
use super::second::{Purpose, SecondStage, translate_for};
use super::tables::{ADDRESS, End, Format, descend, mark, pdpte_reserved};
use super::{Access, GuestRights, Paging, PagingMode, Translation, WalkFault, error, refusal};
use rootmode_arch::{GuestPhysical, Linear};
use std::convert::Infallible;

/// Translates `linear` for `access`, with both stages.
///
/// On success accessed and dirty flags of both stages are up to date. Outside 4- and 5-level paging only bits 31:0 of
/// `linear` count; in them it is canonical.
///
/// # Errors
/// [`WalkFault::Page`] from the first stage, [`WalkFault::SecondStage`] from the second.
#[inline]
pub fn translate<M: EntryMemory>(
    memory: &mut M,
    paging: &Paging,
    second: &SecondStage,
    linear: Linear,
    access: Access,
) -> Result<Translation, WalkFault> {
    match paging.mode {
        PagingMode::Level4 => {
            walk::<true, 4, M>(memory, paging, second, linear, access, paging.cr3.0 & ADDRESS)
        }
        PagingMode::Level5 => {
            walk::<true, 5, M>(memory, paging, second, linear, access, paging.cr3.0 & ADDRESS)
        }
        PagingMode::Pae => {
            let entry = pdpte(memory, paging, second, linear, access)?;
            walk::<true, 2, M>(memory, paging, second, linear, access, entry & ADDRESS)
        }
        PagingMode::Bits32 { .. } => {
            walk::<false, 2, M>(memory, paging, second, linear, access, paging.cr3.0 & 0xffff_f000)
        }
        PagingMode::None => {
            // Every linear address counts as a writable user-mode one (SDM Vol. 3C "EPT Violations").
            let rights = GuestRights {
                write: true,
                user: true,
                no_execute: false,
                dirty: true,
                shadow_stack: false,
                global: false,
                key: 0,
            };
            let guest = GuestPhysical(linear.0 & 0xffff_ffff);
            finish(memory, second, linear, access, guest, 12, rights)
        }
    }
}

/// The present PDPTE for `linear`: from the registers, or with nested paging from memory, where reserved bits then
/// cause page faults (APM Vol. 2 "Nested Paging", on legacy PAE mode).
fn pdpte<M: EntryMemory>(
    memory: &mut M,
    paging: &Paging,
    second: &SecondStage,
    linear: Linear,
    access: Access,
) -> Result<u64, WalkFault> {
    let index = linear.0 >> 30 & 3;
    let entry = match second {
        SecondStage::Npt(_) => {
            let at = GuestPhysical((paging.cr3.0 & 0xffff_ffe0) + 8 * index);
            let host = translate_for(memory, second, at, Purpose::Table { linear, update: false })?.host;
            memory.entry_u64(host)
        }
        SecondStage::None | SecondStage::Ept(_) => paging.pdptes[index as usize],
    };
    if entry & 1 == 0 {
        return Err(absent(paging, access));
    }
    if entry & pdpte_reserved(paging.physical_width) & !paging.c_bit != 0 {
        return Err(reserved(paging, access));
    }
    Ok(entry & !paging.c_bit)
}

/// #PF: an entry is not present.
#[cold]
fn absent(paging: &Paging, access: Access) -> WalkFault {
    WalkFault::Page(error_code(paging, access))
}

/// #PF: an entry that is present has a reserved bit set.
#[cold]
fn reserved(paging: &Paging, access: Access) -> WalkFault {
    WalkFault::Page(error_code(paging, access) | error::PRESENT | error::RESERVED)
}

/// Walks the tables from the one at `table`, which has level `TOP`.
#[inline]
fn walk<const WIDE: bool, const TOP: u8, M: EntryMemory>(
    memory: &mut M,
    paging: &Paging,
    second: &SecondStage,
    linear: Linear,
    access: Access,
    table: u64,
) -> Result<Translation, WalkFault> {
    let format = Format {
        mode: paging.mode,
        no_execute: paging.no_execute,
        huge_pages: paging.huge_pages,
        top_global_reserved: paging.top_global_reserved,
        physical_width: paging.physical_width,
        c_bit: paging.c_bit,
    };
    // Bits above 31 matter in long modes only, and the indices of the others do not reach them.
    let address = linear.0;
    let path = match second {
        SecondStage::None => descend::<WIDE, TOP, Infallible, M>(memory, &format, table, address, |_, at| {
            Ok(GuestPhysical(at).identity())
        })
        .map_err(|end| match end {
            End::Absent(_) => absent(paging, access),
            End::Reserved(_) => reserved(paging, access),
            End::Fault(never) => match never {},
        }),
        _ => descend::<WIDE, TOP, WalkFault, M>(memory, &format, table, address, |memory, at| {
            let purpose = Purpose::Table { linear, update: false };
            translate_for(memory, second, GuestPhysical(at), purpose).map(|mapped| mapped.host)
        })
        .map_err(|end| match end {
            End::Absent(_) => absent(paging, access),
            End::Reserved(_) => reserved(paging, access),
            End::Fault(fault) => fault,
        }),
    }?;
    let write = access.kind.is_write();
    let rights = GuestRights {
        write: path.write(),
        user: path.user(),
        no_execute: path.no_execute,
        dirty: path.dirty() || write,
        shadow_stack: path.shadow_stack(),
        global: path.global() && paging.global,
        key: path.key(),
    };
    if let Some(code) = refusal(paging, &rights, access) {
        return Err(WalkFault::Page(code));
    }
    if !path.is_marked(write) {
        mark::<WIDE, WalkFault, M>(memory, &format, (table, TOP), address, write, |memory, at, update| {
            let purpose = Purpose::Table { linear, update };
            translate_for(memory, second, GuestPhysical(at), purpose).map(|mapped| mapped.host)
        })?;
    }
    finish(memory, second, linear, access, GuestPhysical(path.target), path.shift, rights)
}

/// The second stage of the page itself.
#[inline]
fn finish<M: EntryMemory>(
    memory: &mut M,
    second: &SecondStage,
    linear: Linear,
    access: Access,
    guest: GuestPhysical,
    guest_shift: u8,
    rights: GuestRights,
) -> Result<Translation, WalkFault> {
    let purpose = Purpose::Final { linear, kind: access.kind, rights, user: access.user };
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
