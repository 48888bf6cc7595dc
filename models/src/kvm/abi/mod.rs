//! The KVM interface as data: its structures, on any host, and one table of everything that a client can ask for.
//!
//! Structures have the kernel's field names and layout. They cross into a client's memory as bytes ([`Plain`]), so that
//! no pointer is ever taken. On x86-64 a test compares sizes and offsets with the `kvm-bindings` crate.

mod capabilities;
mod events;
mod interrupts;
mod memory;
mod plain;
mod registers;
mod requests;
mod run;

pub use capabilities::{CAPABILITIES, Capability, EXITS, ExitReason, cap, capability};
pub use events::*;
pub use interrupts::*;
pub use memory::*;
pub use plain::Plain;
pub use registers::*;
pub use requests::{Object, REQUESTS, Request, State, absent, request};
pub use run::*;
