//! Drawing states from [`Choices`]: a base, variations that keep it valid, and a change aimed at one rule.

use super::State;
use super::bases::BASES;
use super::witness::{Edit, edits};
use crate::definitions::field::{Field, Kind};
use crate::rules::{RULES, Rule};
use rootmode_arch::{Choices, Site};

/// A drawn state.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The state: nearly valid.
    pub state: State,
    /// The rule that the last change was aimed at.
    pub aimed_at: &'static Rule,
}

/// A valid state: a base with up to 8 of its fields varied, each variation kept only if every rule still holds.
pub fn draw_valid(choices: &mut impl Choices) -> State {
    let base = &BASES[choices.choose(Site::State, BASES.len() as u64) as usize];
    let mut state = (base.build)();
    for _ in 0..choices.choose(Site::State, 9) {
        let field = Field::ALL[choices.choose(Site::State, Field::COUNT as u64) as usize];
        let old = state.vmcs.value(field);
        state.vmcs.set(field, vary(choices, field, old));
        if !state.is_valid() {
            state.vmcs.set(field, old);
        }
    }
    state
}

/// A state just inside or just outside a boundary: a valid one, with one to three changes aimed at one rule.
pub fn draw(choices: &mut impl Choices) -> Drawn {
    let mut state = draw_valid(choices);
    let rule = &RULES[choices.choose(Site::State, RULES.len() as u64) as usize];
    for _ in 0..=choices.choose(Site::State, 3) {
        let mut count = 0;
        edits(rule, &state, |_| count += 1);
        if count == 0 {
            break;
        }
        let chosen = choices.choose(Site::State, count);
        let mut position = 0;
        let mut edit: Option<Edit> = None;
        edits(rule, &state, |candidate| {
            if position == chosen {
                edit = Some(candidate);
            }
            position += 1;
        });
        if let Some(edit) = edit {
            edit.apply(&mut state);
        }
    }
    Drawn { state, aimed_at: rule }
}

/// Another value for `field`.
fn vary(choices: &mut impl Choices, field: Field, old: u64) -> u64 {
    let bits = u64::from(field.width().bits());
    match (choices.choose(Site::State, 4), field.kind()) {
        (0, _) => old ^ 1 << choices.choose(Site::State, bits),
        (1, Kind::Control) => old | 1 << choices.choose(Site::State, bits),
        (1 | 2, _) => old.wrapping_add(choices.choose(Site::State, 1 << 16) << 12),
        _ => choices.choose(Site::State, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::super::witness;
    use super::*;
    use crate::context::Item;
    use crate::rules::{Judgement, Missing, check_entry};
    use rootmode_arch::choices::Seeded;

    #[test]
    fn the_same_choices_draw_the_same_state() {
        let draws = |seed| {
            let mut choices = Seeded::new(seed);
            (0..20).map(|_| draw(&mut choices).state).collect::<Vec<_>>()
        };
        assert_eq!(draws(3), draws(3));
        assert_ne!(draws(3), draws(4));
    }

    #[test]
    fn drawn_states_lie_on_both_sides_of_the_boundary() {
        let mut choices = Seeded::new(1);
        let (mut valid, mut alone) = (0, 0);
        for _ in 0..1000 {
            match draw(&mut choices).state.broken() {
                0 => valid += 1,
                1 => alone += 1,
                _ => {}
            }
        }
        assert!(valid > 150 && alone > 150, "{valid} valid, {alone} that break one rule");
    }

    #[test]
    fn the_fast_path_and_the_table_refuse_the_same_states_for_the_same_rule() {
        let mut choices = Seeded::new(2);
        for _ in 0..3000 {
            let Drawn { mut state, .. } = draw(&mut choices);
            let fast = check_entry(&state.context());
            let first = RULES.iter().find(|rule| rule.judge(&state.context()).is_violated());
            assert_eq!(fast.is_err(), first.is_some());
            // No rule reads the exit reason; without it the table is asked instead.
            state.vmcs.forget(Field::ExitReason);
            assert_eq!(check_entry(&state.context()), fast);
        }
    }

    #[test]
    fn a_rule_that_lacks_what_it_read_says_what_is_missing() {
        for rule in &RULES {
            let Some(witness) = witness(rule) else { panic!("{} has no witness", rule.id) };
            let broken = witness.broken();
            for field in rule.reads(&broken.context()).fields.iter() {
                let mut state = broken.clone();
                state.vmcs.forget(field);
                let expected = Judgement::Unknown(Missing::Field(field));
                assert_eq!(rule.judge(&state.context()), expected, "{} without {field:?}", rule.id);
            }
            for item in Item::ALL {
                if rule.reads(&broken.context()).items >> *item as u32 & 1 != 0 {
                    let mut state = broken.clone();
                    state.processor.forget(*item);
                    let expected = Judgement::Unknown(Missing::Processor(*item));
                    assert_eq!(rule.judge(&state.context()), expected, "{} without {item:?}", rule.id);
                }
            }
        }
    }

    #[test]
    fn every_rule_reads_the_fields_and_values_that_it_is_about() {
        for rule in &RULES {
            let (mut fields, mut items) = (rule.fields.to_vec(), rule.items.to_vec());
            let mut look = |state: &State| {
                let reads = rule.reads(&state.context());
                fields.retain(|field| !reads.fields.has(*field));
                items.retain(|item| reads.items >> *item as u32 & 1 == 0);
            };
            BASES.iter().for_each(|base| look(&(base.build)()));
            look(&witness(rule).expect("every rule has a witness").broken());
            assert!(fields.is_empty() && items.is_empty(), "{}: {fields:?} {items:?}", rule.id);
        }
    }
}
