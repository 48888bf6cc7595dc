//! [`Ledger`]: who changed paging-structure entries, and who stores to which page: what all processors of a memory share.

use super::{Change, FLAGS};
use crate::{PhysicalMemory, Tag, Watch};
use rootmode_arch::record::Place;
use rootmode_arch::{HostPhysical, Linear};
use std::collections::{BTreeMap, BTreeSet};

/// Changes and stores since a memory began to watch its tables.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By address; the last one that is more than a change of flags.
    changes: BTreeMap<u64, Change>,
    count: u64,
    /// The instruction that stores now.
    writer: Option<Place>,
    /// The last tick that anybody stored at.
    tick: u64,
    /// By page: the last stores through two different translations.
    stores: BTreeMap<u64, [Option<Store>; 2]>,
    sites: BTreeSet<(u64, u64)>,
    /// Pages that a processor may hold on-chip, and where it took them.
    held: BTreeMap<u64, Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Store {
    space: u32,
    page: u64,
    tick: u64,
}

impl Ledger {
    /// The last change of the unit at `address` after the one numbered `after`.
    pub(crate) fn change(&self, address: HostPhysical, after: u64) -> Option<Change> {
        self.changes.get(&address.0).copied().filter(|change| change.count > after)
    }

    /// Whether somebody stored to the page of `host` through another translation than that of `linear`, after tick `since`.
    pub(crate) fn is_reused(&self, host: HostPhysical, (tag, linear): (Tag, Linear), since: u64) -> bool {
        let stores = self.stores.get(&host.page_number()).into_iter().flatten().flatten();
        stores.filter(|s| (s.space, s.page) != (tag.space, linear.page_number())).any(|s| s.tick > since)
    }

    pub(crate) fn note_change(&mut self, address: HostPhysical, old: u64, new: u64) {
        self.count += 1;
        let change = Change { address, old, new, tick: self.tick, place: self.writer, count: self.count };
        if (old ^ new) & !FLAGS != 0 {
            self.changes.insert(address.0, change);
        }
    }
}

impl PhysicalMemory {
    /// From now on, changes of paging-structure entries behind cached translations are remembered with their places.
    pub fn watch_tables(&mut self) {
        self.ledger.get_or_insert_default();
    }

    /// What is remembered, if anything is.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_deref()
    }

    /// The processor at `place` may keep the control structure at `region` to itself from now on. Answers since when another
    /// one may.
    pub fn hold_region(&mut self, region: HostPhysical, place: Place) -> Option<Place> {
        let ledger = self.ledger.as_mut()?;
        let since = *ledger.held.entry(region.page_number()).or_insert(place);
        (since.vcpu != place.vcpu).then_some(since)
    }

    /// Processor `vcpu` gives the control structure at `region` back to memory. Answers since when another one may keep it.
    pub fn release_region(&mut self, region: HostPhysical, vcpu: u8) -> Option<Place> {
        let held = &mut self.ledger.as_mut()?.held;
        let since = *held.get(&region.page_number())?;
        if since.vcpu == vcpu {
            held.remove(&region.page_number());
        }
        (since.vcpu != vcpu).then_some(since)
    }

    /// Since when a processor may keep the control structure of which `host` is a part, if a use at `rip` was not reported yet.
    pub fn held_since(&mut self, host: HostPhysical, rip: u64) -> Option<Place> {
        let since = *self.ledger.as_ref()?.held.get(&host.page_number())?;
        self.is_new_site(rip, Some(since)).then_some(since)
    }

    /// Number of changes of watched entries so far.
    pub(crate) fn table_changes(&self) -> u64 {
        self.ledger.as_ref().map_or(0, |ledger| ledger.count)
    }

    pub(crate) fn watch_table(&mut self, entry: HostPhysical) {
        self.watch(entry, 8, Watch::TABLE);
    }

    /// Stores are those of the instruction at `place`, or of a device (`None`).
    pub fn set_writer(&mut self, place: Option<Place>) {
        if let Some(ledger) = &mut self.ledger {
            ledger.writer = place;
            ledger.tick = place.map_or(ledger.tick, |place| place.tick);
        }
    }

    /// A store to the page of `host` through the translation of `linear`, at `tick`.
    pub fn note_store(&mut self, host: HostPhysical, tag: Tag, linear: Linear, tick: u64) {
        let Some(ledger) = &mut self.ledger else { return };
        let store = Store { space: tag.space, page: linear.page_number(), tick };
        let last = ledger.stores.entry(host.page_number()).or_default();
        if last[0].is_some_and(|l| (l.space, l.page) != (store.space, store.page)) {
            last[1] = last[0];
        }
        last[0] = Some(store);
    }

    /// Whether no stale use at `rip` of what was changed at `changed` was reported yet.
    pub(crate) fn is_new_site(&mut self, rip: u64, changed: Option<Place>) -> bool {
        let site = (rip, changed.map_or(u64::MAX, |place| place.rip));
        self.ledger.as_mut().is_some_and(|ledger| ledger.sites.insert(site))
    }
}
