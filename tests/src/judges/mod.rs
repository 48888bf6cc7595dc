//! Independent judges of the entry rules: Debian's Bochs 2.7 (VMX and SVM) and QEMU 7.2 TCG (SVM).

pub mod arena;
pub mod batch;
pub mod emulator;
pub mod layout;
pub mod random;
pub mod rom;
pub mod rom_svm;
pub mod rom_vmx;
pub mod runner;
pub mod svm_cases;
pub mod transcript;
pub mod vmcb;
pub mod vmcs;
pub mod vmx_bases;
pub mod vmx_cases;
