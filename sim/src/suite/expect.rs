//! Golden lists: which tests pass and which are skipped, one a line, so that a test lost is a failure.
//!
//! Lines that begin with `#` are comments. A line is `PASS cpu/name lines` or `SKIP cpu/name`; `SKIP cpu/name: text` is a line that a test skips inside.

use std::collections::BTreeSet;

use super::outcome::{Kind, Outcome, Verdict};

/// The list of these outcomes.
pub fn list(outcomes: &[Outcome]) -> String {
    entries(outcomes).into_iter().map(|entry| entry + "\n").collect()
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
    let ran: BTreeSet<String> = outcomes.iter().map(|o| format!("{}/{}", o.cpu.text(), o.name)).collect();
    let asked = |line: &str| !part || name(line).is_some_and(|name| ran.contains(name));
    let lines = golden.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let expected: BTreeSet<String> = lines.filter(|line| asked(line)).map(str::to_owned).collect();
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

/// The comment at the head of a golden list.
pub fn head(golden: &str) -> String {
    golden.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}
