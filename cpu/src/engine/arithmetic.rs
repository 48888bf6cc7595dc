//! Quick forms of integer arithmetic and logic.
//!
//! The status flags are left to be computed when somebody asks: a result and its carries say everything. The formulas of the
//! carries are those of [`crate::execute::flags`], over all bits at once.

use super::moves::{ANY, low, widen};
use super::{Op, general, go_on};
use crate::Cpu;
use crate::execute::Exec;
use crate::execute::flags::sign_extend;
use rootmode_arch::Gpr;

pub(super) const ADD: u8 = 0;
pub(super) const OR: u8 = 1;
pub(super) const ADC: u8 = 2;
pub(super) const SBB: u8 = 3;
pub(super) const AND: u8 = 4;
pub(super) const SUB: u8 = 5;
pub(super) const XOR: u8 = 6;
pub(super) const CMP: u8 = 7;
pub(super) const TEST: u8 = 8;

/// The carries out of bits 3, top and top - 1, where [`crate::Cpu`] keeps them.
#[inline(always)]
const fn carries<const N: usize>(all: u64) -> u64 {
    all & 8 | all << (64 - 8 * N as u32) & 3 << 62
}

/// Computes `K` of `N`-byte operands; with `F`, leaves its flags.
#[inline(always)]
pub(super) fn compute<const K: u8, const N: usize, const F: bool>(cpu: &mut Cpu, a: u64, b: u64) -> u64 {
    let carry = if K == ADC || K == SBB { u64::from(cpu.carry()) } else { 0 };
    let result = match K {
        ADD | ADC => a.wrapping_add(b).wrapping_add(carry),
        SUB | SBB | CMP => a.wrapping_sub(b).wrapping_sub(carry),
        AND | TEST => a & b,
        OR => a | b,
        _ => a ^ b,
    };
    if F {
        let all = match K {
            ADD | ADC => a & b | (a | b) & !result,
            SUB | SBB | CMP => !a & b | (!a | b) & result,
            _ => 0,
        };
        cpu.set_pending_status(sign_extend(result, N as u8), carries::<N>(all));
    }
    result
}

/// register, register.
pub(super) fn rr<const K: u8, const N: usize, const F: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let (a, b) = (x.gpr(op.a), x.gpr(op.b));
    let result = compute::<K, N, F>(x.cpu, a, b);
    if K < CMP {
        x.set::<N>(op.a, result);
    }
    go_on(x, behind)
}

/// register, immediate.
pub(super) fn ri<const K: u8, const N: usize, const F: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let a = x.gpr(op.a);
    let result = compute::<K, N, F>(x.cpu, a, op.immediate);
    if K < CMP {
        x.set::<N>(op.a, result);
    }
    go_on(x, behind)
}

/// AH, CH, DH or BH, immediate.
pub(super) fn hi<const K: u8, const F: bool>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let register = x.gpr(op.a);
    let result = compute::<K, 1, F>(x.cpu, register >> 8, op.immediate);
    if K < CMP {
        x.set::<2>(op.a, register & 0xff | (result & 0xff) << 8);
    }
    go_on(x, behind)
}

/// register, memory.
pub(super) fn rm<const K: u8, const N: usize, const A: u8>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let linear = x.quick_address::<A>(op);
    let Some(b) = x.quick_load::<N>(linear) else { return general(x, op, behind) };
    let a = x.gpr(op.a);
    let result = compute::<K, N, true>(x.cpu, a, b);
    if K < CMP {
        x.set::<N>(op.a, result);
    }
    go_on(x, behind)
}

/// memory, register (`I` false) or immediate.
pub(super) fn mr<const K: u8, const N: usize, const A: u8, const I: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let linear = x.quick_address::<A>(op);
    let b = if I { op.immediate } else { x.gpr(op.b) };
    if K >= CMP {
        let Some(a) = x.quick_load::<N>(linear) else { return general(x, op, behind) };
        compute::<K, N, true>(x.cpu, a, b);
        return go_on(x, behind);
    }
    let Some(place) = x.quick_place::<N>(linear) else { return general(x, op, behind) };
    let Some(bytes) = x.ctx.memory.open_at::<N>(place) else { return general(x, op, behind) };
    *bytes = low(compute::<K, N, true>(x.cpu, widen(*bytes), b));
    go_on(x, behind)
}

/// Computes INC (`D` false) or DEC; with `F`, leaves its flags: CF stays.
#[inline(always)]
pub(super) fn step_value<const N: usize, const D: bool, const F: bool>(cpu: &mut Cpu, a: u64) -> u64 {
    let result = if D { a.wrapping_sub(1) } else { a.wrapping_add(1) };
    if F {
        let all = if D { !a & (1 | result) | result & 1 } else { a & 1 | (a | 1) & !result };
        let carries = carries::<N>(all);
        let carry = cpu.carry();
        let overflow = (carries ^ carries << 1) >> 63 != 0;
        cpu.set_pending_status(sign_extend(result, N as u8), carries);
        cpu.set_carry_overflow(carry, overflow);
    }
    result
}

/// INC, DEC register.
pub(super) fn step<const N: usize, const D: bool, const F: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let a = x.gpr(op.a);
    let result = step_value::<N, D, F>(x.cpu, a);
    x.set::<N>(op.a, result);
    go_on(x, behind)
}

/// INC, DEC memory.
pub(super) fn step_memory<const N: usize, const D: bool, const A: u8>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let linear = x.quick_address::<A>(op);
    let Some(place) = x.quick_place::<N>(linear) else { return general(x, op, behind) };
    let Some(bytes) = x.ctx.memory.open_at::<N>(place) else { return general(x, op, behind) };
    *bytes = low(step_value::<N, D, true>(x.cpu, widen(*bytes)));
    go_on(x, behind)
}

/// NEG register.
pub(super) fn neg<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let a = x.gpr(op.a);
    let result = compute::<SUB, N, true>(x.cpu, 0, a);
    x.set::<N>(op.a, result);
    go_on(x, behind)
}

/// NOT register.
pub(super) fn not<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let a = x.gpr(op.a);
    x.set::<N>(op.a, !a);
    go_on(x, behind)
}

pub(super) const SHL: u8 = 0;
pub(super) const SHR: u8 = 1;
pub(super) const SAR: u8 = 2;

/// Shifts register `a` by 1 to the operand's width less 1. AF is left clear.
#[inline(always)]
fn shift_by<const K: u8, const N: usize, const F: bool>(x: &mut Exec<'_, '_>, op: &Op, count: u32) {
    let bits = 8 * N as u32;
    let a = x.gpr(op.a) & u64::MAX >> (64 - bits);
    let (result, carry, overflow) = match K {
        SHL => {
            let result = a << count;
            let carry = a >> (bits - count) & 1;
            (result, carry, result >> (bits - 1) & 1 ^ carry)
        }
        // OF is the sign before the last step, as in the semantic function: beyond a count of 1 the sign is 0.
        SHR => (a >> count, a >> (count - 1) & 1, a >> count >> (bits - 2)),
        _ => {
            let signed = sign_extend(a, N as u8) as i64;
            ((signed >> count) as u64, (signed >> (count - 1)) as u64 & 1, 0)
        }
    };
    if F {
        x.cpu.set_pending_status(sign_extend(result, N as u8), carry << 63 | (carry ^ overflow & 1) << 62);
    }
    x.set::<N>(op.a, result);
}

/// SHL, SHR, SAR register by an immediate of 1 to the operand's width less 1.
pub(super) fn shift<const K: u8, const N: usize, const F: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    shift_by::<K, N, F>(x, op, op.immediate as u32);
    go_on(x, behind)
}

/// SHL, SHR, SAR register by CL.
pub(super) fn shift_cl<const K: u8, const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let count = x.gpr(Gpr::Rcx as u8) as u32 & if N == 8 { 63 } else { 31 };
    if count == 0 {
        // Nothing but the upper half of a 32-bit destination changes.
        let value = x.gpr(op.a);
        x.set::<N>(op.a, value);
    } else if count < 8 * N as u32 {
        shift_by::<K, N, true>(x, op, count);
    } else {
        return general(x, op, behind);
    }
    go_on(x, behind)
}

/// ROL (`R` false), ROR register of `N` bytes by an immediate of 1 to the width less 1.
pub(super) fn rotate<const R: bool, const N: usize, const F: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let bits = 8 * N as u32;
    let mask = u64::MAX >> (64 - bits);
    let a = x.gpr(op.a) & mask;
    let count = op.immediate as u32;
    let left = if R { bits - count } else { count };
    let result = (a << left | a >> (bits - left)) & mask;
    if F {
        let top = result >> (bits - 1) & 1;
        let (carry, other) = if R { (top, result >> (bits - 2) & 1) } else { (result & 1, top) };
        // OF is the exclusive-or of the top two bits (ROR) or of CF and the top bit (ROL).
        x.cpu.set_carry_overflow(carry != 0, carry != other);
    }
    x.set::<N>(op.a, result);
    go_on(x, behind)
}

/// IMUL of `a` and `b` into register `a`. Flags as the semantic function leaves them.
#[inline(always)]
fn multiply<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, a: u64, b: u64) {
    let (a, b) = (sign_extend(a, N as u8) as i64, sign_extend(b, N as u8) as i64);
    let wide = i128::from(a) * i128::from(b);
    let result = sign_extend(wide as u64, N as u8);
    let lost = i128::from(result as i64) != wide;
    x.cpu.set_pending_status(result, u64::from(lost) << 63);
    x.set::<N>(op.a, result);
}

/// IMUL register, register or (`I`) IMUL register, register, immediate.
pub(super) fn imul<const N: usize, const I: bool>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let b = x.gpr(op.b);
    let a = if I { op.immediate } else { x.gpr(op.a) };
    multiply::<N>(x, op, a, b);
    go_on(x, behind)
}

/// IMUL register, memory or (`I`) IMUL register, memory, immediate.
pub(super) fn imul_memory<const N: usize, const I: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let linear = x.quick_address::<ANY>(op);
    let Some(b) = x.quick_load::<N>(linear) else { return general(x, op, behind) };
    let a = if I { op.immediate } else { x.gpr(op.a) };
    multiply::<N>(x, op, a, b);
    go_on(x, behind)
}

pub(super) const BT: u8 = 0;
pub(super) const BTS: u8 = 1;
pub(super) const BTR: u8 = 2;
pub(super) const BTC: u8 = 3;

/// BT, BTS, BTR, BTC register by an immediate (`I`) or a register: CF alone changes.
pub(super) fn bit<const K: u8, const N: usize, const I: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let number = if I { op.immediate } else { x.gpr(op.b) };
    let bit = 1 << (number & (8 * N as u64 - 1));
    let word = x.gpr(op.a);
    x.cpu.set_carry(word & bit != 0);
    match K {
        BTS => x.set::<N>(op.a, word | bit),
        BTR => x.set::<N>(op.a, word & !bit),
        BTC => x.set::<N>(op.a, word ^ bit),
        _ => {}
    }
    go_on(x, behind)
}
