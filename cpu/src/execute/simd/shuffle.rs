//! Lanes in another order: unpacking, packing, shuffles, PALIGNR, horizontal sums, widening moves, MPSADBW.
//!
//! `BYTES` is the width of the registers: 16, or 8 for MMX.

use super::lanes::{B, D, Lanes, Q, SD, SW, W};

/// Interleaves lanes of `SIZE` bytes from the lower (or upper, with `HIGH`) halves of the operands.
pub(crate) fn unpack<const SIZE: usize, const HIGH: bool, const BYTES: usize>(a: u128, b: u128) -> u128 {
    let (a, b) = (B::split(a), B::split(b));
    let first = if HIGH { BYTES / 2 } else { 0 };
    core::array::from_fn::<u8, 16, _>(|n| {
        if n >= BYTES {
            return 0;
        }
        let at = first + n / (2 * SIZE) * SIZE + n % SIZE;
        if (n / SIZE).is_multiple_of(2) { a[at] } else { b[at] }
    })
    .join()
}

/// PACKSSWB, PACKUSWB: words to bytes with saturation between `low` and `high`.
fn pack_words<const BYTES: usize>(a: u128, b: u128, low: i16, high: i16) -> u128 {
    let (a, b) = (SW::split(a), SW::split(b));
    let half = BYTES / 2;
    core::array::from_fn::<u8, 16, _>(|n| match n {
        n if n >= BYTES => 0,
        n if n < half => a[n].clamp(low, high) as u8,
        n => b[n - half].clamp(low, high) as u8,
    })
    .join()
}

/// PACKSSWB.
pub(crate) fn packsswb<const BYTES: usize>(a: u128, b: u128) -> u128 {
    pack_words::<BYTES>(a, b, -128, 127)
}

/// PACKUSWB.
pub(crate) fn packuswb<const BYTES: usize>(a: u128, b: u128) -> u128 {
    pack_words::<BYTES>(a, b, 0, 255)
}

fn pack_doublewords<const BYTES: usize>(a: u128, b: u128, low: i32, high: i32) -> u128 {
    let (a, b) = (SD::split(a), SD::split(b));
    let half = BYTES / 4;
    core::array::from_fn::<u16, 8, _>(|n| match n {
        n if n >= BYTES / 2 => 0,
        n if n < half => a[n].clamp(low, high) as u16,
        n => b[n - half].clamp(low, high) as u16,
    })
    .join()
}

/// PACKSSDW.
pub(crate) fn packssdw<const BYTES: usize>(a: u128, b: u128) -> u128 {
    pack_doublewords::<BYTES>(a, b, -0x8000, 0x7fff)
}

/// PACKUSDW.
pub(crate) fn packusdw(a: u128, b: u128) -> u128 {
    pack_doublewords::<16>(a, b, 0, 0xffff)
}

/// PSHUFB: each byte of the source selects one, or zero with bit 7.
pub(crate) fn pshufb<const BYTES: usize>(a: u128, b: u128) -> u128 {
    let a = B::split(a);
    B::split(b).map(|s| if s & 0x80 != 0 { 0 } else { a[usize::from(s) & (BYTES - 1)] }).join()
}

/// PALIGNR: destination and source side by side, shifted right by bytes.
pub(crate) fn palignr<const BYTES: usize>(a: u128, b: u128, count: u8) -> u128 {
    let (a, b, count) = (B::split(a), B::split(b), usize::from(count));
    core::array::from_fn::<u8, 16, _>(|n| match n + count {
        at if at < BYTES => b[at],
        at if at < 2 * BYTES => a[at - BYTES],
        _ => 0,
    })
    .join()
}

/// Two bits of `selector`, number `n`.
const fn two_bits(selector: u8, n: usize) -> usize {
    (selector >> (2 * n)) as usize & 3
}

/// PSHUFD.
pub(crate) fn pshufd(_: u128, b: u128, selector: u8) -> u128 {
    let b = D::split(b);
    core::array::from_fn::<u32, 4, _>(|n| b[two_bits(selector, n)]).join()
}

/// PSHUFLW, and PSHUFW on MMX registers.
pub(crate) fn pshuflw(_: u128, b: u128, selector: u8) -> u128 {
    let b = W::split(b);
    core::array::from_fn::<u16, 8, _>(|n| if n < 4 { b[two_bits(selector, n)] } else { b[n] }).join()
}

/// PSHUFHW.
pub(crate) fn pshufhw(_: u128, b: u128, selector: u8) -> u128 {
    let b = W::split(b);
    core::array::from_fn::<u16, 8, _>(|n| if n < 4 { b[n] } else { b[4 + two_bits(selector, n - 4)] }).join()
}

/// SHUFPS.
pub(crate) fn shufps(a: u128, b: u128, selector: u8) -> u128 {
    let (a, b) = (D::split(a), D::split(b));
    core::array::from_fn::<u32, 4, _>(|n| if n < 2 { a } else { b }[two_bits(selector, n)]).join()
}

/// SHUFPD.
pub(crate) fn shufpd(a: u128, b: u128, selector: u8) -> u128 {
    let (a, b) = (Q::split(a), Q::split(b));
    [a[usize::from(selector) & 1], b[usize::from(selector) >> 1 & 1]].join()
}

/// Neighbours of both operands combined by `f`: `2 * COUNT` results, packed from the lowest.
macro_rules! horizontal {
    ($($name:ident: $lane:ty, $lanes:literal, $f:expr;)*) => { $(
        #[doc = concat!("`", stringify!($name), "`: neighbours of the destination, then of the source.")]
        pub(crate) fn $name<const BYTES: usize>(a: u128, b: u128) -> u128 {
            let (a, b) = (<[$lane; $lanes]>::split(a), <[$lane; $lanes]>::split(b));
            let lanes = BYTES * $lanes / 16;
            let combine: fn($lane, $lane) -> $lane = $f;
            core::array::from_fn::<$lane, $lanes, _>(|n| match n {
                n if n >= lanes => 0,
                n if n < lanes / 2 => combine(a[2 * n], a[2 * n + 1]),
                n => combine(b[2 * n - lanes], b[2 * n - lanes + 1]),
            })
            .join()
        }
    )* };
}

horizontal! {
    phaddw: i16, 8, i16::wrapping_add;
    phaddd: i32, 4, i32::wrapping_add;
    phaddsw: i16, 8, i16::saturating_add;
    phsubw: i16, 8, i16::wrapping_sub;
    phsubd: i32, 4, i32::wrapping_sub;
    phsubsw: i16, 8, i16::saturating_sub;
}

/// PMOVSX, PMOVZX: lanes of `FROM` bits of the source to lanes of `TO` bits.
pub(crate) fn widen<const FROM: u32, const TO: u32, const SIGNED: bool>(_: u128, b: u128) -> u128 {
    (0..128 / TO).fold(0, |all, n| {
        let lane = (b >> (n * FROM)) as u64;
        let lane = if SIGNED {
            ((lane << (64 - FROM)) as i64 >> (64 - FROM)) as u64
        } else {
            lane << (64 - FROM) >> (64 - FROM)
        };
        let lane = u128::from(lane << (64 - TO) >> (64 - TO));
        all | lane << (n * TO)
    })
}

/// MPSADBW: eight sums of absolute differences of four bytes.
pub(crate) fn mpsadbw(a: u128, b: u128, selector: u8) -> u128 {
    let (a, b) = (B::split(a), B::split(b));
    let (from, with) = (usize::from(selector >> 2 & 1) * 4, usize::from(selector & 3) * 4);
    core::array::from_fn::<u16, 8, _>(|n| {
        (0..4).map(|k| u16::from(a[from + n + k].abs_diff(b[with + k]))).sum()
    })
    .join()
}

/// MOVDDUP.
pub(crate) fn movddup(_: u128, b: u128) -> u128 {
    [b as u64; 2].join()
}

/// MOVSLDUP (`ODD` = 0) and MOVSHDUP (1).
pub(crate) fn duplicate<const ODD: usize>(_: u128, b: u128) -> u128 {
    let b = D::split(b);
    core::array::from_fn::<u32, 4, _>(|n| b[n & 2 | ODD]).join()
}
