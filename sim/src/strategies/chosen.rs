//! [`chosen`]: a proptest strategy from a function that draws from [`Choices`].

use std::fmt;
use std::rc::Rc;

use proptest::strategy::{NewTree, Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rootmode_arch::choices::{Choice, Choices, Recorded, Recorder, Seeded};

type Generator<T> = Rc<dyn Fn(&mut dyn Choices) -> T>;

/// A strategy whose values are functions of a list of choices; made by [`chosen`].
#[derive(Clone)]
pub struct Chosen<T> {
    generate: Generator<T>,
}

/// The strategy of what `generate` draws.
pub fn chosen<T: fmt::Debug>(generate: impl Fn(&mut dyn Choices) -> T + 'static) -> Chosen<T> {
    Chosen { generate: Rc::new(generate) }
}

impl<T> fmt::Debug for Chosen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chosen")
    }
}

impl<T: fmt::Debug> Strategy for Chosen<T> {
    type Tree = ChosenTree<T>;
    type Value = T;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let seed = proptest::num::u64::ANY.new_tree(runner)?.current();
        let mut recorder = Recorder::new(Seeded::new(seed));
        (self.generate)(&mut recorder);
        let list = recorder.list;
        let step = Step::first(&list);
        Ok(ChosenTree {
            generate: Rc::clone(&self.generate),
            current: list.clone(),
            list,
            accepted: step,
            step,
        })
    }
}

/// The next thing to try: drop a span, or lower a number.
#[derive(Clone, Copy, Debug)]
enum Step {
    Drop { span: usize, end: usize },
    Lower { position: usize, low: u64 },
    Done,
}

impl Step {
    const fn first(list: &[Choice]) -> Self {
        Self::Drop { span: list.len(), end: list.len() }
    }
}

/// A value on its way to a smaller one.
pub struct ChosenTree<T> {
    generate: Generator<T>,
    /// The smallest list known to fail (or the first one).
    list: Vec<Choice>,
    /// The list that `current` shows.
    current: Vec<Choice>,
    /// Where to go on if the candidate is refused.
    step: Step,
    /// Where to go on if the candidate becomes the best.
    accepted: Step,
}

impl<T> ChosenTree<T> {
    /// Puts the next candidate into `current` and moves on, as if it were refused; false when nothing is left.
    fn propose(&mut self) -> bool {
        loop {
            match self.step {
                Step::Drop { span: 0, .. } => self.step = Step::Lower { position: 0, low: 0 },
                Step::Drop { span, end } if end == 0 || end > self.list.len() => {
                    let span = if end == 0 { span / 2 } else { span.min(self.list.len()) };
                    self.step = Step::Drop { span, end: self.list.len() };
                    if self.list.is_empty() {
                        self.step = Step::Done;
                    }
                }
                Step::Drop { span, end } => {
                    let start = end.saturating_sub(span);
                    self.current = [&self.list[..start], &self.list[end..]].concat();
                    self.step = Step::Drop { span, end: start };
                    self.accepted = self.step;
                    return true;
                }
                Step::Lower { position, low } => match self.list.get(position) {
                    None => self.step = Step::Done,
                    Some(choice) if low >= choice.k => {
                        self.step = Step::Lower { position: position + 1, low: 0 };
                    }
                    Some(choice) => {
                        let middle = low + (choice.k - low) / 2;
                        self.current = self.list.clone();
                        self.current[position].k = middle;
                        self.step = Step::Lower { position, low: middle + 1 };
                        self.accepted = Step::Lower { position, low };
                        return true;
                    }
                },
                Step::Done => return false,
            }
        }
    }
}

impl<T: fmt::Debug> ValueTree for ChosenTree<T> {
    type Value = T;

    fn current(&self) -> T {
        (self.generate)(&mut Recorded::new(self.current.clone()))
    }

    /// Called when the current value fails: it becomes the best, and the next candidate is proposed.
    fn simplify(&mut self) -> bool {
        self.list.clone_from(&self.current);
        self.step = self.accepted;
        self.propose()
    }

    /// Called when the current value passes: the candidate is dropped, and the next one proposed.
    fn complicate(&mut self) -> bool {
        let more = self.propose();
        if !more {
            self.current.clone_from(&self.list);
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::test_runner::{Config, TestError};
    use rootmode_arch::Site;

    #[test]
    fn a_failing_value_shrinks_to_the_smallest() {
        let strategy = chosen(|c| {
            let n = c.choose(Site::Sequence, 30);
            (0..n).map(|_| c.choose(Site::State, 1000)).collect::<Vec<u64>>()
        });
        let mut runner = TestRunner::new_with_rng(
            Config { failure_persistence: None, ..Config::default() },
            proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
        );
        let result = runner.run(&strategy, |list| {
            if list.iter().any(|n| *n >= 300) {
                return Err(proptest::test_runner::TestCaseError::fail("a number of 300 or more"));
            }
            Ok(())
        });
        let Err(TestError::Fail(_, smallest)) = result else { panic!("expected a failure, got {result:?}") };
        assert_eq!(smallest, [300]);
    }
}
