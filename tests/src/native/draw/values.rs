//! What registers and memory hold: numbers of every kind, with the edges first.

use super::super::state::*;
use super::Draw;
use iced_x86::DecoderOptions;

/// Values of 32 and 64 bits that programs and bugs like: edges of integers, and floating-point numbers of every kind.
const SINGLES: [u32; 16] = [
    0,
    0x8000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x7fa0_0000,
    0x0000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0x4f00_0000,
    0xcf00_0000,
    0x3f00_0000,
    0x4b80_0001,
];
const DOUBLES: [u64; 16] = [
    0,
    1 << 63,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0x7ff4_0000_0000_0000,
    1,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x41e0_0000_0000_0000,
    0xc3e0_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x36a0_0000_0000_0001,
];
/// Status flags, DF, AC and RF: what a case may start with.
const FLAGS: u64 = 0x8d5;
const DF: u64 = 0x400;
const AC: u64 = 0x4_0000;
const RF: u64 = 0x1_0000;

impl Draw {
    /// A value that likes the edges.
    pub(super) fn value(&mut self) -> u64 {
        let raw = self.random.next();
        match self.below(12) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (raw % 64),
            3 => (1 << (raw % 64)) - 1,
            4 => raw & 0xff,
            5 => (raw as i8) as u64,
            6 => 1_u64 << (raw % 4 * 16 + 15).min(63),
            7 => u64::from(SINGLES[raw as usize % 16]) << 32 | u64::from(SINGLES[(raw >> 8) as usize % 16]),
            8 => DOUBLES[raw as usize % 16],
            9 => CODE + raw % (2 * PAGE),
            _ => raw,
        }
    }

    /// Fills `bytes` with values.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let value = self.value().to_le_bytes();
            piece.copy_from_slice(&value[..piece.len()]);
        }
    }

    /// Status flags, DF, AC, RF.
    pub(super) fn flags(&mut self) -> u64 {
        let mut flags = self.random.next() & FLAGS | 0x202;
        if self.one_in(4) {
            flags |= DF;
        }
        if self.one_in(8) {
            flags |= AC;
        }
        // The SDM does not say what INT3 and INTO push of it.
        if self.options & DecoderOptions::AMD != 0 && self.one_in(4) {
            flags |= RF;
        }
        flags
    }

    /// x87 and SSE state: any rounding, mostly masked exceptions, any flags that masked exceptions leave.
    pub(super) fn fx(&mut self) -> [u8; 512] {
        let mut fx = initial_fx();
        self.fill(&mut fx[160..416]);
        let raw = self.random.next();
        let unmasked = if self.one_in(8) { raw >> 32 & 0x3f } else { 0 };
        let mxcsr = (0x1f80 & !(unmasked << 7)) | raw & 0x3f & !unmasked | raw & 0xe040;
        fx[24..28].copy_from_slice(&(mxcsr as u32).to_le_bytes());
        if self.one_in(4) {
            // An empty stack, as compiled code leaves it.
            return fx;
        }
        let unmasked = if self.one_in(8) { raw >> 40 & 0x3f } else { 0 };
        let control = 0x37f & !unmasked & !0xf00 | raw >> 8 & 0xf00;
        let status = raw >> 16 & 0x7f7f & !unmasked & !0x80;
        fx[..2].copy_from_slice(&(control as u16).to_le_bytes());
        fx[2..4].copy_from_slice(&(status as u16).to_le_bytes());
        fx[4] = if self.one_in(2) { 0xff } else { (raw >> 48) as u8 };
        for n in 0..8 {
            let (significand, exponent) = self.extended();
            fx[32 + n * 16..][..8].copy_from_slice(&significand.to_le_bytes());
            fx[40 + n * 16..][..2].copy_from_slice(&exponent.to_le_bytes());
        }
        fx
    }

    /// A number of 80 bits, of every kind that there is, unsupported encodings included.
    fn extended(&mut self) -> (u64, u16) {
        let sign = (self.below(2) << 15) as u16;
        let significand = self.value();
        match self.below(12) {
            0 => (0, sign),
            1 => (1 << 63, sign | 0x7fff),
            2 => (3 << 62 | significand, sign | 0x7fff),
            3 => (1 << 63 | significand & !(1 << 62), sign | 0x7fff),
            4 => (significand, sign),
            5 => (significand, self.random.next() as u16),
            6 => (1 << 63, sign | 0x3fff),
            7 => (1 << 63 | significand, sign | (0x3fff - 0x3ff)),
            _ => (1 << 63 | significand, sign | (0x3fff - 70 + self.below(140)) as u16),
        }
    }
}
