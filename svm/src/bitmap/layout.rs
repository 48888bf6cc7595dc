//! [`MsrpmLayout`] and [`IopmLayout`]: which bit of a permission map an access looks at, as values that the look-ups read.
//!
//! The processor's layouts are constants, which the compiler sees through. Any other is a mutant: tests make them to see
//! whether they would notice.

use super::{Access, Msrpm, PermissionMaps};

/// MSRs whose bits lie side by side in an MSR permission map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrRange {
    /// First MSR.
    pub first: u32,
    /// Number of MSRs.
    pub count: u32,
    /// Number of the first bit of the first MSR.
    pub bit: u32,
}

/// Layout of the MSR permission map (APM Vol. 2 (24593 rev. 3.42) "MSR Intercepts").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrpmLayout {
    /// The covered MSRs.
    pub ranges: [MsrRange; 3],
    /// Bits an MSR.
    pub per_msr: u32,
    /// Distance of each access's bit from the first bit of its MSR, by [`Access`].
    pub accesses: [u32; 2],
    /// Whether accesses to MSRs that no range covers are intercepted.
    pub uncovered: bool,
    /// The value of a bit that intercepts.
    pub intercepting: bool,
}

impl MsrpmLayout {
    /// The processor's.
    pub const PROCESSOR: Self = Self {
        ranges: [
            MsrRange { first: Msrpm::RANGES[0], count: Msrpm::RANGE_LEN, bit: 0 },
            MsrRange { first: Msrpm::RANGES[1], count: Msrpm::RANGE_LEN, bit: 0x4000 },
            MsrRange { first: Msrpm::RANGES[2], count: Msrpm::RANGE_LEN, bit: 0x8000 },
        ],
        per_msr: 2,
        accesses: [0, 1],
        uncovered: true,
        intercepting: true,
    };

    /// The number of the bit of `msr` and `access`; `None`: no range covers the MSR.
    #[inline]
    pub const fn bit(&self, msr: u32, access: Access) -> Option<u32> {
        let mut at = 0;
        while at < self.ranges.len() {
            let range = self.ranges[at];
            let within = msr.wrapping_sub(range.first);
            if within < range.count {
                let first = range.bit.wrapping_add(within.wrapping_mul(self.per_msr));
                return Some(first.wrapping_add(self.accesses[access as usize]));
            }
            at += 1;
        }
        None
    }

    /// Whether `access` to `msr` is intercepted by the map in `maps`, given that MSR_PROT is set.
    #[inline]
    pub fn intercepted<M: PermissionMaps + ?Sized>(&self, maps: &M, msr: u32, access: Access) -> bool {
        match self.bit(msr, access) {
            Some(bit) => maps.msrpm(bit) == self.intercepting,
            None => self.uncovered,
        }
    }
}

/// Layout of the I/O permission map (APM Vol. 2 (24593 rev. 3.42) "IOIO Intercepts").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IopmLayout {
    /// Number of the bit of port 0.
    pub bit: u32,
    /// Bits a port.
    pub per_port: u32,
    /// The last number of a port that has a bit of its own; behind it the numbers start at 0 again. The processor's map
    /// goes on behind port 0xffff: an access of four bytes there looks at the bits up to 0x10002.
    pub last: u32,
    /// By the size of an access in bytes, 0 to 4: how many ports it looks at.
    pub ports: [u8; 5],
    /// The value of a bit that intercepts.
    pub intercepting: bool,
}

impl IopmLayout {
    /// The processor's.
    pub const PROCESSOR: Self =
        Self { bit: 0, per_port: 1, last: 0x1_0002, ports: [0, 1, 2, 3, 4], intercepting: true };

    /// Whether an access of `size` bytes (1, 2 or 4) at `port` is intercepted by the map in `maps`, given that IOIO_PROT is
    /// set: any of its bits suffices.
    #[inline]
    pub fn intercepted<M: PermissionMaps + ?Sized>(&self, maps: &M, port: u16, size: u8) -> bool {
        let ports = self.ports[if size < 4 { size as usize } else { 4 }];
        (0..u32::from(ports)).any(|i| {
            let port = u32::from(port) + i;
            let port = if port > self.last { port - self.last - 1 } else { port };
            let bit = self.bit.wrapping_add(port * self.per_port);
            maps.iopm(bit) == self.intercepting
        })
    }
}
