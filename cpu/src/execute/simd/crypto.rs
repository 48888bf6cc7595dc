//! AES rounds, carry-less multiplication, SHA-1 and SHA-256 (SDM Vol. 2, pages of AESENC and its relatives, PCLMULQDQ,
//! SHA1RNDS4 and its relatives; FIPS 197, FIPS 180-4).

use super::lanes::{B, D, Lanes, Q};
use crate::decode::Decoded;
use crate::execute::{Exec, Flow};
use crate::fault::Result;

/// Multiplies by x in the field of AES.
const fn double(a: u8) -> u8 {
    a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 }
}

/// Multiplies in the field of AES.
const fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

/// FIPS 197 "SubBytes()": the inverse, then an affine map.
const SBOX: [u8; 256] = {
    let mut sbox = [0x63; 256];
    // 3 generates every element but 0, and 0xf6 is its inverse.
    let (mut element, mut inverse, mut n) = (1_u8, 1_u8, 0);
    while n < 255 {
        let i = inverse;
        sbox[element as usize] =
            i ^ i.rotate_left(1) ^ i.rotate_left(2) ^ i.rotate_left(3) ^ i.rotate_left(4) ^ 0x63;
        (element, inverse) = (multiply(element, 3), multiply(inverse, 0xf6));
        n += 1;
    }
    sbox
};

const INVERSE_SBOX: [u8; 256] = {
    let (mut inverse, mut n) = ([0; 256], 0);
    while n < 256 {
        inverse[SBOX[n] as usize] = n as u8;
        n += 1;
    }
    inverse
};

/// Byte `n` of the state is row `n % 4` of column `n / 4`; each row moves by its number, to the left or back.
fn shift_rows(state: B, back: bool) -> B {
    core::array::from_fn(|n| {
        let row = n % 4;
        let column = if back { n / 4 + 4 - row } else { n / 4 + row } % 4;
        state[row + 4 * column]
    })
}

/// Each column times a matrix whose rows are `factors`, turned.
fn mix_columns(state: B, factors: [u8; 4]) -> B {
    core::array::from_fn(|n| {
        let (row, column) = (n % 4, n / 4 * 4);
        (0..4).fold(0, |sum, at| sum ^ multiply(state[column + at], factors[(at + 4 - row) % 4]))
    })
}

const MIX: [u8; 4] = [2, 3, 1, 1];
const UNMIX: [u8; 4] = [14, 11, 13, 9];

/// AESENC, AESENCLAST.
pub(crate) fn encrypt<const LAST: bool>(a: u128, b: u128) -> u128 {
    let state = shift_rows(B::split(a), false).map(|byte| SBOX[usize::from(byte)]);
    let state = if LAST { state } else { mix_columns(state, MIX) };
    state.join() ^ b
}

/// AESDEC, AESDECLAST.
pub(crate) fn decrypt<const LAST: bool>(a: u128, b: u128) -> u128 {
    let state = shift_rows(B::split(a), true).map(|byte| INVERSE_SBOX[usize::from(byte)]);
    let state = if LAST { state } else { mix_columns(state, UNMIX) };
    state.join() ^ b
}

/// AESIMC.
pub(crate) fn unmix(_: u128, b: u128) -> u128 {
    mix_columns(B::split(b), UNMIX).join()
}

/// AESKEYGENASSIST.
pub(crate) fn assist_key(_: u128, b: u128, constant: u8) -> u128 {
    let words = D::split(b);
    let substitute = |word: u32| u32::from_le_bytes(word.to_le_bytes().map(|byte| SBOX[usize::from(byte)]));
    let turned = |word: u32| substitute(word).rotate_right(8) ^ u32::from(constant);
    [substitute(words[1]), turned(words[1]), substitute(words[3]), turned(words[3])].join()
}

/// PCLMULQDQ: bits 0 and 4 of the immediate choose the halves.
pub(crate) fn multiply_carryless(a: u128, b: u128, halves: u8) -> u128 {
    let a = u128::from(Q::split(a)[usize::from(halves & 1)]);
    let b = Q::split(b)[usize::from(halves >> 4 & 1)];
    (0..64).filter(|bit| b >> bit & 1 != 0).fold(0, |product, bit| product ^ a << bit)
}

/// Operands of the SHA instructions, highest doubleword first, as the manual names them.
fn words(value: u128) -> [u32; 4] {
    let [d, c, b, a] = D::split(value);
    [a, b, c, d]
}

fn from_words([a, b, c, d]: [u32; 4]) -> u128 {
    [d, c, b, a].join()
}

const fn choose(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ !x & z
}

const fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ x & z ^ y & z
}

const fn parity(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

/// SHA1RNDS4.
pub(crate) fn sha1_rounds(a: u128, b: u128, which: u8) -> u128 {
    let (f, constant): (fn(u32, u32, u32) -> u32, u32) = match which & 3 {
        0 => (choose, 0x5a82_7999),
        1 => (parity, 0x6ed9_eba1),
        2 => (majority, 0x8f1b_bcdc),
        _ => (parity, 0xca62_c1d6),
    };
    let (state, message) = (words(a), words(b));
    let ([mut a, mut b, mut c, mut d], mut e) = (state, 0_u32);
    for word in message {
        let next = f(b, c, d).wrapping_add(a.rotate_left(5)).wrapping_add(word).wrapping_add(e);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next.wrapping_add(constant));
    }
    from_words([a, b, c, d])
}

/// SHA1NEXTE.
pub(crate) fn sha1_next(a: u128, b: u128) -> u128 {
    let [e, rest @ ..] = words(b);
    from_words([e.wrapping_add(words(a)[0].rotate_left(30)), rest[0], rest[1], rest[2]])
}

/// SHA1MSG1.
pub(crate) fn sha1_message_1(a: u128, b: u128) -> u128 {
    let ([w0, w1, w2, w3], [w4, w5, ..]) = (words(a), words(b));
    from_words([w2 ^ w0, w3 ^ w1, w4 ^ w2, w5 ^ w3])
}

/// SHA1MSG2.
pub(crate) fn sha1_message_2(a: u128, b: u128) -> u128 {
    let ([a0, a1, a2, a3], [_, w13, w14, w15]) = (words(a), words(b));
    let w16 = (a0 ^ w13).rotate_left(1);
    from_words([w16, (a1 ^ w14).rotate_left(1), (a2 ^ w15).rotate_left(1), (a3 ^ w16).rotate_left(1)])
}

/// Three rotations, the last one a shift if `SHIFT`.
const fn sigma<const A: u32, const B: u32, const C: u32, const SHIFT: bool>(x: u32) -> u32 {
    x.rotate_right(A) ^ x.rotate_right(B) ^ if SHIFT { x >> C } else { x.rotate_right(C) }
}

/// SHA256RNDS2: the words and constants of both rounds are in XMM0.
pub(crate) fn sha256_rounds(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_sse()?;
    let source = x.source(op)?;
    let ([mut a, mut b, mut e, mut f], [mut c, mut d, mut g, mut h]) = (words(source), words(x.target(op)));
    let [_, _, second, first] = words(x.cpu.vectors.xmm(0));
    for word in [first, second] {
        let t1 =
            choose(e, f, g).wrapping_add(sigma::<6, 11, 25, false>(e)).wrapping_add(word).wrapping_add(h);
        let t2 = majority(a, b, c).wrapping_add(sigma::<2, 13, 22, false>(a));
        (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
        (d, c, b, a) = (c, b, a, t1.wrapping_add(t2));
    }
    x.set_target(op, from_words([a, b, e, f]));
    Ok(Flow::Next)
}

/// SHA256MSG1.
pub(crate) fn sha256_message_1(a: u128, b: u128) -> u128 {
    let ([w3, w2, w1, w0], [.., w4]) = (words(a), words(b));
    let s = |w: u32, next: u32| w.wrapping_add(sigma::<7, 18, 3, true>(next));
    from_words([s(w3, w4), s(w2, w3), s(w1, w2), s(w0, w1)])
}

/// SHA256MSG2.
pub(crate) fn sha256_message_2(a: u128, b: u128) -> u128 {
    let ([a3, a2, a1, a0], [w15, w14, ..]) = (words(a), words(b));
    let s = |word: u32, earlier: u32| word.wrapping_add(sigma::<17, 19, 10, true>(earlier));
    let (w16, w17) = (s(a0, w14), s(a1, w15));
    from_words([s(a3, w17), s(a2, w16), w17, w16])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 197 "Appendix C - Example Vectors", 128 bits: keys through AESKEYGENASSIST, both directions.
    #[test]
    fn aes_encrypts_and_decrypts_the_example_of_the_standard() {
        let bytes: [u8; 16] = core::array::from_fn(|n| n as u8);
        let plain = bytes.map(|n| n * 0x11).join();
        let mut keys = vec![bytes.join()];
        let mut constant = 1;
        for _ in 0..10 {
            let old = keys[keys.len() - 1];
            let turned = D::split(assist_key(0, old, constant))[3];
            let mut last = turned;
            let next = D::split(old).map(|word| {
                last ^= word;
                last
            });
            keys.push(next.join());
            constant = double(constant);
        }
        let mut state = plain ^ keys[0];
        for key in &keys[1..10] {
            state = encrypt::<false>(state, *key);
        }
        state = encrypt::<true>(state, keys[10]);
        assert_eq!(state.to_le_bytes(), 0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55a_u128.to_be_bytes());
        state ^= keys[10];
        for key in keys[1..10].iter().rev() {
            state = decrypt::<false>(state, unmix(0, *key));
        }
        assert_eq!(decrypt::<true>(state, keys[0]), plain);
    }

    #[test]
    fn products_without_carries_take_the_halves_that_are_asked_for() {
        let (a, b) = (3_u128 << 64 | 5, 0x8000_0000_0000_0001_u128 << 64 | 7);
        // (x^2 + 1) (x^2 + x + 1) and (x + 1) (x^63 + 1).
        assert_eq!(multiply_carryless(a, b, 0), 0b11011);
        assert_eq!(multiply_carryless(a, b, 0x11), 3 << 63 | 3);
        assert_eq!((multiply_carryless(a, b, 1), multiply_carryless(a, b, 0x10)), (0b1001, 5 << 63 | 5));
    }

    /// FIPS 180-4's schedule of SHA-256, word by word, and of SHA-1.
    #[test]
    fn message_schedules_are_those_of_the_standard() {
        let w: [u32; 16] = core::array::from_fn(|n| (n as u32 + 1).wrapping_mul(0x9e37_79b9));
        let four = |from: usize| from_words([w[from + 3], w[from + 2], w[from + 1], w[from]]);
        let mut long = w.to_vec();
        for n in 16..20 {
            let s0 = long[n - 15].rotate_right(7) ^ long[n - 15].rotate_right(18) ^ long[n - 15] >> 3;
            let s1 = long[n - 2].rotate_right(17) ^ long[n - 2].rotate_right(19) ^ long[n - 2] >> 10;
            long.push(s1.wrapping_add(long[n - 7]).wrapping_add(s0).wrapping_add(long[n - 16]));
        }
        let sums = D::split(sha256_message_1(four(0), four(4)));
        let middle: [u32; 4] = core::array::from_fn(|n| sums[n].wrapping_add(w[n + 9]));
        let next = sha256_message_2(middle.join(), four(12));
        assert_eq!(D::split(next)[..], long[16..]);

        // SHA-1 has its first word on top.
        let four = |from: usize| from_words([w[from], w[from + 1], w[from + 2], w[from + 3]]);
        let mut long = w.to_vec();
        for n in 16..20 {
            long.push((long[n - 3] ^ long[n - 8] ^ long[n - 14] ^ long[n - 16]).rotate_left(1));
        }
        let next = sha1_message_2(sha1_message_1(four(0), four(4)) ^ four(8), four(12));
        assert_eq!(words(next)[..], long[16..]);
    }
}
