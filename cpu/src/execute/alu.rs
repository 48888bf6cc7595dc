//! Integer arithmetic and logic: ADD to CMP, TEST, INC, DEC, NEG, NOT, XADD, CMPXCHG.

use super::flags::{self, AF, CF, STATUS, ZF};
use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use rootmode_arch::Gpr;
use rootmode_mmu::AccessKind;

/// Reads both operands, computes, writes the first, sets all status flags.
macro_rules! binary {
    ($(#[$meta:meta])* $name:ident, |$a:ident, $b:ident, $carry:ident, $size:ident| $body:expr) => {
        $(#[$meta])*
        pub(crate) fn $name(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
            let $size = op.size;
            let $b = x.get(op, 1, $size)?;
            let $a = x.get_for_write(op, $size)?;
            let $carry = x.cpu.rflags().0 & CF;
            let (result, flags): (u64, u64) = $body;
            let _ = $carry;
            x.put(op, 0, $size, result)?;
            x.cpu.set_status(STATUS, flags);
            Ok(Flow::Next)
        }
    };
}

binary!(add, |a, b, carry, size| flags::add(a, b, 0, size));
binary!(adc, |a, b, carry, size| flags::add(a, b, carry, size));
binary!(sub, |a, b, carry, size| flags::sub(a, b, 0, size));
binary!(sbb, |a, b, carry, size| flags::sub(a, b, carry, size));
binary!(and, |a, b, carry, size| (a & b, flags::of_result(a & b, size)));
binary!(or, |a, b, carry, size| (a | b, flags::of_result(a | b, size)));
binary!(xor, |a, b, carry, size| (a ^ b, flags::of_result(a ^ b, size)));

/// CMP: SUB without the result.
pub(crate) fn cmp(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let a = x.get(op, 0, op.size)?;
    let b = x.get(op, 1, op.size)?;
    let (_, flags) = flags::sub(a, b, 0, op.size);
    x.cpu.set_status(STATUS, flags);
    Ok(Flow::Next)
}

/// TEST: AND without the result.
pub(crate) fn test(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let a = x.get(op, 0, op.size)?;
    let b = x.get(op, 1, op.size)?;
    x.cpu.set_status(STATUS, flags::of_result(a & b, op.size));
    Ok(Flow::Next)
}

/// INC: CF stays.
pub(crate) fn inc(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let a = x.get_for_write(op, op.size)?;
    let (result, flags) = flags::add(a, 1, 0, op.size);
    x.put(op, 0, op.size, result)?;
    x.cpu.set_status(STATUS & !CF, flags);
    Ok(Flow::Next)
}

/// DEC: CF stays.
pub(crate) fn dec(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let a = x.get_for_write(op, op.size)?;
    let (result, flags) = flags::sub(a, 1, 0, op.size);
    x.put(op, 0, op.size, result)?;
    x.cpu.set_status(STATUS & !CF, flags);
    Ok(Flow::Next)
}

/// NEG.
pub(crate) fn neg(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let a = x.get_for_write(op, op.size)?;
    let (result, flags) = flags::sub(0, a, 0, op.size);
    x.put(op, 0, op.size, result)?;
    x.cpu.set_status(STATUS, flags);
    Ok(Flow::Next)
}

/// NOT: no flags.
pub(crate) fn not(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let a = x.get_for_write(op, op.size)?;
    x.put(op, 0, op.size, !a & flags::mask(op.size))?;
    Ok(Flow::Next)
}

/// XADD: the source register gets the old destination.
pub(crate) fn xadd(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let a = x.get_for_write(op, op.size)?;
    let b = x.get(op, 1, op.size)?;
    let (sum, flags) = flags::add(a, b, 0, op.size);
    // A memory destination faults before the register changes; with two equal registers the sum wins.
    if op.is_memory() {
        x.put(op, 0, op.size, sum)?;
        x.put(op, 1, op.size, a)?;
    } else {
        x.put(op, 1, op.size, a)?;
        x.put(op, 0, op.size, sum)?;
    }
    x.cpu.set_status(STATUS, flags);
    Ok(Flow::Next)
}

/// CMPXCHG: the destination is written in either case, as on hardware.
pub(crate) fn cmpxchg(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let destination = x.get_for_write(op, op.size)?;
    let source = x.get(op, 1, op.size)?;
    let accumulator = x.cpu.gpr[Gpr::Rax as usize] & flags::mask(op.size);
    let (_, flags) = flags::sub(accumulator, destination, 0, op.size);
    if accumulator == destination {
        x.put(op, 0, op.size, source)?;
    } else {
        if op.is_memory() {
            x.put(op, 0, op.size, destination)?;
        }
        x.put_register(Gpr::Rax as u8, op.size, destination);
    }
    x.cpu.set_status(STATUS, flags);
    Ok(Flow::Next)
}

/// CMPXCHG8B and CMPXCHG16B: only ZF changes.
pub(crate) fn cmpxchg_pair(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let half = op.size;
    let linear = x.linear(op, u64::from(half) * 2, AccessKind::Write)?;
    if half == 8 && !linear.is_aligned(16) {
        return Err(Fault::GP0);
    }
    let access = x.data(AccessKind::Write);
    if x.cpu.checks_data {
        x.check_data(linear, 2 * half, access)?;
    }
    let above = linear.offset(u64::from(half));
    let low = x.read(linear, half, access)?;
    let high = x.read(above, half, access)?;
    x.offer_bus_lock(op, linear, 2 * half)?;
    let register = |x: &Exec<'_, '_>, gpr: Gpr| x.cpu.gpr[gpr as usize] & flags::mask(half);
    let equal = low == register(x, Gpr::Rax) && high == register(x, Gpr::Rdx);
    let (new_low, new_high) =
        if equal { (register(x, Gpr::Rbx), register(x, Gpr::Rcx)) } else { (low, high) };
    x.write(linear, half, new_low, access)?;
    x.write(above, half, new_high, access)?;
    if !equal {
        x.put_register(Gpr::Rax as u8, half, low);
        x.put_register(Gpr::Rdx as u8, half, high);
    }
    x.cpu.set_status(ZF, if equal { ZF } else { 0 });
    Ok(Flow::Next)
}

/// CLC, STC, CMC.
pub(crate) fn carry(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let flags = match op.immediate {
        0 => 0,
        1 => CF,
        _ => !x.cpu.rflags().0,
    };
    x.cpu.set_status(CF, flags);
    Ok(Flow::Next)
}

/// LAHF.
pub(crate) fn lahf(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let flags = x.cpu.rflags().0 & 0xd5 | 2;
    let rax = &mut x.cpu.gpr[Gpr::Rax as usize];
    *rax = *rax & !0xff00 | flags << 8;
    Ok(Flow::Next)
}

/// SAHF.
pub(crate) fn sahf(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let ah = x.cpu.gpr[Gpr::Rax as usize] >> 8;
    x.cpu.set_status(CF | flags::PF | AF | ZF | flags::SF, ah);
    Ok(Flow::Next)
}
