//! Runs many cases on all cores. The result depends on properties, cases, seed and regressions alone.

use std::iter::successors;
use std::mem::replace;
use std::ops::Range;

use rayon::prelude::*;
use rootmode_models::kvm::{Origin, Regression, Regressions};
use serde::{Deserialize, Serialize};

use super::case::{Shrunk, case_seed, judge, record, shrink};
use super::property::{Property, Verdict};
use rootmode_arch::choices::Seeded;

/// Which part of the cases to run: those whose index is `index` modulo `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// From 0.
    pub index: u64,
    /// At least 1.
    pub count: u64,
}

impl Shard {
    /// All cases.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// How many of `cases` belong to the shard.
    pub const fn share(self, cases: u64) -> u64 {
        (cases + self.count - 1 - self.index) / self.count
    }
}

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Cases per property, over all shards; of a property that costs more, so many fewer ([`Property::cost`]).
    pub cases: u64,
    /// Seed of the campaign.
    pub seed: u64,
    /// Part to run.
    pub shard: Shard,
    /// Switched on in the model.
    pub regressions: Regressions,
}

/// What the cases of one property gave. Shards of one plan add up with [`Outcome::merge`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The property's name.
    pub property: String,
    /// Cases that were run.
    pub cases: u64,
    /// Cases whose precondition did not hold.
    pub skipped: u64,
    /// Cases that failed.
    pub failures: u64,
    /// The failing case with the lowest index.
    pub first_failure: Option<u64>,
}

impl Outcome {
    const fn empty(property: String) -> Self {
        Self { property, cases: 0, skipped: 0, failures: 0, first_failure: None }
    }

    /// Adds the outcome of other cases of the same property.
    #[must_use]
    pub fn merge(mut self, other: &Self) -> Self {
        self.cases += other.cases;
        self.skipped += other.skipped;
        self.failures += other.failures;
        self.first_failure = match (self.first_failure, other.first_failure) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self
    }
}

impl Plan {
    /// Cases of `property` in the plan's shard.
    pub const fn share(&self, property: &Property) -> u64 {
        self.shard.share(property.cases_of(self.cases))
    }
}

/// Plain cases that a worker takes at a time.
const CHUNK: u64 = 512;

/// Runs `plan`'s cases of `property`; `progress` is told of finished cases.
pub fn run(property: &Property, plan: &Plan, progress: &(dyn Fn(u64) + Sync)) -> Outcome {
    let share = plan.share(property);
    let size = property.cases_of(CHUNK);
    (0..share.div_ceil(size))
        .into_par_iter()
        .map(|chunk| {
            let mut outcome = Outcome::empty(property.name.to_owned());
            let end = (chunk * size + size).min(share);
            for nth in chunk * size..end {
                let index = nth * plan.shard.count + plan.shard.index;
                let mut choices = Seeded::new(case_seed(plan.seed, property.name, index));
                outcome.cases += 1;
                match judge(property, &mut choices, plan.regressions) {
                    Verdict::Holds => {}
                    Verdict::Skipped => outcome.skipped += 1,
                    Verdict::Fails(_) => {
                        outcome.failures += 1;
                        outcome.first_failure = outcome.first_failure.or(Some(index));
                    }
                }
            }
            progress(end - chunk * size);
            outcome
        })
        .reduce(|| Outcome::empty(property.name.to_owned()), |a, b| a.merge(&b))
}

/// The first failing case of an outcome, shrunk.
pub fn counterexample(property: &Property, plan: &Plan, outcome: &Outcome) -> Option<Shrunk> {
    let seed = case_seed(plan.seed, property.name, outcome.first_failure?);
    record(property, seed, plan.regressions).map(|start| shrink(property, start, plan.regressions))
}

/// How one regression fared against all properties under one seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Campaign seed.
    pub seed: u64,
    /// Properties that failed, each with the index of the first failing case, in table order.
    pub killers: Vec<(String, u64)>,
}

/// What released kernels had, and a third of the other known bugs; `turn` says which.
pub fn sample(turn: u64) -> impl Iterator<Item = Regression> {
    let chosen = move |(number, regression): &(u64, &Regression)| {
        regression.row().origin == Origin::Released || (number + turn).is_multiple_of(3)
    };
    (0..).zip(Regression::ALL).filter(chosen).map(|(_, regression)| *regression)
}

/// Tries all properties with `regression` on, in rounds of growing length up to `bound` plain cases each, until a round
/// finds it.
/// The killers are the properties that fail within that round.
pub fn hunt(properties: &[Property], regression: Regression, seed: u64, bound: u64) -> Kill {
    let killers = rounds(bound)
        .map(|round| {
            let failing = |property| first_failure(property, regression, seed, &round);
            properties.iter().filter_map(failing).collect::<Vec<_>>()
        })
        .find(|killers| !killers.is_empty());
    Kill { seed, killers: killers.unwrap_or_default() }
}

/// Whether [`hunt`] would name a killer; ends at the first.
pub fn is_found(properties: &[Property], regression: Regression, seed: u64, bound: u64) -> bool {
    rounds(bound).any(|round| {
        properties.iter().any(|property| first_failure(property, regression, seed, &round).is_some())
    })
}

/// Plain cases of each round of a hunt.
fn rounds(bound: u64) -> impl Iterator<Item = Range<u64>> {
    let ends = successors(Some(64.min(bound)), move |&end| (end < bound).then(|| (end * 8).min(bound)));
    ends.scan(0, |start, end| Some(replace(start, end)..end))
}

/// The name of `property` and its first failing case with `regression` on, among those of a round of plain cases.
fn first_failure(
    property: &Property,
    regression: Regression,
    seed: u64,
    round: &Range<u64>,
) -> Option<(String, u64)> {
    let regressions = Regressions::NONE.with(regression);
    let round = property.cases_of(round.start)..property.cases_of(round.end);
    let found = round.into_par_iter().find_first(|&index| {
        let mut choices = Seeded::new(case_seed(seed, property.name, index));
        matches!(judge(property, &mut choices, regressions), Verdict::Fails(_))
    });
    found.map(|index| (property.name.to_owned(), index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::property::Counterexample;
    use rootmode_arch::{Choices, Site};

    fn rarely_fails(choices: &mut dyn Choices, _: Regressions) -> Verdict {
        match choices.choose(Site::State, 1000) {
            7 => Counterexample::new("seven").into(),
            n if n % 10 == 0 => Verdict::Skipped,
            _ => Verdict::Holds,
        }
    }

    const RARE: Property = Property { name: "rare", about: "", source: "", cost: 1, check: rarely_fails };

    fn plan(shard: Shard) -> Plan {
        Plan { cases: 10_001, seed: 3, shard, regressions: Regressions::NONE }
    }

    #[test]
    fn shards_add_up_to_the_unsharded_outcome() {
        let whole = run(&RARE, &plan(Shard::WHOLE), &|_| ());
        let merged = (0..4)
            .map(|index| run(&RARE, &plan(Shard { index, count: 4 }), &|_| ()))
            .reduce(|a, b| a.merge(&b))
            .unwrap();
        assert_eq!(whole, merged);
        assert_eq!(whole.cases, 10_001);
        assert!(whole.failures > 0 && whole.skipped > 500);
    }

    #[test]
    fn a_property_that_costs_more_runs_so_many_fewer_of_the_same_cases() {
        let dear = Property { cost: 100, ..RARE };
        let cases = |shard| run(&dear, &plan(shard), &|_| ()).cases;
        assert_eq!(cases(Shard::WHOLE), 101);
        assert_eq!(cases(Shard { index: 0, count: 2 }) + cases(Shard { index: 1, count: 2 }), 101);
        let one = Plan { cases: 1, ..plan(Shard::WHOLE) };
        assert_eq!(run(&dear, &one, &|_| ()).cases, 1, "never none");
    }

    #[test]
    fn the_number_of_workers_does_not_change_the_outcome() {
        let with = |jobs| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build().unwrap();
            pool.install(|| run(&RARE, &plan(Shard::WHOLE), &|_| ()))
        };
        assert_eq!(with(1), with(3));
    }
}
