//! Two ports for guests without other devices: one prints a byte, one stops the machine.

use rootmode_arch::HostPhysical;
use rootmode_arch::record::Stop;
use rootmode_cpu::{Bus, Effects};
use rootmode_mmu::PhysicalMemory;

/// A byte written here is printed: observers see it as a port access. Reads answer 0xe9, which says that the port exists.
pub const PRINT_PORT: u16 = 0xe9;
/// A 4-byte write here stops the machine with the written value.
pub const SHUTDOWN_PORT: u16 = 0xf4;

/// A bus with these two ports only. Other reads are all ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestPorts;

impl Bus for TestPorts {
    fn read_port(&mut self, port: u16, size: u8, _: u64, _: &mut Effects) -> u32 {
        let all_ones = u32::MAX >> (32 - 8 * u32::from(size));
        if port == PRINT_PORT { u32::from(PRINT_PORT) } else { all_ones }
    }

    fn write_port(&mut self, port: u16, size: u8, value: u32, _: u64, effects: &mut Effects) {
        if port == SHUTDOWN_PORT && size == 4 {
            effects.stop = Some(Stop::Requested(value));
        }
    }

    fn read_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: &mut Effects) -> u64 {
        u64::MAX
    }

    fn write_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: u64, _: &mut Effects) {}

    fn deadline(&mut self, _: u32, _: u64, _: &mut PhysicalMemory, _: &mut Effects) {}

    fn copy(&self) -> Option<Box<dyn Bus>> {
        Some(Box::new(*self))
    }
}
