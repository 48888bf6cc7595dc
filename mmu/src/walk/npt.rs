//! Nested paging (APM Vol. 2 "Nested Paging"): the host's paging mode at VMRUN, applied to guest-physical addresses.

use super::EntryMemory;
use super::second::{Mapped, Purpose};
use super::tables::{ADDRESS, End, Format, Path, descend, mark, pdpte_reserved};
use super::{PagingMode, SecondRights};
use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{GuestPhysical, HostPhysical};
use std::convert::Infallible;

/// Nested paging as VMRUN found it: nCR3 and the *host's* paging mode, never the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Npt {
    /// nCR3: the bits of the topmost table's address.
    pub root: HostPhysical,
    /// The host's paging mode at VMRUN. Never [`PagingMode::None`], with which VMRUN refuses nested paging.
    pub mode: PagingMode,
    /// The host's EFER.NXE at VMRUN.
    pub no_execute: bool,
    /// The host's CR4.SMEP at VMRUN: faults say that an access was a fetch although `no_execute` is off.
    pub smep: bool,
    /// 1-GByte pages are supported.
    pub huge_pages: bool,
    /// Physical-address width.
    pub physical_width: u8,
}

/// Accesses to guest page tables count as writes.
const TABLE_IS_WRITE: bool = true;

/// Translates `guest` and sets accessed and dirty flags.
///
/// # Errors
/// The nested page fault. `misconfigured` means reserved bits; `entry` is the one at which the walk ended.
pub(super) fn walk<M: EntryMemory>(
    memory: &mut M,
    npt: &Npt,
    guest: GuestPhysical,
    purpose: Purpose,
) -> Result<Mapped, GuestPhysicalAccess> {
    match npt.mode {
        PagingMode::Level4 => walk_from::<true, 4, M>(memory, npt, guest, purpose, npt.root.0 & ADDRESS, 48),
        PagingMode::Level5 => walk_from::<true, 5, M>(memory, npt, guest, purpose, npt.root.0 & ADDRESS, 57),
        PagingMode::Pae if guest.0 >> 32 == 0 => {
            let at = HostPhysical((npt.root.0 & 0xffff_ffe0) + 8 * (guest.0 >> 30));
            let entry = memory.entry_u64(at);
            if entry & 1 == 0 {
                return Err(npt.fault(guest, purpose, 0, entry));
            }
            if entry & pdpte_reserved(npt.physical_width) != 0 {
                return Err(npt.reserved(guest, purpose, entry));
            }
            walk_from::<true, 2, M>(memory, npt, guest, purpose, entry & ADDRESS, 32)
        }
        PagingMode::Bits32 { .. } => {
            walk_from::<false, 2, M>(memory, npt, guest, purpose, npt.root.0 & 0xffff_f000, 32)
        }
        PagingMode::Pae | PagingMode::None => Err(npt.fault(guest, purpose, 0, 0)),
    }
}

/// Walks from `table`, which has level `TOP`; addresses of more than `width` bits are mapped by nothing.
fn walk_from<const WIDE: bool, const TOP: u8, M: EntryMemory>(
    memory: &mut M,
    npt: &Npt,
    guest: GuestPhysical,
    purpose: Purpose,
    table: u64,
    width: u32,
) -> Result<Mapped, GuestPhysicalAccess> {
    if guest.0 >> width != 0 {
        return Err(npt.fault(guest, purpose, 0, 0));
    }
    let format = Format {
        mode: npt.mode,
        no_execute: npt.no_execute,
        huge_pages: npt.huge_pages,
        top_global_reserved: true,
        physical_width: npt.physical_width,
    };
    let path =
        descend::<WIDE, TOP, Infallible, M>(memory, &format, table, guest.0, |_, at| Ok(HostPhysical(at)));
    let path = path.map_err(|end| match end {
        End::Absent(entry) => npt.fault(guest, purpose, 0, entry),
        End::Reserved(entry) => npt.reserved(guest, purpose, entry),
        End::Fault(never) => match never {},
    })?;
    // Accesses to guest page tables are user writes, and every other access is a user access: entries without U/S
    // refuse it.
    let rights = if path.user() { permissions(&path) } else { 0 };
    if purpose.needs(TABLE_IS_WRITE) & !rights != 0 {
        return Err(npt.fault(guest, purpose, permissions(&path), path.leaf));
    }
    let write = purpose.is_write(TABLE_IS_WRITE);
    if !path.is_marked(write) {
        let Ok(()) =
            mark::<WIDE, Infallible, M>(memory, &format, (table, TOP), guest.0, write, |_, at, _| {
                Ok(HostPhysical(at))
            });
    }
    let rights = SecondRights { bits: rights, dirty: path.dirty() || write };
    Ok(Mapped { host: HostPhysical(path.target), rights, shift: path.shift })
}

/// Read, write, execute and execute by user mode, U/S left aside.
fn permissions(path: &Path) -> u8 {
    1 | u8::from(path.write()) << 1 | if path.no_execute { 0 } else { 0b1100 }
}

impl Npt {
    /// The access as the fault reports it: that it was a fetch only if the host could refuse fetches.
    #[cold]
    fn fault(
        &self,
        guest: GuestPhysical,
        purpose: Purpose,
        permissions: u8,
        entry: u64,
    ) -> GuestPhysicalAccess {
        let no_execute = self.no_execute && !matches!(self.mode, PagingMode::Bits32 { .. });
        let access = purpose.describe(guest, TABLE_IS_WRITE);
        let fetch = access.fetch && (no_execute || self.smep);
        GuestPhysicalAccess { fetch, permissions, entry, ..access }
    }

    #[cold]
    fn reserved(&self, guest: GuestPhysical, purpose: Purpose, entry: u64) -> GuestPhysicalAccess {
        GuestPhysicalAccess { misconfigured: true, ..self.fault(guest, purpose, 1, entry) }
    }
}
