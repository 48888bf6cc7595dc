//! The hardware page walkers: linear to guest-physical (every paging mode) to host-physical (EPT or NPT).
//!
//! [`translate`] is a pure function of memory, the paging registers and the access. It updates accessed and dirty
//! flags only when the whole walk succeeds (the manuals allow earlier), and never touches the TLB.
//!
//! | file | what |
//! | --- | --- |
//! | `access` | kinds of access, rights, error codes of page faults |
//! | `entries` | where entries are read and updated; a look that changes nothing |
//! | `paging` | the registers, the paging modes, linear-address masking |
//! | `tables` | x86 page tables of every shape: the way down, reserved bits, accessed and dirty flags |
//! | `memo` | walks that were done before |
//! | `guest`, `pdptes` | the first stage; the PDPTE registers |
//! | `second`, `ept`, `npt` | the second stage |

mod access;
mod entries;
mod ept;
mod guest;
mod memo;
mod npt;
mod paging;
mod pdptes;
mod second;
mod tables;

pub use access::{Access, AccessKind, error, refusal};
pub use entries::{EntryMemory, Way, look};
pub use guest::translate;
pub use memo::WalkMemo;
pub use paging::{Paging, PagingMode};
pub use pdptes::{PdpteFault, are_pdptes_valid, load_pdptes};
pub use second::{Ept, Npt, SecondStage, translate_guest_physical};

use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{GuestPhysical, HostPhysical};

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
    /// A shadow-stack page: R/W clear and D set in the leaf, R/W set at every other level.
    pub shadow_stack: bool,
    /// The leaf is global, with CR4.PGE.
    pub global: bool,
    /// Protection key of the leaf.
    pub key: u8,
}

/// Rights that the second stage gives, over all of its levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SecondRights {
    /// Bit 0 read, 1 write, 2 execute (supervisor), 3 execute by user-mode linear addresses; bit 4: not the linear address
    /// but the privilege level of a fetch tells bits 2 and 3 apart.
    pub bits: u8,
    /// A write needs no further update of a dirty flag.
    pub dirty: bool,
}

impl GuestRights {
    /// Of a page that nobody may write, and only the supervisor read.
    pub(crate) const NONE: Self = Self {
        write: false,
        user: false,
        no_execute: true,
        dirty: false,
        shadow_stack: false,
        global: false,
        key: 0,
    };
}

impl SecondRights {
    /// Nothing.
    pub(crate) const NONE: Self = Self { bits: 0, dirty: false };

    /// Without a second stage: everything.
    pub const ALL: Self = Self { bits: 0xf, dirty: true };

    /// [`Self::bits`]: AMD's guest mode execute trap is on.
    pub const BY_PRIVILEGE: u8 = 1 << 4;

    /// Whether `access` to a page that user mode may reach or not (`user_page`) is allowed.
    #[inline(always)]
    pub const fn allows(self, access: Access, user_page: bool) -> bool {
        let user = if self.bits & Self::BY_PRIVILEGE != 0 { access.user } else { user_page };
        let bit = match access.kind {
            AccessKind::Read | AccessKind::ShadowStackRead => 1,
            AccessKind::Write | AccessKind::ShadowStackWrite => 2,
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
    /// log2 of the first stage's page size: 12, 21, 22, 30 (12 with paging off).
    pub guest_shift: u8,
    /// log2 of the second stage's page size: 12, 21, 22, 30 (48 without one).
    pub host_shift: u8,
}

/// Why an access cannot be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalkFault {
    /// #PF with this error code; the linear address is the caller's.
    Page(u32),
    /// EPT violation, EPT misconfiguration or nested page fault.
    SecondStage(GuestPhysicalAccess),
    /// The page-modification log is full.
    LogFull,
}
