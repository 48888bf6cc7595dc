//! Devices: plain state machines behind the board's bus.

mod test_ports;

pub use test_ports::{PRINT_PORT, SHUTDOWN_PORT, TestPorts};
