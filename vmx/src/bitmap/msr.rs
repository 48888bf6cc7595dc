//! [`MsrBitmap`]: which RDMSR and WRMSR exit while "use MSR bitmaps" is 1.

use super::{Access, BitPosition, MsrBitmapLayout, Page};

/// The MSR bitmap: one page of four 1 KiB bitmaps, one bit an MSR, 1 = exit.
///
/// | offset | access | MSRs |
/// | --- | --- | --- |
/// | 0x000 | read | 0x0000_0000 to 0x0000_1fff |
/// | 0x400 | read | 0xc000_0000 to 0xc000_1fff |
/// | 0x800 | write | 0x0000_0000 to 0x0000_1fff |
/// | 0xc00 | write | 0xc000_0000 to 0xc000_1fff |
///
/// An index outside both ranges has no bit and always exits.
/// Source: SDM Vol. 3C (325384-083, Mar 2024) "MSR-Bitmap Address".
#[derive(Clone, PartialEq, Eq)]
#[repr(transparent)]
pub struct MsrBitmap(Page);

impl MsrBitmap {
    /// MSRs of each of the two ranges.
    pub const RANGE: u32 = 0x2000;
    /// First index of the low range.
    pub const LOW: u32 = 0;
    /// First index of the high range.
    pub const HIGH: u32 = 0xc000_0000;
    /// Offset of the half that controls writes.
    pub const WRITE_HALF: u16 = 0x800;

    /// Every access exits.
    pub const INTERCEPT_ALL: Self = Self([0xff; super::PAGE_SIZE]);
    /// Only accesses outside both ranges exit.
    pub const INTERCEPT_NONE: Self = Self([0; super::PAGE_SIZE]);

    /// Where the bit for `index` and `access` lies, or `None` if the index is outside both ranges.
    pub const fn position(index: u32, access: Access) -> Option<BitPosition> {
        MsrBitmapLayout::PROCESSOR.position(index, access)
    }

    /// The MSR and access that the bit at `position` controls: the inverse of [`Self::position`].
    pub const fn controlled_by(position: BitPosition) -> (u32, Access) {
        let number = position.number() as u32;
        let range = if number & Self::RANGE == 0 { Self::LOW } else { Self::HIGH };
        let access = if position.byte & Self::WRITE_HALF == 0 { Access::Read } else { Access::Write };
        (range + (number & (Self::RANGE - 1)), access)
    }

    /// Whether the access exits. Indices outside both ranges do.
    pub const fn test(&self, index: u32, access: Access) -> bool {
        match Self::position(index, access) {
            Some(position) => position.test(&self.0),
            None => true,
        }
    }

    /// Makes the access exit. Returns whether the index has a bit; if not, nothing changes.
    pub const fn set(&mut self, index: u32, access: Access) -> bool {
        self.assign(index, access, true)
    }

    /// Lets the access pass without an exit. Returns whether the index has a bit; if not, nothing changes.
    pub const fn clear(&mut self, index: u32, access: Access) -> bool {
        self.assign(index, access, false)
    }

    /// Sets (`exit`) or clears the bit. Returns whether the index has one; if not, nothing changes.
    pub const fn assign(&mut self, index: u32, access: Access, exit: bool) -> bool {
        match Self::position(index, access) {
            Some(position) => {
                position.assign(&mut self.0, exit);
                true
            }
            None => false,
        }
    }

    /// A bitmap with the contents of `page`.
    pub const fn from_page(page: &Page) -> Self {
        Self(*page)
    }
    /// The page.
    pub const fn as_page(&self) -> &Page {
        &self.0
    }
    /// The page, to be changed.
    pub const fn as_page_mut(&mut self) -> &mut Page {
        &mut self.0
    }
}

impl core::fmt::Debug for MsrBitmap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let set: u32 = self.0.iter().map(|byte| byte.count_ones()).sum();
        write!(f, "MsrBitmap({set} of 32768 bits set)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The manual's four rows as (first MSR, last MSR, access, offset), evaluated by 64-bit interval arithmetic.
    const ROWS: [(u64, u64, Access, u64); 4] = [
        (0, 0x1fff, Access::Read, 0),
        (0xc000_0000, 0xc000_1fff, Access::Read, 1024),
        (0, 0x1fff, Access::Write, 2048),
        (0xc000_0000, 0xc000_1fff, Access::Write, 3072),
    ];

    fn expected(index: u32, access: Access) -> Option<u64> {
        ROWS.iter()
            .find(|row| row.2 == access && (row.0..=row.1).contains(&u64::from(index)))
            .map(|row| row.3 * 8 + (u64::from(index) - row.0))
    }

    fn check(index: u32) {
        for access in Access::ALL {
            let got = MsrBitmap::position(index, access);
            assert_eq!(
                got.map(|p| u64::from(p.byte) * 8 + u64::from(p.bit)),
                expected(index, access),
                "{index:#x} {access:?}"
            );
        }
    }

    #[test]
    fn every_index_in_and_around_both_ranges_has_the_bit_of_the_manuals_table() {
        for index in 0..=0x4000 {
            check(index);
        }
        for index in 0xbfff_e000..=0xc000_4000 {
            check(index);
        }
    }

    #[test]
    fn no_index_outside_both_ranges_has_a_bit() {
        // Interval edges, every power of two and its neighbours, and a stride that is coprime with the range's length.
        for shift in 0..32 {
            for delta in [-1i64, 0, 1] {
                check(((1i64 << shift) + delta) as u32);
                check((0xc000_0000i64 ^ (1i64 << shift)).wrapping_add(delta) as u32);
            }
        }
        for step in 0..(u32::MAX / 4093) {
            check(step * 4093);
        }
        check(u32::MAX);
    }

    #[test]
    fn position_and_its_inverse_agree_on_all_32768_bits() {
        for number in 0..=0x7fff {
            let position = BitPosition::from_number(number);
            let (index, access) = MsrBitmap::controlled_by(position);
            assert_eq!(MsrBitmap::position(index, access), Some(position), "bit {number:#x}");
        }
    }

    #[test]
    fn setting_one_bit_changes_one_access_of_one_msr_and_survives_the_page() {
        for index in [0, 7, 8, 0x1fff, 0xc000_0000, 0xc000_0080, 0xc000_1fff] {
            for access in Access::ALL {
                let mut bitmap = MsrBitmap::INTERCEPT_NONE;
                assert!(bitmap.set(index, access));
                let copy = MsrBitmap::from_page(bitmap.as_page());
                let set: u32 = copy.as_page().iter().map(|b| b.count_ones()).sum();
                assert_eq!(set, 1);
                for other in [0, 7, 8, 0x1fff, 0xc000_0000, 0xc000_0080, 0xc000_1fff] {
                    for direction in Access::ALL {
                        assert_eq!(copy.test(other, direction), other == index && direction == access);
                    }
                }
                assert!(bitmap.clear(index, access));
                assert_eq!(bitmap, MsrBitmap::INTERCEPT_NONE);
            }
        }
        let mut all = MsrBitmap::INTERCEPT_ALL;
        assert!(!all.clear(0x2000, Access::Read), "no bit to clear");
        assert!(all.test(0x2000, Access::Read));
    }
}
