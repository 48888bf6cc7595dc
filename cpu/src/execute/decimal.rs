//! Decimal adjustment of AL and AX: DAA, DAS, AAA, AAS, AAM, AAD; and SALC
//! (SDM Vol. 2 (325383-083, Mar 2024), the pages of these instructions). None of them exists in 64-bit mode.

use super::flags::{AF, CF, STATUS, of_result};
use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use rootmode_arch::{Gpr, vector};

impl Exec<'_, '_> {
    const fn al(&self) -> u64 {
        self.cpu.gpr[Gpr::Rax as usize] & 0xff
    }

    const fn ax(&self) -> u64 {
        self.cpu.gpr[Gpr::Rax as usize] & 0xffff
    }

    /// Writes AX; CF and AF are given, the other flags are those of AL.
    fn put_decimal(&mut self, ax: u64, carries: u64) {
        self.put_register(Gpr::Rax as u8, 2, ax);
        self.cpu.set_status(STATUS, of_result(ax & 0xff, 1) | carries);
    }
}

/// DAA (immediate 0) and DAS (1): the digits of AL are brought back into 0 to 9, with CF as the third digit.
pub(crate) fn adjust_packed(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (al, flags) = (x.al(), x.cpu.rflags().0);
    let subtract = op.immediate != 0;
    let correct =
        |value: u64, by: u64| if subtract { value.wrapping_sub(by) } else { value.wrapping_add(by) };
    let (mut result, mut carries) = (al, 0);
    if al & 0xf > 9 || flags & AF != 0 {
        result = correct(result, 6);
        carries |= AF;
        // Only the subtraction's borrow counts: an addition that carries out of AL started above 0x99.
        if subtract && al < 6 {
            carries |= CF;
        }
    }
    if al > 0x99 || flags & CF != 0 {
        result = correct(result, 0x60);
        carries |= CF;
    }
    x.put_decimal(x.ax() & 0xff00 | result & 0xff, carries);
    Ok(Flow::Next)
}

/// AAA (immediate 0) and AAS (1): one digit in AL, the carry goes into AH.
pub(crate) fn adjust_unpacked(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let ax = x.ax();
    let adjusts = ax & 0xf > 9 || x.cpu.rflags().0 & AF != 0;
    let result = match (adjusts, op.immediate) {
        (false, _) => ax,
        (true, 0) => ax.wrapping_add(0x106),
        (true, _) => ax.wrapping_sub(0x106),
    };
    x.put_decimal(result & 0xff0f, if adjusts { AF | CF } else { 0 });
    Ok(Flow::Next)
}

/// AAM: AL becomes two digits of the base that the immediate gives.
pub(crate) fn aam(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let base = op.immediate & 0xff;
    if base == 0 {
        return Err(Fault::exception(vector::DE));
    }
    let al = x.al();
    x.put_decimal(al / base << 8 | al % base, 0);
    Ok(Flow::Next)
}

/// AAD: two digits of the base that the immediate gives become AL.
pub(crate) fn aad(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let value = x.al() + (x.ax() >> 8) * (op.immediate & 0xff);
    x.put_decimal(value & 0xff, 0);
    Ok(Flow::Next)
}

/// SALC: AL is filled with CF. Undocumented by Intel, present in every part.
pub(crate) fn salc(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let fill = if x.cpu.rflags().0 & CF != 0 { 0xff } else { 0 };
    x.put_register(Gpr::Rax as u8, 1, fill);
    Ok(Flow::Next)
}
