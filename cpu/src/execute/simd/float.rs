//! Arithmetic and comparison of single and double precision, packed and scalar.

use super::Halves;
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

    /// Combines `a` and `b` in the lower `lanes` lanes of `bits` bits of each half by `f` (which is told the lane within its
    /// half); other lanes are `a`'s.
    #[inline]
    fn each(
        &mut self,
        op: &Decoded,
        [a, b]: [Halves; 2],
        bits: u32,
        lanes: u32,
        f: impl Fn(u32, u64, u64, Mode) -> Answer,
    ) -> Result<Halves> {
        let mode = self.simd_mode();
        let (mut result, mut flags) = (a, 0);
        for half in 0..op.halves() {
            for n in 0..lanes {
                let (value, raised) = f(n, lane(a[half], bits, n), lane(b[half], bits, n), mode);
                result[half] = with_lane(result[half], bits, n, value);
                flags |= raised;
            }
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
        self.require_vector(op)?;
        let source = self.source_halves(op)?;
        let result = self.each(op, [self.target_halves(op), source], bits, lanes, f)?;
        self.set_target_halves(op, result);
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

/// VFMADDPS and its relatives: the decoder put the opcode's low byte into the immediate. Its upper half says which operand is
/// added, its lower half what is negated (SDM Vol. 2D "Opcode Map", "Three-byte Opcode Map: 08H-FFH (First Two Bytes are 0F 38H)").
pub(crate) fn fused<const BITS: u32, const LANES: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_avx()?;
    let (first, second, third) =
        (x.register_halves(op.operands[0]), x.target_halves(op), x.source_halves(op)?);
    let (a, b, c) = match op.immediate >> 4 {
        // 132: the first times the third; 213; 231.
        9 => (first, third, second),
        0xa => (second, first, third),
        _ => (second, third, first),
    };
    let kind = op.immediate & 15;
    let negates_product = kind >= 0xc;
    let mode = x.simd_mode();
    let (mut result, mut flags) = (first, 0);
    for half in 0..op.halves() {
        for n in 0..LANES {
            let negates_sum = match kind {
                // VFMADDSUB subtracts in even lanes, VFMSUBADD in odd ones.
                6 => n & 1 == 0,
                7 => n & 1 == 1,
                _ => kind & 2 != 0,
            };
            let operands = [a, b, c].map(|operand| lane(operand[half], BITS, n));
            let (value, raised) =
                scalar::multiply_add(operands, [negates_product, negates_sum], format(BITS), mode);
            result[half] = with_lane(result[half], BITS, n, value);
            flags |= raised;
        }
    }
    x.report(flags)?;
    x.set_target_halves(op, result);
    Ok(Flow::Next)
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
    x.require_vector(op)?;
    let (a, b) = (x.target_halves(op), x.source_halves(op)?);
    let count = 64 / BITS;
    let gather = |a: u128, b: u128, odd: u32| {
        (0..2 * count).fold(0, |all, n| {
            let (from, at) = if n < count { (a, n) } else { (b, n - count) };
            with_lane(all, BITS, n, lane(from, BITS, 2 * at + odd))
        })
    };
    let operands = [0, 1].map(|odd| [0, 1].map(|half| gather(a[half], b[half], odd)));
    let result = x.each(op, operands, BITS, 2 * count, |_, a, b, mode| {
        scalar::binary(operation::<OP>(), a, b, format(BITS), mode)
    })?;
    x.set_target_halves(op, result);
    Ok(Flow::Next)
}

/// When the predicates of CMPPS hold, by bits 3:0 of the immediate: less (1), equal (2), greater (4), unordered (8)
/// (SDM Vol. 2A "CMPPD", "Comparison Predicate for CMPPD and CMPPS Instructions").
const PREDICATES: [u8; 16] = [
    0b0010, 0b0001, 0b0011, 0b1000, 0b1101, 0b1110, 0b1100, 0b0111, 0b1010, 0b1001, 0b1011, 0, 0b0101,
    0b0110, 0b0100, 0b1111,
];

/// CMPPS, CMPSD and relatives: bits 2:0 of the immediate are the predicate; with VEX bits 4:0, of which the highest makes
/// signaling predicates quiet and the others signal.
pub(crate) fn compare<const BITS: u32, const LANES: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let predicate = op.immediate as u8 & if op.vex { 31 } else { 7 };
    let holds = PREDICATES[usize::from(predicate & 15)];
    // EQ, UNORD, NEQ and ORD and what follows from them do not signal for quiet NaNs.
    let quiet = matches!(predicate & 7, 0 | 3 | 4 | 7) != (predicate & 16 != 0);
    x.float(op, BITS, LANES, |_, a, b, mode| {
        let (order, flags) = scalar::compare(a, b, quiet, format(BITS), mode);
        let bit = match order {
            Some(Ordering::Less) => 1,
            Some(Ordering::Equal) => 2,
            Some(Ordering::Greater) => 4,
            None => 8,
        };
        (if holds & bit != 0 { u64::MAX >> (64 - BITS) } else { 0 }, flags)
    })
}

/// COMISS, COMISD; UCOMISS, UCOMISD with `QUIET`.
pub(crate) fn compare_flags<const BITS: u32, const QUIET: bool>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.require_vector(op)?;
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
