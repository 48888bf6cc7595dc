//! The oracle's memory: bytes at host-physical 0, nothing but ones above them.

/// Pages of RAM. The first half holds what guests see as tables and data, the second half the second stage's tables.
pub(crate) const PAGES: u64 = 16;
/// Bytes at the start of each page that hold entries; the rest is zero.
pub(crate) const USED: usize = 64;

pub(crate) struct World {
    pub(crate) bytes: Vec<u8>,
}

/// Bits `high` to `low` of `value`, as the manuals write them: `value[high:low]`.
pub(crate) const fn field(value: u64, high: u32, low: u32) -> u64 {
    value << (63 - high) >> (63 - high + low)
}

/// Bit `n` of `value`.
pub(crate) const fn bit(value: u64, n: u32) -> bool {
    field(value, n, n) == 1
}

impl World {
    /// The entry of `size` bytes at `place`.
    pub(crate) fn entry(&self, place: u64, size: usize) -> u64 {
        let mut value = 0;
        for n in (0..size).rev() {
            let byte = self.bytes.get(place as usize + n).copied().unwrap_or(0xff);
            value = value << 8 | u64::from(byte);
        }
        value
    }

    /// Sets bit `n` of the entry at `place`.
    pub(crate) fn set(&mut self, place: u64, n: u32) {
        if let Some(byte) = self.bytes.get_mut(place as usize + n as usize / 8) {
            *byte |= 1 << (n % 8);
        }
    }
}
