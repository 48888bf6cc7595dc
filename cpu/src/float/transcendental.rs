//! F2XM1, FYL2X, FYL2XP1, FPATAN and the trigonometric functions: computed with 256 bits, rounded once
//! (SDM Vol. 1 "Transcendental Instructions", "Approximation of Pi"; Vol. 2A, the instructions' pages).
//!
//! Results are correctly rounded; those of processors differ from them by at most 1 ulp. Every result that is no special value
//! counts as inexact, as processors report it. Where the manual leaves results undefined they are those of AMD's parts.

use super::arithmetic::{Operation, Value, compute, identity};
use super::extended::{Answer, finish, nan};
use super::real::{ATAN_HALF, HALF_PI, LN_2, LOG2_E, Real, series};
use super::{Class, EXTENDED, F80, Mode, Parts, flag};

/// The answer for `value`, which counts as inexact.
fn rounded(value: Value, denormal: bool, mode: Mode) -> Answer {
    let answer = finish(value, denormal, EXTENDED.precision, mode);
    Answer { flags: answer.flags | flag::INEXACT, ..answer }
}

/// The answer for a special value.
fn exact(value: Value, denormal: bool, mode: Mode) -> Answer {
    finish(value, denormal, EXTENDED.precision, mode)
}

const INVALID: Answer = Answer::new(F80::INDEFINITE, flag::INVALID);

/// Below this exponent a second term is too small to be seen; it still decides how the first one is rounded.
const TINY: i32 = -120;

/// The smallest part of `x`.
fn last_place(x: &Real) -> Real {
    Real::ONE.scaled(x.exponent - 255).with_sign(x.negative)
}

/// e^t - 1, for t from -1 to 1.
fn exponential_less_one(t: Real) -> Real {
    series(t, |n| t.over(n + 1))
}

/// F2XM1: 2^a - 1, for a from -1 to 1.
pub(crate) fn power_less_one(a: &Parts, mode: Mode) -> Answer {
    if let Some(answer) = nan(a, a) {
        return answer;
    }
    match a.class {
        Class::Zero => exact(identity(a), false, mode),
        Class::Infinity if a.sign => exact(
            identity(&Parts { class: Class::Finite, exponent: 0, significand: 1 << 63, ..*a }),
            false,
            mode,
        ),
        Class::Infinity => exact(identity(a), false, mode),
        // The ends are exact; beyond them the operand stays.
        _ if a.exponent >= 0 => {
            let half = a.sign && a.exponent == 0 && a.significand << 1 == 0;
            rounded(identity(&Parts { exponent: a.exponent - i32::from(half), ..*a }), a.denormal, mode)
        }
        _ => {
            let value = exponential_less_one(Real::of(a).times(&LN_2));
            rounded(Value::Exact(value.inexact()), a.denormal, mode)
        }
    }
}

/// 2 * artanh(s), for s up to about 0.2 in magnitude.
fn twice_artanh(s: Real) -> Real {
    let square = s.times(&s);
    series(s.scaled(1), |n| square.times(&Real::integer(2 * n - 1)).over(2 * n + 1))
}

/// log2(x), for positive x.
fn log2(x: Real) -> Real {
    /// 1.5 bits above 1: what is larger is halved, so that no sum cancels.
    const MIDDLE: Real = Real::integer(3).scaled(-1);
    let fraction = x.scaled(-x.exponent);
    let halves = fraction.compare_magnitude(&MIDDLE).is_ge();
    let (fraction, exponent) =
        if halves { (fraction.scaled(-1), x.exponent + 1) } else { (fraction, x.exponent) };
    let s = fraction.minus(&Real::ONE).divided_by(&fraction.plus(&Real::ONE));
    let whole = match exponent.unsigned_abs() {
        0 => Real::ZERO,
        magnitude => Real::integer(magnitude.into()).with_sign(exponent < 0),
    };
    whole.plus(&twice_artanh(s).times(&LOG2_E))
}

/// log2(1 + x), for x above -1.
fn log2_next(x: Real) -> Real {
    if x.exponent >= -2 {
        return log2(Real::ONE.plus(&x));
    }
    let s = x.divided_by(&x.plus(&Real::ONE.scaled(1)));
    twice_artanh(s).times(&LOG2_E)
}

/// FYL2X: b * log2(a).
pub(crate) fn logarithm(a: &Parts, b: &Parts, mode: Mode) -> Answer {
    if let Some(answer) = nan(a, b) {
        return answer;
    }
    let denormal = a.denormal || b.denormal;
    let below_one = a.class == Class::Zero || a.class == Class::Finite && a.exponent < 0;
    match (a.class, b.class) {
        (Class::Zero, Class::Zero) => return INVALID,
        (Class::Zero, Class::Finite) => return exact(Value::Division(!b.sign), false, mode),
        (Class::Zero, _) => return exact(Value::Infinity(!b.sign), false, mode),
        _ if a.sign => return INVALID,
        (Class::Infinity, Class::Zero) => return INVALID,
        (Class::Infinity, _) => return exact(Value::Infinity(b.sign), denormal, mode),
        _ => {}
    }
    let is_power = a.significand << 1 == 0;
    let is_one = is_power && a.exponent == 0;
    match b.class {
        Class::Infinity if is_one => return INVALID,
        Class::Infinity => return exact(Value::Infinity(b.sign != below_one), denormal, mode),
        Class::Zero => return exact(Value::Zero(b.sign != below_one), denormal, mode),
        _ if is_one => return exact(Value::Zero(b.sign), denormal, mode),
        _ => {}
    }
    if is_power {
        let exponent = Parts::unpack_extended(super::extended::from_integer(a.exponent.into()));
        return rounded(compute(Operation::Multiply, b, &exponent, mode.rounding), denormal, mode);
    }
    rounded(Value::Exact(log2(Real::of(a)).times(&Real::of(b)).inexact()), denormal, mode)
}

/// FYL2XP1: b * log2(a + 1), for a near 0.
pub(crate) fn logarithm_next(a: &Parts, b: &Parts, mode: Mode) -> Answer {
    if let Some(answer) = nan(a, b) {
        return answer;
    }
    let denormal = a.denormal || b.denormal;
    let sign = a.sign != b.sign;
    match (a.class, b.class) {
        (Class::Zero, Class::Infinity) | (Class::Infinity, Class::Zero) => INVALID,
        (Class::Infinity, _) if a.sign => INVALID,
        (Class::Infinity, _) | (_, Class::Infinity) => exact(Value::Infinity(sign), denormal, mode),
        (Class::Zero, _) | (_, Class::Zero) => exact(Value::Zero(sign), denormal, mode),
        // There is no logarithm: the operand is the result.
        _ if a.sign && a.exponent >= 0 => rounded(identity(a), denormal, mode),
        _ => rounded(Value::Exact(log2_next(Real::of(a)).times(&Real::of(b)).inexact()), denormal, mode),
    }
}

/// arctan(t), for t from 0 to 1.
fn arctan(t: Real) -> Real {
    if t.exponent < TINY {
        return t.minus(&last_place(&t));
    }
    // From the nearest of 0, 1/2 and 1: arctan(t) = arctan(c) + arctan((t - c) / (1 + t * c)).
    let from = |c: Real, base: Real| {
        let rest = t.minus(&c).divided_by(&Real::ONE.plus(&t.times(&c)));
        base.plus(&arctan_series(rest))
    };
    if t.compare_magnitude(&Real::integer(3).scaled(-2)).is_gt() {
        from(Real::ONE, HALF_PI.scaled(-1))
    } else if t.compare_magnitude(&Real::ONE.scaled(-2)).is_gt() {
        from(Real::ONE.scaled(-1), ATAN_HALF)
    } else {
        arctan_series(t)
    }
}

fn arctan_series(t: Real) -> Real {
    let square = t.times(&t).negated();
    series(t, |n| square.times(&Real::integer(2 * n - 1)).over(2 * n + 1))
}

/// FPATAN: the angle of the point with the coordinates `x` and `y`.
pub(crate) fn angle(x: &Parts, y: &Parts, mode: Mode) -> Answer {
    if let Some(answer) = nan(x, y) {
        return answer;
    }
    let denormal = x.denormal || y.denormal;
    let signed = |value: Real| rounded(Value::Exact(value.with_sign(y.sign).inexact()), denormal, mode);
    let pi = HALF_PI.scaled(1);
    match (x.class, y.class) {
        (Class::Infinity, Class::Infinity) if x.sign => return signed(pi.minus(&HALF_PI.scaled(-1))),
        (Class::Infinity, Class::Infinity) => return signed(HALF_PI.scaled(-1)),
        (Class::Infinity, _) | (_, Class::Zero) => {
            return if x.sign { signed(pi) } else { exact(Value::Zero(y.sign), denormal, mode) };
        }
        (_, Class::Infinity) | (Class::Zero, _) => return signed(HALF_PI),
        _ => {}
    }
    let (across, up) = (Real::of(x).with_sign(false), Real::of(y).with_sign(false));
    let steep = up.compare_magnitude(&across).is_gt();
    let angle =
        if steep { HALF_PI.minus(&arctan(across.divided_by(&up))) } else { arctan(up.divided_by(&across)) };
    signed(if x.sign { pi.minus(&angle) } else { angle })
}

/// What is left of an angle without its quarter turns, from -π/4 to π/4; and how many of them there were, modulo 4.
/// Pi has 66 bits here, as the SDM has it.
fn quarter_turns(a: &Parts) -> (Real, u64) {
    /// π/2 in units of 2^-65.
    const QUARTER: u128 = 0xc90f_daa2_2168_c234 << 2 | 3;
    if a.exponent < -2 {
        return (Real::of(a), 0);
    }
    // At most 2^63: 128 bits.
    let magnitude = u128::from(a.significand) << (a.exponent + 2);
    let (turns, rest) = (magnitude / QUARTER, magnitude % QUARTER);
    let over = rest > QUARTER / 2;
    let rest = Real::wide(if over { QUARTER - rest } else { rest }).scaled(-65);
    let turns = (turns as u64).wrapping_add(over.into());
    (rest.with_sign(a.sign != over), if a.sign { turns.wrapping_neg() } else { turns } & 3)
}

/// sin(r) and cos(r), for r from -π/4 to π/4.
fn sine_and_cosine(r: Real) -> [Real; 2] {
    if r.exponent < TINY {
        return [r.minus(&last_place(&r)), Real::ONE.minus(&last_place(&Real::ONE))];
    }
    let square = r.times(&r).negated();
    [series(r, |n| square.over(2 * n * (2 * n + 1))), series(Real::ONE, |n| square.over((2 * n - 1) * 2 * n))]
}

/// What the trigonometric functions make of one operand.
pub(crate) enum Trigonometric {
    /// Sine, cosine, tangent.
    Values([Answer; 3]),
    /// The operand is 2^63 or more in magnitude.
    OutOfRange,
}

/// FSIN, FCOS, FSINCOS, FPTAN.
pub(crate) fn trigonometric(a: &Parts, mode: Mode) -> Trigonometric {
    if let Some(answer) = nan(a, a) {
        return Trigonometric::Values([answer; 3]);
    }
    match a.class {
        Class::Zero => {
            let zero = exact(identity(a), false, mode);
            let one = exact(super::convert::integer(1), false, mode);
            Trigonometric::Values([zero, one, zero])
        }
        Class::Infinity => Trigonometric::Values([INVALID; 3]),
        _ if a.exponent >= 63 => Trigonometric::OutOfRange,
        _ => {
            let (rest, turns) = quarter_turns(a);
            let [sine, cosine] = sine_and_cosine(rest);
            let values = match turns {
                0 => [sine, cosine],
                1 => [cosine, sine.negated()],
                2 => [sine.negated(), cosine.negated()],
                _ => [cosine.negated(), sine],
            };
            let tangent = if turns == 0 && rest.exponent < TINY {
                rest.plus(&last_place(&rest))
            } else {
                values[0].divided_by(&values[1])
            };
            let [sine, cosine] = values;
            Trigonometric::Values(
                [sine, cosine, tangent].map(|value| rounded(Value::Exact(value.inexact()), a.denormal, mode)),
            )
        }
    }
}
