//! [`Quick`]: which instructions the engine may have a quick form for.

use iced_x86::{Code, Instruction, Mnemonic as M, OpKind};

/// What a quick form would do. The operands decide whether there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the mnemonics")]
pub(crate) enum Quick {
    /// There is none.
    None,
    Nop,
    /// MOV, MOVZX.
    Mov,
    /// MOVSX, MOVSXD.
    MovSigned,
    Lea,
    Push,
    Pop,
    Leave,
    /// CBW, CWDE, CDQE.
    ExtendAccumulator,
    /// CWD, CDQ, CQO.
    ExtendIntoRdx,
    Setcc,
    Cmov,
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
    Inc,
    Dec,
    Neg,
    Not,
    Imul,
    Shl,
    Shr,
    Sar,
    Rol,
    Ror,
    Bt,
    Bts,
    Btr,
    Btc,
    Jmp,
    Jcc,
    Call,
    JmpIndirect,
    CallIndirect,
    Ret,
    In,
    Out,
    Movs,
    Stos,
    /// Another near branch.
    Near,
    Vmread,
    Vmwrite,
    /// Two XMM registers combined by [`super::Decoded::combine`]. From here on all are of vector registers.
    Combine,
    /// MOVAPS, MOVDQA and relatives.
    MovWhole,
    /// MOVUPS, MOVDQU and relatives.
    MovUnaligned,
    /// MOVSS.
    MovSingle,
    /// MOVSD.
    MovDouble,
    /// MOVD, MOVQ.
    MovLow,
    Addss,
    Addsd,
    Addps,
    Addpd,
    Subss,
    Subsd,
    Subps,
    Subpd,
    Mulss,
    Mulsd,
    Mulps,
    Mulpd,
    Divss,
    Divsd,
    Divps,
    Divpd,
    /// COMISS, UCOMISS.
    Comiss,
    /// COMISD, UCOMISD.
    Comisd,
    Cvtsi2ss,
    Cvtsi2sd,
    Cvttss2si,
    Cvttsd2si,
    Cvtss2sd,
    Cvtsd2ss,
    /// VMOVAPS, VMOVDQA and relatives.
    WideMov,
    /// VMOVUPS, VMOVDQU and relatives.
    WideMovUnaligned,
    /// Two sources combined by [`super::Decoded::combine`] into a third register, half by half.
    WideCombine,
    /// VZEROUPPER.
    ZeroUpper,
}

impl Quick {
    /// Of vector registers.
    pub(crate) const fn is_vector(self) -> bool {
        self as u8 >= Self::Combine as u8
    }

    /// A near branch: it changes nothing but RIP, RCX and the stack.
    pub(crate) const fn is_near_branch(self) -> bool {
        use Quick as Q;
        matches!(self, Q::Jmp | Q::Jcc | Q::Call | Q::JmpIndirect | Q::CallIndirect | Q::Ret | Q::Near)
    }
}

/// What the quick form of an instruction with a VEX prefix would be; `combines` if all that it does is to combine its sources.
pub(super) fn with_vex(instruction: &Instruction, combines: bool) -> Quick {
    match instruction.mnemonic() {
        _ if combines => Quick::WideCombine,
        M::Vmovaps | M::Vmovapd | M::Vmovdqa | M::Vmovntps | M::Vmovntpd | M::Vmovntdq | M::Vmovntdqa => {
            Quick::WideMov
        }
        M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu => Quick::WideMovUnaligned,
        M::Vzeroupper => Quick::ZeroUpper,
        _ => Quick::None,
    }
}

/// What the quick form of `instruction` would be.
pub(super) fn quick(instruction: &Instruction) -> Quick {
    let relative =
        matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    if instruction.has_lock_prefix() {
        return Quick::None;
    }
    // MOVSD is also an instruction of SSE2.
    match instruction.code() {
        Code::Movsb_m8_m8 | Code::Movsw_m16_m16 | Code::Movsd_m32_m32 | Code::Movsq_m64_m64 => {
            return Quick::Movs;
        }
        Code::Stosb_m8_AL | Code::Stosw_m16_AX | Code::Stosd_m32_EAX | Code::Stosq_m64_RAX => {
            return Quick::Stos;
        }
        _ => {}
    }
    match instruction.mnemonic() {
        M::Nop => Quick::Nop,
        M::Mov | M::Movzx => Quick::Mov,
        M::Movsx | M::Movsxd => Quick::MovSigned,
        M::Lea => Quick::Lea,
        M::Push => Quick::Push,
        M::Pop => Quick::Pop,
        M::Leave => Quick::Leave,
        M::Cbw | M::Cwde | M::Cdqe => Quick::ExtendAccumulator,
        M::Cwd | M::Cdq | M::Cqo => Quick::ExtendIntoRdx,
        M::Add => Quick::Add,
        M::Or => Quick::Or,
        M::Adc => Quick::Adc,
        M::Sbb => Quick::Sbb,
        M::And => Quick::And,
        M::Sub => Quick::Sub,
        M::Xor => Quick::Xor,
        M::Cmp => Quick::Cmp,
        M::Test => Quick::Test,
        M::Inc => Quick::Inc,
        M::Dec => Quick::Dec,
        M::Neg => Quick::Neg,
        M::Not => Quick::Not,
        M::Imul if instruction.op_count() > 1 => Quick::Imul,
        M::Shl | M::Sal => Quick::Shl,
        M::Shr => Quick::Shr,
        M::Sar => Quick::Sar,
        M::Rol => Quick::Rol,
        M::Ror => Quick::Ror,
        M::Bt => Quick::Bt,
        M::Bts => Quick::Bts,
        M::Btr => Quick::Btr,
        M::Btc => Quick::Btc,
        M::Jmp if relative => Quick::Jmp,
        M::Call if relative => Quick::Call,
        M::Jmp if instruction.is_jmp_near_indirect() => Quick::JmpIndirect,
        M::Call if instruction.is_call_near_indirect() => Quick::CallIndirect,
        M::Ret => Quick::Ret,
        M::In => Quick::In,
        M::Out => Quick::Out,
        M::Vmread => Quick::Vmread,
        M::Vmwrite => Quick::Vmwrite,
        M::Movaps | M::Movapd | M::Movdqa | M::Movntps | M::Movntpd | M::Movntdq | M::Movntdqa => {
            Quick::MovWhole
        }
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => Quick::MovUnaligned,
        M::Movss => Quick::MovSingle,
        M::Movsd => Quick::MovDouble,
        M::Movd | M::Movq => Quick::MovLow,
        M::Addss => Quick::Addss,
        M::Addsd => Quick::Addsd,
        M::Addps => Quick::Addps,
        M::Addpd => Quick::Addpd,
        M::Subss => Quick::Subss,
        M::Subsd => Quick::Subsd,
        M::Subps => Quick::Subps,
        M::Subpd => Quick::Subpd,
        M::Mulss => Quick::Mulss,
        M::Mulsd => Quick::Mulsd,
        M::Mulps => Quick::Mulps,
        M::Mulpd => Quick::Mulpd,
        M::Divss => Quick::Divss,
        M::Divsd => Quick::Divsd,
        M::Divps => Quick::Divps,
        M::Divpd => Quick::Divpd,
        M::Comiss | M::Ucomiss => Quick::Comiss,
        M::Comisd | M::Ucomisd => Quick::Comisd,
        M::Cvtsi2ss => Quick::Cvtsi2ss,
        M::Cvtsi2sd => Quick::Cvtsi2sd,
        M::Cvttss2si => Quick::Cvttss2si,
        M::Cvttsd2si => Quick::Cvttsd2si,
        M::Cvtss2sd => Quick::Cvtss2sd,
        M::Cvtsd2ss => Quick::Cvtsd2ss,
        M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz => Quick::Near,
        _ if instruction.is_jcc_short_or_near() => Quick::Jcc,
        _ if instruction.condition_code() == iced_x86::ConditionCode::None => Quick::None,
        _ if instruction.op_count() == 1 => Quick::Setcc,
        _ if instruction.op_count() == 2 => Quick::Cmov,
        _ => Quick::None,
    }
}
