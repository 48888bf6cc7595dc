//! Double extended precision by the rules of the x87: of two NaNs the larger significand wins; rounding to the control
//! word's precision; biased exponents after unmasked overflow and underflow.

use super::arithmetic::{self, Operation, Value, compute};
use super::parts::{indefinite, infinity, infinity_extended, quiet, quiet_extended, sign_bit};
use super::round::{Unmasked, round};
use super::{Class, EXTENDED, F80, Format, Mode, Parts, flag};

/// A result, its exceptions and C1: whether the magnitude was rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer<T = F80> {
    pub(crate) value: T,
    pub(crate) flags: u32,
    pub(crate) up: bool,
}

impl<T> Answer<T> {
    pub(crate) const fn new(value: T, flags: u32) -> Self {
        Self { value, flags, up: false }
    }
}

/// The encoding of `value`, rounded to `precision` bits.
pub(crate) fn finish(value: Value, denormal: bool, precision: u32, mode: Mode) -> Answer {
    let before = if denormal { flag::DENORMAL } else { 0 };
    match value {
        Value::Invalid => Answer::new(F80::INDEFINITE, flag::INVALID),
        Value::Division(sign) => Answer::new(infinity_extended(sign), flag::DIVIDE),
        Value::Zero(sign) => Answer::new(F80 { significand: 0, exponent: (sign as u16) << 15 }, before),
        Value::Infinity(sign) => Answer::new(infinity_extended(sign), before),
        Value::Exact(exact) => {
            let rounded = round(exact, EXTENDED, precision, mode, Unmasked::Wrapped);
            let value = rounded.pack_extended(precision);
            Answer { value, flags: rounded.flags | before, up: rounded.up }
        }
    }
}

/// What NaN operands lead to; `None` if there are none. Unsupported encodings are invalid.
pub(crate) fn nan(a: &Parts, b: &Parts) -> Option<Answer> {
    if a.class == Class::Unsupported || b.class == Class::Unsupported {
        return Some(Answer::new(F80::INDEFINITE, flag::INVALID));
    }
    let chosen = match (a.class, b.class) {
        (Class::Quiet, Class::Signaling) => a,
        (Class::Signaling, Class::Quiet) => b,
        _ if a.is_nan() && b.is_nan() => {
            // The larger significand; of equal ones the positive.
            if (a.significand, !a.sign) >= (b.significand, !b.sign) { a } else { b }
        }
        _ if a.is_nan() => a,
        _ if b.is_nan() => b,
        _ => return None,
    };
    let signaling = a.is_signaling() || b.is_signaling();
    Some(Answer::new(quiet_extended(chosen), if signaling { flag::INVALID } else { 0 }))
}

/// FADD, FSUB, FMUL, FDIV.
pub(crate) fn binary(operation: Operation, a: &Parts, b: &Parts, precision: u32, mode: Mode) -> Answer {
    if let Some(answer) = nan(a, b) {
        return answer;
    }
    finish(compute(operation, a, b, mode.rounding), a.denormal || b.denormal, precision, mode)
}

/// FSQRT.
pub(crate) fn square_root(a: &Parts, precision: u32, mode: Mode) -> Answer {
    if let Some(answer) = nan(a, a) {
        return answer;
    }
    finish(arithmetic::square_root(a), a.denormal, precision, mode)
}

/// FRNDINT.
pub(crate) fn round_integral(a: &Parts, mode: Mode) -> Answer {
    if let Some(answer) = nan(a, a) {
        return answer;
    }
    let (value, inexact, up) = super::convert::integral(a, mode.rounding);
    let answer = finish(value, a.denormal, EXTENDED.precision, mode);
    Answer { flags: answer.flags | if inexact { flag::INEXACT } else { 0 }, up, ..answer }
}

/// FLD of single or double precision: exact; a signaling NaN becomes quiet.
pub(crate) fn widen(a: &Parts, mode: Mode) -> Answer {
    if let Some(answer) = nan(a, a) {
        return answer;
    }
    finish(arithmetic::identity(a), a.denormal, EXTENDED.precision, mode)
}

/// An integer: always exact.
pub(crate) fn from_integer(value: i64) -> F80 {
    if value == 0 {
        return F80::ZERO;
    }
    let shift = value.unsigned_abs().leading_zeros();
    let sign = u16::from(value < 0) << 15;
    F80 { significand: value.unsigned_abs() << shift, exponent: sign | (16383 + 63 - shift) as u16 }
}

/// FST to single or double precision.
pub(crate) fn narrow(a: &Parts, format: Format, mode: Mode) -> Answer<u64> {
    if a.class == Class::Unsupported {
        return Answer::new(indefinite(format), flag::INVALID);
    }
    if a.is_nan() {
        return Answer::new(quiet(a, format), if a.is_signaling() { flag::INVALID } else { 0 });
    }
    match arithmetic::identity(a) {
        Value::Zero(sign) => Answer::new(sign_bit(sign, format), 0),
        Value::Exact(exact) => {
            let rounded = round(exact, format, format.precision, mode, Unmasked::Nothing);
            Answer { value: rounded.pack(format), flags: rounded.flags, up: rounded.up }
        }
        _ => Answer::new(infinity(a.sign, format), 0),
    }
}
