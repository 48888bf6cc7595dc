//! Dirty rings: which pages a vCPU dirtied, in order, until the client has harvested them (`KVM_CAP_DIRTY_LOG_RING`).

use crate::kvm::Errno;
use crate::kvm::abi::{DirtyGfn, PAGE, Plain};

/// `KVM_DIRTY_GFN_F_DIRTY`, `KVM_DIRTY_GFN_F_RESET`.
const DIRTY: u32 = 1;
const RESET: u32 = 2;
/// `KVM_DIRTY_RING_RSVD_ENTRIES`: so many stay free when a ring counts as full.
const RESERVED: u32 = 64;
/// `KVM_DIRTY_RING_MAX_ENTRIES`.
const MOST: u64 = 65536;

/// How many entries a ring of `bytes` bytes has.
///
/// # Errors
/// [`Errno::Einval`] unless that is a power of two of at least a page, [`Errno::E2big`] for too many.
pub(crate) fn entries(bytes: u64) -> Result<u32, Errno> {
    let size = DirtyGfn::SIZE as u64;
    if !bytes.is_power_of_two() || bytes < PAGE || bytes < u64::from(RESERVED) * size {
        return Err(Errno::Einval);
    }
    if bytes > MOST * size { Err(Errno::E2big) } else { Ok((bytes / size) as u32) }
}

/// The ring of a vCPU. Indices grow for ever; where an entry lies is their rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ring {
    entries: u32,
    /// The next entry to be written.
    next: u32,
    /// The first one that has not come back.
    reset: u32,
    /// Entries that the client's mapping does not show yet: the last ones before `next`.
    fresh: Vec<DirtyGfn>,
}

impl Ring {
    pub(crate) fn new(entries: u32) -> Self {
        Self { entries, ..Self::default() }
    }

    /// A page was dirtied.
    pub(crate) fn push(&mut self, slot: u32, offset: u64) {
        self.fresh.push(DirtyGfn { flags: DIRTY, slot, offset });
        self.next = self.next.wrapping_add(1);
    }

    /// Whether the client has to harvest before the vCPU goes on.
    pub(crate) const fn is_full(&self) -> bool {
        self.entries > 0 && self.next.wrapping_sub(self.reset) >= self.entries - RESERVED
    }

    /// The entries that the mapping is to show, with their places in it.
    pub(crate) fn take_fresh(&mut self) -> Vec<(u32, DirtyGfn)> {
        let first = self.next.wrapping_sub(self.fresh.len() as u32);
        let fresh = std::mem::take(&mut self.fresh);
        (0..).zip(fresh).map(|(n, entry)| (first.wrapping_add(n) % self.entries, entry)).collect()
    }

    /// Where the first entry lies that has not come back, if there is one.
    pub(crate) fn oldest(&self) -> Option<u32> {
        let shown = self.next.wrapping_sub(self.fresh.len() as u32);
        (self.reset != shown).then(|| self.reset % self.entries)
    }

    /// The first entry has come back, if the client says so in it.
    pub(crate) const fn take_back(&mut self, entry: &DirtyGfn) -> bool {
        let back = entry.flags & RESET != 0;
        if back {
            self.reset = self.reset.wrapping_add(1);
        }
        back
    }
}
