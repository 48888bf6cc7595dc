//! Mechanical mutation of the table: every row dropped, negated, unconditional, with a control bit moved, inverted or
//! forgotten, with a neighbouring reason, another stage, without its information. The list of causes must notice each.

use super::causes::causes;
use crate::ExitReason;
use crate::decide::{Condition, Gate, Row, Table};
use rootmode_arch::Stage;

/// Every mutant of `row`, with what was done.
fn mutants(row: &Row) -> Vec<(String, Row)> {
    let mut all = vec![
        ("dropped".into(), Row { enabled: false, ..*row }),
        ("negated".into(), Row { negated: true, ..*row }),
        ("reason + 1".into(), Row { reason: ExitReason(row.reason.0 + 1), ..*row }),
        ("reason - 1".into(), Row { reason: ExitReason(row.reason.0.wrapping_sub(1)), ..*row }),
    ];
    if row.condition != Condition::Always {
        all.push(("unconditional".into(), Row { condition: Condition::Always, ..*row }));
    }
    if row.information.is_some() {
        all.push(("without information".into(), Row { information: None, ..*row }));
    }
    let stages =
        [None, Some(Stage::BeforeExceptions), Some(Stage::AfterPrivilege), Some(Stage::AfterOperands)];
    for stage in stages.into_iter().filter(|stage| *stage != row.stage) {
        all.push((format!("stage {stage:?}"), Row { stage, ..*row }));
    }
    for (place, gate) in row.gates.iter().enumerate() {
        let Some(gate) = *gate else { continue };
        let mut change = |what: &str, gate: Option<Gate>| {
            let mut gates = row.gates;
            gates[place] = gate;
            all.push((format!("gate {place} {what}"), Row { gates, ..*row }));
        };
        change("forgotten", None);
        change("inverted", Some(Gate { on: !gate.on, ..gate }));
        for (what, bit) in [("bit + 1", gate.control.bit + 1), ("bit - 1", gate.control.bit.wrapping_sub(1))]
        {
            if bit < 64 {
                let control = crate::Control { bit, ..gate.control };
                change(what, Some(Gate { control, ..gate }));
            }
        }
    }
    all
}

/// Mutants that decide as the original does: an earlier row of the class has taken every event for which they differ.
const EQUIVALENT: [&str; 6] = [
    // Rows of VMX instructions are found by instruction, and VMCALL asks for nothing else.
    "vmcall: unconditional",
    // With VMCS shadowing off, the row before exits whatever the bitmap says; likewise with MSR bitmaps off.
    "vmread-bitmap: gate 0 forgotten",
    "vmwrite-bitmap: gate 0 forgotten",
    "rdmsr-bitmap: gate 0 forgotten",
    "wrmsr-bitmap: gate 0 forgotten",
    // The four other descriptor-table instructions exit by the row before, under the same control.
    "ldtr-tr: unconditional",
];

#[test]
fn no_mechanical_mutation_of_the_table_survives() {
    let causes = causes();
    let (mut killed, mut survivors) = (0, vec![]);
    for (place, row) in Table::BUILT_IN.rows().iter().enumerate() {
        for (what, mutant) in mutants(row) {
            let mut table = Table::BUILT_IN.clone();
            table.rows_mut()[place] = mutant;
            if causes.iter().any(|cause| cause.complaint(&table).is_some()) {
                killed += 1;
            } else {
                survivors.push(format!("{}: {what}", row.id));
            }
        }
    }
    println!("{killed} mutants killed, {} survived", survivors.len());
    assert_eq!(survivors, EQUIVALENT);
}
