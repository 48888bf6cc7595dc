//! Mechanical mutation of the tables: each row is dropped, negated, shifted; the recorded answers must notice.
//!
//! What judges a mutant is never the table that it was made from: the rules are judged by states whose broken rules were
//! recorded (`tests/golden/rules-*.txt`) and by verdicts of Bochs and QEMU (`tests/judges/golden-*.txt`), the
//! intercepts and maps by second copies written from the manuals. What survives is listed, with an argument why the mutant
//! answers as the original does, in `tests/golden/survivors.txt`.

pub mod bitmaps;
pub mod command;
pub mod decisions;
pub mod golden;
pub mod interception;
pub mod peers;
pub mod proofs;
pub mod rules;
pub mod rules_svm;
pub mod rules_vmx;
pub mod survivors;

use std::collections::BTreeSet;

/// What became of the mutants of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The table.
    pub table: &'static str,
    /// How many mutants were made.
    pub mutants: usize,
    /// How many were noticed.
    pub killed: usize,
    /// How many of those the verdicts of other machines notice, where there are any.
    pub killed_by_peers: usize,
    /// Who was not noticed, each as `row: what was done`, in the order of the table.
    pub survivors: Vec<String>,
}

impl Report {
    /// Nothing yet.
    #[must_use]
    pub fn new(table: &'static str) -> Self {
        Self { table, ..Self::default() }
    }

    /// Counts one mutant.
    pub fn count(&mut self, name: impl FnOnce() -> String, killed: bool) {
        self.mutants += 1;
        if killed {
            self.killed += 1;
        } else {
            self.survivors.push(name());
        }
    }

    /// Survivors that no argument covers, and arguments for mutants that do not survive.
    #[must_use]
    pub fn unlisted(&self) -> (Vec<String>, Vec<String>) {
        let listed = survivors::of(self.table);
        let known: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
        let seen: BTreeSet<&str> = self.survivors.iter().map(String::as_str).collect();
        let owned = |names: Vec<&&str>| names.into_iter().map(|name| (*name).to_owned()).collect();
        (owned(seen.difference(&known).collect()), owned(known.difference(&seen).collect()))
    }

    /// Whether every survivor has an argument and every argument a survivor, and at most 1 of 100 mutants needs one.
    #[must_use]
    pub fn kept(&self) -> bool {
        let (unlisted, stale) = self.unlisted();
        self.killed * 100 >= self.mutants * 99 && unlisted.is_empty() && stale.is_empty()
    }

    /// As documents quote it.
    #[must_use]
    pub fn value(&self) -> String {
        format!("{} of {}", self.killed, self.mutants)
    }
}
