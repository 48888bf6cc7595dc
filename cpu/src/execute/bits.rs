//! Bit instructions: BT, BTS, BTR, BTC, BSF, BSR, POPCNT, BSWAP.

use super::flags::{CF, STATUS, ZF, mask, sign_extend};
use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::Result;
use rootmode_mmu::AccessKind;

/// Reads the bit and, for BTS, BTR, BTC, writes it back changed. A memory operand with a register offset addresses a bit
/// string: the word that holds the bit may lie anywhere.
fn bit_test(x: &mut Exec<'_, '_>, op: &Decoded, change: Option<fn(u64, u64) -> u64>) -> Result<Flow> {
    let bits = u64::from(op.size) * 8;
    let offset = x.get(op, 1, if op.operands[1] == Operand::Immediate { 1 } else { op.size })?;
    let bit = 1 << (offset & (bits - 1));
    let word;
    if op.operands[0] == Operand::Memory {
        let mut at = x.effective(op);
        if op.operands[1] != Operand::Immediate {
            let words = (sign_extend(offset, op.size) as i64).div_euclid(bits as i64);
            at = at.wrapping_add((words as u64).wrapping_mul(u64::from(op.size)));
            at &= mask(op.memory.address_size);
        }
        let kind = if change.is_some() { AccessKind::Write } else { AccessKind::Read };
        let linear = x.segmented(op.memory.segment, at, u64::from(op.size), kind)?;
        let access = x.data(kind);
        word = x.read(linear, op.size, access)?;
        if let Some(change) = change {
            x.offer_bus_lock(op, linear, op.size)?;
            x.write(linear, op.size, change(word, bit), access)?;
        }
    } else {
        word = x.get(op, 0, op.size)?;
        if let Some(change) = change {
            x.put(op, 0, op.size, change(word, bit))?;
        }
    }
    x.cpu.set_status(CF, if word & bit != 0 { CF } else { 0 });
    Ok(Flow::Next)
}

/// BT.
pub(crate) fn bt(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    bit_test(x, op, None)
}
/// BTS.
pub(crate) fn bts(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    bit_test(x, op, Some(|word, bit| word | bit))
}
/// BTR.
pub(crate) fn btr(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    bit_test(x, op, Some(|word, bit| word & !bit))
}
/// BTC.
pub(crate) fn btc(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    bit_test(x, op, Some(|word, bit| word ^ bit))
}

/// BSF and BSR: a zero source sets ZF and leaves the destination as it was.
fn scan(x: &mut Exec<'_, '_>, op: &Decoded, find: fn(u64) -> u64) -> Result<Flow> {
    let source = x.get(op, 1, op.size)?;
    if source == 0 {
        x.cpu.set_status(ZF, ZF);
    } else {
        x.put(op, 0, op.size, find(source))?;
        x.cpu.set_status(ZF, 0);
    }
    Ok(Flow::Next)
}

/// BSF.
pub(crate) fn bsf(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    scan(x, op, |v| u64::from(v.trailing_zeros()))
}
/// BSR.
pub(crate) fn bsr(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    scan(x, op, |v| u64::from(63 - v.leading_zeros()))
}

/// POPCNT.
pub(crate) fn popcnt(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let source = x.get(op, 1, op.size)?;
    x.put(op, 0, op.size, u64::from(source.count_ones()))?;
    x.cpu.set_status(STATUS, if source == 0 { ZF } else { 0 });
    Ok(Flow::Next)
}

/// BSWAP: undefined for 16-bit registers, where it yields 0 as on current parts.
pub(crate) fn bswap(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let value = x.get(op, 0, op.size)?;
    let swapped = match op.size {
        8 => value.swap_bytes(),
        4 => u64::from((value as u32).swap_bytes()),
        _ => 0,
    };
    x.put(op, 0, op.size, swapped & mask(op.size))?;
    Ok(Flow::Next)
}
