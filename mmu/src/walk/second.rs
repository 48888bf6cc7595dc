//! The second stage: which one, and what an access is to it.

use super::EntryMemory;
use super::{AccessKind, GuestRights, SecondRights, WalkFault, ept, npt};
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
    /// `user`: an access at CPL 3, whatever page it is to.
    Final { linear: Linear, kind: AccessKind, rights: GuestRights, user: bool },
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
pub fn translate_guest_physical<M: EntryMemory>(
    memory: &mut M,
    second: &SecondStage,
    guest: GuestPhysical,
    kind: AccessKind,
) -> Result<HostPhysical, WalkFault> {
    translate_for(memory, second, guest, Purpose::Direct { kind }).map(|mapped| mapped.host)
}

#[inline]
pub(super) fn translate_for<M: EntryMemory>(
    memory: &mut M,
    second: &SecondStage,
    guest: GuestPhysical,
    purpose: Purpose,
) -> Result<Mapped, WalkFault> {
    match second {
        SecondStage::None => Ok(Mapped { host: guest.identity(), rights: SecondRights::ALL, shift: 48 }),
        SecondStage::Ept(ept) => ept::walk(memory, ept, guest, purpose),
        SecondStage::Npt(npt) => npt::walk(memory, npt, guest, purpose).map_err(WalkFault::SecondStage),
    }
}

impl Purpose {
    /// Whether bytes change, or are treated as if. `table_is_write`: accesses to guest paging structures count as writes.
    #[inline]
    pub(super) const fn is_write(self, table_is_write: bool) -> bool {
        match self {
            Self::Final { kind, .. } | Self::Direct { kind } => kind.is_write(),
            Self::Table { update, .. } => update || table_is_write,
        }
    }

    /// The rights that are needed: bits as in [`SecondRights`].
    #[inline]
    pub(super) fn needs(self, table_is_write: bool) -> u8 {
        match self {
            Self::Table { .. } => 1 | u8::from(self.is_write(table_is_write)) << 1,
            Self::Final { kind: AccessKind::Execute, rights, .. } if rights.user => 8,
            Self::Final { kind, .. } | Self::Direct { kind } => match kind {
                AccessKind::Read | AccessKind::ShadowStackRead => 1,
                AccessKind::Write | AccessKind::ShadowStackWrite => 2,
                AccessKind::Execute => 4,
            },
        }
    }

    /// The access as exits report it.
    #[cold]
    pub(super) fn describe(self, guest: GuestPhysical, table_is_write: bool) -> GuestPhysicalAccess {
        let access = GuestPhysicalAccess {
            address: guest,
            write: self.is_write(table_is_write),
            ..GuestPhysicalAccess::default()
        };
        let (linear, kind) = match self {
            Self::Table { linear, .. } => {
                return GuestPhysicalAccess { linear: Some(linear), read: true, table_walk: true, ..access };
            }
            Self::Final { linear, kind, .. } => (Some(linear), kind),
            Self::Direct { kind } => (None, kind),
        };
        let access = GuestPhysicalAccess {
            linear,
            read: matches!(kind, AccessKind::Read | AccessKind::ShadowStackRead),
            fetch: kind == AccessKind::Execute,
            ..access
        };
        match self {
            Self::Final { rights, .. } => GuestPhysicalAccess {
                user: rights.user,
                linear_writable: rights.write,
                linear_execute_disable: rights.no_execute,
                ..access
            },
            _ => access,
        }
    }
}
