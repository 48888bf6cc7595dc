//! Packed integers, lane by lane. MMX operands are the low 64 bits; what the functions do above them is not used.

/// Splits into lanes, lowest first.
pub(crate) trait Lanes: Sized {
    /// The lanes of `value`.
    fn split(value: u128) -> Self;
    /// Lanes put together.
    fn join(self) -> u128;
}

macro_rules! lanes {
    ($($lane:ty, $signed:ty, $count:literal;)*) => { $(
        impl Lanes for [$lane; $count] {
            #[inline]
            fn split(value: u128) -> Self {
                core::array::from_fn(|n| (value >> (n as u32 * <$lane>::BITS)) as $lane)
            }
            #[inline]
            fn join(self) -> u128 {
                self.iter().rev().fold(0, |all, lane| (all << (<$lane>::BITS & 127)) | u128::from(*lane))
            }
        }
        impl Lanes for [$signed; $count] {
            #[inline]
            fn split(value: u128) -> Self {
                core::array::from_fn(|n| (value >> (n as u32 * <$lane>::BITS)) as $signed)
            }
            #[inline]
            fn join(self) -> u128 {
                self.map(|lane| lane as $lane).join()
            }
        }
    )* };
}

lanes! {
    u8, i8, 16;
    u16, i16, 8;
    u32, i32, 4;
    u64, i64, 2;
}

/// Bytes.
pub(crate) type B = [u8; 16];
/// Signed bytes.
pub(crate) type SB = [i8; 16];
/// Words.
pub(crate) type W = [u16; 8];
/// Signed words.
pub(crate) type SW = [i16; 8];
/// Doublewords.
pub(crate) type D = [u32; 4];
/// Signed doublewords.
pub(crate) type SD = [i32; 4];
/// Quadwords.
pub(crate) type Q = [u64; 2];

/// Two operands combined lane by lane.
#[inline]
fn zip<T: Copy, const N: usize>(a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128
where
    [T; N]: Lanes,
{
    let (a, b) = (<[T; N]>::split(a), <[T; N]>::split(b));
    core::array::from_fn::<T, N, _>(|n| f(a[n], b[n])).join()
}

macro_rules! zipped {
    ($($(#[$doc:meta])* $name:ident: $lane:ty, $count:literal, $f:expr;)*) => { $(
        $(#[$doc])*
        pub(crate) fn $name(a: u128, b: u128) -> u128 {
            zip::<$lane, $count>(a, b, $f)
        }
    )* };
}

/// All ones if `condition`.
macro_rules! ones {
    ($condition:expr) => {
        if $condition { !0 } else { 0 }
    };
}

zipped! {
    paddb: u8, 16, u8::wrapping_add;
    paddw: u16, 8, u16::wrapping_add;
    paddd: u32, 4, u32::wrapping_add;
    paddq: u64, 2, u64::wrapping_add;
    psubb: u8, 16, u8::wrapping_sub;
    psubw: u16, 8, u16::wrapping_sub;
    psubd: u32, 4, u32::wrapping_sub;
    psubq: u64, 2, u64::wrapping_sub;
    paddsb: i8, 16, i8::saturating_add;
    paddsw: i16, 8, i16::saturating_add;
    paddusb: u8, 16, u8::saturating_add;
    paddusw: u16, 8, u16::saturating_add;
    psubsb: i8, 16, i8::saturating_sub;
    psubsw: i16, 8, i16::saturating_sub;
    psubusb: u8, 16, u8::saturating_sub;
    psubusw: u16, 8, u16::saturating_sub;
    pcmpeqb: u8, 16, |a, b| ones!(a == b);
    pcmpeqw: u16, 8, |a, b| ones!(a == b);
    pcmpeqd: u32, 4, |a, b| ones!(a == b);
    pcmpeqq: u64, 2, |a, b| ones!(a == b);
    pcmpgtb: i8, 16, |a, b| ones!(a > b);
    pcmpgtw: i16, 8, |a, b| ones!(a > b);
    pcmpgtd: i32, 4, |a, b| ones!(a > b);
    pcmpgtq: i64, 2, |a, b| ones!(a > b);
    pminub: u8, 16, Ord::min;
    pminuw: u16, 8, Ord::min;
    pminud: u32, 4, Ord::min;
    pminsb: i8, 16, Ord::min;
    pminsw: i16, 8, Ord::min;
    pminsd: i32, 4, Ord::min;
    pmaxub: u8, 16, Ord::max;
    pmaxuw: u16, 8, Ord::max;
    pmaxud: u32, 4, Ord::max;
    pmaxsb: i8, 16, Ord::max;
    pmaxsw: i16, 8, Ord::max;
    pmaxsd: i32, 4, Ord::max;
    pavgb: u8, 16, |a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8;
    pavgw: u16, 8, |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16;
    pmullw: u16, 8, u16::wrapping_mul;
    pmulld: u32, 4, u32::wrapping_mul;
    pmulhw: i16, 8, |a, b| (i32::from(a) * i32::from(b) >> 16) as i16;
    pmulhuw: u16, 8, |a, b| (u32::from(a) * u32::from(b) >> 16) as u16;
    pmulhrsw: i16, 8, |a, b| ((i32::from(a) * i32::from(b) >> 14) + 1 >> 1) as i16;
    pmuludq: u64, 2, |a, b| (a & 0xffff_ffff) * (b & 0xffff_ffff);
    pmuldq: i64, 2, |a, b| i64::from(a as i32) * i64::from(b as i32);
    psignb: i8, 16, |a, b| a.wrapping_mul(b.signum());
    psignw: i16, 8, |a, b| a.wrapping_mul(b.signum());
    psignd: i32, 4, |a, b| a.wrapping_mul(b.signum());
    /// Each lane by its own count.
    psllvd: u32, 4, |a, n| a.checked_shl(n).unwrap_or(0);
    psllvq: u64, 2, |a, n| if n < 64 { a << n } else { 0 };
    psrlvd: u32, 4, |a, n| a.checked_shr(n).unwrap_or(0);
    psrlvq: u64, 2, |a, n| if n < 64 { a >> n } else { 0 };
    psravd: i32, 4, |a, n| a >> (n as u32).min(31);
    /// The absolute value of the source.
    pabsb: i8, 16, |_, b| b.wrapping_abs();
    pabsw: i16, 8, |_, b| b.wrapping_abs();
    pabsd: i32, 4, |_, b| b.wrapping_abs();
}

/// PMADDWD: products of words, neighbours added.
pub(crate) fn pmaddwd(a: u128, b: u128) -> u128 {
    let (a, b) = (SW::split(a), SW::split(b));
    let product = |n: usize| i32::from(a[n]) * i32::from(b[n]);
    core::array::from_fn::<i32, 4, _>(|n| product(2 * n).wrapping_add(product(2 * n + 1))).join()
}

/// PMADDUBSW: products of unsigned with signed bytes, neighbours added with saturation.
pub(crate) fn pmaddubsw(a: u128, b: u128) -> u128 {
    let (a, b) = (B::split(a), SB::split(b));
    let product = |n: usize| i32::from(a[n]) * i32::from(b[n]);
    let clamp = |v: i32| v.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
    core::array::from_fn::<i16, 8, _>(|n| clamp(product(2 * n) + product(2 * n + 1))).join()
}

/// PSADBW: sums of absolute differences of eight bytes.
pub(crate) fn psadbw(a: u128, b: u128) -> u128 {
    let (a, b) = (B::split(a), B::split(b));
    core::array::from_fn::<u64, 2, _>(|n| (8 * n..8 * n + 8).map(|at| u64::from(a[at].abs_diff(b[at]))).sum())
        .join()
}

/// PHMINPOSUW: the least word of the source and its position.
pub(crate) fn phminposuw(_: u128, b: u128) -> u128 {
    let words = W::split(b);
    let least = (0..8).min_by_key(|n| words[*n]).unwrap_or_default();
    u128::from(words[least]) | (least as u128) << 16
}

/// PAND, ANDPS, ANDPD.
pub(crate) fn and(a: u128, b: u128) -> u128 {
    a & b
}
/// PANDN, ANDNPS, ANDNPD.
pub(crate) fn and_not(a: u128, b: u128) -> u128 {
    !a & b
}
/// POR, ORPS, ORPD.
pub(crate) fn or(a: u128, b: u128) -> u128 {
    a | b
}
/// PXOR, XORPS, XORPD.
pub(crate) fn xor(a: u128, b: u128) -> u128 {
    a ^ b
}

macro_rules! shifts {
    ($($(#[$doc:meta])* $name:ident: $lanes:ty, $bits:literal, |$lane:ident, $count:ident| $f:expr;)*) => { $(
        $(#[$doc])*
        pub(crate) fn $name(a: u128, count: u64) -> u128 {
            // A count beyond the lane's width leaves nothing but copies of the sign.
            let $count = count.min($bits) as u32;
            <$lanes>::split(a).map(|$lane| $f).join()
        }
    )* };
}

shifts! {
    psllw: W, 16, |v, n| v.checked_shl(n).unwrap_or(0);
    pslld: D, 32, |v, n| v.checked_shl(n).unwrap_or(0);
    psllq: Q, 64, |v, n| v.checked_shl(n).unwrap_or(0);
    psrlw: W, 16, |v, n| v.checked_shr(n).unwrap_or(0);
    psrld: D, 32, |v, n| v.checked_shr(n).unwrap_or(0);
    psrlq: Q, 64, |v, n| v.checked_shr(n).unwrap_or(0);
    psraw: SW, 15, |v, n| v >> n;
    psrad: SD, 31, |v, n| v >> n;
}

/// PSLLDQ: by bytes.
pub(crate) fn pslldq(a: u128, count: u64) -> u128 {
    if count > 15 { 0 } else { a << (8 * count) }
}

/// PSRLDQ: by bytes.
pub(crate) fn psrldq(a: u128, count: u64) -> u128 {
    if count > 15 { 0 } else { a >> (8 * count) }
}
