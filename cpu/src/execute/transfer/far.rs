//! Far JMP and CALL: to code directly, through gates, to tasks (SDM Vol. 2A "CALL—Call Procedure", "JMP—Jump").

use super::super::cet::Frame;
use super::super::descriptors::Descriptor;
use super::super::inspect::is_conforming;
use super::super::{Exec, Flow};
use super::task::Switch;
use super::{is_code, selector_code};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use rootmode_arch::event::TaskSwitchSource;
use rootmode_arch::{AccessRights, Segment, SegmentName, Selector, Vendor, vector};

/// JMP ptr16:16, ptr16:32, m16:16, m16:32, m16:64.
pub(crate) fn jmp_far(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    far(x, op, false)
}

/// CALL ptr16:16, ptr16:32, m16:16, m16:32, m16:64.
pub(crate) fn call_far(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    far(x, op, true)
}

/// Bytes of what CALL pushes. On AMD's parts REX.W widens the slots, but not the far pointer.
fn slot_size(x: &Exec<'_, '_>, op: &Decoded) -> u8 {
    let bytes = &op.current.bytes;
    let opcode = bytes.iter().position(|byte| *byte == 0xff).unwrap_or(0);
    let wide = opcode > 0 && bytes[opcode - 1] & 0xf8 == 0x48;
    if wide && x.cpu.is_64_bit() && x.cpu.model.vendor() == Vendor::Amd { 8 } else { op.size }
}

fn far(x: &mut Exec<'_, '_>, op: &Decoded, call: bool) -> Result<Flow> {
    let (offset, selector) = if op.is_memory() {
        x.far_pointer(op, op.size)?
    } else {
        // The decoder packs an immediate pointer: the selector above 32 bits of offset.
        (op.immediate & 0xffff_ffff, Selector((op.immediate >> 32) as u16))
    };
    let next = x.next_rip(op);
    let slot = slot_size(x, op);
    if !x.cpu.is_protected() {
        let code = x.real_segment(SegmentName::Cs, selector);
        return x.go_to(code, None, offset, call.then_some((next, slot)));
    }
    if selector.is_null() {
        return Err(Fault::GP0);
    }
    let descriptor = x.descriptor(selector, vector::GP, 0)?;
    let rights = descriptor.rights();
    let (cpl, long) = (x.cpu.cpl, x.is_long());
    if rights.contains(AccessRights::S) {
        let code = x.direct_code(descriptor, selector)?;
        return x.go_to(code, Some(descriptor), offset, call.then_some((next, slot)));
    }
    let code = selector_code(selector);
    let known = match rights.kind() {
        0xc => true,
        1 | 4 | 5 | 9 => !long,
        _ => false,
    };
    if !known || rights.dpl() < cpl.max(selector.rpl()) {
        return Err(Fault::with_code(vector::GP, code));
    }
    let source = if call { TaskSwitchSource::Call } else { TaskSwitchSource::Jmp };
    if matches!(rights.kind(), 4 | 0xc) {
        return x.through_call_gate(selector, descriptor, next, call);
    }
    if !rights.contains(AccessRights::P) {
        return Err(Fault::with_code(vector::NP, code));
    }
    let (selector, descriptor) = if rights.kind() == 5 {
        let selector = Selector((descriptor.raw >> 16) as u16);
        (selector, x.available_tss(selector, 0)?)
    } else {
        (selector, descriptor)
    };
    let switch = Switch { source, next, flags: x.cpu.rflags(), error_code: None, ext: 0 };
    x.switch_task(selector, descriptor, switch)?;
    Ok(Flow::Jumped)
}

impl Exec<'_, '_> {
    /// The code segment of a direct far transfer, which keeps the privilege level.
    fn direct_code(&self, descriptor: Descriptor, selector: Selector) -> Result<Segment> {
        let (rights, cpl) = (descriptor.rights(), self.cpu.cpl);
        let code = selector_code(selector);
        let allowed = if is_conforming(rights) {
            rights.dpl() <= cpl
        } else {
            selector.rpl() <= cpl && rights.dpl() == cpl
        };
        if !is_code(rights) || !allowed {
            return Err(Fault::with_code(vector::GP, code));
        }
        self.check_code_size(rights, code)?;
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, code));
        }
        let selector = Selector(selector.0 & !3 | u16::from(cpl));
        Ok(descriptor.segment(selector, AccessRights::ACCESSED))
    }

    /// Goes to `offset` in `code` (from `descriptor`) at the same privilege level.
    /// `back`: pushes CS and this address in slots of so many bytes.
    pub(super) fn go_to(
        &mut self,
        code: Segment,
        descriptor: Option<Descriptor>,
        offset: u64,
        back: Option<(u64, u8)>,
    ) -> Result<Flow> {
        let mut stack = self.current_stack(0);
        if let Some((_, size)) = back {
            self.check_room(&stack, 2, size)?;
        }
        let offset = self.far_offset(&code, offset);
        let cs = u64::from(self.cpu.segment(SegmentName::Cs).selector.0);
        if let Err(fault) = self.check_code_offset(&code, offset, Fault::GP0) {
            // In 64-bit mode Intel's parts have written the frame by then.
            let written = self.cpu.is_64_bit() && self.cpu.model.vendor() == Vendor::Intel;
            if let Some((next, size)) = back.filter(|_| written) {
                self.push_all(&mut stack, &[cs, next], size)?;
            }
            return Err(fault);
        }
        if let Some(descriptor) = descriptor {
            self.mark(descriptor, 1)?;
        }
        let ssp = match back {
            Some((next, _)) => self.shadow_enter(Frame { level: self.cpu.cpl, next, ist: 0 })?,
            None => self.cpu.control_flow.ssp,
        };
        if let Some((next, size)) = back {
            self.push_all(&mut stack, &[cs, next], size)?;
            self.take_pointer(&stack);
        }
        *self.cpu.segment_mut(SegmentName::Cs) = code;
        self.cpu.rip = offset;
        self.commit_shadow_enter(self.cpu.cpl, ssp);
        self.cpu.refresh();
        Ok(Flow::Jumped)
    }
}
