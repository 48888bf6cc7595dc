//! The comparison: random cases of every event class, `decide` on one side and an oracle on the other.

use super::draw::Draw;
use super::{Answer, ExpectedExit, When, svm_compare, vmx_compare};
use rootmode_arch::{EventClass, Stage, Vendor};
use std::collections::BTreeMap;

/// How often a class came up, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Cases compared.
    pub compared: u64,
    /// Of these, exits by the oracle.
    pub exits: u64,
    /// Cases to which the manual gives no answer.
    pub open: u64,
}

/// What came out of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By class: how often.
    pub classes: BTreeMap<EventClass, Count>,
    /// By the oracle's row: exits.
    pub rows: BTreeMap<&'static str, u64>,
    /// Disagreements in all.
    pub disagreements: u64,
    /// The first disagreement of each kind in words, with the seed of its case.
    pub examples: BTreeMap<String, String>,
}

impl Report {
    /// Cases drawn, those without an answer included.
    pub fn cases(&self) -> u64 {
        self.classes.values().map(|count| count.compared + count.open).sum()
    }
    /// Cases that exited by the oracle.
    pub fn exits(&self) -> u64 {
        self.classes.values().map(|count| count.exits).sum()
    }
    /// Adds the counts of `other`; examples of this report stay.
    pub fn merge(&mut self, other: Self) {
        for (class, count) in other.classes {
            let sum = self.classes.entry(class).or_default();
            sum.compared += count.compared;
            sum.exits += count.exits;
            sum.open += count.open;
        }
        for (row, exits) in other.rows {
            *self.rows.entry(row).or_default() += exits;
        }
        self.disagreements += other.disagreements;
        for (kind, text) in other.examples {
            self.examples.entry(kind).or_insert(text);
        }
    }
}

/// One case on both sides.
pub struct Sides {
    /// The oracle's answer.
    pub expected: Answer,
    /// What `decide` answers.
    pub actual: Option<Actual>,
    /// Whether `decide` at the stage of that number answers an exit.
    pub stages: [bool; 3],
}

/// An exit by `decide`, as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actual {
    /// Exit reason or EXITCODE.
    pub reason: u64,
    /// Exit qualification or EXITINFO1.
    pub qualification: u64,
    /// EXITINFO2, 0 for VMX.
    pub second: u64,
    /// Instruction information.
    pub information: Option<u32>,
    /// Interruption information.
    pub interruption: u64,
    /// Interruption error code.
    pub error_code: Option<u32>,
    /// Guest-linear address.
    pub guest_linear: Option<u64>,
    /// Guest-physical address.
    pub guest_physical: Option<u64>,
}

/// Compares `n` cases that `seed` determines.
pub fn compare(vendor: Vendor, seed: u64, n: u64) -> Report {
    let mut report = Report::default();
    for number in 0..n {
        let case = Draw::new(seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d)).bits();
        let mut draw = Draw::new(case);
        let class = draw.of(EventClass::ALL);
        let sides = match vendor {
            Vendor::Intel => vmx_compare::sides(&mut draw, class),
            Vendor::Amd => svm_compare::sides(&mut draw, class),
        };
        judge(&mut report, class, &sides, || describe(vendor, case));
    }
    report
}

/// Counts a case, and records in what the two sides differ.
fn judge(report: &mut Report, class: EventClass, sides: &Sides, describe: impl Fn() -> String) {
    let count = report.classes.entry(class).or_default();
    let expected = match sides.expected {
        Answer::Open => {
            count.open += 1;
            return;
        }
        Answer::Stays => None,
        Answer::Exits(exit) => Some(exit),
    };
    count.compared += 1;
    let row = expected.map_or("stays", |exit| exit.row);
    if expected.is_some() {
        count.exits += 1;
        *report.rows.entry(row).or_default() += 1;
    }
    for difference in between(expected, sides) {
        report.disagreements += 1;
        report.examples.entry(format!("{}: {row}: {difference}", class.name())).or_insert_with(|| {
            format!(
                "{}\n  expected {expected:x?}\n  actual {:x?} at stages {:?}",
                describe(),
                sides.actual,
                sides.stages
            )
        });
    }
}

/// In what the answer of `decide` differs from what is expected.
fn between(expected: Option<ExpectedExit>, sides: &Sides) -> Vec<&'static str> {
    match (expected, sides.actual) {
        (None, None) => Vec::new(),
        (Some(_), None) => vec!["stays, but should exit"],
        (None, Some(_)) => vec!["exits, but should stay"],
        (Some(expected), Some(actual)) => differences(&expected, &actual, sides.stages),
    }
}

/// Whether the two sides disagree.
pub fn disagrees(sides: &Sides) -> bool {
    let expected = match sides.expected {
        Answer::Open => return false,
        Answer::Stays => None,
        Answer::Exits(exit) => Some(exit),
    };
    !between(expected, sides).is_empty()
}

/// The case in words.
fn describe(vendor: Vendor, case: u64) -> String {
    let mut draw = Draw::new(case);
    let class = draw.of(EventClass::ALL);
    match vendor {
        Vendor::Intel => vmx_compare::describe(&mut draw, class),
        Vendor::Amd => svm_compare::describe(&mut draw, class),
    }
}

/// The fields in which two exits differ.
fn differences(expected: &ExpectedExit, actual: &Actual, stages: [bool; 3]) -> Vec<&'static str> {
    let information = match (expected.information, actual.information) {
        (None, None) => true,
        (Some(wanted), Some(given)) => wanted.agrees(given.into()),
        _ => false,
    };
    let at = [Stage::BeforeExceptions, Stage::AfterPrivilege, Stage::AfterOperands];
    let offered = at.into_iter().filter(|stage| stages[*stage as usize]);
    let stage = match expected.when {
        // What is not an instruction exits whatever the stage.
        When::Anytime => stages.iter().all(|offered| *offered),
        _ => offered.clone().count() == 1 && offered.into_iter().all(|stage| expected.when.allows(stage)),
    };
    let same = |wanted: Option<u64>, given: Option<u64>| wanted.is_none() || wanted == given;
    let checks = [
        (expected.reason == actual.reason, "reason"),
        (expected.qualification.agrees(actual.qualification), "qualification or EXITINFO1"),
        (expected.second.agrees(actual.second), "EXITINFO2"),
        (information, "instruction information"),
        (expected.interruption.agrees(actual.interruption), "interruption information"),
        (expected.error_code == actual.error_code, "error code"),
        (same(expected.guest_linear, actual.guest_linear), "guest-linear address"),
        (same(expected.guest_physical, actual.guest_physical), "guest-physical address"),
        (stage, "stage"),
    ];
    checks.into_iter().filter(|(agrees, _)| !agrees).map(|(_, what)| what).collect()
}
