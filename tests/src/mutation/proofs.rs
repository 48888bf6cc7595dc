//! The mutations as rows of `rootmode-tests full`.

use super::Report;
use super::rules::run;
use super::rules_svm::Svm;
use super::rules_vmx::Vmx;
use super::{bitmaps, decisions, interception};
use crate::table::Row;

/// Random cases that a mutant of an intercept, or of what KVM goes by, has to be noticed in.
pub const CASES: u64 = 20_000;

/// What mutates one table.
pub type Run = fn() -> Result<Report, String>;

/// Every table that is mutated: its name, and how.
pub const TABLES: &[(&str, Run)] = &[
    ("rules-vmx", || run::<Vmx>(true)),
    ("rules-svm", || run::<Svm>(true)),
    ("decisions-vmx", || Ok(decisions::run_vmx(CASES))),
    ("decisions-svm", || Ok(decisions::run_svm(CASES))),
    ("bitmap-msr", || Ok(bitmaps::run_msr_bitmap())),
    ("bitmap-io", || Ok(bitmaps::run_io_bitmaps())),
    ("bitmap-vmcs-and-leaf", || Ok(bitmaps::run_small())),
    ("bitmap-msrpm", || Ok(bitmaps::run_msrpm())),
    ("bitmap-iopm", || Ok(bitmaps::run_iopm())),
    ("arithmetic-vmx", || Ok(interception::run_vmx_arithmetic(CASES))),
    ("arithmetic-svm", || Ok(interception::run_svm_arithmetic(CASES))),
    ("pass-through-vmx", || Ok(interception::run_vmx(CASES))),
    ("pass-through-svm", || Ok(interception::run_svm(CASES))),
    ("merge-vmx", || Ok(interception::run_vmx_merge(CASES))),
    ("merge-svm", || Ok(interception::run_svm_merge(CASES))),
    ("filter", || Ok(interception::run_filter(CASES))),
];

/// A row for all tables together, and one for every table.
///
/// # Errors
/// Recorded answers that do not fit the table.
pub fn rows() -> Result<Vec<Row>, String> {
    let reports = TABLES.iter().map(|(_, run)| run()).collect::<Result<Vec<Report>, String>>()?;
    let mutants: usize = reports.iter().map(|report| report.mutants).sum();
    let killed: usize = reports.iter().map(|report| report.killed).sum();
    let kept = killed * 100 >= mutants * 99 && reports.iter().all(Report::kept);
    let (what, value) = ("mutants of all tables noticed", format!("{killed} of {mutants}"));
    let all = Row::new("mutation", what, value, "99 %, every survivor argued", kept);
    Ok([all].into_iter().chain(reports.iter().map(row)).collect())
}

fn row(report: &Report) -> Row {
    let what = format!("mutants of the table {} noticed", report.table);
    Row::new(
        &format!("mutation-{}", report.table),
        &what,
        report.value(),
        "99 %, every survivor argued",
        report.kept(),
    )
}
