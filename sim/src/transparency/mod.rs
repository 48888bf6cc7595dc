//! The law of transparency: the same L1 with the same L2, bare and hosted, sees the same.

mod bare;
mod compare;
mod hosted;
mod run;

pub use bare::{extension, model, run_bare, start_state};
pub use compare::{Allowed, Comparison, Difference, compare, facts, is_fact};
pub use hosted::run_hosted;
pub use run::{Recorder, Run};

use rootmode_arch::Vendor;
use rootmode_arch::choices::{Choices, Seeded, Site, Tame};
use rootmode_models::kvm::host::HostBug;

use crate::guests::{GuestError, Workload, assemble};

/// Bound on the ticks of one run.
pub const LIMIT: u64 = 10_000_000;

/// Why a comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransparencyError {
    /// The programs could not be assembled.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// L0 has a bug.
    #[error(transparent)]
    Host(#[from] HostBug),
}

/// Draws a pair of programs and a schedule of L0, runs it bare and hosted, and compares what L1 and L2 see.
/// `operations` is the number of things that L2 does.
///
/// # Errors
/// [`TransparencyError`]; a difference is not an error but part of the [`Comparison`].
pub fn transparency(
    vendor: Vendor,
    choices: &mut dyn Choices,
    operations: u64,
) -> Result<Comparison, TransparencyError> {
    let workload = Workload::draw(vendor, operations, choices);
    // Choice 0 is the tame schedule without page reclaim.
    let reclaim = choices.flip(Site::Swarm);
    let schedule = Seeded::new(choices.choose(Site::Task, 1 << 32));
    let image = assemble(&workload)?;
    let bare = run_bare(&image, Box::new(Tame), LIMIT);
    let hosted = run_hosted(&image, Box::new(schedule), reclaim, LIMIT)?;
    Ok(compare(bare, hosted, vendor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_arch::record::Stop;

    #[test]
    fn the_tame_program_runs_bare_to_its_end_on_both_vendors() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            let image = assemble(&Workload::draw(vendor, 30, &mut Tame)).unwrap();
            let run = run_bare(&image, Box::new(Tame), 1_000_000);
            if run.stop != Stop::Requested(0) {
                for record in run.records.iter().rev().take(12).rev() {
                    println!("{record:x?}");
                }
            }
            assert_eq!(run.stop, Stop::Requested(0), "{vendor:?}: {:x?} {}", run.registers, run.ticks);
            assert_eq!(run.output().len(), 17, "{:?}", run.output());
        }
    }

    #[test]
    fn the_tame_program_is_the_same_bare_and_hosted_on_both_vendors() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            let comparison = transparency(vendor, &mut Tame, 30).unwrap();
            assert_eq!(comparison.differences, [], "{vendor:?}");
            assert_eq!(comparison.bare.stop, Stop::Requested(0));
            assert!(comparison.facts > 40, "{}", comparison.facts);
        }
    }

    #[test]
    fn drawn_programs_run_bare_to_their_end() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            for seed in 0..60 {
                let image = assemble(&Workload::draw(vendor, 40, &mut Seeded::new(seed))).unwrap();
                let run = run_bare(&image, Box::new(Tame), 1_000_000);
                let last: Vec<_> = run.records.iter().rev().take(6).rev().collect();
                assert_eq!(run.stop, Stop::Requested(0), "{vendor:?} seed {seed}: {last:x?}");
            }
        }
    }

    #[test]
    fn drawn_programs_and_schedules_are_the_same_bare_and_hosted() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            for seed in 0..40 {
                let comparison = transparency(vendor, &mut Seeded::new(seed), 40).unwrap();
                assert_eq!(comparison.differences, [], "{vendor:?} seed {seed}");
                assert_eq!(comparison.bare.stop, Stop::Requested(0), "{vendor:?} seed {seed}");
            }
        }
    }
}
