//! Delivery through the 64-bit IDT, from 64-bit and compatibility mode
//! (SDM Vol. 3A "Exception and Interrupt Handling in 64-bit Mode").

use super::super::inspect::is_conforming;
use super::super::{Exec, cet};
use super::deliver::Frame;
use super::{is_code, null_stack, selector_code};
use crate::fault::{Fault, Result};
use rootmode_arch::{AccessRights, Gpr, Linear, RFlags, Segment, SegmentName, Selector, vector};
use rootmode_mmu::{Access, AccessKind};

const RSP: usize = Gpr::Rsp as usize;

impl Exec<'_, '_> {
    /// Delivers through the 16-byte gate of `number`.
    pub(super) fn deliver_long(&mut self, number: u8, frame: &Frame) -> Result {
        let (idt_code, ext) = (frame.idt_code, frame.ext);
        let offset = u64::from(number) * 16;
        if offset + 15 > u64::from(self.cpu.idtr.limit) {
            return Err(Fault::with_code(vector::GP, idt_code));
        }
        let gate = Linear(self.cpu.idtr.base.wrapping_add(offset));
        let [low, high] = self.read_words::<2, 16>(gate, Access::implicit(AccessKind::Read))?;
        let kind = low >> 40 & 0x1f;
        if !matches!(kind, 0xe | 0xf) || frame.software && (low >> 45 & 3) < u64::from(self.cpu.cpl) {
            return Err(Fault::with_code(vector::GP, idt_code));
        }
        if low >> 47 & 1 == 0 {
            return Err(Fault::with_code(vector::NP, idt_code));
        }
        let target = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        let selector = Selector((low >> 16) as u16);
        let (code, cpl) = self.handler_code_segment(selector, ext)?;

        let ist = low >> 32 & 7;
        let stack = if ist != 0 {
            self.tss_stack(0x24 + (ist - 1) * 8, ext)?
        } else if cpl != self.cpu.cpl {
            self.tss_stack(4 + u64::from(cpl) * 8, ext)?
        } else {
            self.cpu.gpr[RSP]
        } & !15;
        let pushed = [
            frame.error_code.map_or(0, u64::from),
            frame.rip,
            u64::from(self.cpu.segment(SegmentName::Cs).selector.0),
            frame.flags.0,
            self.cpu.gpr[RSP],
            u64::from(self.cpu.segment(SegmentName::Ss).selector.0),
        ];
        let pushed = if frame.error_code.is_some() { &pushed[..] } else { &pushed[1..] };
        let rsp = stack.wrapping_sub(pushed.len() as u64 * 8);
        let width = self.cpu.linear_width();
        if !Linear(rsp).is_canonical(width) || !Linear(stack.wrapping_sub(1)).is_canonical(width) {
            return Err(Fault::with_code(vector::SS, ext));
        }
        if !Linear(target).is_canonical(width) {
            return Err(Fault::with_code(vector::GP, ext));
        }
        let access = Access { kind: AccessKind::Write, user: cpl == 3, smap_override: false };
        let from = self.cpu.cpl;
        let ssp = self.shadow_enter(cet::Frame { level: cpl, next: frame.rip, ist })?;
        self.write_words(Linear(rsp), pushed, access)?;

        *self.cpu.segment_mut(SegmentName::Cs) = code;
        if cpl != self.cpu.cpl {
            *self.cpu.segment_mut(SegmentName::Ss) = null_stack(cpl);
            self.cpu.set_level(cpl);
        }
        self.cpu.gpr[RSP] = rsp;
        self.cpu.rip = target;
        let cleared = RFlags::TF | RFlags::NT | RFlags::RF | RFlags::VM;
        let cleared = if kind == 0xe { cleared | RFlags::IF } else { cleared };
        // Attention follows at the end of the delivery.
        let flags = self.cpu.rflags().without(cleared);
        self.cpu.load_rflags(flags);
        self.commit_shadow_enter(from, ssp);
        Ok(())
    }

    /// CS for a handler, and the privilege level that it runs at.
    fn handler_code_segment(&mut self, selector: Selector, ext: u32) -> Result<(Segment, u8)> {
        if selector.is_null() {
            return Err(Fault::with_code(vector::GP, ext));
        }
        let code = selector_code(selector) | ext;
        let descriptor = self.descriptor(selector, vector::GP, ext)?;
        let rights = descriptor.rights();
        if !is_code(rights) || rights.dpl() > self.cpu.cpl {
            return Err(Fault::with_code(vector::GP, code));
        }
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, code));
        }
        if !rights.contains(AccessRights::L) || rights.contains(AccessRights::DB) {
            return Err(Fault::with_code(vector::GP, code));
        }
        let cpl = if is_conforming(rights) { self.cpu.cpl } else { rights.dpl() };
        Ok((self.code_segment(descriptor, selector, cpl)?, cpl))
    }

    /// A stack pointer from the 64-bit TSS.
    pub(super) fn tss_stack(&mut self, offset: u64, ext: u32) -> Result<u64> {
        let tr = *self.cpu.segment(SegmentName::Tr);
        if offset + 7 > u64::from(tr.limit) {
            return Err(Fault::with_code(vector::TS, selector_code(tr.selector) | ext));
        }
        let at = Linear(tr.base.wrapping_add(offset));
        let [rsp] = self.read_words::<1, 8>(at, Access::implicit(AccessKind::Read))?;
        if !Linear(rsp).is_canonical(self.cpu.linear_width()) {
            return Err(Fault::with_code(vector::SS, ext));
        }
        Ok(rsp)
    }
}
