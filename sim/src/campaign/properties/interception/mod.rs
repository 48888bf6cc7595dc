//! KVM's MSR interception: map arithmetic, filter, recalculation, nested merges, disabled exits.
//!
//! Cases are drawn as descriptions (`draw`); the model gets bytes built from them, and the oracle (`oracle`) judges from
//! the description and the manuals' formulas, never from the model's maps.

mod access;
pub mod draw;
mod exits;
mod filter;
mod history;
mod maps;
mod nested_svm;
mod nested_vmx;
pub mod oracle;
mod routing;

pub(crate) use access::PROPERTIES as ACCESS;
pub(crate) use exits::PROPERTIES as EXITS;
pub(crate) use filter::PROPERTIES as FILTER;
pub(crate) use history::PROPERTIES as HISTORY;
pub(crate) use maps::PROPERTIES as MAPS;
pub(crate) use nested_svm::PROPERTIES as NESTED_SVM;
pub(crate) use nested_vmx::PROPERTIES as NESTED_VMX;
pub(crate) use routing::PROPERTIES as ROUTING;
