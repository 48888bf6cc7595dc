//! FADD, FSUB, FMUL, FDIV in all forms; FSQRT, FRNDINT, FABS, FCHS, FSCALE, FPREM, FPREM1, FXTRACT.

use super::{C0, C1, C2, C3, Exec, Flow, precision, stack};
use crate::decode::Decoded;
use crate::fault::Result;
use crate::float::arithmetic::Operation;
use crate::float::extended::{self, Answer};
use crate::float::remainder::{self, Quotient};
use crate::float::{F80, Mode, Parts};
use crate::vectors::X87;

/// Which operation; the reversed ones take their operands the other way round.
const fn operation<const OP: u8>() -> (Operation, bool) {
    match OP {
        0 => (Operation::Add, false),
        1 => (Operation::Multiply, false),
        4 => (Operation::Subtract, false),
        5 => (Operation::Subtract, true),
        6 => (Operation::Divide, false),
        _ => (Operation::Divide, true),
    }
}

/// Numbers of operations, as encoded in the ModR/M byte.
pub(crate) const ADD: u8 = 0;
pub(crate) const MUL: u8 = 1;
pub(crate) const SUB: u8 = 4;
pub(crate) const SUBR: u8 = 5;
pub(crate) const DIV: u8 = 6;
pub(crate) const DIVR: u8 = 7;

/// ST(to) becomes ST(to) combined with `source`.
#[inline]
fn combine<const OP: u8>(x87: &X87, to: u8, source: &Parts) -> Answer {
    let (operation, reversed) = operation::<OP>();
    let target = x87.parts(to);
    let (a, b) = if reversed { (source, &target) } else { (&target, source) };
    extended::binary(operation, a, b, precision(x87.control), x87.mode())
}

/// With a memory operand.
pub(crate) fn with_memory<const OP: u8, const KIND: u8>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_waiting()?;
    let source = x.number::<KIND>(op)?;
    x.remember(op);
    let x87 = &mut x.cpu.vectors.x87;
    if x87.is_empty(0) {
        x87.underflow(0);
    } else {
        let answer = combine::<OP>(x87, 0, &source);
        x87.finish(0, answer);
    }
    Ok(Flow::Next)
}

/// With two stack registers; the first is the destination.
pub(crate) fn with_register<const OP: u8, const POP: bool>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.on_stack(op, |x87| {
        let (to, from) = (stack(op.operands[0]), stack(op.operands[1]));
        let done = if x87.is_empty(to) || x87.is_empty(from) {
            x87.underflow(to)
        } else {
            let answer = combine::<OP>(x87, to, &x87.parts(from));
            x87.finish(to, answer)
        };
        if POP && done {
            x87.pop();
        }
    })
}

/// ST(0) becomes what `f` makes of it.
fn unary(x: &mut Exec<'_, '_>, op: &Decoded, f: impl Fn(&Parts, F80, &X87, Mode) -> Answer) -> Result<Flow> {
    x.on_stack(op, |x87| {
        if x87.is_empty(0) {
            x87.underflow(0);
        } else {
            let answer = f(&x87.parts(0), x87.st(0), x87, x87.mode());
            x87.finish(0, answer);
        }
    })
}

/// FSQRT.
pub(crate) fn square_root(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    unary(x, op, |a, _, x87, mode| extended::square_root(a, precision(x87.control), mode))
}

/// FRNDINT.
pub(crate) fn round(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    unary(x, op, |a, _, _, mode| extended::round_integral(a, mode))
}

/// FABS: of any encoding.
pub(crate) fn absolute(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    unary(x, op, |_, raw, _, _| Answer::new(F80 { exponent: raw.exponent & 0x7fff, ..raw }, 0))
}

/// FCHS: of any encoding.
pub(crate) fn negate(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    unary(x, op, |_, raw, _, _| Answer::new(F80 { exponent: raw.exponent ^ 0x8000, ..raw }, 0))
}

/// FSCALE.
pub(crate) fn scale(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        if x87.is_empty(0) || x87.is_empty(1) {
            x87.underflow(0);
        } else {
            let answer = remainder::scale(&x87.parts(0), &x87.parts(1), x87.mode());
            x87.finish(0, answer);
        }
    })
}

/// FPREM; FPREM1 with `NEAREST`. C2: the reduction is partial; else C0, C3, C1 are the quotient's bits 2, 1, 0.
pub(crate) fn partial_remainder<const NEAREST: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        x87.status &= !C2;
        if x87.is_empty(0) || x87.is_empty(1) {
            x87.underflow(0);
            return;
        }
        let (answer, quotient) = remainder::remainder(&x87.parts(0), &x87.parts(1), NEAREST, x87.mode());
        if x87.finish(0, answer) {
            let bits = match quotient {
                Quotient::None => x87.status & (C0 | C3),
                Quotient::Partial => C2,
                Quotient::Bits(q) => [(4, C0), (2, C3), (1, C1)]
                    .iter()
                    .filter(|(bit, _)| q & bit != 0)
                    .fold(0, |all, (_, code)| all | code),
            };
            x87.status = x87.status & !(C0 | C1 | C2 | C3) | bits;
        }
    })
}

/// FXTRACT: ST(0) becomes the exponent; the significand is pushed.
pub(crate) fn extract(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        if x87.is_empty(0) || !x87.is_empty(7) {
            let overflow = !x87.is_empty(0);
            if x87.stack_fault(overflow) {
                x87.set_st(0, F80::INDEFINITE);
                x87.push(F80::INDEFINITE);
            }
            return;
        }
        let (exponent, significand) = remainder::extract(&x87.parts(0), x87.mode());
        if x87.finish(0, Answer { value: exponent, ..significand }) {
            x87.push(significand.value);
        }
    })
}
