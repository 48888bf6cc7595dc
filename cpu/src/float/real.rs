//! [`Real`]: numbers with 256 bits of significand, from which the transcendental functions are rounded once.
//!
//! Results are cut, not rounded: each operation is off by less than 2^-254 of its result, and none of the functions does so
//! many that the error would come near the 64 bits that are kept.

use super::{Class, Exact, Parts};
use core::cmp::Ordering;

/// Limbs of a significand.
const LIMBS: usize = 4;

/// `(-1)^negative * limbs / 2^255 * 2^exponent`, the lowest limb first. The highest bit is set, or all are clear for zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Real {
    pub(crate) negative: bool,
    pub(crate) exponent: i32,
    limbs: [u64; LIMBS],
}

/// π/2, as 256 bits.
pub(crate) const HALF_PI: Real = Real::constant(
    0,
    [0x020b_bea6_3b13_9b22, 0x2902_4e08_8a67_cc74, 0xc4c6_628b_80dc_1cd1, 0xc90f_daa2_2168_c234],
);
/// The natural logarithm of 2.
pub(crate) const LN_2: Real = Real::constant(
    -1,
    [0x8a0d_175b_8baa_fa2b, 0x40f3_4326_7298_b62d, 0xc9e3_b398_03f2_f6af, 0xb172_17f7_d1cf_79ab],
);
/// log2(e).
pub(crate) const LOG2_E: Real = Real::constant(
    0,
    [0x8b25_166c_d1a1_3247, 0xeb57_7aa8_dd69_5a58, 0xbe87_fed0_691d_3e88, 0xb8aa_3b29_5c17_f0bb],
);
/// arctan(1/2).
pub(crate) const ATAN_HALF: Real = Real::constant(
    -2,
    [0xe2cf_16e6_e962_4709, 0x6e14_1587_261c_df00, 0x6fe4_45ec_bc3a_8d03, 0xed63_382b_0dda_7b45],
);

impl Real {
    pub(crate) const ZERO: Self = Self { negative: false, exponent: 0, limbs: [0; LIMBS] };
    pub(crate) const ONE: Self = Self::integer(1);

    const fn constant(exponent: i32, limbs: [u64; LIMBS]) -> Self {
        Self { negative: false, exponent, limbs }
    }

    /// An integer other than 0.
    pub(crate) const fn integer(value: u64) -> Self {
        let shift = value.leading_zeros();
        Self { negative: false, exponent: 63 - shift as i32, limbs: [0, 0, 0, value << shift] }
    }

    /// An integer other than 0.
    pub(crate) const fn wide(value: u128) -> Self {
        let shift = value.leading_zeros();
        let value = value << shift;
        let limbs = [0, 0, value as u64, (value >> 64) as u64];
        Self { negative: false, exponent: 127 - shift as i32, limbs }
    }

    /// A finite number or zero.
    pub(crate) fn of(parts: &Parts) -> Self {
        if parts.class == Class::Zero {
            return Self::ZERO;
        }
        Self { negative: parts.sign, exponent: parts.exponent, limbs: [0, 0, 0, parts.significand] }
    }

    pub(crate) const fn is_zero(&self) -> bool {
        self.limbs[LIMBS - 1] == 0
    }

    /// The value with the sign `negative`.
    pub(crate) const fn with_sign(self, negative: bool) -> Self {
        Self { negative, ..self }
    }

    /// The opposite value.
    pub(crate) const fn negated(self) -> Self {
        self.with_sign(!self.negative)
    }

    /// `self * 2^by`.
    pub(crate) const fn scaled(self, by: i32) -> Self {
        Self { exponent: self.exponent + by, ..self }
    }

    /// The value for rounding: cut to 128 bits of significand, with something below them. Not of zero.
    pub(crate) const fn inexact(&self) -> Exact {
        let significand = (self.limbs[3] as u128) << 64 | self.limbs[2] as u128;
        Exact { sign: self.negative, exponent: self.exponent, significand: significand | 1 }
    }

    /// How the magnitudes compare.
    pub(crate) fn compare_magnitude(&self, other: &Self) -> Ordering {
        let rank = |x: &Self| (!x.is_zero(), x.exponent, x.limbs[3], x.limbs[2], x.limbs[1], x.limbs[0]);
        rank(self).cmp(&rank(other))
    }

    /// The product.
    pub(crate) fn times(&self, other: &Self) -> Self {
        if self.is_zero() || other.is_zero() {
            return Self::ZERO;
        }
        let mut product = [0_u64; 2 * LIMBS];
        for (i, a) in self.limbs.iter().enumerate() {
            let mut carry = 0;
            for (j, b) in other.limbs.iter().enumerate() {
                let sum = u128::from(*a) * u128::from(*b) + u128::from(product[i + j]) + carry;
                product[i + j] = sum as u64;
                carry = sum >> 64;
            }
            product[i + LIMBS] = carry as u64;
        }
        let mut limbs = [0; LIMBS];
        let carried = product[2 * LIMBS - 1] >> 63 != 0;
        for (n, limb) in limbs.iter_mut().enumerate() {
            let (high, low) = (product[LIMBS + n], product[LIMBS + n - 1]);
            *limb = if carried { high } else { high << 1 | low >> 63 };
        }
        let exponent = self.exponent + other.exponent + i32::from(carried);
        Self { negative: self.negative != other.negative, exponent, limbs }
    }

    /// The quotient by a small number other than 0.
    pub(crate) fn over(&self, divisor: u64) -> Self {
        if self.is_zero() {
            return *self;
        }
        let divisor = u128::from(divisor);
        // One more limb than is kept, so that the quotient has enough bits.
        let mut quotient = [0_u64; LIMBS + 1];
        let mut rest = 0;
        for n in (0..LIMBS + 1).rev() {
            let limb = if n == 0 { 0 } else { self.limbs[n - 1] };
            let dividend = rest << 64 | u128::from(limb);
            quotient[n] = (dividend / divisor) as u64;
            rest = dividend % divisor;
        }
        Self::normalised(self.negative, self.exponent, quotient)
    }

    /// The number with these limbs, one more below than is kept, of which the highest bit stands for `2^exponent`.
    fn normalised(negative: bool, exponent: i32, all: [u64; LIMBS + 1]) -> Self {
        let Some(top) = all.iter().rposition(|limb| *limb != 0) else { return Self::ZERO };
        let (whole, bits) = (LIMBS - top, all[top].leading_zeros());
        let mut limbs = [0; LIMBS];
        for (n, limb) in limbs.iter_mut().enumerate() {
            let at = |below: usize| (n + 1).checked_sub(whole + below).map_or(0, |at| all[at]);
            *limb = if bits == 0 { at(0) } else { at(0) << bits | at(1) >> (64 - bits) };
        }
        Self { negative, exponent: exponent - (64 * whole as i32 + bits as i32), limbs }
    }

    /// The sum.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let (large, small) =
            if self.compare_magnitude(other).is_lt() { (other, self) } else { (self, other) };
        let distance = (large.exponent - small.exponent) as usize;
        if small.is_zero() || distance >= 64 * (LIMBS + 1) {
            return *large;
        }
        // Both with one limb more below; the smaller one shifted.
        let wide = |x: &Self| {
            core::array::from_fn::<u64, { LIMBS + 1 }, _>(|n| if n == 0 { 0 } else { x.limbs[n - 1] })
        };
        let (mut sum, small_limbs) = (wide(large), wide(small));
        let (whole, bits) = (distance / 64, distance % 64);
        let shifted = |n: usize| {
            let at = |n: usize| small_limbs.get(n).copied().unwrap_or(0);
            let low = at(n + whole);
            if bits == 0 { low } else { low >> bits | at(n + whole + 1) << (64 - bits) }
        };
        let mut carry = false;
        let subtracts = large.negative != small.negative;
        for (n, limb) in sum.iter_mut().enumerate() {
            let (first, second);
            if subtracts {
                (*limb, first) = limb.overflowing_sub(shifted(n));
                (*limb, second) = limb.overflowing_sub(u64::from(carry));
            } else {
                (*limb, first) = limb.overflowing_add(shifted(n));
                (*limb, second) = limb.overflowing_add(u64::from(carry));
            }
            carry = first || second;
        }
        if carry && !subtracts {
            let limbs = core::array::from_fn(|n| {
                let above = sum.get(n + 2).copied().unwrap_or(1);
                sum[n + 1] >> 1 | above << 63
            });
            return Self { negative: large.negative, exponent: large.exponent + 1, limbs };
        }
        Self::normalised(large.negative, large.exponent, sum)
    }

    /// The difference.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        self.plus(&other.negated())
    }

    /// The quotient by a number other than zero: a bit a step.
    pub(crate) fn divided_by(&self, divisor: &Self) -> Self {
        if self.is_zero() {
            return Self::ZERO;
        }
        // Both magnitudes between 1 and 2; the rest stays below twice the divisor.
        let one = |x: &Self| Self { negative: false, exponent: 0, ..*x };
        let (mut rest, divisor_magnitude) = (one(self), one(divisor));
        let mut quotient = [0_u64; LIMBS + 1];
        for bit in (0..64 * (LIMBS + 1)).rev() {
            if !rest.is_zero() && rest.compare_magnitude(&divisor_magnitude).is_ge() {
                rest = rest.minus(&divisor_magnitude);
                quotient[bit / 64] |= 1 << (bit % 64);
            }
            rest = rest.scaled(1);
        }
        let negative = self.negative != divisor.negative;
        Self::normalised(negative, self.exponent - divisor.exponent, quotient)
    }
}

/// `first * (1 + t_1 + t_1 * t_2 + ...)`, where `ratio(n)` is `t_n`, until nothing changes.
pub(crate) fn series(first: Real, ratio: impl Fn(u64) -> Real) -> Real {
    let (mut sum, mut term) = (first, first);
    for n in 1.. {
        term = term.times(&ratio(n));
        if term.is_zero() || term.exponent < sum.exponent - 64 * LIMBS as i32 {
            break;
        }
        sum = sum.plus(&term);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// artanh(1/n) or, with `alternating`, arctan(1/n).
    fn inverse(n: u64, alternating: bool) -> Real {
        let square = Real::integer(n).times(&Real::integer(n)).with_sign(alternating);
        series(Real::ONE.over(n), |k| Real::integer(2 * k - 1).over(2 * k + 1).divided_by(&square))
    }

    fn assert_near(a: &Real, b: &Real) {
        let difference = a.minus(b);
        assert!(difference.is_zero() || difference.exponent < a.exponent - 245, "{a:x?} {b:x?}");
    }

    #[test]
    fn constants_follow_from_their_series() {
        // Machin: pi/4 = 4 arctan(1/5) - arctan(1/239).
        let quarter = inverse(5, true).scaled(2).minus(&inverse(239, true));
        assert_near(&HALF_PI, &quarter.scaled(1));
        assert_near(&LN_2, &inverse(3, false).scaled(1));
        assert_near(&LOG2_E.times(&LN_2), &Real::ONE);
        // arctan(1/2) = arctan(1/3) + arctan(1/7).
        assert_near(&ATAN_HALF, &inverse(3, true).plus(&inverse(7, true)));
    }

    #[test]
    fn operations_undo_each_other() {
        let mut random = rootmode_arch::choices::Seeded::new(3);
        let mut draw = || {
            let number = Real::integer(random.next() | 1).scaled(random.next() as i32 % 100);
            number.plus(&Real::integer(random.next() | 1).scaled(-90)).with_sign(random.next() & 1 != 0)
        };
        for _ in 0..2000 {
            let (a, b) = (draw(), draw());
            assert_near(&a.times(&b).divided_by(&b), &a);
            assert_near(&a.over(977).times(&Real::integer(977)), &a);
            // The sum loses what is below its own last place.
            if b.exponent <= a.exponent {
                assert_near(&a.plus(&b).minus(&b), &a);
            }
        }
    }
}
