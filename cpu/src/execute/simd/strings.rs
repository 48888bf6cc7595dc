//! PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM Vol. 1 "String and Text Processing Instructions", "SSE4.2"; Vol. 2B, the
//! section on immediate byte control).

use super::lanes::Lanes;
use crate::decode::Decoded;
use crate::execute::flags::{CF, OF, SF, STATUS, ZF};
use crate::execute::{Exec, Flow};
use crate::fault::Result;
use rootmode_arch::Gpr;

/// A string of up to 16 elements.
struct Text {
    elements: [i32; 16],
    valid: usize,
}

impl Text {
    /// Splits `bits` by the immediate's element type.
    fn new(bits: u128, control: u8, length: Option<usize>) -> Self {
        let mut elements = [0; 16];
        let count = count(control);
        for (n, element) in elements.iter_mut().enumerate().take(count) {
            *element = match control & 3 {
                0 => i32::from((bits >> (8 * n)) as u8),
                1 => i32::from((bits >> (16 * n)) as u16),
                2 => i32::from((bits >> (8 * n)) as i8),
                _ => i32::from((bits >> (16 * n)) as i16),
            };
        }
        // An implicit length ends before the first zero.
        let valid = length.unwrap_or_else(|| elements[..count].iter().position(|e| *e == 0).unwrap_or(count));
        Self { elements, valid }
    }
}

/// Elements of a register.
const fn count(control: u8) -> usize {
    if control & 1 == 0 { 16 } else { 8 }
}

/// Bit `j` tells about element `j` of `b`, before polarity.
fn aggregate(a: &Text, b: &Text, control: u8) -> u32 {
    let count = count(control);
    let equal = |i: usize, j: usize| a.elements[i] == b.elements[j];
    let holds = |j: usize| match control >> 2 & 3 {
        // Equal any: a set of characters.
        0 => j < b.valid && (0..a.valid).any(|i| equal(i, j)),
        // Ranges: pairs of bounds.
        1 => {
            j < b.valid
                && (0..a.valid / 2)
                    .any(|i| (a.elements[2 * i]..=a.elements[2 * i + 1]).contains(&b.elements[j]))
        }
        // Equal each: ends of strings compare equal to each other.
        2 => match (j < a.valid, j < b.valid) {
            (true, true) => equal(j, j),
            (false, false) => true,
            _ => false,
        },
        // Equal ordered: a substring that starts at j.
        _ => (0..count - j).all(|i| i >= a.valid || i + j < b.valid && equal(i, i + j)),
    };
    (0..count).filter(|j| holds(*j)).fold(0, |bits, j| bits | 1 << j)
}

/// An explicit length: its magnitude, saturated.
fn length(x: &Exec<'_, '_>, register: Gpr, wide: bool, count: usize) -> usize {
    let value = x.cpu.gpr[register as usize];
    let value = if wide { value as i64 } else { i64::from(value as i32) };
    value.unsigned_abs().min(count as u64) as usize
}

/// The four instructions: lengths in RAX and RDX (of `op.size` bytes) with `EXPLICIT`; an index to ECX with `INDEX`, else a mask to XMM0.
pub(crate) fn compare<const EXPLICIT: bool, const INDEX: bool>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.require_vector(op)?;
    let (first, second) = (x.target(op), x.operand(op, 1, 16, false)?);
    let control = op.immediate as u8;
    let count = count(control);
    let wide = op.size == 8;
    let (a, b) = if EXPLICIT {
        let (la, lb) = (length(x, Gpr::Rax, wide, count), length(x, Gpr::Rdx, wide, count));
        (Text::new(first, control, Some(la)), Text::new(second, control, Some(lb)))
    } else {
        (Text::new(first, control, None), Text::new(second, control, None))
    };
    let all = u32::MAX >> (32 - count);
    let plain = aggregate(&a, &b, control);
    let result = match control >> 4 & 3 {
        1 => !plain & all,
        // Masked negative: only where the second string is valid.
        3 => plain ^ ((1_u32 << b.valid) - 1),
        _ => plain,
    };
    if INDEX {
        let at = if result == 0 {
            count as u32
        } else if control & 0x40 != 0 {
            31 - result.leading_zeros()
        } else {
            result.trailing_zeros()
        };
        x.put_register(Gpr::Rcx as u8, 4, u64::from(at));
    } else {
        let mask = if control & 0x40 == 0 {
            u128::from(result)
        } else if count == 16 {
            core::array::from_fn::<u8, 16, _>(|n| if result >> n & 1 != 0 { !0 } else { 0 }).join()
        } else {
            core::array::from_fn::<u16, 8, _>(|n| if result >> n & 1 != 0 { !0 } else { 0 }).join()
        };
        let upper = if op.vex { 0 } else { x.cpu.vectors.halves(0)[1] };
        x.cpu.vectors.set_halves(0, [mask, upper]);
    }
    let flag = |condition: bool, flag: u64| if condition { flag } else { 0 };
    let flags = flag(result != 0, CF)
        | flag(b.valid < count, ZF)
        | flag(a.valid < count, SF)
        | flag(result & 1 != 0, OF);
    x.cpu.set_status(STATUS, flags);
    Ok(Flow::Next)
}
