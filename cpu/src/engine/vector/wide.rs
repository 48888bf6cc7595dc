//! Quick forms of VEX encodings, on XMM registers (`N` = 16) and YMM registers (32): moves and packed operations without exceptions.

use super::{general, go_on};
use crate::engine::moves::ANY;
use crate::engine::{Op, or_general};
use crate::execute::Exec;
use crate::execute::simd::Halves;

/// 16 or 32 bytes as a register.
#[inline(always)]
fn halves<const N: usize>(bytes: [u8; N]) -> Halves {
    let (halves, _) = bytes.as_chunks::<16>();
    [0, 1].map(|n| halves.get(n).map_or(0, |half| u128::from_le_bytes(*half)))
}

impl Exec<'_, '_> {
    /// Reads `N` bytes; with `ALIGNED` they must be aligned.
    #[inline(always)]
    fn quick_halves<const N: usize, const ALIGNED: bool>(&self, linear: u64) -> Option<Halves> {
        if ALIGNED && linear & (N as u64 - 1) != 0 {
            return None;
        }
        let place = self.quick_from::<N>(linear)?;
        self.ctx.memory.load_at::<N>(place).map(halves)
    }

    /// The low `N` bytes of a register.
    #[inline(always)]
    const fn low_halves<const N: usize>(&self, register: u8) -> Halves {
        let [low, high] = self.cpu.vectors.halves(register);
        [low, if N == 32 { high } else { 0 }]
    }
}

/// VMOVAPS, VMOVDQU and relatives between registers.
pub(in crate::engine) fn move_rr<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    if x.require_avx().is_err() {
        return general(x, op, behind);
    }
    let value = x.low_halves::<N>(op.b);
    x.cpu.vectors.set_halves(op.a, value);
    go_on(x, behind)
}

/// The same from memory.
pub(in crate::engine) fn load<const N: usize, const ALIGNED: bool, const A: u8>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let linear = x.quick_address::<A>(op);
    let value = or_general!(x, op, behind, x.quick_halves::<N, ALIGNED>(linear));
    if x.require_avx().is_err() {
        return general(x, op, behind);
    }
    x.cpu.vectors.set_halves(op.a, value);
    go_on(x, behind)
}

/// The same to memory.
pub(in crate::engine) fn store<const N: usize, const ALIGNED: bool, const A: u8>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let linear = x.quick_address::<A>(op);
    if x.require_avx().is_err() || ALIGNED && linear & (N as u64 - 1) != 0 {
        return general(x, op, behind);
    }
    let value = x.cpu.vectors.halves(op.b).map(u128::to_le_bytes);
    let Some(bytes) = value.as_flattened().first_chunk::<N>().copied() else {
        return general(x, op, behind);
    };
    match x.quick_place::<N>(linear) {
        Some(place) if x.ctx.memory.store_at(place, bytes) => go_on(x, behind),
        _ => general(x, op, behind),
    }
}

/// Two sources combined half by half by a pure function of both. The immediate has the number of the last one.
pub(in crate::engine) fn combine<const N: usize, const M: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let last = if M {
        let linear = x.quick_address::<ANY>(op);
        or_general!(x, op, behind, x.quick_halves::<N, false>(linear))
    } else {
        x.cpu.vectors.halves(op.immediate as u8)
    };
    let f = or_general!(x, op, behind, op.combine);
    if x.require_avx().is_err() {
        return general(x, op, behind);
    }
    let first = x.cpu.vectors.halves(op.b);
    let high = if N == 32 { f(first[1], last[1]) } else { 0 };
    x.cpu.vectors.set_halves(op.a, [f(first[0], last[0]), high]);
    go_on(x, behind)
}

/// VZEROUPPER.
pub(in crate::engine) fn zero_upper(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    if x.require_avx().is_err() {
        return general(x, op, behind);
    }
    let count = x.xmm_count();
    x.cpu.vectors.ymm[..count].iter_mut().for_each(|register| register[2..].fill(0));
    go_on(x, behind)
}
