//! Loading segment registers: MOV, POP and LDS and its relatives, in every mode
//! (SDM Vol. 3A "Segment Registers" and "Segment Loading Instructions in IA-32e Mode", SDM Vol. 2B "MOV—Move").

use super::flags::mask;
use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use rootmode_arch::{AccessRights, Gpr, RFlags, Segment, SegmentName, Selector, Vendor, vector};
use rootmode_mmu::AccessKind;

impl Exec<'_, '_> {
    /// `name` as real and virtual-8086 mode load it: the base follows from the selector. Real mode keeps limit and rights
    /// ("big real mode"); virtual-8086 mode has fixed ones.
    pub(crate) fn real_segment(&self, name: SegmentName, selector: Selector) -> Segment {
        let base = u64::from(selector.0) << 4;
        if self.cpu.rflags().contains(RFlags::VM) {
            return virtual_8086_segment(selector);
        }
        let old = self.cpu.segment(name);
        if old.rights.is_usable() {
            return Segment { selector, base, ..*old };
        }
        Segment { selector, rights: AccessRights(0x93), limit: 0xffff, base }
    }

    /// Loads DS, ES, FS, GS or SS.
    ///
    /// # Errors
    /// #GP, #SS or #NP with the selector, in the manual's order.
    pub(crate) fn load_data_segment(&mut self, name: SegmentName, selector: Selector) -> Result {
        if !self.cpu.is_protected() {
            *self.cpu.segment_mut(name) = self.real_segment(name, selector);
            return Ok(());
        }
        let cpl = self.cpu.cpl;
        let stack = name == SegmentName::Ss;
        let code = u32::from(selector.0 & !3);
        if selector.is_null() {
            let null_stack = self.cpu.is_64_bit() && cpl != 3 && selector.rpl() == cpl;
            if stack && !null_stack {
                return Err(Fault::GP0);
            }
            self.load_null(name, selector);
            return Ok(());
        }
        let descriptor = self.descriptor(selector, vector::GP, 0)?;
        let rights = descriptor.rights();
        let (dpl, rpl) = (rights.dpl(), selector.rpl());
        let is_code = rights.contains(AccessRights::CODE);
        let conforming = is_code && rights.contains(AccessRights::EXPAND_DOWN);
        let right = if stack {
            !is_code && rights.contains(AccessRights::WRITABLE) && rpl == cpl && dpl == cpl
        } else {
            (!is_code || rights.contains(AccessRights::WRITABLE)) && (conforming || dpl >= rpl.max(cpl))
        };
        if !rights.contains(AccessRights::S) || !right {
            return Err(Fault::with_code(vector::GP, code));
        }
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(if stack { vector::SS } else { vector::NP }, code));
        }
        self.mark(descriptor, 1)?;
        *self.cpu.segment_mut(name) = descriptor.segment(selector, AccessRights::ACCESSED);
        Ok(())
    }

    /// A null selector makes the register unusable and clears base and limit; AMD's parts before Zen 2 kept them.
    pub(crate) fn load_null(&mut self, name: SegmentName, selector: Selector) {
        let cpl = u32::from(self.cpu.cpl);
        let segment = self.cpu.segment_mut(name);
        segment.selector = selector;
        segment.rights = AccessRights(AccessRights::UNUSABLE.0 | cpl << 5);
        segment.base = 0;
        segment.limit = 0;
    }
}

/// A segment register of virtual-8086 mode.
pub(crate) const fn virtual_8086_segment(selector: Selector) -> Segment {
    Segment { selector, rights: AccessRights(0xf3), limit: 0xffff, base: (selector.0 as u64) << 4 }
}

fn name(operand: Operand) -> Result<SegmentName> {
    let Operand::Special(number) = operand else { return Err(Fault::UD) };
    match SegmentName::ALL[usize::from(number)] {
        SegmentName::Cs => Err(Fault::UD),
        name => Ok(name),
    }
}

/// MOV to DS, ES, FS, GS, SS.
pub(crate) fn write_segment(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let name = name(op.operands[0])?;
    let selector = Selector(x.get(op, 1, 2)? as u16);
    x.load_data_segment(name, selector)?;
    shadow(x, name);
    Ok(Flow::Next)
}

/// After MOV SS and POP SS interrupts and debug exceptions wait for one more instruction.
fn shadow(x: &mut Exec<'_, '_>, name: SegmentName) {
    if name == SegmentName::Ss {
        x.cpu.mov_ss_shadow = true;
    }
    x.cpu.refresh();
}

impl Exec<'_, '_> {
    /// Bytes that are accessed of a stack slot of `size` bytes that holds a selector: on Intel's parts the selector alone, on
    /// AMD's all (SDM Vol. 2B "PUSH—Push Word, Doubleword or Quadword Onto the Stack").
    pub(crate) fn selector_bytes(&self, size: u8) -> u8 {
        if self.cpu.model.vendor() == Vendor::Intel { 2 } else { size }
    }
}

/// POP of a segment register. The stack pointer moves as wide as the old stack was.
pub(crate) fn pop_segment(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let name = name(op.operands[0])?;
    let selector = Selector(x.stack_slot(0, x.selector_bytes(op.size))? as u16);
    let old = x.cpu.gpr[Gpr::Rsp as usize];
    x.pop_bytes(u64::from(op.size));
    if let Err(fault) = x.load_data_segment(name, selector) {
        if fault != Fault::Left {
            x.cpu.gpr[Gpr::Rsp as usize] = old;
        }
        return Err(fault);
    }
    shadow(x, name);
    Ok(Flow::Next)
}

/// LDS, LES, LSS, LFS, LGS: `op.immediate` is the segment's number.
pub(crate) fn load_far_pointer(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let name = SegmentName::ALL[op.immediate as usize & 7];
    let Operand::Register(register) = op.operands[0] else { return Err(Fault::UD) };
    let (offset, selector) = x.far_pointer(op, op.source_size - 2)?;
    x.load_data_segment(name, selector)?;
    x.put_register(register, op.size, offset);
    x.cpu.refresh();
    Ok(Flow::Next)
}

impl Exec<'_, '_> {
    /// A far pointer in memory: an offset of `size` bytes, then a selector.
    pub(crate) fn far_pointer(&mut self, op: &Decoded, size: u8) -> Result<(u64, Selector)> {
        let (segment, start) = (op.memory.segment, self.effective(op));
        let access = self.data(AccessKind::Read);
        // Two accesses, each with its own faults.
        let at = self.segmented(segment, start, u64::from(size), AccessKind::Read)?;
        let offset = self.read(at, size, access)?;
        let above = start.wrapping_add(u64::from(size)) & mask(op.memory.address_size);
        let at = self.segmented(segment, above, 2, AccessKind::Read)?;
        let selector = self.read(at, 2, access)?;
        Ok((offset, Selector(selector as u16)))
    }
}
