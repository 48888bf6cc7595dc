//! Call gates of 16, 32 and 64 bits (SDM Vol. 3A "Call Gates", "Stack Switching", "IA-32e Mode Call Gates").

use super::super::cet::Frame;
use super::super::descriptors::Descriptor;
use super::super::inspect::is_conforming;
use super::super::{Exec, Flow};
use super::stack::Stack;
use super::{is_code, null_stack, selector_code};
use crate::fault::{Fault, Result};
use rootmode_arch::{AccessRights, Segment, SegmentName, Selector, vector};
use rootmode_mmu::{Access, AccessKind};

/// A call gate's contents.
#[derive(Clone, Copy, Debug)]
struct Gate {
    selector: Selector,
    offset: u64,
    /// Bytes of a stack slot: 2, 4 or 8.
    size: u8,
    /// How many parameters move to the inner stack.
    parameters: usize,
}

impl Exec<'_, '_> {
    /// JMP or CALL through the gate `descriptor`, whose type and DPL are checked; `next` is the return address.
    pub(super) fn through_call_gate(
        &mut self,
        selector: Selector,
        descriptor: Descriptor,
        next: u64,
        call: bool,
    ) -> Result<Flow> {
        let gate = self.call_gate(selector, descriptor)?;
        let cpl = self.cpu.cpl;
        if gate.selector.is_null() {
            return Err(Fault::GP0);
        }
        let code = selector_code(gate.selector);
        let target = self.descriptor(gate.selector, vector::GP, 0)?;
        let rights = target.rights();
        let conforming = is_conforming(rights);
        let level_fits = rights.dpl() <= cpl && (call || conforming || rights.dpl() == cpl);
        let size_fits =
            !self.is_long() || rights.contains(AccessRights::L) && !rights.contains(AccessRights::DB);
        if !is_code(rights) || !level_fits || !size_fits {
            return Err(Fault::with_code(vector::GP, code));
        }
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, code));
        }
        let level = if conforming { cpl } else { rights.dpl() };
        let selector = Selector(gate.selector.0 & !3 | u16::from(level));
        let segment = target.segment(selector, AccessRights::ACCESSED);
        if level == cpl {
            let back = call.then_some((next, gate.size));
            return self.go_to(segment, Some(target), gate.offset, back);
        }
        self.call_inward(&gate, target, segment, level, next)
    }

    fn call_gate(&mut self, selector: Selector, descriptor: Descriptor) -> Result<Gate> {
        let (raw, code) = (descriptor.raw, selector_code(selector));
        let mut high = 0;
        if self.is_long() {
            if !self.has_descriptor(selector, 16) {
                return Err(Fault::with_code(vector::GP, code));
            }
            high = self.read(descriptor.linear.offset(8), 8, Access::implicit(AccessKind::Read))?;
            if high >> 40 & 0x1f != 0 {
                return Err(Fault::with_code(vector::GP, code));
            }
        }
        if !descriptor.rights().contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, code));
        }
        let wide = descriptor.rights().kind() & 8 != 0;
        let offset = raw & 0xffff | if wide { raw >> 32 & 0xffff_0000 } else { 0 };
        let (offset, size, parameters) = match (self.is_long(), wide) {
            (true, _) => (offset | high << 32, 8, 0),
            (false, true) => (offset, 4, (raw >> 32 & 0x1f) as usize),
            (false, false) => (offset, 2, (raw >> 32 & 0x1f) as usize),
        };
        Ok(Gate { selector: Selector((raw >> 16) as u16), offset, size, parameters })
    }

    /// A call to the more privileged `level`, on the stack that the TSS names.
    fn call_inward(
        &mut self,
        gate: &Gate,
        target: Descriptor,
        segment: Segment,
        level: u8,
        next: u64,
    ) -> Result<Flow> {
        let mut stack = if self.is_long() {
            let pointer = self.tss_stack(4 + u64::from(level) * 8, 0)?;
            Stack { segment: null_stack(level), pointer, width: 8, level, code: 0 }
        } else {
            self.inner_stack(level, 0)?
        };
        let old = |x: &Self, name| u64::from(x.cpu.segment(name).selector.0);
        let mut values = [0; 36];
        values[0] = old(self, SegmentName::Ss);
        values[1] = self.cpu.gpr[4];
        for index in 0..gate.parameters {
            // The last parameter lies deepest and is pushed first.
            let offset = (gate.parameters - 1 - index) as u64 * u64::from(gate.size);
            values[2 + index] = self.stack_slot(offset, gate.size)?;
        }
        let count = gate.parameters + 4;
        values[count - 2] = old(self, SegmentName::Cs);
        values[count - 1] = next;
        self.check_room(&stack, count, gate.size)?;
        self.check_code_offset(&segment, gate.offset, Fault::GP0)?;
        self.mark(target, 1)?;
        let (from, ssp) = (self.cpu.cpl, self.shadow_enter(Frame { level, next, ist: 0 })?);
        self.push_all(&mut stack, &values[..count], gate.size)?;
        *self.cpu.segment_mut(SegmentName::Cs) = segment;
        *self.cpu.segment_mut(SegmentName::Ss) = stack.segment;
        self.cpu.set_level(level);
        self.take_pointer(&stack);
        self.cpu.rip = gate.offset;
        self.commit_shadow_enter(from, ssp);
        self.cpu.refresh();
        Ok(Flow::Jumped)
    }

    /// The descriptor of an available TSS that a gate names; `ext` goes into error codes.
    ///
    /// # Errors
    /// #GP and #NP with the TSS's selector.
    pub(super) fn available_tss(&mut self, selector: Selector, ext: u32) -> Result<Descriptor> {
        let code = selector_code(selector) | ext;
        if selector.is_local() || selector.is_null() {
            return Err(Fault::with_code(vector::GP, code));
        }
        let descriptor = self.descriptor(selector, vector::GP, ext)?;
        let rights = descriptor.rights();
        if rights.contains(AccessRights::S) || !matches!(rights.kind(), 1 | 9) {
            return Err(Fault::with_code(vector::GP, code));
        }
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, code));
        }
        Ok(descriptor)
    }
}
