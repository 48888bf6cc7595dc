//! CET's own instructions (SDM Vol. 2 of each: INCSSP, RDSSP, SAVEPREVSSP, RSTORSSP, WRSS, WRUSS, SETSSBSY, CLRSSBSY,
//! ENDBR32, ENDBR64).

use super::super::flags::{CF, STATUS, mask};
use super::super::{Exec, Flow};
use super::{Violation, bit};
use crate::Cpu;
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use rootmode_arch::{Cr4, RFlags};
use rootmode_mmu::AccessKind;

/// Whether `op` is the ENDBRANCH of the running mode.
pub(super) fn is_endbranch(cpu: &Cpu, op: &Decoded) -> bool {
    let last = if cpu.is_64_bit() { 0xfa } else { 0xfb };
    op.current.bytes[..4] == [0xf3, 0x0f, 0x1e, last]
}

/// ENDBR32, ENDBR64.
pub(crate) fn endbranch(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if is_endbranch(x.cpu, op) && x.cpu.tracks_branches(x.cpu.cpl) {
        *x.cpu.tracker() &= !(bit::WAIT | bit::SUPPRESS);
        x.cpu.update_attention();
    }
    Ok(Flow::Next)
}

impl Exec<'_, '_> {
    fn require_shadow_stack(&self) -> Result {
        if self.cpu.has_shadow_stack(self.cpu.cpl) { Ok(()) } else { Err(Fault::UD) }
    }

    /// What SETSSBSY and CLRSSBSY need: supervisor shadow stacks, and level 0.
    fn require_supervisor_shadow_stack(&self) -> Result {
        if !self.cpu.has_shadow_stack(0) {
            return Err(Fault::UD);
        }
        self.require_cpl0()
    }

    /// Bit 0 of a token: 64-bit mode.
    fn token_mode(&self) -> u64 {
        u64::from(self.cpu.is_64_bit())
    }

    fn aligned_operand(&self, op: &Decoded, size: u8) -> Result<u64> {
        let at = self.linear(op, u64::from(size), AccessKind::Write)?.0;
        if at & u64::from(size - 1) != 0 { Err(Fault::GP0) } else { Ok(at) }
    }
}

/// RDSSPD, RDSSPQ: without shadow stacks nothing happens.
pub(crate) fn read_pointer(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if x.cpu.has_shadow_stack(x.cpu.cpl) {
        let ssp = x.cpu.control_flow.ssp;
        x.put(op, 0, op.size, ssp & mask(op.size))?;
    }
    Ok(Flow::Next)
}

/// INCSSPD, INCSSPQ: first and last of the dropped elements are touched.
pub(crate) fn increment(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_shadow_stack()?;
    let count = x.get(op, 0, op.size)? & 0xff;
    let (ssp, size) = (x.cpu.control_flow.ssp, u64::from(op.size));
    if count != 0 {
        x.shadow_read(ssp, op.size)?;
        x.shadow_read(ssp.wrapping_add((count - 1) * size), op.size)?;
    }
    x.cpu.control_flow.ssp = ssp.wrapping_add(count * size);
    Ok(Flow::Next)
}

/// SAVEPREVSSP: turns the previous-SSP token that RSTORSSP left into a restore token on the previous shadow stack.
pub(crate) fn save_previous(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_shadow_stack()?;
    let ssp = x.cpu.control_flow.ssp;
    if ssp & 7 != 0 {
        return Err(Fault::GP0);
    }
    let token = x.shadow_read(ssp, 8)?;
    let mut after = ssp.wrapping_add(8);
    if x.cpu.rflags().contains(RFlags(CF)) {
        // RSTORSSP found an alignment hole above the token.
        if x.shadow_read(after, 4)? != 0 {
            return Err(Fault::GP0);
        }
        after = after.wrapping_add(4);
    }
    if token & 2 == 0 || !x.cpu.is_64_bit() && token >> 32 != 0 {
        return Err(Fault::GP0);
    }
    let previous = token & !3;
    let level = x.cpu.cpl;
    x.shadow_write(previous.wrapping_sub(4), 4, 0, level)?;
    let place = (previous & !7).wrapping_sub(8);
    let restore = previous | x.token_mode();
    x.shadow_write(place, 8, restore, level)?;
    x.cpu.control_flow.ssp = after;
    Ok(Flow::Next)
}

/// RSTORSSP: switches to the shadow stack whose restore token the operand is.
pub(crate) fn restore(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_shadow_stack()?;
    let at = x.aligned_operand(op, 8)?;
    let (mode, level) = (x.token_mode(), x.cpu.cpl);
    let token = x.read(rootmode_arch::Linear(at), 8, rootmode_mmu::Access::shadow_stack(true, level == 3))?;
    let expected = (token & !1).wrapping_sub(8) & !7;
    let foreign = token & 3 != mode || mode == 0 && token >> 32 != 0;
    if foreign || expected != at {
        return Err(Violation::Restore.into());
    }
    let previous = x.cpu.control_flow.ssp | mode | 2;
    x.shadow_write(at, 8, previous, level)?;
    x.cpu.control_flow.ssp = at;
    x.cpu.set_status(STATUS, if token & 4 != 0 { CF } else { 0 });
    Ok(Flow::Next)
}

/// WRSSD, WRSSQ.
pub(crate) fn write(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_shadow_stack()?;
    if x.cpu.control_flow_at(x.cpu.cpl) & bit::WRITE == 0 {
        return Err(Fault::UD);
    }
    let at = x.aligned_operand(op, op.size)?;
    let value = x.get(op, 1, op.size)?;
    let level = x.cpu.cpl;
    x.shadow_write(at, op.size, value, level)?;
    Ok(Flow::Next)
}

/// WRUSSD, WRUSSQ: a user shadow stack, by level 0.
pub(crate) fn write_user(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    if !x.cpu.cr4.contains(Cr4::CET) || !x.cpu.is_protected() {
        return Err(Fault::UD);
    }
    x.require_cpl0()?;
    let at = x.aligned_operand(op, op.size)?;
    let value = x.get(op, 1, op.size)?;
    x.shadow_write(at, op.size, value, 3)?;
    Ok(Flow::Next)
}

/// SETSSBSY: takes the supervisor shadow stack of IA32_PL0_SSP.
pub(crate) fn set_busy(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_supervisor_shadow_stack()?;
    let at = x.cpu.control_flow.levels[0];
    x.take_token(at, 0, Violation::SetBusy.into())?;
    x.cpu.control_flow.ssp = at;
    Ok(Flow::Next)
}

/// CLRSSBSY: gives back the supervisor shadow stack at the operand; CF says that its token was not busy.
pub(crate) fn clear_busy(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_supervisor_shadow_stack()?;
    let at = x.aligned_operand(op, 8)?;
    let freed = x.free_token(at)?;
    x.cpu.set_status(STATUS, if freed { 0 } else { CF });
    x.cpu.control_flow.ssp = 0;
    Ok(Flow::Next)
}
