//! KVM as an executable model.

pub mod host;
