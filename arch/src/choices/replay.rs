//! Choice back ends that keep a list: recording, replaying, and trying everything.

use super::{Choices, Site};

/// One choice that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Choice {
    /// Where.
    pub site: Site,
    /// Among how many.
    pub n: u64,
    /// Which, below `n`.
    pub k: u64,
}

/// What is wrong with a list of choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChoiceError {
    /// A line is not `site n k` with a known site and `k < n`.
    Line {
        /// Line number, from 1.
        line: usize,
        /// The text.
        text: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The machine asked for something else than what was recorded.
    Mismatch {
        /// Position in the list, from 0.
        position: usize,
        /// What the list has there.
        recorded: Choice,
        /// The site that the machine asked at.
        site: Site,
        /// The number of alternatives it offered.
        n: u64,
    },
}

impl core::fmt::Display for ChoiceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Line { line, text, expected } => write!(f, "line {line}: `{text}`: expected {expected}"),
            Self::Mismatch { position, recorded, site, n } => write!(
                f,
                "choice {position}: recorded `{} {} {}`, but the machine asked `{} {n}`",
                recorded.site.name(),
                recorded.n,
                recorded.k,
                site.name()
            ),
        }
    }
}

impl std::error::Error for ChoiceError {}

/// Writes `choices` as text, one `site n k` a line.
pub fn format_choices(choices: &[Choice]) -> String {
    choices.iter().map(|c| format!("{} {} {}\n", c.site.name(), c.n, c.k)).collect()
}

/// Reads what [`format_choices`] wrote. Empty lines and `#` comments are skipped.
///
/// # Errors
/// [`ChoiceError::Line`] names the first line that is not `site n k`.
pub fn parse_choices(text: &str) -> Result<Vec<Choice>, ChoiceError> {
    let mut choices = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let line = raw.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let error = |expected| ChoiceError::Line { line: index + 1, text: raw.to_owned(), expected };
        let mut words = line.split_whitespace();
        let mut word = || words.next().ok_or_else(|| error("`site n k`"));
        let site = Site::from_name(word()?).ok_or_else(|| error("a known site name first"))?;
        let n = word()?.parse().map_err(|_| error("a number of alternatives"))?;
        let k = word()?.parse().map_err(|_| error("a number of the alternative taken"))?;
        if words.next().is_some() {
            return Err(error("nothing after `site n k`"));
        }
        if k >= n {
            return Err(error("k below n"));
        }
        choices.push(Choice { site, n, k });
    }
    Ok(choices)
}

/// Passes choices through and keeps the list.
#[derive(Clone, Debug)]
pub struct Recorder<C> {
    inner: C,
    /// What was chosen so far.
    pub list: Vec<Choice>,
}

impl<C: Choices> Recorder<C> {
    /// Records what `inner` chooses.
    pub const fn new(inner: C) -> Self {
        Self { inner, list: Vec::new() }
    }
}

impl<C: Choices> Choices for Recorder<C> {
    fn choose(&mut self, site: Site, n: u64) -> u64 {
        let k = self.inner.choose(site, n);
        self.list.push(Choice { site, n, k });
        k
    }
    fn copy(&self) -> Option<Box<dyn Choices + Send>> {
        let inner = self.inner.copy()?;
        Some(Box::new(Recorder { inner, list: self.list.clone() }))
    }
}

/// Replays a list. Past its end every answer is 0, so that a shortened list is still a whole schedule.
/// A question that does not match the list is answered with the recorded number modulo `n`, and remembered as [`Recorded::mismatch`].
#[derive(Clone, Debug)]
pub struct Recorded {
    list: Vec<Choice>,
    position: usize,
    mismatch: Option<ChoiceError>,
}

impl Recorded {
    /// Replays `list` from its start.
    pub const fn new(list: Vec<Choice>) -> Self {
        Self { list, position: 0, mismatch: None }
    }
    /// The first question that did not match the list.
    pub const fn mismatch(&self) -> Option<&ChoiceError> {
        self.mismatch.as_ref()
    }
    /// How many choices of the list were used.
    pub const fn used(&self) -> usize {
        self.position
    }
}

impl Choices for Recorded {
    fn choose(&mut self, site: Site, n: u64) -> u64 {
        let Some(&recorded) = self.list.get(self.position) else { return 0 };
        if (recorded.site, recorded.n) != (site, n) && self.mismatch.is_none() {
            self.mismatch = Some(ChoiceError::Mismatch { position: self.position, recorded, site, n });
        }
        self.position += 1;
        recorded.k % n.max(1)
    }
    fn copy(&self) -> Option<Box<dyn Choices + Send>> {
        Some(Box::new(self.clone()))
    }
}

/// Tries every combination, depth first, up to a bound on the number of runs.
#[derive(Clone, Debug)]
pub struct Exhaustive {
    path: Vec<(u64, u64)>,
    position: usize,
    runs: u64,
    bound: u64,
    finished: bool,
}

impl Exhaustive {
    /// At most `bound` runs.
    pub const fn new(bound: u64) -> Self {
        Self { path: Vec::new(), position: 0, runs: 0, bound, finished: false }
    }

    /// Starts the next run; false when all combinations were tried or the bound is reached.
    pub fn begin(&mut self) -> bool {
        if self.runs > 0 {
            self.path.truncate(self.position);
            while let Some((k, n)) = self.path.pop() {
                if k + 1 < n {
                    self.path.push((k + 1, n));
                    break;
                }
            }
            self.finished = self.path.is_empty();
        }
        self.position = 0;
        if self.finished || self.runs == self.bound {
            return false;
        }
        self.runs += 1;
        true
    }

    /// Whether every combination was tried (rather than the bound reached).
    pub const fn is_complete(&self) -> bool {
        self.finished
    }
}

impl Choices for Exhaustive {
    fn choose(&mut self, _: Site, n: u64) -> u64 {
        if self.position == self.path.len() {
            self.path.push((0, n.max(1)));
        }
        let (k, _) = self.path[self.position];
        self.position += 1;
        k
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choices::Seeded;

    #[test]
    fn a_recording_replays_to_the_same_answers() {
        let mut recorder = Recorder::new(Seeded::new(7));
        let drawn: Vec<u64> = (1..50).map(|n| recorder.choose(Site::Program, n)).collect();
        let text = format_choices(&recorder.list);
        let mut replay = Recorded::new(parse_choices(&text).unwrap());
        let again: Vec<u64> = (1..50).map(|n| replay.choose(Site::Program, n)).collect();
        assert_eq!(drawn, again);
        assert_eq!(replay.mismatch(), None);
        assert_eq!(replay.choose(Site::Program, 9), 0);
    }

    #[test]
    fn a_question_that_was_not_recorded_is_reported_with_its_place() {
        let mut replay = Recorded::new(parse_choices("task 3 2\n# comment\nfault 2 1\n").unwrap());
        assert_eq!(replay.choose(Site::Task, 3), 2);
        replay.choose(Site::Task, 2);
        assert!(matches!(replay.mismatch(), Some(ChoiceError::Mismatch { position: 1, .. })));
    }

    #[test]
    fn a_bad_line_is_named_by_number() {
        for (text, line) in
            [("nosuch 1 0", 1), ("task 1 0\ntask 2 2", 2), ("task x 0", 1), ("task 2 1 7", 1), ("task 2", 1)]
        {
            match parse_choices(text) {
                Err(ChoiceError::Line { line: found, .. }) => assert_eq!(found, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn exhaustive_choices_cover_a_tree_of_uneven_depth() {
        let mut all = Exhaustive::new(100);
        let mut leaves = Vec::new();
        while all.begin() {
            let a = all.choose(Site::Task, 3);
            leaves.push(if a == 1 { (a, all.choose(Site::Fault, 2)) } else { (a, 9) });
        }
        assert_eq!(leaves, [(0, 9), (1, 0), (1, 1), (2, 9)]);
        assert!(all.is_complete());
        let mut bounded = Exhaustive::new(2);
        let mut runs = 0;
        while bounded.begin() {
            bounded.choose(Site::Task, 10);
            runs += 1;
        }
        assert_eq!((runs, bounded.is_complete()), (2, false));
    }
}
