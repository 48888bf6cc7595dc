//! Single lanes and masks between vector registers, general-purpose registers and memory: PINSRx, PEXTRx, INSERTPS, EXTRACTPS,
//! MOVMSKx, PMOVMSKB, PTEST, VTESTPS, VTESTPD.

use crate::decode::{Decoded, Operand};
use crate::execute::flags::{CF, STATUS, ZF};
use crate::execute::{Exec, Flow};
use crate::fault::Result;

/// Lane `n` of `value`, with lanes of `bytes` bytes.
const fn lane(value: u128, bytes: u32, n: u32) -> u64 {
    (value >> (8 * bytes * n)) as u64 & u64::MAX >> (64 - 8 * bytes)
}

/// `value` with lane `n` replaced.
const fn with_lane(value: u128, bytes: u32, n: u32, new: u64) -> u128 {
    let mask = (u64::MAX >> (64 - 8 * bytes)) as u128;
    value & !(mask << (8 * bytes * n)) | (new as u128 & mask) << (8 * bytes * n)
}

/// The lane that the immediate selects.
const fn selected(op: &Decoded, bytes: u32) -> u32 {
    let register = if matches!(op.operands[0], Operand::Mmx(_)) || matches!(op.operands[1], Operand::Mmx(_)) {
        8
    } else {
        16
    };
    op.immediate as u32 & (register / bytes - 1)
}

/// PINSRB, PINSRW, PINSRD, PINSRQ.
pub(crate) fn insert<const BYTES: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_media(op)?;
    let value = x.get(op, usize::from(op.last), BYTES as u8)?;
    let result = with_lane(x.target(op), BYTES, selected(op, BYTES), value);
    x.set_target(op, result);
    Ok(Flow::Next)
}

/// PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS: zero-extended into registers.
pub(crate) fn extract<const BYTES: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_media(op)?;
    let source = x.operand(op, 1, 16, false)?;
    let value = lane(source, BYTES, selected(op, BYTES));
    x.put(op, 0, if op.is_memory() { BYTES as u8 } else { 8 }, value)?;
    x.after_mmx_source(op);
    Ok(Flow::Next)
}

/// INSERTPS: a lane of the source (or memory), then lanes to clear.
pub(crate) fn insert_single(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    let control = op.immediate as u32;
    let value = match op.last_operand() {
        Operand::Memory => x.load(op, 4, false)? as u64,
        register => lane(x.register_halves(register)[0], 4, control >> 6 & 3),
    };
    let mut result = with_lane(x.target(op), 4, control >> 4 & 3, value);
    for n in (0..4).filter(|n| control >> n & 1 != 0) {
        result = with_lane(result, 4, n, 0);
    }
    x.set_target(op, result);
    Ok(Flow::Next)
}

/// MOVMSKPS, MOVMSKPD, PMOVMSKB: the sign bits of the lanes.
pub(crate) fn sign_mask<const BYTES: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_media(op)?;
    let lanes = 16 / BYTES;
    let signs = |half| (0..lanes).fold(0, |all, n| all | (lane(half, BYTES, n) >> (8 * BYTES - 1)) << n);
    let [low, high] = x.register_halves(op.operands[1]).map(signs);
    x.put(op, 0, 8, low | high << lanes)?;
    x.after_mmx_source(op);
    Ok(Flow::Next)
}

/// PTEST (all bits), VTESTPS and VTESTPD (those of `MASK`, in each half): ZF if no bit is set in both, CF if the source has no
/// bit that the destination lacks.
pub(crate) fn test<const MASK: u128>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    let (a, b) = (x.target_halves(op), x.source_halves(op)?);
    let both = (a[0] & b[0] | a[1] & b[1]) & MASK;
    let lacking = (!a[0] & b[0] | !a[1] & b[1]) & MASK;
    let zero = if both == 0 { ZF } else { 0 };
    let carry = if lacking == 0 { CF } else { 0 };
    x.cpu.set_status(STATUS, zero | carry);
    Ok(Flow::Next)
}
