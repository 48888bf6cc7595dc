//! Blends: lanes of the source where an immediate or the signs of XMM0 say so.

use crate::decode::Decoded;
use crate::execute::{Exec, Flow};
use crate::fault::Result;

/// Lanes of `bytes` bytes from `b` where `choose` says so, else from `a`.
fn select(a: u128, b: u128, bytes: u32, choose: impl Fn(u32) -> bool) -> u128 {
    let lane = u128::MAX >> (128 - 8 * bytes);
    let mask = (0..16 / bytes).filter(|n| choose(*n)).fold(0, |mask, n| mask | lane << (8 * bytes * n));
    a & !mask | b & mask
}

/// BLENDPS, BLENDPD, PBLENDW.
pub(crate) fn immediate<const BYTES: u32>(a: u128, b: u128, selector: u8) -> u128 {
    select(a, b, BYTES, |n| selector >> n & 1 != 0)
}

/// BLENDVPS, BLENDVPD, PBLENDVB.
pub(crate) fn variable<const BYTES: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_sse()?;
    let source = x.source(op)?;
    let mask = x.cpu.vectors.xmm(0);
    let result = select(x.target(op), source, BYTES, |n| mask >> (8 * BYTES * (n + 1) - 1) & 1 != 0);
    x.set_target(op, result);
    Ok(Flow::Next)
}
