//! The TLB: what the processor remembers of walks.
//!
//! Entries are 4 KiB wide (larger pages are split, and remember the size they came from), tagged by address space
//! (VPID or ASID), PCID and second-stage root. What is cached can be stale, and software can observe that, so the TLB is
//! state: it is in the digest and in snapshots, its replacement is round-robin, and it holds no host pointers.

mod invalidate;
mod micro;
mod origins;

pub use micro::Bank;

use crate::walk::{Access, GuestRights, Paging, SecondRights, Translation, refusal};
use crate::{Digest, PageKind};
use rootmode_arch::{GuestPhysical, HostPhysical, Linear};

const SETS: usize = 256;
const WAYS: usize = 4;

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
    page: u64,
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

/// A set-associative TLB of 1024 entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlb {
    entries: Vec<Option<Entry>>,
    /// Bit for bit, which entries there are: most flushes find few.
    live: [u64; SETS * WAYS / 64],
    next: Vec<u8>,
    micro: micro::Micro,
    /// Where the entries come from, in machines that ask.
    origins: Option<Box<origins::Origins>>,
}

impl Default for Tlb {
    fn default() -> Self {
        Self {
            entries: vec![None; SETS * WAYS],
            live: [0; SETS * WAYS / 64],
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

    const fn set(page: u64) -> usize {
        (page ^ page >> 8) as usize & (SETS - 1)
    }

    /// The cached translation of `linear`, if there is one that allows `access` without any update of flags.
    #[inline]
    pub fn lookup(&self, paging: &Paging, tag: Tag, linear: Linear, access: Access) -> Option<Lookup> {
        let page = linear.page_number();
        let first = Self::set(page) * WAYS;
        for entry in self.entries[first..first + WAYS].iter().flatten() {
            if entry.page != page || !entry.matches(tag) {
                continue;
            }
            let write = access.kind.is_write();
            if write && !(entry.rights.dirty && entry.second.dirty)
                || !entry.second.allows(access.kind, entry.rights.user)
                || refusal(paging, &entry.rights, access).is_some()
            {
                return None;
            }
            let offset = linear.page_offset();
            return Some(Lookup {
                host: HostPhysical(entry.host | offset),
                guest: GuestPhysical(entry.guest | offset),
                kind: entry.kind,
            });
        }
        None
    }

    /// Remembers a translation of `linear`, in place of an entry for the same page and tag if there is one.
    pub fn fill(&mut self, tag: Tag, linear: Linear, translation: &Translation, kind: PageKind) {
        let page = linear.page_number();
        let entry = Entry {
            page,
            tag,
            host: translation.host.page_base().0,
            guest: translation.guest.page_base().0,
            rights: translation.rights,
            second: translation.second,
            guest_shift: translation.guest_shift,
            host_shift: translation.host_shift,
            kind,
        };
        let set = Self::set(page);
        let ways = &mut self.entries[set * WAYS..(set + 1) * WAYS];
        let same = ways.iter().position(|e| e.is_some_and(|e| e.page == page && e.matches(tag)));
        let way = same.or_else(|| ways.iter().position(Option::is_none)).unwrap_or_else(|| {
            let victim = self.next[set] as usize;
            self.next[set] = (victim as u8 + 1) % WAYS as u8;
            victim
        });
        let old = ways[way].replace(entry);
        let index = set * WAYS + way;
        self.live[index / 64] |= 1 << (index % 64);
        self.micro.drop_page(page);
        if let Some(old) = old {
            self.micro.drop_page(old.page);
        }
    }

    /// Empties the place numbered `index`.
    #[inline]
    fn clear(&mut self, index: usize) -> Option<Entry> {
        self.live[index / 64] &= !(1 << (index % 64));
        self.entries[index].take()
    }

    /// Number of cached translations.
    pub fn len(&self) -> usize {
        self.live.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds every entry, its place, and the replacement state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        for (index, entry) in self.entries.iter().enumerate() {
            let Some(e) = entry else { continue };
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
            digest.all(&[index as u64, e.page, tag, e.tag.root, e.host, e.guest, flags]);
        }
        digest.bytes(&self.next);
    }
}

impl Entry {
    /// Global translations serve every PCID of their address space.
    fn matches(&self, tag: Tag) -> bool {
        self.tag.space == tag.space
            && self.tag.root == tag.root
            && (self.tag.pcid == tag.pcid || self.rights.global)
    }
}
