//! Cache lines: CLFLUSH, CLFLUSHOPT, CLWB, and MOVDIR64B. No cache is modelled; what remains are the checks.

use super::flags::mask;
use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use rootmode_arch::SegmentName;
use rootmode_mmu::AccessKind;

/// CLFLUSH, CLFLUSHOPT, CLWB: checked like a load of one byte (SDM Vol. 2A "CLFLUSH—Flush Cache Line").
pub(crate) fn flush(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let linear = x.linear(op, 1, AccessKind::Read)?;
    let access = x.data(AccessKind::Read);
    x.translate(linear, access)?;
    Ok(Flow::Next)
}

/// MOVDIR64B: 64 bytes from memory to ES:register, which must be aligned to 64 bytes.
pub(crate) fn movdir64b(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let Operand::Register(number) = op.operands[0] else { return Err(Fault::UD) };
    let offset = x.cpu.gpr[usize::from(number & 15)] & mask(op.memory.address_size);
    let from = x.linear(op, 64, AccessKind::Read)?;
    let (read, write) = (x.data(AccessKind::Read), x.data(AccessKind::Write));
    // The source may lie anywhere.
    x.match_breakpoints(from, 64, read);
    let mut words = [0; 8];
    for (n, word) in words.iter_mut().enumerate() {
        *word = x.read_checked(from.offset(n as u64 * 8), 8, read)?;
    }
    let to = x.segmented(SegmentName::Es, offset, 64, AccessKind::Write)?;
    if !to.is_aligned(64) {
        return Err(Fault::GP0);
    }
    // Aligned: one page holds all of it, so only the first write can fault.
    for (n, word) in words.into_iter().enumerate() {
        x.write(to.offset(n as u64 * 8), 8, word, write)?;
    }
    Ok(Flow::Next)
}
