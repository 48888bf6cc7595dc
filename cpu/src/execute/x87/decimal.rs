//! FBLD, FBSTP: packed decimal, 18 digits and a sign.

use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::Result;
use crate::float::convert::to_integer;
use crate::float::extended::{Answer, from_integer};
use crate::float::{F80, flag};

/// The packed-decimal indefinite.
const INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];
/// The largest number of 18 digits.
const LARGEST: u64 = 999_999_999_999_999_999;

/// FBLD. Digits above 9 are undefined in the manual; here each counts as its value.
pub(crate) fn load(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_waiting()?;
    let mut bytes = [0; 10];
    x.load_area(op, &mut bytes, 8)?;
    x.remember(op);
    let magnitude = bytes[..9]
        .iter()
        .rev()
        .fold(0_i64, |all, byte| all * 100 + i64::from(byte >> 4) * 10 + i64::from(byte & 15));
    let number = from_integer(magnitude);
    let value = F80 { exponent: number.exponent | u16::from(bytes[9] >> 7) << 15, ..number };
    x.cpu.vectors.x87.load(Answer::new(value, 0));
    Ok(Flow::Next)
}

/// FBSTP.
pub(crate) fn store(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_waiting()?;
    let x87 = &x.cpu.vectors.x87;
    let (empty, number) = (x87.is_empty(0), x87.parts(0));
    let (value, mut flags, up) = to_integer(&number, 64, x87.mode().rounding);
    if empty || value.unsigned_abs() > LARGEST {
        flags = flag::INVALID;
    }
    let invalid = flags & flag::INVALID != 0;
    let unmasked = invalid && x87.control & 1 == 0;
    if !unmasked {
        let mut bytes = INDEFINITE;
        if !invalid {
            let mut rest = value.unsigned_abs();
            for byte in &mut bytes[..9] {
                *byte = (rest % 10 | rest / 10 % 10 << 4) as u8;
                rest /= 100;
            }
            bytes[9] = u8::from(number.sign) << 7;
        }
        x.store_ten(op, &bytes)?;
    } else {
        x.probe_unwritten(op, 10, 8)?;
    }
    x.remember(op);
    let x87 = &mut x.cpu.vectors.x87;
    if empty {
        x87.stack_fault(false);
    } else {
        x87.report(flags, up && !invalid);
    }
    if !unmasked {
        x87.pop();
    }
    Ok(Flow::Next)
}
