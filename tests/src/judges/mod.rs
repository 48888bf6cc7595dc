//! Independent judges of the entry rules: Debian's Bochs 2.7 (VMX and SVM) and QEMU 7.2 TCG (SVM).
//!
//! A generated ROM boots the machine into 64-bit mode, prints the processor's capabilities and launches one nearly valid
//! VMCS or VMCB after the other; the same state is judged by the rules of `rootmode-vmx` or `rootmode-svm` for those
//! capabilities. Both must come to the same error number, exit reason and exit qualification, and Bochs's logged reason
//! must be among the rules that we found broken. What differs is listed in `tests/judges/disagreements.txt`, settled by
//! a section of the manual.
//!
//! Nothing of how a case is made, stored or run is taken from the crates under judgement.

pub mod arena;
pub mod batch;
pub mod command;
mod controls;
pub mod disagreements;
pub mod emulator;
pub mod guests;
pub mod judge;
pub mod layout;
pub mod proofs;
pub mod random;
pub mod reasons;
pub mod recorded;
pub mod rom;
pub mod rom_svm;
pub mod rom_vmx;
mod rom_vmx_legacy;
pub mod runner;
pub mod stanzas;
pub mod svm_cases;
pub mod svm_rules;
pub mod transcript;
pub mod verdict;
pub mod vmcb;
pub mod vmcs;
pub mod vmx_bases;
pub mod vmx_cases;
pub mod vmx_rules;

pub use judge::{Extension, JUDGES, Judge, JudgeError, Tally};
