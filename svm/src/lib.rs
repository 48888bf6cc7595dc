//! AMD SVM: definitions, VMRUN rules, intercept decisions; and the half that drives the CPU.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

pub mod bitmap;
pub mod boundary;
pub mod capabilities;
pub mod decide;
#[cfg(feature = "drive")]
pub mod drive;
pub mod encode;
pub mod rules;
pub mod vmcb;

pub use bitmap::{Access, Iopm, Msrpm, PermissionMaps};
pub use capabilities::Processor;
pub use encode::ExitCode;
pub use vmcb::{Field, Intercept, Intercepts, Vmcb, Vmsa};
