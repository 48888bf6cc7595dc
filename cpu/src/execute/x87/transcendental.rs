//! F2XM1, FYL2X, FYL2XP1, FPATAN, FSIN, FCOS, FSINCOS, FPTAN.

use super::{C2, Exec, Flow};
use crate::decode::Decoded;
use crate::fault::Result;
use crate::float::extended::{Answer, from_integer};
use crate::float::transcendental::{self, Trigonometric};
use crate::float::{F80, Mode, Parts};
use crate::vectors::X87;

/// F2XM1.
pub(crate) fn power_less_one(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        if x87.is_empty(0) {
            x87.underflow(0);
        } else {
            let answer = transcendental::power_less_one(&x87.parts(0), x87.mode());
            x87.finish(0, answer);
        }
    })
}

/// FYL2X (0), FYL2XP1 (1), FPATAN (2): ST(1) becomes what the function makes of both, and ST(0) is popped.
pub(crate) fn binary<const FUNCTION: u8>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let function: fn(&Parts, &Parts, Mode) -> Answer = match FUNCTION {
        0 => transcendental::logarithm,
        1 => transcendental::logarithm_next,
        _ => transcendental::angle,
    };
    x.on_stack(op, |x87| {
        let done = if x87.is_empty(0) || x87.is_empty(1) {
            x87.underflow(1)
        } else {
            let answer = function(&x87.parts(0), &x87.parts(1), x87.mode());
            x87.finish(1, answer)
        };
        if done {
            x87.pop();
        }
    })
}

/// Sine, cosine and tangent of ST(0). `None`: it is out of range, and C2 says so.
fn values(x87: &mut X87) -> Option<[Answer; 3]> {
    match transcendental::trigonometric(&x87.parts(0), x87.mode()) {
        Trigonometric::Values(values) => Some(values),
        Trigonometric::OutOfRange => {
            x87.report(0, false);
            x87.status |= C2;
            None
        }
    }
}

/// FSIN (0) and FCOS (1).
pub(crate) fn unary<const FUNCTION: usize>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        x87.status &= !C2;
        if x87.is_empty(0) {
            x87.underflow(0);
        } else if let Some(values) = values(x87) {
            x87.finish(0, values[FUNCTION]);
        }
    })
}

/// FSINCOS, which pushes the cosine behind the sine; FPTAN with `TANGENT`, which pushes 1.
pub(crate) fn pair<const TANGENT: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        x87.status &= !C2;
        if x87.is_empty(0) || !x87.is_empty(7) {
            let overflow = !x87.is_empty(0);
            if x87.stack_fault(overflow) {
                x87.set_st(0, F80::INDEFINITE);
                x87.push(F80::INDEFINITE);
            }
            return;
        }
        let is_number = x87.st(0).exponent & 0x7fff != 0x7fff;
        let Some([sine, cosine, tangent]) = values(x87) else { return };
        let (first, second) = match (TANGENT, is_number) {
            (false, _) => (sine, cosine),
            (true, true) => (tangent, Answer::new(from_integer(1), 0)),
            // A NaN comes twice.
            (true, false) => (tangent, tangent),
        };
        if x87.finish(0, Answer { flags: first.flags | second.flags, ..first }) {
            x87.push(second.value);
        }
    })
}
