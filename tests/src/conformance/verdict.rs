//! What came of each test, as libtest prints it, and what is known about those that do not pass.

use std::collections::BTreeMap;

use serde::Serialize;

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// The crate skipped it.
    Skipped,
}

impl Verdict {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// The tests of a run, by name. What the crate's own tests print between a name and its verdict does not matter.
pub(super) fn parse(output: &str) -> Vec<(String, Verdict)> {
    let mut verdicts = BTreeMap::new();
    for line in output.lines() {
        let Some((name, verdict)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... "))
        else {
            continue;
        };
        let verdict = match verdict.trim() {
            "ok" => Verdict::Passed,
            ignored if ignored.starts_with("ignored") => Verdict::Skipped,
            _ => Verdict::Failed,
        };
        verdicts.insert(name.to_owned(), verdict);
    }
    verdicts.into_iter().collect()
}

/// The list of tests that do not pass.
pub(super) struct Expected(BTreeMap<String, String>);

impl Expected {
    /// Reads the committed list.
    pub(super) fn read() -> Result<Self, String> {
        Self::of(include_str!("../../kvm-ioctls/expected.txt"))
    }

    fn of(text: &str) -> Result<Self, String> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines
            .map(|line| {
                let (test, reason) = line.split_once(": ").ok_or_else(|| format!("no reason in {line:?}"))?;
                Ok((test.to_owned(), reason.to_owned()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Why a test does not pass, if it is listed.
    pub(super) fn reason(&self, test: &str) -> Option<String> {
        self.0.get(test).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_from_the_lines_of_a_run() {
        let output = "running 4 tests\ntest a::b ... ok\ntest a::c ... FAILED\ntest d ... ignored\ntest e ... ignored, why\n\
            test result: FAILED. 1 passed; 1 failed\n";
        let verdicts = parse(output);
        let expected = [
            ("a::b", Verdict::Passed),
            ("a::c", Verdict::Failed),
            ("d", Verdict::Skipped),
            ("e", Verdict::Skipped),
        ];
        assert_eq!(verdicts, expected.map(|(name, verdict)| (name.to_owned(), verdict)));
    }

    #[test]
    fn every_listed_test_has_a_reason() {
        assert!(!Expected::read().unwrap_or_else(|error| panic!("{error}")).0.is_empty());
        assert!(Expected::of("a::b\n").is_err());
    }
}
