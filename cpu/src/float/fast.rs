//! The host's arithmetic, where IEEE 754 leaves it no choice: normal operands, a normal result, rounding to nearest.
//!
//! Every host then computes the same bits. Whether the result is exact is known from an error-free transformation of the
//! sum (Knuth's 2Sum), or from the integer product of significands. `None`: the portable operations must answer.

use super::arithmetic::Operation;

/// The significand without its trailing zeros.
const fn odd(significand: u64) -> u128 {
    (significand >> significand.trailing_zeros()) as u128
}

macro_rules! fast {
    ($name:ident, $root:ident, $float:ty, $bits:ty, $precision:literal, $top:literal) => {
        /// `a` and `b` combined by the host. With `inexact_known` inexact results count, too.
        #[inline]
        pub(crate) fn $name(operation: Operation, a: u64, b: u64, inexact_known: bool) -> Option<u64> {
            let field = |bits: $bits| bits >> ($precision - 1) & $top;
            let significand =
                |bits: $bits| (bits & ((1 << ($precision - 1)) - 1) | 1 << ($precision - 1)) as u64;
            let (a, b) = (a as $bits, b as $bits);
            // Far from both ends of the range, so that the error terms of a sum are normal or zero, too.
            let usable = |bits: $bits| field(bits).wrapping_sub(2 * $precision) < $top - 4 * $precision;
            if !usable(a) || !usable(b) {
                return None;
            }
            let (x, y) = (<$float>::from_bits(a), <$float>::from_bits(b));
            let result = match operation {
                Operation::Add => x + y,
                Operation::Subtract => x - y,
                Operation::Multiply => x * y,
                Operation::Divide => x / y,
            };
            let bits = result.to_bits();
            // Below 2 it may have been tiny before rounding; `$top` is infinity.
            if field(bits).wrapping_sub(2) >= $top - 2 {
                return None;
            }
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
    };
}

fast!(single, single_root, f32, u32, 24, 0xff);
fast!(double, double_root, f64, u64, 53, 0x7ff);

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
