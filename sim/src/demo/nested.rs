//! Steps 1 and 2: an L1 hosted on the model of KVM runs an L2, then the same L1 on the bare machine.

use std::time::Instant;

use rootmode_arch::Vendor;
use rootmode_arch::choices::{Seeded, Tame};
use rootmode_arch::record::{Level, Payload};
use rootmode_svm::ExitCode;
use rootmode_vmx::ExitReason;

use crate::guests::{Workload, assemble};
use crate::transparency::{Comparison, LIMIT, Run, TransparencyError, run_hosted, transparency};

/// Things that L2 does in the demonstration.
pub const OPERATIONS: u64 = 120;

/// How often something exited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeCount {
    /// Exit reason or exit code.
    pub code: u64,
    /// What the manual calls it.
    pub name: String,
    /// How often L1 saw it.
    pub to_l1: u64,
    /// How often the processor left a guest with it: L1's own exits, and those of L2 that L0 handled, included.
    pub to_l0: u64,
}

/// What a hosted run showed.
#[derive(Clone, Debug)]
pub struct NestedRun {
    /// Whose extension.
    pub vendor: Vendor,
    /// The run.
    pub run: Run,
    /// Exits by kind, most frequent first.
    pub exits: Vec<CodeCount>,
    /// Nanoseconds of the host's time for each exit of the processor, L0's and the guests' work included.
    /// Measured outside everything that is deterministic.
    pub ns_per_exit: f64,
    /// How often one of L0's tasks could have been preempted.
    pub points: u64,
}

/// The manual's name of an exit.
fn name(vendor: Vendor, code: u64) -> String {
    let name = match vendor {
        Vendor::Intel => ExitReason(code as u16).text().map(str::to_owned),
        Vendor::Amd => ExitCode(code).name().map(|name| format!("VMEXIT_{name}")),
    };
    name.unwrap_or_else(|| format!("{code:#x}"))
}

fn count(vendor: Vendor, run: &Run) -> Vec<CodeCount> {
    let mut counts: Vec<CodeCount> = Vec::new();
    for record in &run.records {
        let Payload::Exit { code, .. } = record.payload else { continue };
        let at = counts.iter().position(|count| count.code == code).unwrap_or_else(|| {
            counts.push(CodeCount { code, name: name(vendor, code), to_l1: 0, to_l0: 0 });
            counts.len() - 1
        });
        if record.level == Level::L0 {
            counts[at].to_l0 += 1;
        } else {
            counts[at].to_l1 += 1;
        }
    }
    counts.sort_by_key(|count| (core::cmp::Reverse(count.to_l0 + count.to_l1), count.code));
    counts
}

/// Step 1: draws a pair of programs from `seed`, and runs them nested.
///
/// # Errors
/// [`TransparencyError`] if the run could not be made.
pub fn nested_run(vendor: Vendor, seed: u64) -> Result<NestedRun, TransparencyError> {
    let mut choices = Seeded::new(seed);
    let image = assemble(&Workload::draw(vendor, OPERATIONS, &mut choices))?;
    let started = Instant::now();
    let run = run_hosted(&image, Box::new(Tame), false, LIMIT)?;
    let elapsed = started.elapsed();
    let exits = count(vendor, &run);
    let total: u64 = exits.iter().map(|count| count.to_l0).sum();
    let points = run.records.iter().filter(|r| matches!(r.payload, Payload::Point { .. })).count() as u64;
    let ns_per_exit = elapsed.as_nanos() as f64 / total.max(1) as f64;
    Ok(NestedRun { vendor, run, exits, ns_per_exit, points })
}

/// Step 2: the same programs bare and hosted, compared.
///
/// # Errors
/// [`TransparencyError`] if a run could not be made.
pub fn compare_ways(vendor: Vendor, seed: u64) -> Result<Comparison, TransparencyError> {
    transparency(vendor, &mut Seeded::new(seed), OPERATIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_run_shows_exits_to_both_levels() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            let nested = nested_run(vendor, 0).unwrap();
            assert!(nested.exits.iter().any(|count| count.to_l1 > 0));
            assert!(nested.exits.iter().map(|count| count.to_l0).sum::<u64>() > 100);
            assert!(compare_ways(vendor, 0).unwrap().holds());
        }
    }
}
