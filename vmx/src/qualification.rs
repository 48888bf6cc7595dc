//! Exit qualifications: one type a format, encoded to and decoded from the VMCS field.
//!
//! `encode` leaves undefined and reserved bits 0. `decode` answers `None` for a value that the format does not use,
//! and ignores bits that the manual leaves undefined. What has no type here has a qualification of 0, a linear address
//! (INVLPG, page faults), a vector (SIPI, virtualized EOI), a page offset (APIC writes) or a displacement.
//!
//! Source: SDM Vol. 3C (325384-083, Mar 2024) "Basic VM-Exit Information".

mod memory;
mod registers;
mod task;

pub use memory::{ApicAccess, ApicAccessKind, EptViolation, LinearAccess, LogFull};
pub use registers::{CrAccess, CrAccessKind, DebugQualification, MovDr};
pub use task::{Io, Mwait, TaskSwitch};
