//! Nested paging (APM Vol. 2 "Nested Paging"): the host's paging mode at VMRUN, applied to guest-physical addresses.

use super::EntryMemory;
use super::second::{Mapped, Purpose};
use super::tables::{ADDRESS, End, Format, Path, descend, mark, pdpte_reserved};
use super::{AccessKind, PagingMode, SecondRights};
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
    /// Guest mode execute trap: U/S says who may fetch, CPL 3 or the others, and limits no other access
    /// (APM Vol. 2 "Guest Mode Execute Trap Extension").
    pub execute_trap: bool,
    /// 1-GByte pages are supported.
    pub huge_pages: bool,
    /// Physical-address width.
    pub physical_width: u8,
    /// The C-bit of the host's memory encryption, as a mask; 0: entries have none.
    pub c_bit: u64,
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
            if entry & pdpte_reserved(npt.physical_width) & !npt.c_bit != 0 {
                return Err(npt.reserved(guest, purpose, entry));
            }
            walk_from::<true, 2, M>(memory, npt, guest, purpose, entry & ADDRESS & !npt.c_bit, 32)
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
        c_bit: npt.c_bit,
    };
    let path =
        descend::<WIDE, TOP, Infallible, M>(memory, &format, table, guest.0, |_, at| Ok(HostPhysical(at)));
    let path = path.map_err(|end| match end {
        End::Absent(entry) => npt.fault(guest, purpose, 0, entry),
        End::Reserved(entry) => npt.reserved(guest, purpose, entry),
        End::Fault(never) => match never {},
    })?;
    let rights = npt.rights(&path);
    if npt.needs(purpose) & !rights != 0 {
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
const fn permissions(path: &Path) -> u8 {
    1 | (path.write() as u8) << 1 | if path.no_execute { 0 } else { 0b1100 }
}

impl Npt {
    /// What the entries allow: bits as in [`SecondRights`].
    const fn rights(&self, path: &Path) -> u8 {
        let bits = permissions(path);
        if self.execute_trap {
            // Fetches by CPL 3 need U/S, the others its absence.
            let other = if path.user() { 0b0100 } else { 0b1000 };
            bits & !other | SecondRights::BY_PRIVILEGE
        } else if path.user() {
            bits
        } else {
            // Accesses to guest page tables are user writes, and every other access is a user access: entries without
            // U/S refuse it.
            0
        }
    }

    /// The rights that `purpose` needs.
    fn needs(&self, purpose: Purpose) -> u8 {
        match purpose {
            Purpose::Final { kind: AccessKind::Execute, user, .. } if self.execute_trap => {
                if user {
                    0b1000
                } else {
                    0b0100
                }
            }
            _ => purpose.needs(TABLE_IS_WRITE),
        }
    }

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
        let fetch = access.fetch && (no_execute || self.smep || self.execute_trap);
        let supervisor = matches!(purpose, Purpose::Final { user: false, .. });
        let supervisor_fetch = self.execute_trap && access.fetch && supervisor;
        GuestPhysicalAccess { fetch, supervisor_fetch, permissions, entry, ..access }
    }

    #[cold]
    fn reserved(&self, guest: GuestPhysical, purpose: Purpose, entry: u64) -> GuestPhysicalAccess {
        GuestPhysicalAccess { misconfigured: true, ..self.fault(guest, purpose, 1, entry) }
    }
}
