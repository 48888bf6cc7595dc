//! Golden lists: which tests pass and which are skipped, one a line, so that a test lost is a failure.
//!
//! Lines that begin with `#` are comments. A line is `PASS cpu/name lines` or `SKIP cpu/name`; `SKIP cpu/name: text` is a line that a test skips inside.

use std::collections::BTreeSet;

use super::outcome::{Kind, Outcome, Verdict};

/// The list that takes the place of `golden` (or of an empty text): its head, and these outcomes. Of a part of a suite, the
/// lines of the tests that did not run stay.
pub fn list(golden: &str, outcomes: &[Outcome], part: bool) -> String {
    let mut entries = entries(outcomes);
    if part {
        let ran = names(outcomes);
        let others = lines(golden).filter(|line| name(line).is_none_or(|name| !ran.contains(name)));
        entries.extend(others.map(str::to_owned));
    }
    let head = golden.lines().take_while(|line| line.starts_with('#')).map(str::to_owned);
    head.chain(entries).map(|line| line + "\n").collect()
}

fn entries(outcomes: &[Outcome]) -> BTreeSet<String> {
    let mut entries = BTreeSet::new();
    for outcome in outcomes {
        let name = format!("{}/{}", outcome.cpu.text(), outcome.name);
        match outcome.verdict {
            Verdict::Fail => continue,
            Verdict::Skip => drop(entries.insert(format!("SKIP {name}"))),
            Verdict::Pass => {
                entries.insert(format!("PASS {name} {}", outcome.count(Kind::Pass)));
                let skipped = outcome.lines.iter().filter(|line| line.kind == Kind::Skip);
                entries.extend(skipped.map(|line| format!("SKIP {name}: {}", line.text)));
            }
        }
    }
    entries
}

/// What differs between a golden list and these outcomes: `-` is missing, `+` is new. Of a part of a suite, only its own
/// tests are compared.
pub fn differences(golden: &str, outcomes: &[Outcome], part: bool) -> Vec<String> {
    let ran = names(outcomes);
    let asked = |line: &str| !part || name(line).is_some_and(|name| ran.contains(name));
    let expected: BTreeSet<String> = lines(golden).filter(|line| asked(line)).map(str::to_owned).collect();
    let found = entries(outcomes);
    let missing = expected.difference(&found).map(|line| format!("- {line}"));
    missing.chain(found.difference(&expected).map(|line| format!("+ {line}"))).collect()
}

/// The test that a line is about: `cpu/name`.
fn name(line: &str) -> Option<&str> {
    let test = line.split_once(' ')?.1;
    let end = if line.starts_with("PASS") { test.rsplit_once(' ') } else { test.split_once(": ") };
    Some(end.map_or(test, |(test, _)| test))
}

/// The tests that ran.
fn names(outcomes: &[Outcome]) -> BTreeSet<String> {
    outcomes.iter().map(|outcome| format!("{}/{}", outcome.cpu.text(), outcome.name)).collect()
}

/// The lines of a list that say something.
fn lines(golden: &str) -> impl Iterator<Item = &str> {
    golden.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'))
}
