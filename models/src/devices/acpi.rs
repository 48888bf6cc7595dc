//! ACPI: the power-management registers of the south bridge, and the tables that describe the machine.

pub mod power;
pub mod tables;
