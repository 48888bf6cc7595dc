//! PCI configuration space by mechanism 1, with the functions of QEMU's `pc` machine that this machine has.
//!
//! Sources: PCI Local Bus Specification 3.0 "Software Generation of Configuration Transactions", "Configuration Space Header";
//! Intel 82441FX (PMC), 82371SB (PIIX3) and 82371AB (PIIX4) data sheets.

mod function;
mod host_bridge;
pub mod test_device;

use function::Function;
use rootmode_mmu::{Digest, Shadow};

/// The address port (32 bits wide).
pub const ADDRESS: u16 = 0xcf8;
/// The data port.
pub const DATA: u16 = 0xcfc;

/// Where firmware, or who takes its place, puts the memory BAR of the test device.
pub const TEST_MEMORY: u32 = 0xfebf_0000;
/// The same for its port BAR.
pub const TEST_PORTS: u16 = 0xc000;

/// Index of the host bridge.
const HOST: usize = 0;
/// Index of the power-management function.
const POWER: usize = 2;
/// Index of the test device.
const TEST: usize = 3;

/// Bus 0 and its functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciBus {
    address: u32,
    functions: Vec<Function>,
}

impl Default for PciBus {
    fn default() -> Self {
        Self::new()
    }
}

impl PciBus {
    /// Host bridge, ISA bridge, power management and the test device, configured as firmware leaves them.
    pub fn new() -> Self {
        let isa = Function::new(0x08, 0x8086, 0x7000, 0x06_0100, 0)
            .multifunction()
            .writable(0x4c..0xb0, 0xff)
            .preset(0x4c, &[0x4d])
            .preset(0x4e, &[0x03, 0x00])
            .preset(0x60, &[0x80; 4]);
        let power = Function::new(0x0b, 0x8086, 0x7113, 0x06_8000, 3)
            .writable(0x40..0xe0, 0xff)
            // The base is a multiple of 64 and a port address.
            .writable(0x40..0x41, 0xc0)
            .writable(0x42..0x44, 0x00)
            .preset(0x40, &0x601_u32.to_le_bytes())
            .preset(0x80, &[0x01])
            .interrupt(9, 1);
        let test = Function::new(0x18, 0x1b36, 0x0005, 0x00_ff00, 0)
            .bar(0, 0x1000, false, TEST_MEMORY)
            .bar(1, 0x100, true, u32::from(TEST_PORTS))
            .enabled();
        Self { address: 0, functions: vec![host_bridge::function_after_firmware(), isa, power, test] }
    }

    /// The same, but with a host bridge that no firmware has touched: the ROM is where its copy in RAM would be.
    pub fn after_reset() -> Self {
        let mut bus = Self::new();
        bus.functions[HOST] = host_bridge::function();
        bus
    }

    /// The function and register that the address register names. AMD's bridges take bits 27:24 as a register's upper bits;
    /// there are no registers above 0xff.
    fn target(&self) -> Option<(usize, u8)> {
        if self.address & 0x8fff_0000 != 0x8000_0000 {
            return None;
        }
        let number = (self.address >> 8) as u8;
        let index = self.functions.iter().position(|function| function.number() == number)?;
        Some((index, self.address as u8 & 0xfc))
    }

    /// Reads the address register.
    pub const fn address(&self) -> u32 {
        self.address
    }

    /// Writes it.
    pub const fn set_address(&mut self, value: u32) {
        self.address = value & 0x8fff_fffc;
    }

    /// Reads `size` bytes at data port 0xcfc to 0xcff; a function that is not there answers with ones.
    pub fn read(&self, port: u16, size: u8) -> u32 {
        let ones = u32::MAX >> (32 - 8 * u32::from(size));
        let Some((index, register)) = self.target() else { return ones };
        let offset = port & 3;
        (self.functions[index].read(register) >> (8 * offset)) & ones
    }

    /// Writes `size` bytes; true if the ranges that functions decode may have moved.
    pub fn write(&mut self, port: u16, size: u8, value: u32) -> bool {
        let Some((index, register)) = self.target() else { return false };
        let first = port & 3;
        for i in 0..u16::from(size).min(4 - first) {
            let at = register + (first + i) as u8;
            let mut byte = (value >> (8 * i)) as u8;
            if index == HOST {
                byte = host_bridge::written(&self.functions[HOST], at, byte);
            }
            self.functions[index].write(at, byte);
        }
        true
    }

    /// What the host bridge makes of the RAM below 1 MiB.
    pub fn shadows(&self) -> Vec<Shadow> {
        host_bridge::shadows(&self.functions[HOST])
    }

    /// The first port of the power-management block, if it is decoded.
    pub fn power_base(&self) -> Option<u16> {
        let function = &self.functions[POWER];
        (function.read(0x80) & 1 != 0).then(|| function.read(0x40) as u16 & 0xffc0)
    }

    /// The first port of the test device, if it is decoded.
    pub fn test_ports(&self) -> Option<u16> {
        self.functions[TEST].port_bar(1)
    }

    /// The address of the test device's memory, if it is decoded.
    pub fn test_memory(&self) -> Option<u64> {
        self.functions[TEST].memory_bar(0)
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        digest.u64(u64::from(self.address));
        for function in &self.functions {
            function.digest(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bus: &mut PciBus, device: u32, function: u32, register: u32) -> u32 {
        bus.set_address(0x8000_0000 | device << 11 | function << 8 | register);
        bus.read(DATA, 4)
    }

    fn write(bus: &mut PciBus, device: u32, function: u32, register: u32, value: u32) {
        bus.set_address(0x8000_0000 | device << 11 | function << 8 | register);
        bus.write(DATA, 4, value);
    }

    #[test]
    fn the_functions_of_a_pc_are_found_and_nothing_else() {
        let mut bus = PciBus::new();
        let mut found = Vec::new();
        for device in 0..32 {
            for function in 0..8 {
                let id = read(&mut bus, device, function, 0);
                if id != u32::MAX {
                    found.push((device, function, id, read(&mut bus, device, function, 8)));
                }
            }
        }
        assert_eq!(
            found,
            [
                (0, 0, 0x1237_8086, 0x0600_0002),
                (1, 0, 0x7000_8086, 0x0601_0000),
                (1, 3, 0x7113_8086, 0x0680_0003),
                (3, 0, 0x0005_1b36, 0x00ff_0000),
            ]
        );
        assert_eq!(read(&mut bus, 1, 0, 0x0c) >> 16 & 0x80, 0x80, "multifunction");
    }

    #[test]
    fn other_buses_and_a_clear_enable_bit_answer_ones() {
        let mut bus = PciBus::new();
        bus.set_address(0x8001_0000);
        assert_eq!(bus.read(DATA, 4), u32::MAX);
        bus.set_address(0);
        assert_eq!(bus.read(DATA, 2), 0xffff);
    }

    #[test]
    fn registers_are_read_by_byte_and_word_and_identifications_are_read_only() {
        let mut bus = PciBus::new();
        write(&mut bus, 0, 0, 0, 0);
        bus.set_address(0x8000_0000);
        assert_eq!((bus.read(0xcfc, 2), bus.read(0xcfe, 2), bus.read(0xcfd, 1)), (0x8086, 0x1237, 0x80));
    }

    #[test]
    fn base_registers_answer_their_size_and_decode_when_enabled() {
        let mut bus = PciBus::new();
        assert_eq!((bus.test_memory(), bus.test_ports()), (Some(0xfebf_0000), Some(0xc000)));
        write(&mut bus, 3, 0, 0x10, u32::MAX);
        write(&mut bus, 3, 0, 0x14, u32::MAX);
        assert_eq!((read(&mut bus, 3, 0, 0x10), read(&mut bus, 3, 0, 0x14)), (0xffff_f000, 0xffff_ff01));
        assert_eq!(read(&mut bus, 3, 0, 0x18), 0);
        write(&mut bus, 3, 0, 0x10, 0xd000_0000);
        write(&mut bus, 3, 0, 0x14, 0xe000);
        assert_eq!((bus.test_memory(), bus.test_ports()), (Some(0xd000_0000), Some(0xe000)));
        write(&mut bus, 3, 0, 0x04, 0x0001);
        assert_eq!((bus.test_memory(), bus.test_ports()), (None, Some(0xe000)));
    }

    #[test]
    fn the_power_block_moves_with_its_base() {
        let mut bus = PciBus::new();
        assert_eq!(bus.power_base(), Some(0x600));
        write(&mut bus, 1, 3, 0x40, 0xffff_b03f);
        assert_eq!((bus.power_base(), read(&mut bus, 1, 3, 0x40)), (Some(0xb000), 0xb001));
        write(&mut bus, 1, 3, 0x80, 0);
        assert_eq!(bus.power_base(), None);
    }
}
