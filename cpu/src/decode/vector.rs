//! From mnemonic to semantic function: MMX, SSE to SSE4.2, AES, SHA. A row joins a shape (how operands move) to a pure function.

use super::Decoded;
use super::table::{Row, combined, end, row, sized};
use crate::execute::save::{fxsave, xsave};
use crate::execute::simd::conversion::{self, INTEGER};
use crate::execute::simd::float::{self, ADD, DIV, MUL, SUB};
use crate::execute::simd::{blend, control, crypto, dot, estimate, lanes, moves, shuffle, strings, transfer};
use crate::execute::{Exec, Handler};
use iced_x86::{Code, Instruction, Mnemonic as M};

/// Lane by lane, whatever the width.
macro_rules! packed {
    ($f:expr) => {{
        let handler: Handler = |x: &mut Exec<'_, '_>, op: &Decoded| x.packed(op, $f);
        combined(handler, $f)
    }};
}

/// By the register's width: XMM, then MMX.
macro_rules! by_width {
    ($wide:expr, $narrow:expr) => {{
        let handler: Handler = |x: &mut Exec<'_, '_>, op: &Decoded| x.sized(op, $wide, $narrow);
        row(handler)
    }};
}

/// With an immediate.
macro_rules! immediate {
    ($f:expr) => {{
        let handler: Handler = |x: &mut Exec<'_, '_>, op: &Decoded| x.packed_immediate(op, $f);
        row(handler)
    }};
}

/// Shifted by a count.
macro_rules! shifted {
    ($f:expr) => {{
        let handler: Handler = |x: &mut Exec<'_, '_>, op: &Decoded| x.shift(op, $f);
        row(handler)
    }};
}

/// 32-bit integer lanes.
const I32: u32 = 32 | INTEGER;

/// The row of `instruction`, if it is one of these.
pub(super) fn handler(i: &Instruction) -> Option<Row> {
    integers(i)
        .or_else(|| reordering(i))
        .or_else(|| cryptography(i))
        .or_else(|| floats(i))
        .or_else(|| conversions(i))
        .or_else(|| moved(i))
        .or_else(|| saved(i))
}

fn integers(i: &Instruction) -> Option<Row> {
    Some(match i.mnemonic() {
        M::Paddb => packed!(lanes::paddb),
        M::Paddw => packed!(lanes::paddw),
        M::Paddd => packed!(lanes::paddd),
        M::Paddq => packed!(lanes::paddq),
        M::Psubb => packed!(lanes::psubb),
        M::Psubw => packed!(lanes::psubw),
        M::Psubd => packed!(lanes::psubd),
        M::Psubq => packed!(lanes::psubq),
        M::Paddsb => packed!(lanes::paddsb),
        M::Paddsw => packed!(lanes::paddsw),
        M::Paddusb => packed!(lanes::paddusb),
        M::Paddusw => packed!(lanes::paddusw),
        M::Psubsb => packed!(lanes::psubsb),
        M::Psubsw => packed!(lanes::psubsw),
        M::Psubusb => packed!(lanes::psubusb),
        M::Psubusw => packed!(lanes::psubusw),
        M::Pcmpeqb => packed!(lanes::pcmpeqb),
        M::Pcmpeqw => packed!(lanes::pcmpeqw),
        M::Pcmpeqd => packed!(lanes::pcmpeqd),
        M::Pcmpeqq => packed!(lanes::pcmpeqq),
        M::Pcmpgtb => packed!(lanes::pcmpgtb),
        M::Pcmpgtw => packed!(lanes::pcmpgtw),
        M::Pcmpgtd => packed!(lanes::pcmpgtd),
        M::Pcmpgtq => packed!(lanes::pcmpgtq),
        M::Pminub => packed!(lanes::pminub),
        M::Pminuw => packed!(lanes::pminuw),
        M::Pminud => packed!(lanes::pminud),
        M::Pminsb => packed!(lanes::pminsb),
        M::Pminsw => packed!(lanes::pminsw),
        M::Pminsd => packed!(lanes::pminsd),
        M::Pmaxub => packed!(lanes::pmaxub),
        M::Pmaxuw => packed!(lanes::pmaxuw),
        M::Pmaxud => packed!(lanes::pmaxud),
        M::Pmaxsb => packed!(lanes::pmaxsb),
        M::Pmaxsw => packed!(lanes::pmaxsw),
        M::Pmaxsd => packed!(lanes::pmaxsd),
        M::Pavgb => packed!(lanes::pavgb),
        M::Pavgw => packed!(lanes::pavgw),
        M::Pmullw => packed!(lanes::pmullw),
        M::Pmulld => packed!(lanes::pmulld),
        M::Pmulhw => packed!(lanes::pmulhw),
        M::Pmulhuw => packed!(lanes::pmulhuw),
        M::Pmulhrsw => packed!(lanes::pmulhrsw),
        M::Pmuludq => packed!(lanes::pmuludq),
        M::Pmuldq => packed!(lanes::pmuldq),
        M::Pmaddwd => packed!(lanes::pmaddwd),
        M::Pmaddubsw => packed!(lanes::pmaddubsw),
        M::Psadbw => packed!(lanes::psadbw),
        M::Psignb => packed!(lanes::psignb),
        M::Psignw => packed!(lanes::psignw),
        M::Psignd => packed!(lanes::psignd),
        M::Pabsb => packed!(lanes::pabsb),
        M::Pabsw => packed!(lanes::pabsw),
        M::Pabsd => packed!(lanes::pabsd),
        M::Phminposuw => packed!(lanes::phminposuw),
        M::Pand | M::Andps | M::Andpd => packed!(lanes::and),
        M::Pandn | M::Andnps | M::Andnpd => packed!(lanes::and_not),
        M::Por | M::Orps | M::Orpd => packed!(lanes::or),
        M::Pxor | M::Xorps | M::Xorpd => packed!(lanes::xor),
        M::Psllw => shifted!(lanes::psllw),
        M::Pslld => shifted!(lanes::pslld),
        M::Psllq => shifted!(lanes::psllq),
        M::Psrlw => shifted!(lanes::psrlw),
        M::Psrld => shifted!(lanes::psrld),
        M::Psrlq => shifted!(lanes::psrlq),
        M::Psraw => shifted!(lanes::psraw),
        M::Psrad => shifted!(lanes::psrad),
        M::Pslldq => shifted!(lanes::pslldq),
        M::Psrldq => shifted!(lanes::psrldq),
        M::Ptest => row(transfer::test),
        _ => return None,
    })
}

fn reordering(i: &Instruction) -> Option<Row> {
    use shuffle::{packssdw, packsswb, packuswb, palignr, pshufb, unpack, widen};
    Some(match i.mnemonic() {
        M::Punpcklbw => by_width!(unpack::<1, false, 16>, unpack::<1, false, 8>),
        M::Punpcklwd => by_width!(unpack::<2, false, 16>, unpack::<2, false, 8>),
        M::Punpckldq => by_width!(unpack::<4, false, 16>, unpack::<4, false, 8>),
        M::Punpckhbw => by_width!(unpack::<1, true, 16>, unpack::<1, true, 8>),
        M::Punpckhwd => by_width!(unpack::<2, true, 16>, unpack::<2, true, 8>),
        M::Punpckhdq => by_width!(unpack::<4, true, 16>, unpack::<4, true, 8>),
        M::Unpcklps => packed!(unpack::<4, false, 16>),
        M::Unpckhps => packed!(unpack::<4, true, 16>),
        M::Punpcklqdq | M::Unpcklpd => packed!(unpack::<8, false, 16>),
        M::Punpckhqdq | M::Unpckhpd => packed!(unpack::<8, true, 16>),
        M::Packsswb => by_width!(packsswb::<16>, packsswb::<8>),
        M::Packuswb => by_width!(packuswb::<16>, packuswb::<8>),
        M::Packssdw => by_width!(packssdw::<16>, packssdw::<8>),
        M::Packusdw => packed!(shuffle::packusdw),
        M::Pshufb => by_width!(pshufb::<16>, pshufb::<8>),
        M::Palignr if i.code() == Code::Palignr_mm_mmm64_imm8 => immediate!(palignr::<8>),
        M::Palignr => immediate!(palignr::<16>),
        M::Pshufd => immediate!(shuffle::pshufd),
        M::Pshuflw | M::Pshufw => immediate!(shuffle::pshuflw),
        M::Pshufhw => immediate!(shuffle::pshufhw),
        M::Shufps => immediate!(shuffle::shufps),
        M::Shufpd => immediate!(shuffle::shufpd),
        M::Mpsadbw => immediate!(shuffle::mpsadbw),
        M::Phaddw => by_width!(shuffle::phaddw::<16>, shuffle::phaddw::<8>),
        M::Phaddd => by_width!(shuffle::phaddd::<16>, shuffle::phaddd::<8>),
        M::Phaddsw => by_width!(shuffle::phaddsw::<16>, shuffle::phaddsw::<8>),
        M::Phsubw => by_width!(shuffle::phsubw::<16>, shuffle::phsubw::<8>),
        M::Phsubd => by_width!(shuffle::phsubd::<16>, shuffle::phsubd::<8>),
        M::Phsubsw => by_width!(shuffle::phsubsw::<16>, shuffle::phsubsw::<8>),
        M::Pmovsxbw => packed!(widen::<8, 16, true>),
        M::Pmovsxbd => packed!(widen::<8, 32, true>),
        M::Pmovsxbq => packed!(widen::<8, 64, true>),
        M::Pmovsxwd => packed!(widen::<16, 32, true>),
        M::Pmovsxwq => packed!(widen::<16, 64, true>),
        M::Pmovsxdq => packed!(widen::<32, 64, true>),
        M::Pmovzxbw => packed!(widen::<8, 16, false>),
        M::Pmovzxbd => packed!(widen::<8, 32, false>),
        M::Pmovzxbq => packed!(widen::<8, 64, false>),
        M::Pmovzxwd => packed!(widen::<16, 32, false>),
        M::Pmovzxwq => packed!(widen::<16, 64, false>),
        M::Pmovzxdq => packed!(widen::<32, 64, false>),
        M::Movddup => packed!(shuffle::movddup),
        M::Movsldup => packed!(shuffle::duplicate::<0>),
        M::Movshdup => packed!(shuffle::duplicate::<1>),
        M::Blendps => immediate!(blend::immediate::<4>),
        M::Blendpd => immediate!(blend::immediate::<8>),
        M::Pblendw => immediate!(blend::immediate::<2>),
        M::Blendvps => row(blend::variable::<4>),
        M::Blendvpd => row(blend::variable::<8>),
        M::Pblendvb => row(blend::variable::<1>),
        M::Pcmpestri | M::Pcmpestri64 => sized(row(strings::compare::<true, true>), length_size(i)),
        M::Pcmpestrm | M::Pcmpestrm64 => sized(row(strings::compare::<true, false>), length_size(i)),
        M::Pcmpistri => row(strings::compare::<false, true>),
        M::Pcmpistrm => row(strings::compare::<false, false>),
        _ => return None,
    })
}

fn cryptography(i: &Instruction) -> Option<Row> {
    Some(match i.mnemonic() {
        M::Aesenc => packed!(crypto::encrypt::<false>),
        M::Aesenclast => packed!(crypto::encrypt::<true>),
        M::Aesdec => packed!(crypto::decrypt::<false>),
        M::Aesdeclast => packed!(crypto::decrypt::<true>),
        M::Aesimc => packed!(crypto::unmix),
        M::Aeskeygenassist => immediate!(crypto::assist_key),
        M::Pclmulqdq => immediate!(crypto::multiply_carryless),
        M::Sha1rnds4 => immediate!(crypto::sha1_rounds),
        M::Sha1nexte => packed!(crypto::sha1_next),
        M::Sha1msg1 => packed!(crypto::sha1_message_1),
        M::Sha1msg2 => packed!(crypto::sha1_message_2),
        M::Sha256rnds2 => row(crypto::sha256_rounds),
        M::Sha256msg1 => packed!(crypto::sha256_message_1),
        M::Sha256msg2 => packed!(crypto::sha256_message_2),
        _ => return None,
    })
}

/// Bytes of the explicit lengths of PCMPESTRx.
fn length_size(i: &Instruction) -> u8 {
    if matches!(i.mnemonic(), M::Pcmpestri64 | M::Pcmpestrm64) { 8 } else { 4 }
}

fn floats(i: &Instruction) -> Option<Row> {
    use float::{arithmetic, compare, compare_flags, extreme, horizontal, round, square_root};
    let string = i.is_string_instruction();
    Some(match i.mnemonic() {
        M::Addps => row(arithmetic::<ADD, 32, 4>),
        M::Addss => row(arithmetic::<ADD, 32, 1>),
        M::Addpd => row(arithmetic::<ADD, 64, 2>),
        M::Addsd => row(arithmetic::<ADD, 64, 1>),
        M::Subps => row(arithmetic::<SUB, 32, 4>),
        M::Subss => row(arithmetic::<SUB, 32, 1>),
        M::Subpd => row(arithmetic::<SUB, 64, 2>),
        M::Subsd => row(arithmetic::<SUB, 64, 1>),
        M::Mulps => row(arithmetic::<MUL, 32, 4>),
        M::Mulss => row(arithmetic::<MUL, 32, 1>),
        M::Mulpd => row(arithmetic::<MUL, 64, 2>),
        M::Mulsd => row(arithmetic::<MUL, 64, 1>),
        M::Divps => row(arithmetic::<DIV, 32, 4>),
        M::Divss => row(arithmetic::<DIV, 32, 1>),
        M::Divpd => row(arithmetic::<DIV, 64, 2>),
        M::Divsd => row(arithmetic::<DIV, 64, 1>),
        M::Minps => row(extreme::<false, 32, 4>),
        M::Minss => row(extreme::<false, 32, 1>),
        M::Minpd => row(extreme::<false, 64, 2>),
        M::Minsd => row(extreme::<false, 64, 1>),
        M::Maxps => row(extreme::<true, 32, 4>),
        M::Maxss => row(extreme::<true, 32, 1>),
        M::Maxpd => row(extreme::<true, 64, 2>),
        M::Maxsd => row(extreme::<true, 64, 1>),
        M::Sqrtps => row(square_root::<32, 4>),
        M::Sqrtss => row(square_root::<32, 1>),
        M::Sqrtpd => row(square_root::<64, 2>),
        M::Sqrtsd => row(square_root::<64, 1>),
        M::Addsubps => row(float::add_sub::<32>),
        M::Addsubpd => row(float::add_sub::<64>),
        M::Haddps => row(horizontal::<ADD, 32>),
        M::Haddpd => row(horizontal::<ADD, 64>),
        M::Hsubps => row(horizontal::<SUB, 32>),
        M::Hsubpd => row(horizontal::<SUB, 64>),
        M::Cmpps => row(compare::<32, 4>),
        M::Cmpss => row(compare::<32, 1>),
        M::Cmppd => row(compare::<64, 2>),
        M::Cmpsd if !string => row(compare::<64, 1>),
        M::Comiss => row(compare_flags::<32, false>),
        M::Comisd => row(compare_flags::<64, false>),
        M::Ucomiss => row(compare_flags::<32, true>),
        M::Ucomisd => row(compare_flags::<64, true>),
        M::Roundps => row(round::<32, 4>),
        M::Roundss => row(round::<32, 1>),
        M::Roundpd => row(round::<64, 2>),
        M::Roundsd => row(round::<64, 1>),
        M::Dpps => row(dot::product::<32>),
        M::Dppd => row(dot::product::<64>),
        M::Rcpps => row(estimate::estimate::<false, 4>),
        M::Rcpss => row(estimate::estimate::<false, 1>),
        M::Rsqrtps => row(estimate::estimate::<true, 4>),
        M::Rsqrtss => row(estimate::estimate::<true, 1>),
        _ => return None,
    })
}

fn conversions(i: &Instruction) -> Option<Row> {
    use conversion::{from_mmx, from_register, packed, scalar, to_mmx, to_register};
    Some(match i.mnemonic() {
        M::Cvtdq2ps => row(packed::<I32, 32, false>),
        M::Cvtdq2pd => row(packed::<I32, 64, false>),
        M::Cvtps2dq => row(packed::<32, I32, false>),
        M::Cvttps2dq => row(packed::<32, I32, true>),
        M::Cvtpd2dq => row(packed::<64, I32, false>),
        M::Cvttpd2dq => row(packed::<64, I32, true>),
        M::Cvtps2pd => row(packed::<32, 64, false>),
        M::Cvtpd2ps => row(packed::<64, 32, false>),
        M::Cvtss2sd => row(scalar::<32, 64>),
        M::Cvtsd2ss => row(scalar::<64, 32>),
        M::Cvtsi2ss => row(from_register::<32>),
        M::Cvtsi2sd => row(from_register::<64>),
        M::Cvtss2si => row(to_register::<32, false>),
        M::Cvttss2si => row(to_register::<32, true>),
        M::Cvtsd2si => row(to_register::<64, false>),
        M::Cvttsd2si => row(to_register::<64, true>),
        M::Cvtpi2ps => row(from_mmx::<32>),
        M::Cvtpi2pd => row(from_mmx::<64>),
        M::Cvtps2pi => row(to_mmx::<32, false>),
        M::Cvttps2pi => row(to_mmx::<32, true>),
        M::Cvtpd2pi => row(to_mmx::<64, false>),
        M::Cvttpd2pi => row(to_mmx::<64, true>),
        _ => return None,
    })
}

fn moved(i: &Instruction) -> Option<Row> {
    Some(match i.mnemonic() {
        M::Movaps | M::Movapd | M::Movdqa | M::Movntps | M::Movntpd | M::Movntdq | M::Movntdqa => {
            row(moves::whole::<true>)
        }
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => row(moves::whole::<false>),
        M::Movss => row(moves::scalar::<4>),
        M::Movsd if !i.is_string_instruction() => row(moves::scalar::<8>),
        M::Movd | M::Movq | M::Movntq | M::Movq2dq | M::Movdq2q => row(moves::doubleword),
        M::Movlps | M::Movlpd => row(moves::low_half),
        M::Movhps | M::Movhpd => row(moves::high_half),
        M::Movhlps => packed!(moves::high_to_low),
        M::Movlhps => packed!(moves::low_to_high),
        M::Maskmovdqu | M::Maskmovq => row(moves::masked),
        M::Pinsrb => row(transfer::insert::<1>),
        M::Pinsrw => row(transfer::insert::<2>),
        M::Pinsrd => row(transfer::insert::<4>),
        M::Pinsrq => row(transfer::insert::<8>),
        M::Pextrb => row(transfer::extract::<1>),
        M::Pextrw => row(transfer::extract::<2>),
        M::Pextrd | M::Extractps => row(transfer::extract::<4>),
        M::Pextrq => row(transfer::extract::<8>),
        M::Insertps => row(transfer::insert_single),
        M::Movmskps => row(transfer::sign_mask::<4>),
        M::Movmskpd => row(transfer::sign_mask::<8>),
        M::Pmovmskb => row(transfer::sign_mask::<1>),
        M::Ldmxcsr => row(control::load),
        M::Stmxcsr => row(control::store),
        M::Emms => row(control::empty),
        _ => return None,
    })
}

/// State save and restore; what follows may run under other protection keys or with another x87 state.
fn saved(i: &Instruction) -> Option<Row> {
    Some(match i.mnemonic() {
        M::Fxsave => row(fxsave::save::<false>),
        M::Fxsave64 => row(fxsave::save::<true>),
        M::Fxrstor => row(fxsave::restore::<false>),
        M::Fxrstor64 => row(fxsave::restore::<true>),
        M::Xsave => row(xsave::save::<false>),
        M::Xsave64 => row(xsave::save::<true>),
        M::Xsaveopt => row(xsave::save_optimised::<false>),
        M::Xsaveopt64 => row(xsave::save_optimised::<true>),
        M::Xsavec => row(xsave::save_compacted::<false>),
        M::Xsavec64 => row(xsave::save_compacted::<true>),
        M::Xsaves => row(xsave::save_supervisor::<false>),
        M::Xsaves64 => row(xsave::save_supervisor::<true>),
        M::Xrstor => end(xsave::restore::<false>),
        M::Xrstor64 => end(xsave::restore::<true>),
        M::Xrstors => end(xsave::restore_supervisor::<false>),
        M::Xrstors64 => end(xsave::restore_supervisor::<true>),
        _ => return None,
    })
}
