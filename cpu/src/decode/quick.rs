//! [`Quick`]: which instructions the engine may have a quick form for.

use iced_x86::{Instruction, Mnemonic as M, OpKind};

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
    Jmp,
    Jcc,
    Call,
    JmpIndirect,
    CallIndirect,
    Ret,
    In,
    Out,
    /// Another near branch.
    Near,
}

impl Quick {
    /// A near branch: it changes nothing but RIP, RCX and the stack.
    pub(crate) const fn is_near_branch(self) -> bool {
        use Quick as Q;
        matches!(self, Q::Jmp | Q::Jcc | Q::Call | Q::JmpIndirect | Q::CallIndirect | Q::Ret | Q::Near)
    }
}

/// What the quick form of `instruction` would be.
pub(super) fn quick(instruction: &Instruction) -> Quick {
    let relative =
        matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    if instruction.has_lock_prefix() {
        return Quick::None;
    }
    match instruction.mnemonic() {
        M::Nop => Quick::Nop,
        M::Mov | M::Movzx => Quick::Mov,
        M::Movsx | M::Movsxd => Quick::MovSigned,
        M::Lea => Quick::Lea,
        M::Push => Quick::Push,
        M::Pop => Quick::Pop,
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
        M::Jmp if relative => Quick::Jmp,
        M::Call if relative => Quick::Call,
        M::Jmp if instruction.is_jmp_near_indirect() => Quick::JmpIndirect,
        M::Call if instruction.is_call_near_indirect() => Quick::CallIndirect,
        M::Ret => Quick::Ret,
        M::In => Quick::In,
        M::Out => Quick::Out,
        M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz => Quick::Near,
        _ if instruction.is_jcc_short_or_near() => Quick::Jcc,
        _ if instruction.condition_code() == iced_x86::ConditionCode::None => Quick::None,
        _ if instruction.op_count() == 1 => Quick::Setcc,
        _ if instruction.op_count() == 2 => Quick::Cmov,
        _ => Quick::None,
    }
}
