//! Far RET, and the checks on the segments of a return that it shares with IRET (SDM Vol. 2B "RET—Return From Procedure").

use super::super::cet::Return;
use super::super::inspect::is_conforming;
use super::super::{Exec, Flow};
use super::{is_code, is_stack, null_stack, selector_code};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use rootmode_arch::{AccessRights, Gpr, Segment, SegmentName, Selector, vector};

impl Exec<'_, '_> {
    /// CS for a return to `selector`, whose RPL is the new privilege level.
    pub(super) fn return_code(&mut self, selector: Selector) -> Result<Segment> {
        let rpl = selector.rpl();
        if selector.is_null() {
            return Err(Fault::GP0);
        }
        let code = selector_code(selector);
        let descriptor = self.descriptor(selector, vector::GP, 0)?;
        let rights = descriptor.rights();
        let level_fits = if is_conforming(rights) { rights.dpl() <= rpl } else { rights.dpl() == rpl };
        if !is_code(rights) || rpl < self.cpu.cpl || !level_fits {
            return Err(Fault::with_code(vector::GP, code));
        }
        self.check_code_size(rights, code)?;
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, code));
        }
        self.code_segment(descriptor, selector, rpl)
    }

    /// SS for a return to `code`.
    pub(super) fn return_stack(&mut self, selector: Selector, code: &Segment) -> Result<Segment> {
        let level = code.selector.rpl();
        if selector.is_null() {
            let long = self.is_long() && code.rights.contains(AccessRights::L);
            if !long || level == 3 || selector.rpl() != level {
                return Err(Fault::GP0);
            }
            return Ok(Segment { selector, ..null_stack(level) });
        }
        let error = selector_code(selector);
        let descriptor = self.descriptor(selector, vector::GP, 0)?;
        let rights = descriptor.rights();
        if !is_stack(rights) || selector.rpl() != level || rights.dpl() != level {
            return Err(Fault::with_code(vector::GP, error));
        }
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::SS, error));
        }
        self.mark(descriptor, 1)?;
        Ok(descriptor.segment(selector, AccessRights::ACCESSED))
    }

    /// Sets SS and the stack pointer of an outer level, as wide as the new stack is.
    pub(super) fn enter_outer_stack(&mut self, stack: Segment, code: &Segment, pointer: u64) {
        *self.cpu.segment_mut(SegmentName::Ss) = stack;
        let width = if self.is_long() && code.rights.contains(AccessRights::L) {
            8
        } else if stack.rights.contains(AccessRights::DB) {
            4
        } else {
            2
        };
        self.put_register(Gpr::Rsp as u8, width, pointer);
    }
}

/// RETF and RETF imm16.
pub(crate) fn ret_far(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let size = u64::from(op.size);
    // CS first, which tells where a fault is reported.
    let selector = Selector(x.stack_slot(size, x.selector_bytes(op.size))? as u16);
    let offset = x.stack_slot(0, op.size)?;
    if !x.cpu.is_protected() {
        let code = x.real_segment(SegmentName::Cs, selector);
        x.check_code_offset(&code, offset, Fault::GP0)?;
        x.pop_bytes(2 * size + op.immediate);
        *x.cpu.segment_mut(SegmentName::Cs) = code;
        x.cpu.rip = offset;
        return Ok(Flow::Jumped);
    }
    let code = x.return_code(selector)?;
    let (level, offset) = (code.selector.rpl(), x.far_offset(&code, offset));
    if level == x.cpu.cpl {
        x.check_code_offset(&code, offset, Fault::GP0)?;
        x.cpu.control_flow.ssp = x.shadow_leave(Return { code, offset })?;
        x.pop_bytes(2 * size + op.immediate);
    } else {
        let pointer = x.stack_slot(2 * size + op.immediate, op.size)?;
        let stack = Selector(x.stack_slot(3 * size + op.immediate, op.size)? as u16);
        let stack = x.return_stack(stack, &code)?;
        x.check_code_offset(&code, offset, Fault::GP0)?;
        x.cpu.control_flow.ssp = x.shadow_leave(Return { code, offset })?;
        x.cpu.set_level(level);
        // The callee's parameters are dropped from the outer stack as well.
        x.enter_outer_stack(stack, &code, pointer.wrapping_add(op.immediate));
        x.forget_privileged_segments(level);
    }
    *x.cpu.segment_mut(SegmentName::Cs) = code;
    x.cpu.rip = offset;
    x.cpu.refresh();
    Ok(Flow::Jumped)
}
