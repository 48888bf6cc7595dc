//! LDMXCSR, STMXCSR, EMMS, VZEROUPPER, VZEROALL.

use crate::decode::Decoded;
use crate::execute::{Exec, Flow};
use crate::fault::{Fault, Result};
use crate::vectors::MXCSR_MASK;

/// LDMXCSR: #GP(0) for reserved bits.
pub(crate) fn load(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    let value = x.get(op, 0, 4)? as u32;
    if value & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    x.cpu.vectors.mxcsr = value;
    Ok(Flow::Next)
}

/// STMXCSR.
pub(crate) fn store(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    let value = u64::from(x.cpu.vectors.mxcsr);
    x.put(op, 0, 4, value)?;
    Ok(Flow::Next)
}

/// EMMS: all registers are empty, and TOP is 0, as after every MMX instruction.
pub(crate) fn empty(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_mmx()?;
    x.enter_mmx();
    x.cpu.vectors.x87.used = 0;
    Ok(Flow::Next)
}

/// VZEROUPPER; VZEROALL with `ALL`: of the registers that the running code can name.
pub(crate) fn zero<const ALL: bool>(x: &mut Exec<'_, '_>, _: &Decoded) -> Result<Flow> {
    x.require_avx()?;
    let count = x.xmm_count();
    for register in &mut x.cpu.vectors.ymm[..count] {
        register[if ALL { 0 } else { 2 }..].fill(0);
    }
    Ok(Flow::Next)
}
