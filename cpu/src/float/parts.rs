//! [`Parts`]: a number taken apart, the same for all formats.

use super::{F80, Format};

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Zero,
    /// Normal or denormal; [`Parts::significand`] is normalised either way.
    Finite,
    Infinity,
    Quiet,
    Signaling,
    /// An encoding of double extended precision that no operation accepts: unnormals, pseudo-infinities, pseudo-NaNs.
    Unsupported,
}

/// A number: `(-1)^sign * significand / 2^63 * 2^exponent` if finite. NaNs keep their payload, left-aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) class: Class,
    pub(crate) sign: bool,
    pub(crate) exponent: i32,
    /// Bit 63 is set for finite numbers and NaNs; bit 62 is the quiet bit of NaNs.
    pub(crate) significand: u64,
    /// It came from a denormal encoding.
    pub(crate) denormal: bool,
}

impl Parts {
    pub(crate) const fn zero(sign: bool) -> Self {
        Self { class: Class::Zero, sign, exponent: 0, significand: 0, denormal: false }
    }

    pub(crate) const fn is_nan(&self) -> bool {
        matches!(self.class, Class::Quiet | Class::Signaling)
    }

    pub(crate) const fn is_signaling(&self) -> bool {
        matches!(self.class, Class::Signaling)
    }

    pub(crate) const fn is_zero(&self) -> bool {
        matches!(self.class, Class::Zero)
    }

    pub(crate) const fn is_infinite(&self) -> bool {
        matches!(self.class, Class::Infinity)
    }

    const fn finite(sign: bool, exponent: i32, significand: u64, denormal: bool) -> Self {
        // Normalise.
        let shift = significand.leading_zeros();
        Self {
            class: Class::Finite,
            sign,
            exponent: exponent - shift as i32,
            significand: significand << shift,
            denormal,
        }
    }

    const fn special(sign: bool, significand: u64) -> Self {
        let class = if significand << 1 == 0 {
            Class::Infinity
        } else if significand >> 62 & 1 != 0 {
            Class::Quiet
        } else {
            Class::Signaling
        };
        Self { class, sign, exponent: 0, significand, denormal: false }
    }

    /// Takes apart an encoding of `format` (half, single or double) in the low bits of `bits`.
    #[inline]
    pub(crate) const fn unpack(bits: u64, format: Format) -> Self {
        let stored = format.precision - 1;
        let exponent_mask = (format.maximum as u64) << 1 | 1;
        let biased = bits >> stored & exponent_mask;
        let sign = bits >> (format.width() - 1) & 1 != 0;
        // Left-aligned below the integer bit.
        let fraction = bits << (64 - stored) >> 1;
        if biased == exponent_mask {
            return Self::special(sign, 1 << 63 | fraction);
        }
        if biased == 0 {
            if fraction == 0 {
                return Self::zero(sign);
            }
            return Self::finite(sign, format.minimum, fraction, true);
        }
        let exponent = biased as i32 - format.maximum;
        Self { class: Class::Finite, sign, exponent, significand: 1 << 63 | fraction, denormal: false }
    }

    /// [`Self::unpack`], with denormals read as zeros if `daz`.
    #[inline]
    pub(crate) const fn unpack_daz(bits: u64, format: Format, daz: bool) -> Self {
        let parts = Self::unpack(bits, format);
        if daz && parts.denormal { Self::zero(parts.sign) } else { parts }
    }

    /// Takes apart a double-extended number.
    pub(crate) const fn unpack_extended(number: F80) -> Self {
        let sign = number.sign();
        let biased = number.exponent & 0x7fff;
        let significand = number.significand;
        let integer = significand >> 63 != 0;
        if biased == 0 {
            if significand == 0 {
                return Self::zero(sign);
            }
            return Self::finite(sign, -16382, significand, true);
        }
        if !integer {
            return Self { class: Class::Unsupported, sign, exponent: 0, significand, denormal: false };
        }
        if biased == 0x7fff {
            return Self::special(sign, significand);
        }
        Self { class: Class::Finite, sign, exponent: biased as i32 - 16383, significand, denormal: false }
    }
}

/// The bits of an infinity.
pub(crate) const fn infinity(sign: bool, format: Format) -> u64 {
    let stored = format.precision - 1;
    ((format.maximum as u64) << 1 | 1) << stored | sign_bit(sign, format)
}

/// The sign bit, if `sign`.
pub(crate) const fn sign_bit(sign: bool, format: Format) -> u64 {
    (sign as u64) << (format.width() - 1)
}

/// The bits of a NaN with the payload of `parts`, made quiet.
pub(crate) const fn quiet(parts: &Parts, format: Format) -> u64 {
    let stored = format.precision - 1;
    infinity(parts.sign, format) | 1 << (stored - 1) | parts.significand << 1 >> (64 - stored)
}

/// The default NaN (real indefinite) of `format`.
pub(crate) const fn indefinite(format: Format) -> u64 {
    infinity(true, format) | 1 << (format.precision - 2)
}

/// An infinity of double extended precision.
pub(crate) const fn infinity_extended(sign: bool) -> F80 {
    F80 { significand: 1 << 63, exponent: (sign as u16) << 15 | 0x7fff }
}

/// A quiet NaN of double extended precision with the payload of `parts`.
pub(crate) const fn quiet_extended(parts: &Parts) -> F80 {
    F80 { significand: parts.significand | 3 << 62, exponent: (parts.sign as u16) << 15 | 0x7fff }
}
