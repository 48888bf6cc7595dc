//! Near control flow: JMP, Jcc, CALL, RET, LOOP, JRCXZ, and the instructions that only raise: INT n, INT3, INTO, BOUND, UD2.

use super::flags::{ZF, condition, mask, sign_extend};
use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use crate::state::{Delivery, DeliveryKind};
use rootmode_arch::event::{Exception, ExceptionSource};
use rootmode_arch::{Event, EventClass, Gpr, Linear, RFlags, SegmentName, Stage, Vendor, vector};
use rootmode_mmu::AccessKind;

impl Exec<'_, '_> {
    /// Where execution goes on behind the instruction.
    pub(crate) const fn next_rip(&self, op: &Decoded) -> u64 {
        self.cpu.rip.wrapping_add(op.current.length as u64)
    }

    /// # Errors
    /// #GP(0) if a near branch may not go to `target`: it is not canonical, or beyond the code segment's limit.
    fn check_target(&self, target: u64) -> Result {
        let allowed = if self.cpu.is_64_bit() {
            Linear(target).is_canonical(self.cpu.linear_width())
        } else {
            target <= u64::from(self.cpu.segment(SegmentName::Cs).limit)
        };
        if allowed { Ok(()) } else { Err(Fault::GP0) }
    }

    /// Jumps, if [`Self::check_target`] allows it.
    fn jump(&mut self, target: u64) -> Result<Flow> {
        self.check_target(target)?;
        self.cpu.rip = target;
        Ok(Flow::Jumped)
    }

    /// A relative target: the immediate is relative to the instruction itself.
    fn relative(&self, op: &Decoded) -> u64 {
        let target = self.cpu.rip.wrapping_add(op.immediate);
        target & mask(op.size)
    }
}

/// JMP rel.
pub(crate) fn jmp(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let target = x.relative(op);
    x.jump(target)
}

/// JMP r/m.
pub(crate) fn jmp_indirect(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let target = x.get(op, 0, op.size)?;
    let flow = x.jump(target)?;
    x.track_indirect(op);
    Ok(flow)
}

/// Jcc.
pub(crate) fn jcc(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if condition(x.cpu.rflags().0, op.condition) {
        let target = x.relative(op);
        x.jump(target)
    } else {
        Ok(Flow::Next)
    }
}

/// JRCXZ, JECXZ.
pub(crate) fn jrcxz(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if x.cpu.gpr[Gpr::Rcx as usize] & mask(op.memory.address_size) == 0 {
        let target = x.relative(op);
        return x.jump(target);
    }
    Ok(Flow::Next)
}

/// LOOP, LOOPE (condition 4), LOOPNE (condition 5).
pub(crate) fn loop_(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let size = op.memory.address_size;
    let count = x.cpu.gpr[Gpr::Rcx as usize].wrapping_sub(1) & mask(size);
    let zero = x.cpu.rflags().0 & ZF != 0;
    let wanted = match op.condition {
        4 => zero,
        5 => !zero,
        _ => true,
    };
    if count != 0 && wanted {
        let target = x.relative(op);
        let flow = x.jump(target)?;
        x.put_register(Gpr::Rcx as u8, size, count);
        return Ok(flow);
    }
    x.put_register(Gpr::Rcx as u8, size, count);
    Ok(Flow::Next)
}

fn call_to(x: &mut Exec<'_, '_>, op: &Decoded, target: u64) -> Result<Flow> {
    if let Err(fault) = x.check_target(target) {
        // The stack's fault goes first; in 64-bit mode Intel's parts have written the slot by then.
        if x.cpu.model.vendor() == Vendor::Amd {
            x.probe_push(op.size)?;
        } else if x.cpu.is_64_bit() {
            let pointer = x.cpu.gpr[Gpr::Rsp as usize];
            x.push(x.next_rip(op), op.size)?;
            x.cpu.gpr[Gpr::Rsp as usize] = pointer;
        }
        return Err(fault);
    }
    let next = x.next_rip(op);
    // A call to the next instruction only asks where it is; the shadow stack does not hear of it.
    let plain = !op.is_memory() && op.operands[0] == Operand::None && target == next;
    let ssp = if plain { x.cpu.control_flow.ssp } else { x.shadow_call(next)? };
    x.push(next, op.size)?;
    x.cpu.control_flow.ssp = ssp;
    x.jump(target)
}

/// CALL rel.
pub(crate) fn call(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let target = x.relative(op);
    call_to(x, op, target)
}

/// CALL r/m.
pub(crate) fn call_indirect(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let target = x.get(op, 0, op.size)?;
    let flow = call_to(x, op, target)?;
    x.track_indirect(op);
    Ok(flow)
}

/// RET, RET imm16.
pub(crate) fn ret(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let target = x.stack_slot(0, op.size)?;
    x.check_target(target)?;
    x.cpu.control_flow.ssp = x.shadow_return(target)?;
    let flow = x.jump(target)?;
    x.pop_bytes(u64::from(op.size) + op.immediate);
    Ok(flow)
}

/// INTO: #OF as a trap when OF is set.
pub(crate) fn into(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if x.cpu.rflags().contains(RFlags::OF) { breakpoint(x, op) } else { Ok(Flow::Next) }
}

/// BOUND: #BR when a signed index lies outside the pair of bounds in memory.
pub(crate) fn bound(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let size = op.size;
    let index = x.get(op, 0, size)?;
    let at = x.linear(op, 2 * u64::from(size), AccessKind::Read)?;
    let access = x.data(AccessKind::Read);
    let signed = |value| sign_extend(value, size) as i64;
    let lower = x.read(at, size, access)?;
    let is_below = signed(index) < signed(lower);
    // AMD's parts read both bounds before they compare.
    if is_below && x.cpu.model.vendor() == Vendor::Intel {
        return Err(Fault::exception(vector::BR));
    }
    let upper = x.read(at.offset(u64::from(size)), size, access)?;
    if is_below || signed(index) > signed(upper) {
        return Err(Fault::exception(vector::BR));
    }
    Ok(Flow::Next)
}

/// INT n.
pub(crate) fn int(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let number = op.immediate as u8;
    let length = op.current.length;
    let event = Event::SoftwareInterrupt { vector: number, instruction_length: length };
    for stage in [Stage::BeforeExceptions, Stage::AfterPrivilege, Stage::AfterOperands] {
        x.offer(EventClass::SoftwareInterrupt, stage, |_| event)?;
    }
    // AMD's parts push RF as 0, as the native differential shows; the SDM does not say when it is cleared.
    x.cpu.end_resume();
    x.deliver(Delivery { length, ..Delivery::interruption(DeliveryKind::Software, number) })?;
    // The delivery cleared TF before the trap could be taken.
    x.cpu.trap_inhibited = true;
    Ok(Flow::Jumped)
}

/// INT3, INT1, INTO's trap.
pub(crate) fn breakpoint(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.cpu.end_resume();
    let source = if op.immediate == u64::from(vector::DB) {
        ExceptionSource::Privileged
    } else {
        ExceptionSource::Software
    };
    Err(Fault::Exception(Exception {
        vector: op.immediate as u8,
        error_code: None,
        detail: 0,
        source,
        instruction_length: op.current.length,
    }))
}

/// UD0, UD1, UD2, and every encoding that the model does not have.
pub(crate) fn undefined(_: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    Err(Fault::UD)
}

/// An instruction of the model that this engine lacks: stops the machine.
pub(crate) fn unmodelled(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    Err(Fault::Stop(rootmode_arch::record::Stop::Unmodelled(Linear(x.cpu.rip))))
}

/// NOP, PREFETCH, ENDBR64, CLFLUSH's like: nothing happens.
pub(crate) fn nop(_: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    Ok(Flow::Next)
}
