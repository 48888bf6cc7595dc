//! Quick forms of near branches. RIP moves to the target; within a page the next block is linked.

use super::arithmetic::{CMP, compute, step_value};
use super::moves::{ANY, narrow, pop};
use super::{Call, LEAVE, Op, dispatch, enter, enter_known, find, general};
use crate::execute::Exec;
use rootmode_arch::{Gpr, Linear};

/// Goes to the branch's target.
#[inline(always)]
fn take(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let to = op.taken.get();
    if to == LEAVE {
        return take_unlinked(x, op, behind);
    }
    x.cpu.rip = x.cpu.rip.wrapping_add(op.immediate) & op.mask;
    enter_known(x, to, op.taken_rest.get())
}

#[inline(never)]
fn take_unlinked(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let target = x.cpu.rip.wrapping_add(op.immediate) & op.mask;
    if !x.is_plain_target(target) {
        return general(x, op, behind);
    }
    lead_out(x, behind, true, target)
}

/// Goes on behind the block.
#[inline(always)]
fn fall(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let target = x.cpu.rip.wrapping_add(u64::from(op.end)) & op.mask;
    let to = op.next.get();
    if to == LEAVE {
        return lead_out(x, behind, false, target);
    }
    x.cpu.rip = target;
    enter_known(x, to, op.next_rest.get())
}

/// Goes on at `target`, and links the branch before `behind` with the block there if it can.
#[inline(never)]
fn lead_out(x: &mut Exec<'_, '_>, behind: &[Op], taken: bool, target: u64) -> u32 {
    let at = x.run.before(behind);
    // A translation may lie between two linear pages, even if both lead to one page of RAM.
    let same_page = (x.cpu.rip ^ target) >> 12 == 0;
    x.cpu.rip = target;
    let found = find(x);
    if same_page {
        match found {
            Some(first) => x.run.link(at, taken, first),
            None => x.run.unlinked = Some((at, taken)),
        }
    }
    found.map_or(LEAVE, |first| enter(x, first))
}

/// The end of a block without a jump.
pub(super) fn end(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    fall(x, op, behind)
}

/// JMP rel.
pub(super) fn jmp(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    take(x, op, behind)
}

/// Jcc.
#[inline(always)]
pub(super) fn jcc<const C: u8>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    if x.cpu.holds(C) { take(x, op, behind) } else { fall(x, op, behind) }
}

/// What the operation before a Jcc left decides it: the two are one. `behind` begins with the Jcc.
#[inline(always)]
fn decided<const C: u8>(x: &mut Exec<'_, '_>, behind: &[Op]) -> u32 {
    let Some((op, behind)) = behind.split_first() else { return LEAVE };
    jcc::<C>(x, op, behind)
}

/// ADD, AND, SUB, CMP, TEST register with register or (`I`) immediate, and Jcc.
pub(super) fn compute_jcc<const K: u8, const N: usize, const I: bool, const C: u8>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let (a, b) = (x.gpr(op.a), if I { op.immediate } else { x.gpr(op.b) });
    let result = compute::<K, N, true>(x.cpu, a, b);
    if K < CMP {
        x.set::<N>(op.a, result);
    }
    decided::<C>(x, behind)
}

/// INC, DEC register, and Jcc.
pub(super) fn step_jcc<const N: usize, const D: bool, const C: u8>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let a = x.gpr(op.a);
    let result = step_value::<N, D, true>(x.cpu, a);
    x.set::<N>(op.a, result);
    decided::<C>(x, behind)
}

/// CALL rel: `N` bytes are pushed.
pub(super) fn call<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let to = op.taken.get();
    if to == LEAVE {
        return call_unlinked::<N>(x, op, behind);
    }
    // The target of a call that was linked is in the same page.
    let target = x.cpu.rip.wrapping_add(op.immediate) & narrow::<N>();
    if !push_return::<N>(x, op, behind) {
        return general(x, op, behind);
    }
    x.cpu.rip = target;
    enter_known(x, to, op.taken_rest.get())
}

#[inline(never)]
fn call_unlinked<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let target = x.cpu.rip.wrapping_add(op.immediate) & narrow::<N>();
    if !x.is_plain_target(target) || !push_return::<N>(x, op, behind) {
        return general(x, op, behind);
    }
    lead_out(x, behind, true, target)
}

/// CALL register.
pub(super) fn call_register<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let target = x.gpr(op.b) & narrow::<N>();
    go::<N, true>(x, op, behind, target)
}

/// JMP register.
pub(super) fn jmp_register<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let target = x.gpr(op.b) & narrow::<N>();
    go::<N, false>(x, op, behind, target)
}

/// CALL memory.
pub(super) fn call_memory<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let linear = x.quick_address::<ANY>(op);
    let Some(target) = x.quick_load::<N>(linear) else { return general(x, op, behind) };
    go::<N, true>(x, op, behind, target)
}

/// JMP memory.
pub(super) fn jmp_memory<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let linear = x.quick_address::<ANY>(op);
    let Some(target) = x.quick_load::<N>(linear) else { return general(x, op, behind) };
    go::<N, false>(x, op, behind, target)
}

/// RET, RET imm16.
pub(super) fn ret<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let pointer = x.gpr(Gpr::Rsp as u8) & narrow::<N>();
    let Some(target) = x.quick_load::<N>(pointer) else { return general(x, op, behind) };
    let call = x.run.returns.pop(target);
    if call.is_none() && !x.is_plain_target(target) {
        return general(x, op, behind);
    }
    go_back::<N>(x, op, pointer, target, call)
}

/// RET with its stack slot at `pointer`, to `target`, behind `call` if that is known.
#[inline(always)]
fn go_back<const N: usize>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    pointer: u64,
    target: u64,
    call: Option<Call>,
) -> u32 {
    let above = pointer.wrapping_add(N as u64).wrapping_add(op.immediate) & narrow::<N>();
    x.cpu.gpr[Gpr::Rsp as usize] = above;
    x.cpu.rip = target;
    match call {
        // A block behind a call that was linked with it lies in the call's own page.
        Some(call) if call.to != LEAVE => enter_known(x, call.to, call.rest),
        _ => come_back(x, call.map(|call| call.at)),
    }
}

/// `K` POPs of registers other than RSP, and RET: `N` bytes of 64-bit mode's stack together.
pub(super) fn pops_ret<const K: usize, const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let pointer = x.gpr(Gpr::Rsp as u8);
    if let Some(others) = behind.get(..K)
        && let Some(place) = x.quick_from::<N>(pointer)
        && let Some(bytes) = x.ctx.memory.load_at::<N>(place)
    {
        let slots = bytes.as_chunks().0;
        let target = u64::from_le_bytes(slots[K]);
        let call = x.run.returns.pop(target);
        if call.is_some() || x.is_plain_target(target) {
            let gpr = &mut x.cpu.gpr;
            gpr[op.a as usize & 15] = u64::from_le_bytes(slots[0]);
            for n in 1..K {
                gpr[others[n - 1].a as usize & 15] = u64::from_le_bytes(slots[n]);
            }
            return go_back::<8>(x, &others[K - 1], pointer.wrapping_add(8 * K as u64), target, call);
        }
    }
    pop::<8>(x, op, behind)
}

/// Goes on at RIP, behind the instruction `call` if that is known.
#[inline(never)]
fn come_back(x: &mut Exec<'_, '_>, call: Option<u32>) -> u32 {
    let Some(first) = find(x) else { return LEAVE };
    // The call itself ends before its page does.
    if let Some(call) = call.filter(|_| x.cpu.rip & 0xfff != 0) {
        x.run.link(call, false, first);
    }
    enter(x, first)
}

/// An indirect branch, with (`C`) or without a return address.
#[inline(always)]
fn go<const N: usize, const C: bool>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op], target: u64) -> u32 {
    if x.cpu.tracked || !x.is_plain_target(target) || C && !push_return::<N>(x, op, behind) {
        return general(x, op, behind);
    }
    x.cpu.rip = target;
    dispatch(x)
}

#[inline(always)]
fn push_return<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> bool {
    let next = x.cpu.rip.wrapping_add(u64::from(op.end)) & narrow::<N>();
    let pointer = x.gpr(Gpr::Rsp as u8).wrapping_sub(N as u64) & narrow::<N>();
    let Some(place) = x.quick_place::<N>(pointer) else { return false };
    let pushed = x.store_place::<N>(place, next);
    if pushed {
        x.cpu.gpr[Gpr::Rsp as usize] = pointer;
        let (to, rest) = (op.next.get(), op.next_rest.get());
        x.run.returns.push(Call { rip: next, to, rest, at: x.run.before(behind) });
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
