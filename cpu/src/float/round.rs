//! Rounding: from an exact value to a format, with overflow, underflow (tininess after rounding) and inexactness.

use super::{F80, Format, Mode, Rounding, flag};

/// `(-1)^sign * significand / 2^127 * 2^exponent`: bit 127 is set, and bit 0 also stands for everything below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exact {
    pub(crate) sign: bool,
    pub(crate) exponent: i32,
    pub(crate) significand: u128,
}

impl Exact {
    /// Normalises `significand / 2^127 * 2^exponent`, which is not zero.
    pub(crate) const fn normalised(sign: bool, exponent: i32, significand: u128) -> Self {
        let shift = significand.leading_zeros();
        Self { sign, exponent: exponent - shift as i32, significand: significand << shift }
    }
}

/// A rounded number, not yet in the encoding of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rounded {
    pub(crate) sign: bool,
    /// Exponent of the integer bit; [`Format::minimum`] for denormals.
    pub(crate) exponent: i32,
    /// `precision` bits, right-aligned; fewer for denormals.
    pub(crate) significand: u64,
    /// It overflowed to infinity.
    pub(crate) infinite: bool,
    /// Exceptions.
    pub(crate) flags: u32,
    /// The magnitude was rounded up (x87 C1).
    pub(crate) up: bool,
}

/// What an unmasked overflow or underflow leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmasked {
    /// Nothing (SSE; the x87's stores to memory).
    Nothing,
    /// A result with a biased exponent: x87 registers.
    Wrapped,
}

/// Shifts right; bits that fall out stick to bit 0.
pub(crate) const fn shift_sticky(value: u128, shift: u32) -> u128 {
    if shift == 0 {
        value
    } else if shift < 128 {
        value >> shift | (value << (128 - shift) != 0) as u128
    } else {
        (value != 0) as u128
    }
}

/// Whether to round the magnitude up, given the last kept bit and what lies below it, left-aligned.
pub(crate) const fn rounds_up(sign: bool, odd: bool, rest: u128, rounding: Rounding) -> bool {
    const HALF: u128 = 1 << 127;
    match rounding {
        Rounding::Nearest => rest > HALF || rest == HALF && odd,
        Rounding::Down => sign && rest != 0,
        Rounding::Up => !sign && rest != 0,
        Rounding::Zero => false,
    }
}

/// Keeps the upper `precision` bits of `significand`: the rounded value (it may carry to `1 << precision`), whether that is
/// inexact, and whether it was rounded up.
const fn keep(sign: bool, significand: u128, precision: u32, rounding: Rounding) -> (u128, bool, bool) {
    let kept = significand >> (128 - precision);
    let rest = significand << precision;
    let up = rounds_up(sign, kept & 1 != 0, rest, rounding);
    (kept + up as u128, rest != 0, up)
}

/// Rounds to `precision` bits within the exponents of `format`.
#[inline]
pub(crate) const fn round(
    value: Exact,
    format: Format,
    precision: u32,
    mode: Mode,
    unmasked: Unmasked,
) -> Rounded {
    /// What the x87 adds to or takes off the exponent of an unmasked underflow or overflow.
    const WRAP: i32 = 24576;
    let (sign, rounding) = (value.sign, mode.rounding);
    let one = 1_u128 << precision;
    let (full, inexact, up) = keep(sign, value.significand, precision, rounding);
    // The result as if the exponent had no bounds.
    let carried = full == one;
    let (full, exponent) = if carried { (full >> 1, value.exponent + 1) } else { (full, value.exponent) };
    let flags = if inexact { flag::INEXACT } else { 0 };
    let wraps = matches!(unmasked, Unmasked::Wrapped);
    let normal = Rounded { sign, exponent, significand: full as u64, infinite: false, flags, up };
    if exponent > format.maximum {
        let unmasked = mode.masks & flag::OVERFLOW == 0;
        if unmasked && (!wraps || exponent - WRAP <= format.maximum) {
            let exponent = if wraps { exponent - WRAP } else { format.maximum };
            return Rounded { exponent, flags: flags | flag::OVERFLOW, ..normal };
        }
        let flags = flag::OVERFLOW | flag::INEXACT;
        let to_infinity = match rounding {
            // Beyond the biased range, too (FSCALE), it is infinity.
            _ if unmasked => true,
            Rounding::Nearest => true,
            Rounding::Down => sign,
            Rounding::Up => !sign,
            Rounding::Zero => false,
        };
        let significand = (one - 1) as u64;
        return Rounded {
            sign,
            exponent: format.maximum,
            significand,
            infinite: to_infinity,
            flags,
            up: to_infinity,
        };
    }
    if exponent >= format.minimum && value.exponent >= format.minimum {
        return normal;
    }
    // Tiny before rounding; after rounding only if the unbounded result still is.
    let tiny = exponent < format.minimum;
    let unmasked = mode.masks & flag::UNDERFLOW == 0;
    let beyond = wraps && exponent + WRAP < format.minimum;
    if tiny && unmasked && !beyond {
        // Inexact counts as with unbounded exponents.
        let exponent = if wraps { exponent + WRAP } else { format.minimum };
        return Rounded { exponent, flags: flags | flag::UNDERFLOW, ..normal };
    }
    if tiny && (mode.flush_to_zero || unmasked) {
        let flags = flag::UNDERFLOW | flag::INEXACT;
        return Rounded { sign, exponent: format.minimum, significand: 0, infinite: false, flags, up: false };
    }
    let shift = (format.minimum - value.exponent) as u32;
    let (small, inexact, up) = keep(sign, shift_sticky(value.significand, shift), precision, rounding);
    let mut flags = if inexact { flag::INEXACT } else { 0 };
    if tiny && inexact {
        flags |= flag::UNDERFLOW;
    }
    Rounded { sign, exponent: format.minimum, significand: small as u64, infinite: false, flags, up }
}

impl Rounded {
    /// The encoding in `format` (half, single or double).
    #[inline]
    pub(crate) const fn pack(&self, format: Format) -> u64 {
        let sign = super::parts::sign_bit(self.sign, format);
        if self.infinite {
            return super::parts::infinity(self.sign, format);
        }
        // The integer bit of normal numbers counts the exponent up by one.
        let biased = (self.exponent - format.minimum) as u64;
        sign | (biased << (format.precision - 1)).wrapping_add(self.significand)
    }

    /// The encoding in double extended precision of a number that was rounded to `precision` bits.
    pub(crate) const fn pack_extended(&self, precision: u32) -> F80 {
        let sign = (self.sign as u16) << 15;
        if self.infinite {
            return super::parts::infinity_extended(self.sign);
        }
        let significand = self.significand << (64 - precision);
        // Without the integer bit it is a denormal, whose exponent field is 0.
        let normal = significand >> 63 != 0;
        let biased = if normal { (self.exponent + 16383) as u16 & 0x7fff } else { 0 };
        F80 { significand, exponent: sign | biased }
    }
}
