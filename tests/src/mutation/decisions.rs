//! Mutants of the intercept tables of both vendors: rows dropped, negated, unconditional, with another intercept bit, reason,
//! stage or report. The judges are the second opinions about VM exits, [`oracles`](crate::oracles), on random views.

use rootmode_arch::{EventClass, Stage};
use rootmode_svm::decide as svm;
use rootmode_svm::encode::ExitCode;
use rootmode_svm::vmcb::Intercept;
use rootmode_vmx::decide as vmx;
use rootmode_vmx::{Control, ExitReason};

use super::Report;
use crate::oracles::compare::{Sides, disagrees};
use crate::oracles::draw::Draw;
use crate::oracles::{When, svm_compare, svm_exits, vmx_compare, vmx_exits};

/// Stages that a row may name.
const STAGES: [Option<Stage>; 4] =
    [None, Some(Stage::BeforeExceptions), Some(Stage::AfterPrivilege), Some(Stage::AfterOperands)];

/// The stages that make a mutant: others than the row's, and not those that the manual makes one with it.
fn other_stages(of: Option<Stage>, when: Option<When>) -> impl Iterator<Item = Option<Stage>> {
    let same = move |stage: Option<Stage>| match (of, stage, when) {
        (Some(of), Some(stage), Some(when)) => when.unites(of, stage),
        _ => false,
    };
    STAGES.into_iter().filter(move |stage| *stage != of && !same(*stage))
}

/// Whether one of `cases` random cases of the class shows the difference.
fn noticed(class: EventClass, cases: u64, sides: impl Fn(&mut Draw) -> Sides) -> bool {
    (0..cases).any(|number| {
        let seed = (class as u64) << 32 ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d);
        disagrees(&sides(&mut Draw::new(seed)))
    })
}

/// Every mutant of a row of VMX, with what was done.
fn of_vmx(row: &vmx::Row) -> Vec<(String, vmx::Row)> {
    let mut all = vec![
        ("dropped".into(), vmx::Row { enabled: false, ..*row }),
        ("negated".into(), vmx::Row { negated: true, ..*row }),
        ("reason + 1".into(), vmx::Row { reason: ExitReason(row.reason.0 + 1), ..*row }),
        ("reason - 1".into(), vmx::Row { reason: ExitReason(row.reason.0.wrapping_sub(1)), ..*row }),
    ];
    if row.condition != vmx::Condition::Always {
        all.push(("unconditional".into(), vmx::Row { condition: vmx::Condition::Always, ..*row }));
    }
    if row.information.is_some() {
        all.push(("without information".into(), vmx::Row { information: None, ..*row }));
    }
    let when = vmx_exits::when(row.class, row.reason.0.into());
    for stage in other_stages(row.stage, when) {
        all.push((format!("stage {stage:?}"), vmx::Row { stage, ..*row }));
    }
    for (place, gate) in row.gates.iter().enumerate() {
        let Some(gate) = *gate else { continue };
        let mut change = |what: &str, gate: Option<vmx::Gate>| {
            let mut gates = row.gates;
            gates[place] = gate;
            all.push((format!("gate {place} {what}"), vmx::Row { gates, ..*row }));
        };
        change("forgotten", None);
        change("inverted", Some(vmx::Gate { on: !gate.on, ..gate }));
        let bit = gate.control.bit;
        for (what, bit) in [("bit + 1", bit + 1), ("bit - 1", bit.wrapping_sub(1))] {
            if bit < 64 {
                change(what, Some(vmx::Gate { control: Control { bit, ..gate.control }, ..gate }));
            }
        }
    }
    all
}

/// Every mutant of a row of SVM, with what was done.
fn of_svm(row: &svm::Row) -> Vec<(String, svm::Row)> {
    let mut all = vec![
        ("dropped".into(), svm::Row { enabled: false, ..*row }),
        ("negated".into(), svm::Row { negated: true, ..*row }),
        ("code + 1".into(), svm::Row { code: ExitCode(row.code.0.wrapping_add(1)), ..*row }),
        ("code - 1".into(), svm::Row { code: ExitCode(row.code.0.wrapping_sub(1)), ..*row }),
    ];
    if row.condition != svm::Condition::Always {
        all.push(("unconditional".into(), svm::Row { condition: svm::Condition::Always, ..*row }));
    }
    if row.info != svm::Info::Nothing {
        all.push(("without information".into(), svm::Row { info: svm::Info::Nothing, ..*row }));
    }
    let when = svm_exits::when(row.class, row.code.0);
    for stage in other_stages(row.stage, when) {
        all.push((format!("stage {stage:?}"), svm::Row { stage, ..*row }));
    }
    let mut gate = |what: &str, gate| all.push((format!("gate {what}"), svm::Row { gate, ..*row }));
    match row.gate {
        svm::Gate::Open => {}
        svm::Gate::Bit(bit) => {
            gate("forgotten", svm::Gate::Open);
            gate("bit + 1", svm::Gate::Bit(Intercept(bit.0 + 1)));
            if bit.0 > 0 {
                gate("bit - 1", svm::Gate::Bit(Intercept(bit.0 - 1)));
            }
        }
        svm::Gate::Numbered { first, count } => {
            gate("count - 1", svm::Gate::Numbered { first, count: count - 1 });
            gate("first + 1", svm::Gate::Numbered { first: Intercept(first.0 + 1), count: count - 1 });
            if first.0 > 0 {
                gate("first - 1", svm::Gate::Numbered { first: Intercept(first.0 - 1), count });
            }
        }
    }
    all
}

/// Mutates the intercepts of VMX; each mutant is asked about up to `cases` random cases.
#[must_use]
pub fn run_vmx(cases: u64) -> Report {
    let mut report = Report::new("decisions-vmx");
    for (place, row) in vmx::Table::BUILT_IN.rows().iter().enumerate() {
        for (what, mutant) in of_vmx(row) {
            let mut table = vmx::Table::BUILT_IN.clone();
            table.rows_mut()[place] = mutant;
            let killed =
                noticed(row.class, cases, |draw| vmx_compare::sides_of(Some(&table), draw, row.class));
            report.count(|| format!("{}: {what}", row.id), killed);
        }
    }
    report
}

/// Mutates the intercepts of SVM; each mutant is asked about up to `cases` random cases.
#[must_use]
pub fn run_svm(cases: u64) -> Report {
    let mut report = Report::new("decisions-svm");
    for (place, row) in svm::Table::BUILT_IN.rows().iter().enumerate() {
        for (what, mutant) in of_svm(row) {
            let mut table = svm::Table::BUILT_IN.clone();
            table.rows_mut()[place] = mutant;
            let killed =
                noticed(row.class, cases, |draw| svm_compare::sides_of(Some(&table), draw, row.class));
            report.count(|| format!("{}: {what}", row.id), killed);
        }
    }
    report
}
