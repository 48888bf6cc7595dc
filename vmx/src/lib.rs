//! Intel VMX: definitions, entry rules, intercept decisions; and the half that drives the CPU.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

pub mod bitmap;
pub mod decide;
pub mod definitions;
pub mod information;
pub mod qualification;
pub mod vmcs;

pub use definitions::capabilities::Capabilities;
pub use definitions::controls::{
    Control, EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls,
    SecondaryExitControls, TertiaryControls, VmFunctions,
};
pub use definitions::exit_reason::{ExitReason, InstructionError};
pub use definitions::field::{Field, FieldSet};
pub use vmcs::Vmcs;
