//! Devices: plain state machines behind the board's bus.
//!
//! A device is a value: `Clone` is its snapshot, `digest` its fingerprint. It knows time only as the tick it is called at;
//! what will happen later it says as the tick of its next event. It never calls back.

pub mod acpi;
pub mod clock;
pub mod fw_cfg;
pub mod ioapic;
pub mod keyboard;
pub mod pc;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod rtc;
pub mod test_device;
mod test_ports;
pub mod uart;

pub use test_ports::{PRINT_PORT, SHUTDOWN_PORT, TestPorts};
