//! FPREM, FPREM1, FSCALE, FXTRACT (SDM Vol. 2A, the instructions' pages).

use super::arithmetic::{Value, identity};
use super::convert::to_integer;
use super::extended::{Answer, finish, from_integer, nan};
use super::parts::infinity_extended;
use super::{Class, EXTENDED, Exact, F80, Mode, Parts, Rounding, flag};

/// What is known of a quotient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quotient {
    /// It was computed; these are its low bits.
    Bits(u64),
    /// The reduction is only partial.
    Partial,
    /// There is none: NaNs and invalid operands.
    None,
}

/// FPREM (truncating), or FPREM1 with `nearest`.
///
/// A partial reduction lowers the exponent by a number from 32 to 63 that the manual leaves open: it is chosen so that
/// the rest of the difference is a multiple of 32, as processors do.
pub(crate) fn remainder(a: &Parts, b: &Parts, nearest: bool, mode: Mode) -> (Answer, Quotient) {
    if let Some(answer) = nan(a, b) {
        return (answer, Quotient::None);
    }
    if a.is_infinite() || b.is_zero() {
        return (Answer::new(F80::INDEFINITE, flag::INVALID), Quotient::None);
    }
    let denormal = a.denormal || b.denormal;
    let precision = EXTENDED.precision;
    if a.is_zero() || b.is_infinite() {
        return (finish(identity(a), denormal, precision, mode), Quotient::Bits(0));
    }
    let difference = a.exponent - b.exponent;
    if difference < if nearest { -1 } else { 0 } {
        return (finish(identity(a), denormal, precision, mode), Quotient::Bits(0));
    }
    let partial = difference >= 64;
    let steps = if partial { difference & 31 | 32 } else { difference };
    // In units of the divisor's last place, or half of it.
    let (dividend, divisor, unit) = if steps < 0 {
        (u128::from(a.significand), u128::from(b.significand) << 1, b.exponent - 1)
    } else {
        (u128::from(a.significand) << steps, u128::from(b.significand), a.exponent - steps)
    };
    let (mut quotient, mut rest) = (dividend / divisor, dividend % divisor);
    let mut sign = a.sign;
    let half = (rest * 2).cmp(&divisor);
    if nearest && !partial && (half.is_gt() || half.is_eq() && quotient & 1 != 0) {
        quotient += 1;
        rest = divisor - rest;
        sign = !sign;
    }
    let value =
        if rest == 0 { Value::Zero(a.sign) } else { Value::Exact(Exact::normalised(sign, unit + 64, rest)) };
    let known = if partial { Quotient::Partial } else { Quotient::Bits(quotient as u64) };
    (finish(value, denormal, precision, mode), known)
}

/// FSCALE: `a * 2^trunc(b)`.
pub(crate) fn scale(a: &Parts, b: &Parts, mode: Mode) -> Answer {
    if let Some(answer) = nan(a, b) {
        return answer;
    }
    let denormal = a.denormal || b.denormal;
    let precision = EXTENDED.precision;
    if b.is_infinite() {
        let value = match (a.class, b.sign) {
            (Class::Zero, false) | (Class::Infinity, true) => Value::Invalid,
            (_, false) => Value::Infinity(a.sign),
            (_, true) => Value::Zero(a.sign),
        };
        return finish(value, denormal, precision, mode);
    }
    let value = match identity(a) {
        Value::Exact(exact) => {
            // Beyond this every result overflows or underflows, biased exponents included.
            let by = match to_integer(b, 32, Rounding::Zero) {
                (value, flags, _) if flags & flag::INVALID == 0 => value.clamp(-0x1_0000, 0x1_0000) as i32,
                _ if b.sign => -0x1_0000,
                _ => 0x1_0000,
            };
            Value::Exact(Exact { exponent: exact.exponent + by, ..exact })
        }
        other => other,
    };
    finish(value, denormal, precision, mode)
}

/// FXTRACT: the exponent, then the significand.
pub(crate) fn extract(a: &Parts, mode: Mode) -> (F80, Answer) {
    if let Some(answer) = nan(a, a) {
        return (answer.value, answer);
    }
    let precision = EXTENDED.precision;
    match a.class {
        Class::Zero => {
            let zero = finish(Value::Zero(a.sign), false, precision, mode);
            (infinity_extended(true), Answer { flags: flag::DIVIDE, ..zero })
        }
        Class::Infinity => (infinity_extended(false), finish(identity(a), false, precision, mode)),
        _ => {
            let significand = Parts { exponent: 0, ..*a };
            (from_integer(i64::from(a.exponent)), finish(identity(&significand), a.denormal, precision, mode))
        }
    }
}
