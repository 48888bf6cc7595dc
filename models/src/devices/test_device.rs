//! QEMU's `pc-testdev`: ports that read back, interrupt lines in the guest's hand, a page of MMIO that remembers.
//!
//! Its facts: ports 0xe0 to 0xe3 and 0xe8 to 0xeb share one 32-bit register; a write of 0xe4 names a page to be unmapped and
//! mapped again, which changes nothing in this machine; a byte written to port 0x2000 + n sets interrupt line n; 64 KiB at
//! 0xff000000 behave as memory.

use rootmode_mmu::Digest;

/// First port of the interrupt lines.
pub const LINES: u16 = 0x2000;
/// Number of lines.
pub const LINE_COUNT: u16 = 24;
/// First port of the register that reads back.
pub const READ_BACK: u16 = 0xe0;
/// The port that flushes a page.
pub const FLUSH: u16 = 0xe4;
/// The same register, which QEMU splits into bytes.
pub const READ_BACK_BYTES: u16 = 0xe8;
/// Where its memory lies.
pub const MEMORY: u64 = 0xff00_0000;
/// Bytes of it.
pub const MEMORY_SIZE: u64 = 0x1_0000;

/// The device, without its lines: those are levels that the chipset keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestDevice {
    register: [u8; 4],
    /// Allocated when first written.
    memory: Vec<u8>,
}

impl Default for TestDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl TestDevice {
    /// All zero.
    pub const fn new() -> Self {
        Self { register: [0; 4], memory: Vec::new() }
    }

    /// Reads the register's byte behind a port.
    pub fn read(&self, port: u16) -> u8 {
        self.register[usize::from(port & 3)]
    }

    /// Writes it.
    pub fn write(&mut self, port: u16, value: u8) {
        self.register[usize::from(port & 3)] = value;
    }

    /// Reads `size` bytes (1 to 8) of the memory; what lies beyond its end is zero.
    pub fn read_memory(&self, offset: u64, size: u8) -> u64 {
        let byte = |i: u64| self.memory.get((offset + i) as usize).copied().unwrap_or(0);
        (0..u64::from(size)).rev().fold(0, |value, i| value << 8 | u64::from(byte(i)))
    }

    /// Writes `size` bytes of it.
    pub fn write_memory(&mut self, offset: u64, size: u8, value: u64) {
        if self.memory.is_empty() {
            self.memory = vec![0; MEMORY_SIZE as usize];
        }
        for (i, byte) in value.to_le_bytes().into_iter().enumerate().take(usize::from(size)) {
            if let Some(place) = self.memory.get_mut(offset as usize + i) {
                *place = byte;
            }
        }
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        digest.bytes(&self.register);
        digest.bytes(&self.memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_register_is_shared_by_both_port_ranges() {
        let mut device = TestDevice::new();
        device.write(0xe1, 0x12);
        assert_eq!((device.read(0xe1), device.read(0xe9), device.read(0xe0)), (0x12, 0x12, 0));
    }

    #[test]
    fn its_memory_remembers_and_ends() {
        let mut device = TestDevice::new();
        assert_eq!(device.read_memory(0x10, 8), 0);
        device.write_memory(0x10, 8, 0x0102_0304_0506_0708);
        assert_eq!(device.read_memory(0x11, 4), 0x0405_0607);
        device.write_memory(0xfffe, 4, 0xaabb_ccdd);
        assert_eq!(device.read_memory(0xfffe, 4), 0xccdd);
    }
}
