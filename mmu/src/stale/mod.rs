//! Which cached translations are stale, who made them so, and whether the manuals allow their use. Only machines that were
//! told to watch ([`PhysicalMemory::watch_tables`], [`Tlb::remember_origins`]) pay for it, and nothing of it can be observed
//! by a guest.
//!
//! Software may use a translation that its own change made stale only until it relies on the change, and must invalidate it
//! before (SDM Vol. 3A "Recommended Invalidation", "Optional Invalidation", "Delayed Invalidation",
//! "Propagation of Paging-Structure Changes to Multiple Processors"; APM Vol. 2 "TLB Management"). A use is a mistake if a
//! walk would now refuse the access or lead elsewhere, and
//!
//! - the processor that uses it made the change itself, earlier in its program; or
//! - another did, and somebody has stored to the page at another address since, so that it has a new owner; or
//! - another did more than [`PROPAGATION`] ticks ago: whatever the initiator waits for has had its time.
//!
//! Everything else is allowed and not reported: entries that became more permissive or present (a stale entry that refuses
//! is walked again), accessed and dirty flags, global flags and page sizes that lead to the same place.

mod ledger;

pub use ledger::Ledger;

use crate::walk::Way;
use crate::{Access, Lookup, Paging, PhysicalMemory, SecondStage, Tag, Tlb, look};
use rootmode_arch::record::{Place, StaleUse, StaleWhy};
use rootmode_arch::{HostPhysical, Linear};

/// Ticks that a change may take to reach another processor: a shootdown interrupt, its handler, and what keeps it waiting.
pub const PROPAGATION: u64 = 50_000;

/// Accessed and dirty flags of x86 entries and of EPT entries, and what they share bits with: never an outcome's reason.
const FLAGS: u64 = 0x360;

/// Where a cached translation comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    place: Place,
    way: Way,
    /// The ledger's count when it was made.
    made: u64,
    /// The ledger's count when a walk last agreed with it, and under which roots.
    agreed: (u64, Roots),
}

/// What else a translation depends on: CR3, the PDPTE registers, the second stage.
type Roots = (u64, [u64; 4], u64);

fn roots(paging: &Paging, second: &SecondStage) -> Roots {
    (paging.cr3.0, paging.pdptes, second.root_tag())
}

impl Tlb {
    /// Remembers where translation `linear`, which was just filled, comes from, and watches the entries that led to it.
    #[cold]
    pub fn note_origin(
        &mut self,
        memory: &mut PhysicalMemory,
        (paging, second): (&Paging, &SecondStage),
        (tag, linear): (Tag, Linear),
        access: Access,
        place: Place,
    ) {
        let (_, way) = look(memory, paging, second, linear, access);
        for (entry, _) in &way {
            memory.watch_table(*entry);
        }
        let made = memory.table_changes();
        if let Some(slot) = self.origin_mut(tag, linear) {
            *slot = Some(Origin { place, way, made, agreed: (made, roots(paging, second)) });
        }
    }

    /// Whether the translation of `linear` that was just answered as `found` is stale in a way that the manuals do not allow
    /// at `place`; each site is answered once.
    #[cold]
    pub fn stale_use(
        &mut self,
        memory: &mut PhysicalMemory,
        (paging, second): (&Paging, &SecondStage),
        (tag, linear): (Tag, Linear),
        (access, found): (Access, Lookup),
        place: Place,
    ) -> Option<StaleUse> {
        let now = (memory.table_changes(), roots(paging, second));
        let root_changed = self.root_changed();
        let origin = self.origin_mut(tag, linear)?.as_mut()?;
        if origin.agreed == now {
            return None;
        }
        let (fresh, _) = look(memory, paging, second, linear, access);
        let target = fresh.as_ref().ok().map(|fresh| fresh.host.page_base());
        if target == Some(found.host.page_base()) {
            // Another kind of access to the page may still be refused: only a whole walk that found the entries unchanged
            // settles it.
            if origin.way.iter().all(|(at, held)| (memory.read_u64(*at) ^ held) & !FLAGS == 0) {
                origin.agreed = now;
            }
            return None;
        }
        let origin = origin.clone();
        let ledger = memory.ledger()?;
        let change = origin.way.iter().find_map(|(at, held)| {
            ledger.change(*at, origin.made).filter(|change| (change.new ^ held) & !FLAGS != 0)
        });
        let (why, changed) = match change {
            Some(change) => {
                let why = StaleWhy::Entry { address: change.address, old: change.old, new: change.new };
                let own = change.place.is_some_and(|changer| changer.vcpu == place.vcpu);
                let late = place.tick.saturating_sub(change.tick) > PROPAGATION;
                if !own && !late && !ledger.is_reused(found.host, (tag, linear), change.tick) {
                    return None;
                }
                (why, change.place)
            }
            None if origin.agreed.1 != now.1 => (StaleWhy::Root, root_changed),
            None => (StaleWhy::Registers, None),
        };
        memory.is_new_site(place.rip, changed).then_some(StaleUse {
            rip: place.rip,
            linear,
            write: access.kind.is_write(),
            fetch: access.kind == crate::AccessKind::Execute,
            used: found.host.page_base(),
            walked: target,
            cached: origin.place,
            why,
            changed,
        })
    }
}

/// One change of an 8-byte unit that holds paging-structure entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) address: HostPhysical,
    pub(crate) old: u64,
    pub(crate) new: u64,
    pub(crate) tick: u64,
    /// The instruction; `None`: a device or somebody outside.
    pub(crate) place: Option<Place>,
    pub(crate) count: u64,
}
