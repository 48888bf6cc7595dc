//! `rootmode-tests mutation`: mutates every table and prints what survived, or records the answers anew.

use clap::Args;

use super::proofs::TABLES;
use super::rules::{Pool, record};
use super::rules_svm::Svm;
use super::rules_vmx::Vmx;
use crate::documents::root;

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Only the tables whose name contains TEXT.
    #[arg(value_name = "TEXT", default_value = "")]
    only: String,
    /// Write the files of recorded answers of the rules in tests/golden anew, and judge nothing.
    #[arg(long)]
    record: bool,
}

/// Runs the command; false when a promise is broken.
///
/// # Errors
/// A file that cannot be read or written, or does not fit its table.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    if arguments.record {
        write::<Vmx>(
            &arguments.only,
            "States around the boundaries of VM entry, with every rule that they break.",
        )?;
        write::<Svm>(
            &arguments.only,
            "States around the boundaries of VMRUN, with every rule that they break.",
        )?;
        return Ok(true);
    }
    let mut kept = true;
    for (_, run) in TABLES.iter().filter(|(name, _)| name.contains(&arguments.only)) {
        let report = run()?;
        let (unlisted, stale) = report.unlisted();
        println!(
            "{}: {} killed, {} of them by other machines",
            report.table,
            report.value(),
            report.killed_by_peers
        );
        unlisted.iter().for_each(|name| println!("  survives without an argument: {name}"));
        stale.iter().for_each(|name| println!("  has an argument, but does not survive: {name}"));
        kept &= report.kept();
    }
    Ok(kept)
}

fn write<S: Pool>(only: &str, what: &str) -> Result<(), String> {
    if !S::TABLE.contains(only) {
        return Ok(());
    }
    let golden = record::<S>();
    println!("{}: {} states", S::FILE, golden.states.len());
    let path = root().join(S::FILE);
    std::fs::write(&path, golden.text(what)).map_err(|e| format!("cannot write {}: {e}", path.display()))
}
