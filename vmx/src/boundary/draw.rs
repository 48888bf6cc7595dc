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
