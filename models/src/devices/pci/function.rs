//! One function's configuration space: its bytes, and which of their bits can be written.

use rootmode_mmu::Digest;
use std::ops::Range;

const COMMAND: usize = 0x04;
const PORTS_ENABLED: u8 = 1;
const MEMORY_ENABLED: u8 = 2;

/// A function with a header of type 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    number: u8,
    bytes: [u8; 256],
    /// Bits that configuration writes change.
    writable: [u8; 256],
}

impl Function {
    /// `number` is device << 3 | function; `class` is base class, subclass and interface.
    pub(super) fn new(number: u8, vendor: u16, device: u16, class: u32, revision: u8) -> Self {
        let mut function = Self { number, bytes: [0; 256], writable: [0; 256] }
            .preset(0x00, &vendor.to_le_bytes())
            .preset(0x02, &device.to_le_bytes())
            .preset(0x08, &(class << 8 | u32::from(revision)).to_le_bytes())
            // The subsystem of QEMU's devices.
            .preset(0x2c, &[0xf4, 0x1a, 0x00, 0x11]);
        for (at, bits) in [(0x04, 0x07), (0x05, 0x04), (0x0c, 0xff), (0x0d, 0xff), (0x3c, 0xff)] {
            function.writable[at] = bits;
        }
        function
    }

    pub(super) fn multifunction(self) -> Self {
        self.preset(0x0e, &[0x80])
    }

    pub(super) fn interrupt(self, line: u8, pin: u8) -> Self {
        self.preset(0x3c, &[line, pin])
    }

    /// Ports and memory decoded.
    pub(super) fn enabled(self) -> Self {
        self.preset(COMMAND, &[PORTS_ENABLED | MEMORY_ENABLED])
    }

    pub(super) fn preset(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn writable(mut self, range: Range<usize>, bits: u8) -> Self {
        self.writable[range].fill(bits);
        self
    }

    /// Base address register `index` of `size` bytes, a power of two, at `base`.
    pub(super) fn bar(mut self, index: usize, size: u32, ports: bool, base: u32) -> Self {
        let at = 0x10 + 4 * index;
        self.writable[at..at + 4].copy_from_slice(&(!(size - 1)).to_le_bytes());
        self.preset(at, &(base | u32::from(ports)).to_le_bytes())
    }

    pub(super) const fn number(&self) -> u8 {
        self.number
    }

    /// The aligned register.
    pub(super) fn read(&self, register: u8) -> u32 {
        let at = usize::from(register & 0xfc);
        u32::from_le_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }

    pub(super) fn write(&mut self, at: u8, value: u8) {
        let at = usize::from(at);
        let bits = self.writable[at];
        self.bytes[at] = self.bytes[at] & !bits | value & bits;
    }

    /// Where a port BAR decodes, if it does.
    pub(super) fn port_bar(&self, index: u8) -> Option<u16> {
        let base = self.read(0x10 + 4 * index) & !3;
        let enabled = self.bytes[COMMAND] & PORTS_ENABLED != 0;
        u16::try_from(base).ok().filter(|base| enabled && *base != 0)
    }

    /// Where a memory BAR decodes, if it does.
    pub(super) fn memory_bar(&self, index: u8) -> Option<u64> {
        let base = self.read(0x10 + 4 * index) & !15;
        (self.bytes[COMMAND] & MEMORY_ENABLED != 0 && base != 0).then_some(u64::from(base))
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.bytes(&self.bytes);
    }
}
