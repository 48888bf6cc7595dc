//! Blends: lanes of the source where an immediate or the signs of a mask register say so.

use crate::decode::Decoded;
use crate::execute::{Exec, Flow};
use crate::fault::Result;

/// Lanes of `bytes` bytes from `b` where `choose` says so, else from `a`.
fn select(a: u128, b: u128, bytes: u32, choose: impl Fn(u32) -> bool) -> u128 {
    let lane = u128::MAX >> (128 - 8 * bytes);
    let mask = (0..16 / bytes).filter(|n| choose(*n)).fold(0, |mask, n| mask | lane << (8 * bytes * n));
    a & !mask | b & mask
}

/// BLENDPS, BLENDPD, PBLENDW, VPBLENDD.
pub(crate) fn immediate<const BYTES: u32>(a: u128, b: u128, selector: u8) -> u128 {
    select(a, b, BYTES, |n| selector >> n & 1 != 0)
}

/// BLENDVPS, BLENDVPD, PBLENDVB. The decoder put the number of the mask register into the immediate.
pub(crate) fn variable<const BYTES: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let mask = x.cpu.vectors.halves(op.immediate as u8);
    x.each_half(op, |a, b, half| select(a, b, BYTES, |n| mask[half] >> (8 * BYTES * (n + 1) - 1) & 1 != 0))
}
