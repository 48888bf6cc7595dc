//! Integers: from them, to them, and numbers rounded to integral values.

use super::arithmetic::{Value, identity};
use super::round::{rounds_up, shift_sticky};
use super::{Class, Exact, Parts, Rounding, flag};

/// An integer as a value.
pub(crate) const fn integer(value: i64) -> Value {
    if value == 0 {
        return Value::Zero(false);
    }
    Value::Exact(Exact::normalised(value < 0, 127, value.unsigned_abs() as u128))
}

/// The magnitude of a finite number below 2^64, rounded; whether that is inexact; whether it was rounded up.
fn magnitude(x: &Parts, rounding: Rounding) -> (u128, bool, bool) {
    let wide = shift_sticky(u128::from(x.significand) << 64, (63 - x.exponent) as u32);
    let (whole, rest) = (wide >> 64, wide << 64);
    let up = rounds_up(x.sign, whole & 1 != 0, rest, rounding);
    (whole + u128::from(up), rest != 0, up)
}

/// A number that is not a NaN, rounded to an integral value; whether that is inexact, and whether it was rounded up.
pub(crate) fn integral(x: &Parts, rounding: Rounding) -> (Value, bool, bool) {
    if x.class != Class::Finite || x.exponent >= 63 {
        return (identity(x), false, false);
    }
    let (whole, inexact, up) = magnitude(x, rounding);
    let value =
        if whole == 0 { Value::Zero(x.sign) } else { Value::Exact(Exact::normalised(x.sign, 127, whole)) };
    (value, inexact, up)
}

/// A number as an integer of `bits` bits, the exceptions, and whether the magnitude was rounded up. What does not fit is
/// invalid and yields the integer indefinite.
pub(crate) fn to_integer(x: &Parts, bits: u32, rounding: Rounding) -> (i64, u32, bool) {
    let indefinite = (i64::MIN >> (64 - bits), flag::INVALID, false);
    match x.class {
        Class::Zero => (0, 0, false),
        Class::Finite if x.exponent < 64 => {
            let (whole, inexact, up) = magnitude(x, rounding);
            let limit = (1_u128 << (bits - 1)) - u128::from(!x.sign);
            if whole > limit {
                return indefinite;
            }
            let value = if x.sign { (whole as u64).wrapping_neg() as i64 } else { whole as i64 };
            (value, if inexact { flag::INEXACT } else { 0 }, up)
        }
        _ => indefinite,
    }
}
