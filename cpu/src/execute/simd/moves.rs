//! Moves between registers and memory: MOVAPS and relatives, MOVSS, MOVSD, MOVQ, MOVD, halves, non-temporal stores.

use crate::decode::{Decoded, Operand};
use crate::execute::{Exec, Flow};
use crate::fault::Result;
use rootmode_arch::Vendor;

/// The low quadword.
const LOW: u128 = u64::MAX as u128;

impl Exec<'_, '_> {
    /// An instruction read an MMX register without writing one: the x87 enters MMX state all the same.
    pub(crate) fn after_mmx_source(&mut self, op: &Decoded) {
        if op.operands.iter().any(|o| matches!(o, Operand::Mmx(_))) {
            self.enter_mmx();
        }
    }
}

/// All bytes either way: MOVAPS, MOVDQA, MOVNTDQ, MOVNTDQA (`ALIGNED`); MOVUPS, MOVDQU, LDDQU.
pub(crate) fn whole<const ALIGNED: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    let size = 16 * op.halves() as u8;
    let value = match op.operands[1] {
        Operand::Memory => x.load_halves(op, size, ALIGNED)?,
        register => x.register_halves(register),
    };
    if op.is_memory() {
        x.store_halves(op, size, ALIGNED, value)?;
    } else {
        x.set_target_halves(op, value);
    }
    Ok(Flow::Next)
}

/// MOVSS (4 bytes) and MOVSD (8): loads clear what is above, moves between registers keep it.
pub(crate) fn scalar<const BYTES: u8>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    let mask = u128::MAX >> (128 - 8 * u32::from(BYTES));
    let value = x.operand(op, usize::from(op.last), BYTES, false)?;
    match (op.operands[0], op.last_operand()) {
        (Operand::Memory, _) => x.store(op, BYTES, false, value)?,
        (_, Operand::Memory) => x.set_target(op, value),
        _ => x.set_target(op, x.target(op) & !mask | value & mask),
    }
    Ok(Flow::Next)
}

/// MOVD, MOVQ, MOVNTQ, MOVQ2DQ, MOVDQ2Q: 4 or 8 bytes between any registers and memory, zero-extended.
pub(crate) fn doubleword(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let bytes = op.size.min(op.source_size).min(8);
    let crosses =
        matches!(op.operands, [Operand::Xmm(_), Operand::Mmx(_), _] | [Operand::Mmx(_), Operand::Xmm(_), _]);
    if crosses {
        x.require_sse()?;
    }
    x.require_media(op)?;
    let value = x.operand(op, 1, bytes, false)? as u64;
    let value = if bytes == 4 { value & 0xffff_ffff } else { value };
    match op.operands[0] {
        Operand::Xmm(_) | Operand::Mmx(_) => x.set_target(op, u128::from(value)),
        _ => {
            // On Intel's parts TOP is set even if the store faults.
            if x.cpu.model.vendor() == Vendor::Intel && matches!(op.operands[1], Operand::Mmx(_)) {
                x.cpu.vectors.x87.set_top(0);
            }
            x.put(op, 0, bytes, value)?;
        }
    }
    x.after_mmx_source(op);
    Ok(Flow::Next)
}

/// MOVLPS, MOVLPD: the low half to or from memory.
pub(crate) fn low_half(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    if op.is_memory() {
        let value = x.operand(op, 1, 8, false)?;
        x.store(op, 8, false, value)?;
    } else {
        let value = x.load(op, 8, false)?;
        x.set_target(op, x.target(op) & !LOW | value);
    }
    Ok(Flow::Next)
}

/// MOVHPS, MOVHPD: the high half to or from memory.
pub(crate) fn high_half(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    if op.is_memory() {
        let value = x.operand(op, 1, 8, false)? >> 64;
        x.store(op, 8, false, value)?;
    } else {
        let value = x.load(op, 8, false)?;
        x.set_target(op, x.target(op) & LOW | value << 64);
    }
    Ok(Flow::Next)
}

/// MOVHLPS.
pub(crate) fn high_to_low(a: u128, b: u128) -> u128 {
    a & !LOW | b >> 64
}

/// MOVLHPS.
pub(crate) fn low_to_high(a: u128, b: u128) -> u128 {
    a & LOW | b << 64
}

/// MASKMOVDQU, MASKMOVQ: bytes whose mask has bit 7 go to DS:rDI. With an empty mask memory is not touched at all.
pub(crate) fn masked(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    use rootmode_arch::Gpr;
    use rootmode_mmu::AccessKind;
    let wide = matches!(op.operands[1], Operand::Xmm(_));
    if wide {
        x.require_vector(op)?;
    } else {
        x.require_mmx()?;
    }
    let (value, mask) = (x.operand(op, 1, 8, false)?, x.operand(op, 2, 8, false)?);
    let bytes: u64 = if wide { 16 } else { 8 };
    let chosen = |n: u64| mask >> (8 * n + 7) & 1 != 0;
    if let (Some(first), Some(last)) = ((0..bytes).find(|n| chosen(*n)), (0..bytes).rfind(|n| chosen(*n))) {
        let offset = x.cpu.gpr[Gpr::Rdi as usize] & crate::execute::flags::mask(op.memory.address_size);
        let linear = x.segmented(op.memory.segment, offset, bytes, AccessKind::Write)?;
        let access = x.data(AccessKind::Write);
        x.translate(x.along(linear, first), access)?;
        x.translate(x.along(linear, last), access)?;
        for n in (first..=last).filter(|n| chosen(*n)) {
            x.write(x.along(linear, n), 1, (value >> (8 * n)) as u64 & 0xff, access)?;
        }
    }
    if !wide {
        x.enter_mmx();
    }
    Ok(Flow::Next)
}
