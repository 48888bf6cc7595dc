//! What our rules say of a case, in the terms in which a judging machine answers.

use super::transcript::{End, Outcome};

/// Where a broken rule makes an entry fail, in the order in which the manual has the stages happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// VMfail with this error number: 7, or one about the instruction; 0 stands for VMfailInvalid, which has none.
    Controls(u64),
    /// VMfail with error 8.
    Host,
    /// VM exit with reason 0x80000021 and this qualification.
    Guest(u64),
    /// VM exit with reason 0x80000022 and the number of the MSR entry.
    MsrLoad(u64),
    /// `VMEXIT_INVALID`.
    Invalid,
}

/// One rule that a case breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Identifier of the rule.
    pub rule: String,
    /// What breaking it leads to.
    pub stage: Stage,
}

/// How an entry ends, without what the guest does afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The guest is entered.
    Enters,
    /// The entry fails.
    Fails(Stage),
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Enters => write!(f, "enters"),
            Verdict::Fails(Stage::Controls(error)) => write!(f, "VMfail {error}"),
            Verdict::Fails(Stage::Host) => write!(f, "VMfail 8"),
            Verdict::Fails(Stage::Guest(qualification)) => write!(f, "exit 80000021/{qualification}"),
            Verdict::Fails(Stage::MsrLoad(entry)) => write!(f, "exit 80000022/{entry}"),
            Verdict::Fails(Stage::Invalid) => write!(f, "VMEXIT_INVALID"),
        }
    }
}

/// Our verdict: the violation of the earliest stage decides, among those of one stage the first in the table.
#[must_use]
pub fn ours<'a>(violations: impl IntoIterator<Item = &'a Violation>) -> Verdict {
    let mut first: Option<Stage> = None;
    for violation in violations {
        let earlier = first.is_none_or(|stage| rank(violation.stage) < rank(stage));
        if earlier {
            first = Some(violation.stage);
        }
    }
    first.map_or(Verdict::Enters, Verdict::Fails)
}

/// Controls and host state are checked before anything is loaded, then guest state, then the MSR list.
fn rank(stage: Stage) -> u8 {
    match stage {
        Stage::Controls(_) => 0,
        Stage::Host => 1,
        Stage::Guest(_) => 2,
        Stage::MsrLoad(_) => 3,
        Stage::Invalid => 4,
    }
}

/// The verdict of a VMX machine.
#[must_use]
pub fn of_vmx(outcome: &Outcome) -> Verdict {
    match outcome.end {
        End::Failed { flags: 0x40, error: 8 } => Verdict::Fails(Stage::Host),
        End::Failed { flags, .. } if flags & 1 != 0 => Verdict::Fails(Stage::Controls(0)),
        End::Failed { error, .. } => Verdict::Fails(Stage::Controls(error)),
        End::Exit { reason: 0x8000_0021, qualification } => Verdict::Fails(Stage::Guest(qualification)),
        End::Exit { reason: 0x8000_0022, qualification } => Verdict::Fails(Stage::MsrLoad(qualification)),
        End::Exit { .. } | End::Lost => Verdict::Enters,
    }
}

/// The verdict of an SVM machine.
///
/// QEMU 7.2 writes `VMEXIT_INVALID` as 32 bits; which bits 63:32 it leaves is not what is judged here.
#[must_use]
pub fn of_svm(outcome: &Outcome) -> Verdict {
    match outcome.end {
        End::Exit { reason, .. } if reason as u32 == u32::MAX => Verdict::Fails(Stage::Invalid),
        End::Failed { error, .. } => Verdict::Fails(Stage::Controls(error)),
        End::Exit { .. } | End::Lost => Verdict::Enters,
    }
}
