//! The I/O permission map: one bit a port (APM Vol. 2 (24593 rev. 3.42) "IOIO Intercepts").

use super::{bit_of, put_bit};

/// An I/O permission map as a value: 12 KiB, three pages. A one intercepts.
///
/// Bit `p` belongs to port `p`. Bits 0x10000 to 0x10002, the first three of the third page, stand for what an access
/// of two or four bytes touches past port 0xffff; the rest of the third page is never looked at.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Iopm {
    bytes: [u8; Self::SIZE],
}

impl Iopm {
    /// Bytes of a map.
    pub const SIZE: usize = 0x3000;
    /// Bits that some access looks at.
    pub const BITS: u32 = 0x1_0003;

    /// A map of ones (`true`: everything is intercepted) or zeros.
    pub const fn filled(intercept: bool) -> Self {
        Self { bytes: [if intercept { 0xff } else { 0 }; Self::SIZE] }
    }

    /// Whether an access of `size` bytes (1, 2 or 4) at `port` is intercepted: any of the bits of the touched ports.
    pub fn test(&self, port: u16, size: u8) -> bool {
        (0..u32::from(size)).any(|i| self.raw_bit(u32::from(port) + i))
    }

    /// Intercepts accesses that touch port `bit`; 0x10000 to 0x10002 are the bits past the last port.
    /// False, and nothing happens, if no access looks at the bit.
    pub fn set(&mut self, bit: u32) -> bool {
        self.assign(bit, true)
    }

    /// Clears the bit of port `bit`. False, and nothing happens, if no access looks at the bit.
    pub fn clear(&mut self, bit: u32) -> bool {
        self.assign(bit, false)
    }

    /// Sets or clears the bit of port `bit`. False, and nothing happens, if no access looks at the bit.
    pub fn assign(&mut self, bit: u32, intercept: bool) -> bool {
        if bit >= Self::BITS {
            return false;
        }
        put_bit(&mut self.bytes, bit, intercept);
        true
    }

    /// Bit `bit`, numbered from bit 0 of byte 0; true past the end.
    pub fn raw_bit(&self, bit: u32) -> bool {
        bit_of(&self.bytes, bit)
    }

    /// The map that the three pages hold, lowest first.
    pub fn from_pages(pages: [&[u8; 4096]; 3]) -> Self {
        let mut map = Self::filled(true);
        for (third, page) in map.bytes.chunks_exact_mut(4096).zip(pages) {
            third.copy_from_slice(page);
        }
        map
    }

    /// The map with these bytes.
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self { bytes }
    }

    /// Page 0, 1 or 2.
    ///
    /// # Panics
    /// If `index` is greater than 2.
    pub fn page(&self, index: usize) -> &[u8; 4096] {
        self.bytes.as_chunks().0.get(index).expect("an IOPM has pages 0 to 2")
    }

    /// The bytes as they lie in memory.
    pub const fn as_bytes(&self) -> &[u8; Self::SIZE] {
        &self.bytes
    }

    /// The bytes as they lie in memory, to be changed.
    pub const fn as_bytes_mut(&mut self) -> &mut [u8; Self::SIZE] {
        &mut self.bytes
    }
}

impl core::fmt::Debug for Iopm {
    /// The ports whose bits are clear, with a count rather than a list when there are many.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let open = (0..Self::BITS).filter(|bit| !self.raw_bit(*bit));
        write!(f, "Iopm({} of {:#x} bits clear:", open.clone().count(), Self::BITS)?;
        for bit in open.take(16) {
            write!(f, " {bit:#x}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitmap::{Msrpm, port_intercepted};
    use rootmode_arch::choices::Seeded;

    #[test]
    fn every_port_and_size_agrees_with_a_list_of_bools() {
        let mut draws = Seeded::new(7);
        let mut naive = [false; 0x1_0003];
        let mut map = Iopm::filled(false);
        for bit in 0..Iopm::BITS {
            if draws.next().is_multiple_of(5) {
                naive[bit as usize] = true;
                assert!(map.set(bit));
            }
        }
        let maps = (&Msrpm::filled(false), &map);
        for port in 0..=0xffffu16 {
            for size in [1u8, 2, 4] {
                let first = port as usize;
                let expected = naive[first..first + size as usize].iter().any(|bit| *bit);
                assert_eq!(map.test(port, size), expected, "port {port:#x} size {size}");
                assert_eq!(port_intercepted(&maps, port, size), expected, "port {port:#x} size {size}");
            }
        }
    }

    #[test]
    fn an_access_past_the_last_port_looks_at_the_first_bits_of_the_third_page() {
        let mut map = Iopm::filled(false);
        assert!(map.set(0x1_0002));
        assert_eq!(map.page(2)[0], 4);
        assert!(map.test(0xffff, 4) && !map.test(0xffff, 2) && !map.test(0xfffe, 4));
        assert!(!map.set(0x1_0003), "no access looks further");
        assert!(map.clear(0x1_0002));
        assert_eq!(map, Iopm::filled(false));
    }

    #[test]
    fn pages_come_back_as_they_went_in() {
        let mut map = Iopm::filled(true);
        for bit in [0, 0x60, 0x7fff, 0x8000, 0xffff, 0x1_0000] {
            assert!(map.clear(bit));
        }
        assert_eq!(Iopm::from_pages([map.page(0), map.page(1), map.page(2)]), map);
        assert_eq!(map.page(0)[0], 0xfe);
        assert_eq!(map.page(1)[0], 0xfe);
        assert_eq!(map.page(2)[0], 0xfe);
    }
}
