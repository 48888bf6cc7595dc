//! What is done with the bytes at a linear address, and whether the first stage's rights allow it.

use super::{GuestRights, Paging, PagingMode};

/// What is done with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Data read.
    Read,
    /// Data write, or read-modify-write.
    Write,
    /// Instruction fetch.
    Execute,
    /// Shadow-stack read (RET, RSTORSSP's look at a token that it does not change).
    ShadowStackRead,
    /// Shadow-stack write (CALL, WRSS, WRUSS, token updates).
    ShadowStackWrite,
}

impl AccessKind {
    /// Whether bytes change.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::ShadowStackWrite)
    }
    /// Whether the access is to a shadow stack.
    pub const fn is_shadow_stack(self) -> bool {
        matches!(self, Self::ShadowStackRead | Self::ShadowStackWrite)
    }
}

/// One access to a linear address (SDM Vol. 3A "Access Rights").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// Read, write, fetch, or of a shadow stack.
    pub kind: AccessKind,
    /// User-mode access: CPL is 3 and the access is not an implicit one to a system structure; WRUSS at CPL 0 too.
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
    /// A shadow-stack access: by user mode (CPL 3, or WRUSS), or by supervisor mode.
    pub const fn shadow_stack(write: bool, user: bool) -> Self {
        let kind = if write { AccessKind::ShadowStackWrite } else { AccessKind::ShadowStackRead };
        Self { kind, user, smap_override: false }
    }
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
    /// The access was a fetch, with EFER.NXE (and entries that have a bit 63) or CR4.SMEP.
    pub const FETCH: u32 = 1 << 4;
    /// A protection key refused it.
    pub const KEY: u32 = 1 << 5;
    /// The access was to a shadow stack.
    pub const SHADOW_STACK: u32 = 1 << 6;
}

/// Whether rights of the first stage refuse an access: the error code of the protection violation
/// (SDM Vol. 3A "Determination of Access Rights", "Protection Keys").
#[inline]
pub fn refusal(paging: &Paging, rights: &GuestRights, access: Access) -> Option<u32> {
    let refused = match access.kind {
        AccessKind::Execute if access.user => !rights.user || rights.no_execute,
        AccessKind::Execute => rights.no_execute || paging.smep && rights.user && paging.is_on(),
        AccessKind::Read if access.user => !rights.user,
        AccessKind::Write if access.user => !rights.user || !rights.write,
        AccessKind::Read => smap_refuses(paging, rights, access),
        AccessKind::Write => smap_refuses(paging, rights, access) || !rights.write && paging.write_protect,
        // Only to shadow-stack pages, user ones by user mode and supervisor ones by supervisor mode.
        AccessKind::ShadowStackRead | AccessKind::ShadowStackWrite => {
            paging.is_on() && (!rights.shadow_stack || rights.user != access.user)
        }
    };
    let key_refused = key_refuses(paging, rights, access);
    (refused || key_refused)
        .then(|| error_code(paging, access) | error::PRESENT | if key_refused { error::KEY } else { 0 })
}

#[inline]
fn smap_refuses(paging: &Paging, rights: &GuestRights, access: Access) -> bool {
    paging.smap && rights.user && !access.smap_override && paging.is_on()
}

/// PKRU guards user pages, IA32_PKRS supervisor pages, both in 4- and 5-level paging only, and both data accesses only.
#[inline]
fn key_refuses(paging: &Paging, rights: &GuestRights, access: Access) -> bool {
    let (enabled, keys) = if rights.user {
        (paging.protection_keys, paging.pkru)
    } else {
        (paging.supervisor_keys, paging.pkrs)
    };
    if !enabled || access.kind == AccessKind::Execute || !paging.mode.is_long() {
        return false;
    }
    let key = keys >> (2 * rights.key) & 3;
    let write_disabled = key & 2 != 0 && (access.user || paging.write_protect);
    key & 1 != 0 || access.kind.is_write() && write_disabled
}

/// The bits of the error code that the access itself determines.
pub(super) fn error_code(paging: &Paging, access: Access) -> u32 {
    let mut code = 0;
    if access.kind.is_write() {
        code |= error::WRITE;
    }
    if access.user {
        code |= error::USER;
    }
    let execute_disable = paging.no_execute && !matches!(paging.mode, PagingMode::Bits32 { .. });
    if access.kind == AccessKind::Execute && (execute_disable || paging.smep) {
        code |= error::FETCH;
    }
    if access.kind.is_shadow_stack() {
        code |= error::SHADOW_STACK;
    }
    code
}
