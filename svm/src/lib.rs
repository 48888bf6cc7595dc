//! AMD SVM: definitions, VMRUN rules, intercept decisions; and the half that drives the CPU.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod bitmap;

pub use bitmap::{Access, Iopm, Msrpm, PermissionMaps};
