//! Intel VMX: definitions, entry rules, intercept decisions; and the half that drives the CPU.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod bitmap;
