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
mod tests;
