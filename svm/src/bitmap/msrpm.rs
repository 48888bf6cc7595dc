//! The MSR permission map: two bits an MSR, read and write (APM Vol. 2 (24593 rev. 3.42) "MSR Intercepts").

use super::{Access, MsrpmLayout, bit_of, put_bit};

/// An MSR permission map as a value: 8 KiB, two pages. A one intercepts.
///
/// | bytes | MSRs |
/// | --- | --- |
/// | `0x0000..0x0800` | `0x0000_0000..=0x0000_1fff` |
/// | `0x0800..0x1000` | `0xc000_0000..=0xc000_1fff` |
/// | `0x1000..0x1800` | `0xc001_0000..=0xc001_1fff` |
/// | `0x1800..0x2000` | reserved, never looked at |
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Msrpm {
    bytes: [u8; Self::SIZE],
}

impl Msrpm {
    /// Bytes of a map.
    pub const SIZE: usize = 0x2000;
    /// Bits that belong to some MSR; the rest is reserved.
    pub const BITS: u32 = 3 * Self::BLOCK_BITS;
    /// The first MSR of each covered range; every range has [`Self::RANGE_LEN`] MSRs.
    pub const RANGES: [u32; 3] = [0, 0xc000_0000, 0xc001_0000];
    /// MSRs in a range.
    pub const RANGE_LEN: u32 = 0x2000;

    const BLOCK_BITS: u32 = 2 * Self::RANGE_LEN;

    /// The number of `msr`'s read bit; its write bit is the next one. `None`: the map does not cover `msr`, and with
    /// MSR_PROT set every access to it exits.
    ///
    /// ```
    /// use rootmode_svm::bitmap::Msrpm;
    /// assert_eq!(Msrpm::bit(0xc000_0080), Some(16640));
    /// assert_eq!(Msrpm::bit(0x2000), None);
    /// ```
    #[inline]
    pub const fn bit(msr: u32) -> Option<u32> {
        MsrpmLayout::PROCESSOR.bit(msr, Access::Read)
    }

    /// The MSR and the access that bit `bit` stands for; `None` in the reserved block and past the end.
    pub const fn msr_of(bit: u32) -> Option<(u32, Access)> {
        if bit >= Self::BITS {
            return None;
        }
        let first = Self::RANGES[(bit / Self::BLOCK_BITS) as usize];
        let access = if bit & 1 == 0 { Access::Read } else { Access::Write };
        Some((first + bit % Self::BLOCK_BITS / 2, access))
    }

    /// A map of ones (`true`: everything is intercepted) or zeros.
    pub const fn filled(intercept: bool) -> Self {
        Self { bytes: [if intercept { 0xff } else { 0 }; Self::SIZE] }
    }

    /// Whether `access` to `msr` is intercepted. True for an MSR that the map does not cover.
    pub fn test(&self, msr: u32, access: Access) -> bool {
        match Self::bit(msr) {
            Some(read_bit) => self.raw_bit(read_bit + access as u32),
            None => true,
        }
    }

    /// Intercepts `access` to `msr`. False, and nothing happens, if the map does not cover `msr`.
    pub fn set(&mut self, msr: u32, access: Access) -> bool {
        self.assign(msr, access, true)
    }

    /// Stops intercepting `access` to `msr`. False, and nothing happens, if the map does not cover `msr`.
    pub fn clear(&mut self, msr: u32, access: Access) -> bool {
        self.assign(msr, access, false)
    }

    /// Intercepts `access` to `msr` or not. False, and nothing happens, if the map does not cover `msr`.
    pub fn assign(&mut self, msr: u32, access: Access, intercept: bool) -> bool {
        let Some(read_bit) = Self::bit(msr) else { return false };
        put_bit(&mut self.bytes, read_bit + access as u32, intercept);
        true
    }

    /// Bit `bit`, numbered from bit 0 of byte 0; true past the end.
    pub fn raw_bit(&self, bit: u32) -> bool {
        bit_of(&self.bytes, bit)
    }

    /// The map that the two pages hold, lower page first.
    pub fn from_pages(pages: [&[u8; 4096]; 2]) -> Self {
        let mut map = Self::filled(true);
        for (half, page) in map.bytes.chunks_exact_mut(4096).zip(pages) {
            half.copy_from_slice(page);
        }
        map
    }

    /// The map with these bytes.
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self { bytes }
    }

    /// Page 0 or 1.
    ///
    /// # Panics
    /// If `index` is greater than 1.
    pub fn page(&self, index: usize) -> &[u8; 4096] {
        self.bytes.as_chunks().0.get(index).expect("an MSRPM has pages 0 and 1")
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

impl core::fmt::Debug for Msrpm {
    /// Runs of MSRs whose accesses are not intercepted: the interesting part of a map that starts as ones.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut list = f.debug_list();
        for first in Self::RANGES {
            for msr in first..first + Self::RANGE_LEN {
                match (self.test(msr, Access::Read), self.test(msr, Access::Write)) {
                    (true, true) => {}
                    (read, write) => {
                        list.entry(&format_args!(
                            "{msr:#x} passes {}{}",
                            if read { "" } else { "r" },
                            if write { "" } else { "w" }
                        ));
                    }
                }
            }
        }
        list.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitmap::{PermissionMaps, Uniform, msr_intercepted};

    /// The layout as plain arithmetic, without the masks that `bit` uses.
    fn formula(msr: u32) -> Option<u32> {
        let wide = u64::from(msr);
        for (block, first) in [0u64, 0xc000_0000, 0xc001_0000].into_iter().enumerate() {
            if wide >= first && wide <= first + 8191 {
                return Some((block as u64 * 2048 * 8 + (wide - first) * 2) as u32);
            }
        }
        None
    }

    #[test]
    fn worked_positions_of_known_msrs_hold() {
        for (msr, bit, byte, dword, qword) in [
            (0x48, 144, 0x012, 4, 2),
            (0x49, 146, 0x012, 4, 2),
            (0xe7, 462, 0x039, 14, 7),
            (0xe8, 464, 0x03a, 14, 7),
            (0x10b, 534, 0x042, 16, 8),
            (0x174, 744, 0x05d, 23, 11),
            (0x175, 746, 0x05d, 23, 11),
            (0x176, 748, 0x05d, 23, 11),
            (0x1d9, 946, 0x076, 29, 14),
            (0x1db, 950, 0x076, 29, 14),
            (0x1de, 956, 0x077, 29, 14),
            (0x277, 1262, 0x09d, 39, 19),
            (0x6a0, 3392, 0x1a8, 106, 53),
            (0x802, 4100, 0x200, 128, 64),
            (0xda0, 6976, 0x368, 218, 109),
            (0xc000_0080, 16640, 0x820, 520, 260),
            (0xc000_0081, 16642, 0x820, 520, 260),
            (0xc000_0084, 16648, 0x821, 520, 260),
            (0xc000_0100, 16896, 0x840, 528, 264),
            (0xc000_0103, 16902, 0x840, 528, 264),
            (0xc000_0300, 17920, 0x8c0, 560, 280),
            (0xc001_0004, 32776, 0x1001, 1024, 512),
            (0xc001_0130, 33376, 0x104c, 1043, 521),
            (0xc001_0201, 33794, 0x1080, 1056, 528),
        ] {
            let got = Msrpm::bit(msr).unwrap();
            assert_eq!((got, got / 8, got / 32, got / 64), (bit, byte, dword, qword), "{msr:#x}");
        }
    }

    #[test]
    fn bit_equals_the_formula_around_every_edge_and_on_every_covered_msr() {
        let edges = [0u32, 0x2000, 0x4000, 0x4000_0000, 0xbfff_e000, 0xc000_0000, 0xc000_2000, 0xc000_4000];
        let more =
            [0xc000_e000, 0xc001_0000, 0xc001_2000, 0xc001_4000, 0xc002_0000, 0xffff_e000, 0xffff_ffff];
        for edge in edges.into_iter().chain(more) {
            for delta in -0x2001i64..=0x2001 {
                let Ok(msr) = u32::try_from(i64::from(edge) + delta) else { continue };
                assert_eq!(Msrpm::bit(msr), formula(msr), "{msr:#x}");
            }
        }
    }

    #[test]
    fn all_two_to_the_32_indices_are_covered_exactly_where_the_formula_says() {
        // Coverage depends on the upper 19 bits only, so every block of 8192 is decided by its two ends and middle.
        for block in 0..=u32::MAX >> 13 {
            for msr in [block << 13, block << 13 | 0xfff, block << 13 | 0x1fff] {
                assert_eq!(Msrpm::bit(msr), formula(msr), "{msr:#x}");
                for (fill, access) in [(false, Access::Read), (false, Access::Write), (true, Access::Read)] {
                    let expected = fill || formula(msr).is_none();
                    assert_eq!(msr_intercepted(&Uniform(fill), msr, access), expected, "{msr:#x}");
                }
            }
        }
    }

    #[test]
    fn each_bit_belongs_to_one_msr_and_access_and_changes_nothing_else() {
        let mut map = Msrpm::filled(false);
        for bit in 0..Msrpm::BITS {
            let (msr, access) = Msrpm::msr_of(bit).unwrap();
            assert_eq!(formula(msr).unwrap() + access as u32, bit);
            assert!(!map.test(msr, access) && map.set(msr, access) && map.test(msr, access));
            assert_eq!(map.as_bytes()[bit as usize / 8], 1 << (bit % 8), "only this bit of its byte");
            assert!(map.clear(msr, access));
            assert_eq!(map.as_bytes()[bit as usize / 8], 0);
        }
        assert_eq!(map, Msrpm::filled(false));
        assert_eq!(Msrpm::msr_of(Msrpm::BITS), None);
    }

    #[test]
    fn an_uncovered_msr_is_always_intercepted_and_never_written() {
        let mut map = Msrpm::filled(false);
        for msr in [0x2000, 0x4000_0000, 0xc000_2000, 0xc000_ffff, 0xc001_2000, 0xffff_ffff] {
            for access in Access::ALL {
                assert!(map.test(msr, access) && !map.set(msr, access) && !map.clear(msr, access));
            }
        }
        assert_eq!(map, Msrpm::filled(false));
    }

    #[test]
    fn pages_come_back_as_they_went_in() {
        let mut map = Msrpm::filled(true);
        map.clear(0xc001_0130, Access::Write);
        map.clear(0x48, Access::Read);
        let again = Msrpm::from_pages([map.page(0), map.page(1)]);
        assert_eq!(again, map);
        assert_eq!(again.page(1)[0x4c], 0xfd, "byte 0x104c, second bit");
        let maps = (&again, &crate::bitmap::Iopm::filled(false));
        assert!(!maps.msrpm(33377) && maps.msrpm(33376));
    }
}
