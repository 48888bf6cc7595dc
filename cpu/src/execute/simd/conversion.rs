//! Conversions between integers, half, single and double precision.

use super::float::{format, lane, with_lane};
use crate::decode::{Decoded, Operand};
use crate::execute::{Exec, Flow};
use crate::fault::Result;
use crate::float::scalar::{self, Answer};
use crate::float::{HALF, Mode, Rounding, SINGLE, flag};
use rootmode_arch::Vendor;
use rootmode_mmu::AccessKind;

/// What a lane is.
pub(crate) const INTEGER: u32 = 1;

/// A lane of the destination from a lane of the source. `FROM` and `TO` are widths in bits, plus [`INTEGER`].
fn convert<const FROM: u32, const TO: u32, const TRUNCATE: bool>(value: u64, mode: Mode) -> Answer {
    let (from, to) = (FROM & !INTEGER, TO & !INTEGER);
    let rounding = if TRUNCATE { Rounding::Zero } else { mode.rounding };
    if FROM & INTEGER != 0 {
        let value = (value << (64 - from)) as i64 >> (64 - from);
        scalar::from_integer(value, format(to), mode)
    } else if TO & INTEGER != 0 {
        let (value, flags) = scalar::to_integer(value, to, rounding, format(from), mode);
        (value as u64 & u64::MAX >> (64 - to), flags)
    } else {
        scalar::convert(value, format(from), format(to), mode)
    }
}

/// CVTDQ2PS, CVTPD2PS, CVTTPS2DQ and relatives between vector registers: lanes above the result are cleared.
pub(crate) fn packed<const FROM: u32, const TO: u32, const TRUNCATE: bool>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.require_vector(op)?;
    let source = x.source_halves(op)?;
    let (from, to) = (FROM & !INTEGER, TO & !INTEGER);
    let (mode, mut flags, mut result) = (x.simd_mode(), 0, [0; 2]);
    for n in 0..128 * op.halves() as u32 / from.max(to) {
        let lane = |bits| ((n * bits / 128) as usize & 1, n % (128 / bits));
        let ((half, at), (to_half, to_at)) = (lane(from), lane(to));
        let (value, raised) = convert::<FROM, TO, TRUNCATE>(super::float::lane(source[half], from, at), mode);
        result[to_half] = with_lane(result[to_half], to, to_at, value);
        flags |= raised;
    }
    x.report(flags)?;
    x.set_target_halves(op, result);
    Ok(Flow::Next)
}

/// Converts as many lanes of 128 bits as both sides have, into `result`.
fn lanes<const FROM: u32, const TO: u32, const TRUNCATE: bool>(
    x: &mut Exec<'_, '_>,
    source: u128,
    result: u128,
) -> Result<u128> {
    let (mode, mut flags, mut result) = (x.simd_mode(), 0, result);
    let (from, to) = (FROM & !INTEGER, TO & !INTEGER);
    for n in 0..128 / from.max(to) {
        let (value, raised) = convert::<FROM, TO, TRUNCATE>(lane(source, from, n), mode);
        result = with_lane(result, to, n, value);
        flags |= raised;
    }
    x.report(flags)?;
    Ok(result)
}

/// VCVTPH2PS: exact. MXCSR.DAZ does not count, and denormals raise nothing.
pub(crate) fn from_half(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_avx()?;
    // Intel's parts do not look at the alignment of 8 bytes.
    let unchecked = op.last_operand() == Operand::Memory && op.source_size == 8;
    let source = if unchecked && x.cpu.model.vendor() == Vendor::Intel {
        let access = x.data(AccessKind::Read);
        let linear = x.element_address(op.memory.segment, x.effective(op), 8, AccessKind::Read)?;
        x.read_element(linear, 8, access)?.into()
    } else {
        x.source(op)?
    };
    let mode = Mode { denormals_are_zero: false, ..x.simd_mode() };
    let (mut result, mut flags) = ([0; 2], 0);
    for n in 0..4 * op.halves() as u32 {
        let (value, raised) = scalar::convert(lane(source, 16, n), HALF, SINGLE, mode);
        let half = &mut result[(n / 4) as usize & 1];
        *half = with_lane(*half, 32, n % 4, value);
        flags |= raised & !flag::DENORMAL;
    }
    x.report(flags)?;
    x.set_target_halves(op, result);
    Ok(Flow::Next)
}

/// VCVTPS2PH: bits 1:0 of the immediate are the rounding mode, unless bit 2 defers to MXCSR. MXCSR.FTZ does not count.
pub(crate) fn to_half(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_avx()?;
    let source = x.register_halves(op.operands[1]);
    let intel = x.cpu.model.vendor() == Vendor::Intel;
    let mode = x.simd_mode();
    let control = op.immediate as u32;
    let rounding = if control & 4 != 0 { mode.rounding } else { Rounding::from_bits(control) };
    let mode = Mode { rounding, flush_to_zero: false, ..mode };
    let (mut result, mut flags) = (0, 0);
    for n in 0..4 * op.halves() as u32 {
        let (value, raised) =
            scalar::convert(lane(source[(n / 4) as usize & 1], 32, n % 4), SINGLE, HALF, mode);
        result = with_lane(result, 16, n, value);
        flags |= raised;
        // A denormal is inexact on Intel's parts even where underflow is unmasked.
        if raised & flag::UNDERFLOW != 0 && raised & flag::DENORMAL != 0 && intel {
            flags |= flag::INEXACT;
        }
    }
    if !op.is_memory() {
        x.report(flags)?;
        x.set_target(op, result);
        return Ok(Flow::Next);
    }
    let bytes = 8 * op.halves() as u8;
    let access = x.data(AccessKind::Write);
    if intel {
        // What the conversion reports goes before a fault of the store, whose alignment is not checked.
        x.report(flags)?;
        let linear = x.element_address(op.memory.segment, x.effective(op), bytes, AccessKind::Write)?;
        return match bytes {
            8 => x.write_element(linear, 8, result as u64, access),
            _ => x.write_wide(linear, result, access),
        }
        .map(|()| Flow::Next);
    }
    let linear = x.linear(op, bytes.into(), AccessKind::Write)?;
    x.probe_wide(linear, bytes, access)?;
    x.report(flags)?;
    x.store(op, bytes, false, result)?;
    Ok(Flow::Next)
}

/// CVTSS2SD, CVTSD2SS: the other lanes stay.
pub(crate) fn scalar<const FROM: u32, const TO: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    let source = x.source(op)?;
    let (value, flags) = convert::<FROM, TO, false>(lane(source, FROM, 0), x.simd_mode());
    x.report(flags)?;
    x.set_target(op, with_lane(x.target(op), TO, 0, value));
    Ok(Flow::Next)
}

/// CVTSI2SS, CVTSI2SD.
pub(crate) fn from_register<const TO: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_vector(op)?;
    let source = x.get(op, usize::from(op.last), op.source_size)?;
    let value = crate::execute::flags::sign_extend(source, op.source_size) as i64;
    let (value, flags) = scalar::from_integer(value, format(TO), x.simd_mode());
    x.report(flags)?;
    x.set_target(op, with_lane(x.target(op), TO, 0, value));
    Ok(Flow::Next)
}

/// CVTSS2SI, CVTTSD2SI and relatives.
pub(crate) fn to_register<const FROM: u32, const TRUNCATE: bool>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.require_vector(op)?;
    let source = x.operand(op, 1, (FROM / 8) as u8, false)?;
    let mode = x.simd_mode();
    let rounding = if TRUNCATE { Rounding::Zero } else { mode.rounding };
    let bits = u32::from(op.size) * 8;
    let (value, flags) = scalar::to_integer(lane(source, FROM, 0), bits, rounding, format(FROM), mode);
    x.report(flags)?;
    x.put(op, 0, op.size, value as u64 & u64::MAX >> (64 - bits))?;
    Ok(Flow::Next)
}

/// CVTPI2PS, CVTPI2PD: from an MMX register or memory. CVTPI2PS keeps the upper half.
pub(crate) fn from_mmx<const TO: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_sse()?;
    // From memory the x87 is left alone, but CVTPI2PS reports its pending exceptions on Intel's parts.
    let intel = x.cpu.model.vendor() == Vendor::Intel;
    let reads_mmx = matches!(op.operands[1], Operand::Mmx(_));
    if TO == 32 && intel || reads_mmx {
        x.require_no_pending()?;
    }
    let source = x.operand(op, 1, 8, false)?;
    if reads_mmx {
        // Even if the conversion faults.
        x.enter_mmx();
    }
    let value = if TO == 32 {
        let upper = x.target(op) & !u128::from(u64::MAX);
        let low = lanes::<{ 32 | INTEGER }, 32, false>(x, source & u128::from(u64::MAX), 0)?;
        upper | low
    } else {
        lanes::<{ 32 | INTEGER }, 64, false>(x, source, 0)?
    };
    x.set_target(op, value);
    Ok(Flow::Next)
}

/// CVTPS2PI, CVTTPD2PI and relatives: to an MMX register.
pub(crate) fn to_mmx<const FROM: u32, const TRUNCATE: bool>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    x.require_sse()?;
    x.require_no_pending()?;
    let source = x.source(op)?;
    // Even if the conversion faults.
    x.enter_mmx();
    // Of single precision only the low half counts; zeros above raise nothing.
    let source = if FROM == 32 { source & u128::from(u64::MAX) } else { source };
    let value = lanes::<FROM, { 32 | INTEGER }, TRUNCATE>(x, source, 0)?;
    x.set_target(op, value);
    Ok(Flow::Next)
}
