//! [`Vectors`]: the registers of x87, MMX and SSE, and their values after reset and INIT.

use crate::float::F80;
use rootmode_mmu::Digest;

/// Bits of MXCSR that software may set. Both vendors' parts have DAZ; AMD's misaligned-SSE mode is not modelled.
pub const MXCSR_MASK: u32 = 0xffff;

/// The x87 state. Registers are physical: ST(i) is register `top + i` modulo 8; MM(i) is the significand of register i.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct X87 {
    /// The data registers.
    pub registers: [F80; 8],
    /// The control word.
    pub control: u16,
    /// The status word; TOP, ES and B included.
    pub status: u16,
    /// One bit a physical register: it is not empty (the abridged tag word).
    pub used: u8,
    /// The opcode of the last instruction that was not a control instruction: its low 11 bits.
    pub opcode: u16,
    /// Offset of that instruction.
    pub instruction: u64,
    /// Its code segment's selector.
    pub instruction_selector: u16,
    /// Offset of its memory operand.
    pub operand: u64,
    /// The selector of the operand's segment.
    pub operand_selector: u16,
}

impl X87 {
    /// After FNINIT, with empty registers of zeros.
    pub const INITIAL: Self = Self {
        registers: [F80::ZERO; 8],
        control: 0x37f,
        status: 0,
        used: 0,
        opcode: 0,
        instruction: 0,
        instruction_selector: 0,
        operand: 0,
        operand_selector: 0,
    };

    /// The TOP field.
    pub const fn top(&self) -> u8 {
        (self.status >> 11 & 7) as u8
    }

    /// Sets the TOP field.
    pub const fn set_top(&mut self, top: u8) {
        self.status = self.status & !0x3800 | (top as u16 & 7) << 11;
    }

    /// Recomputes ES and B: an unmasked exception is pending.
    pub const fn summarize(&mut self) {
        let pending = self.status & !self.control & 0x3f != 0;
        self.status = self.status & 0x7f7f | if pending { 0x8080 } else { 0 };
    }

    /// The full tag word: 0 valid, 1 zero, 2 special, 3 empty.
    pub const fn tag_word(&self) -> u16 {
        let mut word = 0;
        let mut n = 0;
        while n < 8 {
            word |= self.tag(n) << (2 * n);
            n += 1;
        }
        word
    }

    const fn tag(&self, n: usize) -> u16 {
        if self.used >> n & 1 == 0 {
            return 3;
        }
        let number = self.registers[n];
        match number.exponent & 0x7fff {
            0 if number.significand == 0 => 1,
            0 | 0x7fff => 2,
            _ if number.significand >> 63 == 0 => 2,
            _ => 0,
        }
    }
}

/// Vector and floating-point registers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Vectors {
    /// YMM registers as 64-bit words, lowest first; the lower two are the XMM register. The upper two stay 0 without AVX.
    pub ymm: [[u64; 4]; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// x87 and MMX.
    pub x87: X87,
}

impl Vectors {
    /// After a reset (SDM Vol. 3A "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT").
    pub const RESET: Self =
        Self { ymm: [[0; 4]; 16], mxcsr: 0x1f80, x87: X87 { control: 0x40, used: 0xff, ..X87::INITIAL } };

    /// XMM register `n`.
    #[inline]
    pub const fn xmm(&self, n: u8) -> u128 {
        let words = &self.ymm[n as usize & 15];
        (words[1] as u128) << 64 | words[0] as u128
    }

    /// Writes XMM register `n`; the upper half of the YMM register stays.
    #[inline]
    pub const fn set_xmm(&mut self, n: u8, value: u128) {
        let words = &mut self.ymm[n as usize & 15];
        words[0] = value as u64;
        words[1] = (value >> 64) as u64;
    }

    /// YMM register `n`, the lower half first.
    #[inline]
    pub const fn halves(&self, n: u8) -> [u128; 2] {
        let words = &self.ymm[n as usize & 15];
        [self.xmm(n), (words[3] as u128) << 64 | words[2] as u128]
    }

    /// Writes YMM register `n`, the lower half first.
    #[inline]
    pub const fn set_halves(&mut self, n: u8, [low, high]: [u128; 2]) {
        self.ymm[n as usize & 15] = [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64];
    }

    /// Adds everything to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        for register in &self.ymm {
            digest.all(register);
        }
        digest.u64(u64::from(self.mxcsr));
        let x87 = &self.x87;
        for register in x87.registers {
            digest.all(&[register.significand, u64::from(register.exponent)]);
        }
        digest.all(&[
            u64::from(x87.control) | u64::from(x87.status) << 16 | u64::from(x87.used) << 32,
            u64::from(x87.opcode)
                | u64::from(x87.instruction_selector) << 16
                | u64::from(x87.operand_selector) << 32,
            x87.instruction,
            x87.operand,
        ]);
    }
}
