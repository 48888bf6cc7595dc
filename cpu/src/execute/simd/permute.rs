//! Lanes across the halves of YMM registers, and permutations by a register: broadcasts, VINSERTx128, VEXTRACTx128,
//! VPERM2x128, VPERMD, VPERMQ, VPERMILPx.

use super::Halves;
use super::lanes::{D, Lanes, Q};
use crate::decode::Decoded;
use crate::execute::{Exec, Flow};
use crate::fault::Result;

/// VBROADCASTSS, VPBROADCASTB and relatives: the lowest `BYTES` bytes of the source, everywhere.
pub(crate) fn broadcast<const BYTES: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_avx()?;
    let lane = x.source(op)? & u128::MAX >> (128 - 8 * BYTES);
    let half = (0..16 / BYTES).fold(0, |all, n| all | lane << (8 * BYTES * n));
    x.set_target_halves(op, [half; 2]);
    Ok(Flow::Next)
}

/// VINSERTF128, VINSERTI128: bit 0 of the immediate chooses the half that is replaced.
pub(crate) fn insert(a: Halves, b: Halves, selector: u8) -> Halves {
    if selector & 1 == 0 { [b[0], a[1]] } else { [a[0], b[0]] }
}

/// VEXTRACTF128, VEXTRACTI128.
pub(crate) fn extract(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_avx()?;
    let half = x.register_halves(op.operands[1])[op.immediate as usize & 1];
    if op.is_memory() {
        x.store(op, 16, false, half)?;
    } else {
        x.set_target(op, half);
    }
    Ok(Flow::Next)
}

/// VPERM2F128, VPERM2I128: two bits a half choose one of four, a third clears it.
pub(crate) fn halves(a: Halves, b: Halves, selector: u8) -> Halves {
    let sources = [a[0], a[1], b[0], b[1]];
    [selector, selector >> 4].map(|bits| if bits & 8 == 0 { sources[usize::from(bits & 3)] } else { 0 })
}

/// VPERMD, VPERMPS: the first source has the numbers of the second one's doublewords.
pub(crate) fn doublewords(a: Halves, b: Halves, _: u8) -> Halves {
    let lanes = b.map(D::split);
    a.map(|half| D::split(half).map(|at| lanes[(at >> 2 & 1) as usize][(at & 3) as usize]).join())
}

/// VPERMQ, VPERMPD: two bits of the immediate a quadword.
pub(crate) fn quadwords(_: Halves, b: Halves, selector: u8) -> Halves {
    let lane = |n: u8| {
        let at = usize::from(selector >> (2 * n) & 3);
        Q::split(b[at >> 1])[at & 1]
    };
    [[lane(0), lane(1)].join(), [lane(2), lane(3)].join()]
}

/// VPERMILPS by a register: the low two bits of its doublewords choose among those of the first source.
pub(crate) fn singles(a: u128, b: u128) -> u128 {
    let lanes = D::split(a);
    D::split(b).map(|at| lanes[at as usize & 3]).join()
}

/// VPERMILPD by a register: bit 1 of its quadwords chooses.
pub(crate) fn doubles(a: u128, b: u128) -> u128 {
    let lanes = Q::split(a);
    Q::split(b).map(|at| lanes[at as usize >> 1 & 1]).join()
}

/// VPERMILPD by an immediate: a bit a quadword.
pub(crate) fn doubles_immediate(_: u128, b: u128, selector: u8) -> u128 {
    let lanes = Q::split(b);
    [lanes[usize::from(selector & 1)], lanes[usize::from(selector >> 1 & 1)]].join()
}
