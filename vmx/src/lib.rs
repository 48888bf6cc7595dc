//! Intel VMX: definitions, entry rules, intercept decisions; and the half that drives the CPU.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

pub mod bitmap;
pub mod boundary;
pub mod context;
pub mod decide;
pub mod definitions;
#[cfg(feature = "drive")]
pub mod drive;
pub mod information;
pub mod qualification;
pub mod rules;
pub mod vmcs;

pub use context::{EntryContext, Item, Memory, Processor};
pub use definitions::capabilities::Capabilities;
pub use definitions::controls::{
    Control, EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls,
    SecondaryExitControls, TertiaryControls, VmFunctions,
};
pub use definitions::exit_reason::{ExitReason, InstructionError};
pub use definitions::field::{Field, FieldSet};
pub use rules::{Judgement, Missing, Refusal, Report, Rule, check_entry, judge_all};
pub use vmcs::Vmcs;
