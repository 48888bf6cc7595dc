//! MONITOR and MWAIT, and what user programs have of them: UMONITOR, UMWAIT, TPAUSE
//! (SDM Vol. 2A, 2B (325383-083, Mar 2024)).

use super::flags::STATUS;
use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use crate::monitor::{By, Wait};
use crate::msr::MONITOR_ENABLED;
use crate::time::TSC;
use rootmode_arch::{Cr4, Event, EventClass, Gpr, HostPhysical, Stage, Vendor};
use rootmode_mmu::AccessKind;

impl Exec<'_, '_> {
    /// # Errors
    /// #UD above CPL 0, or while IA32_MISC_ENABLE says that there is no monitor.
    fn require_monitor(&self) -> Result {
        let disabled =
            self.cpu.model.vendor() == Vendor::Intel && self.cpu.msrs.misc_enable & MONITOR_ENABLED == 0;
        if self.cpu.cpl != 0 || disabled { Err(Fault::UD) } else { Ok(()) }
    }

    /// Reads a byte at `offset` of the instruction's segment, and answers where it lies.
    fn monitored(&mut self, op: &Decoded, offset: u64) -> Result<HostPhysical> {
        let linear = self.segmented(op.memory.segment, offset, 1, AccessKind::Read)?;
        let access = self.data(AccessKind::Read);
        self.read(linear, 1, access)?;
        Ok(self.translate(linear, access)?.host)
    }

    /// The value of `gpr`, as far as an operand of `size` bytes has it.
    const fn low_part(&self, gpr: Gpr, size: u8) -> u64 {
        self.cpu.register(gpr) & super::flags::mask(size)
    }
}

/// MONITOR. The operand size is the address size.
pub(crate) fn monitor(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.offer(EventClass::Monitor, Stage::BeforeExceptions, |_| Event::Monitor)?;
    x.require_monitor()?;
    x.offer(EventClass::Monitor, Stage::AfterPrivilege, |_| Event::Monitor)?;
    if x.extension_hints() != 0 {
        return Err(Fault::GP0);
    }
    let at = x.monitored(op, x.low_part(Gpr::Rax, op.size))?;
    x.offer(EventClass::Monitor, Stage::AfterOperands, |_| Event::Monitor)?;
    x.cpu.monitor.arm(x.ctx.memory, at, By::Monitor);
    Ok(Flow::Next)
}

/// MWAIT.
pub(crate) fn mwait(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    let armed = x.cpu.monitor.is_armed(x.ctx.memory, By::Monitor);
    let event = Event::Mwait { armed };
    x.offer(EventClass::Mwait, Stage::BeforeExceptions, |_| event)?;
    x.require_monitor()?;
    x.offer(EventClass::Mwait, Stage::AfterPrivilege, |_| event)?;
    let hints = x.extension_hints();
    if hints > 1 {
        return Err(Fault::GP0);
    }
    let stays_awake = x.offer(EventClass::Mwait, Stage::AfterOperands, |_| event)?.is_some();
    if armed && !stays_awake {
        x.cpu.wait(Wait { monitored: true, masked: hints == 1, ..Wait::default() });
    }
    Ok(Flow::Next)
}

impl Exec<'_, '_> {
    /// ECX of MONITOR and MWAIT; in 64-bit mode all of RCX.
    const fn extension_hints(&self) -> u64 {
        self.low_part(Gpr::Rcx, if self.cpu.is_64_bit() { 8 } else { 4 })
    }

    /// Waits as UMWAIT and TPAUSE do, until the time-stamp counter reaches EDX:EAX or the system's limit is over, which
    /// RFLAGS.CF tells.
    fn pause_until(&mut self, monitored: bool) {
        self.cpu.set_status(STATUS, 0);
        let Some(delay) = self.edx_eax().checked_sub(self.cpu.tsc()).filter(|delay| *delay > 0) else {
            return;
        };
        let limit = self.cpu.msrs.umwait_control & !3;
        let limited = limit != 0 && limit < delay;
        let delay = if limited { limit } else { delay };
        // The guest's clock may be faster than the processor's.
        let ratio = self.cpu.published.tsc_ratio;
        let physical = (u128::from(delay) << ratio.shift) / u128::from(ratio.multiplier.max(1));
        let physical = u64::try_from(physical).unwrap_or(u64::MAX);
        let until = Some(TSC.after(self.cpu.tick, physical));
        self.cpu.wait(Wait { monitored, masked: true, until, limited });
    }
}

/// UMONITOR: it has no event of its own and goes with UMWAIT.
pub(crate) fn user_monitor(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_defined(EventClass::Umwait)?;
    let Operand::Register(number) = op.operands[0] else { return Err(Fault::UD) };
    let at = x.monitored(op, x.low_part(Gpr::from_number(number), op.size))?;
    x.cpu.monitor.arm(x.ctx.memory, at, By::UserMonitor);
    Ok(Flow::Next)
}

/// UMWAIT (immediate 0), TPAUSE (1).
pub(crate) fn user_wait(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let Operand::Register(number) = op.operands[0] else { return Err(Fault::UD) };
    let gpr = Gpr::from_number(number);
    let event = if op.immediate == 0 { Event::Umwait { gpr } } else { Event::Tpause { gpr } };
    x.require_defined(event.class())?;
    x.offer(event.class(), Stage::BeforeExceptions, |_| event)?;
    if x.cpu.cr4.contains(Cr4::TSD) && x.cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    x.offer_rest(event)?;
    if x.low_part(gpr, 4) > 1 {
        return Err(Fault::GP0);
    }
    let monitored = op.immediate == 0;
    if monitored && !x.cpu.monitor.is_armed(x.ctx.memory, By::UserMonitor) {
        x.cpu.set_status(STATUS, 0);
    } else {
        x.pause_until(monitored);
    }
    Ok(Flow::Next)
}
