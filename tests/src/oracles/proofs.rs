//! The comparisons at full size, as rows of `rootmode-tests full`.

use super::{Report, compare};
use crate::table::Row;
use rayon::prelude::*;
use rootmode_arch::{EventClass, Vendor};

/// Cases for each vendor.
const CASES: u64 = 2_000_000;
/// Cases of one piece of work; pieces differ in their seeds alone, so that workers do not change the result.
const PIECE: u64 = 20_000;

/// 2,000,000 decisions of VMX.
///
/// # Errors
/// None: disagreements are a broken promise.
pub fn of_vmx() -> Result<Vec<Row>, String> {
    Ok(vec![row(Vendor::Intel, "decisions-vmx")])
}

/// 2,000,000 decisions of SVM.
///
/// # Errors
/// None: disagreements are a broken promise.
pub fn of_svm() -> Result<Vec<Row>, String> {
    Ok(vec![row(Vendor::Amd, "decisions-svm")])
}

fn row(vendor: Vendor, key: &str) -> Row {
    let pieces: Vec<Report> =
        (0..CASES / PIECE).into_par_iter().map(|piece| compare(vendor, 1000 + piece, PIECE)).collect();
    let mut report = Report::default();
    for piece in pieces {
        report.merge(piece);
    }
    for (kind, text) in &report.examples {
        eprintln!("{kind}\n  {text}");
    }
    let classes = report.classes.values().filter(|count| count.compared + count.open > 1000).count();
    let kept = report.disagreements == 0 && classes == EventClass::ALL.len();
    let open: u64 = report.classes.values().map(|count| count.open).sum();
    let value = format!(
        "{} cases of {classes} classes, {} exits by {} rows, {open} open, {} disagreements",
        report.cases(),
        report.exits(),
        report.rows.len(),
        report.disagreements
    );
    let what = "random views and events, `decide` against a table written from the manual alone";
    Row::new(key, what, value, "0 disagreements, every class over 1000 times", kept)
}
