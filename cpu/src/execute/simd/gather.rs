//! VGATHERDPS, VPGATHERQQ and relatives: elements from addresses that a vector register has the offsets of.
//!
//! An element at a time, from the lowest, as the manual's operation section has it: what was loaded before a fault stays, and
//! its mask is clear, so that the instruction goes on where it stopped (SDM Vol. 2C "VGATHERDPS/VGATHERQPS").

use super::Halves;
use super::float::{lane, with_lane};
use crate::decode::{Decoded, Operand};
use crate::execute::flags::{mask, sign_extend};
use crate::execute::{Exec, Flow};
use crate::fault::Result;
use rootmode_arch::Vendor;
use rootmode_mmu::AccessKind;

/// Set in [`Decoded::immediate`] beside the number of the index register if that is a YMM register.
pub(crate) const WIDE_INDEX: u64 = 16;

/// Lane `n` of `BITS` bits.
const fn element<const BITS: u32>(value: &Halves, n: u32) -> u64 {
    lane(value[(n * BITS / 128) as usize & 1], BITS, n % (128 / BITS))
}

/// Replaces lane `n` of `BITS` bits.
const fn replace<const BITS: u32>(value: &mut Halves, n: u32, new: u64) {
    let half = &mut value[(n * BITS / 128) as usize & 1];
    *half = with_lane(*half, BITS, n % (128 / BITS), new);
}

/// Clears lane `n` of `BITS` bits of a register.
const fn clear<const BITS: u32>(x: &mut Exec<'_, '_>, register: u8, n: u32) {
    let mut value = x.cpu.vectors.halves(register);
    replace::<BITS>(&mut value, n, 0);
    x.cpu.vectors.set_halves(register, value);
}

/// Elements of `BITS` bits by indexes of `INDEX` bits.
pub(crate) fn gather<const BITS: u32, const INDEX: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_avx()?;
    let (Operand::Xmm(target) | Operand::Ymm(target), Operand::Xmm(masks) | Operand::Ymm(masks)) =
        (op.operands[0], op.operands[2])
    else {
        return Err(crate::fault::Fault::UD);
    };
    let index = x.cpu.vectors.halves(op.immediate as u8);
    let register = if matches!(op.operands[0], Operand::Ymm(_)) { 256 } else { 128 };
    let indexes = if op.immediate & WIDE_INDEX != 0 { 256 } else { 128 };
    let count = (register / BITS).min(indexes / INDEX);
    let whole = register.max(indexes) / BITS;
    let chosen = x.cpu.vectors.halves(masks);
    let is_chosen = |n: u32| element::<BITS>(&chosen, n) >> (BITS - 1) != 0;
    let intel = x.cpu.model.vendor() == Vendor::Intel;
    if intel {
        // Each mask becomes what its sign bit says, those of no element, too, as far as the wider register goes; none is left
        // above. AMD's parts do not touch the masks of what they have not come to.
        let mut all = [0; 2];
        (0..whole)
            .filter(|n| is_chosen(*n))
            .for_each(|n| replace::<BITS>(&mut all, n, u64::MAX >> (64 - BITS)));
        x.cpu.vectors.set_halves(masks, all);
    }
    let access = x.data(AccessKind::Read);
    let base = x.effective(op);
    for n in 0..count {
        if !is_chosen(n) {
            clear::<BITS>(x, masks, n);
            continue;
        }
        let scaled = sign_extend(element::<INDEX>(&index, n), (INDEX / 8) as u8) << op.memory.scale;
        let offset = base.wrapping_add(scaled) & mask(op.memory.address_size);
        let linear = x.element_address(op.memory.segment, offset, (BITS / 8) as u8, AccessKind::Read)?;
        let value = x.read_element(linear, (BITS / 8) as u8, access)?;
        let mut result = x.cpu.vectors.halves(target);
        replace::<BITS>(&mut result, n, value);
        if intel {
            // What is above the wider register is cleared with the first.
            (whole..256 / BITS).for_each(|n| replace::<BITS>(&mut result, n, 0));
        }
        x.cpu.vectors.set_halves(target, result);
        clear::<BITS>(x, masks, n);
    }
    // What is above the elements is cleared at the end.
    x.cpu.vectors.set_halves(masks, [0; 2]);
    let mut result = x.cpu.vectors.halves(target);
    for n in count..256 / BITS {
        replace::<BITS>(&mut result, n, 0);
    }
    x.cpu.vectors.set_halves(target, result);
    Ok(Flow::Next)
}
