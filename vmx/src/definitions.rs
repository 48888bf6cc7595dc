//! What exists in VMX, as tables: VMCS fields, control bits, capability MSRs, exit reasons, processor models.

pub mod capabilities;
pub mod controls;
pub mod exit_reason;
pub mod field;
pub mod models;
