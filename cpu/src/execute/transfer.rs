//! Transfers between privilege levels: delivery through the 64-bit IDT, IRET, SYSCALL, SYSRET
//! (SDM Vol. 3A "Exception and Interrupt Handling in 64-bit Mode").

use super::flags::mask;
use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use crate::state::{Activity, Delivery, DeliveryKind};
use rootmode_arch::record::Payload;
use rootmode_arch::{
    AccessRights, Efer, Event, EventClass, Gpr, Linear, RFlags, Segment, SegmentName, Selector, Stage,
    Vendor, vector,
};
use rootmode_mmu::{Access, AccessKind};

const RSP: usize = Gpr::Rsp as usize;

impl Exec<'_, '_> {
    /// Delivers `delivery` through the IDT. Until it is complete, [`Cpu::delivering`](crate::Cpu::delivering) names it.
    ///
    /// # Errors
    /// A fault on the way, while `delivering` still names the event.
    pub(crate) fn deliver(&mut self, delivery: Delivery) -> Result {
        self.cpu.delivering = Some(delivery);
        let software = matches!(delivery.kind, DeliveryKind::Software | DeliveryKind::SoftwareException);
        let ext = u32::from(!software);
        let idt_code = u32::from(delivery.vector) * 8 + 2;
        let offset = u64::from(delivery.vector) * 16;
        if offset + 15 > u64::from(self.cpu.idtr.limit) {
            return Err(Fault::with_code(vector::GP, idt_code + ext));
        }
        let gate = Linear(self.cpu.idtr.base.wrapping_add(offset));
        let low = self.read(gate, 8, Access::implicit(AccessKind::Read))?;
        let high = self.read(gate.offset(8), 8, Access::implicit(AccessKind::Read))?;
        let kind = low >> 40 & 0x1f;
        if !matches!(kind, 0xe | 0xf) || software && (low >> 45 & 3) < u64::from(self.cpu.cpl) {
            return Err(Fault::with_code(vector::GP, idt_code + ext));
        }
        if low >> 47 & 1 == 0 {
            return Err(Fault::with_code(vector::NP, idt_code + ext));
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
        let return_rip =
            delivery.return_rip.unwrap_or_else(|| self.cpu.rip.wrapping_add(u64::from(delivery.length)));
        let mut flags = self.cpu.rflags();
        if delivery.kind == DeliveryKind::Hardware && delivery.vector != vector::DB {
            flags = flags.with(RFlags::RF);
        }
        let frame = [
            delivery.error_code.map_or(0, u64::from),
            return_rip,
            u64::from(self.cpu.segment(SegmentName::Cs).selector.0),
            flags.0,
            self.cpu.gpr[RSP],
            u64::from(self.cpu.segment(SegmentName::Ss).selector.0),
        ];
        let frame = if delivery.error_code.is_some() { &frame[..] } else { &frame[1..] };
        let rsp = stack.wrapping_sub(frame.len() as u64 * 8);
        let width = self.cpu.linear_width();
        if !Linear(rsp).is_canonical(width) || !Linear(stack.wrapping_sub(1)).is_canonical(width) {
            return Err(Fault::with_code(vector::SS, ext));
        }
        if !Linear(target).is_canonical(width) {
            return Err(Fault::with_code(vector::GP, ext));
        }
        let access = Access { kind: AccessKind::Write, user: cpl == 3, smap_override: false };
        self.write_words(Linear(rsp), frame, access)?;

        let interrupt_gate = kind == 0xe;
        *self.cpu.segment_mut(SegmentName::Cs) = code;
        if cpl != self.cpu.cpl {
            *self.cpu.segment_mut(SegmentName::Ss) = null_stack(cpl);
            self.cpu.cpl = cpl;
        }
        self.cpu.gpr[RSP] = rsp;
        self.cpu.rip = target;
        self.cpu.delivering = None;
        self.cpu.sti_shadow = false;
        self.cpu.mov_ss_shadow = false;
        self.cpu.activity = Activity::Active;
        if delivery.kind == DeliveryKind::Nmi {
            self.cpu.nmi_blocked = true;
        }
        let cleared = RFlags::TF | RFlags::NT | RFlags::RF | RFlags::VM;
        let cleared = if interrupt_gate { cleared | RFlags::IF } else { cleared };
        let flags = self.cpu.rflags().without(cleared);
        self.cpu.set_rflags(flags);
        let payload =
            Payload::Delivery { vector: delivery.vector, error_code: delivery.error_code, rip: return_rip };
        self.ctx.emit(self.cpu, payload);
        Ok(())
    }

    /// CS for a handler, and the privilege level that it runs at.
    fn handler_code_segment(&mut self, selector: Selector, ext: u32) -> Result<(Segment, u8)> {
        if selector.is_null() {
            return Err(Fault::with_code(vector::GP, ext));
        }
        let code = u32::from(selector.0 & !3) | ext;
        let descriptor = self.descriptor(selector, vector::GP, ext)?;
        let rights = descriptor.rights();
        let is_code = rights.contains(AccessRights::S | AccessRights::CODE);
        if !is_code || rights.dpl() > self.cpu.cpl {
            return Err(Fault::with_code(vector::GP, code));
        }
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, code));
        }
        if !rights.contains(AccessRights::L) || rights.contains(AccessRights::DB) {
            return Err(Fault::with_code(vector::GP, code));
        }
        let conforming = rights.contains(AccessRights::EXPAND_DOWN);
        let cpl = if conforming { self.cpu.cpl } else { rights.dpl() };
        self.mark(descriptor, 1)?;
        let selector = Selector(selector.0 & !3 | u16::from(cpl));
        Ok((descriptor.segment(selector, AccessRights::ACCESSED), cpl))
    }

    /// A stack pointer from the 64-bit TSS.
    fn tss_stack(&mut self, offset: u64, ext: u32) -> Result<u64> {
        let tr = *self.cpu.segment(SegmentName::Tr);
        if offset + 7 > u64::from(tr.limit) {
            return Err(Fault::with_code(vector::TS, u32::from(tr.selector.0 & !3) | ext));
        }
        let at = Linear(tr.base.wrapping_add(offset));
        let rsp = self.read(at, 8, Access::implicit(AccessKind::Read))?;
        if !Linear(rsp).is_canonical(self.cpu.linear_width()) {
            return Err(Fault::with_code(vector::SS, ext));
        }
        Ok(rsp)
    }

    /// CS and SS for a return to `selector` with its RPL as the new privilege level, and SS.
    fn return_segments(&mut self, cs: Selector, ss: Selector) -> Result<(Segment, Segment)> {
        let rpl = cs.rpl();
        if cs.is_null() {
            return Err(Fault::GP0);
        }
        let code = u32::from(cs.0 & !3);
        let descriptor = self.descriptor(cs, vector::GP, 0)?;
        let rights = descriptor.rights();
        let conforming = rights.contains(AccessRights::EXPAND_DOWN);
        let level_fits = if conforming { rights.dpl() <= rpl } else { rights.dpl() == rpl };
        let is_code = rights.contains(AccessRights::S | AccessRights::CODE);
        let both = rights.contains(AccessRights::L | AccessRights::DB);
        if !is_code || rpl < self.cpu.cpl || !level_fits || both {
            return Err(Fault::with_code(vector::GP, code));
        }
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, code));
        }
        let long = rights.contains(AccessRights::L);
        let stack = if ss.is_null() {
            if !long || rpl == 3 || ss.rpl() != rpl {
                return Err(Fault::GP0);
            }
            Segment { selector: ss, ..null_stack(rpl) }
        } else {
            let code = u32::from(ss.0 & !3);
            let descriptor = self.descriptor(ss, vector::GP, 0)?;
            let rights = descriptor.rights();
            let writable = rights.contains(AccessRights::S | AccessRights::WRITABLE)
                && !rights.contains(AccessRights::CODE);
            if !writable || ss.rpl() != rpl || rights.dpl() != rpl {
                return Err(Fault::with_code(vector::GP, code));
            }
            if !rights.contains(AccessRights::P) {
                return Err(Fault::with_code(vector::SS, code));
            }
            self.mark(descriptor, 1)?;
            descriptor.segment(ss, AccessRights::ACCESSED)
        };
        self.mark(descriptor, 1)?;
        Ok((descriptor.segment(cs, AccessRights::ACCESSED), stack))
    }
}

/// SS after a privilege change in 64-bit mode: null with the level as RPL and DPL.
const fn null_stack(cpl: u8) -> Segment {
    Segment {
        selector: Selector(cpl as u16),
        rights: AccessRights(AccessRights::UNUSABLE.0 | (cpl as u32) << 5),
        limit: 0,
        base: 0,
    }
}

/// IRETD and IRETQ in 64-bit mode.
pub(crate) fn iret(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.offer(EventClass::Iret, Stage::BeforeExceptions, |_| Event::Iret)?;
    x.offer(EventClass::Iret, Stage::AfterPrivilege, |_| Event::Iret)?;
    let nmi_blocked = x.cpu.nmi_blocked;
    let result = iret_inner(x, op);
    // A faulting IRET ends blocking by NMI as well.
    if nmi_blocked && matches!(result, Ok(_) | Err(Fault::Exception(_))) {
        x.cpu.nmi_blocked = false;
        x.cpu.update_attention();
    }
    result
}

fn iret_inner(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if x.cpu.rflags().contains(RFlags::NT) {
        return Err(Fault::GP0);
    }
    let size = op.size;
    let mut slots = [0; 5];
    for (index, slot) in slots.iter_mut().enumerate() {
        *slot = x.stack_slot(index as u64 * u64::from(size), size)?;
    }
    let [rip, cs, flags, rsp, ss] = slots;
    let (code, stack) = x.return_segments(Selector(cs as u16), Selector(ss as u16))?;
    let long = code.rights.contains(AccessRights::L);
    if long && !Linear(rip).is_canonical(x.cpu.linear_width())
        || !long && rip & mask(4) > u64::from(code.limit)
    {
        return Err(Fault::GP0);
    }
    let old = x.cpu.rflags();
    let mut writable = 0x0025_4dd5;
    if size == 2 {
        writable &= 0xffff;
    }
    if x.cpu.cpl <= old.iopl() {
        writable |= RFlags::IF.0;
    }
    if x.cpu.cpl == 0 {
        writable |= 0x0018_3000;
    }
    let new_cpl = code.selector.rpl();
    let outward = new_cpl > x.cpu.cpl;
    *x.cpu.segment_mut(SegmentName::Cs) = code;
    *x.cpu.segment_mut(SegmentName::Ss) = stack;
    x.cpu.cpl = new_cpl;
    x.cpu.rip = if long { rip } else { rip & mask(4) };
    x.cpu.gpr[RSP] = rsp;
    if outward {
        forget_privileged_segments(x, new_cpl);
    }
    x.cpu.set_rflags(RFlags(old.0 & !writable | flags & writable));
    Ok(Flow::Jumped)
}

/// On a return to a lower privilege level, data segments that it may not use become null.
fn forget_privileged_segments(x: &mut Exec<'_, '_>, cpl: u8) {
    for name in [SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs] {
        let segment = x.cpu.segment_mut(name);
        let conforming = segment.rights.contains(AccessRights::CODE | AccessRights::EXPAND_DOWN);
        if segment.rights.is_usable() && !conforming && segment.rights.dpl() < cpl {
            segment.selector = Selector(0);
            segment.rights = segment.rights.with(AccessRights::UNUSABLE);
        }
    }
}

fn flat(selector: u64, rights: u32) -> Segment {
    Segment { selector: Selector(selector as u16), rights: AccessRights(rights), limit: u32::MAX, base: 0 }
}

/// SYSCALL.
pub(crate) fn syscall(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.cpu.efer.contains(Efer::SCE) {
        return Err(Fault::UD);
    }
    let next = x.next_rip(op);
    let flags = x.cpu.rflags();
    x.cpu.gpr[Gpr::Rcx as usize] = next;
    x.cpu.gpr[Gpr::R11 as usize] = flags.without(RFlags::RF).0;
    let selector = x.cpu.msrs.star >> 32 & 0xfffc;
    *x.cpu.segment_mut(SegmentName::Cs) = flat(selector, 0xa09b);
    *x.cpu.segment_mut(SegmentName::Ss) = flat(selector + 8, 0xc093);
    x.cpu.cpl = 0;
    x.cpu.rip = x.cpu.msrs.lstar;
    let masked = RFlags(flags.0 & !x.cpu.msrs.fmask).without(RFlags::RF);
    x.cpu.set_rflags(masked);
    Ok(Flow::Jumped)
}

/// SYSRET to 64-bit (operand size 8) or compatibility mode.
pub(crate) fn sysret(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.cpu.efer.contains(Efer::SCE) {
        return Err(Fault::UD);
    }
    x.require_cpl0()?;
    let long = op.size == 8;
    let rip = x.cpu.gpr[Gpr::Rcx as usize];
    // Intel checks RCX here; AMD loads it, and the next fetch faults at CPL 3.
    let canonical = Linear(rip).is_canonical(x.cpu.linear_width());
    if long && !canonical && x.cpu.model.vendor() == Vendor::Intel {
        return Err(Fault::GP0);
    }
    let base = x.cpu.msrs.star >> 48;
    let (cs, rights) = if long { (base.wrapping_add(16), 0xa0fb) } else { (base, 0xc0fb) };
    *x.cpu.segment_mut(SegmentName::Cs) = flat(cs | 3, rights);
    *x.cpu.segment_mut(SegmentName::Ss) = flat(base.wrapping_add(8) | 3, 0xc0f3);
    x.cpu.cpl = 3;
    x.cpu.rip = if long { rip } else { rip & mask(4) };
    let flags = x.cpu.gpr[Gpr::R11 as usize] & 0x003c_7fd7;
    x.cpu.set_rflags(RFlags(flags));
    Ok(Flow::Jumped)
}
