//! One case: its seed, its run, its shrinking.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rootmode_arch::choices::{Choice, Choices, Recorded, Recorder, Seeded};
use rootmode_models::kvm::Regressions;

use super::property::{Counterexample, Property, Verdict};

/// The seed of case `index` of the property called `name` in a campaign with seed `seed`.
/// Depends on nothing else, so that neither workers nor shards nor the choice of other properties change a case.
pub fn case_seed(seed: u64, name: &str, index: u64) -> u64 {
    let named = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut mix = Seeded::new(seed ^ named);
    Seeded::new(mix.next() ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next()
}

/// Judges one case. A panic of the model is a failure like any other.
pub fn judge(property: &Property, choices: &mut dyn Choices, regressions: Regressions) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| (property.check)(choices, regressions))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Counterexample::new(format!("the model panicked: {text}")).into()
    })
}

/// A failing list of choices and what it shows.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The choices, as drawn by the smallest failing case found.
    pub choices: Vec<Choice>,
    /// What it shows.
    pub counterexample: Counterexample,
    /// How many cases were tried on the way.
    pub tried: u64,
}

/// How many cases shrinking may try: fewer of those that cost more, but enough for a list of some dozen choices.
const fn shrink_bound(property: &Property) -> u64 {
    const PLAIN: u64 = 20_000;
    const LEAST: u64 = 400;
    let bound = PLAIN / property.cost;
    if bound < LEAST { LEAST } else { bound }
}

/// Records the choices of a failing seed; `None` if the case does not fail.
pub fn record(property: &Property, seed: u64, regressions: Regressions) -> Option<Shrunk> {
    let mut recorder = Recorder::new(Seeded::new(seed));
    match judge(property, &mut recorder, regressions) {
        Verdict::Fails(counterexample) => Some(Shrunk { choices: recorder.list, counterexample, tried: 1 }),
        Verdict::Holds | Verdict::Skipped => None,
    }
}

/// Makes the list shorter and its numbers smaller while the property still fails: spans are dropped, largest first,
/// then each number is bisected towards 0. Deterministic; ends when a whole pass changes nothing.
pub fn shrink(property: &Property, start: Shrunk, regressions: Regressions) -> Shrunk {
    let mut best = start;
    loop {
        let before = best.choices.clone();
        drop_spans(property, &mut best, regressions);
        lower_numbers(property, &mut best, regressions);
        if best.choices == before || best.tried >= shrink_bound(property) {
            return best;
        }
    }
}

fn drop_spans(property: &Property, best: &mut Shrunk, regressions: Regressions) {
    let mut span = best.choices.len();
    while span > 0 {
        let mut start = best.choices.len().saturating_sub(span);
        loop {
            if start < best.choices.len() {
                let mut shorter = best.choices.clone();
                shorter.drain(start..(start + span).min(best.choices.len()));
                attempt(property, best, shorter, regressions);
            }
            if start == 0 {
                break;
            }
            start = start.saturating_sub(span);
        }
        span /= 2;
    }
}

fn lower_numbers(property: &Property, best: &mut Shrunk, regressions: Regressions) {
    let mut position = 0;
    while position < best.choices.len() {
        let mut low = 0;
        while let Some(choice) = best.choices.get(position).filter(|c| low < c.k) {
            // 0 first: it is the tamest, and often fails where the middle does not.
            let middle = if low == 0 { 0 } else { low + (choice.k - low) / 2 };
            let mut smaller = best.choices.clone();
            smaller[position].k = middle;
            if !attempt(property, best, smaller, regressions) {
                low = middle + 1;
            }
        }
        position += 1;
    }
}

/// Runs `list`; if it fails and is smaller than the best so far, it becomes the best.
fn attempt(property: &Property, best: &mut Shrunk, list: Vec<Choice>, regressions: Regressions) -> bool {
    if best.tried >= shrink_bound(property) {
        return false;
    }
    best.tried += 1;
    let mut recorder = Recorder::new(Recorded::new(list));
    let Verdict::Fails(counterexample) = judge(property, &mut recorder, regressions) else { return false };
    let mut found = recorder.list;
    while found.last().is_some_and(|c| c.k == 0) {
        found.pop();
    }
    let size = |list: &[Choice]| (list.len(), list.iter().map(|c| c.k).collect::<Vec<_>>());
    if size(&found) >= size(&best.choices) {
        return false;
    }
    best.choices = found;
    best.counterexample = counterexample;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_arch::Site;

    fn sums_stay_below_fifty(choices: &mut dyn Choices, _: Regressions) -> Verdict {
        let n = choices.choose(Site::Sequence, 20);
        let sum: u64 = (0..n).map(|_| choices.choose(Site::State, 100)).sum();
        if sum < 50 { Verdict::Holds } else { Counterexample::new(format!("sum {sum}")).into() }
    }

    const SUMS: Property = Property {
        name: "sums",
        about: "sums stay below 50",
        source: "none",
        cost: 1,
        check: sums_stay_below_fifty,
    };

    #[test]
    fn a_counterexample_shrinks_to_the_smallest_failing_case() {
        let shrunk = (0..100)
            .find_map(|index| record(&SUMS, case_seed(1, "sums", index), Regressions::NONE))
            .map(|start| shrink(&SUMS, start, Regressions::NONE))
            .expect("one of a hundred sums reaches 50");
        assert_eq!(shrunk.choices.iter().map(|c| c.k).collect::<Vec<_>>(), [1, 50]);
        assert_eq!(shrunk.counterexample.message, "sum 50");
    }

    #[test]
    fn a_panic_of_the_model_is_a_counterexample() {
        let property = Property { check: |_, _| panic!("index 9"), ..SUMS };
        let verdict = judge(&property, &mut Seeded::new(0), Regressions::NONE);
        assert!(matches!(verdict, Verdict::Fails(c) if c.message.contains("index 9")));
    }
}
