//! DPPS, DPPD: products of selected lanes, summed pairwise; exceptions are reported operation by operation.

use super::float::{format, lane, with_lane};
use crate::decode::Decoded;
use crate::execute::{Exec, Flow};
use crate::fault::Result;
use crate::float::arithmetic::Operation;
use crate::float::scalar;

/// DPPS (`BITS` = 32), DPPD (64).
pub(crate) fn product<const BITS: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    let (a, b) = (x.target_halves(op), x.source_halves(op)?);
    let selector = op.immediate as u32;
    let (mode, format, lanes, halves) = (x.simd_mode(), format(BITS), 128 / BITS, 0..op.halves());
    let (mut products, mut flags) = ([[0; 4]; 2], 0);
    for half in halves.clone() {
        for n in (0..lanes).filter(|n| selector >> (4 + n) & 1 != 0) {
            let (a, b) = (lane(a[half], BITS, n), lane(b[half], BITS, n));
            let (value, raised) = scalar::binary(Operation::Multiply, a, b, format, mode);
            products[half][n as usize] = value;
            flags |= raised;
        }
    }
    x.report(flags)?;
    let mode = x.simd_mode();
    let mut flags = 0;
    let mut add = |a, b| {
        let (sum, raised) = scalar::binary(Operation::Add, a, b, format, mode);
        flags |= raised;
        sum
    };
    let mut sums = [[0; 2]; 2];
    for half in halves.clone() {
        let [first, second, third, fourth] = products[half];
        sums[half] = [add(first, second), if BITS == 32 { add(third, fourth) } else { 0 }];
    }
    x.report(flags)?;
    let (mut result, mut flags) = ([0; 2], 0);
    for half in halves {
        let [low, high] = sums[half];
        let (sum, raised) =
            if BITS == 32 { scalar::binary(Operation::Add, low, high, format, mode) } else { (low, 0) };
        flags |= raised;
        let chosen = (0..lanes).filter(|n| selector >> n & 1 != 0);
        result[half] = chosen.fold(0, |all, n| with_lane(all, BITS, n, sum));
    }
    x.report(flags)?;
    x.set_target_halves(op, result);
    Ok(Flow::Next)
}
