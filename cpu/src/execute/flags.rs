//! Status flags, computed in one place (SDM Vol. 1 "Status Flags").
//!
//! One decision about flags that the manuals leave undefined: they are what current Intel parts leave behind where that is
//! known (logic clears AF; OF of longer shifts and rotates is that of the last step; multiplications set PF and SF by the low
//! half), and otherwise the formula of the nearest defined case, or unchanged. They are the same on every run and both vendors.

use rootmode_arch::RFlags;

pub(crate) const CF: u64 = RFlags::CF.0;
pub(crate) const PF: u64 = RFlags::PF.0;
pub(crate) const AF: u64 = RFlags::AF.0;
pub(crate) const ZF: u64 = RFlags::ZF.0;
pub(crate) const SF: u64 = RFlags::SF.0;
pub(crate) const OF: u64 = RFlags::OF.0;
/// The six status flags.
pub(crate) const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// Bits of an operand of `size` bytes (1, 2, 4, 8).
pub(crate) const fn mask(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * size as u32)
}

/// The sign bit's number.
pub(crate) const fn top(size: u8) -> u32 {
    8 * size as u32 - 1
}

/// `value` of `size` bytes as 64 bits with its sign.
pub(crate) const fn sign_extend(value: u64, size: u8) -> u64 {
    let shift = 64 - 8 * size as u32;
    ((value << shift) as i64 >> shift) as u64
}

/// PF, ZF, SF of a result.
pub(crate) const fn of_result(result: u64, size: u8) -> u64 {
    let parity = if (result as u8).count_ones() & 1 == 0 { PF } else { 0 };
    let zero = if result & mask(size) == 0 { ZF } else { 0 };
    parity | zero | (result >> top(size) & 1) * SF
}

/// `a + b + carry` and all six flags.
pub(crate) const fn add(a: u64, b: u64, carry: u64, size: u8) -> (u64, u64) {
    let result = a.wrapping_add(b).wrapping_add(carry);
    let carry_out = (a & b | (a | b) & !result) >> top(size) & 1;
    let overflow = ((a ^ result) & (b ^ result)) >> top(size) & 1;
    (result & mask(size), of_result(result, size) | (a ^ b ^ result) & AF | carry_out * CF | overflow * OF)
}

/// `a - b - borrow` and all six flags.
pub(crate) const fn sub(a: u64, b: u64, borrow: u64, size: u8) -> (u64, u64) {
    let result = a.wrapping_sub(b).wrapping_sub(borrow);
    let borrow_out = (!a & b | (!a | b) & result) >> top(size) & 1;
    let overflow = ((a ^ b) & (a ^ result)) >> top(size) & 1;
    (result & mask(size), of_result(result, size) | (a ^ b ^ result) & AF | borrow_out * CF | overflow * OF)
}

/// Whether condition `code` (as encoded in Jcc) holds.
pub(crate) const fn condition(flags: u64, code: u8) -> bool {
    let sf_ne_of = (flags & SF != 0) != (flags & OF != 0);
    let holds = match code >> 1 {
        0 => flags & OF != 0,
        1 => flags & CF != 0,
        2 => flags & ZF != 0,
        3 => flags & (CF | ZF) != 0,
        4 => flags & SF != 0,
        5 => flags & PF != 0,
        6 => sf_ne_of,
        _ => flags & ZF != 0 || sf_ne_of,
    };
    holds != (code & 1 != 0)
}
