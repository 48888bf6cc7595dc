//! Quick forms that move data: MOV, MOVZX, MOVSX, LEA, PUSH, POP, SETcc, CMOVcc.

use super::{Op, Run, general, go_on};
use crate::decode::{NO_REGISTER, RIP_BASE};
use crate::execute::Exec;
use crate::execute::flags::sign_extend;
use rootmode_arch::{Gpr, Linear};

/// How an address is made: the most frequent ways have their own code.
pub(super) const BASE: u8 = 0;
/// Base and scaled index.
pub(super) const INDEXED: u8 = 1;
/// Any: RIP-relative, no base, FS and GS, 32-bit addresses.
pub(super) const ANY: u8 = 2;

impl Exec<'_, '_> {
    /// The linear address of the memory operand, where segments are flat.
    #[inline(always)]
    pub(super) fn quick_address<const A: u8>(&self, op: &Op) -> u64 {
        let gpr = &self.cpu.gpr;
        match A {
            BASE => gpr[op.base as usize & 15].wrapping_add(op.displacement),
            INDEXED => gpr[op.base as usize & 15]
                .wrapping_add(gpr[op.index as usize & 15] << op.scale)
                .wrapping_add(op.displacement),
            _ => {
                let base = match op.base {
                    NO_REGISTER => 0,
                    RIP_BASE => self.cpu.rip,
                    n => gpr[n as usize & 15],
                };
                let index = if op.index == NO_REGISTER { 0 } else { gpr[op.index as usize & 15] << op.scale };
                let offset = base.wrapping_add(index).wrapping_add(op.displacement) & op.mask;
                if op.segment == NO_REGISTER {
                    offset
                } else {
                    self.cpu.segments[op.segment as usize & 7].base.wrapping_add(offset)
                }
            }
        }
    }

    /// Where in RAM `N` bytes may be read. `None`: not without the semantic function.
    #[inline(always)]
    pub(super) fn quick_load<const N: usize>(&self, linear: u64) -> Option<u64> {
        let place = self.quick_from::<N>(linear)?;
        Some(widen(self.ctx.memory.load_at::<N>(place)?))
    }

    /// Where in RAM `N` bytes may be read.
    #[inline(always)]
    pub(super) fn quick_from<const N: usize>(&self, linear: u64) -> Option<usize> {
        debug_assert_eq!(self.run.key, self.cpu.tlb.key(self.run.bank));
        self.cpu.tlb.quick_read(self.run.key, Linear(linear), N)
    }

    /// Where in RAM `N` bytes may be written.
    #[inline(always)]
    pub(super) fn quick_place<const N: usize>(&self, linear: u64) -> Option<usize> {
        debug_assert_eq!(self.run.key, self.cpu.tlb.key(self.run.bank));
        self.cpu.tlb.quick_write(self.run.key, Linear(linear), N)
    }

    /// Stores the low `N` bytes of `value`. False: nothing happened.
    #[inline(always)]
    pub(super) fn store_place<const N: usize>(&mut self, place: usize, value: u64) -> bool {
        self.ctx.memory.store_at::<N>(place, low(value))
    }

    /// Writes the low `N` bytes of a register; 32-bit writes clear the upper half.
    #[inline(always)]
    pub(super) const fn set<const N: usize>(&mut self, register: u8, value: u64) {
        let register = &mut self.cpu.gpr[register as usize & 15];
        *register = match N {
            8 => value,
            4 => value & 0xffff_ffff,
            2 => *register & !0xffff | value & 0xffff,
            _ => *register & !0xff | value & 0xff,
        };
    }

    /// A register.
    #[inline(always)]
    pub(super) const fn gpr(&self, register: u8) -> u64 {
        self.cpu.gpr[register as usize & 15]
    }
}

/// The number of `N` bytes.
#[inline(always)]
pub(super) fn widen<const N: usize>(bytes: [u8; N]) -> u64 {
    let mut all = [0; 8];
    all[..N].copy_from_slice(&bytes);
    u64::from_le_bytes(all)
}

/// The low `N` bytes of `value`.
#[inline(always)]
pub(super) fn low<const N: usize>(value: u64) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&value.to_le_bytes()[..N]);
    bytes
}

/// MOV, MOVZX register, register: `S` bytes into `N`.
pub(super) fn mov_rr<const N: usize, const S: u8>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let value = x.gpr(op.b) & (u64::MAX >> (64 - 8 * S as u32));
    x.set::<N>(op.a, value);
    go_on(x, behind)
}

/// Two MOVs between registers of 8 bytes.
pub(super) fn two_moves(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let Some((second, behind)) = behind.split_first() else { return general(x, op, behind) };
    let value = x.gpr(op.b);
    x.set::<8>(op.a, value);
    let value = x.gpr(second.b);
    x.set::<8>(second.a, value);
    go_on(x, behind)
}

/// MOVZX register, AH (CH, DH, BH).
pub(super) fn mov_rh<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let value = x.gpr(op.b) >> 8 & 0xff;
    x.set::<N>(op.a, value);
    go_on(x, behind)
}

/// MOVSX, MOVSXD register, register.
pub(super) fn movsx_rr<const N: usize, const S: u8>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let value = sign_extend(x.gpr(op.b), S);
    x.set::<N>(op.a, value);
    go_on(x, behind)
}

/// MOV register, immediate.
pub(super) fn mov_ri<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    x.set::<N>(op.a, op.immediate);
    go_on(x, behind)
}

/// MOV, MOVZX, MOVSX register, memory: `S` bytes into `N`.
pub(super) fn load<const N: usize, const S: usize, const SIGNED: bool, const A: u8>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let linear = x.quick_address::<A>(op);
    let Some(value) = x.quick_load::<S>(linear) else { return general(x, op, behind) };
    x.set::<N>(op.a, if SIGNED { sign_extend(value, S as u8) } else { value });
    go_on(x, behind)
}

/// MOV memory, register.
pub(super) fn store<const N: usize, const A: u8>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let linear = x.quick_address::<A>(op);
    let value = x.gpr(op.b);
    match x.quick_place::<N>(linear) {
        Some(place) if x.store_place::<N>(place, value) => go_on(x, behind),
        _ => general(x, op, behind),
    }
}

/// MOV memory, immediate.
pub(super) fn store_immediate<const N: usize, const A: u8>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    let linear = x.quick_address::<A>(op);
    match x.quick_place::<N>(linear) {
        Some(place) if x.store_place::<N>(place, op.immediate) => go_on(x, behind),
        _ => general(x, op, behind),
    }
}

/// LEA.
pub(super) fn lea<const N: usize, const A: u8>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let address = x.quick_address::<A>(op);
    x.set::<N>(op.a, address);
    go_on(x, behind)
}

/// PUSH register; `N` is also the stack's width.
pub(super) fn push<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let value = x.gpr(op.b);
    push_value::<N>(x, op, behind, value)
}

/// PUSH immediate.
pub(super) fn push_immediate<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    push_value::<N>(x, op, behind, op.immediate)
}

#[inline(always)]
fn push_value<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op], value: u64) -> u32 {
    let pointer = x.gpr(Gpr::Rsp as u8).wrapping_sub(N as u64) & narrow::<N>();
    match x.quick_place::<N>(pointer) {
        Some(place) if x.store_place::<N>(place, value) => {
            x.cpu.gpr[Gpr::Rsp as usize] = pointer;
            go_on(x, behind)
        }
        _ => general(x, op, behind),
    }
}

/// POP register.
pub(super) fn pop<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let pointer = x.gpr(Gpr::Rsp as u8) & narrow::<N>();
    let Some(value) = x.quick_load::<N>(pointer) else { return general(x, op, behind) };
    x.cpu.gpr[Gpr::Rsp as usize] = pointer.wrapping_add(N as u64) & narrow::<N>();
    x.set::<N>(op.a, value);
    go_on(x, behind)
}

/// `K` PUSHes of registers other than RSP, of 8 bytes each: `N` together.
pub(super) fn pushes<const K: usize, const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let pointer = x.gpr(Gpr::Rsp as u8).wrapping_sub(N as u64);
    if let Some((others, behind)) = behind.split_at_checked(K - 1)
        && let Some(place) = x.quick_place::<N>(pointer)
        && let Some(bytes) = x.ctx.memory.open_at::<N>(place)
    {
        let (gpr, slots) = (&mut x.cpu.gpr, bytes.as_chunks_mut().0);
        slots[K - 1] = gpr[op.b as usize & 15].to_le_bytes();
        for n in 1..K {
            slots[K - 1 - n] = gpr[others[n - 1].b as usize & 15].to_le_bytes();
        }
        gpr[Gpr::Rsp as usize] = pointer;
        return go_on(x, behind);
    }
    push::<8>(x, op, behind)
}

/// `K` POPs of registers other than RSP, of 8 bytes each: `N` together.
pub(super) fn pops<const K: usize, const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let pointer = x.gpr(Gpr::Rsp as u8);
    if let Some((others, behind)) = behind.split_at_checked(K - 1)
        && let Some(place) = x.quick_from::<N>(pointer)
        && let Some(bytes) = x.ctx.memory.load_at::<N>(place)
    {
        let (gpr, slots) = (&mut x.cpu.gpr, bytes.as_chunks().0);
        gpr[op.a as usize & 15] = u64::from_le_bytes(slots[0]);
        for n in 1..K {
            gpr[others[n - 1].a as usize & 15] = u64::from_le_bytes(slots[n]);
        }
        gpr[Gpr::Rsp as usize] = pointer.wrapping_add(N as u64);
        return go_on(x, behind);
    }
    pop::<8>(x, op, behind)
}

/// Addresses of `N` bytes.
#[inline(always)]
pub(super) const fn narrow<const N: usize>() -> u64 {
    u64::MAX >> (64 - 8 * N as u32)
}

/// SETcc register.
pub(super) fn setcc<const C: u8>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let value = u64::from(x.cpu.holds(C));
    x.set::<1>(op.a, value);
    go_on(x, behind)
}

/// CMOVcc register, register.
pub(super) fn cmov<const C: u8, const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let value = if x.cpu.holds(C) { x.gpr(op.b) } else { x.gpr(op.a) };
    x.set::<N>(op.a, value);
    go_on(x, behind)
}

/// CMOVcc register, memory: the operand is read whatever the condition says.
pub(super) fn cmov_memory<const C: u8, const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let linear = x.quick_address::<ANY>(op);
    let Some(value) = x.quick_load::<N>(linear) else { return general(x, op, behind) };
    let value = if x.cpu.holds(C) { value } else { x.gpr(op.a) };
    x.set::<N>(op.a, value);
    go_on(x, behind)
}

/// CBW, CWDE, CDQE: the lower half of the accumulator, `N` bytes then, is sign-extended.
pub(super) fn extend_accumulator<const N: usize>(x: &mut Exec<'_, '_>, _: &Op, behind: &[Op]) -> u32 {
    let value = sign_extend(x.gpr(Gpr::Rax as u8), N as u8 / 2);
    x.set::<N>(Gpr::Rax as u8, value);
    go_on(x, behind)
}

/// CWD, CDQ, CQO: RDX becomes the sign of the accumulator of `N` bytes.
pub(super) fn extend_into_rdx<const N: usize>(x: &mut Exec<'_, '_>, _: &Op, behind: &[Op]) -> u32 {
    let value = sign_extend(x.gpr(Gpr::Rax as u8), N as u8);
    x.set::<N>(Gpr::Rdx as u8, (value as i64 >> 63) as u64);
    go_on(x, behind)
}

/// LEAVE; `N` is also the stack's width.
pub(super) fn leave<const N: usize>(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let pointer = x.gpr(Gpr::Rbp as u8) & narrow::<N>();
    let Some(value) = x.quick_load::<N>(pointer) else { return general(x, op, behind) };
    x.cpu.gpr[Gpr::Rsp as usize] = pointer.wrapping_add(N as u64) & narrow::<N>();
    x.set::<N>(Gpr::Rbp as u8, value);
    go_on(x, behind)
}

/// NOP and its relatives.
pub(super) fn nop(x: &mut Exec<'_, '_>, _: &Op, behind: &[Op]) -> u32 {
    go_on(x, behind)
}

/// Chooses the code for an address.
pub(super) const fn by_address(forms: [Run; 3], address: u8) -> Run {
    forms[address as usize]
}
