//! The embedded demonstration: a small hypervisor on each vendor's extension, bare and hosted, and the digest of it all.
//!
//! ```
//! use rootmode::demo;
//! use rootmode_arch::choices::Seeded;
//! let runs = demo::run(&mut Seeded::new(0), 20).unwrap();
//! assert!(runs.iter().all(|comparison| comparison.holds()));
//! assert_eq!(demo::digest(&runs).len(), 64);
//! ```

use std::collections::BTreeMap;

use rootmode_arch::record::{Level, Payload, Record};
use rootmode_arch::{Choices, Vendor};
use rootmode_svm::ExitCode;
use rootmode_vmx::ExitReason;
use sha2::{Digest as _, Sha256};

use crate::transparency::{Comparison, Run, TransparencyError, transparency};

/// How many things L2 does in the demonstration, on each vendor.
pub const OPERATIONS: u64 = 120;

/// Runs the embedded hypervisors of both vendors, Intel first, bare and hosted.
///
/// # Errors
/// [`TransparencyError`]: the programs could not be assembled, or L0 has a bug.
pub fn run(choices: &mut dyn Choices, operations: u64) -> Result<[Comparison; 2], TransparencyError> {
    Ok([transparency(Vendor::Intel, choices, operations)?, transparency(Vendor::Amd, choices, operations)?])
}

/// How often a run left its guest, by level that got the exit and by the manual's name of the reason.
pub fn exits_by_kind(run: &Run) -> BTreeMap<(Level, String), u64> {
    let mut counts = BTreeMap::new();
    for record in &run.records {
        if let Payload::Exit { vendor, code, .. } = record.payload {
            let name = match vendor {
                Vendor::Intel => ExitReason(code as u16).text().map(str::to_owned),
                Vendor::Amd => ExitCode(code).name().map(|name| format!("VMEXIT_{name}")),
            };
            let name = name.unwrap_or_else(|| format!("{code:#x}"));
            *counts.entry((record.level, name)).or_default() += 1;
        }
    }
    counts
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
            hash.update(&run.memory);
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
        let counts = exits_by_kind(&intel.hosted);
        assert!(counts.keys().any(|(level, _)| *level == Level::L0), "{counts:?}");
        assert!(counts.keys().any(|(level, _)| *level == Level::L2), "{counts:?}");
    }
}
