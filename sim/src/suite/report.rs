//! Outcomes as text (upstream's), TAP 13, and JUnit's XML. JSON is the outcomes themselves.

use std::fmt::Write as _;

use super::outcome::{Kind, Line, Outcome, Verdict};

/// Upstream's result line without colours: `PASS name (summary)`, `SKIP name (reason)`.
pub fn text(outcome: &Outcome) -> String {
    let word = match outcome.verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Skip => "SKIP",
    };
    let detail = outcome.reason.as_ref().or(outcome.summary.as_ref());
    let detail = detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("{word} {}{detail}", outcome.name)
}

/// A test point: what TAP and JUnit count. An outcome whose lines do not say how it ended gets one point more that does.
struct Point<'a> {
    kind: Kind,
    text: &'a str,
}

fn points(outcome: &Outcome) -> Vec<Point<'_>> {
    let counted = |line: &&Line| matches!(line.kind, Kind::Pass | Kind::Fail | Kind::Xpass | Kind::Skip);
    let kind = |line: &Line| if line.kind == Kind::Xpass { Kind::Fail } else { line.kind };
    let lines = outcome.lines.iter().filter(counted);
    let mut points: Vec<Point<'_>> = lines.map(|line| Point { kind: kind(line), text: &line.text }).collect();
    let kind = Kind::from(outcome.verdict);
    // A failure's reason is what no line says.
    let unsaid = outcome.verdict == Verdict::Fail && outcome.reason.is_some();
    if unsaid || !points.iter().any(|point| point.kind == kind) {
        let text = outcome.reason.as_deref().or(outcome.summary.as_deref()).unwrap_or("");
        points.push(Point { kind, text });
    }
    points
}

/// The outcomes as TAP version 13, with the plan behind the last point as upstream prints it.
pub fn tap(outcomes: &[Outcome]) -> String {
    let mut out = String::from("TAP version 13\n");
    let mut number = 0;
    for outcome in outcomes {
        for point in points(outcome) {
            number += 1;
            let (word, skip) = match point.kind {
                Kind::Fail => ("not ok", ""),
                Kind::Skip => ("ok", " # skip"),
                _ => ("ok", ""),
            };
            // A '#' in the text would begin a directive.
            let text = point.text.replace('#', "\\#");
            let name = format!("{}@{}", outcome.name, outcome.cpu.text());
            let _ = writeln!(out, "{word} {number} - {name}: {text}{skip}");
        }
    }
    let _ = writeln!(out, "1..{number}");
    out
}

/// The outcomes as JUnit's XML: a test suite an outcome, a test case a point.
pub fn junit(outcomes: &[Outcome]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for outcome in outcomes {
        let points = points(outcome);
        let count = |kind| points.iter().filter(|point| point.kind == kind).count();
        let name = xml(&format!("{}@{}", outcome.name, outcome.cpu.text()));
        let _ = writeln!(
            out,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
            points.len(),
            count(Kind::Fail),
            count(Kind::Skip),
            outcome.seconds
        );
        for point in &points {
            let text = xml(point.text);
            let title = if text.is_empty() { &name } else { &text };
            let _ = write!(out, "    <testcase classname=\"{name}\" name=\"{title}\"");
            let _ = match point.kind {
                Kind::Fail => writeln!(out, "><failure message=\"{text}\"/></testcase>"),
                Kind::Skip => writeln!(out, "><skipped message=\"{text}\"/></testcase>"),
                _ => writeln!(out, "/>"),
            };
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// Text inside an attribute. Characters that XML 1.0 cannot hold become U+FFFD.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#9;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
