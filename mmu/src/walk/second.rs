//! The second stage: which one, and what an access is to it.

use super::{AccessKind, GuestRights, SecondRights, WalkFault, ept, npt};
use crate::PhysicalMemory;
use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{GuestPhysical, HostPhysical, Linear};

pub use ept::Ept;
pub use npt::Npt;

/// The second stage of translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub enum SecondStage {
    /// Guest-physical addresses are host-physical.
    #[default]
    None,
    /// Extended page tables.
    Ept(Ept),
    /// Nested page tables.
    Npt(Npt),
}

impl SecondStage {
    /// What tags cached translations: the root's address, with bit 0 set so that no root is 0; 0 without a second stage.
    pub const fn root_tag(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Ept(ept) => ept.root.0 | 1,
            Self::Npt(npt) => npt.root.0 | 1,
        }
    }
}

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

#[inline]
pub(super) fn translate_for(
    memory: &mut PhysicalMemory,
    second: &SecondStage,
    guest: GuestPhysical,
    purpose: Purpose,
) -> Result<Mapped, WalkFault> {
    match second {
        SecondStage::None => Ok(Mapped { host: guest.identity(), rights: SecondRights::ALL, shift: 48 }),
        SecondStage::Ept(ept) => ept::walk(memory, ept, guest, purpose).map_err(WalkFault::SecondStage),
        SecondStage::Npt(npt) => npt::walk(memory, npt, guest, purpose).map_err(WalkFault::SecondStage),
    }
}

/// The access as exits report it. `table_is_write`: accesses to guest paging structures count as writes.
pub(super) fn describe(guest: GuestPhysical, purpose: Purpose, table_is_write: bool) -> GuestPhysicalAccess {
    let blank = GuestPhysicalAccess { address: guest, ..GuestPhysicalAccess::default() };
    match purpose {
        Purpose::Final { linear, kind, rights } => GuestPhysicalAccess {
            linear: Some(linear),
            read: matches!(kind, AccessKind::Read | AccessKind::ShadowStackRead),
            write: kind.is_write(),
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
            write: kind.is_write(),
            fetch: kind == AccessKind::Execute,
            ..blank
        },
    }
}

/// What the access needs: bits as in [`SecondRights`].
pub(super) fn needed(access: &GuestPhysicalAccess) -> u8 {
    let execute = if access.user { 8 } else { 4 };
    u8::from(access.read) | u8::from(access.write) << 1 | if access.fetch { execute } else { 0 }
}
