//! States just inside and just outside every rule: for tests of this crate and of others, and for campaigns.
//!
//! [`WITNESSES`] has for every rule states that violate it alone and states at its edge that violate nothing.
//! [`nearly_valid`] draws a valid guest in some mode with some features and moves it across a few boundaries.
//!
//! ```
//! use rootmode_arch::Tame;
//! use rootmode_svm::boundary::{WITNESSES, nearly_valid};
//! use rootmode_svm::rules::{Verdict, check_entry};
//! let case = nearly_valid(&mut Tame); // the tamest choices: nothing is wrong
//! assert_eq!(check_entry(&case.context()), Verdict::Enters);
//! let broken = WITNESSES[0].violation(0);
//! assert!(matches!(check_entry(&broken.context()), Verdict::Refused(rule) if rule.id == WITNESSES[0].rule));
//! ```

mod base;
mod witness;

pub use base::{Case, Extras, Mode, Pdpes, base};
pub use witness::{WITNESSES, Witness};

use crate::rules::RULES;
use crate::vmcb::Field;
use rootmode_arch::{Choices, Site};

/// The 64-bit values that checks tend to get wrong: powers of two, their neighbours, patterns.
pub fn interesting_value(choices: &mut dyn Choices) -> u64 {
    let bit = choices.choose(Site::State, 64);
    let power = 1u64 << bit;
    match choices.choose(Site::State, 6) {
        0 => 0,
        1 => power,
        2 => power - 1,
        3 => !power,
        4 => u64::MAX,
        _ => choices.choose(Site::State, u64::MAX),
    }
}

/// A case that is valid, or a few steps across boundaries away from it. All-zero choices give a valid one.
pub fn nearly_valid(choices: &mut dyn Choices) -> Case {
    let mut case =
        base(Mode::ALL[choices.choose(Site::State, Mode::ALL.len() as u64) as usize], Extras::draw(choices));
    for _ in 0..choices.choose(Site::State, 4) {
        step(&mut case, choices);
    }
    case
}

/// One step: one side of a witness, or a bit or a value of a field that some rule reads.
fn step(case: &mut Case, choices: &mut dyn Choices) {
    let witness = &WITNESSES[choices.choose(Site::State, WITNESSES.len() as u64) as usize];
    match choices.choose(Site::State, 4) {
        0 => witness.edit(choices.choose(Site::State, witness.edges() as u64) as usize, false)(case),
        1 => witness.edit(choices.choose(Site::State, witness.violations() as u64) as usize, true)(case),
        how => {
            let rule = &RULES[choices.choose(Site::State, RULES.len() as u64) as usize];
            let field: Field = rule.fields[choices.choose(Site::State, rule.fields.len() as u64) as usize];
            if how == 2 {
                let bit = choices.choose(Site::State, field.size() as u64 * 8);
                case.change(field, |value| value ^ 1 << bit);
            } else {
                let value = interesting_value(choices);
                case.change(field, |_| value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
