//! Bitmaps that are 64-bit VMCS fields rather than pages: [`XssBitmap`] and [`LeafBitmap`].

use super::LeafLayout;

/// The XSS-exiting bitmap: which state components make XSAVES and XRSTORS exit.
///
/// Source: SDM Vol. 3C (325384-083, Mar 2024) "XSS-Exiting Bitmap".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct XssBitmap(pub u64);

impl XssBitmap {
    /// Whether XSAVES or XRSTORS with EDX:EAX = `mask` exits while IA32_XSS is `xss`:
    /// any bit set in the logical AND of the three.
    pub const fn exits(self, mask: u64, xss: u64) -> bool {
        self.0 & mask & xss != 0
    }
}

/// The ENCLS-, ENCLV- and PCONFIG-exiting bitmaps: bit *n* is for leaf *n* below 63, bit 63 for all leaves from 63 on.
///
/// Source: SDM Vol. 3C (325384-083, Mar 2024) "ENCLS-Exiting Bitmap", "ENCLV-Exiting Bitmap", "PCONFIG-Exiting Bitmap".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct LeafBitmap(pub u64);

impl LeafBitmap {
    /// The bit that controls `leaf` (EAX), 0 to 63.
    pub const fn bit(leaf: u32) -> u32 {
        LeafLayout::PROCESSOR.bit(leaf)
    }
    /// Whether the leaf exits.
    pub const fn test(self, leaf: u32) -> bool {
        LeafLayout::PROCESSOR.exits(self.0, leaf)
    }
    /// Makes the leaf exit (from 63 on: all of those).
    pub const fn set(&mut self, leaf: u32) {
        self.0 |= 1 << Self::bit(leaf);
    }
    /// Lets the leaf pass (from 63 on: all of those).
    pub const fn clear(&mut self, leaf: u32) {
        self.0 &= !(1 << Self::bit(leaf));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_below_63_has_its_own_bit_and_all_others_share_bit_63() {
        for bit in 0..64u32 {
            let bitmap = LeafBitmap(1 << bit);
            for leaf in (0..200).chain([0xff, 0x8000_0000, u32::MAX]) {
                let expected = if bit == 63 { leaf >= 63 } else { leaf == bit };
                assert_eq!(bitmap.test(leaf), expected, "bitmap bit {bit} leaf {leaf}");
            }
        }
        let mut bitmap = LeafBitmap::default();
        bitmap.set(64);
        assert_eq!(bitmap, LeafBitmap(1 << 63));
        bitmap.clear(63);
        bitmap.set(5);
        assert_eq!(bitmap, LeafBitmap(32));
    }

    #[test]
    fn xsaves_exits_only_on_a_component_in_mask_and_xss_and_bitmap() {
        for mask in 0..8u64 {
            for xss in 0..8u64 {
                for bitmap in 0..8u64 {
                    let expected =
                        (0..3).any(|b| mask >> b & 1 == 1 && xss >> b & 1 == 1 && bitmap >> b & 1 == 1);
                    assert_eq!(XssBitmap(bitmap << 60).exits(mask << 60, xss << 60), expected);
                }
            }
        }
    }
}
