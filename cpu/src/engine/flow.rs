//! Quick forms of near branches. RIP moves to the target; within a page the next block is linked.

use super::moves::narrow;
use super::{LEAVE, Op, dispatch, enter, general};
use crate::execute::Exec;
use rootmode_arch::{Gpr, Linear};

/// Goes to the branch's target.
#[inline(always)]
fn take(x: &mut Exec<'_, '_>, op: &Op, at: u32) -> u32 {
    let target = x.cpu.rip.wrapping_add(op.immediate) & op.mask;
    let to = op.taken.get();
    if to == LEAVE && !x.is_plain_target(target) {
        return general(x, op, at);
    }
    x.cpu.rip = target;
    if to != LEAVE { enter(x, to) } else { lead_out(x, at, true) }
}

/// Goes on behind the block.
#[inline(always)]
fn fall(x: &mut Exec<'_, '_>, op: &Op, at: u32) -> u32 {
    x.cpu.rip = x.cpu.rip.wrapping_add(u64::from(op.end)) & op.mask;
    let to = op.next.get();
    if to != LEAVE { enter(x, to) } else { lead_out(x, at, false) }
}

#[cold]
fn lead_out(x: &mut Exec<'_, '_>, at: u32, taken: bool) -> u32 {
    match dispatch(x) {
        LEAVE => {
            x.run.unlinked = Some((at, taken));
            LEAVE
        }
        first => first,
    }
}

/// The end of a block without a jump.
pub(super) fn end(x: &mut Exec<'_, '_>, op: &Op, at: u32) -> u32 {
    fall(x, op, at)
}

/// JMP rel.
pub(super) fn jmp(x: &mut Exec<'_, '_>, op: &Op, at: u32) -> u32 {
    take(x, op, at)
}

/// Jcc.
pub(super) fn jcc<const C: u8>(x: &mut Exec<'_, '_>, op: &Op, at: u32) -> u32 {
    if x.cpu.holds(C) { take(x, op, at) } else { fall(x, op, at) }
}

/// CALL rel: `N` bytes are pushed.
pub(super) fn call<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, at: u32) -> u32 {
    let target = x.cpu.rip.wrapping_add(op.immediate) & op.mask;
    if !x.is_plain_target(target) || !push_return::<N>(x, op) {
        return general(x, op, at);
    }
    take(x, op, at)
}

/// CALL register.
pub(super) fn call_register<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, at: u32) -> u32 {
    let target = x.gpr(op.b) & narrow::<N>();
    go::<N, true>(x, op, at, target)
}

/// JMP register.
pub(super) fn jmp_register<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, at: u32) -> u32 {
    let target = x.gpr(op.b) & narrow::<N>();
    go::<N, false>(x, op, at, target)
}

/// RET, RET imm16.
pub(super) fn ret<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, at: u32) -> u32 {
    let pointer = x.gpr(Gpr::Rsp as u8) & narrow::<N>();
    let Some(target) = x.quick_load::<N>(pointer) else { return general(x, op, at) };
    if !x.is_plain_target(target) {
        return general(x, op, at);
    }
    x.cpu.gpr[Gpr::Rsp as usize] = pointer.wrapping_add(N as u64).wrapping_add(op.immediate) & narrow::<N>();
    x.cpu.rip = target;
    dispatch(x)
}

/// An indirect branch, with (`C`) or without a return address.
#[inline(always)]
fn go<const N: usize, const C: bool>(x: &mut Exec<'_, '_>, op: &Op, at: u32, target: u64) -> u32 {
    if !x.is_plain_target(target) || C && !push_return::<N>(x, op) {
        return general(x, op, at);
    }
    x.cpu.rip = target;
    dispatch(x)
}

#[inline(always)]
fn push_return<const N: usize>(x: &mut Exec<'_, '_>, op: &Op) -> bool {
    let next = x.cpu.rip.wrapping_add(u64::from(op.end)) & op.mask;
    let pointer = x.gpr(Gpr::Rsp as u8).wrapping_sub(N as u64) & narrow::<N>();
    let Some(place) = x.quick_place::<N>(pointer) else { return false };
    let pushed = x.store_place::<N>(place, next);
    if pushed {
        x.cpu.gpr[Gpr::Rsp as usize] = pointer;
    }
    pushed
}

impl Exec<'_, '_> {
    /// Whether a near branch may surely go to `target`; if not, the semantic function decides.
    #[inline(always)]
    const fn is_plain_target(&self, target: u64) -> bool {
        !self.run.mode.is_64_bit() || Linear(target).is_canonical(48)
    }
}
