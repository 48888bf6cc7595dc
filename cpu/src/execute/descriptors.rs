//! Descriptors and their tables: LGDT and relatives, LTR and LLDT (SDM Vol. 3A "Segment Descriptors" and "System Descriptors").

use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use rootmode_arch::event::{Operand as EventOperand, TableInstruction};
use rootmode_arch::{
    AccessRights, Cr4, DescriptorTable, Efer, Event, EventClass, Gpr, Linear, Segment, SegmentName, Selector,
    Stage, vector,
};
use rootmode_mmu::{Access, AccessKind};

/// A descriptor as read from a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    /// Where it lies.
    pub(crate) linear: Linear,
    /// Its low 8 bytes.
    pub(crate) raw: u64,
}

impl Descriptor {
    /// Access rights in the VMCS layout.
    pub(crate) const fn rights(self) -> AccessRights {
        AccessRights((self.raw >> 40) as u32 & 0xf0ff)
    }
    /// Limit in bytes.
    pub(crate) const fn limit(self) -> u32 {
        let raw = (self.raw & 0xffff | self.raw >> 32 & 0xf_0000) as u32;
        if self.rights().contains(AccessRights::G) { raw << 12 | 0xfff } else { raw }
    }
    /// The low 32 bits of the base.
    pub(crate) const fn base(self) -> u64 {
        self.raw >> 16 & 0xff_ffff | self.raw >> 32 & 0xff00_0000
    }
    /// As a segment register's contents.
    pub(crate) const fn segment(self, selector: Selector, extra: AccessRights) -> Segment {
        Segment { selector, rights: self.rights().with(extra), limit: self.limit(), base: self.base() }
    }
}

impl Exec<'_, '_> {
    /// Reads the descriptor that `selector` names; `vector` is raised with the selector if the table has none.
    pub(crate) fn descriptor(&mut self, selector: Selector, vector: u8, ext: u32) -> Result<Descriptor> {
        let outside = Fault::with_code(vector, u32::from(selector.0 & !3) | ext);
        let (base, limit) = if selector.is_local() {
            let ldtr = self.cpu.segment(SegmentName::Ldtr);
            if !ldtr.rights.is_usable() {
                return Err(outside);
            }
            (ldtr.base, u64::from(ldtr.limit))
        } else {
            (self.cpu.gdtr.base, u64::from(self.cpu.gdtr.limit))
        };
        if selector.offset() + 7 > limit {
            return Err(outside);
        }
        let linear = Linear(base.wrapping_add(selector.offset()));
        let [raw] = self.read_words::<1, 8>(linear, Access::implicit(AccessKind::Read))?;
        Ok(Descriptor { linear, raw })
    }

    /// Sets the accessed bit (or the busy bit of a TSS) in memory, if it is clear.
    pub(crate) fn mark(&mut self, descriptor: Descriptor, bit: u8) -> Result {
        let kind = (descriptor.raw >> 40) as u8;
        if kind & bit == 0 {
            let at = descriptor.linear.offset(5);
            self.write(at, 1, u64::from(kind | bit), Access::implicit(AccessKind::Write))?;
        }
        Ok(())
    }

    fn table_event(&mut self, op: &Decoded, which: TableInstruction, size: u8) -> Event {
        let operand = match op.operands[0] {
            Operand::Register(r) => EventOperand::Register(Gpr::from_number(r)),
            _ => EventOperand::Memory(self.memory_operand(op)),
        };
        Event::DescriptorTable { instruction: which, operand, operand_size: size }
    }

    /// Offers a descriptor-table instruction at `stage`.
    fn offer_table(&mut self, op: &Decoded, which: TableInstruction, stage: Stage) -> Result {
        self.offer(EventClass::DescriptorTable, stage, |x| x.table_event(op, which, op.size))?;
        Ok(())
    }

    /// SGDT, SIDT, SLDT, STR at CPL 3 with CR4.UMIP.
    pub(crate) const fn check_umip(&self) -> Result {
        if self.cpu.cr4.contains(Cr4::UMIP) && self.cpu.cpl == 3 { Err(Fault::GP0) } else { Ok(()) }
    }
}

/// LGDT (`op.immediate` 0) and LIDT (1): 2 bytes limit, 8 bytes base.
pub(crate) fn load_table(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let which = if op.immediate == 0 { TableInstruction::Lgdt } else { TableInstruction::Lidt };
    x.offer_table(op, which, Stage::BeforeExceptions)?;
    x.require_cpl0()?;
    x.offer_table(op, which, Stage::AfterPrivilege)?;
    // Outside 64-bit mode the base has 4 bytes, of which a 16-bit operand size drops the highest.
    let base_size = if x.cpu.is_64_bit() { 8 } else { 4 };
    let linear = x.linear(op, 2 + u64::from(base_size), AccessKind::Read)?;
    let access = x.data(AccessKind::Read);
    let limit = x.read(linear, 2, access)? as u16;
    let mut base = x.read(linear.offset(2), base_size, access)?;
    if op.size == 2 {
        base &= 0xff_ffff;
    }
    x.offer_table(op, which, Stage::AfterOperands)?;
    if !Linear(base).is_canonical(x.cpu.register_width()) {
        return Err(Fault::GP0);
    }
    let table = DescriptorTable { base, limit };
    if op.immediate == 0 {
        x.cpu.gdtr = table;
    } else {
        x.cpu.idtr = table;
    }
    Ok(Flow::Next)
}

/// SGDT (0) and SIDT (1).
pub(crate) fn store_table(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let which = if op.immediate == 0 { TableInstruction::Sgdt } else { TableInstruction::Sidt };
    x.offer_table(op, which, Stage::BeforeExceptions)?;
    x.check_umip()?;
    x.offer_table(op, which, Stage::AfterPrivilege)?;
    x.offer_table(op, which, Stage::AfterOperands)?;
    let table = if op.immediate == 0 { x.cpu.gdtr } else { x.cpu.idtr };
    let base_size = if x.cpu.is_64_bit() { 8 } else { 4 };
    let linear = x.linear(op, 2 + u64::from(base_size), AccessKind::Write)?;
    let access = x.data(AccessKind::Write);
    x.translate(linear, access)?;
    x.translate(linear.offset(u64::from(base_size) + 1), access)?;
    x.write(linear, 2, u64::from(table.limit), access)?;
    x.write(linear.offset(2), base_size, table.base, access)?;
    Ok(Flow::Next)
}

/// SLDT (0) and STR (1).
pub(crate) fn store_selector(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (which, name) = if op.immediate == 0 {
        (TableInstruction::Sldt, SegmentName::Ldtr)
    } else {
        (TableInstruction::Str, SegmentName::Tr)
    };
    x.require_protected()?;
    x.offer_table(op, which, Stage::BeforeExceptions)?;
    x.check_umip()?;
    x.offer_table(op, which, Stage::AfterPrivilege)?;
    x.offer_table(op, which, Stage::AfterOperands)?;
    let selector = x.cpu.segment(name).selector.0;
    x.put(op, 0, if op.is_memory() { 2 } else { op.size }, u64::from(selector))?;
    Ok(Flow::Next)
}

/// LLDT (0) and LTR (1). Long mode has 16-byte system descriptors and no 16-bit TSS.
pub(crate) fn load_system_segment(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let is_tr = op.immediate == 1;
    let which = if is_tr { TableInstruction::Ltr } else { TableInstruction::Lldt };
    x.require_protected()?;
    x.offer_table(op, which, Stage::BeforeExceptions)?;
    x.require_cpl0()?;
    x.offer_table(op, which, Stage::AfterPrivilege)?;
    let selector = Selector(x.get(op, 0, 2)? as u16);
    x.offer_table(op, which, Stage::AfterOperands)?;
    if selector.is_null() {
        if is_tr {
            return Err(Fault::GP0);
        }
        let ldtr = x.cpu.segment_mut(SegmentName::Ldtr);
        ldtr.selector = selector;
        ldtr.rights = ldtr.rights.with(AccessRights::UNUSABLE);
        return Ok(Flow::Next);
    }
    let code = u32::from(selector.0 & !3);
    let wrong = Fault::with_code(vector::GP, code);
    let long = x.cpu.efer.contains(Efer::LMA);
    if selector.is_local() || !x.has_descriptor(selector, if long { 16 } else { 8 }) {
        return Err(wrong);
    }
    let descriptor = x.descriptor(selector, vector::GP, 0)?;
    let high =
        if long { x.read(descriptor.linear.offset(8), 8, Access::implicit(AccessKind::Read))? } else { 0 };
    let rights = descriptor.rights();
    // LDT; available TSS.
    let known = match rights.kind() {
        2 => !is_tr,
        1 => is_tr && !long,
        9 => is_tr,
        _ => false,
    };
    if rights.contains(AccessRights::S) || !known || high >> 40 & 0x1f != 0 {
        return Err(wrong);
    }
    if !rights.contains(AccessRights::P) {
        return Err(Fault::with_code(vector::NP, code));
    }
    let base = descriptor.base() | high << 32;
    if !Linear(base).is_canonical(x.cpu.register_width()) {
        return Err(wrong);
    }
    let (name, busy) =
        if is_tr { (SegmentName::Tr, AccessRights(2)) } else { (SegmentName::Ldtr, AccessRights(0)) };
    if is_tr {
        x.mark(descriptor, 2)?;
    }
    *x.cpu.segment_mut(name) = Segment { base, ..descriptor.segment(selector, busy) };
    Ok(Flow::Next)
}
