//! Half, single and double precision by the rules of SSE: of two NaNs the first wins; DAZ, FTZ; the exceptions of each operation.
//!
//! Encodings are the low bits of a `u64`. Every function yields the result of the masked response and the exceptions.

use super::arithmetic::{self, Operation, Value, compute};
use super::parts::{indefinite, infinity, quiet, sign_bit};
use super::round::{Unmasked, round};
use super::{Format, Mode, Parts, Rounding, SINGLE, fast, flag};
use core::cmp::Ordering;

/// A result and its exceptions.
pub(crate) type Answer = (u64, u32);

/// The encoding of `value`.
fn finish(value: Value, denormal: bool, format: Format, mode: Mode) -> Answer {
    let before = if denormal { flag::DENORMAL } else { 0 };
    match value {
        Value::Invalid => (indefinite(format), flag::INVALID),
        Value::Division(sign) => (infinity(sign, format), flag::DIVIDE),
        Value::Zero(sign) => (sign_bit(sign, format), before),
        Value::Infinity(sign) => (infinity(sign, format), before),
        Value::Exact(exact) => {
            let rounded = round(exact, format, format.precision, mode, Unmasked::Nothing);
            (rounded.pack(format), rounded.flags | before)
        }
    }
}

/// ADD, SUB, MUL, DIV.
#[inline]
pub(crate) fn binary(operation: Operation, a: u64, b: u64, format: Format, mode: Mode) -> Answer {
    if mode.rounding == Rounding::Nearest {
        let known = mode.inexact_known;
        let answer = if format.precision == SINGLE.precision {
            fast::single(operation, a, b, known)
        } else {
            fast::double(operation, a, b, known)
        };
        if let Some(result) = answer {
            return (result, 0);
        }
    }
    binary_portable(operation, a, b, format, mode)
}

/// [`binary`] without the host's arithmetic.
pub(crate) fn binary_portable(operation: Operation, a: u64, b: u64, format: Format, mode: Mode) -> Answer {
    let daz = mode.denormals_are_zero;
    let (x, y) = (Parts::unpack_daz(a, format, daz), Parts::unpack_daz(b, format, daz));
    if x.is_nan() || y.is_nan() {
        let first = if x.is_nan() { x } else { y };
        let signaling = x.is_signaling() || y.is_signaling();
        return (quiet(&first, format), if signaling { flag::INVALID } else { 0 });
    }
    finish(compute(operation, &x, &y, mode.rounding), x.denormal || y.denormal, format, mode)
}

/// `a * b + c`, with the product or `c` negated first (`negate`), rounded once. Of several NaNs the first operand in this
/// order wins (SDM Vol. 1 "FMA Instruction Operand Order and Arithmetic Behavior").
pub(crate) fn multiply_add([a, b, c]: [u64; 3], negate: [bool; 2], format: Format, mode: Mode) -> Answer {
    let [x, y, z] = [a, b, c].map(|bits| Parts::unpack_daz(bits, format, mode.denormals_are_zero));
    if let Some(first) = [x, y, z].iter().find(|part| part.is_nan()) {
        let signaling = [x, y, z].iter().any(Parts::is_signaling);
        return (quiet(first, format), if signaling { flag::INVALID } else { 0 });
    }
    let denormal = x.denormal || y.denormal || z.denormal;
    let (x, z) = (Parts { sign: x.sign != negate[0], ..x }, Parts { sign: z.sign != negate[1], ..z });
    finish(arithmetic::multiply_add(&x, &y, &z, mode.rounding), denormal, format, mode)
}

/// A NaN as the result of an operation with one operand.
fn lone_nan(x: &Parts, format: Format) -> Answer {
    (quiet(x, format), if x.is_signaling() { flag::INVALID } else { 0 })
}

/// SQRT.
pub(crate) fn square_root(a: u64, format: Format, mode: Mode) -> Answer {
    if mode.rounding == Rounding::Nearest {
        let known = mode.inexact_known;
        let single = format.precision == SINGLE.precision;
        let answer = if single { fast::single_root(a, known) } else { fast::double_root(a, known) };
        if let Some(result) = answer {
            return (result, 0);
        }
    }
    let x = Parts::unpack_daz(a, format, mode.denormals_are_zero);
    if x.is_nan() {
        return lone_nan(&x, format);
    }
    finish(arithmetic::square_root(&x), x.denormal, format, mode)
}

/// How two numbers compare (`None`: unordered). `quiet_nans` do not signal.
pub(crate) fn compare(
    a: u64,
    b: u64,
    quiet_nans: bool,
    format: Format,
    mode: Mode,
) -> (Option<Ordering>, u32) {
    let daz = mode.denormals_are_zero;
    let (x, y) = (Parts::unpack_daz(a, format, daz), Parts::unpack_daz(b, format, daz));
    if x.is_nan() || y.is_nan() {
        let signals = !quiet_nans || x.is_signaling() || y.is_signaling();
        return (None, if signals { flag::INVALID } else { 0 });
    }
    let flags = if x.denormal || y.denormal { flag::DENORMAL } else { 0 };
    (Some(order(&x, &y)), flags)
}

/// The order of two numbers that are not NaNs.
pub(crate) fn order(x: &Parts, y: &Parts) -> Ordering {
    use super::Class;
    let rank = |p: &Parts| match p.class {
        Class::Zero => (0, 0, 0),
        Class::Infinity => (2, 0, 0),
        _ => (1, p.exponent, p.significand),
    };
    match (x.is_zero() && y.is_zero(), x.sign, y.sign) {
        (true, _, _) => Ordering::Equal,
        (_, false, true) => Ordering::Greater,
        (_, true, false) => Ordering::Less,
        (_, false, false) => rank(x).cmp(&rank(y)),
        (_, true, true) => rank(y).cmp(&rank(x)),
    }
}

/// MIN or MAX: the second operand unless the first is strictly less or greater.
pub(crate) fn extreme(maximum: bool, a: u64, b: u64, format: Format, mode: Mode) -> Answer {
    let daz = mode.denormals_are_zero;
    let (wanted, flags) = match compare(a, b, false, format, mode) {
        (None, flags) => (false, flags),
        (Some(order), flags) => (order == if maximum { Ordering::Greater } else { Ordering::Less }, flags),
    };
    let chosen = if wanted { a } else { b };
    let parts = Parts::unpack(chosen, format);
    (if daz && parts.denormal { sign_bit(parts.sign, format) } else { chosen }, flags)
}

/// CVTSS2SD, CVTSD2SS.
pub(crate) fn convert(a: u64, from: Format, to: Format, mode: Mode) -> Answer {
    let x = Parts::unpack_daz(a, from, mode.denormals_are_zero);
    if x.is_nan() {
        return lone_nan(&x, to);
    }
    finish(arithmetic::identity(&x), x.denormal, to, mode)
}

/// CVTSI2SS, CVTSI2SD and relatives.
pub(crate) fn from_integer(value: i64, format: Format, mode: Mode) -> Answer {
    finish(super::convert::integer(value), false, format, mode)
}

/// CVTSS2SI, CVTSD2SI and relatives, into `bits` bits; the integer indefinite (the lowest one) if it does not fit.
pub(crate) fn to_integer(a: u64, bits: u32, rounding: Rounding, format: Format, mode: Mode) -> (i64, u32) {
    let x = Parts::unpack_daz(a, format, mode.denormals_are_zero);
    let (value, flags, _) = super::convert::to_integer(&x, bits, rounding);
    (value, flags)
}

/// ROUNDSS, ROUNDSD and relatives; PE is reported unless `quiet_inexact`.
pub(crate) fn round_integral(
    a: u64,
    rounding: Rounding,
    quiet_inexact: bool,
    format: Format,
    mode: Mode,
) -> Answer {
    let x = Parts::unpack_daz(a, format, mode.denormals_are_zero);
    if x.is_nan() {
        return lone_nan(&x, format);
    }
    let (value, inexact, _) = super::convert::integral(&x, rounding);
    let (result, _) = finish(value, false, format, mode);
    (result, if inexact && !quiet_inexact { flag::INEXACT } else { 0 })
}
