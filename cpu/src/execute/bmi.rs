//! BMI1, BMI2, LZCNT, ADX and CRC32 on general registers
//! (SDM Vol. 2 (325383-083, Mar 2024), the pages of these instructions).

use super::flags::{CF, OF, STATUS, ZF, mask, of_result, sign_extend, top};
use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use rootmode_arch::Gpr;

/// # Errors
/// #UD in real and virtual-8086 mode, where VEX prefixes do not exist.
const fn require_vex(x: &Exec<'_, '_>) -> Result {
    if x.cpu.is_protected() { Ok(()) } else { Err(Fault::UD) }
}

/// Writes the destination, then PF, ZF, SF of the result and CF as given; OF and AF are 0.
fn finish(x: &mut Exec<'_, '_>, op: &Decoded, result: u64, carry: bool) -> Result<Flow> {
    let result = result & mask(op.size);
    x.put(op, 0, op.size, result)?;
    x.cpu.set_status(STATUS, of_result(result, op.size) | if carry { CF } else { 0 });
    Ok(Flow::Next)
}

/// TZCNT: CF says that the source is 0, ZF that the result is.
pub(crate) fn tzcnt(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let source = x.get(op, 1, op.size)?;
    count(x, op, source, source.trailing_zeros())
}

/// LZCNT: as TZCNT from the top.
pub(crate) fn lzcnt(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let source = x.get(op, 1, op.size)?;
    count(x, op, source, source.leading_zeros() - (63 - top(op.size)))
}

fn count(x: &mut Exec<'_, '_>, op: &Decoded, source: u64, zeros: u32) -> Result<Flow> {
    let result = zeros.min(top(op.size) + 1);
    x.put(op, 0, op.size, u64::from(result))?;
    let (carry, zero) = (if source == 0 { CF } else { 0 }, if result == 0 { ZF } else { 0 });
    x.cpu.set_status(CF | ZF, carry | zero);
    Ok(Flow::Next)
}

/// ANDN.
pub(crate) fn andn(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    require_vex(x)?;
    let (a, b) = (x.get(op, 1, op.size)?, x.get(op, 2, op.size)?);
    finish(x, op, !a & b, false)
}

/// BEXTR: start in bits 7:0 and length in bits 15:8 of the third operand.
pub(crate) fn bextr(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    require_vex(x)?;
    let (source, control) = (x.get(op, 1, op.size)?, x.get(op, 2, op.size)?);
    let (start, length) = (control as u32 & 0xff, control as u32 >> 8 & 0xff);
    let shifted = source.checked_shr(start).unwrap_or(0);
    finish(x, op, shifted & low_bits(length), false)
}

/// The low `n` bits set; all 64 for more.
fn low_bits(n: u32) -> u64 {
    1_u64.checked_shl(n).map_or(u64::MAX, |bit| bit - 1)
}

/// BLSI: CF says that the source is not 0.
pub(crate) fn blsi(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    require_vex(x)?;
    let source = x.get(op, 1, op.size)?;
    finish(x, op, source & source.wrapping_neg(), source != 0)
}

/// BLSMSK: CF says that the source is 0.
pub(crate) fn blsmsk(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    require_vex(x)?;
    let source = x.get(op, 1, op.size)?;
    finish(x, op, source ^ source.wrapping_sub(1), source == 0)
}

/// BLSR: CF says that the source is 0.
pub(crate) fn blsr(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    require_vex(x)?;
    let source = x.get(op, 1, op.size)?;
    finish(x, op, source & source.wrapping_sub(1), source == 0)
}

/// BZHI: CF says that the index lies beyond the operand.
pub(crate) fn bzhi(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    require_vex(x)?;
    let (source, index) = (x.get(op, 1, op.size)?, x.get(op, 2, op.size)? as u32 & 0xff);
    finish(x, op, source & low_bits(index), index > top(op.size))
}

/// MULX: high half into the first operand, low half into the second; the high half wins where they are the same register.
pub(crate) fn mulx(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    require_vex(x)?;
    let a = x.cpu.gpr[Gpr::Rdx as usize] & mask(op.size);
    let product = u128::from(a) * u128::from(x.get(op, 2, op.size)?);
    x.put(op, 1, op.size, product as u64 & mask(op.size))?;
    x.put(op, 0, op.size, (product >> (8 * op.size)) as u64)?;
    Ok(Flow::Next)
}

/// PDEP: the low bits of the second operand go to where the third has ones.
pub(crate) fn pdep(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    require_vex(x)?;
    let (source, places) = (x.get(op, 1, op.size)?, x.get(op, 2, op.size)?);
    let (mut result, mut rest) = (0, places);
    for n in 0..places.count_ones() {
        let place = rest & rest.wrapping_neg();
        result |= place * (source >> n & 1);
        rest ^= place;
    }
    x.put(op, 0, op.size, result)?;
    Ok(Flow::Next)
}

/// PEXT: the bits of the second operand where the third has ones, gathered at the low end.
pub(crate) fn pext(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    require_vex(x)?;
    let (source, places) = (x.get(op, 1, op.size)?, x.get(op, 2, op.size)?);
    let (mut result, mut rest) = (0, places);
    for n in 0..places.count_ones() {
        let place = rest & rest.wrapping_neg();
        result |= u64::from(source & place != 0) << n;
        rest ^= place;
    }
    x.put(op, 0, op.size, result)?;
    Ok(Flow::Next)
}

/// Shifts and rotates without flags; the count wraps at the operand's width.
fn shift(x: &mut Exec<'_, '_>, op: &Decoded, compute: fn(u64, u32, u8) -> u64) -> Result<Flow> {
    require_vex(x)?;
    let source = x.get(op, 1, op.size)?;
    let n = x.get(op, 2, op.size)? as u32 & top(op.size);
    x.put(op, 0, op.size, compute(source, n, op.size) & mask(op.size))?;
    Ok(Flow::Next)
}

/// RORX.
pub(crate) fn rorx(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    shift(x, op, |a, n, size| if size == 8 { a.rotate_right(n) } else { (a << 32 | a) >> n })
}
/// SARX.
pub(crate) fn sarx(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    shift(x, op, |a, n, size| (sign_extend(a, size) as i64 >> n) as u64)
}
/// SHLX.
pub(crate) fn shlx(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    shift(x, op, |a, n, _| a << n)
}
/// SHRX.
pub(crate) fn shrx(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    shift(x, op, |a, n, _| a >> n)
}

/// ADCX (immediate 0) adds with CF, ADOX (1) with OF; no other flag changes.
pub(crate) fn add_with(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let flag = if op.immediate == 0 { CF } else { OF };
    let (a, b) = (x.get(op, 0, op.size)?, x.get(op, 1, op.size)?);
    let carry = u128::from(x.cpu.rflags().0 & flag != 0);
    let sum = u128::from(a) + u128::from(b) + carry;
    x.put(op, 0, op.size, sum as u64 & mask(op.size))?;
    x.cpu.set_status(flag, if sum >> (8 * op.size) != 0 { flag } else { 0 });
    Ok(Flow::Next)
}

/// CRC32 (Castagnoli) of the source, going on from the destination; a 64-bit destination is zero-extended.
pub(crate) fn crc32(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    /// The polynomial 0x11EDC6F41, bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let source = x.get(op, 1, op.source_size)?;
    let mut crc = x.get(op, 0, 4)? as u32;
    for byte in source.to_le_bytes().into_iter().take(usize::from(op.source_size)) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
        }
    }
    x.put(op, 0, 8, u64::from(crc))?;
    Ok(Flow::Next)
}
