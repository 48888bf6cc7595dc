//! Shifts and rotates: SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD.

use super::flags::{CF, OF, STATUS, mask, of_result, sign_extend, top};
use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::Result;
use rootmode_arch::Vendor;

/// The count as the processor uses it: 5 bits, or 6 for 64-bit operands.
fn count(x: &mut Exec<'_, '_>, op: &Decoded, operand: usize) -> Result<u32> {
    let raw = x.get(op, operand, 1)? as u32;
    Ok(raw & if op.size == 8 { 63 } else { 31 })
}

/// Reads, checks for a count of 0 (nothing happens, but a memory operand was still accessed for writing), computes,
/// writes, sets the flags of the given mask.
fn apply(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
    touched: u64,
    compute: impl FnOnce(u64, u32, u64) -> (u64, u64),
) -> Result<Flow> {
    let n = count(x, op, 1)?;
    let a = x.get_for_write(op, op.size)?;
    let old = x.cpu.rflags().0;
    if n == 0 {
        // A 32-bit register destination is still zero-extended.
        x.put(op, 0, op.size, a)?;
        return Ok(Flow::Next);
    }
    let (result, flags) = compute(a, n, old);
    x.put(op, 0, op.size, result & mask(op.size))?;
    x.cpu.set_status(touched, flags);
    Ok(Flow::Next)
}

const fn bit(value: u128, n: u32) -> u64 {
    (value >> n & 1) as u64
}

/// SHL.
pub(crate) fn shl(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (size, sign) = (op.size, top(op.size));
    apply(x, op, STATUS, |a, n, _| {
        let wide = u128::from(a) << n;
        let result = wide as u64 & mask(size);
        let carry = bit(wide, sign + 1);
        (result, of_result(result, size) | carry * CF | (result >> sign & 1 ^ carry) * OF)
    })
}

/// SHR.
pub(crate) fn shr(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (size, sign) = (op.size, top(op.size));
    apply(x, op, STATUS, |a, n, _| {
        let result = (u128::from(a) >> n) as u64;
        let overflow = (result ^ result << 1) >> sign & 1;
        (result, of_result(result, size) | bit(u128::from(a), n - 1) * CF | overflow * OF)
    })
}

/// SAR: OF is 0.
pub(crate) fn sar(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let size = op.size;
    apply(x, op, STATUS, |a, n, _| {
        let wide = i128::from(sign_extend(a, size) as i64);
        let result = (wide >> n) as u64 & mask(size);
        (result, of_result(result, size) | (wide >> (n - 1) & 1) as u64 * CF)
    })
}

/// ROL: only CF and OF change.
pub(crate) fn rol(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (size, sign) = (op.size, top(op.size));
    apply(x, op, CF | OF, |a, n, _| {
        let n = n % (sign + 1);
        let result = if n == 0 { a } else { (a << n | a >> (sign + 1 - n)) & mask(size) };
        (result, (result & 1) * CF | (result >> sign & 1 ^ result & 1) * OF)
    })
}

/// ROR: only CF and OF change.
pub(crate) fn ror(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (size, sign) = (op.size, top(op.size));
    apply(x, op, CF | OF, |a, n, _| {
        let n = n % (sign + 1);
        let result = if n == 0 { a } else { (a >> n | a << (sign + 1 - n)) & mask(size) };
        let msb = result >> sign & 1;
        (result, msb * CF | (msb ^ result >> (sign - 1) & 1) * OF)
    })
}

/// A rotation through CF, by `step` from the operand and CF, one bit at a time; only CF and OF change. `overflow`: OF of the result
/// and CF. On Intel's parts a whole turn changes no flag, on AMD's it may change OF.
fn through_carry(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
    step: impl Fn(u64, u64) -> (u64, u64),
    overflow: impl Fn(u64, u64) -> u64,
) -> Result<Flow> {
    let keeps = x.cpu.model.vendor() == Vendor::Intel;
    apply(x, op, CF | OF, |a, n, old| {
        let n = n % (top(op.size) + 2);
        if keeps && n == 0 {
            return (a, old);
        }
        let (a, carry) = (0..n).fold((a, old & CF), |(a, carry), _| step(a, carry));
        (a, carry * CF | overflow(a, carry) * OF)
    })
}

/// RCL.
pub(crate) fn rcl(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (size, sign) = (op.size, top(op.size));
    through_carry(
        x,
        op,
        |a, carry| ((a << 1 | carry) & mask(size), a >> sign & 1),
        |a, carry| a >> sign & 1 ^ carry,
    )
}

/// RCR.
pub(crate) fn rcr(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let sign = top(op.size);
    through_carry(
        x,
        op,
        |a, carry| (a >> 1 | carry << sign, a & 1),
        |a, _| a >> sign & 1 ^ a >> (sign - 1) & 1,
    )
}

/// SHLD and SHRD: the source fills from the side. A 16-bit operand can be shifted by more than its width, which the manuals
/// leave undefined: the destination fills again behind the source, as on Intel's parts.
fn double(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
    compute: impl FnOnce(u128, u128, u32, u32) -> (u64, u64, u64),
) -> Result<Flow> {
    let n = count(x, op, 2)?;
    let a = x.get_for_write(op, op.size)?;
    let b = x.get(op, 1, op.size)?;
    if n == 0 {
        x.put(op, 0, op.size, a)?;
        return Ok(Flow::Next);
    }
    let (result, carry, overflow) = compute(u128::from(a), u128::from(b), n, top(op.size) + 1);
    let result = result & mask(op.size);
    x.put(op, 0, op.size, result)?;
    x.cpu.set_status(STATUS, of_result(result, op.size) | carry * CF | overflow * OF);
    Ok(Flow::Next)
}

/// SHLD: OF says that the sign changed in the last step.
pub(crate) fn shld(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    double(x, op, |a, b, n, bits| {
        // Three operands side by side need more than 128 bits only where n stays below the width.
        let wide = if bits == 16 { a << 32 | b << 16 | a } else { a << bits | b };
        let above = if bits == 16 { 32 } else { bits };
        let result = (wide >> (above - n)) as u64;
        let carry = bit(wide, above + bits - n);
        (result, carry, carry ^ result >> (bits - 1) & 1)
    })
}

/// SHRD: OF says that the sign changed in the last step.
pub(crate) fn shrd(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    double(x, op, |a, b, n, bits| {
        let wide = if bits == 16 { a << 32 | b << 16 | a } else { b << bits | a };
        let result = (wide >> n) as u64;
        (result, bit(wide, n - 1), (result >> (bits - 1) ^ result >> (bits - 2)) & 1)
    })
}
