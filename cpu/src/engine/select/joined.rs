//! Frequent sequences that run as one operation: two MOVs, PUSHes, POPs and the RET behind them, and arithmetic with the branch
//! that looks at its flags.
//! The instructions behind the first keep their own forms, for whoever begins or goes on there.

use super::super::arithmetic::{ADD, AND, CMP, SUB, TEST};
use super::super::{Mode, Run, flow, moves};
use super::branch;
use crate::decode::{Decoded, Operand, Quick};
use rootmode_arch::Gpr;

/// The form of the first instruction of `block` together with those behind it.
pub(super) fn joined(block: &[Decoded], mode: Mode) -> Option<Run> {
    match block {
        [first, branch] if branch.quick == Quick::Jcc => compared(first, branch, mode),
        [first, second, ..] if is_move(first) && is_move(second) => Some(moves::two_moves),
        _ => stacked(block, mode),
    }
}

/// MOV between registers of 8 bytes.
fn is_move(decoded: &Decoded) -> bool {
    let registers = matches!(decoded.operands[..2], [Operand::Register(_), Operand::Register(_)]);
    decoded.quick == Quick::Mov && registers && (decoded.size, decoded.source_size) == (8, 8)
}

/// PUSHes or POPs of registers other than RSP in 64-bit mode.
fn stacked(block: &[Decoded], mode: Mode) -> Option<Run> {
    let kind = block.first()?.quick;
    let alike = |decoded: &&Decoded| {
        let register = matches!(decoded.operands[0], Operand::Register(n) if n != Gpr::Rsp as u8);
        decoded.quick == kind && decoded.size == 8 && register
    };
    let count = if mode.is_64_bit() { block.iter().take_while(alike).count() } else { 0 };
    let returns = block.get(count).is_some_and(|next| next.quick == Quick::Ret && next.size == 8);
    if kind == Quick::Pop && returns && count <= 6 {
        return Some(match count {
            1 => flow::pops_ret::<1, 16>,
            2 => flow::pops_ret::<2, 24>,
            3 => flow::pops_ret::<3, 32>,
            4 => flow::pops_ret::<4, 40>,
            5 => flow::pops_ret::<5, 48>,
            _ => flow::pops_ret::<6, 56>,
        });
    }
    Some(match (kind, count) {
        (_, ..=1) => return None,
        (Quick::Push, 2) => moves::pushes::<2, 16>,
        (Quick::Push, 3) => moves::pushes::<3, 24>,
        (Quick::Push, 4) => moves::pushes::<4, 32>,
        (Quick::Push, 5) => moves::pushes::<5, 40>,
        (Quick::Push, _) => moves::pushes::<6, 48>,
        (Quick::Pop, 2) => moves::pops::<2, 16>,
        (Quick::Pop, 3) => moves::pops::<3, 24>,
        (Quick::Pop, 4) => moves::pops::<4, 32>,
        (Quick::Pop, 5) => moves::pops::<5, 40>,
        (Quick::Pop, _) => moves::pops::<6, 48>,
        _ => return None,
    })
}

/// `$form::<.., C>` for the conditions that follow arithmetic.
macro_rules! by_condition {
    ($condition:expr, |$c:ident| $form:expr) => {
        by_condition!(@ $condition, $c, $form; 2 3 4 5 6 7 8 9 12 13 14 15)
    };
    (@ $condition:expr, $c:ident, $form:expr; $($n:literal)*) => {
        match $condition {
            $($n => { const $c: u8 = $n; $form })*
            _ => return None,
        }
    };
}

/// `$form::<.., N, ..>` for operands of 4 or 8 bytes.
macro_rules! by_size {
    ($size:expr, |$n:ident| $form:expr) => {
        match $size {
            4 => {
                const $n: usize = 4;
                $form
            }
            8 => {
                const $n: usize = 8;
                $form
            }
            _ => return None,
        }
    };
}

/// Arithmetic on a register, and Jcc.
fn compared(first: &Decoded, jcc: &Decoded, mode: Mode) -> Option<Run> {
    branch(jcc, mode)?;
    let Operand::Register(_) = first.operands[0] else { return None };
    let (size, condition) = (first.size, jcc.condition);
    macro_rules! compute {
        ($kind:ident) => {
            match first.operands[1] {
                Operand::Register(_) => {
                    by_size!(size, |N| by_condition!(condition, |C| flow::compute_jcc::<$kind, N, false, C>))
                }
                Operand::Immediate => {
                    by_size!(size, |N| by_condition!(condition, |C| flow::compute_jcc::<$kind, N, true, C>))
                }
                _ => return None,
            }
        };
    }
    let run: Run = match first.quick {
        Quick::Add => compute!(ADD),
        Quick::And => compute!(AND),
        Quick::Sub => compute!(SUB),
        Quick::Cmp => compute!(CMP),
        Quick::Test => compute!(TEST),
        Quick::Inc => by_size!(size, |N| by_condition!(condition, |C| flow::step_jcc::<N, false, C>)),
        Quick::Dec => by_size!(size, |N| by_condition!(condition, |C| flow::step_jcc::<N, true, C>)),
        _ => return None,
    };
    Some(run)
}
