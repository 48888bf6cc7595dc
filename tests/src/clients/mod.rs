//! Clients of the model's KVM that no guest would want: many threads at once, and arguments without sense.

mod arguments;
mod load;
mod schedule;

use std::time::Duration;

use crate::table::Row;

/// How long the threads run at full size.
const LOAD: Duration = Duration::from_secs(60);
/// How many histories are compared at full size, for each vendor.
const HISTORIES: u64 = 200;
/// How many calls with arbitrary arguments are made at full size.
const CALLS: u64 = 200_000;

/// The proofs as rows of the full table.
///
/// # Errors
/// A deadlock, a VM that changed although a call failed.
pub fn rows() -> Result<Vec<Row>, String> {
    let load = load::run(LOAD, 1)?;
    let calls = arguments::run(CALLS, 1)?;
    let histories = schedule::run(HISTORIES)?;
    Ok(vec![
        Row::new(
            "kvm-load",
            "four vCPUs in KVM_RUN, a fifth thread that kicks, interrupts and changes slots, 60 s",
            load,
            "no deadlock, everybody advances",
            true,
        ),
        Row::new(
            "kvm-histories",
            "the same work under the deterministic driver, each history twice",
            histories,
            "the same digest",
            true,
        ),
        Row::new(
            "kvm-arguments",
            "calls with arbitrary arguments",
            calls,
            "an errno leaves the VM unchanged",
            true,
        ),
    ])
}
