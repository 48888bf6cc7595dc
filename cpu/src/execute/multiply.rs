//! MUL, IMUL, DIV, IDIV and the sign extensions of the accumulator.

use super::flags::{CF, OF, STATUS, mask, of_result, sign_extend, top};
use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use rootmode_arch::{Gpr, vector};

const RAX: usize = Gpr::Rax as usize;
const RDX: usize = Gpr::Rdx as usize;

impl Exec<'_, '_> {
    /// The double-width accumulator: AX, or rDX:rAX.
    fn wide(&self, size: u8) -> u128 {
        if size == 1 {
            return u128::from(self.cpu.gpr[RAX] & 0xffff);
        }
        u128::from(self.cpu.gpr[RDX] & mask(size)) << (8 * size) | u128::from(self.cpu.gpr[RAX] & mask(size))
    }

    /// Writes low and high halves into AL:AH or rAX:rDX.
    const fn put_halves(&mut self, size: u8, low: u64, high: u64) {
        if size == 1 {
            self.put_register(Gpr::Rax as u8, 2, low & 0xff | (high & 0xff) << 8);
        } else {
            self.put_register(Gpr::Rax as u8, size, low);
            self.put_register(Gpr::Rdx as u8, size, high);
        }
    }

    /// CF and OF say that the upper half is significant; the other flags are those of the lower half.
    fn multiply_flags(&mut self, low: u64, size: u8, significant: bool) {
        let overflow = if significant { CF | OF } else { 0 };
        self.cpu.set_status(STATUS, of_result(low, size) | overflow);
    }
}

fn signed(value: u64, size: u8) -> i128 {
    i128::from(sign_extend(value, size) as i64)
}

/// MUL.
pub(crate) fn mul(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let b = x.get(op, 0, op.size)?;
    let a = x.cpu.gpr[RAX] & mask(op.size);
    let product = u128::from(a) * u128::from(b);
    let (low, high) = (product as u64 & mask(op.size), (product >> (8 * op.size)) as u64 & mask(op.size));
    x.put_halves(op.size, low, high);
    x.multiply_flags(low, op.size, high != 0);
    Ok(Flow::Next)
}

/// IMUL with one operand.
pub(crate) fn imul_wide(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let b = x.get(op, 0, op.size)?;
    let product = signed(x.cpu.gpr[RAX], op.size) * signed(b, op.size);
    let (low, high) = (product as u64 & mask(op.size), (product >> (8 * op.size)) as u64 & mask(op.size));
    x.put_halves(op.size, low, high);
    x.multiply_flags(low, op.size, product != signed(low, op.size));
    Ok(Flow::Next)
}

/// IMUL with two or three operands.
pub(crate) fn imul(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let two = op.operands[2] == crate::decode::Operand::None;
    let a = x.get(op, if two { 0 } else { 1 }, op.size)?;
    let b = x.get(op, if two { 1 } else { 2 }, op.size)?;
    let product = signed(a, op.size) * signed(b, op.size);
    let low = product as u64 & mask(op.size);
    x.put(op, 0, op.size, low)?;
    x.multiply_flags(low, op.size, product != signed(low, op.size));
    Ok(Flow::Next)
}

/// DIV: flags are undefined and stay.
pub(crate) fn div(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let divisor = u128::from(x.get(op, 0, op.size)?);
    let dividend = x.wide(op.size);
    if divisor == 0 || dividend / divisor > u128::from(mask(op.size)) {
        return Err(Fault::exception(vector::DE));
    }
    x.put_halves(op.size, (dividend / divisor) as u64, (dividend % divisor) as u64);
    Ok(Flow::Next)
}

/// IDIV: flags are undefined and stay.
pub(crate) fn idiv(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let divisor = signed(x.get(op, 0, op.size)?, op.size);
    let unused = 128 - 16 * u32::from(op.size);
    let dividend = (x.wide(op.size) << unused) as i128 >> unused;
    // i128::MIN / -1 is the one quotient that does not fit i128 either.
    let quotient = dividend.checked_div(divisor).ok_or(Fault::exception(vector::DE))?;
    let limit = 1_i128 << top(op.size);
    if !(-limit..limit).contains(&quotient) {
        return Err(Fault::exception(vector::DE));
    }
    x.put_halves(op.size, quotient as u64, dividend.wrapping_rem(divisor) as u64);
    Ok(Flow::Next)
}

/// CBW, CWDE, CDQE: `op.size` is the destination's.
pub(crate) fn extend_accumulator(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let value = sign_extend(x.cpu.gpr[RAX], op.size / 2);
    x.put_register(Gpr::Rax as u8, op.size, value);
    Ok(Flow::Next)
}

/// CWD, CDQ, CQO.
pub(crate) fn extend_into_rdx(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let negative = x.cpu.gpr[RAX] >> top(op.size) & 1 != 0;
    x.put_register(Gpr::Rdx as u8, op.size, if negative { u64::MAX } else { 0 });
    Ok(Flow::Next)
}
