//! Where cached translations come from: kept beside the entries, in machines that look for stale uses.

use super::{NO_PAGE, PLACES, Tag, Tlb, WAYS};
use crate::stale::Origin;
use rootmode_arch::Linear;
use rootmode_arch::record::Place;

/// One origin an entry, and what the processor translates with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origins {
    entries: Vec<Option<Origin>>,
    /// CR3 and the root of the second stage, and the instruction that loaded them.
    roots: (u64, u64),
    root_changed: Option<Place>,
    last: Option<Place>,
}

impl Tlb {
    /// Remembers origins from now on. Nothing that was cached before has one.
    pub fn remember_origins(&mut self) {
        self.origins.get_or_insert_with(|| {
            let entries = vec![None; PLACES];
            Box::new(Origins { entries, roots: (0, 0), root_changed: None, last: None })
        });
        self.forget_shortcuts();
    }

    /// Whether origins are remembered. Shortcuts are then not kept: every access is looked at.
    #[inline(always)]
    pub const fn remembers_origins(&self) -> bool {
        self.origins.is_some()
    }

    /// The instruction at `place` begins, under CR3 and second stage `roots`.
    pub fn note_instruction(&mut self, place: Place, roots: (u64, u64)) {
        if let Some(origins) = &mut self.origins {
            if origins.roots != roots {
                origins.roots = roots;
                origins.root_changed = origins.last;
            }
            origins.last = Some(place);
        }
    }

    pub(crate) fn root_changed(&self) -> Option<Place> {
        self.origins.as_ref().and_then(|origins| origins.root_changed)
    }

    /// The place for the origin of the entry for `linear`.
    pub(crate) fn origin_mut(&mut self, tag: Tag, linear: Linear) -> Option<&mut Option<Origin>> {
        let at = self.place(tag, linear.page_number())?;
        self.origins.as_mut().map(|origins| &mut origins.entries[at])
    }

    /// Evicts what is cached in the `way`th place (modulo their number) among those where `linear` could be.
    pub fn evict(&mut self, linear: Linear, way: usize) {
        let page = self.clear(Self::first(linear.page_number()) + way % WAYS);
        if page != NO_PAGE {
            self.micro.drop_page(page);
        }
    }
}
