//! [`Translating`]: what governs translation, and numbers for it.

use super::ApicWindow;
use rootmode_mmu::{Paging, SecondStage, Tag};

/// What governs translations, and which of them may be gone to directly. What differs most often comes first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Translating {
    pub(super) tag: Tag,
    pub(super) second_stage: SecondStage,
    pub(super) apic_access: Option<ApicWindow>,
    pub(super) paging: Paging,
    /// A number that no other context has.
    pub(super) number: u64,
}

impl Translating {
    /// Whether the context is that of these.
    pub(super) fn is(
        &self,
        tag: Tag,
        second_stage: &SecondStage,
        apic_access: &Option<ApicWindow>,
        paging: &Paging,
    ) -> bool {
        self.tag == tag
            && self.second_stage == *second_stage
            && self.apic_access == *apic_access
            && self.paging == *paging
    }
}

/// The last contexts, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Contexts {
    last: [Translating; 8],
    count: u64,
}

impl Contexts {
    /// `now` with its number: a new one, unless it is one of the last contexts.
    pub(super) fn numbered(&mut self, now: Translating) -> Translating {
        let Translating { tag, second_stage, apic_access, paging, .. } = &now;
        let mut numbered = self.last.iter().filter(|known| known.number != 0);
        if let Some(known) = numbered.find(|known| known.is(*tag, second_stage, apic_access, paging)) {
            return *known;
        }
        self.count += 1;
        let numbered = Translating { number: self.count, ..now };
        self.last[(self.count % 8) as usize] = numbered;
        numbered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_keeps_its_number_until_it_is_forgotten_and_no_other_one_gets_it() {
        let context = |space| Translating { tag: Tag { space, ..Tag::default() }, ..Translating::default() };
        let mut contexts = Contexts::default();
        let first: Vec<u64> = (0..8).map(|space| contexts.numbered(context(space)).number).collect();
        assert_eq!(first, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(contexts.numbered(context(3)).number, 4);
        assert_eq!(contexts.numbered(context(8)).number, 9);
        assert_eq!(contexts.numbered(context(0)).number, 10, "forgotten");
    }
}
