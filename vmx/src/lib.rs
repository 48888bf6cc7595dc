//! Intel VMX: definitions, entry rules, intercept decisions; and the half that drives the CPU.
//!
//! The pure half is `no_std` and allocates nothing (`default-features = false`): link it into a hypervisor and ask why an entry failed.
//! [`definitions`] are the tables (fields, controls, capabilities), [`Vmcs`] holds field values, [`rules`] judges them,
//! [`boundary`] generates states around every rule, [`decide`] says which events exit.
//!
//! ```
//! use rootmode_arch::HostPhysical;
//! use rootmode_vmx::context::NoMemory;
//! use rootmode_vmx::definitions::models::SAPPHIRE_RAPIDS;
//! use rootmode_vmx::rules::{Place, nearest};
//! use rootmode_vmx::{EntryContext, Field, Processor, Vmcs, judge_all};
//!
//! // What a dump shows: three fields. The rest is unknown.
//! let vmcs = Vmcs::unknown()
//!     .with(Field::GuestRflags, 0x200)
//!     .with(Field::GuestTrRights, 0x8b)
//!     .with(Field::GuestActivity, 0);
//! let context = EntryContext {
//!     vmcs: &vmcs,
//!     capabilities: &SAPPHIRE_RAPIDS.capabilities(),
//!     processor: &Processor::new(&SAPPHIRE_RAPIDS, HostPhysical(0x1000)),
//!     memory: &NoMemory,
//! };
//! let mut broken = Vec::new();
//! judge_all(&context, |rule, judgement| {
//!     if judgement.is_violated() {
//!         let fix = nearest(rule, &context).unwrap();
//!         broken.push((rule.id, fix.place, fix.value));
//!     }
//! });
//! assert_eq!(broken, [("vmx.guest.rflags.one", Place::Field(Field::GuestRflags), 0x202)]);
//! ```
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
