//! [`Row`]: one entry of a pass-through table.

use super::{Accesses, Condition, Kernel};

/// When a row is re-evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// At every recalculation: filter change, CPUID, reset, creation.
    Always,
    /// Also whenever LBR virtualization of the current VMCB is switched.
    LastBranch,
    /// When the APIC's mode changes. Not filterable.
    Apic,
}

/// MSRs that KVM passes through under one condition. Everything that no row names is intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// First MSR.
    pub first: u32,
    /// Last MSR, at least `first`.
    pub last: u32,
    /// The accesses that are passed through; the others are intercepted.
    pub accesses: Accesses,
    /// When.
    pub when: Condition,
    /// The first kernel that does so.
    pub since: Kernel,
    /// When the row is re-evaluated.
    pub part: Part,
    /// Whether the condition is inverted; for mutations.
    pub negated: bool,
}

impl Row {
    /// One MSR, at every recalculation, in every kernel of the catalogue.
    pub(super) const fn new(msr: u32, accesses: Accesses, when: Condition) -> Self {
        Self::range(msr, msr, accesses, when)
    }

    /// `first..=last`, at every recalculation, in every kernel of the catalogue.
    pub(super) const fn range(first: u32, last: u32, accesses: Accesses, when: Condition) -> Self {
        Self { first, last, accesses, when, since: Kernel::V6_12, part: Part::Always, negated: false }
    }

    /// The same from kernel `since` on.
    pub(super) const fn since(self, since: Kernel) -> Self {
        Self { since, ..self }
    }

    /// The same as a part of its own.
    pub(super) const fn part(self, part: Part) -> Self {
        Self { part, ..self }
    }

    /// The row's MSRs.
    pub fn msrs(&self) -> impl Iterator<Item = u32> {
        self.first..=self.last
    }
}
