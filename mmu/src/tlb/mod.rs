//! The TLB: what the processor remembers of walks.
//!
//! Entries are 4 KiB wide (larger pages are split, and remember the size they came from), tagged by address space
//! (VPID or ASID), PCID and second-stage root. What is cached can be stale, and software can observe that, so the TLB is
//! state: it is in the digest and in snapshots, its replacement is round-robin, and it holds no host pointers.

mod invalidate;
mod micro;
mod origins;
mod places;

pub use micro::{Bank, Key};

use crate::walk::{Access, GuestRights, Paging, SecondRights, Translation, refusal};
use crate::{Digest, PageKind};
use places::{Pieces, PlaceSet};
use rootmode_arch::{GuestPhysical, HostPhysical, Linear};

const SETS: usize = 1024;
const WAYS: usize = 4;
const PLACES: usize = SETS * WAYS;
/// The page number of an empty place: no linear page has it.
const NO_PAGE: u64 = u64::MAX;

/// What a translation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Tag {
    /// VPID or ASID; 0 is the host.
    pub space: u32,
    /// PCID.
    pub pcid: u16,
    /// [`crate::SecondStage::root_tag`].
    pub root: u64,
}

/// One cached translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    tag: Tag,
    host: u64,
    guest: u64,
    rights: GuestRights,
    second: SecondRights,
    guest_shift: u8,
    host_shift: u8,
    kind: PageKind,
}

/// A translation that the TLB answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Where the byte is.
    pub host: HostPhysical,
    /// Its guest-physical address.
    pub guest: GuestPhysical,
    /// What lies there.
    pub kind: PageKind,
}

/// A set-associative TLB of 4096 entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlb {
    /// The linear page of each place, or [`NO_PAGE`]: all that most lookups look at.
    pages: Vec<u64>,
    /// The rest of each place, [`Entry::EMPTY`] in an empty one.
    entries: Vec<Entry>,
    /// Which places are taken: most flushes find few.
    live: PlaceSet,
    /// Which places hold a piece of a larger page of the guest: INVLPG of any address in it drops them all.
    pieces: Pieces,
    next: Vec<u8>,
    micro: micro::Micro,
    /// Where the entries come from, in machines that ask.
    origins: Option<Box<origins::Origins>>,
}

impl Default for Tlb {
    fn default() -> Self {
        Self {
            pages: vec![NO_PAGE; PLACES],
            entries: vec![Entry::EMPTY; PLACES],
            live: PlaceSet::default(),
            pieces: Pieces::default(),
            next: vec![0; SETS],
            micro: micro::Micro::default(),
            origins: None,
        }
    }
}

impl Tlb {
    /// An empty TLB.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first of the places where `page` can be.
    const fn first(page: u64) -> usize {
        ((page ^ page >> 10) as usize & (SETS - 1)) * WAYS
    }

    /// The place of the translation of `page` that serves `tag`.
    #[inline]
    fn place(&self, tag: Tag, page: u64) -> Option<usize> {
        let first = Self::first(page);
        (first..first + WAYS).find(|&at| self.pages[at] == page && self.entries[at].matches(tag))
    }

    /// The cached translation of `linear`, if there is one that allows `access` without any update of flags.
    #[inline]
    pub fn lookup(&self, paging: &Paging, tag: Tag, linear: Linear, access: Access) -> Option<Lookup> {
        let entry = &self.entries[self.place(tag, linear.page_number())?];
        let write = access.kind.is_write();
        if write && !(entry.rights.dirty && entry.second.dirty)
            || !entry.second.allows(access, entry.rights.user)
            || refusal(paging, &entry.rights, access).is_some()
        {
            return None;
        }
        let offset = linear.page_offset();
        Some(Lookup {
            host: HostPhysical(entry.host | offset),
            guest: GuestPhysical(entry.guest | offset),
            kind: entry.kind,
        })
    }

    /// Remembers a translation of `linear`, in place of an entry for the same page and tag if there is one.
    pub fn fill(&mut self, tag: Tag, linear: Linear, translation: &Translation, kind: PageKind) {
        let page = linear.page_number();
        let entry = Entry {
            tag,
            host: translation.host.page_base().0,
            guest: translation.guest.page_base().0,
            rights: translation.rights,
            second: translation.second,
            guest_shift: translation.guest_shift,
            host_shift: translation.host_shift,
            kind,
        };
        let first = Self::first(page);
        let known = self.place(tag, page);
        let free = || (first..first + WAYS).find(|&at| self.pages[at] == NO_PAGE);
        let at = known.or_else(free).unwrap_or_else(|| {
            let next = &mut self.next[first / WAYS];
            let victim = first + *next as usize;
            *next = (*next + 1) % WAYS as u8;
            victim
        });
        // A page that was not cached has no shortcuts.
        if self.pages[at] != NO_PAGE {
            let old = self.clear(at);
            self.micro.drop_page(old);
        }
        self.pages[at] = page;
        self.entries[at] = entry;
        self.live.insert(at);
        if entry.is_piece() {
            self.pieces.insert(at, page, entry.guest_shift);
        }
    }

    /// Empties the place numbered `at`, and answers the page that it held, or [`NO_PAGE`].
    #[inline]
    fn clear(&mut self, at: usize) -> u64 {
        let page = std::mem::replace(&mut self.pages[at], NO_PAGE);
        let old = std::mem::replace(&mut self.entries[at], Entry::EMPTY);
        if old.is_piece() {
            self.pieces.remove(at, page, old.guest_shift);
        }
        self.live.remove(at);
        page
    }

    /// Number of cached translations.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds every entry, its place, and the replacement state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        for (index, (&page, e)) in self.pages.iter().zip(&self.entries).enumerate() {
            if page == NO_PAGE {
                continue;
            }
            let flags = u64::from(e.rights.write)
                | u64::from(e.rights.user) << 1
                | u64::from(e.rights.no_execute) << 2
                | u64::from(e.rights.dirty) << 3
                | u64::from(e.rights.global) << 4
                | u64::from(e.second.dirty) << 5
                | u64::from(e.rights.shadow_stack) << 6
                | u64::from(e.rights.key) << 8
                | u64::from(e.second.bits) << 16
                | u64::from(e.guest_shift) << 24
                | u64::from(e.host_shift) << 32
                | (e.kind as u64) << 40;
            let tag = u64::from(e.tag.space) | u64::from(e.tag.pcid) << 32;
            digest.all(&[index as u64, page, tag, e.tag.root, e.host, e.guest, flags]);
        }
        digest.bytes(&self.next);
    }
}

impl Entry {
    const EMPTY: Self = Self {
        tag: Tag { space: 0, pcid: 0, root: 0 },
        host: 0,
        guest: 0,
        rights: GuestRights::NONE,
        second: SecondRights::NONE,
        guest_shift: 0,
        host_shift: 0,
        kind: PageKind::Absent,
    };

    /// Whether the page that the guest's tables name is larger than the entry.
    const fn is_piece(&self) -> bool {
        self.guest_shift > 12
    }

    /// Global translations serve every PCID of their address space.
    fn matches(&self, tag: Tag) -> bool {
        self.tag.space == tag.space
            && self.tag.root == tag.root
            && (self.tag.pcid == tag.pcid || self.rights.global)
    }
}
