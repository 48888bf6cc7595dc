//! The law of transparency over drawn L1s, hosted and in a client's VM, and what they reached: as rows of `rootmode-tests full`.

use std::collections::BTreeSet;

use rayon::prelude::*;
use rootmode::transparency::{Case, Comparison};
use rootmode_arch::Vendor;
use rootmode_arch::choices::Seeded;
use rootmode_arch::record::{Level, Payload};
use rootmode_models::kvm::{Regression, Regressions};

use crate::table::Row;

/// Programs of each vendor.
const PROGRAMS: u64 = 100_000;
/// The most that an L2 does, as in campaigns.
const OPERATIONS: u64 = 41;
/// Programs that hunt one known bug.
const HUNT: u64 = 400;
/// Known bugs that this law has to find without any other.
const KILLS: usize = 25;

/// What programs reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Coverage {
    /// Reasons or codes of exits to L1, those of failed entries included.
    exits: BTreeSet<u64>,
    /// VM-instruction errors of entries.
    failures: BTreeSet<u64>,
    /// Types of injected events.
    injections: BTreeSet<u64>,
    /// Programs that L1 or L2 could tell from those on the processor itself, and the first of them.
    differ: u64,
    first: Option<u64>,
}

impl Coverage {
    fn of(vendor: Vendor, seed: u64, comparison: Option<&Comparison>) -> Self {
        let mut coverage = Self::default();
        let records = comparison.map_or(&[][..], |comparison| &comparison.bare.records);
        for record in records {
            match record.payload {
                Payload::Exit { code, .. } if record.level == Level::L2 => {
                    coverage.exits.insert(code);
                }
                Payload::EntryFailed { code, .. } if vendor == Vendor::Amd || code >> 31 != 0 => {
                    coverage.exits.insert(code);
                }
                Payload::EntryFailed { code, .. } => {
                    coverage.failures.insert(code);
                }
                Payload::Entry { injection, .. } if injection >> 31 & 1 != 0 => {
                    coverage.injections.insert(injection >> 8 & 7);
                }
                _ => {}
            }
        }
        if !comparison.is_some_and(Comparison::holds) {
            (coverage.differ, coverage.first) = (1, Some(seed));
        }
        coverage
    }

    fn with(mut self, other: Self) -> Self {
        self.exits.extend(other.exits);
        self.failures.extend(other.failures);
        self.injections.extend(other.injections);
        self.differ += other.differ;
        self.first = self.first.into_iter().chain(other.first).min();
        self
    }
}

fn draw(vendor: Vendor, seed: u64) -> Case {
    Case::draw(vendor, seed % OPERATIONS, &mut Seeded::new(seed))
}

fn row(vendor: Vendor, in_vm: bool) -> Row {
    let coverage = (0..PROGRAMS)
        .into_par_iter()
        .map(|seed| {
            let case = draw(vendor, seed);
            let compared =
                if in_vm { case.compare_vm(Regressions::NONE) } else { case.compare(Regressions::NONE) };
            Coverage::of(vendor, seed, compared.as_ref().ok())
        })
        .reduce(Coverage::default, Coverage::with);
    let (name, exits, types) = match vendor {
        Vendor::Intel => ("vmx", 40, 7),
        Vendor::Amd => ("svm", 60, 4),
    };
    let list = |numbers: &BTreeSet<u64>| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let first = coverage.first.map_or_else(String::new, |seed| format!(" (the first: {seed})"));
    let failures = if vendor == Vendor::Intel {
        format!(", VMfail of entries {}", list(&coverage.failures))
    } else {
        String::new()
    };
    let value = format!(
        "{} of {PROGRAMS} differ{first}; {} distinct exits to L1, injected types {}{failures}",
        coverage.differ,
        coverage.exits.len(),
        list(&coverage.injections),
    );
    let kept = coverage.differ == 0 && coverage.exits.len() >= exits && coverage.injections.len() >= types;
    Row::new(
        &format!("transparency-{name}{}", if in_vm { "-vm" } else { "" }),
        if in_vm {
            "drawn L1s with their L2s, in the VM of a client and on the processor itself"
        } else {
            "drawn L1s with their L2s, hosted under a drawn schedule and on the processor itself"
        },
        value,
        &format!("none differs, at least {exits} exits, injection of every type"),
        kept,
    )
}

/// Whether a few programs tell L0 with a known bug from the processor.
fn finds(bug: Regression) -> bool {
    let bugs = Regressions::NONE.with(bug);
    (0..HUNT).into_par_iter().any(|number| {
        let case = draw([Vendor::Intel, Vendor::Amd][number as usize % 2], number);
        let holds = |compared: Result<Comparison, _>| compared.is_ok_and(|comparison| comparison.holds());
        !holds(case.compare(bugs)) || !holds(case.compare_vm(bugs))
    })
}

/// The rows.
///
/// # Errors
/// None: what cannot be run is a program that differs.
pub fn rows() -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for vendor in [Vendor::Intel, Vendor::Amd] {
        rows.extend([false, true].map(|in_vm| row(vendor, in_vm)));
    }
    let found: Vec<&str> =
        Regression::ALL.iter().filter(|bug| finds(**bug)).map(|bug| bug.row().id).collect();
    rows.push(Row::new(
        "transparency-kills",
        "known bugs that these programs find, 400 for each, without any other property",
        format!("{}: {}", found.len(), found.join(" ")),
        &format!("at least {KILLS}"),
        found.len() >= KILLS,
    ));
    Ok(rows)
}
