//! FXSAVE, FXRSTOR, and their forms with 64-bit pointers (SDM Vol. 2A "FXSAVE", "FXRSTOR"; APM Vol. 2 "FXSAVE and FXRSTOR
//! Instructions" for fast FXSAVE).

use super::{Exec, MXCSR, XMM, word};
use crate::decode::Decoded;
use crate::execute::Flow;
use crate::execute::flags::mask;
use crate::fault::{Fault, Result};
use crate::vectors::MXCSR_MASK;
use rootmode_arch::{Efer, Linear, vector};
use rootmode_mmu::AccessKind;

impl Exec<'_, '_> {
    /// Fast FXSAVE: in 64-bit mode at CPL 0 the XMM registers are left out.
    const fn is_fast(&self) -> bool {
        self.cpu.efer.contains(Efer::FFXSR) && self.cpu.is_64_bit() && self.cpu.cpl == 0
    }
}

/// The area. Where alignment is checked #AC(0) goes before #GP(0) for pieces of 4 bytes, as implementations may choose; the last byte is
/// looked at first, as the addresses of page faults tell.
fn legacy_area(x: &mut Exec<'_, '_>, op: &Decoded, kind: AccessKind) -> Result<Linear> {
    let access = x.data(kind);
    let offset = x.effective(op);
    let aligned =
        x.segmented(op.memory.segment, offset, 1, AccessKind::Read).map(|start| start.is_aligned(4));
    if access.user && x.cpu.checks_alignment() && aligned == Ok(false) {
        return Err(Fault::with_code(vector::AC, 0));
    }
    let linear = x.area(op, 512, 16, kind)?;
    let end = offset.wrapping_add(511) & mask(op.memory.address_size);
    let last = x.segmented(op.memory.segment, end, 1, kind)?;
    x.translate(last, access)?;
    Ok(linear)
}

/// FXSAVE; FXSAVE64 with `LONG`. Bytes beyond the XMM registers are not written.
pub(crate) fn save<const LONG: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_x87()?;
    let linear = legacy_area(x, op, AccessKind::Write)?;
    x.probe(linear, 512, AccessKind::Write)?;
    let mut bytes = [0; 512];
    x.put_x87(&mut bytes, LONG);
    bytes[MXCSR..MXCSR + 4].copy_from_slice(&x.cpu.vectors.mxcsr.to_le_bytes());
    bytes[MXCSR + 4..MXCSR + 8].copy_from_slice(&MXCSR_MASK.to_le_bytes());
    let mut end = XMM;
    if !x.is_fast() {
        x.put_xmm(&mut bytes);
        end += 16 * x.xmm_count();
    }
    x.write_area(linear, 0, &bytes[..end])?;
    Ok(Flow::Next)
}

/// FXRSTOR; FXRSTOR64 with `LONG`. #GP(0) for reserved bits of MXCSR.
pub(crate) fn restore<const LONG: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_x87()?;
    let linear = legacy_area(x, op, AccessKind::Read)?;
    let mut bytes = [0; 512];
    x.fetch_area(linear, 0, &mut bytes)?;
    let mxcsr = word::<4>(&bytes, MXCSR) as u32;
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    x.take_x87(&bytes, LONG);
    x.cpu.vectors.mxcsr = mxcsr;
    if !x.is_fast() {
        x.take_xmm(&bytes);
    }
    Ok(Flow::Next)
}
