//! `rootmode-tests kvm-ioctls`: the unit tests of the published kvm-ioctls crate, on the model.
//!
//! The crate comes from the registry, at the version that `models/kvm-ioctls` stands in for, and is not changed. What it
//! makes system calls through, the vmm-sys-util crate, is replaced by `tests/kvm-ioctls/facade.rs`, which asks
//! `models/kvm-process` instead. Everything is put together in the build folder; nothing of it is committed.

mod scratch;
mod verdict;

use std::process::{Command, Stdio};

use clap::Args;
use serde::Serialize;

use crate::documents::cargo;
use crate::table::{Format, Row};
use verdict::{Expected, Verdict};

/// Arguments of `rootmode-tests kvm-ioctls`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to print.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Whose processors the host has; both if left out.
    #[arg(long, value_name = "VENDOR", value_parser = ["intel", "amd"])]
    vendor: Option<String>,
}

/// The vendors whose processors the model's host can have, as `ROOTMODE_VENDOR` names them.
const VENDORS: [&str; 2] = ["intel", "amd"];

/// One test on one vendor's processors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    test: String,
    vendor: &'static str,
    verdict: Verdict,
    /// Why it does not pass, if that is known.
    reason: Option<String>,
}

/// A run over all of them.
#[derive(Debug, Serialize)]
struct Report {
    version: String,
    passed: usize,
    tests: usize,
    lines: Vec<Line>,
}

impl Report {
    /// Whether everything that is not listed passes, and nothing that is listed does.
    fn as_expected(&self) -> bool {
        self.lines.iter().all(|line| (line.verdict == Verdict::Passed) == line.reason.is_none())
    }

    fn print(&self) {
        for Line { test, vendor, verdict, reason } in &self.lines {
            let reason = reason.as_ref().map_or_else(String::new, |reason| format!("  {reason}"));
            println!("{vendor:<6} {:<9} {test}{reason}", verdict.name());
        }
        println!("kvm-ioctls {}: {} of {} passed", self.version, self.passed, self.tests);
    }
}

/// Runs them.
fn report(vendors: &[&'static str]) -> Result<Report, String> {
    let scratch = scratch::prepare()?;
    let expected = Expected::read()?;
    let mut lines = Vec::new();
    for vendor in vendors {
        let output = Command::new(cargo())
            .args(["test", "--release", "--lib", "--package", "kvm-ioctls", "--", "--test-threads=2"])
            .current_dir(&scratch.folder)
            .env("ROOTMODE_VENDOR", vendor)
            .env_remove("CARGO_TARGET_DIR")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("cannot run cargo: {e}"))?;
        let verdicts = verdict::parse(&String::from_utf8_lossy(&output.stdout));
        if verdicts.is_empty() {
            return Err(format!("no test ran:\n{}", String::from_utf8_lossy(&output.stderr)));
        }
        lines.extend(verdicts.into_iter().map(|(test, verdict)| {
            let reason = expected.reason(&test);
            Line { test, vendor, verdict, reason }
        }));
    }
    let passed = lines.iter().filter(|line| line.verdict == Verdict::Passed).count();
    Ok(Report { version: scratch.version, passed, tests: lines.len(), lines })
}

/// Runs the command; true if nothing unexpected failed.
///
/// # Errors
/// If the crates cannot be fetched or built.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let wanted = |vendor: &&&str| arguments.vendor.as_ref().is_none_or(|one| one == *vendor);
    let vendors: Vec<&str> = VENDORS.iter().filter(wanted).copied().collect();
    let report = report(&vendors)?;
    match arguments.format {
        Format::Text => report.print(),
        Format::Json => {
            let text =
                serde_json::to_string_pretty(&report).map_err(|e| format!("cannot write JSON: {e}"))?;
            println!("{text}");
        }
    }
    Ok(report.as_expected())
}

/// The proof as rows of the full table.
///
/// # Errors
/// As [`run`].
pub fn rows() -> Result<Vec<Row>, String> {
    VENDORS
        .iter()
        .map(|vendor| {
            let report = report(&[vendor])?;
            let what = format!("the unit tests of kvm-ioctls {} on {vendor}'s processors", report.version);
            let value = format!("{} of {}", report.passed, report.tests);
            let kept = report.as_expected() && report.passed >= 69;
            Ok(Row::new(&format!("kvm-ioctls-{vendor}"), &what, value, "at least 69 of 71", kept))
        })
        .collect()
}
