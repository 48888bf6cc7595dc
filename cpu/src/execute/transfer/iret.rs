//! IRET in every mode (SDM Vol. 2A "IRET/IRETD/IRETQ—Interrupt Return").

use super::super::cet::Return;
use super::super::segments::virtual_8086_segment;
use super::super::{Exec, Flow};
use super::selector_code;
use super::task::Switch;
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use rootmode_arch::event::TaskSwitchSource;
use rootmode_arch::{
    AccessRights, Cr4, Event, EventClass, Gpr, Linear, RFlags, SegmentName, Selector, Stage, Vendor, vector,
};
use rootmode_mmu::{Access, AccessKind};

/// Flags that every IRET loads: CF to SF, TF, DF, OF, NT; with more than 2 bytes also RF, AC and ID.
const ALWAYS: u64 = 0x0025_4dd5;

/// IRET, IRETD, IRETQ.
pub(crate) fn iret(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.offer(EventClass::Iret, Stage::BeforeExceptions, |_| Event::Iret)?;
    x.offer(EventClass::Iret, Stage::AfterPrivilege, |_| Event::Iret)?;
    // Even an IRET that faults or exits ends blocking by NMI.
    if x.cpu.nmi_blocked && !x.cpu.published.iret_keeps_nmi_blocked {
        x.cpu.nmi_blocked = false;
        x.cpu.unblocked_by_iret = true;
    }
    let result = if x.cpu.rflags().contains(RFlags::VM) {
        from_virtual_8086(x, op)
    } else if !x.cpu.is_protected() {
        real(x, op)
    } else if x.cpu.rflags().contains(RFlags::NT) {
        to_previous_task(x, op)
    } else {
        protected(x, op)
    };
    if x.cpu.unblocked_by_iret {
        // Until the fault is settled, exits still report it.
        x.cpu.unblocked_by_iret = result.is_err();
        x.cpu.update_attention();
    }
    result
}

/// Offset, selector and flags from the stack.
fn frame(x: &mut Exec<'_, '_>, size: u8) -> Result<(u64, Selector, u64)> {
    let bytes = u64::from(size);
    // From the top down, which tells where a fault is reported.
    let flags = x.stack_slot(2 * bytes, size)?;
    let selector = Selector(x.stack_slot(bytes, size)? as u16);
    Ok((x.stack_slot(0, size)?, selector, flags))
}

fn load_flags(x: &mut Exec<'_, '_>, size: u8, flags: u64, writable: u64) {
    let writable = if size == 2 { writable & 0xffff } else { writable };
    let old = x.cpu.rflags().0;
    x.cpu.set_rflags(RFlags(old & !writable | flags & writable));
}

fn real(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (offset, selector, flags) = frame(x, op.size)?;
    leave_to_real(x, op, offset, selector)?;
    load_flags(x, op.size, flags, ALWAYS | RFlags::IF.0 | 0x3000);
    Ok(Flow::Jumped)
}

/// CS, RIP and the stack pointer of a return within real or virtual-8086 mode.
fn leave_to_real(x: &mut Exec<'_, '_>, op: &Decoded, offset: u64, selector: Selector) -> Result {
    let code = x.real_segment(SegmentName::Cs, selector);
    x.check_code_offset(&code, offset, Fault::GP0)?;
    x.pop_bytes(3 * u64::from(op.size));
    *x.cpu.segment_mut(SegmentName::Cs) = code;
    x.cpu.rip = offset;
    Ok(())
}

/// IRET of a virtual-8086 program: below IOPL 3 only with CR4.VME and 2-byte slots, and then for the virtual flag.
fn from_virtual_8086(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let old = x.cpu.rflags();
    let virtualized = old.iopl() < 3;
    if virtualized && !(x.cpu.cr4.contains(Cr4::VME) && op.size == 2) {
        return Err(Fault::GP0);
    }
    let (offset, selector, flags) = frame(x, op.size)?;
    if !virtualized {
        leave_to_real(x, op, offset, selector)?;
        load_flags(x, op.size, flags, ALWAYS | RFlags::IF.0);
        return Ok(Flow::Jumped);
    }
    let enables = flags & RFlags::IF.0 != 0;
    if flags & RFlags::TF.0 != 0 || enables && old.contains(RFlags::VIP) {
        return Err(Fault::GP0);
    }
    leave_to_real(x, op, offset, selector)?;
    load_flags(x, 2, flags, ALWAYS);
    let flags = x.cpu.rflags().set(RFlags::VIF, enables);
    x.cpu.set_rflags(flags);
    Ok(Flow::Jumped)
}

/// RFLAGS.NT: back to the task that the TSS links to.
fn to_previous_task(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if x.is_long() {
        return Err(Fault::GP0);
    }
    let tr = *x.cpu.segment(SegmentName::Tr);
    let link = x.read(Linear(tr.base), 2, Access::implicit(AccessKind::Read))?;
    let selector = Selector(link as u16);
    let wrong = Fault::with_code(vector::TS, selector_code(selector));
    if selector.is_local() || selector.is_null() {
        return Err(wrong);
    }
    let descriptor = x.descriptor(selector, vector::TS, 0)?;
    let rights = descriptor.rights();
    if rights.contains(AccessRights::S) || !matches!(rights.kind(), 3 | 0xb) {
        return Err(wrong);
    }
    if !rights.contains(AccessRights::P) {
        return Err(Fault::with_code(vector::NP, selector_code(selector)));
    }
    let next = x.next_rip(op);
    let switch =
        Switch { source: TaskSwitchSource::Iret, next, flags: x.cpu.rflags(), error_code: None, ext: 0 };
    x.switch_task(selector, descriptor, switch)?;
    Ok(Flow::Jumped)
}

/// All five slots of a frame of 64-bit mode. `None`: they have to be read one by one.
fn whole_frame(x: &Exec<'_, '_>) -> Option<[u64; 5]> {
    let linear = x.segmented(SegmentName::Ss, x.stack_pointer(), 40, AccessKind::Read).ok()?;
    x.load_words::<5, 40>(linear, x.data(AccessKind::Read))
}

fn protected(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let size = u64::from(op.size);
    let wide = x.cpu.is_64_bit();
    let whole = if wide && op.size == 8 { whole_frame(x) } else { None };
    let (offset, selector, flags) = match whole {
        Some([offset, selector, flags, ..]) => (offset, Selector(selector as u16), flags),
        None => frame(x, op.size)?,
    };
    let cpl = x.cpu.cpl;
    if flags & RFlags::VM.0 != 0 && op.size == 4 && cpl == 0 && !x.is_long() {
        return to_virtual_8086(x, offset, selector, flags);
    }
    let outer = |x: &mut Exec<'_, '_>| -> Result<(u64, Selector)> {
        let selector = Selector(x.stack_slot(4 * size, x.selector_bytes(op.size))? as u16);
        Ok((x.stack_slot(3 * size, op.size)?, selector))
    };
    // 64-bit mode always pops SS and RSP; AMD's parts do so before they check anything.
    let early = wide && x.cpu.model.vendor() == Vendor::Amd;
    let mut slots = match whole {
        Some([.., pointer, selector]) => Some((pointer, Selector(selector as u16))),
        None if early => Some(outer(x)?),
        None => None,
    };
    let code = x.return_code(selector)?;
    let level = code.selector.rpl();
    if slots.is_none() && (wide || level > cpl) {
        slots = Some(outer(x)?);
    }
    let stack = match slots {
        Some((pointer, selector)) => Some((pointer, x.return_stack(selector, &code)?)),
        None => None,
    };
    x.check_code_offset(&code, offset, Fault::GP0)?;
    x.cpu.control_flow.ssp = x.shadow_leave(Return { code, offset })?;
    let old = x.cpu.rflags();
    let mut writable = ALWAYS;
    if cpl <= old.iopl() {
        writable |= RFlags::IF.0;
    }
    if cpl == 0 {
        // IOPL, VIF, VIP.
        writable |= 0x0018_3000;
    }
    match stack {
        Some((pointer, stack)) => x.enter_outer_stack(stack, &code, pointer),
        None => x.pop_bytes(3 * size),
    }
    *x.cpu.segment_mut(SegmentName::Cs) = code;
    x.cpu.set_level(level);
    x.cpu.rip = offset;
    if level > cpl {
        x.forget_privileged_segments(level);
    }
    load_flags(x, op.size, flags, writable);
    Ok(Flow::Jumped)
}

/// From level 0 into virtual-8086 mode: six more slots with the stack and the data segments.
fn to_virtual_8086(x: &mut Exec<'_, '_>, offset: u64, selector: Selector, flags: u64) -> Result<Flow> {
    let mut slots = [0; 6];
    for (index, slot) in slots.iter_mut().enumerate() {
        *slot = x.stack_slot(12 + index as u64 * 4, 4)?;
    }
    let code = virtual_8086_segment(selector);
    x.check_code_offset(&code, offset, Fault::GP0)?;
    let [pointer, selectors @ ..] = slots;
    let names = [SegmentName::Ss, SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs];
    for (name, selector) in names.into_iter().zip(selectors) {
        *x.cpu.segment_mut(name) = virtual_8086_segment(Selector(selector as u16));
    }
    *x.cpu.segment_mut(SegmentName::Cs) = code;
    x.cpu.gpr[Gpr::Rsp as usize] = pointer;
    x.cpu.set_level(3);
    x.cpu.rip = offset;
    x.cpu.set_rflags(RFlags(flags));
    Ok(Flow::Jumped)
}
