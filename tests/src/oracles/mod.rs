//! Second opinions about VM exits: slow tables written from the manuals, compared with `decide` over random views and events.
//!
//! Nothing here uses the tables, encoders or bitmap look-ups of `vmx` and `svm`; controls are plain bit numbers, exit
//! reasons plain numbers, qualifications plain shifts. Where a manual leaves a field or an outcome open, a mask says so
//! beside the section title.

pub mod compare;
pub mod draw;
pub mod proofs;
pub mod svm_compare;
pub mod svm_draw;
pub mod svm_exits;
pub mod vmx_compare;
mod vmx_conditions;
pub mod vmx_draw;
pub mod vmx_exits;
pub mod vmx_information;
mod vmx_qualifications;

pub use compare::{Report, compare};

use rootmode_arch::Stage;

/// A value of which only the bits of `mask` are specified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The value.
    pub value: u64,
    /// Which of its bits the manual defines.
    pub mask: u64,
}

impl Masked {
    /// Every bit is defined.
    pub const fn exact(value: u64) -> Self {
        Self { value, mask: u64::MAX }
    }

    /// Only the bits of `mask` are defined.
    pub const fn within(value: u64, mask: u64) -> Self {
        Self { value, mask }
    }

    /// Nothing is defined.
    pub const OPEN: Self = Self { value: 0, mask: 0 };

    /// Whether `actual` has the value where it is defined.
    pub const fn agrees(self, actual: u64) -> bool {
        (self.value ^ actual) & self.mask == 0
    }
}

/// The stages at which an instruction's exit may be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Not an instruction's event: no stage is compared.
    Anytime,
    /// Exactly this one.
    At(Stage),
    /// The instruction has no check of privilege, so that the two first stages are one.
    BeforeMemory,
    /// The manual does not say whether its operands are fetched before.
    Operands,
}

impl When {
    /// Whether exits at the two stages are one and the same: nothing that the instruction could fault on lies between.
    pub fn unites(self, one: Stage, other: Stage) -> bool {
        self == When::BeforeMemory && self.allows(one) && self.allows(other)
    }

    /// Whether an exit at `stage` agrees.
    pub fn allows(self, stage: Stage) -> bool {
        match self {
            When::Anytime => true,
            When::At(at) => at == stage,
            When::BeforeMemory => stage != Stage::AfterOperands,
            When::Operands => stage != Stage::BeforeExceptions,
        }
    }
}

/// What the manual says about an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedExit {
    /// The row that says so.
    pub row: &'static str,
    /// Basic exit reason, or EXITCODE.
    pub reason: u64,
    /// Exit qualification, or EXITINFO1.
    pub qualification: Masked,
    /// EXITINFO2 (SVM).
    pub second: Masked,
    /// VM-exit instruction information; `None`: the exit has none.
    pub information: Option<Masked>,
    /// VM-exit interruption information.
    pub interruption: Masked,
    /// VM-exit interruption error code.
    pub error_code: Option<u32>,
    /// Guest-linear address, where it is defined.
    pub guest_linear: Option<u64>,
    /// Guest-physical address, where it is defined.
    pub guest_physical: Option<u64>,
    /// The stage.
    pub when: When,
}

/// What an oracle answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No exit.
    Stays,
    /// An exit.
    Exits(ExpectedExit),
    /// The manual gives no answer to such a case, or it cannot arise: nothing is compared.
    Open,
}
