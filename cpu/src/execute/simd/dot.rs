//! DPPS, DPPD: products of selected lanes, summed pairwise; exceptions are reported operation by operation.

use super::float::{format, lane, with_lane};
use crate::decode::Decoded;
use crate::execute::{Exec, Flow};
use crate::fault::Result;
use crate::float::arithmetic::Operation;
use crate::float::scalar;

/// DPPS (`BITS` = 32), DPPD (64).
pub(crate) fn product<const BITS: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_sse()?;
    let (a, b) = (x.target(op), x.source(op)?);
    let selector = op.immediate as u32;
    let (mode, format, lanes) = (x.simd_mode(), format(BITS), 128 / BITS);
    let (mut products, mut flags) = ([0; 4], 0);
    for n in (0..lanes).filter(|n| selector >> (4 + n) & 1 != 0) {
        let (value, raised) =
            scalar::binary(Operation::Multiply, lane(a, BITS, n), lane(b, BITS, n), format, mode);
        products[n as usize] = value;
        flags |= raised;
    }
    x.report(flags)?;
    let mode = x.simd_mode();
    let add = |a, b| scalar::binary(Operation::Add, a, b, format, mode);
    let (low, low_flags) = add(products[0], products[1]);
    let sum = if BITS == 32 {
        let (high, high_flags) = add(products[2], products[3]);
        x.report(low_flags | high_flags)?;
        let (sum, flags) = add(low, high);
        x.report(flags)?;
        sum
    } else {
        x.report(low_flags)?;
        low
    };
    let result = (0..lanes).filter(|n| selector >> n & 1 != 0).fold(0, |all, n| with_lane(all, BITS, n, sum));
    x.set_target(op, result);
    Ok(Flow::Next)
}
