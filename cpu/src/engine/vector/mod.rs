//! Quick forms of SSE and SSE2, and of AVX (`wide`): moves, packed operations without exceptions, and arithmetic, comparisons and conversions of
//! floating-point numbers where the host's arithmetic leaves nothing to report.

mod select;
mod wide;

pub(super) use select::form;

use super::moves::ANY;
use super::{Op, general, go_on, or_general};
use crate::execute::Exec;
use crate::execute::flags::{STATUS, sign_extend};
use crate::execute::simd::float::{lane, operation, order_flags};
use crate::execute::simd::lanes::Lanes;
use crate::float::{Mode, Rounding, fast};

impl Exec<'_, '_> {
    /// Reads 16 bytes; with `ALIGNED` they must be aligned.
    #[inline(always)]
    fn quick_wide<const ALIGNED: bool>(&self, linear: u64) -> Option<u128> {
        if ALIGNED && linear & 15 != 0 {
            return None;
        }
        let place = self.quick_from::<16>(linear)?;
        self.ctx.memory.load_at::<16>(place).map(u128::from_le_bytes)
    }

    /// The source of an operation on XMM registers: register `b`, or (`M`) as many bytes of memory as `BITS` says.
    #[inline(always)]
    fn quick_source<const BITS: u32, const M: bool>(&self, op: &Op) -> Option<u128> {
        if !M {
            return Some(self.cpu.vectors.xmm(op.b));
        }
        let linear = self.quick_address::<ANY>(op);
        match BITS {
            32 => self.quick_load::<4>(linear).map(u128::from),
            64 => self.quick_load::<8>(linear).map(u128::from),
            _ => self.quick_wide::<true>(linear),
        }
    }

    /// Whether PE is set and masked, if XMM registers may be used and results are rounded to nearest.
    #[inline(always)]
    fn quick_mode(&self) -> Option<bool> {
        let mode = Mode::from_mxcsr(self.cpu.vectors.mxcsr);
        (self.require_sse().is_ok() && mode.rounding == Rounding::Nearest).then_some(mode.inexact_known)
    }
}

/// MOVAPS, MOVDQU and relatives between registers.
pub(super) fn whole_rr(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    let value = x.cpu.vectors.xmm(op.b);
    x.cpu.vectors.set_xmm(op.a, value);
    go_on(x, behind)
}

/// The same from memory.
pub(super) fn whole_load<const ALIGNED: bool, const A: u8>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let linear = x.quick_address::<A>(op);
    let value = or_general!(x, op, behind, x.quick_wide::<ALIGNED>(linear));
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    x.cpu.vectors.set_xmm(op.a, value);
    go_on(x, behind)
}

/// The same to memory.
pub(super) fn whole_store<const ALIGNED: bool, const A: u8>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let linear = x.quick_address::<A>(op);
    if x.require_sse().is_err() || ALIGNED && linear & 15 != 0 {
        return general(x, op, behind);
    }
    let value = x.cpu.vectors.xmm(op.b).to_le_bytes();
    match x.quick_place::<16>(linear) {
        Some(place) if x.ctx.memory.store_at(place, value) => go_on(x, behind),
        _ => general(x, op, behind),
    }
}

/// MOVSS, MOVSD between registers: what is above `BITS` stays.
pub(super) fn scalar_rr<const BITS: u32>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    let value = lane(x.cpu.vectors.xmm(op.b), BITS, 0);
    set_low::<BITS>(x, op.a, value);
    go_on(x, behind)
}

/// MOVSS, MOVSD, MOVD, MOVQ from memory: `N` bytes, zero-extended.
pub(super) fn low_load<const N: usize, const A: u8>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let linear = x.quick_address::<A>(op);
    let value = or_general!(x, op, behind, x.quick_load::<N>(linear));
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    x.cpu.vectors.set_xmm(op.a, value.into());
    go_on(x, behind)
}

/// MOVSS, MOVSD, MOVD, MOVQ to memory: the low `N` bytes.
pub(super) fn low_store<const N: usize, const A: u8>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let linear = x.quick_address::<A>(op);
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    let value = lane(x.cpu.vectors.xmm(op.b), 64, 0);
    match x.quick_place::<N>(linear) {
        Some(place) if x.store_place::<N>(place, value) => go_on(x, behind),
        _ => general(x, op, behind),
    }
}

/// MOVQ between registers, zero-extended.
pub(super) fn low_rr(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    let value = lane(x.cpu.vectors.xmm(op.b), 64, 0);
    x.cpu.vectors.set_xmm(op.a, value.into());
    go_on(x, behind)
}

/// MOVD, MOVQ from a general-purpose register of `N` bytes.
pub(super) fn low_from_gpr<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    let value = if N == 4 { x.gpr(op.b) & 0xffff_ffff } else { x.gpr(op.b) };
    x.cpu.vectors.set_xmm(op.a, value.into());
    go_on(x, behind)
}

/// MOVD, MOVQ to a general-purpose register of `N` bytes.
pub(super) fn low_to_gpr<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    let value = lane(x.cpu.vectors.xmm(op.b), 64, 0);
    x.set::<N>(op.a, value);
    go_on(x, behind)
}

/// Destination and source combined by a pure function of both.
pub(super) fn combine<const M: bool>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let source = or_general!(x, op, behind, x.quick_source::<128, M>(op));
    let f = or_general!(x, op, behind, op.combine);
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    let value = f(x.cpu.vectors.xmm(op.a), source);
    x.cpu.vectors.set_xmm(op.a, value);
    go_on(x, behind)
}

/// Writes the low `BITS` bits of an XMM register.
#[inline(always)]
const fn set_low<const BITS: u32>(x: &mut Exec<'_, '_>, register: u8, value: u64) {
    let word = &mut x.cpu.vectors.ymm[register as usize & 15][0];
    *word = if BITS == 64 { value } else { *word & !0xffff_ffff | value & 0xffff_ffff };
}

/// ADDSS, MULSD and relatives: the operation numbered `OP`.
pub(super) fn scalar<const OP: u8, const BITS: u32, const M: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let known = or_general!(x, op, behind, x.quick_mode());
    let source = or_general!(x, op, behind, x.quick_source::<BITS, M>(op));
    let (a, b) = (lane(x.cpu.vectors.xmm(op.a), BITS, 0), lane(source, BITS, 0));
    let combine = if BITS == 32 { fast::single } else { fast::double };
    let value = or_general!(x, op, behind, combine(operation::<OP>(), a, b, known));
    set_low::<BITS>(x, op.a, value);
    go_on(x, behind)
}

/// ADDPS, MULPD and relatives, where inexact results need no report.
pub(super) fn packed<const OP: u8, const BITS: u32, const M: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    if x.quick_mode() != Some(true) {
        return general(x, op, behind);
    }
    let b = or_general!(x, op, behind, x.quick_source::<128, M>(op));
    let a = x.cpu.vectors.xmm(op.a);
    let operation = operation::<OP>();
    let value = if BITS == 32 {
        fast::singles::<4>(operation, Lanes::split(a), Lanes::split(b)).map(Lanes::join)
    } else {
        fast::doubles::<2>(operation, Lanes::split(a), Lanes::split(b)).map(Lanes::join)
    };
    let value = or_general!(x, op, behind, value);
    x.cpu.vectors.set_xmm(op.a, value);
    go_on(x, behind)
}

/// COMISS, UCOMISD and relatives.
pub(super) fn compare<const BITS: u32, const M: bool>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let source = or_general!(x, op, behind, x.quick_source::<BITS, M>(op));
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    let (a, b) = (lane(x.cpu.vectors.xmm(op.a), BITS, 0), lane(source, BITS, 0));
    let order = if BITS == 32 { fast::single_order(a, b) } else { fast::double_order(a, b) };
    let order = or_general!(x, op, behind, order);
    x.cpu.set_status(STATUS, order_flags(Some(order)));
    go_on(x, behind)
}

/// CVTSI2SS, CVTSI2SD from a register or (`M`) memory of `N` bytes.
pub(super) fn from_integer<const N: usize, const BITS: u32, const M: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let known = or_general!(x, op, behind, x.quick_mode());
    let source = if M {
        let linear = x.quick_address::<ANY>(op);
        or_general!(x, op, behind, x.quick_load::<N>(linear))
    } else {
        x.gpr(op.b)
    };
    let integer = sign_extend(source, N as u8) as i64;
    let value =
        if BITS == 32 { fast::single_from(integer, known) } else { fast::double_from(integer, known) };
    let value = or_general!(x, op, behind, value);
    set_low::<BITS>(x, op.a, value);
    go_on(x, behind)
}

/// CVTTSS2SI, CVTTSD2SI into a register of `N` bytes.
pub(super) fn to_integer<const N: usize, const BITS: u32, const M: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let known = or_general!(x, op, behind, x.quick_mode());
    let source = lane(or_general!(x, op, behind, x.quick_source::<BITS, M>(op)), BITS, 0);
    let value = if BITS == 32 { fast::single_cut(source, known) } else { fast::double_cut(source, known) };
    let value = or_general!(x, op, behind, value);
    if N == 4 && i32::try_from(value).is_err() {
        return general(x, op, behind);
    }
    x.set::<N>(op.a, value as u64);
    go_on(x, behind)
}

/// CVTSS2SD.
pub(super) fn widen<const M: bool>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let source = or_general!(x, op, behind, x.quick_source::<32, M>(op));
    if x.require_sse().is_err() {
        return general(x, op, behind);
    }
    let value = or_general!(x, op, behind, fast::widen(lane(source, 32, 0)));
    set_low::<64>(x, op.a, value);
    go_on(x, behind)
}

/// CVTSD2SS.
pub(super) fn narrow<const M: bool>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let known = or_general!(x, op, behind, x.quick_mode());
    let source = or_general!(x, op, behind, x.quick_source::<64, M>(op));
    let value = or_general!(x, op, behind, fast::narrow(lane(source, 64, 0), known));
    set_low::<32>(x, op.a, value);
    go_on(x, behind)
}
