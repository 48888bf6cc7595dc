//! The last-branch records of AMD processors
//! (APM Vol. 2 (24593 rev. 3.43) "Control-Transfer Recording Using Last-Branch Records").

use crate::Cpu;
use rootmode_arch::{DebugCtl, Vendor};

/// Where control went last, as instruction pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct BranchRecords {
    /// LastBranchFromIP: the branch, or the instruction that an exception or interrupt interrupted.
    pub from: u64,
    /// LastBranchToIP.
    pub to: u64,
    /// LastIntFromIP: what `from` was before the last exception or interrupt.
    pub interrupt_from: u64,
    /// LastIntToIP: what `to` was before it.
    pub interrupt_to: u64,
}

impl BranchRecords {
    /// The four registers in the order of their MSR numbers.
    pub const fn values(&self) -> [u64; 4] {
        [self.from, self.to, self.interrupt_from, self.interrupt_to]
    }
}

impl Cpu {
    /// Whether branches are recorded: DEBUGCTL.LBR, on a processor that has these records.
    pub(crate) fn records_branches(&self) -> bool {
        self.msrs.debugctl & DebugCtl::LBR.0 != 0 && self.model.vendor() == Vendor::Amd
    }

    /// Control went from `from` to RIP by a branch.
    pub(crate) fn record_branch(&mut self, from: u64) {
        if self.records_branches() {
            self.branches.from = from;
            self.branches.to = self.rip;
        }
    }

    /// Control went from `from` to RIP by an exception or interrupt.
    pub(crate) fn record_delivery(&mut self, from: u64) {
        if self.records_branches() {
            self.branches.interrupt_from = self.branches.from;
            self.branches.interrupt_to = self.branches.to;
            self.record_branch(from);
        }
    }
}
