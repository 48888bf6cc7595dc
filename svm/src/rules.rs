//! The rules of VMRUN: every consistency check that refuses a VMCB, as one table.
//!
//! Each rule answers satisfied, violated, or *unknown because something is missing* (a dump shows only part of a VMCB).
//! [`judge_all`] asks every rule, [`check_entry`] is the same table as straight-line code for VM entry itself, and
//! [`nearest`] proposes values that would satisfy a violated rule.
//!
//! The manual fixes no order among the checks, and every failure but three reports VMEXIT_INVALID alike; the table's
//! order is this crate's choice: controls, guest state, injection, nested paging, AVIC, encryption.
//!
//! ```
//! use rootmode_svm::{Field, Vmcb, capabilities::GENOA};
//! use rootmode_svm::rules::{EntryContext, Host, Judgement, judge_all};
//! let mut vmcb = Vmcb::unknown();
//! vmcb.set(Field::Cr0, 0x2000_0011); // NW without CD
//! let cx = EntryContext::new(&GENOA, &vmcb).with_host(Host::LONG_MODE);
//! let broken: Vec<_> = judge_all(&cx).filter(|(_, j)| *j == Judgement::Violated).collect();
//! assert_eq!(broken[0].0.id, "svm.cr0.nw-without-cd");
//! ```

mod canonical;
mod context;
mod control;
mod correction;
mod guest;
mod look;
mod nested;
mod sev;
mod table;

pub use canonical::{CANONICALIZED, Canonicalized, canonicalize};
pub use context::{EntryContext, Host, HostValue, Missing, NoMemory, PhysicalMemory};
pub use correction::{Correction, Corrections, Place, nearest};
pub use table::{RULES, check_entry};

use crate::encode::ExitCode;
use crate::vmcb::Field;
use look::Look;

/// Where the manual says it. Sections are named, because their numbers move between editions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Citation {
    /// Volume, publication number and revision.
    pub manual: &'static str,
    /// Section title.
    pub section: &'static str,
}

/// How firmly the manual says that VMRUN refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Basis {
    /// It says that VMRUN exits with the reported code.
    Stated,
    /// It says that software must not do it, or that the encoding is reserved, without naming the exit.
    Required,
}

/// What a rule says about one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The demand is met, or does not apply.
    Satisfied,
    /// VMRUN refuses this.
    Violated,
    /// Cannot be judged: this is missing.
    Unknown(Missing),
}

impl Judgement {
    /// Whether the rule is violated.
    pub const fn is_violated(self) -> bool {
        matches!(self, Self::Violated)
    }
    /// Whether the rule is satisfied.
    pub const fn is_satisfied(self) -> bool {
        matches!(self, Self::Satisfied)
    }
}

impl From<Result<bool, Missing>> for Judgement {
    #[inline(always)]
    fn from(answer: Result<bool, Missing>) -> Self {
        match answer {
            Ok(true) => Self::Satisfied,
            Ok(false) => Self::Violated,
            Err(missing) => Self::Unknown(missing),
        }
    }
}

/// A row of the table.
pub struct Rule {
    /// Stable identifier: appears in errors, docs and tests.
    pub id: &'static str,
    /// What is demanded, in one sentence.
    pub demand: &'static str,
    /// Where the manual demands it.
    pub citation: Citation,
    /// How firmly.
    pub basis: Basis,
    /// The fields that the rule may read. With SEV-ES the state-save fields are the VMSA's.
    pub fields: &'static [Field],
    /// What the processor reports in EXITCODE; EXITINFO1 and 2 are undefined.
    pub report: ExitCode,
    pub(crate) check: fn(&Look<'_>) -> Result<bool, Missing>,
    pub(crate) propose: fn(&Look<'_>, &mut Corrections),
}

impl Rule {
    /// The rule called `id`.
    pub fn from_id(id: &str) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.id == id)
    }
    /// Judges one entry.
    pub fn judge(&self, cx: &EntryContext) -> Judgement {
        (self.check)(&Look::new(cx)).into()
    }
}

impl core::fmt::Debug for Rule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.id)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
impl Eq for Rule {}

/// Every rule with its judgement, in table order.
pub fn judge_all<'a>(cx: &'a EntryContext<'_>) -> impl Iterator<Item = (&'static Rule, Judgement)> + use<'a> {
    let look = Look::new(cx);
    RULES.iter().map(move |rule| (rule, (rule.check)(&look).into()))
}

/// Whether VMRUN enters the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every rule is satisfied.
    Enters,
    /// The first violated rule in table order; its `report` is the exit code.
    Refused(&'static Rule),
    /// No rule is violated, but this first one cannot be judged.
    Undecided(&'static Rule, Missing),
}

#[cfg(test)]
mod tests;
