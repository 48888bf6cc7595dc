//! rootmode: a deterministic x86 machine for hypervisors without hardware virtualization.
#![forbid(unsafe_code)]

pub mod guests;
