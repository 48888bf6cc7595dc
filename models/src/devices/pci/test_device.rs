//! QEMU's `pci-testdev` (1b36:0005): a memory and a port window in which a guest picks a test and counts its own writes.
//!
//! Source: QEMU documentation, docs/specs "QEMU PCI test device". The tests named after event notifiers behave as on a machine
//! without any: every matching write is counted.

use rootmode_mmu::Digest;

/// Bytes of the memory window.
pub const MEMORY_SIZE: u64 = 0x1000;
/// Ports of the port window.
pub const PORT_COUNT: u16 = 0x100;

const TESTS: usize = 3;
const NAMES: [&str; 2 * TESTS] = [
    "mmio-no-eventfd",
    "mmio-wildcard-eventfd",
    "mmio-datamatch-eventfd",
    "portio-no-eventfd",
    "portio-wildcard-eventfd",
    "portio-datamatch-eventfd",
];

/// Which window an access goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The memory BAR.
    Memory,
    /// The port BAR.
    Ports,
}

/// The device. All accesses are by the byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciTestDevice {
    /// The test that runs.
    current: Option<u8>,
    count: u32,
}

/// Where a test wants its writes, what it wants written, and whether it cares.
const fn wanted(test: u8) -> (u64, u8, bool) {
    let first = if (test as usize) < TESTS { 0x800 } else { 0x80 };
    let wildcard = test as usize % TESTS == 1;
    (first + test as u64, if wildcard { 0xce } else { 0xfa }, !wildcard)
}

impl PciTestDevice {
    /// No test runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a byte: of the running test's header, else 0.
    pub fn read(&self, offset: u64) -> u8 {
        let Some(test) = self.current else { return 0 };
        let (place, data, _) = wanted(test);
        let byte = |value: u32| value.to_le_bytes()[(offset & 3) as usize];
        match offset {
            0 => test,
            // The width of the writes.
            1 => 1,
            4..8 => byte(place as u32),
            8 => data,
            12..16 => byte(self.count),
            16.. => NAMES[usize::from(test)].as_bytes().get((offset - 16) as usize).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// Writes a byte: at 0 it picks a test, elsewhere it may be counted.
    pub fn write(&mut self, window: Window, offset: u64, value: u8) {
        if offset == 0 {
            let first = if window == Window::Memory { 0 } else { TESTS as u8 };
            self.current = (usize::from(value) < TESTS).then(|| first + value);
            self.count = 0;
        } else if let Some(test) = self.current {
            let (place, data, exact) = wanted(test);
            if offset == place && (!exact || value == data) {
                self.count = self.count.wrapping_add(1);
            }
        }
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        digest.all(&[self.current.map_or(u64::MAX, u64::from), u64::from(self.count)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(device: &PciTestDevice, offset: u64) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|i| device.read(offset + i)))
    }

    #[test]
    fn a_guest_walks_through_the_tests_of_a_window() {
        for (window, names, offsets) in
            [(Window::Memory, "mmio", [0x800, 0x801, 0x802]), (Window::Ports, "portio", [0x83, 0x84, 0x85])]
        {
            let mut device = PciTestDevice::new();
            for test in 0..3 {
                device.write(window, 0, test);
                assert_eq!((word(&device, 12), device.read(1)), (0, 1));
                assert_eq!(word(&device, 4), offsets[usize::from(test)]);
                let name: String =
                    (16..).map(|at| char::from(device.read(at))).take_while(|c| *c != '\0').collect();
                assert!(name.starts_with(names) && name.ends_with("eventfd"), "{name}");
                for _ in 0..16 {
                    device.write(window, u64::from(word(&device, 4)), word(&device, 8) as u8);
                }
                assert_eq!(word(&device, 12), 16);
            }
            device.write(window, 0, 3);
            assert_eq!((device.read(0), device.read(1)), (0, 0), "there is no fourth test");
        }
    }

    #[test]
    fn only_the_wildcard_test_counts_any_data() {
        for (test, counted) in [(0, 0), (1, 1), (2, 0)] {
            let mut device = PciTestDevice::new();
            device.write(Window::Memory, 0, test);
            let place = u64::from(word(&device, 4));
            device.write(Window::Memory, place, 0x11);
            device.write(Window::Memory, place + 1, word(&device, 8) as u8);
            assert_eq!(word(&device, 12), counted);
        }
    }
}
