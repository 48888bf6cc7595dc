//! The judges at full size, as rows of `rootmode-tests full`.

use super::guests::command::Peer;
use super::guests::compare;
use super::judge::{Extension, JUDGES, Judge};
use crate::table::Row;

/// Cases for each extension and peer.
const CASES: u64 = 100_000;

/// Generated guests for each peer.
const GUESTS: u64 = 20_000;

/// Machines that run at the same time.
const JOBS: usize = 2;

/// 100,000 nearly valid VMCSs on Bochs, shared by its CPU models.
///
/// # Errors
///
/// A judge that could not be run.
pub fn vmx_on_bochs() -> Result<Vec<Row>, String> {
    row("judge-vmx-bochs", "nearly valid VMCSs on Debian's Bochs", |judge| judge.extension == Extension::Vmx)
}

/// 100,000 nearly valid VMCBs on Bochs.
///
/// # Errors
///
/// A judge that could not be run.
pub fn svm_on_bochs() -> Result<Vec<Row>, String> {
    row("judge-svm-bochs", "nearly valid VMCBs on Debian's Bochs", |judge| {
        judge.extension == Extension::Svm && judge.is_bochs()
    })
}

/// 100,000 nearly valid VMCBs on QEMU.
///
/// # Errors
///
/// A judge that could not be run.
pub fn svm_on_qemu() -> Result<Vec<Row>, String> {
    row("judge-svm-qemu", "nearly valid VMCBs on Debian's QEMU", |judge| {
        judge.extension == Extension::Svm && !judge.is_bochs()
    })
}

/// 20,000 generated VMX guests on Bochs and here.
///
/// # Errors
///
/// A machine that could not be run.
pub fn vmx_guests_on_bochs() -> Result<Vec<Row>, String> {
    guests(Peer::BochsVmx, "guests-vmx-bochs", "generated VMX guests on Debian's Bochs")
}

/// 20,000 generated SVM guests on Bochs and here.
///
/// # Errors
///
/// A machine that could not be run.
pub fn svm_guests_on_bochs() -> Result<Vec<Row>, String> {
    guests(Peer::BochsSvm, "guests-svm-bochs", "generated SVM guests on Debian's Bochs")
}

/// 20,000 generated SVM guests on QEMU and here.
///
/// # Errors
///
/// A machine that could not be run.
pub fn svm_guests_on_qemu() -> Result<Vec<Row>, String> {
    guests(Peer::QemuSvm, "guests-svm-qemu", "generated SVM guests on Debian's QEMU")
}

fn guests(peer: Peer, key: &str, what: &str) -> Result<Vec<Row>, String> {
    let tally = compare(peer, 0, 0..GUESTS).map_err(|error| format!("{key}: {error}"))?;
    let (explained, open) = (tally.explained.values().sum::<u64>(), tally.unexplained());
    let value = format!(
        "{} guests: {} agree, {explained} settled by the manual, {open} open",
        tally.cases, tally.agreed
    );
    Ok(vec![Row::new(key, what, value, "20000 guests, 0 open", tally.cases >= GUESTS && open == 0)])
}

fn row(key: &str, what: &str, wanted: impl Fn(&Judge) -> bool) -> Result<Vec<Row>, String> {
    let judges: Vec<Judge> = JUDGES.into_iter().filter(wanted).collect();
    let (mut cases, mut agreed, mut explained, mut unexplained) = (0, 0, 0, 0);
    for judge in &judges {
        let share = CASES.div_ceil(judges.len() as u64);
        let tally = judge.run(share, 0, JOBS, |_| {}).map_err(|error| format!("{}: {error}", judge.name))?;
        cases += tally.cases + tally.unjudged;
        agreed += tally.agreed;
        explained += tally.explained.values().sum::<u64>();
        unexplained += tally.unexplained;
    }
    let value =
        format!("{cases} cases: {agreed} agree, {explained} settled by the manual, {unexplained} open");
    Ok(vec![Row::new(key, what, value, "100000 cases, 0 open", cases >= CASES && unexplained == 0)])
}
