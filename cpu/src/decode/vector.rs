//! From mnemonic to semantic function: MMX, SSE to SSE4.2, AES, SHA, AVX, AVX2, FMA, F16C. A row joins a shape (how operands move) to a
//! pure function; the legacy and the VEX encoding of an operation share it.

use super::Decoded;
use super::table::{Row, combined, end, row, sized, variant};
use crate::execute::save::{fxsave, xsave};
use crate::execute::simd::conversion::{self, INTEGER};
use crate::execute::simd::float::{self, ADD, DIV, MUL, SUB};
use crate::execute::simd::gather::{WIDE_INDEX, gather};
use crate::execute::simd::{
    blend, control, crypto, dot, estimate, lanes, masked, moves, permute, shuffle, strings, transfer,
};
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

/// With an immediate, of which the upper half of a YMM register uses the bits from `$bits` on.
macro_rules! immediate {
    ($f:expr) => {
        immediate!($f, 0)
    };
    ($f:expr, $bits:literal) => {{
        let handler: Handler = |x: &mut Exec<'_, '_>, op: &Decoded| x.packed_immediate(op, $f, $bits);
        row(handler)
    }};
}

/// Across the halves of YMM registers.
macro_rules! crossing {
    ($f:expr) => {{
        let handler: Handler = |x: &mut Exec<'_, '_>, op: &Decoded| x.crossing(op, $f);
        row(handler)
    }};
}

/// Lanes of `$from` bits to lanes of `$to` bits.
macro_rules! widened {
    ($from:literal, $to:literal, $signed:literal) => {{
        let handler: Handler = |x: &mut Exec<'_, '_>, op: &Decoded| {
            x.widened(op, shuffle::widen::<$from, $to, $signed>, 128 / $to * $from)
        };
        combined(handler, shuffle::widen::<$from, $to, $signed>)
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
        .or_else(|| with_vex_alone(i))
        .or_else(|| cryptography(i))
        .or_else(|| floats(i))
        .or_else(|| fused(i))
        .or_else(|| conversions(i))
        .or_else(|| moved(i))
        .or_else(|| saved(i))
}

fn integers(i: &Instruction) -> Option<Row> {
    Some(match i.mnemonic() {
        M::Paddb | M::Vpaddb => packed!(lanes::paddb),
        M::Paddw | M::Vpaddw => packed!(lanes::paddw),
        M::Paddd | M::Vpaddd => packed!(lanes::paddd),
        M::Paddq | M::Vpaddq => packed!(lanes::paddq),
        M::Psubb | M::Vpsubb => packed!(lanes::psubb),
        M::Psubw | M::Vpsubw => packed!(lanes::psubw),
        M::Psubd | M::Vpsubd => packed!(lanes::psubd),
        M::Psubq | M::Vpsubq => packed!(lanes::psubq),
        M::Paddsb | M::Vpaddsb => packed!(lanes::paddsb),
        M::Paddsw | M::Vpaddsw => packed!(lanes::paddsw),
        M::Paddusb | M::Vpaddusb => packed!(lanes::paddusb),
        M::Paddusw | M::Vpaddusw => packed!(lanes::paddusw),
        M::Psubsb | M::Vpsubsb => packed!(lanes::psubsb),
        M::Psubsw | M::Vpsubsw => packed!(lanes::psubsw),
        M::Psubusb | M::Vpsubusb => packed!(lanes::psubusb),
        M::Psubusw | M::Vpsubusw => packed!(lanes::psubusw),
        M::Pcmpeqb | M::Vpcmpeqb => packed!(lanes::pcmpeqb),
        M::Pcmpeqw | M::Vpcmpeqw => packed!(lanes::pcmpeqw),
        M::Pcmpeqd | M::Vpcmpeqd => packed!(lanes::pcmpeqd),
        M::Pcmpeqq | M::Vpcmpeqq => packed!(lanes::pcmpeqq),
        M::Pcmpgtb | M::Vpcmpgtb => packed!(lanes::pcmpgtb),
        M::Pcmpgtw | M::Vpcmpgtw => packed!(lanes::pcmpgtw),
        M::Pcmpgtd | M::Vpcmpgtd => packed!(lanes::pcmpgtd),
        M::Pcmpgtq | M::Vpcmpgtq => packed!(lanes::pcmpgtq),
        M::Pminub | M::Vpminub => packed!(lanes::pminub),
        M::Pminuw | M::Vpminuw => packed!(lanes::pminuw),
        M::Pminud | M::Vpminud => packed!(lanes::pminud),
        M::Pminsb | M::Vpminsb => packed!(lanes::pminsb),
        M::Pminsw | M::Vpminsw => packed!(lanes::pminsw),
        M::Pminsd | M::Vpminsd => packed!(lanes::pminsd),
        M::Pmaxub | M::Vpmaxub => packed!(lanes::pmaxub),
        M::Pmaxuw | M::Vpmaxuw => packed!(lanes::pmaxuw),
        M::Pmaxud | M::Vpmaxud => packed!(lanes::pmaxud),
        M::Pmaxsb | M::Vpmaxsb => packed!(lanes::pmaxsb),
        M::Pmaxsw | M::Vpmaxsw => packed!(lanes::pmaxsw),
        M::Pmaxsd | M::Vpmaxsd => packed!(lanes::pmaxsd),
        M::Pavgb | M::Vpavgb => packed!(lanes::pavgb),
        M::Pavgw | M::Vpavgw => packed!(lanes::pavgw),
        M::Pmullw | M::Vpmullw => packed!(lanes::pmullw),
        M::Pmulld | M::Vpmulld => packed!(lanes::pmulld),
        M::Pmulhw | M::Vpmulhw => packed!(lanes::pmulhw),
        M::Pmulhuw | M::Vpmulhuw => packed!(lanes::pmulhuw),
        M::Pmulhrsw | M::Vpmulhrsw => packed!(lanes::pmulhrsw),
        M::Pmuludq | M::Vpmuludq => packed!(lanes::pmuludq),
        M::Pmuldq | M::Vpmuldq => packed!(lanes::pmuldq),
        M::Pmaddwd | M::Vpmaddwd => packed!(lanes::pmaddwd),
        M::Pmaddubsw | M::Vpmaddubsw => packed!(lanes::pmaddubsw),
        M::Psadbw | M::Vpsadbw => packed!(lanes::psadbw),
        M::Psignb | M::Vpsignb => packed!(lanes::psignb),
        M::Psignw | M::Vpsignw => packed!(lanes::psignw),
        M::Psignd | M::Vpsignd => packed!(lanes::psignd),
        M::Pabsb | M::Vpabsb => packed!(lanes::pabsb),
        M::Pabsw | M::Vpabsw => packed!(lanes::pabsw),
        M::Pabsd | M::Vpabsd => packed!(lanes::pabsd),
        M::Phminposuw | M::Vphminposuw => packed!(lanes::phminposuw),
        M::Pand | M::Andps | M::Andpd | M::Vpand | M::Vandps | M::Vandpd => packed!(lanes::and),
        M::Pandn | M::Andnps | M::Andnpd | M::Vpandn | M::Vandnps | M::Vandnpd => packed!(lanes::and_not),
        M::Por | M::Orps | M::Orpd | M::Vpor | M::Vorps | M::Vorpd => packed!(lanes::or),
        M::Pxor | M::Xorps | M::Xorpd | M::Vpxor | M::Vxorps | M::Vxorpd => packed!(lanes::xor),
        M::Psllw | M::Vpsllw => shifted!(lanes::psllw),
        M::Pslld | M::Vpslld => shifted!(lanes::pslld),
        M::Psllq | M::Vpsllq => shifted!(lanes::psllq),
        M::Psrlw | M::Vpsrlw => shifted!(lanes::psrlw),
        M::Psrld | M::Vpsrld => shifted!(lanes::psrld),
        M::Psrlq | M::Vpsrlq => shifted!(lanes::psrlq),
        M::Psraw | M::Vpsraw => shifted!(lanes::psraw),
        M::Psrad | M::Vpsrad => shifted!(lanes::psrad),
        M::Pslldq | M::Vpslldq => shifted!(lanes::pslldq),
        M::Psrldq | M::Vpsrldq => shifted!(lanes::psrldq),
        M::Ptest | M::Vptest => row(transfer::test::<{ u128::MAX }>),
        _ => return None,
    })
}

fn reordering(i: &Instruction) -> Option<Row> {
    use shuffle::{packssdw, packsswb, packuswb, palignr, pshufb, unpack};
    Some(match i.mnemonic() {
        M::Punpcklbw | M::Vpunpcklbw => by_width!(unpack::<1, false, 16>, unpack::<1, false, 8>),
        M::Punpcklwd | M::Vpunpcklwd => by_width!(unpack::<2, false, 16>, unpack::<2, false, 8>),
        M::Punpckldq | M::Vpunpckldq => by_width!(unpack::<4, false, 16>, unpack::<4, false, 8>),
        M::Punpckhbw | M::Vpunpckhbw => by_width!(unpack::<1, true, 16>, unpack::<1, true, 8>),
        M::Punpckhwd | M::Vpunpckhwd => by_width!(unpack::<2, true, 16>, unpack::<2, true, 8>),
        M::Punpckhdq | M::Vpunpckhdq => by_width!(unpack::<4, true, 16>, unpack::<4, true, 8>),
        M::Unpcklps | M::Vunpcklps => packed!(unpack::<4, false, 16>),
        M::Unpckhps | M::Vunpckhps => packed!(unpack::<4, true, 16>),
        M::Punpcklqdq | M::Unpcklpd | M::Vpunpcklqdq | M::Vunpcklpd => packed!(unpack::<8, false, 16>),
        M::Punpckhqdq | M::Unpckhpd | M::Vpunpckhqdq | M::Vunpckhpd => packed!(unpack::<8, true, 16>),
        M::Packsswb | M::Vpacksswb => by_width!(packsswb::<16>, packsswb::<8>),
        M::Packuswb | M::Vpackuswb => by_width!(packuswb::<16>, packuswb::<8>),
        M::Packssdw | M::Vpackssdw => by_width!(packssdw::<16>, packssdw::<8>),
        M::Packusdw | M::Vpackusdw => packed!(shuffle::packusdw),
        M::Pshufb | M::Vpshufb => by_width!(pshufb::<16>, pshufb::<8>),
        M::Palignr if i.code() == Code::Palignr_mm_mmm64_imm8 => immediate!(palignr::<8>),
        M::Palignr | M::Vpalignr => immediate!(palignr::<16>),
        M::Pshufd | M::Vpshufd => immediate!(shuffle::pshufd),
        M::Pshuflw | M::Pshufw | M::Vpshuflw => immediate!(shuffle::pshuflw),
        M::Pshufhw | M::Vpshufhw => immediate!(shuffle::pshufhw),
        M::Shufps | M::Vshufps => immediate!(shuffle::shufps),
        M::Shufpd | M::Vshufpd => immediate!(shuffle::shufpd, 2),
        M::Mpsadbw | M::Vmpsadbw => immediate!(shuffle::mpsadbw, 3),
        M::Phaddw | M::Vphaddw => by_width!(shuffle::phaddw::<16>, shuffle::phaddw::<8>),
        M::Phaddd | M::Vphaddd => by_width!(shuffle::phaddd::<16>, shuffle::phaddd::<8>),
        M::Phaddsw | M::Vphaddsw => by_width!(shuffle::phaddsw::<16>, shuffle::phaddsw::<8>),
        M::Phsubw | M::Vphsubw => by_width!(shuffle::phsubw::<16>, shuffle::phsubw::<8>),
        M::Phsubd | M::Vphsubd => by_width!(shuffle::phsubd::<16>, shuffle::phsubd::<8>),
        M::Phsubsw | M::Vphsubsw => by_width!(shuffle::phsubsw::<16>, shuffle::phsubsw::<8>),
        M::Pmovsxbw | M::Vpmovsxbw => widened!(8, 16, true),
        M::Pmovsxbd | M::Vpmovsxbd => widened!(8, 32, true),
        M::Pmovsxbq | M::Vpmovsxbq => widened!(8, 64, true),
        M::Pmovsxwd | M::Vpmovsxwd => widened!(16, 32, true),
        M::Pmovsxwq | M::Vpmovsxwq => widened!(16, 64, true),
        M::Pmovsxdq | M::Vpmovsxdq => widened!(32, 64, true),
        M::Pmovzxbw | M::Vpmovzxbw => widened!(8, 16, false),
        M::Pmovzxbd | M::Vpmovzxbd => widened!(8, 32, false),
        M::Pmovzxbq | M::Vpmovzxbq => widened!(8, 64, false),
        M::Pmovzxwd | M::Vpmovzxwd => widened!(16, 32, false),
        M::Pmovzxwq | M::Vpmovzxwq => widened!(16, 64, false),
        M::Pmovzxdq | M::Vpmovzxdq => widened!(32, 64, false),
        M::Movddup | M::Vmovddup => packed!(shuffle::movddup),
        M::Movsldup | M::Vmovsldup => packed!(shuffle::duplicate::<0>),
        M::Movshdup | M::Vmovshdup => packed!(shuffle::duplicate::<1>),
        M::Blendps | M::Vblendps => immediate!(blend::immediate::<4>, 4),
        M::Blendpd | M::Vblendpd => immediate!(blend::immediate::<8>, 2),
        M::Pblendw | M::Vpblendw => immediate!(blend::immediate::<2>),
        M::Blendvps | M::Vblendvps => variant(row(blend::variable::<4>), mask_register(i)),
        M::Blendvpd | M::Vblendvpd => variant(row(blend::variable::<8>), mask_register(i)),
        M::Pblendvb | M::Vpblendvb => variant(row(blend::variable::<1>), mask_register(i)),
        M::Pcmpestri | M::Pcmpestri64 | M::Vpcmpestri | M::Vpcmpestri64 => {
            sized(row(strings::compare::<true, true>), length_size(i))
        }
        M::Pcmpestrm | M::Pcmpestrm64 | M::Vpcmpestrm | M::Vpcmpestrm64 => {
            sized(row(strings::compare::<true, false>), length_size(i))
        }
        M::Pcmpistri | M::Vpcmpistri => row(strings::compare::<false, true>),
        M::Pcmpistrm | M::Vpcmpistrm => row(strings::compare::<false, false>),
        _ => return None,
    })
}

/// The mask of a variable blend: the fourth operand with VEX, else XMM0.
fn mask_register(i: &Instruction) -> u64 {
    if i.op_count() > 3 { i.op3_register().number() as u64 } else { 0 }
}

/// The register that has the offsets of a gather.
fn index_register(i: &Instruction) -> u64 {
    let register = i.memory_index();
    register.number() as u64 & 15 | if register.is_ymm() { WIDE_INDEX } else { 0 }
}

/// What came with AVX and AVX2.
fn with_vex_alone(i: &Instruction) -> Option<Row> {
    let to_memory = i.op0_kind() == iced_x86::OpKind::Memory;
    Some(match i.mnemonic() {
        M::Vzeroupper => row(control::zero::<false>),
        M::Vzeroall => row(control::zero::<true>),
        M::Vbroadcastss | M::Vpbroadcastd => row(permute::broadcast::<4>),
        M::Vbroadcastsd | M::Vpbroadcastq => row(permute::broadcast::<8>),
        M::Vbroadcastf128 | M::Vbroadcasti128 => row(permute::broadcast::<16>),
        M::Vpbroadcastb => row(permute::broadcast::<1>),
        M::Vpbroadcastw => row(permute::broadcast::<2>),
        M::Vinsertf128 | M::Vinserti128 => crossing!(permute::insert),
        M::Vextractf128 | M::Vextracti128 => row(permute::extract),
        M::Vperm2f128 | M::Vperm2i128 => crossing!(permute::halves),
        M::Vpermd | M::Vpermps => crossing!(permute::doublewords),
        M::Vpermq | M::Vpermpd => crossing!(permute::quadwords),
        M::Vpermilps if has_immediate(i) => immediate!(shuffle::pshufd),
        M::Vpermilps => packed!(permute::singles),
        M::Vpermilpd if has_immediate(i) => immediate!(permute::doubles_immediate, 2),
        M::Vpermilpd => packed!(permute::doubles),
        M::Vpblendd => immediate!(blend::immediate::<4>, 4),
        M::Vtestps => row(transfer::test::<{ 1 << 127 | 1 << 95 | 1 << 63 | 1 << 31 }>),
        M::Vtestpd => row(transfer::test::<{ 1 << 127 | 1 << 63 }>),
        M::Vpsllvd => packed!(lanes::psllvd),
        M::Vpsllvq => packed!(lanes::psllvq),
        M::Vpsrlvd => packed!(lanes::psrlvd),
        M::Vpsrlvq => packed!(lanes::psrlvq),
        M::Vpsravd => packed!(lanes::psravd),
        M::Vmaskmovps | M::Vpmaskmovd if to_memory => row(masked::store::<32>),
        M::Vmaskmovps | M::Vpmaskmovd => row(masked::load::<32>),
        M::Vmaskmovpd | M::Vpmaskmovq if to_memory => row(masked::store::<64>),
        M::Vmaskmovpd | M::Vpmaskmovq => row(masked::load::<64>),
        M::Vgatherdps | M::Vpgatherdd => variant(row(gather::<32, 32>), index_register(i)),
        M::Vgatherqps | M::Vpgatherqd => variant(row(gather::<32, 64>), index_register(i)),
        M::Vgatherdpd | M::Vpgatherdq => variant(row(gather::<64, 32>), index_register(i)),
        M::Vgatherqpd | M::Vpgatherqq => variant(row(gather::<64, 64>), index_register(i)),
        _ => return None,
    })
}

/// Whether the last operand is an immediate.
fn has_immediate(i: &Instruction) -> bool {
    i.op_kind(i.op_count() - 1) == iced_x86::OpKind::Immediate8
}

fn cryptography(i: &Instruction) -> Option<Row> {
    Some(match i.mnemonic() {
        M::Aesenc | M::Vaesenc => packed!(crypto::encrypt::<false>),
        M::Aesenclast | M::Vaesenclast => packed!(crypto::encrypt::<true>),
        M::Aesdec | M::Vaesdec => packed!(crypto::decrypt::<false>),
        M::Aesdeclast | M::Vaesdeclast => packed!(crypto::decrypt::<true>),
        M::Aesimc | M::Vaesimc => packed!(crypto::unmix),
        M::Aeskeygenassist | M::Vaeskeygenassist => immediate!(crypto::assist_key),
        M::Pclmulqdq | M::Vpclmulqdq => immediate!(crypto::multiply_carryless),
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
    if matches!(i.mnemonic(), M::Pcmpestri64 | M::Pcmpestrm64 | M::Vpcmpestri64 | M::Vpcmpestrm64) {
        8
    } else {
        4
    }
}

fn floats(i: &Instruction) -> Option<Row> {
    use float::{arithmetic, compare, compare_flags, extreme, horizontal, round, square_root};
    let string = i.is_string_instruction();
    Some(match i.mnemonic() {
        M::Addps | M::Vaddps => row(arithmetic::<ADD, 32, 4>),
        M::Addss | M::Vaddss => row(arithmetic::<ADD, 32, 1>),
        M::Addpd | M::Vaddpd => row(arithmetic::<ADD, 64, 2>),
        M::Addsd | M::Vaddsd => row(arithmetic::<ADD, 64, 1>),
        M::Subps | M::Vsubps => row(arithmetic::<SUB, 32, 4>),
        M::Subss | M::Vsubss => row(arithmetic::<SUB, 32, 1>),
        M::Subpd | M::Vsubpd => row(arithmetic::<SUB, 64, 2>),
        M::Subsd | M::Vsubsd => row(arithmetic::<SUB, 64, 1>),
        M::Mulps | M::Vmulps => row(arithmetic::<MUL, 32, 4>),
        M::Mulss | M::Vmulss => row(arithmetic::<MUL, 32, 1>),
        M::Mulpd | M::Vmulpd => row(arithmetic::<MUL, 64, 2>),
        M::Mulsd | M::Vmulsd => row(arithmetic::<MUL, 64, 1>),
        M::Divps | M::Vdivps => row(arithmetic::<DIV, 32, 4>),
        M::Divss | M::Vdivss => row(arithmetic::<DIV, 32, 1>),
        M::Divpd | M::Vdivpd => row(arithmetic::<DIV, 64, 2>),
        M::Divsd | M::Vdivsd => row(arithmetic::<DIV, 64, 1>),
        M::Minps | M::Vminps => row(extreme::<false, 32, 4>),
        M::Minss | M::Vminss => row(extreme::<false, 32, 1>),
        M::Minpd | M::Vminpd => row(extreme::<false, 64, 2>),
        M::Minsd | M::Vminsd => row(extreme::<false, 64, 1>),
        M::Maxps | M::Vmaxps => row(extreme::<true, 32, 4>),
        M::Maxss | M::Vmaxss => row(extreme::<true, 32, 1>),
        M::Maxpd | M::Vmaxpd => row(extreme::<true, 64, 2>),
        M::Maxsd | M::Vmaxsd => row(extreme::<true, 64, 1>),
        M::Sqrtps | M::Vsqrtps => row(square_root::<32, 4>),
        M::Sqrtss | M::Vsqrtss => row(square_root::<32, 1>),
        M::Sqrtpd | M::Vsqrtpd => row(square_root::<64, 2>),
        M::Sqrtsd | M::Vsqrtsd => row(square_root::<64, 1>),
        M::Addsubps | M::Vaddsubps => row(float::add_sub::<32>),
        M::Addsubpd | M::Vaddsubpd => row(float::add_sub::<64>),
        M::Haddps | M::Vhaddps => row(horizontal::<ADD, 32>),
        M::Haddpd | M::Vhaddpd => row(horizontal::<ADD, 64>),
        M::Hsubps | M::Vhsubps => row(horizontal::<SUB, 32>),
        M::Hsubpd | M::Vhsubpd => row(horizontal::<SUB, 64>),
        M::Cmpps | M::Vcmpps => row(compare::<32, 4>),
        M::Cmpss | M::Vcmpss => row(compare::<32, 1>),
        M::Cmppd | M::Vcmppd => row(compare::<64, 2>),
        M::Cmpsd | M::Vcmpsd if !string => row(compare::<64, 1>),
        M::Comiss | M::Vcomiss => row(compare_flags::<32, false>),
        M::Comisd | M::Vcomisd => row(compare_flags::<64, false>),
        M::Ucomiss | M::Vucomiss => row(compare_flags::<32, true>),
        M::Ucomisd | M::Vucomisd => row(compare_flags::<64, true>),
        M::Roundps | M::Vroundps => row(round::<32, 4>),
        M::Roundss | M::Vroundss => row(round::<32, 1>),
        M::Roundpd | M::Vroundpd => row(round::<64, 2>),
        M::Roundsd | M::Vroundsd => row(round::<64, 1>),
        M::Dpps | M::Vdpps => row(dot::product::<32>),
        M::Dppd | M::Vdppd => row(dot::product::<64>),
        M::Rcpps | M::Vrcpps => row(estimate::estimate::<false, 4>),
        M::Rcpss | M::Vrcpss => row(estimate::estimate::<false, 1>),
        M::Rsqrtps | M::Vrsqrtps => row(estimate::estimate::<true, 4>),
        M::Rsqrtss | M::Vrsqrtss => row(estimate::estimate::<true, 1>),
        _ => return None,
    })
}

/// The opcode of the fused multiplication with the mnemonic `$mnemonic`, and whether it is of double precision.
macro_rules! fused_opcode {
    ($mnemonic:expr; $($opcode:literal: $single:ident $double:ident;)*) => {
        match $mnemonic {
            $(M::$single => ($opcode, false), M::$double => ($opcode, true),)*
            _ => return None,
        }
    };
}

/// VFMADD132PS and its relatives. The opcode tells them apart: odd ones from 8 on are scalar.
fn fused(i: &Instruction) -> Option<Row> {
    let (opcode, double): (u64, bool) = fused_opcode! { i.mnemonic();
        0x96: Vfmaddsub132ps Vfmaddsub132pd;
        0x97: Vfmsubadd132ps Vfmsubadd132pd;
        0x98: Vfmadd132ps Vfmadd132pd;
        0x99: Vfmadd132ss Vfmadd132sd;
        0x9a: Vfmsub132ps Vfmsub132pd;
        0x9b: Vfmsub132ss Vfmsub132sd;
        0x9c: Vfnmadd132ps Vfnmadd132pd;
        0x9d: Vfnmadd132ss Vfnmadd132sd;
        0x9e: Vfnmsub132ps Vfnmsub132pd;
        0x9f: Vfnmsub132ss Vfnmsub132sd;
        0xa6: Vfmaddsub213ps Vfmaddsub213pd;
        0xa7: Vfmsubadd213ps Vfmsubadd213pd;
        0xa8: Vfmadd213ps Vfmadd213pd;
        0xa9: Vfmadd213ss Vfmadd213sd;
        0xaa: Vfmsub213ps Vfmsub213pd;
        0xab: Vfmsub213ss Vfmsub213sd;
        0xac: Vfnmadd213ps Vfnmadd213pd;
        0xad: Vfnmadd213ss Vfnmadd213sd;
        0xae: Vfnmsub213ps Vfnmsub213pd;
        0xaf: Vfnmsub213ss Vfnmsub213sd;
        0xb6: Vfmaddsub231ps Vfmaddsub231pd;
        0xb7: Vfmsubadd231ps Vfmsubadd231pd;
        0xb8: Vfmadd231ps Vfmadd231pd;
        0xb9: Vfmadd231ss Vfmadd231sd;
        0xba: Vfmsub231ps Vfmsub231pd;
        0xbb: Vfmsub231ss Vfmsub231sd;
        0xbc: Vfnmadd231ps Vfnmadd231pd;
        0xbd: Vfnmadd231ss Vfnmadd231sd;
        0xbe: Vfnmsub231ps Vfnmsub231pd;
        0xbf: Vfnmsub231ss Vfnmsub231sd;
    };
    let row = match (double, opcode & 9 == 9) {
        (false, false) => row(float::fused::<32, 4>),
        (false, true) => row(float::fused::<32, 1>),
        (true, false) => row(float::fused::<64, 2>),
        (true, true) => row(float::fused::<64, 1>),
    };
    Some(variant(row, opcode))
}

fn conversions(i: &Instruction) -> Option<Row> {
    use conversion::{from_mmx, from_register, packed, scalar, to_mmx, to_register};
    Some(match i.mnemonic() {
        M::Cvtdq2ps | M::Vcvtdq2ps => row(packed::<I32, 32, false>),
        M::Cvtdq2pd | M::Vcvtdq2pd => row(packed::<I32, 64, false>),
        M::Cvtps2dq | M::Vcvtps2dq => row(packed::<32, I32, false>),
        M::Cvttps2dq | M::Vcvttps2dq => row(packed::<32, I32, true>),
        M::Cvtpd2dq | M::Vcvtpd2dq => row(packed::<64, I32, false>),
        M::Cvttpd2dq | M::Vcvttpd2dq => row(packed::<64, I32, true>),
        M::Cvtps2pd | M::Vcvtps2pd => row(packed::<32, 64, false>),
        M::Cvtpd2ps | M::Vcvtpd2ps => row(packed::<64, 32, false>),
        M::Cvtss2sd | M::Vcvtss2sd => row(scalar::<32, 64>),
        M::Cvtsd2ss | M::Vcvtsd2ss => row(scalar::<64, 32>),
        M::Cvtsi2ss | M::Vcvtsi2ss => row(from_register::<32>),
        M::Cvtsi2sd | M::Vcvtsi2sd => row(from_register::<64>),
        M::Cvtss2si | M::Vcvtss2si => row(to_register::<32, false>),
        M::Cvttss2si | M::Vcvttss2si => row(to_register::<32, true>),
        M::Cvtsd2si | M::Vcvtsd2si => row(to_register::<64, false>),
        M::Cvttsd2si | M::Vcvttsd2si => row(to_register::<64, true>),
        M::Vcvtph2ps => row(conversion::from_half),
        M::Vcvtps2ph => row(conversion::to_half),
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
        M::Movaps
        | M::Movapd
        | M::Movdqa
        | M::Movntps
        | M::Movntpd
        | M::Movntdq
        | M::Movntdqa
        | M::Vmovaps
        | M::Vmovapd
        | M::Vmovdqa
        | M::Vmovntps
        | M::Vmovntpd
        | M::Vmovntdq
        | M::Vmovntdqa => row(moves::whole::<true>),
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu | M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu => {
            row(moves::whole::<false>)
        }
        M::Movss | M::Vmovss => row(moves::scalar::<4>),
        M::Movsd | M::Vmovsd if !i.is_string_instruction() => row(moves::scalar::<8>),
        M::Movd | M::Movq | M::Movntq | M::Movq2dq | M::Movdq2q | M::Vmovd | M::Vmovq => {
            row(moves::doubleword)
        }
        M::Movlps | M::Movlpd | M::Vmovlps | M::Vmovlpd => row(moves::low_half),
        M::Movhps | M::Movhpd | M::Vmovhps | M::Vmovhpd => row(moves::high_half),
        M::Movhlps | M::Vmovhlps => packed!(moves::high_to_low),
        M::Movlhps | M::Vmovlhps => packed!(moves::low_to_high),
        M::Maskmovdqu | M::Maskmovq | M::Vmaskmovdqu => row(moves::masked),
        M::Pinsrb | M::Vpinsrb => row(transfer::insert::<1>),
        M::Pinsrw | M::Vpinsrw => row(transfer::insert::<2>),
        M::Pinsrd | M::Vpinsrd => row(transfer::insert::<4>),
        M::Pinsrq | M::Vpinsrq => row(transfer::insert::<8>),
        M::Pextrb | M::Vpextrb => row(transfer::extract::<1>),
        M::Pextrw | M::Vpextrw => row(transfer::extract::<2>),
        M::Pextrd | M::Extractps | M::Vpextrd | M::Vextractps => row(transfer::extract::<4>),
        M::Pextrq | M::Vpextrq => row(transfer::extract::<8>),
        M::Insertps | M::Vinsertps => row(transfer::insert_single),
        M::Movmskps | M::Vmovmskps => row(transfer::sign_mask::<4>),
        M::Movmskpd | M::Vmovmskpd => row(transfer::sign_mask::<8>),
        M::Pmovmskb | M::Vpmovmskb => row(transfer::sign_mask::<1>),
        M::Ldmxcsr | M::Vldmxcsr => row(control::load),
        M::Stmxcsr | M::Vstmxcsr => row(control::store),
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
