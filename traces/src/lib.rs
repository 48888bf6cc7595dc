//! Traces and the text that Linux prints: formats, readers, writers.
//!
//! - [`dump`]: the VMCS or VMCB that KVM prints when an entry fails, in and out; `FIELD = value` lists.

pub mod dump;
