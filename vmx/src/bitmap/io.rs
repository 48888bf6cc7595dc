//! [`IoBitmaps`]: which ports exit while "use I/O bitmaps" is 1.

use super::{BitPosition, BitmapPage, Bitmaps, IoLayout, Page};

/// I/O bitmaps A and B: one bit a port, 1 = exit; A holds ports 0x0000 to 0x7fff, B ports 0x8000 to 0xffff.
///
/// An access exits if the bit of *any* port that it covers is 1, or if it wraps around from port 0xffff to port 0.
/// Source: SDM Vol. 3C (325384-083, Mar 2024) "I/O-Bitmap Addresses" and "Instructions That Cause VM Exits Conditionally".
#[derive(Clone, PartialEq, Eq)]
pub struct IoBitmaps {
    a: Page,
    b: Page,
}

impl IoBitmaps {
    /// Every port exits.
    pub const INTERCEPT_ALL: Self = Self { a: [0xff; super::PAGE_SIZE], b: [0xff; super::PAGE_SIZE] };
    /// Only accesses that wrap around exit.
    pub const INTERCEPT_NONE: Self = Self { a: [0; super::PAGE_SIZE], b: [0; super::PAGE_SIZE] };

    /// The page and the bit in it that control `port`.
    pub const fn position(port: u16) -> (BitmapPage, BitPosition) {
        IoLayout::PROCESSOR.position(port)
    }

    /// Whether an access to `size` ports (1, 2 or 4) from `port` on exits, looked up in place.
    pub fn access_exits<B: Bitmaps + ?Sized>(bitmaps: &B, port: u16, size: u8) -> bool {
        IoLayout::PROCESSOR.exits(bitmaps, port, size)
    }

    /// Whether `port` itself exits.
    pub const fn test(&self, port: u16) -> bool {
        match Self::position(port) {
            (BitmapPage::IoA, position) => position.test(&self.a),
            (_, position) => position.test(&self.b),
        }
    }
    /// Makes `port` exit.
    pub const fn set(&mut self, port: u16) {
        self.assign(port, true);
    }
    /// Lets `port` pass.
    pub const fn clear(&mut self, port: u16) {
        self.assign(port, false);
    }
    /// Sets (`exit`) or clears the bit of `port`.
    pub const fn assign(&mut self, port: u16, exit: bool) {
        match Self::position(port) {
            (BitmapPage::IoA, position) => position.assign(&mut self.a, exit),
            (_, position) => position.assign(&mut self.b, exit),
        }
    }

    /// Bitmaps with the contents of the pages A and B.
    pub const fn from_pages(a: &Page, b: &Page) -> Self {
        Self { a: *a, b: *b }
    }
    /// The pages A and B.
    pub const fn as_pages(&self) -> (&Page, &Page) {
        (&self.a, &self.b)
    }
    /// The pages A and B, to be changed.
    pub const fn as_pages_mut(&mut self) -> (&mut Page, &mut Page) {
        (&mut self.a, &mut self.b)
    }
}

impl core::fmt::Debug for IoBitmaps {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let set: u32 = self.a.iter().chain(&self.b).map(|byte| byte.count_ones()).sum();
        write!(f, "IoBitmaps({set} of 65536 bits set)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::BorrowedBitmaps;
    use super::*;

    fn exits(bitmaps: &IoBitmaps, port: u16, size: u8) -> bool {
        let (a, b) = bitmaps.as_pages();
        let borrowed = BorrowedBitmaps { io_a: Some(a), io_b: Some(b), ..Default::default() };
        IoBitmaps::access_exits(&borrowed, port, size)
    }

    /// The naive oracle: one bool a port, and an access is the list of its ports as integers.
    fn oracle(ports: &[bool], port: u16, size: u8) -> bool {
        (0..u32::from(size)).any(|i| {
            let p = u32::from(port) + i;
            p > 0xffff || ports[p as usize]
        })
    }

    #[test]
    fn every_port_and_size_agrees_with_a_list_of_ports_for_sparse_and_dense_patterns() {
        for seed in 0..6u32 {
            let mut ports = [false; 0x10000];
            let mut bitmaps = IoBitmaps::INTERCEPT_NONE;
            for port in 0..=0xffffu16 {
                // Patterns: none, all, one in 7, one in 61, edges of bytes and pages, pseudo-random.
                let on = match seed {
                    0 => false,
                    1 => true,
                    2 => port % 7 == 3,
                    3 => port % 61 == 0,
                    4 => matches!(port, 0 | 7 | 8 | 0x7fff | 0x8000 | 0xfff8 | 0xffff),
                    _ => (u32::from(port).wrapping_mul(2_654_435_761) >> 13) & 3 == 0,
                };
                ports[port as usize] = on;
                bitmaps.assign(port, on);
            }
            for port in 0..=0xffffu16 {
                for size in [1, 2, 4] {
                    assert_eq!(
                        exits(&bitmaps, port, size),
                        oracle(&ports, port, size),
                        "pattern {seed} port {port:#x} size {size}"
                    );
                }
            }
        }
    }

    #[test]
    fn each_single_port_bit_is_seen_by_exactly_the_accesses_that_cover_it() {
        for bit in [0u16, 1, 7, 8, 0x60, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff] {
            let mut bitmaps = IoBitmaps::INTERCEPT_NONE;
            bitmaps.set(bit);
            for port in 0..=0xffffu16 {
                for size in [1u8, 2, 4] {
                    let last = u32::from(port) + u32::from(size) - 1;
                    let covers = u32::from(port) <= u32::from(bit) && u32::from(bit) <= last;
                    assert_eq!(exits(&bitmaps, port, size), covers || last > 0xffff);
                }
            }
        }
    }

    #[test]
    fn bitmap_a_ends_and_bitmap_b_begins_at_port_0x8000() {
        let mut bitmaps = IoBitmaps::INTERCEPT_NONE;
        bitmaps.set(0x7fff);
        bitmaps.set(0x8009);
        let (a, b) = bitmaps.as_pages();
        assert_eq!((a[0xfff], b[1]), (0x80, 0x02));
        assert_eq!(IoBitmaps::from_pages(a, b), bitmaps);
        bitmaps.clear(0x7fff);
        bitmaps.clear(0x8009);
        assert_eq!(bitmaps, IoBitmaps::INTERCEPT_NONE);
    }
}
