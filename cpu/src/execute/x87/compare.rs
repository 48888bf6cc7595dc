//! FCOM, FUCOM, FICOM, FCOMI, FUCOMI, FTST, FXAM.

use super::{C0, C1, C2, C3, Exec, Flow, stack};
use crate::decode::Decoded;
use crate::execute::flags::STATUS;
use crate::execute::simd::float::order_flags;
use crate::fault::Result;
use crate::float::scalar::order;
use crate::float::{Class, Parts, flag};
use crate::vectors::X87;
use core::cmp::Ordering;

/// How `a` and `b` compare, and the exceptions. `quiet_nans` do not signal.
fn relate(a: &Parts, b: &Parts, quiet_nans: bool) -> (Option<Ordering>, u32) {
    let unsupported = a.class == Class::Unsupported || b.class == Class::Unsupported;
    if unsupported || a.is_nan() || b.is_nan() {
        let signals = unsupported || !quiet_nans || a.is_signaling() || b.is_signaling();
        return (None, if signals { flag::INVALID } else { 0 });
    }
    (Some(order(a, b)), if a.denormal || b.denormal { flag::DENORMAL } else { 0 })
}

/// Compares ST(0) with `b` (`None`: an empty register); the order, and whether to go on: an unmasked exception is no
/// reason not to report the order, but nothing is popped.
fn compared(x87: &mut X87, b: Option<Parts>, quiet_nans: bool) -> (Option<Ordering>, bool) {
    match b {
        Some(b) if !x87.is_empty(0) => {
            let (order, flags) = relate(&x87.parts(0), &b, quiet_nans);
            (order, x87.report(flags, false))
        }
        _ => (None, x87.stack_fault(false)),
    }
}

/// Compares into C3, C2 and C0, then pops.
fn into_codes(x87: &mut X87, b: Option<Parts>, quiet_nans: bool, pops: u8) {
    let (order, goes_on) = compared(x87, b, quiet_nans);
    let codes = match order {
        None => C3 | C2 | C0,
        Some(Ordering::Less) => C0,
        Some(Ordering::Equal) => C3,
        Some(Ordering::Greater) => 0,
    };
    x87.status = x87.status & !(C3 | C2 | C0) | codes;
    if goes_on {
        for _ in 0..pops {
            x87.pop();
        }
    }
}

/// FCOM, FCOMP, FICOM, FICOMP with memory.
pub(crate) fn with_memory<const KIND: u8, const POPS: u8>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.require_waiting()?;
    let number = x.number::<KIND>(op)?;
    x.remember(op);
    into_codes(&mut x.cpu.vectors.x87, Some(number), false, POPS);
    Ok(Flow::Next)
}

/// FCOM, FCOMP, FCOMPP; FUCOM, FUCOMP, FUCOMPP with `QUIET`.
pub(crate) fn with_register<const QUIET: bool, const POPS: u8>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.on_stack(op, |x87| {
        // FCOMPP and FUCOMPP name no register.
        let i = if POPS == 2 { 1 } else { stack(op.operands[1]) };
        let b = (!x87.is_empty(i)).then(|| x87.parts(i));
        into_codes(x87, b, QUIET, POPS);
    })
}

/// FCOMI, FCOMIP; FUCOMI, FUCOMIP with `QUIET`: into ZF, PF and CF. C1 stays, although the SDM clears it.
pub(crate) fn into_flags<const QUIET: bool, const POP: bool>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    let mut order = None;
    x.on_stack(op, |x87| {
        let c1 = x87.status & C1;
        let i = stack(op.operands[1]);
        let b = (!x87.is_empty(i)).then(|| x87.parts(i));
        let (found, goes_on) = compared(x87, b, QUIET);
        order = found;
        if b.is_some() && !x87.is_empty(0) {
            x87.status |= c1;
        }
        if POP && goes_on {
            x87.pop();
        }
    })?;
    x.cpu.set_status(STATUS, order_flags(order));
    Ok(Flow::Next)
}

/// FTST: with +0.
pub(crate) fn test(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| into_codes(x87, Some(Parts::zero(false)), false, 0))
}

/// FXAM: the class in C3, C2, C0; the sign in C1, of empty registers, too.
pub(crate) fn examine(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        let parts = x87.parts(0);
        let class = match parts.class {
            _ if x87.is_empty(0) => C3 | C0,
            Class::Unsupported => 0,
            Class::Quiet | Class::Signaling => C0,
            Class::Infinity => C2 | C0,
            Class::Zero => C3,
            Class::Finite if parts.denormal => C3 | C2,
            Class::Finite => C2,
        };
        let sign = if parts.sign { C1 } else { 0 };
        x87.status = x87.status & !(C3 | C2 | C1 | C0) | class | sign;
    })
}
