//! The hardware page walkers: linear to guest-physical (4 and 5 levels) to host-physical (EPT or NPT).
//!
//! [`translate`] is a pure function of memory, the paging registers and the access. It updates accessed and dirty
//! flags only when the whole walk succeeds (the manuals allow earlier), and never touches the TLB.

mod guest;
mod second;

pub use guest::translate;
pub use second::translate_guest_physical;

use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{Cr3, GuestPhysical, HostPhysical};

/// What is done with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Data read.
    Read,
    /// Data write, or read-modify-write.
    Write,
    /// Instruction fetch.
    Execute,
}

/// One access to a linear address (SDM Vol. 3A "Access Rights").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// Read, write or fetch.
    pub kind: AccessKind,
    /// User-mode access: CPL is 3 and the access is not an implicit one to a system structure.
    pub user: bool,
    /// SMAP does not apply: a supervisor access that is explicit, with RFLAGS.AC = 1.
    pub smap_override: bool,
}

impl Access {
    /// A data access at privilege level `cpl` with RFLAGS.AC = `ac`.
    pub const fn data(kind: AccessKind, cpl: u8, ac: bool) -> Self {
        Self { kind, user: cpl == 3, smap_override: ac }
    }
    /// An implicit supervisor access to a system structure (GDT, IDT, TSS).
    pub const fn implicit(kind: AccessKind) -> Self {
        Self { kind, user: false, smap_override: false }
    }
    /// An instruction fetch at privilege level `cpl`.
    pub const fn fetch(cpl: u8) -> Self {
        Self { kind: AccessKind::Execute, user: cpl == 3, smap_override: false }
    }
}

/// The registers that govern translation of linear addresses. The default is paging off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Paging {
    /// CR3.
    pub cr3: Cr3,
    /// CR0.PG with EFER.LMA: 4- or 5-level paging. Off: linear addresses are guest-physical.
    pub enabled: bool,
    /// CR4.LA57: five levels.
    pub five_level: bool,
    /// CR0.WP.
    pub write_protect: bool,
    /// EFER.NXE.
    pub no_execute: bool,
    /// CR4.SMEP.
    pub smep: bool,
    /// CR4.SMAP.
    pub smap: bool,
    /// CR4.PCIDE.
    pub pcide: bool,
    /// CR4.PGE.
    pub global: bool,
    /// 1-GByte pages are supported.
    pub huge_pages: bool,
    /// CR4.PKE: protection keys for user pages.
    pub protection_keys: bool,
    /// PKRU.
    pub pkru: u32,
    /// MAXPHYADDR, 32 to 52.
    pub physical_width: u8,
}

impl Paging {
    /// The current PCID (0 with CR4.PCIDE = 0).
    pub const fn pcid(&self) -> u16 {
        if self.pcide { (self.cr3.0 & 0xfff) as u16 } else { 0 }
    }
}

/// EPT as the EPTP and its controls set it up (SDM Vol. 3C "Extended-Page-Table Pointer (EPTP)").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Ept {
    /// Host-physical address of the EPT PML4 table.
    pub root: HostPhysical,
    /// Accessed and dirty flags are enabled (EPTP bit 6).
    pub accessed_dirty: bool,
    /// Mode-based execute control.
    pub mode_based_execute: bool,
    /// 1-GByte pages are supported.
    pub huge_pages: bool,
    /// MAXPHYADDR.
    pub physical_width: u8,
}

/// Nested paging as VMRUN found it: nCR3 and the *host's* paging mode (APM Vol. 2 "Nested Paging").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Npt {
    /// nCR3, bits 51:12.
    pub root: HostPhysical,
    /// The host's EFER.NXE at VMRUN.
    pub no_execute: bool,
    /// The host's CR4.LA57 at VMRUN.
    pub five_level: bool,
    /// 1-GByte pages are supported.
    pub huge_pages: bool,
    /// Physical-address width.
    pub physical_width: u8,
}

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

/// Rights of one stage, over all of its levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct GuestRights {
    /// R/W set at every level.
    pub write: bool,
    /// U/S set at every level.
    pub user: bool,
    /// XD set at some level (with EFER.NXE).
    pub no_execute: bool,
    /// The leaf is dirty.
    pub dirty: bool,
    /// The leaf is global.
    pub global: bool,
    /// Protection key of the leaf.
    pub key: u8,
}

/// Rights that the second stage gives, over all of its levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SecondRights {
    /// Bit 0 read, 1 write, 2 execute (supervisor), 3 execute by user-mode linear addresses.
    pub bits: u8,
    /// A write needs no further update of a dirty flag.
    pub dirty: bool,
}

impl SecondRights {
    /// Without a second stage: everything.
    pub const ALL: Self = Self { bits: 0xf, dirty: true };

    /// Whether `kind` by a user-mode linear address or not (`user`) is allowed.
    pub const fn allows(self, kind: AccessKind, user: bool) -> bool {
        let bit = match kind {
            AccessKind::Read => 1,
            AccessKind::Write => 2,
            AccessKind::Execute if user => 8,
            AccessKind::Execute => 4,
        };
        self.bits & bit != 0
    }
}

/// A successful translation and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// Where the byte is.
    pub host: HostPhysical,
    /// Its guest-physical address.
    pub guest: GuestPhysical,
    /// Rights of the first stage.
    pub rights: GuestRights,
    /// Rights of the second stage.
    pub second: SecondRights,
    /// log2 of the first stage's page size: 12, 21, 30 (12 with paging off).
    pub guest_shift: u8,
    /// log2 of the second stage's page size: 12, 21, 30, 39 (48 without one).
    pub host_shift: u8,
}

/// Why an access cannot be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalkFault {
    /// #PF with this error code; the linear address is the caller's.
    Page(u32),
    /// EPT violation, EPT misconfiguration or nested page fault.
    SecondStage(GuestPhysicalAccess),
}

/// Bits of the page-fault error code (SDM Vol. 3A "Page-Fault Exceptions").
pub mod error {
    /// The fault is a protection violation, not a missing page.
    pub const PRESENT: u32 = 1;
    /// The access was a write.
    pub const WRITE: u32 = 1 << 1;
    /// The access was by user mode.
    pub const USER: u32 = 1 << 2;
    /// A reserved bit was set in some entry.
    pub const RESERVED: u32 = 1 << 3;
    /// The access was a fetch, with EFER.NXE or CR4.SMEP.
    pub const FETCH: u32 = 1 << 4;
    /// A protection key refused it.
    pub const KEY: u32 = 1 << 5;
}

/// Whether rights of the first stage refuse an access: the error code of the protection violation
/// (SDM Vol. 3A "Determination of Access Rights", "Protection Keys").
pub fn refusal(paging: &Paging, rights: &GuestRights, access: Access) -> Option<u32> {
    let refused = match access.kind {
        AccessKind::Execute if access.user => !rights.user || rights.no_execute,
        AccessKind::Execute => rights.no_execute || paging.smep && rights.user,
        _ if access.user => !rights.user || access.kind == AccessKind::Write && !rights.write,
        kind => {
            paging.smap && rights.user && !access.smap_override
                || kind == AccessKind::Write && !rights.write && paging.write_protect
        }
    };
    let key_refused = paging.protection_keys && rights.user && access.kind != AccessKind::Execute && {
        let key = paging.pkru >> (2 * rights.key) & 3;
        let write_disabled = key & 2 != 0 && (access.user || paging.write_protect);
        key & 1 != 0 || access.kind == AccessKind::Write && write_disabled
    };
    (refused || key_refused)
        .then(|| error_code(paging, access) | error::PRESENT | if key_refused { error::KEY } else { 0 })
}

/// The bits of the error code that the access itself determines.
fn error_code(paging: &Paging, access: Access) -> u32 {
    let mut code = 0;
    if access.kind == AccessKind::Write {
        code |= error::WRITE;
    }
    if access.user {
        code |= error::USER;
    }
    if access.kind == AccessKind::Execute && (paging.no_execute || paging.smep) {
        code |= error::FETCH;
    }
    code
}
