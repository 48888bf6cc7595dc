//! FLDCW, FNSTCW, FNSTSW, FNCLEX, FNINIT, FINCSTP, FDECSTP, FFREE, FNOP, WAIT.

use super::{C1, Exec, Flow, stack};
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use crate::vectors::X87;
use rootmode_arch::{Cr0, vector};

impl X87 {
    /// Loads the control word: bit 6 reads as 1, the other reserved bits as 0.
    pub(crate) const fn set_control(&mut self, value: u16) {
        self.control = value & 0x1f3f | 0x40;
        self.summarize();
    }

    /// FNINIT: everything but the data registers.
    pub(crate) const fn initialise(&mut self) {
        let registers = self.registers;
        *self = Self { registers, ..Self::INITIAL };
    }
}

/// FLDCW.
pub(crate) fn load_control(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_waiting()?;
    let value = x.get(op, 0, 2)? as u16;
    x.cpu.vectors.x87.set_control(value);
    Ok(Flow::Next)
}

/// FNSTCW.
pub(crate) fn store_control(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_x87()?;
    let value = u64::from(x.cpu.vectors.x87.control);
    x.put(op, 0, 2, value)?;
    Ok(Flow::Next)
}

/// FNSTSW to memory or AX.
pub(crate) fn store_status(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_x87()?;
    let value = u64::from(x.cpu.vectors.x87.status);
    x.put(op, 0, 2, value)?;
    Ok(Flow::Next)
}

/// FNCLEX: exception flags, stack fault, ES and B.
pub(crate) fn clear_exceptions(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_x87()?;
    x.cpu.vectors.x87.status &= 0x7f00;
    Ok(Flow::Next)
}

/// FNINIT.
pub(crate) fn initialise(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_x87()?;
    x.cpu.vectors.x87.initialise();
    Ok(Flow::Next)
}

/// FINCSTP (`BY` = 1) and FDECSTP (7).
pub(crate) fn move_top<const BY: u8>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        x87.status &= !C1;
        x87.set_top(x87.top() + BY);
    })
}

/// FFREE; the undocumented FFREEP with `POP`.
pub(crate) fn free<const POP: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        x87.status &= !C1;
        x87.free(stack(op.operands[0]));
        if POP {
            x87.pop();
        }
    })
}

/// FNOP.
pub(crate) fn nop(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |_| {})
}

/// FNENI, FNDISI, FNSETPM: instructions of older coprocessors that do nothing.
pub(crate) fn ignored(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_x87()?;
    Ok(Flow::Next)
}

/// WAIT: #NM with CR0.MP and CR0.TS, then a pending #MF.
pub(crate) fn wait(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    if x.cpu.cr0.contains(Cr0::MP | Cr0::TS) {
        return Err(Fault::exception(vector::NM));
    }
    x.require_no_pending()?;
    Ok(Flow::Next)
}
