//! [`Passed`]: what allowed entries looked at, section by section, so that the next entry asks again only where
//! something changed.

use super::{Refusal, SECTIONS, Section, View, check_entry};
use crate::context::{EntryContext, Processor};
use crate::definitions::field::FieldSet;

/// A section that had to be asked again as often as this is not worth remembering.
const RESTLESS: u8 = 4;

const _: () = assert!(SECTIONS.len() < 32, "one bit of `asked` a section");

/// What is known of a section.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    /// While none of these fields changes, the section holds.
    holds: Option<FieldSet>,
    /// How often that was found and lost.
    restless: u8,
}

/// Sections that hold, and what that rests on. Of one VMCS: [`Default`] for another.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// The processor as it was then.
    processor: Option<Processor>,
    sections: [Rest; SECTIONS.len()],
    /// The fields that any of those rests on which are known to hold.
    resting: FieldSet,
    /// The others, one bit each.
    asked: u32,
    /// Whether an entry was allowed before.
    entered: bool,
}

impl Passed {
    /// [`check_entry`]: the same answer. `changed` are the fields that were written since the last call, and is cleared.
    ///
    /// # Errors
    /// As [`check_entry`].
    pub fn check_entry(&mut self, context: &EntryContext<'_>, changed: &mut FieldSet) -> Result<(), Refusal> {
        let changed = core::mem::take(changed);
        if !context.is_complete() || !self.hold(context, &changed) {
            *self = Self::default();
            return check_entry(context);
        }
        debug_assert_eq!(check_entry(context), Ok(()), "what the sections rest on did not change");
        Ok(())
    }

    fn hold(&mut self, context: &EntryContext<'_>, changed: &FieldSet) -> bool {
        let known = self.processor.as_ref() == Some(context.processor);
        if !known {
            self.processor = Some(context.processor.clone());
            self.sections.iter_mut().for_each(|rest| rest.holds = None);
        }
        // A VMCS that is entered once is not worth more than the checks themselves.
        let learn = core::mem::replace(&mut self.entered, true);
        let view = View::new(context);
        let all = (1 << SECTIONS.len()) - 1;
        let mut left = if known && learn && !self.resting.meets(changed) { self.asked } else { all };
        let mut learnt = left == all;
        while left != 0 {
            let number = left.trailing_zeros() as usize;
            left &= left - 1;
            let (section, rest) = (&SECTIONS[number], &mut self.sections[number]);
            if let Some(fields) = &rest.holds {
                if !fields.meets(changed) {
                    continue;
                }
                rest.holds = None;
                rest.restless += 1;
            }
            if !(section.all_hold)(&view) {
                return false;
            }
            if learn && rest.restless < RESTLESS {
                rest.holds = section.fields_read(context);
                if rest.holds.is_none() {
                    rest.restless = RESTLESS;
                }
                learnt = true;
            }
        }
        if learnt {
            self.sum_up();
        }
        true
    }

    /// After [`Self::sections`] changed.
    fn sum_up(&mut self) {
        (self.resting, self.asked) = (FieldSet::none(), 0);
        for (number, rest) in self.sections.iter().enumerate() {
            match &rest.holds {
                Some(fields) => self.resting = self.resting.union(fields),
                None => self.asked |= 1 << number,
            }
        }
    }
}

impl Section {
    /// The fields that its rules read; `None` if they read memory, whose changes nobody reports.
    #[cold]
    fn fields_read(&self, context: &EntryContext<'_>) -> Option<FieldSet> {
        let reads = self.rules.iter().map(|rule| rule.reads(context));
        reads.into_iter().try_fold(FieldSet::none(), |all, reads| {
            reads.memory[0].is_none().then(|| all.union(&reads.fields))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::bases::BASES;
    use crate::context::NoMemory;
    use crate::definitions::field::Field;
    use rootmode_arch::choices::Seeded;

    #[test]
    fn the_answer_is_check_entrys_whatever_changes_in_between() {
        let mut random = Seeded::new(1);
        for base in BASES {
            let built = (base.build)();
            let (mut vmcs, mut changed, mut passed) =
                (built.vmcs.clone(), FieldSet::none(), Passed::default());
            let mut refused = 0;
            for round in 0..2000 {
                let context = EntryContext {
                    vmcs: &vmcs,
                    capabilities: &built.capabilities,
                    processor: &built.processor,
                    memory: &NoMemory,
                };
                let answer = passed.check_entry(&context, &mut changed);
                assert_eq!(answer, check_entry(&context), "{} round {round}", base.name);
                refused += u32::from(answer.is_err());
                if answer.is_err() {
                    vmcs = built.vmcs.clone();
                    changed = FieldSet::all();
                }
                if random.next().is_multiple_of(2) {
                    let field = Field::ALL[random.next() as usize % Field::COUNT];
                    vmcs.set(field, vmcs.value(field) ^ 1 << (random.next() % 64));
                    changed.insert(field);
                }
            }
            assert!(refused > 20, "{}: {refused}", base.name);
        }
    }

    #[test]
    fn a_section_that_holds_is_not_asked_again() {
        let built = (BASES[0].build)();
        let context = EntryContext {
            vmcs: &built.vmcs,
            capabilities: &built.capabilities,
            processor: &built.processor,
            memory: &NoMemory,
        };
        let mut passed = Passed::default();
        for _ in 0..2 {
            passed.check_entry(&context, &mut FieldSet::none()).unwrap();
        }
        let known = passed.sections.iter().filter(|rest| rest.holds.is_some()).count();
        assert!(known > SECTIONS.len() / 2, "{known} of {}", SECTIONS.len());
        let mut changed = FieldSet::none();
        changed.insert(Field::GuestCsRights);
        passed.check_entry(&context, &mut changed).unwrap();
        assert!(passed.sections.iter().any(|rest| rest.restless == 1));
        assert!(passed.sections.iter().any(|rest| rest.restless == 0));
    }
}
