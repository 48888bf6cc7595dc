//! Stack frames and register sets on the stack: ENTER, LEAVE, PUSHA, POPA.

use super::flags::mask;
use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::Result;
use rootmode_arch::{Gpr, SegmentName};
use rootmode_mmu::AccessKind;

const RSP: u8 = Gpr::Rsp as u8;
const RBP: u8 = Gpr::Rbp as u8;

impl Exec<'_, '_> {
    /// Reads `size` bytes of the stack segment at `offset`, which wraps at the stack's width.
    fn read_stack(&mut self, offset: u64, size: u8) -> Result<u64> {
        let at = offset & mask(self.stack_width());
        let linear = self.segmented(SegmentName::Ss, at, u64::from(size), AccessKind::Read)?;
        let access = self.data(AccessKind::Read);
        self.read(linear, size, access)
    }

    /// Writes `size` bytes of the stack segment at `offset`, which wraps at the stack's width.
    fn write_stack(&mut self, offset: u64, size: u8, value: u64) -> Result {
        let at = offset & mask(self.stack_width());
        let linear = self.segmented(SegmentName::Ss, at, u64::from(size), AccessKind::Write)?;
        let access = self.data(AccessKind::Write);
        self.write(linear, size, value, access)
    }
}

/// ENTER: the immediate holds the bytes to allocate (bits 15:0) and the nesting level (bits 20:16). Registers change at the
/// end only; what was already written below the stack pointer stays (SDM Vol. 2A "ENTER—Make Stack Frame for Procedure
/// Parameters").
pub(crate) fn enter(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (size, step) = (op.size, u64::from(op.size));
    let (allocate, level) = (op.immediate & 0xffff, op.immediate >> 16 & 31);
    let mut frame = x.cpu.gpr[usize::from(RBP)];
    let mut top = x.stack_pointer().wrapping_sub(step);
    x.write_stack(top, size, frame)?;
    let new_frame = top;
    for _ in 1..level {
        frame = frame.wrapping_sub(step);
        let link = x.read_stack(frame, size)?;
        top = top.wrapping_sub(step);
        x.write_stack(top, size, link)?;
    }
    if level > 0 {
        top = top.wrapping_sub(step);
        x.write_stack(top, size, new_frame)?;
    }
    top = top.wrapping_sub(allocate);
    // A page fault if a write at the final stack pointer would cause one.
    let linear = x.segmented(SegmentName::Ss, top & mask(x.stack_width()), step, AccessKind::Write)?;
    let access = x.data(AccessKind::Write);
    x.read(linear, size, access)?;
    x.put_register(RBP, size, new_frame);
    x.set_stack_pointer(top);
    Ok(Flow::Next)
}

/// LEAVE.
pub(crate) fn leave(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let frame = x.cpu.gpr[usize::from(RBP)] & mask(x.stack_width());
    let value = x.read_stack(frame, op.size)?;
    x.set_stack_pointer(frame.wrapping_add(u64::from(op.size)));
    x.put_register(RBP, op.size, value);
    Ok(Flow::Next)
}

/// PUSHA, PUSHAD: eight registers in order; the stack pointer as it was before.
pub(crate) fn pusha(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let mut top = x.stack_pointer();
    for number in 0..8 {
        top = top.wrapping_sub(u64::from(op.size));
        x.write_stack(top, op.size, x.cpu.gpr[number])?;
    }
    x.set_stack_pointer(top);
    Ok(Flow::Next)
}

/// POPA, POPAD: the stack pointer's slot is skipped.
pub(crate) fn popa(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let start = x.stack_pointer();
    let mut values = [0; 8];
    for (slot, value) in values.iter_mut().enumerate() {
        *value = x.read_stack(start.wrapping_add(slot as u64 * u64::from(op.size)), op.size)?;
    }
    for (number, value) in (0..8).rev().zip(values) {
        if number != RSP {
            x.put_register(number, op.size, value);
        }
    }
    x.set_stack_pointer(start.wrapping_add(8 * u64::from(op.size)));
    Ok(Flow::Next)
}
