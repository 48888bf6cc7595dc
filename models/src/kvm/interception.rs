//! Which MSR accesses of a guest exit: pass-through tables, recalculation, and the helpers that change single bits.
//!
//! The map is a function of [`Configuration`] and filter alone; [`recalculate`] is that function. [`Intercepts`] is
//! a vCPU's map with KVM's incremental interface and the flags that tell others that it changed.

mod access;
mod condition;
mod configuration;
#[cfg(test)]
mod golden;
mod map;
mod protected;
mod row;
mod svm;
mod vcpu;
mod vmx;

pub use access::{Access, Accesses};
pub use condition::Condition;
pub use configuration::{
    ApicMode, Confidential, Configuration, Kernel, LastBranch, MediatedPmu, ProcessorTrace,
};
pub(super) use map::or_into;
pub use map::{InterceptMap, MapLayout, MsrRange, Position};
pub(super) use map::{MSR_BITMAP, MSRPM};
pub use protected::{ProtectedAccess, host_access};
pub use row::{Part, Row};
pub use svm::TABLE as SVM_TABLE;
pub use vcpu::{Cause, Intercepts, recalculate};
pub use vmx::TABLE as VMX_TABLE;
