//! The law of transparency: the same L1 with the same L2, bare and hosted, sees the same, whether L0 is a host of its own or
//! runs the VM of a client.

mod bare;
mod compare;
mod hosted;
mod run;
mod vm;

pub use bare::{bare_board, board_of, extension, model, run_bare, run_bare_with, start_state};
pub use compare::{Allowed, Comparison, Difference, compare, facts, is_fact};
pub use hosted::{Hosting, host_of, run_hosted, run_of};
pub use run::{Contents, Recorder, Run};
pub(crate) use vm::put_registers;
pub use vm::{Client, empty_vm, run_in_vm, vm_of};

use rootmode_arch::Vendor;
use rootmode_arch::choices::{Choices, Seeded, Site, Tame};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::host::HostBug;
use rootmode_models::kvm::vm::Failure;

use crate::guests::{GuestError, Workload, assemble};

/// Bound on the ticks of one run.
pub const LIMIT: u64 = 10_000_000;

/// The choices of L0's schedule number `seed`; 0 is the tame one.
pub fn schedule(seed: u64) -> Box<dyn Choices + Send> {
    if seed == 0 { Box::new(Tame) } else { Box::new(Seeded::new(seed)) }
}

/// Why a comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransparencyError {
    /// The programs could not be assembled.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// L0 has a bug.
    #[error(transparent)]
    Host(#[from] HostBug),
    /// A call of the VM's client failed.
    #[error(transparent)]
    Vm(#[from] Failure),
}

/// What is run twice: a pair of programs, and what L0 does meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// L1 and L2.
    pub workload: Workload,
    /// A worker of L0 takes pages away from L2.
    pub reclaim: bool,
    /// Seed of L0's schedule; 0 is the tame one.
    pub schedule: u64,
}

impl Case {
    /// Draws a case; `operations` is the number of things that L2 does.
    pub fn draw(vendor: Vendor, operations: u64, choices: &mut dyn Choices) -> Self {
        Self {
            workload: Workload::draw(vendor, operations, choices),
            reclaim: choices.flip(Site::Swarm),
            schedule: choices.choose(Site::Task, 1 << 32),
        }
    }

    /// Runs it bare, and hosted by L0 with `regressions` switched on, and compares what L1 and L2 see.
    ///
    /// # Errors
    /// [`TransparencyError`]; a difference is not an error but part of the [`Comparison`].
    pub fn compare(&self, regressions: Regressions) -> Result<Comparison, TransparencyError> {
        let image = assemble(&self.workload)?;
        let bare = run_bare(&image, Box::new(Tame), LIMIT);
        let hosted = run_hosted(&image, schedule(self.schedule), self.reclaim, regressions, LIMIT)?;
        Ok(compare(bare, hosted, self.workload.vendor))
    }

    /// The same in a VM of a client's, whose vCPU L1 has.
    ///
    /// # Errors
    /// [`TransparencyError`].
    pub fn compare_vm(&self, regressions: Regressions) -> Result<Comparison, TransparencyError> {
        let image = assemble(&self.workload)?;
        let bare = run_bare(&image, Box::new(Tame), LIMIT);
        let hosted = run_in_vm(&image, schedule(self.schedule), regressions, LIMIT)?;
        Ok(compare(bare, hosted, self.workload.vendor))
    }
}

#[cfg(test)]
mod tests;
