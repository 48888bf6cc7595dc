//! The embedded demonstration: a small hypervisor on each vendor's extension, bare and hosted, and the digest of it all.
//!
//! ```
//! use rootmode::demo;
//! use rootmode_arch::choices::Seeded;
//! let runs = demo::run(&mut Seeded::new(0), 20).unwrap();
//! assert!(runs.iter().all(|comparison| comparison.holds()));
//! assert_eq!(demo::digest(&runs).len(), 64);
//! ```

use std::time::Instant;

use rootmode_arch::choices::Tame;
use rootmode_arch::record::{Level, Payload, Record};
use rootmode_arch::{Choices, Vendor};
use rootmode_models::kvm::Regressions;
use rootmode_svm::ExitCode;
use rootmode_vmx::ExitReason;
use sha2::{Digest as _, Sha256};

use crate::guests::{Workload, assemble};
use crate::transparency::{Case, Comparison, LIMIT, Run, TransparencyError, run_hosted};

/// How many things L2 does in the demonstration, on each vendor.
pub const OPERATIONS: u64 = 120;

/// Runs the embedded hypervisors of both vendors, Intel first, bare and hosted.
///
/// # Errors
/// [`TransparencyError`]: the programs could not be assembled, or L0 has a bug.
pub fn run(choices: &mut dyn Choices, operations: u64) -> Result<[Comparison; 2], TransparencyError> {
    let mut compare = |vendor| Case::draw(vendor, operations, choices).compare(Regressions::NONE);
    Ok([compare(Vendor::Intel)?, compare(Vendor::Amd)?])
}

/// How often something exited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitCount {
    /// Exit reason or exit code.
    pub code: u64,
    /// What the manual calls it.
    pub name: String,
    /// How often L1 saw it.
    pub to_l1: u64,
    /// How often the processor left a guest of L0 with it.
    pub to_l0: u64,
}

/// Exits of a run by kind, most frequent first.
pub fn exits(run: &Run) -> Vec<ExitCount> {
    let mut counts: Vec<ExitCount> = Vec::new();
    for record in &run.records {
        let Payload::Exit { vendor, code, .. } = record.payload else { continue };
        let at = counts.iter().position(|count| count.code == code).unwrap_or_else(|| {
            counts.push(ExitCount { code, name: exit_name(vendor, code), to_l1: 0, to_l0: 0 });
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

fn exit_name(vendor: Vendor, code: u64) -> String {
    let name = match vendor {
        Vendor::Intel => ExitReason(code as u16).text().map(str::to_owned),
        Vendor::Amd => ExitCode(code).name().map(|name| format!("VMEXIT_{name}")),
    };
    name.unwrap_or_else(|| format!("{code:#x}"))
}

/// Host time for each exit to L0 of the tamest nested run, guests' and L0's work included, in nanoseconds. Measured
/// outside everything that is deterministic.
///
/// # Errors
/// [`TransparencyError`] as [`run`].
pub fn nanoseconds_per_exit(vendor: Vendor) -> Result<f64, TransparencyError> {
    let image = assemble(&Workload::draw(vendor, OPERATIONS, &mut Tame))?;
    let start = Instant::now();
    let run = run_hosted(&image, Box::new(Tame), false, Regressions::NONE, LIMIT)?;
    let elapsed = start.elapsed();
    let count: u64 = exits(&run).iter().map(|count| count.to_l0).sum();
    Ok(elapsed.as_nanos() as f64 / count.max(1) as f64)
}

/// SHA-256, in hexadecimal, of everything that the runs left behind: stop, ticks, records, registers and memory.
pub fn digest(runs: &[Comparison]) -> String {
    let mut hash = Sha256::new();
    for comparison in runs {
        for run in [&comparison.bare, &comparison.hosted] {
            hash.update(run.ticks.to_le_bytes());
            for record in &run.records {
                hash.update(encoded(record));
            }
            for register in run.registers {
                hash.update(register.to_le_bytes());
            }
            (0..run.memory.bytes / 4096).for_each(|page| hash.update(run.memory.page(page)));
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(record: &Record) -> Vec<u8> {
    let layout = bincode::config::standard().with_little_endian().with_fixed_int_encoding();
    bincode::serde::encode_to_vec(record, layout).expect("a record is plain data, which encodes without fail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_arch::choices::Seeded;

    #[test]
    fn the_digest_depends_on_the_seed_and_on_nothing_else() {
        let of = |seed| digest(&run(&mut Seeded::new(seed), 10).unwrap());
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn exits_are_counted_by_who_gets_them() {
        let [intel, _] = run(&mut Seeded::new(0), 30).unwrap();
        let counts = exits(&intel.hosted);
        assert!(counts.iter().map(|count| count.to_l0).sum::<u64>() > 100, "{counts:?}");
        assert!(counts.iter().any(|count| count.to_l1 > 0), "{counts:?}");
    }
}
