//! From mnemonic to semantic function: the x87. Memory operands choose a handler by their kind.

use super::table::{Row, row};
use crate::execute::x87::arithmetic::{self, ADD, DIV, DIVR, MUL, SUB, SUBR};
use crate::execute::x87::load::{F32, F64, I16, I32, I64};
use crate::execute::x87::{compare, control, decimal, environment, load, transcendental};
use iced_x86::{Instruction, MemorySize, Mnemonic as M, OpKind};

/// The row of `instruction`, if it is one of these.
pub(super) fn handler(i: &Instruction) -> Option<Row> {
    arithmetic(i).or_else(|| moved(i)).or_else(|| other(i))
}

/// The opcode that exception handlers see: the low bits of D8 to DF, and the ModR/M byte. `None`: not an x87 instruction.
pub(super) fn opcode(bytes: &[u8]) -> Option<u64> {
    let prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let at = bytes.iter().position(|byte| !prefix(byte))?;
    let second = u64::from(*bytes.get(at + 1)?);
    (bytes[at] & 0xf8 == 0xd8).then_some(u64::from(bytes[at] & 7) << 8 | second)
}

/// Whether the first operand is in memory, and what is there.
fn memory(i: &Instruction) -> Option<MemorySize> {
    (i.op_count() > 0 && i.op0_kind() == OpKind::Memory).then(|| i.memory_size())
}

/// A binary operation: single and double precision, 16- and 32-bit integers, registers.
macro_rules! binary {
    ($i:ident, $op:ident) => {
        match memory($i) {
            Some(MemorySize::Float32) => row(arithmetic::with_memory::<$op, F32>),
            Some(MemorySize::Float64) => row(arithmetic::with_memory::<$op, F64>),
            Some(MemorySize::Int16) => row(arithmetic::with_memory::<$op, I16>),
            Some(_) => row(arithmetic::with_memory::<$op, I32>),
            None => row(arithmetic::with_register::<$op, false>),
        }
    };
}

/// A comparison that pops `$pops`.
macro_rules! comparison {
    ($i:ident, $pops:literal) => {
        match memory($i) {
            Some(MemorySize::Float32) => row(compare::with_memory::<F32, $pops>),
            Some(MemorySize::Float64) => row(compare::with_memory::<F64, $pops>),
            Some(MemorySize::Int16) => row(compare::with_memory::<I16, $pops>),
            Some(_) => row(compare::with_memory::<I32, $pops>),
            None => row(compare::with_register::<false, $pops>),
        }
    };
}

fn arithmetic(i: &Instruction) -> Option<Row> {
    Some(match i.mnemonic() {
        M::Fadd | M::Fiadd => binary!(i, ADD),
        M::Fmul | M::Fimul => binary!(i, MUL),
        M::Fsub | M::Fisub => binary!(i, SUB),
        M::Fsubr | M::Fisubr => binary!(i, SUBR),
        M::Fdiv | M::Fidiv => binary!(i, DIV),
        M::Fdivr | M::Fidivr => binary!(i, DIVR),
        M::Faddp => row(arithmetic::with_register::<ADD, true>),
        M::Fmulp => row(arithmetic::with_register::<MUL, true>),
        M::Fsubp => row(arithmetic::with_register::<SUB, true>),
        M::Fsubrp => row(arithmetic::with_register::<SUBR, true>),
        M::Fdivp => row(arithmetic::with_register::<DIV, true>),
        M::Fdivrp => row(arithmetic::with_register::<DIVR, true>),
        M::Fsqrt => row(arithmetic::square_root),
        M::Frndint => row(arithmetic::round),
        M::Fabs => row(arithmetic::absolute),
        M::Fchs => row(arithmetic::negate),
        M::Fscale => row(arithmetic::scale),
        M::Fprem => row(arithmetic::partial_remainder::<false>),
        M::Fprem1 => row(arithmetic::partial_remainder::<true>),
        M::Fxtract => row(arithmetic::extract),
        M::Fcom | M::Ficom => comparison!(i, 0),
        M::Fcomp | M::Ficomp => comparison!(i, 1),
        M::Fcompp => row(compare::with_register::<false, 2>),
        M::Fucom => row(compare::with_register::<true, 0>),
        M::Fucomp => row(compare::with_register::<true, 1>),
        M::Fucompp => row(compare::with_register::<true, 2>),
        M::Fcomi => row(compare::into_flags::<false, false>),
        M::Fcomip => row(compare::into_flags::<false, true>),
        M::Fucomi => row(compare::into_flags::<true, false>),
        M::Fucomip => row(compare::into_flags::<true, true>),
        M::Ftst => row(compare::test),
        M::Fxam => row(compare::examine),
        M::F2xm1 => row(transcendental::power_less_one),
        M::Fyl2x => row(transcendental::binary::<0>),
        M::Fyl2xp1 => row(transcendental::binary::<1>),
        M::Fpatan => row(transcendental::binary::<2>),
        M::Fsin => row(transcendental::unary::<0>),
        M::Fcos => row(transcendental::unary::<1>),
        M::Fsincos => row(transcendental::pair::<false>),
        M::Fptan => row(transcendental::pair::<true>),
        _ => return None,
    })
}

fn moved(i: &Instruction) -> Option<Row> {
    use load::{store, store_integer};
    Some(match (i.mnemonic(), memory(i)) {
        (M::Fld, Some(MemorySize::Float32)) => row(load::load::<F32>),
        (M::Fld, Some(MemorySize::Float64)) => row(load::load::<F64>),
        (M::Fld, Some(_)) => row(load::load_extended),
        (M::Fld, None) => row(load::load_register),
        (M::Fild, Some(MemorySize::Int16)) => row(load::load::<I16>),
        (M::Fild, Some(MemorySize::Int32)) => row(load::load::<I32>),
        (M::Fild, _) => row(load::load::<I64>),
        (M::Fst, Some(MemorySize::Float32)) => row(store::<F32, false>),
        (M::Fst, Some(_)) => row(store::<F64, false>),
        (M::Fst, None) => row(load::store_register::<false>),
        (M::Fstp, Some(MemorySize::Float32)) => row(store::<F32, true>),
        (M::Fstp, Some(MemorySize::Float64)) => row(store::<F64, true>),
        (M::Fstp, Some(_)) => row(load::store_extended),
        (M::Fstp, None) => row(load::store_register::<true>),
        (M::Fstpnce, _) => row(load::store_unchecked),
        (M::Fist, Some(MemorySize::Int16)) => row(store_integer::<I16, false, false>),
        (M::Fist, _) => row(store_integer::<I32, false, false>),
        (M::Fistp, Some(MemorySize::Int16)) => row(store_integer::<I16, true, false>),
        (M::Fistp, Some(MemorySize::Int32)) => row(store_integer::<I32, true, false>),
        (M::Fistp, _) => row(store_integer::<I64, true, false>),
        (M::Fisttp, Some(MemorySize::Int16)) => row(store_integer::<I16, true, true>),
        (M::Fisttp, Some(MemorySize::Int32)) => row(store_integer::<I32, true, true>),
        (M::Fisttp, _) => row(store_integer::<I64, true, true>),
        (M::Fbld, _) => row(decimal::load),
        (M::Fbstp, _) => row(decimal::store),
        (M::Fxch, _) => row(load::exchange),
        (M::Fcmovb, _) => row(load::conditional::<2>),
        (M::Fcmovnb, _) => row(load::conditional::<3>),
        (M::Fcmove, _) => row(load::conditional::<4>),
        (M::Fcmovne, _) => row(load::conditional::<5>),
        (M::Fcmovbe, _) => row(load::conditional::<6>),
        (M::Fcmovnbe, _) => row(load::conditional::<7>),
        (M::Fcmovu, _) => row(load::conditional::<10>),
        (M::Fcmovnu, _) => row(load::conditional::<11>),
        (M::Fld1, _) => row(load::constant::<0>),
        (M::Fldl2t, _) => row(load::constant::<1>),
        (M::Fldl2e, _) => row(load::constant::<2>),
        (M::Fldpi, _) => row(load::constant::<3>),
        (M::Fldlg2, _) => row(load::constant::<4>),
        (M::Fldln2, _) => row(load::constant::<5>),
        (M::Fldz, _) => row(load::constant::<6>),
        _ => return None,
    })
}

fn other(i: &Instruction) -> Option<Row> {
    Some(match i.mnemonic() {
        M::Fldcw => row(control::load_control),
        M::Fnstcw => row(control::store_control),
        M::Fnstsw => row(control::store_status),
        M::Fnclex => row(control::clear_exceptions),
        M::Fninit => row(control::initialise),
        M::Fincstp => row(control::move_top::<1>),
        M::Fdecstp => row(control::move_top::<7>),
        M::Ffree => row(control::free::<false>),
        M::Ffreep => row(control::free::<true>),
        M::Fnop => row(control::nop),
        M::Fneni | M::Fndisi | M::Fnsetpm => row(control::ignored),
        M::Wait => row(control::wait),
        M::Fnstenv => row(environment::store),
        M::Fldenv => row(environment::load),
        M::Fnsave => row(environment::save),
        M::Frstor => row(environment::restore),
        _ => return None,
    })
}
