//! [`Digest`]: a fingerprint of machine state that is the same on every host, in debug and release.

/// Absorbs numbers and bytes in order; equal sequences give equal fingerprints.
/// Not cryptographic: it finds divergence, it does not resist an adversary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    low: u64,
    high: u64,
    count: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Digest {
    /// The digest of nothing.
    pub const fn new() -> Self {
        Self { low: 0x243f_6a88_85a3_08d3, high: 0x1319_8a2e_0370_7344, count: 0 }
    }

    /// Absorbs one number.
    pub const fn u64(&mut self, value: u64) {
        let mixed = (value ^ self.low) as u128 * 0x9e37_79b9_7f4a_7c15_u128;
        self.low = (mixed as u64 ^ self.high).rotate_left(23);
        self.high =
            ((mixed >> 64) as u64).wrapping_add(self.high ^ value).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.count = self.count.wrapping_add(1);
    }

    /// Absorbs a number of 128 bits, the low half first: another digest, for one.
    pub const fn u128(&mut self, value: u128) {
        self.u64(value as u64);
        self.u64((value >> 64) as u64);
    }

    /// Absorbs several numbers.
    pub fn all(&mut self, values: &[u64]) {
        for value in values {
            self.u64(*value);
        }
    }

    /// Absorbs bytes and their number.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.u64(u64::from_le_bytes(word));
        }
    }

    /// The fingerprint of everything absorbed so far.
    pub const fn finish(&self) -> u128 {
        let mut last = self.clone_const();
        last.u64(self.count);
        last.u64(0x5bd1_e995);
        (last.high as u128) << 64 | last.low as u128
    }

    const fn clone_const(&self) -> Self {
        Self { low: self.low, high: self.high, count: self.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_length_and_every_bit_count() {
        let of = |values: &[u64]| {
            let mut digest = Digest::new();
            digest.all(values);
            digest.finish()
        };
        assert_ne!(of(&[1, 2]), of(&[2, 1]));
        assert_ne!(of(&[0]), of(&[0, 0]));
        assert_ne!(of(&[]), of(&[0]));
        for bit in 0..64 {
            assert_ne!(of(&[7, 1 << bit, 9]), of(&[7, 0, 9]), "bit {bit}");
        }
    }

    #[test]
    fn bytes_are_little_endian_words_behind_their_length() {
        let mut a = Digest::new();
        a.bytes(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let mut b = Digest::new();
        b.all(&[9, 0x0807_0605_0403_0201, 9]);
        assert_eq!(a.finish(), b.finish());
    }
}
