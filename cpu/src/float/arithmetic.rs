//! Addition, multiplication, both fused, division and square root: exact values of two numbers that are not NaNs.

use super::round::shift_sticky;
use super::{Class, Exact, Parts, Rounding};

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// What an operation yields before rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A finite number other than zero.
    Exact(Exact),
    /// A zero with this sign.
    Zero(bool),
    /// An infinity with this sign.
    Infinity(bool),
    /// The infinity of a division by zero.
    Division(bool),
    /// The operation is invalid.
    Invalid,
}

/// `a` and `b` combined. Neither is a NaN or unsupported.
#[inline]
pub(crate) fn compute(operation: Operation, a: &Parts, b: &Parts, rounding: Rounding) -> Value {
    match operation {
        Operation::Add => add(a, b, rounding),
        Operation::Subtract => add(a, &Parts { sign: !b.sign, ..*b }, rounding),
        Operation::Multiply => multiply(a, b),
        Operation::Divide => divide(a, b),
    }
}

/// A finite number or zero as it is.
pub(crate) fn identity(a: &Parts) -> Value {
    match a.class {
        Class::Zero => Value::Zero(a.sign),
        Class::Infinity => Value::Infinity(a.sign),
        _ => Value::Exact(Exact {
            sign: a.sign,
            exponent: a.exponent,
            significand: u128::from(a.significand) << 64,
        }),
    }
}

fn add(a: &Parts, b: &Parts, rounding: Rounding) -> Value {
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) if a.sign != b.sign => return Value::Invalid,
        (Class::Infinity, _) => return Value::Infinity(a.sign),
        (_, Class::Infinity) => return Value::Infinity(b.sign),
        (Class::Zero, Class::Zero) if a.sign == b.sign => return Value::Zero(a.sign),
        (Class::Zero, Class::Zero) => return Value::Zero(rounding == Rounding::Down),
        (Class::Zero, _) => return identity(b),
        (_, Class::Zero) => return identity(a),
        _ => {}
    }
    let (large, small) =
        if (a.exponent, a.significand) >= (b.exponent, b.significand) { (a, b) } else { (b, a) };
    // One bit of headroom for the carry; 63 bits below for what is shifted out.
    let x = u128::from(large.significand) << 63;
    let y = u128::from(small.significand) << 63;
    let y = shift_sticky(y, (large.exponent - small.exponent) as u32);
    let sum = if a.sign == b.sign { x + y } else { x - y };
    if sum == 0 {
        return Value::Zero(rounding == Rounding::Down);
    }
    Value::Exact(Exact::normalised(large.sign, large.exponent + 1, sum))
}

fn multiply(a: &Parts, b: &Parts) -> Value {
    let sign = a.sign != b.sign;
    match (a.class, b.class) {
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => Value::Invalid,
        (Class::Infinity, _) | (_, Class::Infinity) => Value::Infinity(sign),
        (Class::Zero, _) | (_, Class::Zero) => Value::Zero(sign),
        _ => {
            let product = u128::from(a.significand) * u128::from(b.significand);
            Value::Exact(Exact::normalised(sign, a.exponent + b.exponent + 1, product))
        }
    }
}

/// `a * b + c` with one rounding, of single or double precision: the significands have at most 53 bits. None of them is a NaN.
pub(crate) fn multiply_add(a: &Parts, b: &Parts, c: &Parts, rounding: Rounding) -> Value {
    let (product, c) = match (multiply(a, b), identity(c)) {
        (Value::Infinity(sign), Value::Infinity(other)) if sign != other => return Value::Invalid,
        (Value::Exact(product), Value::Exact(c)) => (product, c),
        (Value::Zero(sign), Value::Zero(other)) if sign != other => {
            return Value::Zero(rounding == Rounding::Down);
        }
        (product @ (Value::Invalid | Value::Infinity(_)), _) | (product, Value::Zero(_)) => return product,
        (_, c) => return c,
    };
    let (large, small) = if (product.exponent, product.significand) >= (c.exponent, c.significand) {
        (product, c)
    } else {
        (c, product)
    };
    // One bit of headroom for the carry. A product has 106 bits, so at least 21 below it are zeros: what sticks was shifted out
    // of the smaller one by more than cancellation can bring back.
    let y = shift_sticky(small.significand >> 1, (large.exponent - small.exponent) as u32);
    let x = large.significand >> 1;
    let sum = if large.sign == small.sign { x + y } else { x - y };
    if sum == 0 {
        return Value::Zero(rounding == Rounding::Down);
    }
    Value::Exact(Exact::normalised(large.sign, large.exponent + 1, sum))
}

fn divide(a: &Parts, b: &Parts) -> Value {
    let sign = a.sign != b.sign;
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => Value::Invalid,
        (Class::Infinity, _) => Value::Infinity(sign),
        (_, Class::Infinity) | (Class::Zero, _) => Value::Zero(sign),
        (_, Class::Zero) => Value::Division(sign),
        _ => {
            let divisor = u128::from(b.significand);
            let dividend = u128::from(a.significand) << 64;
            let (quotient, rest) = (dividend / divisor, dividend % divisor);
            // Two more bits, and a sticky one.
            let (more, rest) = ((rest << 2) / divisor, (rest << 2) % divisor);
            let quotient = (quotient << 2 | more) << 1 | u128::from(rest != 0);
            // The quotient has 64 + 2 + 1 fraction bits.
            Value::Exact(Exact::normalised(sign, a.exponent - b.exponent + 127 - 67, quotient))
        }
    }
}

/// The square root of `a`, which is not a NaN.
pub(crate) fn square_root(a: &Parts) -> Value {
    match a.class {
        Class::Zero => Value::Zero(a.sign),
        _ if a.sign => Value::Invalid,
        Class::Infinity => Value::Infinity(false),
        _ => {
            // The exponent is made even; the radicand lies between 2^124 and 2^126.
            let odd = a.exponent & 1;
            let radicand = u128::from(a.significand) << (61 + odd);
            let mut root = radicand.isqrt();
            let mut rest = radicand - root * root;
            // The root has 63 bits; three more, and a sticky one.
            for _ in 0..3 {
                rest <<= 2;
                root <<= 1;
                if rest > root * 2 {
                    rest -= root * 2 + 1;
                    root += 1;
                }
            }
            let root = root << 1 | u128::from(rest != 0);
            // The radicand has 124 fraction bits, so the root has 62, and four more now.
            Value::Exact(Exact::normalised(false, (a.exponent - odd) / 2 + 127 - 66, root))
        }
    }
}
