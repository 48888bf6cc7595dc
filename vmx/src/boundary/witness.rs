//! For every rule, states that break it alone: one change away from a base, with the state at the edge beside it.

use super::State;
use super::bases::{BASES, Base};
use crate::context::Item;
use crate::rules::{Place, RULES, Rule, candidates, nearest};
use rootmode_arch::msr;

/// One change of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edit {
    /// Where.
    pub place: Place,
    /// The new value.
    pub value: u64,
}

impl Edit {
    /// Applies the change.
    pub fn apply(self, state: &mut State) {
        state.put(self.place, self.value);
    }
}

/// A base and a change after which exactly one rule is broken and every other is known to hold.
#[derive(Clone, Copy, Debug)]
pub struct Witness {
    /// The rule.
    pub rule: &'static Rule,
    /// The base.
    pub base: &'static Base,
    /// What breaks the rule.
    pub edit: Edit,
    /// What, applied after `edit`, leads to the edge: the nearest state in which every rule holds.
    pub back: Edit,
}

impl Witness {
    /// The state that breaks the rule alone.
    pub fn broken(&self) -> State {
        let mut state = (self.base.build)();
        self.edit.apply(&mut state);
        state
    }
    /// The state at the edge: it satisfies every rule.
    pub fn edge(&self) -> State {
        let mut state = self.broken();
        self.back.apply(&mut state);
        state
    }
}

/// Every change that is worth trying for `rule` on `state`: boundary values and flipped bits of what it is about and of what it reads.
pub fn edits(rule: &Rule, state: &State, mut each: impl FnMut(Edit)) {
    let reads = rule.reads(&state.context());
    let physical = state.processor.value(Item::PhysicalWidth) & 63;
    let hints = [
        1 << physical,
        state.processor.value(Item::CurrentVmcs),
        u64::from(msr::IA32_SMM_MONITOR_CTL),
        u64::from(msr::IA32_BIOS_UPDT_TRIG),
        u64::from(msr::IA32_X2APIC_TPR),
        // One beyond the last x2APIC index; `candidates` also tries the one before.
        0x900,
    ];
    let mut around = |place: Place, mask: u64| {
        candidates(state.value(place), mask, &hints, |value| {
            if value != state.value(place) {
                each(Edit { place, value });
            }
        });
    };
    for field in rule.fields {
        around(Place::Field(*field), field.width().mask());
    }
    for item in rule.items {
        around(Place::Processor(*item), item.mask());
    }
    for address in reads.memory.into_iter().flatten() {
        around(Place::Memory(address), !0);
    }
    for field in reads.fields.iter().filter(|field| !rule.fields.contains(field)) {
        around(Place::Field(field), field.width().mask());
    }
}

/// Every witness of `rule` over all bases, in a fixed order. May contain the same state twice.
pub fn witnesses(rule: &'static Rule, mut each: impl FnMut(Witness) -> bool) {
    for base in BASES {
        let valid = (base.build)();
        let mut state = valid.clone();
        let mut stop = false;
        edits(rule, &valid, |edit| {
            if stop {
                return;
            }
            edit.apply(&mut state);
            if rule.judge(&state.context()).is_violated()
                && RULES.iter().all(|other| other == rule || other.judge(&state.context()).is_satisfied())
            {
                let undo = Edit { place: edit.place, value: valid.value(edit.place) };
                let back = nearest(rule, &state.context())
                    .map_or(undo, |found| Edit { place: found.place, value: found.value });
                let mut edge = state.clone();
                back.apply(&mut edge);
                let back = if edge.is_valid() { back } else { undo };
                stop = !each(Witness { rule, base, edit, back });
            }
            state.put(edit.place, valid.value(edit.place));
        });
        if stop {
            return;
        }
    }
}

/// The first witness of `rule`.
pub fn witness(rule: &'static Rule) -> Option<Witness> {
    let mut first = None;
    witnesses(rule, |witness| {
        first = Some(witness);
        false
    });
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Judgement, check_entry};

    #[test]
    fn every_rule_is_broken_alone_by_some_state_and_satisfied_at_the_edge_beside_it() {
        let mut without = Vec::new();
        for rule in &RULES {
            let Some(witness) = witness(rule) else {
                without.push(rule.id);
                continue;
            };
            let broken = witness.broken();
            assert_eq!(broken.broken(), 1, "{witness:?}");
            let refusal = check_entry(&broken.context()).unwrap_err();
            assert_eq!(refusal.rule, rule, "{witness:?}");
            let edge = witness.edge();
            assert!(edge.is_valid(), "{witness:?}");
            assert_ne!(edge, broken);
            assert_eq!(check_entry(&edge.context()), Ok(()), "{witness:?}");
        }
        assert!(without.is_empty(), "{} of {}: {without:#?}", without.len(), RULES.len());
    }

    #[test]
    fn the_nearest_value_of_every_rule_satisfies_it() {
        for rule in &RULES {
            let Some(witness) = witness(rule) else { continue };
            let mut state = witness.broken();
            let found =
                nearest(rule, &state.context()).unwrap_or_else(|| panic!("{}: no nearest value", rule.id));
            state.put(found.place, found.value);
            assert_eq!(rule.judge(&state.context()), Judgement::Satisfied, "{} {found:?}", rule.id);
        }
    }
}
