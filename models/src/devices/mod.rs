//! Devices: plain state machines behind the board's bus.
//!
//! A device is a value: `Clone` is its snapshot, `digest` its fingerprint. It knows time only as the tick it is called at;
//! what will happen later it says as the tick of its next event. It never calls back.

pub mod acpi;
pub mod clock;
pub mod fw_cfg;
pub mod hpet;
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

use rootmode_arch::HostPhysical;
use rootmode_mmu::PhysicalMemory;

/// Guest memory, as a device that accesses it by itself reaches it: a machine's own, or the slots of a VM.
pub trait GuestMemory {
    /// Reads; ones where there is no memory.
    fn load(&mut self, address: u64, bytes: &mut [u8]);
    /// Writes; nothing where there is no memory.
    fn store(&mut self, address: u64, bytes: &[u8]);
}

impl GuestMemory for PhysicalMemory {
    fn load(&mut self, address: u64, bytes: &mut [u8]) {
        self.read(HostPhysical(address), bytes);
    }
    fn store(&mut self, address: u64, bytes: &[u8]) {
        self.write(HostPhysical(address), bytes);
    }
}

pub use test_ports::{PRINT_PORT, SHUTDOWN_PORT, TestPorts};
