//! [`MsrBitmapLayout`], [`IoLayout`], [`VmcsLayout`] and [`LeafLayout`]: which bit an access looks at, as values that the
//! look-ups read.
//!
//! The processor's layouts are constants, which the compiler sees through. Any other is a mutant: tests make them to see
//! whether they would notice.

use super::{Access, BitPosition, BitmapPage, Bitmaps};

/// MSRs whose bits lie side by side in the MSR bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrRange {
    /// First MSR.
    pub first: u32,
    /// Number of MSRs.
    pub count: u32,
    /// Number of the read bit of the first MSR.
    pub bit: u16,
}

/// Layout of the MSR bitmap (SDM Vol. 3C (325384-083, Mar 2024) "MSR-Bitmap Address").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrBitmapLayout {
    /// The covered MSRs.
    pub ranges: [MsrRange; 2],
    /// Distance of each access's bit from the read bit, by [`Access`].
    pub accesses: [u16; 2],
    /// Whether accesses to MSRs that no range covers exit.
    pub uncovered: bool,
    /// The value of a bit that makes the access exit.
    pub exiting: bool,
}

impl MsrBitmapLayout {
    /// The processor's.
    pub const PROCESSOR: Self = Self {
        ranges: [
            MsrRange { first: 0, count: 0x2000, bit: 0 },
            MsrRange { first: 0xc000_0000, count: 0x2000, bit: 0x2000 },
        ],
        accesses: [0, 0x4000],
        uncovered: true,
        exiting: true,
    };

    /// Where the bit for `index` and `access` lies, or `None` if no range covers the index.
    #[inline]
    pub const fn position(&self, index: u32, access: Access) -> Option<BitPosition> {
        let mut at = 0;
        while at < self.ranges.len() {
            let range = self.ranges[at];
            let within = index.wrapping_sub(range.first);
            if within < range.count {
                let read = range.bit.wrapping_add(within as u16);
                return Some(BitPosition::from_number(read.wrapping_add(self.accesses[access as usize])));
            }
            at += 1;
        }
        None
    }

    /// Whether the access exits, looked up in place, given that "use MSR bitmaps" is 1.
    #[inline]
    pub fn exits<B: Bitmaps + ?Sized>(&self, bitmaps: &B, index: u32, access: Access) -> bool {
        match self.position(index, access) {
            Some(position) => bitmaps.test(BitmapPage::Msr, position) == self.exiting,
            None => self.uncovered,
        }
    }
}

/// Layout of the I/O bitmaps (SDM Vol. 3C (325384-083, Mar 2024) "I/O-Bitmap Addresses").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoLayout {
    /// The first port of bitmap B.
    pub first_of_b: u16,
    /// The bits of a port's number that are the number of its bit in its page.
    pub within: u16,
    /// By the size of an access in bytes, 0 to 4: how many ports it covers.
    pub ports: [u8; 5],
    /// Whether an access that wraps around from port 0xffff to port 0 exits.
    pub wrapping: bool,
    /// The value of a bit that makes the access exit.
    pub exiting: bool,
}

impl IoLayout {
    /// The processor's.
    pub const PROCESSOR: Self =
        Self { first_of_b: 0x8000, within: 0x7fff, ports: [0, 1, 2, 3, 4], wrapping: true, exiting: true };

    /// The page and the bit in it that control `port`.
    #[inline]
    pub const fn position(&self, port: u16) -> (BitmapPage, BitPosition) {
        let page = if port < self.first_of_b { BitmapPage::IoA } else { BitmapPage::IoB };
        (page, BitPosition::from_number(port & self.within))
    }

    /// Whether an access to `size` ports (1, 2 or 4) from `port` on exits, looked up in place, given that "use I/O bitmaps"
    /// is 1.
    #[inline]
    pub fn exits<B: Bitmaps + ?Sized>(&self, bitmaps: &B, port: u16, size: u8) -> bool {
        let ports = self.ports[if size < 4 { size as usize } else { 4 }];
        for i in 0..u16::from(ports) {
            let Some(port) = port.checked_add(i) else {
                return self.wrapping;
            };
            let (page, position) = self.position(port);
            if bitmaps.test(page, position) == self.exiting {
                return true;
            }
        }
        false
    }
}

/// Layout of the VMREAD and VMWRITE bitmaps (SDM Vol. 3C (325384-083, Mar 2024) "VMCS Shadowing Bitmap Addresses").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmcsLayout {
    /// The last encoding that has a bit.
    pub last: u64,
    /// Whether accesses to encodings without a bit exit.
    pub uncovered: bool,
    /// The value of a bit that makes the access exit.
    pub exiting: bool,
}

impl VmcsLayout {
    /// The processor's.
    pub const PROCESSOR: Self = Self { last: 0x7fff, uncovered: true, exiting: true };

    /// Where the bit of a field encoding lies, or `None` if the encoding has none.
    #[inline]
    pub const fn position(&self, encoding: u64) -> Option<BitPosition> {
        if encoding > self.last { None } else { Some(BitPosition::from_number(encoding as u16)) }
    }

    /// Whether the access exits by the bitmap `page`, looked up in place, given that "VMCS shadowing" is 1.
    #[inline]
    pub fn exits<B: Bitmaps + ?Sized>(&self, bitmaps: &B, page: BitmapPage, encoding: u64) -> bool {
        match self.position(encoding) {
            Some(position) => bitmaps.test(page, position) == self.exiting,
            None => self.uncovered,
        }
    }
}

/// Layout of the ENCLS-, ENCLV- and PCONFIG-exiting bitmaps (SDM Vol. 3C (325384-083, Mar 2024) "ENCLS-Exiting Bitmap").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafLayout {
    /// The bit of this leaf and of all above it; a leaf below has the bit of its number.
    pub shared: u32,
    /// The value of a bit that makes the leaf exit.
    pub exiting: bool,
}

impl LeafLayout {
    /// The processor's.
    pub const PROCESSOR: Self = Self { shared: 63, exiting: true };

    /// The bit that controls `leaf`.
    #[inline]
    pub const fn bit(&self, leaf: u32) -> u32 {
        if leaf < self.shared { leaf } else { self.shared }
    }

    /// Whether `leaf` exits by `bitmap`.
    #[inline]
    pub const fn exits(&self, bitmap: u64, leaf: u32) -> bool {
        (bitmap.wrapping_shr(self.bit(leaf)) & 1 != 0) == self.exiting
    }
}
