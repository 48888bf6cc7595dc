//! The bitmaps that decide whether an access exits: MSR, I/O and VMCS-shadowing bitmaps (pages of memory),
//! XSS-exiting and leaf bitmaps (values), and [`Bitmaps`], through which single bits are looked up in place.
//!
//! Source: SDM Vol. 3C (325384-083, Mar 2024) "VM-Execution Control Fields".
//!
//! ```
//! use rootmode_vmx::bitmap::{Access, MsrBitmap};
//! let mut bitmap = MsrBitmap::INTERCEPT_ALL;
//! bitmap.clear(0xc000_0100, Access::Read);
//! assert!(!bitmap.test(0xc000_0100, Access::Read));
//! assert!(bitmap.test(0xc000_0100, Access::Write));
//! assert!(bitmap.test(0x4000_0000, Access::Read), "an index outside both ranges always exits");
//! ```

mod io;
mod layout;
mod msr;
mod shadowing;
mod values;

pub use io::IoBitmaps;
pub use layout::{IoLayout, LeafLayout, MsrBitmapLayout, MsrRange, VmcsLayout};
pub use msr::MsrBitmap;
pub use shadowing::VmcsBitmap;
pub use values::{LeafBitmap, XssBitmap};

/// Bytes of a bitmap page.
pub const PAGE_SIZE: usize = 4096;

/// A bitmap page in memory order.
pub type Page = [u8; PAGE_SIZE];

/// Direction of an access that a bitmap controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Access {
    /// RDMSR, VMREAD.
    Read,
    /// WRMSR, VMWRITE.
    Write,
}

impl Access {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];
}

/// Where one bit lies in a bitmap page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitPosition {
    /// Byte offset in the page, 0 to 4095.
    pub byte: u16,
    /// Bit in the byte, 0 (least significant) to 7.
    pub bit: u8,
}

impl BitPosition {
    /// The position of bit `number` of a page, 0 to 32767.
    pub const fn from_number(number: u16) -> Self {
        Self { byte: number >> 3 & 0xfff, bit: (number & 7) as u8 }
    }
    /// The bit's number in its page, 0 to 32767.
    pub const fn number(self) -> u16 {
        self.byte << 3 | self.bit as u16
    }
    /// The bit as a mask for its byte.
    pub const fn mask(self) -> u8 {
        1 << (self.bit & 7)
    }
    /// Whether the bit is set in `page`.
    pub const fn test(self, page: &Page) -> bool {
        page[self.byte as usize & (PAGE_SIZE - 1)] & self.mask() != 0
    }
    /// Sets (`on`) or clears the bit in `page`.
    pub const fn assign(self, page: &mut Page, on: bool) {
        let byte = &mut page[self.byte as usize & (PAGE_SIZE - 1)];
        *byte = if on { *byte | self.mask() } else { *byte & !self.mask() };
    }
}

/// The five bitmap pages that a VMCS points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BitmapPage {
    /// I/O bitmap A: ports 0x0000 to 0x7fff.
    IoA,
    /// I/O bitmap B: ports 0x8000 to 0xffff.
    IoB,
    /// MSR bitmap.
    Msr,
    /// VMREAD bitmap.
    Vmread,
    /// VMWRITE bitmap.
    Vmwrite,
}

/// Look-up of bytes of the current VMCS's bitmaps, in place: in simulated or in real memory, never copied.
///
/// A page is asked for only when the control that makes the processor consult it is 1.
/// Where nothing answers at the page's address, return what a read of that address returns (0xff on the simulated bus).
pub trait Bitmaps {
    /// The byte at `offset` (0 to 4095) of `page`.
    fn byte(&self, page: BitmapPage, offset: u16) -> u8;

    /// Whether the bit at `position` of `page` is set.
    fn test(&self, page: BitmapPage, position: BitPosition) -> bool {
        self.byte(page, position.byte) & position.mask() != 0
    }
}

impl<B: Bitmaps + ?Sized> Bitmaps for &B {
    fn byte(&self, page: BitmapPage, offset: u16) -> u8 {
        (**self).byte(page, offset)
    }
}

/// Every bit of every page has one value: for a VMCS that uses no bitmaps, and for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniformBitmaps(pub bool);

impl Bitmaps for UniformBitmaps {
    fn byte(&self, _: BitmapPage, _: u16) -> u8 {
        if self.0 { 0xff } else { 0 }
    }
}

/// The five pages lent by reference; a missing page reads as all ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct BorrowedBitmaps<'a> {
    /// I/O bitmap A.
    pub io_a: Option<&'a Page>,
    /// I/O bitmap B.
    pub io_b: Option<&'a Page>,
    /// MSR bitmap.
    pub msr: Option<&'a Page>,
    /// VMREAD bitmap.
    pub vmread: Option<&'a Page>,
    /// VMWRITE bitmap.
    pub vmwrite: Option<&'a Page>,
}

impl Bitmaps for BorrowedBitmaps<'_> {
    fn byte(&self, page: BitmapPage, offset: u16) -> u8 {
        let page = match page {
            BitmapPage::IoA => self.io_a,
            BitmapPage::IoB => self.io_b,
            BitmapPage::Msr => self.msr,
            BitmapPage::Vmread => self.vmread,
            BitmapPage::Vmwrite => self.vmwrite,
        };
        page.map_or(0xff, |page| page[offset as usize & (PAGE_SIZE - 1)])
    }
}
