//! String instructions: MOVS, STOS, LODS, SCAS, CMPS. One call is one iteration; a REP instruction repeats in place, so an
//! interrupt, a fault or a limit can come between any two iterations.

use super::flags::{self, STATUS, ZF, mask};
use super::{Exec, Flow};
use crate::decode::{Decoded, Quick, Repeat};
use crate::fault::Result;
use rootmode_arch::{Gpr, Linear, RFlags, SegmentName, Vendor};
use rootmode_mmu::AccessKind;

impl Exec<'_, '_> {
    /// Whether a REP instruction has iterations left.
    pub(crate) const fn repeats(&self, op: &Decoded) -> bool {
        let count = self.cpu.gpr[Gpr::Rcx as usize] & mask(op.memory.address_size);
        matches!(op.repeat, Repeat::None) || count != 0
    }

    /// The beginning of an iteration; answers [`Self::repeats`]. With addresses of 32 bits Intel's parts clear the upper halves of
    /// RCX and of `registers` before anything else, whether or not something is iterated.
    fn begins(&mut self, op: &Decoded, registers: &[Gpr]) -> bool {
        if op.memory.address_size == 4
            && !matches!(op.repeat, Repeat::None)
            && self.cpu.model.vendor() == Vendor::Intel
        {
            for register in registers.iter().chain(&[Gpr::Rcx]) {
                self.cpu.gpr[*register as usize] &= mask(4);
            }
        }
        self.repeats(op)
    }

    /// Counts an iteration of a comparison down and sets its flags. Intel's parts set the flags only after the last iteration
    /// (SDM Vol. 2B "REP/REPE/REPZ/REPNE/REPNZ—Repeat String Operation Prefix": after a fault EFLAGS are as before the
    /// instruction).
    fn compare(&mut self, op: &Decoded, flags: u64) -> Flow {
        let old = self.cpu.rflags().0;
        self.cpu.set_status(STATUS, flags);
        let flow = self.iterate(op, true);
        if matches!(flow, Flow::Repeat) && self.cpu.model.vendor() == Vendor::Intel {
            self.cpu.set_status(STATUS, old & STATUS);
        }
        flow
    }

    /// The linear address that `register` points to in `segment`.
    pub(crate) fn string_address(
        &self,
        op: &Decoded,
        register: Gpr,
        segment: SegmentName,
        kind: AccessKind,
    ) -> Result<Linear> {
        let offset = self.cpu.gpr[register as usize] & mask(op.memory.address_size);
        self.segmented(segment, offset, u64::from(op.size), kind)
    }

    /// Moves `register` on by one element.
    pub(crate) const fn advance(&mut self, op: &Decoded, register: Gpr) {
        let size = op.size as u64;
        let backwards = self.cpu.control_flags().contains(RFlags::DF);
        let old = self.cpu.gpr[register as usize];
        let new = if backwards { old.wrapping_sub(size) } else { old.wrapping_add(size) };
        self.put_register(register as u8, op.memory.address_size, new);
    }

    /// Of a REP MOVS or REP STOS that has begun, does iterations at once, `most` at most and never the last, as long as they
    /// touch nothing but two pages of RAM that were accessed in the same way before. Answers how many.
    pub(crate) fn iterate_in_ram(&mut self, op: &Decoded, most: u64) -> u64 {
        let (moves, size) = (op.quick == Quick::Movs, u64::from(op.size));
        let based =
            moves && !matches!(op.memory.segment, SegmentName::Ds | SegmentName::Es | SegmentName::Ss);
        let plain = self.run.is_flat() && (!based || self.cpu.is_64_bit());
        if !(moves || op.quick == Quick::Stos) || !plain || self.cpu.control_flags().contains(RFlags::DF) {
            return 0;
        }
        let registers = mask(op.memory.address_size);
        let left = self.cpu.gpr[Gpr::Rcx as usize] & registers;
        let Ok(to) = self.string_address(op, Gpr::Rdi, SegmentName::Es, AccessKind::Write) else { return 0 };
        let inside = |linear: Linear| (4096 - linear.page_offset()) / size;
        let mut count = most.min(left.saturating_sub(1)).min(inside(to));
        let key = self.cpu.tlb.key(self.run.bank());
        let Some(to) = self.cpu.tlb.quick_write(key, to, op.size.into()).filter(|_| count != 0) else {
            return 0;
        };
        let done = if moves {
            let Ok(from) = self.string_address(op, Gpr::Rsi, op.memory.segment, AccessKind::Read) else {
                return 0;
            };
            count = count.min(inside(from));
            let Some(from) = self.cpu.tlb.quick_read(key, from, op.size.into()) else { return 0 };
            // Elements that were just written may be read again: not before they are.
            if let Some(ahead) = to.checked_sub(from).filter(|ahead| *ahead != 0) {
                count = count.min(ahead as u64 / size);
            }
            self.ctx.memory.copy_within(from, to, (count * size) as usize)
        } else {
            let value = self.cpu.gpr[Gpr::Rax as usize].to_le_bytes();
            self.ctx.memory.fill(to, &value[..usize::from(op.size)], count as usize)
        };
        if !done {
            return 0;
        }
        let mut move_on = |register: Gpr, by: u64| {
            let value = self.cpu.gpr[register as usize].wrapping_add(by);
            self.put_register(register as u8, op.memory.address_size, value);
        };
        move_on(Gpr::Rdi, count * size);
        if moves {
            move_on(Gpr::Rsi, count * size);
        }
        move_on(Gpr::Rcx, count.wrapping_neg());
        count
    }

    /// Counts an iteration down; `compare` is ZF's say in REPE and REPNE.
    pub(crate) fn iterate(&mut self, op: &Decoded, compares: bool) -> Flow {
        if op.repeat == Repeat::None {
            return Flow::Next;
        }
        let size = op.memory.address_size;
        let count = self.cpu.gpr[Gpr::Rcx as usize].wrapping_sub(1) & mask(size);
        self.put_register(Gpr::Rcx as u8, size, count);
        let zero = self.cpu.rflags().0 & ZF != 0;
        let done = compares && zero != (op.repeat == Repeat::WhileEqual);
        if count == 0 || done { Flow::Next } else { Flow::Repeat }
    }
}

/// MOVS.
pub(crate) fn movs(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.begins(op, &[Gpr::Rsi, Gpr::Rdi]) {
        return Ok(Flow::Next);
    }
    let from = x.string_address(op, Gpr::Rsi, op.memory.segment, AccessKind::Read)?;
    let (read, write) = (x.data(AccessKind::Read), x.data(AccessKind::Write));
    let value = x.read(from, op.size, read)?;
    let to = x.string_address(op, Gpr::Rdi, SegmentName::Es, AccessKind::Write)?;
    x.write(to, op.size, value, write)?;
    x.advance(op, Gpr::Rsi);
    x.advance(op, Gpr::Rdi);
    Ok(x.iterate(op, false))
}

/// STOS.
pub(crate) fn stos(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.begins(op, &[Gpr::Rdi]) {
        return Ok(Flow::Next);
    }
    let to = x.string_address(op, Gpr::Rdi, SegmentName::Es, AccessKind::Write)?;
    let write = x.data(AccessKind::Write);
    let value = x.cpu.gpr[Gpr::Rax as usize];
    x.write(to, op.size, value & mask(op.size), write)?;
    x.advance(op, Gpr::Rdi);
    Ok(x.iterate(op, false))
}

/// LODS.
pub(crate) fn lods(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.begins(op, &[]) {
        return Ok(Flow::Next);
    }
    let from = x.string_address(op, Gpr::Rsi, op.memory.segment, AccessKind::Read)?;
    let read = x.data(AccessKind::Read);
    let value = x.read(from, op.size, read)?;
    x.put_register(Gpr::Rax as u8, op.size, value);
    x.advance(op, Gpr::Rsi);
    Ok(x.iterate(op, false))
}

/// SCAS.
pub(crate) fn scas(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.begins(op, &[]) {
        return Ok(Flow::Next);
    }
    let at = x.string_address(op, Gpr::Rdi, SegmentName::Es, AccessKind::Read)?;
    let read = x.data(AccessKind::Read);
    let value = x.read(at, op.size, read)?;
    let (_, flags) = flags::sub(x.cpu.gpr[Gpr::Rax as usize] & mask(op.size), value, 0, op.size);
    x.advance(op, Gpr::Rdi);
    Ok(x.compare(op, flags))
}

/// CMPS.
pub(crate) fn cmps(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.begins(op, &[]) {
        return Ok(Flow::Next);
    }
    // The order decides which of two faults is seen; processors look at ES:rDI first.
    let second = x.string_address(op, Gpr::Rdi, SegmentName::Es, AccessKind::Read)?;
    let read = x.data(AccessKind::Read);
    let b = x.read(second, op.size, read)?;
    let first = x.string_address(op, Gpr::Rsi, op.memory.segment, AccessKind::Read)?;
    let a = x.read(first, op.size, read)?;
    let (_, flags) = flags::sub(a, b, 0, op.size);
    x.advance(op, Gpr::Rsi);
    x.advance(op, Gpr::Rdi);
    Ok(x.compare(op, flags))
}
