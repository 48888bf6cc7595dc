//! Floating point of the architecture, bit for bit on every host: formats, rounding, exceptions, NaN selection.
//!
//! Pure functions: rounding mode, masks and flags are arguments and results of each call, never global.
//! A number is unpacked into [`Parts`], an operation yields an [`Exact`] value (a 128-bit significand whose last bit is
//! sticky), and [`round`] turns that into a format. [`scalar`] has the rules of SSE, [`extended`] those of the x87;
//! [`fast`] answers the usual cases with the host's arithmetic, only where IEEE 754 leaves it no choice.
//!
//! Sources: SDM Vol. 1 (253665-083, Mar 2024) "Floating-Point Exception Conditions", "Masked Response to SIMD
//! Floating-Point Exceptions", "Rules for Handling NaNs"; IEEE Std 754-2008.

pub(crate) mod arithmetic;
pub(crate) mod convert;
pub(crate) mod extended;
pub(crate) mod fast;
pub(crate) mod parts;
pub(crate) mod real;
pub(crate) mod remainder;
pub(crate) mod round;
pub(crate) mod scalar;
pub(crate) mod transcendental;

pub(crate) use parts::{Class, Parts};
pub(crate) use round::Exact;

/// Exception flags, in the places of MXCSR and the x87 status word.
pub(crate) mod flag {
    /// IE: invalid operation.
    pub(crate) const INVALID: u32 = 1;
    /// DE: a denormal operand.
    pub(crate) const DENORMAL: u32 = 2;
    /// ZE: a finite number divided by zero.
    pub(crate) const DIVIDE: u32 = 4;
    /// OE: overflow.
    pub(crate) const OVERFLOW: u32 = 8;
    /// UE: underflow.
    pub(crate) const UNDERFLOW: u32 = 0x10;
    /// PE: inexact.
    pub(crate) const INEXACT: u32 = 0x20;
    /// All six.
    pub(crate) const ALL: u32 = 0x3f;
    /// Those that are known before the operation is computed.
    pub(crate) const BEFORE: u32 = INVALID | DENORMAL | DIVIDE;
}

/// Rounding modes, numbered as in the RC fields of MXCSR and the x87 control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// Towards zero.
    Zero,
}

impl Rounding {
    /// The mode of an RC field.
    pub(crate) const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }
}

/// How one operation is to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Rounding.
    pub(crate) rounding: Rounding,
    /// Denormal operands are read as zeros (MXCSR.DAZ).
    pub(crate) denormals_are_zero: bool,
    /// Tiny results are flushed to zero while underflow is masked (MXCSR.FTZ).
    pub(crate) flush_to_zero: bool,
    /// Masked exceptions, by [`flag`].
    pub(crate) masks: u32,
    /// PE is set and masked already: whether a result is inexact makes no difference.
    pub(crate) inexact_known: bool,
}

impl Mode {
    /// The mode that `mxcsr` asks for.
    pub(crate) const fn from_mxcsr(mxcsr: u32) -> Self {
        Self {
            rounding: Rounding::from_bits(mxcsr >> 13),
            denormals_are_zero: mxcsr & 0x40 != 0,
            flush_to_zero: mxcsr & 0x8000 != 0,
            masks: mxcsr >> 7 & flag::ALL,
            inexact_known: mxcsr & 0x1020 == 0x1020,
        }
    }

    /// The mode that the x87 control word asks for; precision control is the caller's.
    pub(crate) const fn from_control(control: u16) -> Self {
        Self {
            rounding: Rounding::from_bits(control as u32 >> 10),
            denormals_are_zero: false,
            flush_to_zero: false,
            masks: control as u32 & flag::ALL,
            inexact_known: false,
        }
    }
}

/// A binary format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// Bits of the significand, the integer bit included.
    pub(crate) precision: u32,
    /// Exponent of the smallest normal number.
    pub(crate) minimum: i32,
    /// Exponent of the largest number.
    pub(crate) maximum: i32,
}

impl Format {
    /// Bits of an encoding, for half, single and double precision: exponents take what the significand and the sign leave.
    pub(crate) const fn width(self) -> u32 {
        match self.precision {
            11 => 16,
            24 => 32,
            _ => 64,
        }
    }
}

/// Half precision.
pub(crate) const HALF: Format = Format { precision: 11, minimum: -14, maximum: 15 };
/// Single precision.
pub(crate) const SINGLE: Format = Format { precision: 24, minimum: -126, maximum: 127 };
/// Double precision.
pub(crate) const DOUBLE: Format = Format { precision: 53, minimum: -1022, maximum: 1023 };
/// Double extended precision.
pub(crate) const EXTENDED: Format = Format { precision: 64, minimum: -16382, maximum: 16383 };

/// A double-extended number as the x87 registers hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct F80 {
    /// Bits 63:0, the integer bit included.
    pub significand: u64,
    /// Bits 79:64: sign and biased exponent.
    pub exponent: u16,
}

impl F80 {
    /// The real indefinite: the quiet NaN of masked invalid operations.
    pub(crate) const INDEFINITE: Self = Self { significand: 3 << 62, exponent: 0xffff };
    /// +0.
    pub(crate) const ZERO: Self = Self { significand: 0, exponent: 0 };

    /// The sign.
    pub(crate) const fn sign(self) -> bool {
        self.exponent >> 15 != 0
    }

    /// The number as its ten bytes in a 128-bit word.
    pub(crate) const fn to_bits(self) -> u128 {
        (self.exponent as u128) << 64 | self.significand as u128
    }

    /// The number in the low ten bytes of `bits`.
    pub(crate) const fn from_bits(bits: u128) -> Self {
        Self { significand: bits as u64, exponent: (bits >> 64) as u16 }
    }
}
