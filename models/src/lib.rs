//! What surrounds the processor: KVM as an executable model, devices.
#![forbid(unsafe_code)]

pub mod devices;
pub mod kvm;
