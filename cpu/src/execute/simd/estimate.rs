//! RCPPS, RSQRTPS: approximations that raise nothing, from one table a vendor.
//!
//! The manuals bound the relative error by 1.5 * 2^-12 and leave the bits open. An entry is the exact function at the middle
//! of its interval, rounded to so many bits; computing it is the table's documentation. Intel: 2048 intervals, 12 bits.
//! AMD: 4096 intervals, 14 bits. RSQRT has them for each of the two parities of the exponent.
//! Sources: SDM Vol. 2B "RCPPS", "RSQRTPS"; APM Vol. 4 the same.

use super::float::{lane, with_lane};
use crate::decode::Decoded;
use crate::execute::{Exec, Flow};
use crate::fault::Result;
use crate::float::parts::{indefinite, infinity, quiet, sign_bit};
use crate::float::{Class, Parts, SINGLE};
use rootmode_arch::Vendor;

/// Index bits and result bits of a vendor's tables.
const fn widths(vendor: Vendor) -> (u32, u32) {
    match vendor {
        Vendor::Intel => (11, 12),
        Vendor::Amd => (12, 14),
    }
}

/// The middle of the interval of `significand` (bit 63 set), in units of 2^-(index bits + 1): from 1 to 2.
const fn middle(significand: u64, index: u32) -> u128 {
    (significand >> (63 - index) << 1 | 1) as u128
}

/// The packed result `1.fraction * 2^exponent`; `value` has `bits` bits after the integer bit. Tiny results are zeros.
const fn pack(sign: bool, exponent: i32, value: u64, bits: u32) -> u64 {
    let (exponent, value) =
        if value >> (bits + 1) != 0 { (exponent + 1, value >> 1) } else { (exponent, value) };
    let sign = sign_bit(sign, SINGLE);
    if exponent < SINGLE.minimum {
        return sign;
    }
    let fraction = (value & ((1 << bits) - 1)) << (23 - bits);
    sign | ((exponent + SINGLE.maximum) as u64) << 23 | fraction
}

/// The estimate of `1 / a`.
fn reciprocal(a: u64, vendor: Vendor) -> u64 {
    let x = Parts::unpack_daz(a, SINGLE, true);
    match x.class {
        Class::Zero => return infinity(x.sign, SINGLE),
        Class::Infinity => return sign_bit(x.sign, SINGLE),
        Class::Finite => {}
        _ => return quiet(&x, SINGLE),
    }
    let (index, bits) = widths(vendor);
    // 1 / m lies between 1/2 and 1: twice that with `bits` bits, rounded.
    let divisor = middle(x.significand, index);
    let value = ((1_u128 << (index + 1 + bits + 2)) / divisor + 1) >> 1;
    pack(x.sign, -x.exponent - 1, value as u64, bits)
}

/// The estimate of `1 / sqrt(a)`.
fn reciprocal_root(a: u64, vendor: Vendor) -> u64 {
    let x = Parts::unpack_daz(a, SINGLE, true);
    match x.class {
        Class::Zero => return infinity(x.sign, SINGLE),
        Class::Quiet | Class::Signaling => return quiet(&x, SINGLE),
        _ if x.sign => return indefinite(SINGLE),
        Class::Infinity => return 0,
        _ => {}
    }
    let (index, bits) = widths(vendor);
    let odd = x.exponent & 1;
    // 2 / sqrt(m * 2^odd) lies between 1 and 2: the root of 4 / (m * 2^odd), with `bits` + 1 bits, rounded.
    let divisor = middle(x.significand, index) << odd;
    let square = (1_u128 << (2 + index + 1 + 2 * (bits + 1))) / divisor;
    let value = (square.isqrt() + 1) >> 1;
    pack(false, -(x.exponent - odd) / 2 - 1, value as u64, bits)
}

/// RCPPS, RCPSS; RSQRTPS, RSQRTSS with `ROOT`.
pub(crate) fn estimate<const ROOT: bool, const LANES: u32>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    let vendor = x.cpu.model.vendor();
    let f = if ROOT { reciprocal_root } else { reciprocal };
    x.each_half(op, |a, b, _| (0..LANES).fold(a, |all, n| with_lane(all, 32, n, f(lane(b, 32, n), vendor))))
}
