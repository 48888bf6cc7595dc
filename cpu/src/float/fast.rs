//! The host's arithmetic, where IEEE 754 leaves it no choice: normal operands, a normal result, rounding to nearest.
//!
//! Every host then computes the same bits. Whether the result is exact is known from an error-free transformation of the
//! sum (Knuth's 2Sum), or from the integer product of significands. `None`: the portable operations must answer.
//! Comparisons and conversions answer for normal numbers and zeros.

use super::arithmetic::Operation;
use core::cmp::Ordering;

/// The significand without its trailing zeros.
const fn odd(significand: u64) -> u128 {
    (significand >> significand.trailing_zeros()) as u128
}

macro_rules! fast {
    ($name:ident, $lanes:ident, $root:ident, $order:ident, $from:ident, $cut:ident, $float:ty, $bits:ty, $precision:literal, $top:literal) => {
        /// The lanes of `a` and `b` combined by the host, inexact results included.
        #[inline(always)]
        pub(crate) fn $lanes<const N: usize>(
            operation: Operation,
            a: [$bits; N],
            b: [$bits; N],
        ) -> Option<[$bits; N]> {
            let field = |bits: $bits| bits >> ($precision - 1) & $top;
            // Far from both ends of the range, so that the error terms of a sum are normal or zero, too.
            let usable = |bits: $bits| field(bits).wrapping_sub(2 * $precision) < $top - 4 * $precision;
            let mut all = true;
            let result = core::array::from_fn(|n| {
                let (x, y) = (<$float>::from_bits(a[n]), <$float>::from_bits(b[n]));
                let result = match operation {
                    Operation::Add => x + y,
                    Operation::Subtract => x - y,
                    Operation::Multiply => x * y,
                    Operation::Divide => x / y,
                };
                let bits = result.to_bits();
                // Below 2 it may have been tiny before rounding; `$top` is infinity.
                all &= usable(a[n]) & usable(b[n]) & (field(bits).wrapping_sub(2) < $top - 2);
                bits
            });
            all.then_some(result)
        }

        /// `a` and `b` combined by the host. With `inexact_known` inexact results count, too.
        #[inline]
        pub(crate) fn $name(operation: Operation, a: u64, b: u64, inexact_known: bool) -> Option<u64> {
            let significand =
                |bits: $bits| (bits & ((1 << ($precision - 1)) - 1) | 1 << ($precision - 1)) as u64;
            let (a, b) = (a as $bits, b as $bits);
            let [bits] = $lanes(operation, [a], [b])?;
            let (x, y, result) = (<$float>::from_bits(a), <$float>::from_bits(b), <$float>::from_bits(bits));
            let exact = inexact_known
                || match operation {
                    Operation::Add | Operation::Subtract => {
                        let y = if matches!(operation, Operation::Add) { y } else { -y };
                        let part = result - x;
                        (x - (result - part)) + (y - part) == 0.0
                    }
                    Operation::Multiply => {
                        let product = odd(significand(a)) * odd(significand(b));
                        128 - product.leading_zeros() <= $precision
                    }
                    Operation::Divide => odd(significand(bits)) * odd(significand(b)) == odd(significand(a)),
                };
            exact.then_some(u64::from(bits))
        }

        /// The host's square root of `a`, which must be positive.
        #[inline]
        pub(crate) fn $root(a: u64, inexact_known: bool) -> Option<u64> {
            let significand =
                |bits: $bits| (bits & ((1 << ($precision - 1)) - 1) | 1 << ($precision - 1)) as u64;
            let a = a as $bits;
            // Positive, normal and finite.
            if (a >> ($precision - 1)).wrapping_sub(1) >= $top - 1 {
                return None;
            }
            let bits = <$float>::from_bits(a).sqrt().to_bits();
            let root = odd(significand(bits));
            (inexact_known || root * root == odd(significand(a))).then_some(u64::from(bits))
        }

        /// The order of `a` and `b`.
        #[inline]
        pub(crate) fn $order(a: u64, b: u64) -> Option<Ordering> {
            let (x, y) = (<$float>::from_bits(a as $bits), <$float>::from_bits(b as $bits));
            let plain = |x: $float| x.is_normal() || x == 0.0;
            if plain(x) && plain(y) { x.partial_cmp(&y) } else { None }
        }

        /// The integer `value`. With `inexact_known` inexact results count, too.
        #[inline]
        pub(crate) fn $from(value: i64, inexact_known: bool) -> Option<u64> {
            let exact = inexact_known || value.unsigned_abs() <= 1 << $precision;
            exact.then(|| u64::from((value as $float).to_bits()))
        }

        /// `a`, below 2^62, without its fraction. With `inexact_known` it may have one.
        #[inline]
        pub(crate) fn $cut(a: u64, inexact_known: bool) -> Option<i64> {
            let x = <$float>::from_bits(a as $bits);
            let plain = x.is_normal() && x.abs() < (1_u64 << 62) as $float || x == 0.0;
            let whole = x as i64;
            (plain && (inexact_known || whole as $float == x)).then_some(whole)
        }
    };
}

fast!(single, singles, single_root, single_order, single_from, single_cut, f32, u32, 24, 0xff);
fast!(double, doubles, double_root, double_order, double_from, double_cut, f64, u64, 53, 0x7ff);

/// Single precision as double precision.
#[inline]
pub(crate) fn widen(a: u64) -> Option<u64> {
    let x = f32::from_bits(a as u32);
    (x.is_normal() || x == 0.0).then(|| f64::from(x).to_bits())
}

/// Double precision as single precision. With `inexact_known` inexact results count, too.
#[inline]
pub(crate) fn narrow(a: u64, inexact_known: bool) -> Option<u64> {
    let x = f64::from_bits(a);
    let y = x as f32;
    // From twice the smallest normal number on nothing was tiny before rounding.
    let plain = y.is_finite() && y.abs() >= 2.0 * f32::MIN_POSITIVE || x == 0.0;
    (plain && (inexact_known || f64::from(y) == x)).then(|| y.to_bits().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::scalar::binary_portable;
    use crate::float::{DOUBLE, Mode, SINGLE, flag};
    use rootmode_arch::choices::Seeded;

    /// Numbers with few bits, many bits, and exponents near the ends of the fast range.
    fn number(random: &mut Seeded, stored: u32, exponents: u64) -> u64 {
        let fraction = match random.next() % 3 {
            0 => random.next() & 7 << (stored - 3),
            1 => random.next() & 15,
            _ => random.next(),
        };
        let near = exponents / 2 - 30 + random.next() % 60;
        let exponent = if random.next().is_multiple_of(3) { random.next() % exponents } else { near };
        (random.next() & 1) << (stored + exponents.count_ones())
            | exponent << stored
            | fraction & ((1 << stored) - 1)
    }

    #[test]
    fn the_hosts_arithmetic_and_ours_agree_and_exactness_is_known() {
        let mut random = Seeded::new(7);
        let mut answered = 0;
        for _ in 0..200_000 {
            let operation = [Operation::Add, Operation::Subtract, Operation::Multiply, Operation::Divide]
                [random.next() as usize % 4];
            for (format, exponents) in [(SINGLE, 0xff), (DOUBLE, 0x7ff)] {
                let stored = format.precision - 1;
                let (a, b) = (number(&mut random, stored, exponents), number(&mut random, stored, exponents));
                let fast = |known| {
                    if stored == 23 { single(operation, a, b, known) } else { double(operation, a, b, known) }
                };
                let (result, flags) = binary_portable(operation, a, b, format, Mode::from_mxcsr(0x1f80));
                if let Some(fast) = fast(true) {
                    assert_eq!((fast, flags & !flag::INEXACT), (result, 0), "{operation:?} {a:x} {b:x}");
                    answered += 1;
                }
                if let Some(fast) = fast(false) {
                    assert_eq!((fast, flags), (result, 0), "{operation:?} {a:x} {b:x}");
                }
            }
        }
        assert!(answered > 100_000, "the fast path answers the usual cases: {answered}");
    }
}
