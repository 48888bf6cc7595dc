//! Data movement: MOV, MOVZX, MOVSX, MOVBE, LEA, XCHG, CMOVcc, SETcc, PUSH, POP, PUSHF, POPF, XLAT.

use super::flags::{condition, mask, sign_extend};
use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use rootmode_arch::{Cr4, Event, EventClass, Gpr, RFlags, Stage};
use rootmode_mmu::AccessKind;

/// MOV, MOVZX: the source is `op.source_size` bytes.
pub(crate) fn mov(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let value = x.get(op, 1, op.source_size)?;
    x.put(op, 0, op.size, value)?;
    Ok(Flow::Next)
}

/// MOVSX, MOVSXD.
pub(crate) fn movsx(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let value = x.get(op, 1, op.source_size)?;
    x.put(op, 0, op.size, sign_extend(value, op.source_size))?;
    Ok(Flow::Next)
}

/// MOVBE.
pub(crate) fn movbe(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let value = x.get(op, 1, op.size)?;
    x.put(op, 0, op.size, value.swap_bytes() >> (64 - 8 * op.size))?;
    Ok(Flow::Next)
}

/// LEA: no access, no canonicality.
pub(crate) fn lea(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let address = x.effective(op);
    x.put(op, 0, op.size, address)?;
    Ok(Flow::Next)
}

/// XCHG.
pub(crate) fn xchg(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let a = x.get_for_write(op, op.size)?;
    let b = x.get(op, 1, op.size)?;
    x.put(op, 0, op.size, b)?;
    x.put(op, 1, op.size, a)?;
    Ok(Flow::Next)
}

/// CMOVcc: the source is read in any case, and a 32-bit destination is zero-extended in any case.
pub(crate) fn cmov(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let source = x.get(op, 1, op.size)?;
    let old = x.get(op, 0, op.size)?;
    let value = if condition(x.cpu.rflags().0, op.condition) { source } else { old };
    x.put(op, 0, op.size, value)?;
    Ok(Flow::Next)
}

/// SETcc.
pub(crate) fn setcc(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let value = u64::from(condition(x.cpu.rflags().0, op.condition));
    x.put(op, 0, 1, value)?;
    Ok(Flow::Next)
}

/// PUSH of a register, memory operand or immediate.
pub(crate) fn push(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (value, written) = match op.operands[0] {
        Operand::Special(segment) => {
            let selector = x.cpu.segments[usize::from(segment)].selector.0;
            // Intel's parts leave the upper half of a slot of 4 bytes as it is.
            let written = if op.size == 4 { x.selector_bytes(4) } else { op.size };
            (u64::from(selector), written)
        }
        _ => (x.get(op, 0, op.size)?, op.size),
    };
    x.push_part(value, op.size, written)?;
    Ok(Flow::Next)
}

/// POP: a memory operand's address uses RSP after the increment.
pub(crate) fn pop(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let value = x.stack_slot(0, op.size)?;
    let old = x.cpu.gpr[Gpr::Rsp as usize];
    x.pop_bytes(u64::from(op.size));
    if let Err(fault) = x.put(op, 0, op.size, value) {
        if fault != Fault::Left {
            x.cpu.gpr[Gpr::Rsp as usize] = old;
        }
        return Err(fault);
    }
    Ok(Flow::Next)
}

/// PUSHF, PUSHFD, PUSHFQ: VM and RF are pushed as 0. Virtual-8086 mode needs IOPL 3, or CR4.VME and 2 bytes.
pub(crate) fn pushf(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.offer(EventClass::Pushf, Stage::BeforeExceptions, |_| Event::Pushf)?;
    x.offer(EventClass::Pushf, Stage::AfterPrivilege, |_| Event::Pushf)?;
    let flags = x.cpu.rflags();
    let mut image = flags.without(RFlags::VM | RFlags::RF);
    if x.is_virtualized_8086() {
        x.require_virtual_flags(op.size)?;
        image = image.set(RFlags::IF, flags.contains(RFlags::VIF)).with(RFlags(0x3000));
    }
    x.push(image.0, op.size)?;
    Ok(Flow::Next)
}

impl Exec<'_, '_> {
    /// Virtual-8086 mode below IOPL 3: the program's IF is virtual, if it has one at all.
    const fn is_virtualized_8086(&self) -> bool {
        let flags = self.cpu.rflags();
        flags.contains(RFlags::VM) && flags.iopl() < 3
    }

    /// # Errors
    /// #GP(0) unless CR4.VME makes IF virtual for instructions of 2 bytes.
    const fn require_virtual_flags(&self, size: u8) -> Result {
        if self.cpu.cr4.contains(Cr4::VME) && size == 2 { Ok(()) } else { Err(Fault::GP0) }
    }
}

/// POPF, POPFD, POPFQ: IOPL changes at CPL 0 only, IF when CPL <= IOPL; VM, VIF and VIP stay; RF is cleared.
/// Virtual-8086 mode needs IOPL 3, or CR4.VME and 2 bytes, which then set VIF.
pub(crate) fn popf(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.offer(EventClass::Popf, Stage::BeforeExceptions, |_| Event::Popf)?;
    x.offer(EventClass::Popf, Stage::AfterPrivilege, |_| Event::Popf)?;
    let virtualized = x.is_virtualized_8086();
    if virtualized {
        x.require_virtual_flags(op.size)?;
    }
    let value = x.stack_slot(0, op.size)?;
    let old = x.cpu.rflags();
    let mut writable = 0x0024_4dd5;
    if op.size == 2 {
        writable &= 0xffff;
    }
    let enables = value & RFlags::IF.0 != 0;
    if virtualized {
        if enables && old.contains(RFlags::VIP) || value & RFlags::TF.0 != 0 {
            return Err(Fault::GP0);
        }
    } else {
        if x.cpu.cpl == 0 {
            writable |= 0x3000;
        }
        if x.cpu.cpl <= old.iopl() {
            writable |= RFlags::IF.0;
        }
    }
    x.pop_bytes(u64::from(op.size));
    let flags = RFlags(old.0 & !writable & !RFlags::RF.0 | value & writable);
    x.cpu.set_rflags(if virtualized { flags.set(RFlags::VIF, enables) } else { flags });
    Ok(Flow::Next)
}

/// XLAT: AL is the index, whatever the rest of RAX holds.
pub(crate) fn xlat(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let table = x.cpu.gpr[Gpr::Rbx as usize];
    let index = x.cpu.gpr[Gpr::Rax as usize] & 0xff;
    let offset = table.wrapping_add(index) & mask(op.memory.address_size);
    let linear = x.segmented(op.memory.segment, offset, 1, AccessKind::Read)?;
    let access = x.data(AccessKind::Read);
    let value = x.read(linear, 1, access)?;
    x.put_register(Gpr::Rax as u8, 1, value);
    Ok(Flow::Next)
}

/// MOV from a segment register, or PUSH's source: the selector, zero-extended into registers, 2 bytes into memory.
pub(crate) fn read_segment(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let Operand::Special(segment) = op.operands[1] else { return Err(Fault::UD) };
    let selector = u64::from(x.cpu.segments[usize::from(segment)].selector.0);
    let size = if op.is_memory() { 2 } else { op.size };
    x.put(op, 0, size, selector)?;
    Ok(Flow::Next)
}
