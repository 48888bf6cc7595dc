//! Protected mode's IDT: interrupt, trap and task gates of 16 and 32 bits, also out of virtual-8086 mode
//! (SDM Vol. 3A "IDT Descriptors", "Exception- or Interrupt-Handler Procedures", "Interrupt Tasks").

use super::super::inspect::is_conforming;
use super::super::{Exec, cet};
use super::deliver::Frame;
use super::task::Switch;
use super::{is_code, selector_code};
use crate::fault::{Fault, Result};
use rootmode_arch::event::TaskSwitchSource;
use rootmode_arch::{AccessRights, Linear, RFlags, Segment, SegmentName, Selector, vector};
use rootmode_mmu::{Access, AccessKind};

impl Exec<'_, '_> {
    /// Delivers through the gate of `number`.
    pub(super) fn deliver_protected(&mut self, number: u8, frame: &Frame) -> Result {
        let wrong = Fault::with_code(vector::GP, frame.idt_code);
        let offset = u64::from(number) * 8;
        if offset + 7 > u64::from(self.cpu.idtr.limit) {
            return Err(wrong);
        }
        let at = Linear(self.cpu.idtr.base.wrapping_add(offset));
        let gate = self.read(at, 8, Access::implicit(AccessKind::Read))?;
        let kind = gate >> 40 & 0x1f;
        let dpl = (gate >> 45 & 3) as u8;
        if !matches!(kind, 5 | 6 | 7 | 0xe | 0xf) || frame.software && dpl < self.cpu.cpl {
            return Err(wrong);
        }
        if gate >> 47 & 1 == 0 {
            return Err(Fault::with_code(vector::NP, frame.idt_code));
        }
        let selector = Selector((gate >> 16) as u16);
        if kind == 5 {
            return self.deliver_to_task(selector, frame);
        }
        let size = if kind & 8 != 0 { 4 } else { 2 };
        let target = gate & 0xffff | if size == 4 { gate >> 32 & 0xffff_0000 } else { 0 };
        self.enter_handler(selector, target, size, kind & 1 == 0, frame)
    }

    fn deliver_to_task(&mut self, selector: Selector, frame: &Frame) -> Result {
        let descriptor = self.available_tss(selector, frame.ext)?;
        let switch = Switch {
            source: TaskSwitchSource::IdtGate,
            next: frame.rip,
            flags: frame.flags,
            error_code: frame.error_code,
            ext: frame.ext,
        };
        self.switch_task(selector, descriptor, switch)
    }

    /// Enters the handler at `selector`:`target` with slots of `size` bytes.
    fn enter_handler(
        &mut self,
        selector: Selector,
        target: u64,
        size: u8,
        clears_if: bool,
        frame: &Frame,
    ) -> Result {
        let (cpu_level, ext) = (self.cpu.cpl, frame.ext);
        if selector.is_null() {
            return Err(Fault::with_code(vector::GP, ext));
        }
        let code = selector_code(selector) | ext;
        let wrong = Fault::with_code(vector::GP, code);
        let descriptor = self.descriptor(selector, vector::GP, ext)?;
        let rights = descriptor.rights();
        if !is_code(rights) || rights.dpl() > cpu_level {
            return Err(wrong);
        }
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, code));
        }
        let virtual_8086 = self.cpu.rflags().contains(RFlags::VM);
        let inward = !is_conforming(rights) && rights.dpl() < cpu_level;
        // Out of virtual-8086 mode there is only the way to level 0.
        if virtual_8086 && !(inward && rights.dpl() == 0) {
            return Err(wrong);
        }
        let level = if inward { rights.dpl() } else { cpu_level };
        let mut stack = if inward { self.inner_stack(level, ext)? } else { self.current_stack(ext) };

        let selectors = SegmentName::ALL.map(|name| u64::from(self.cpu.segment(name).selector.0));
        let [es, cs, ss, ds, fs, gs, ..] = selectors;
        let sp = self.cpu.gpr[4];
        let error_code = frame.error_code.map_or(0, u64::from);
        let all = [gs, fs, ds, es, ss, sp, frame.flags.0, cs, frame.rip, error_code];
        let first = match (virtual_8086, inward) {
            (true, _) => 0,
            (false, true) => 4,
            (false, false) => 6,
        };
        let last = if frame.error_code.is_some() { all.len() } else { all.len() - 1 };
        let pushed = &all[first..last];
        self.check_room(&stack, pushed.len(), size)?;
        let segment = descriptor.segment(selector, AccessRights::ACCESSED);
        self.check_code_offset(&segment, target, Fault::with_code(vector::GP, ext))?;
        let segment = self.code_segment(descriptor, selector, level)?;
        let ssp = self.shadow_enter(cet::Frame { level, next: frame.rip, ist: 0 })?;
        self.push_all(&mut stack, pushed, size)?;

        *self.cpu.segment_mut(SegmentName::Cs) = segment;
        *self.cpu.segment_mut(SegmentName::Ss) = stack.segment;
        self.cpu.set_level(level);
        self.take_pointer(&stack);
        self.cpu.rip = target;
        if virtual_8086 {
            for name in [SegmentName::Gs, SegmentName::Fs, SegmentName::Ds, SegmentName::Es] {
                let rights = AccessRights::UNUSABLE;
                *self.cpu.segment_mut(name) = Segment { rights, ..Segment::default() };
            }
        }
        let cleared = RFlags::TF | RFlags::NT | RFlags::RF | RFlags::VM;
        let cleared = if clears_if { cleared | RFlags::IF } else { cleared };
        let flags = self.cpu.rflags().without(cleared);
        self.cpu.set_rflags(flags);
        self.commit_shadow_enter(cpu_level, ssp);
        Ok(())
    }
}
