//! Nested paging (APM Vol. 2 "Nested Paging"): the host's paging mode at VMRUN, applied to guest-physical addresses.

use super::second::{Mapped, Purpose, describe, needed};
use super::tables::{ADDRESS, End, Format, Path, descend, pdpte_reserved};
use super::{PagingMode, SecondRights};
use crate::PhysicalMemory;
use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{GuestPhysical, HostPhysical};

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

/// Translates `guest` and sets accessed and dirty flags.
///
/// # Errors
/// The nested page fault. `misconfigured` means reserved bits; `entry` is the one at which the walk ended.
pub(super) fn walk(
    memory: &mut PhysicalMemory,
    npt: &Npt,
    guest: GuestPhysical,
    purpose: Purpose,
) -> Result<Mapped, GuestPhysicalAccess> {
    // Accesses to guest page tables are user writes, and every other access is a user access: entries without U/S
    // refuse it.
    let access = describe(guest, purpose, true);
    match npt.mode {
        PagingMode::Level4 => walk_from::<true>(memory, npt, guest, access, npt.root.0 & ADDRESS, 4, 48),
        PagingMode::Level5 => walk_from::<true>(memory, npt, guest, access, npt.root.0 & ADDRESS, 5, 57),
        PagingMode::Pae if guest.0 >> 32 == 0 => {
            let at = HostPhysical((npt.root.0 & 0xffff_ffe0) + 8 * (guest.0 >> 30));
            let entry = memory.read_u64(at);
            if entry & 1 == 0 {
                return Err(npt.fault(GuestPhysicalAccess { entry, ..access }));
            }
            if entry & pdpte_reserved(npt.physical_width) != 0 {
                return Err(npt.reserved(entry, access));
            }
            walk_from::<true>(memory, npt, guest, access, entry & ADDRESS, 2, 32)
        }
        PagingMode::Bits32 { .. } => {
            walk_from::<false>(memory, npt, guest, access, npt.root.0 & 0xffff_f000, 2, 32)
        }
        PagingMode::Pae | PagingMode::None => Err(npt.fault(access)),
    }
}

/// Walks from `table`, which has level `top`; addresses of more than `width` bits are mapped by nothing.
fn walk_from<const WIDE: bool>(
    memory: &mut PhysicalMemory,
    npt: &Npt,
    guest: GuestPhysical,
    access: GuestPhysicalAccess,
    table: u64,
    top: u8,
    width: u32,
) -> Result<Mapped, GuestPhysicalAccess> {
    if guest.0 >> width != 0 {
        return Err(npt.fault(access));
    }
    let format = Format {
        mode: npt.mode,
        no_execute: npt.no_execute,
        huge_pages: npt.huge_pages,
        top_global_reserved: true,
        physical_width: npt.physical_width,
    };
    let path = descend::<WIDE>(memory, &format, table, top, guest.0, |_, at| Ok(HostPhysical(at)));
    let path = path.map_err(|end| match end {
        End::Absent(entry) => npt.fault(GuestPhysicalAccess { entry, ..access }),
        End::Reserved(entry) => npt.reserved(entry, access),
        End::Fault(_) => npt.fault(access),
    })?;
    let rights = if path.user() { permissions(&path) } else { 0 };
    if needed(&access) & !rights != 0 {
        let refused = GuestPhysicalAccess { permissions: permissions(&path), entry: path.leaf, ..access };
        return Err(npt.fault(refused));
    }
    if !path.is_marked(access.write) {
        path.mark::<WIDE>(memory, access.write, |_, _| Ok(())).map_err(|_| npt.fault(access))?;
    }
    let rights = SecondRights { bits: rights, dirty: path.dirty() || access.write };
    Ok(Mapped { host: HostPhysical(path.target), rights, shift: path.shift })
}

/// Read, write, execute and execute by user mode, U/S left aside.
fn permissions(path: &Path) -> u8 {
    1 | u8::from(path.write()) << 1 | if path.no_execute { 0 } else { 0b1100 }
}

impl Npt {
    /// The access as the fault reports it: that it was a fetch only if the host could refuse fetches.
    fn fault(&self, access: GuestPhysicalAccess) -> GuestPhysicalAccess {
        let no_execute = self.no_execute && !matches!(self.mode, PagingMode::Bits32 { .. });
        GuestPhysicalAccess { fetch: access.fetch && (no_execute || self.smep), ..access }
    }

    fn reserved(&self, entry: u64, access: GuestPhysicalAccess) -> GuestPhysicalAccess {
        self.fault(GuestPhysicalAccess { permissions: 1, entry, misconfigured: true, ..access })
    }
}
