//! The two permission maps that a VMCB points to, and the trait through which single bits of them are looked up in place.

mod iopm;
mod layout;
mod msrpm;

pub use iopm::Iopm;
pub use layout::{IopmLayout, MsrRange, MsrpmLayout};
pub use msrpm::Msrpm;

/// Which way an MSR is accessed; the value is the distance from the MSR's read bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Access {
    /// RDMSR: the even bit.
    Read = 0,
    /// WRMSR: the odd bit.
    Write = 1,
}

impl Access {
    /// Both, reads first.
    pub const ALL: [Access; 2] = [Access::Read, Access::Write];
}

/// Looks single bits up in the maps that one VMCB points to, wherever they lie: nothing is copied.
///
/// Bit `n` of a map is bit `n % 8` of the byte at offset `n / 8` from its physical address with bits 11:0 cleared.
/// A map that lies in simulated memory is asked only for bits that the processor would read, so an implementation
/// may count the calls. Memory that does not exist reads as ones: the access is intercepted.
pub trait PermissionMaps {
    /// Bit `bit` of the MSR permission map; [`Msrpm::bit`] numbers them, at most 49151.
    fn msrpm(&self, bit: u32) -> bool;
    /// Bit `bit` of the I/O permission map: the port's number, at most 0x10002.
    fn iopm(&self, bit: u32) -> bool;
}

impl<M: PermissionMaps + ?Sized> PermissionMaps for &M {
    fn msrpm(&self, bit: u32) -> bool {
        (**self).msrpm(bit)
    }
    fn iopm(&self, bit: u32) -> bool {
        (**self).iopm(bit)
    }
}

/// Both maps at hand as values.
impl PermissionMaps for (&Msrpm, &Iopm) {
    fn msrpm(&self, bit: u32) -> bool {
        self.0.raw_bit(bit)
    }
    fn iopm(&self, bit: u32) -> bool {
        self.1.raw_bit(bit)
    }
}

/// Maps with every bit equal: `Uniform(true)` intercepts everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uniform(pub bool);

impl PermissionMaps for Uniform {
    fn msrpm(&self, _: u32) -> bool {
        self.0
    }
    fn iopm(&self, _: u32) -> bool {
        self.0
    }
}

/// Whether RDMSR or WRMSR of `msr` is intercepted by the map in `maps`, given that MSR_PROT is set
/// (APM Vol. 2 (24593 rev. 3.42) "MSR Intercepts"): an MSR that the map does not cover always is.
pub fn msr_intercepted<M: PermissionMaps + ?Sized>(maps: &M, msr: u32, access: Access) -> bool {
    MsrpmLayout::PROCESSOR.intercepted(maps, msr, access)
}

/// Whether an access of `size` bytes (1, 2 or 4) at `port` is intercepted by the map in `maps`, given that IOIO_PROT is
/// set (APM Vol. 2 (24593 rev. 3.42) "IOIO Intercepts"): any of the `size` bits suffices.
pub fn port_intercepted<M: PermissionMaps + ?Sized>(maps: &M, port: u16, size: u8) -> bool {
    IopmLayout::PROCESSOR.intercepted(maps, port, size)
}

/// Bit `bit` of `bytes`; past the end, as from memory that does not exist: one.
fn bit_of(bytes: &[u8], bit: u32) -> bool {
    bytes.get(bit as usize / 8).is_none_or(|byte| byte >> (bit % 8) & 1 != 0)
}

/// Makes bit `bit` of `bytes` equal to `on`.
fn put_bit(bytes: &mut [u8], bit: u32, on: bool) {
    let byte = &mut bytes[bit as usize / 8];
    let mask = 1 << (bit % 8);
    *byte = if on { *byte | mask } else { *byte & !mask };
}
