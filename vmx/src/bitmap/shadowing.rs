//! [`VmcsBitmap`]: which VMREADs (or VMWRITEs) exit while "VMCS shadowing" is 1.

use super::{BitPosition, Page, VmcsLayout};

/// The VMREAD bitmap or the VMWRITE bitmap: one bit a VMCS field encoding 0 to 0x7fff, 1 = exit.
///
/// The bit of an encoding is the one whose number equals bits 14:0 of the encoding; an encoding with a bit in
/// 63:15 (31:15 outside 64-bit mode) set always exits.
/// Source: SDM Vol. 3C (325384-083, Mar 2024) "VMCS Shadowing Bitmap Addresses" and "Instructions That Cause VM Exits Conditionally".
#[derive(Clone, PartialEq, Eq)]
#[repr(transparent)]
pub struct VmcsBitmap(Page);

impl VmcsBitmap {
    /// Every access exits.
    pub const INTERCEPT_ALL: Self = Self([0xff; super::PAGE_SIZE]);
    /// Only accesses with a bit in 63:15 of the encoding set exit.
    pub const INTERCEPT_NONE: Self = Self([0; super::PAGE_SIZE]);

    /// Where the bit of a field encoding lies, or `None` if the encoding has none.
    /// Outside 64-bit mode, the register's upper 32 bits must be passed as 0: they are not part of the operand.
    pub const fn position(encoding: u64) -> Option<BitPosition> {
        VmcsLayout::PROCESSOR.position(encoding)
    }

    /// Whether an access to the field exits.
    pub const fn test(&self, encoding: u64) -> bool {
        match Self::position(encoding) {
            Some(position) => position.test(&self.0),
            None => true,
        }
    }
    /// Makes the field exit. Returns whether the encoding has a bit; if not, nothing changes.
    pub const fn set(&mut self, encoding: u64) -> bool {
        self.assign(encoding, true)
    }
    /// Lets the field go to the shadow VMCS. Returns whether the encoding has a bit; if not, nothing changes.
    pub const fn clear(&mut self, encoding: u64) -> bool {
        self.assign(encoding, false)
    }
    /// Sets (`exit`) or clears the bit. Returns whether the encoding has one; if not, nothing changes.
    pub const fn assign(&mut self, encoding: u64, exit: bool) -> bool {
        match Self::position(encoding) {
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

impl core::fmt::Debug for VmcsBitmap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let set: u32 = self.0.iter().map(|byte| byte.count_ones()).sum();
        write!(f, "VmcsBitmap({set} of 32768 bits set)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_of_every_encoding_is_byte_encoding_over_8_bit_encoding_mod_8() {
        for encoding in 0..0x8000u64 {
            let mut bitmap = VmcsBitmap::INTERCEPT_NONE;
            assert!(bitmap.set(encoding));
            let mut page = [0u8; 4096];
            page[(encoding / 8) as usize] = 1 << (encoding % 8);
            assert_eq!(bitmap.as_page(), &page);
            assert!(VmcsBitmap::from_page(&page).test(encoding));
            assert!(bitmap.clear(encoding));
            assert_eq!(bitmap, VmcsBitmap::INTERCEPT_NONE);
        }
    }

    #[test]
    fn an_encoding_with_any_bit_of_63_to_15_set_always_exits() {
        for bit in 15..64 {
            let mut none = VmcsBitmap::INTERCEPT_NONE;
            assert!(none.test(1 << bit));
            assert!(none.test(1 << bit | 0x681e));
            assert!(!none.clear(1 << bit));
        }
        for bit in 0..15 {
            assert!(!VmcsBitmap::INTERCEPT_NONE.test(1 << bit));
        }
    }
}
