//! Arithmetic and comparison of single and double precision, packed and scalar.

use crate::decode::Decoded;
use crate::execute::flags::{CF, PF, STATUS, ZF};
use crate::execute::{Exec, Flow};
use crate::fault::Result;
use crate::float::arithmetic::Operation;
use crate::float::scalar::{self, Answer};
use crate::float::{DOUBLE, Format, Mode, Rounding, SINGLE};
use core::cmp::Ordering;

/// The format with lanes of `bits` bits.
pub(crate) const fn format(bits: u32) -> Format {
    if bits == 32 { SINGLE } else { DOUBLE }
}

/// Lane `n` of `value`.
#[inline]
pub(crate) const fn lane(value: u128, bits: u32, n: u32) -> u64 {
    (value >> (bits * n)) as u64 & u64::MAX >> (64 - bits)
}

/// `value` with lane `n` replaced.
#[inline]
pub(crate) const fn with_lane(value: u128, bits: u32, n: u32, new: u64) -> u128 {
    let mask = (u64::MAX >> (64 - bits)) as u128;
    value & !(mask << (bits * n)) | (new as u128) << (bits * n)
}

impl Exec<'_, '_> {
    /// What MXCSR asks for.
    #[inline]
    pub(crate) const fn simd_mode(&self) -> Mode {
        Mode::from_mxcsr(self.cpu.vectors.mxcsr)
    }

    /// Combines `a` and `b` in the lower `lanes` lanes of `bits` bits by `f` (which is told the lane); other lanes are `a`'s.
    #[inline]
    fn each(
        &mut self,
        [a, b]: [u128; 2],
        bits: u32,
        lanes: u32,
        f: impl Fn(u32, u64, u64, Mode) -> Answer,
    ) -> Result<u128> {
        let mode = self.simd_mode();
        let (mut result, mut flags) = (a, 0);
        for n in 0..lanes {
            let (value, raised) = f(n, lane(a, bits, n), lane(b, bits, n), mode);
            result = with_lane(result, bits, n, value);
            flags |= raised;
        }
        self.report(flags)?;
        Ok(result)
    }

    #[inline]
    fn float(
        &mut self,
        op: &Decoded,
        bits: u32,
        lanes: u32,
        f: impl Fn(u32, u64, u64, Mode) -> Answer,
    ) -> Result<Flow> {
        self.require_sse()?;
        let source = self.source(op)?;
        let result = self.each([self.target(op), source], bits, lanes, f)?;
        self.set_target(op, result);
        Ok(Flow::Next)
    }
}

/// The operation with number `OP`.
pub(crate) const fn operation<const OP: u8>() -> Operation {
    match OP {
        0 => Operation::Add,
        1 => Operation::Subtract,
        2 => Operation::Multiply,
        _ => Operation::Divide,
    }
}

/// Numbers of [`arithmetic`]'s operations.
pub(crate) const ADD: u8 = 0;
pub(crate) const SUB: u8 = 1;
pub(crate) const MUL: u8 = 2;
pub(crate) const DIV: u8 = 3;

/// ADDPS, SUBSD, MULPD, DIVSS and relatives.
pub(crate) fn arithmetic<const OP: u8, const BITS: u32, const LANES: u32>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.float(op, BITS, LANES, |_, a, b, mode| scalar::binary(operation::<OP>(), a, b, format(BITS), mode))
}

/// MINPS, MAXSD and relatives.
pub(crate) fn extreme<const MAXIMUM: bool, const BITS: u32, const LANES: u32>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.float(op, BITS, LANES, |_, a, b, mode| scalar::extreme(MAXIMUM, a, b, format(BITS), mode))
}

/// SQRTPS and relatives.
pub(crate) fn square_root<const BITS: u32, const LANES: u32>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.float(op, BITS, LANES, |_, _, b, mode| scalar::square_root(b, format(BITS), mode))
}

/// ADDSUBPS, ADDSUBPD: even lanes are subtracted, odd ones added.
pub(crate) fn add_sub<const BITS: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.float(op, BITS, 128 / BITS, |n, a, b, mode| {
        let operation = if n & 1 == 0 { Operation::Subtract } else { Operation::Add };
        scalar::binary(operation, a, b, format(BITS), mode)
    })
}

/// HADDPS, HSUBPD and relatives: neighbours of the destination, then of the source.
pub(crate) fn horizontal<const OP: u8, const BITS: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_sse()?;
    let (a, b) = (x.target(op), x.source(op)?);
    let half = 64 / BITS;
    let gather = |odd: u32| {
        (0..2 * half).fold(0, |all, n| {
            let (from, at) = if n < half { (a, n) } else { (b, n - half) };
            with_lane(all, BITS, n, lane(from, BITS, 2 * at + odd))
        })
    };
    let operands = [gather(0), gather(1)];
    let result = x.each(operands, BITS, 2 * half, |_, a, b, mode| {
        scalar::binary(operation::<OP>(), a, b, format(BITS), mode)
    })?;
    x.set_target(op, result);
    Ok(Flow::Next)
}

/// CMPPS, CMPSD and relatives: bits 2:0 of the immediate are the predicate.
pub(crate) fn compare<const BITS: u32, const LANES: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let predicate = op.immediate as u8 & 7;
    // EQ, UNORD, NEQ and ORD do not signal for quiet NaNs.
    let quiet = matches!(predicate, 0 | 3 | 4 | 7);
    x.float(op, BITS, LANES, |_, a, b, mode| {
        let (order, flags) = scalar::compare(a, b, quiet, format(BITS), mode);
        let holds = match predicate & 3 {
            0 => order == Some(Ordering::Equal),
            1 => order == Some(Ordering::Less),
            2 => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            _ => order.is_none(),
        };
        let result = if holds != (predicate & 4 != 0) { u64::MAX >> (64 - BITS) } else { 0 };
        (result, flags)
    })
}

/// COMISS, COMISD; UCOMISS, UCOMISD with `QUIET`.
pub(crate) fn compare_flags<const BITS: u32, const QUIET: bool>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.require_sse()?;
    let (a, b) = (x.target(op), x.source(op)?);
    let (a, b) = (lane(a, BITS, 0), lane(b, BITS, 0));
    let (order, flags) = scalar::compare(a, b, QUIET, format(BITS), x.simd_mode());
    x.report(flags)?;
    x.cpu.set_status(STATUS, order_flags(order));
    Ok(Flow::Next)
}

/// ZF, PF, CF of a comparison.
pub(crate) const fn order_flags(order: Option<Ordering>) -> u64 {
    match order {
        None => ZF | PF | CF,
        Some(Ordering::Less) => CF,
        Some(Ordering::Equal) => ZF,
        Some(Ordering::Greater) => 0,
    }
}

/// ROUNDPS and relatives: the immediate gives the mode, or defers to MXCSR with bit 2; bit 3 keeps PE quiet.
pub(crate) fn round<const BITS: u32, const LANES: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let control = op.immediate as u32;
    x.float(op, BITS, LANES, |_, _, b, mode| {
        let rounding = if control & 4 != 0 { mode.rounding } else { Rounding::from_bits(control) };
        scalar::round_integral(b, rounding, control & 8 != 0, format(BITS), mode)
    })
}
