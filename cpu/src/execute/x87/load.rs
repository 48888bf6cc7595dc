//! FLD, FST, FSTP, FILD, FIST, FISTP, FISTTP, FXCH, FCMOVcc, and the constants.

use super::{C1, Exec, Flow, stack};
use crate::decode::Decoded;
use crate::execute::flags::{condition, mask, sign_extend};
use crate::fault::Result;
use crate::float::convert;
use crate::float::extended::{Answer, from_integer, narrow, widen};
use crate::float::parts::indefinite;
use crate::float::{DOUBLE, F80, Parts, Rounding, SINGLE, flag};
use rootmode_arch::{Linear, Vendor};
use rootmode_mmu::AccessKind;

/// Kinds of memory operands.
pub(crate) const F32: u8 = 0;
pub(crate) const F64: u8 = 1;
pub(crate) const I16: u8 = 2;
pub(crate) const I32: u8 = 3;
pub(crate) const I64: u8 = 4;

/// Bytes of a kind.
pub(crate) const fn bytes(kind: u8) -> u8 {
    match kind {
        I16 => 2,
        F32 | I32 => 4,
        _ => 8,
    }
}

impl Exec<'_, '_> {
    /// The memory operand as a number; integers are exact.
    #[inline]
    pub(crate) fn number<const KIND: u8>(&mut self, op: &Decoded) -> Result<Parts> {
        let bits = self.get(op, 0, bytes(KIND))?;
        Ok(match KIND {
            F32 => Parts::unpack(bits, SINGLE),
            F64 => Parts::unpack(bits, DOUBLE),
            _ => Parts::unpack_extended(from_integer(sign_extend(bits, bytes(KIND)) as i64)),
        })
    }

    /// Stores ten bytes.
    fn store_extended(&mut self, op: &Decoded, value: F80) -> Result {
        let bytes = value.to_bits().to_le_bytes();
        self.store_ten(op, &core::array::from_fn(|n| bytes[n]))
    }

    /// Makes sure that `bytes` bytes of the memory operand can be accessed, pieces of `unit` bytes being aligned. The first
    /// piece and the last byte are what is looked at, in this order, as the addresses of page faults tell.
    pub(crate) fn probe_area(
        &mut self,
        op: &Decoded,
        bytes: u64,
        unit: u8,
        kind: AccessKind,
    ) -> Result<Linear> {
        let (segment, start) = (op.memory.segment, self.effective(op));
        let access = self.data(kind);
        let linear = self.segmented(segment, start, u64::from(unit), kind)?;
        if self.cpu.checks_data {
            self.check_data(linear, unit, access)?;
        }
        self.translate(linear, access)?;
        let next = self.along(linear, u64::from(unit) - 1).page_base();
        if next != linear.page_base() {
            self.translate(next, access)?;
        }
        // Ten bytes are eight and two.
        let rest = if unit == 8 { bytes - 8 } else { 1 };
        if bytes > u64::from(unit) {
            let end = start.wrapping_add(bytes - rest) & mask(op.memory.address_size);
            let last = self.segmented(segment, end, rest, kind)?;
            self.translate(last, access)?;
            self.translate(self.along(last, rest - 1), access)?;
        }
        Ok(linear)
    }

    /// The memory operand of a store that an unmasked exception keeps from being done: AMD's parts look at the place all the
    /// same, as [`Self::probe_area`] does.
    pub(crate) fn probe_unwritten(&mut self, op: &Decoded, bytes: u64, unit: u8) -> Result {
        if self.cpu.model.vendor() == Vendor::Amd {
            self.probe_area(op, bytes, unit, AccessKind::Write)?;
        }
        Ok(())
    }

    /// Writes the memory operand of ten bytes: eight and two. Intel's parts write the first although the second faults.
    pub(crate) fn store_ten(&mut self, op: &Decoded, bytes: &[u8; 10]) -> Result {
        if self.cpu.model.vendor() == Vendor::Amd {
            return self.store_area(op, bytes, 8);
        }
        let (segment, start) = (op.memory.segment, self.effective(op));
        let access = self.data(AccessKind::Write);
        let [low, high] = [0, 8].map(|at| start.wrapping_add(at) & mask(op.memory.address_size));
        let linear = self.segmented(segment, low, 8, AccessKind::Write)?;
        self.write(linear, 8, u64::from_le_bytes(core::array::from_fn(|n| bytes[n])), access)?;
        let linear = self.segmented(segment, high, 2, AccessKind::Write)?;
        self.write(linear, 2, u16::from_le_bytes([bytes[8], bytes[9]]).into(), access)
    }

    /// Writes `bytes` to the memory operand in pieces of `unit` bytes, all or nothing.
    pub(crate) fn store_area(&mut self, op: &Decoded, bytes: &[u8], unit: u8) -> Result {
        let linear = self.probe_area(op, bytes.len() as u64, unit, AccessKind::Write)?;
        let access = self.data(AccessKind::Write);
        for (n, chunk) in bytes.chunks(usize::from(unit)).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let at = self.along(linear, u64::from(unit) * n as u64);
            self.write(at, chunk.len() as u8, u64::from_le_bytes(word), access)?;
        }
        Ok(())
    }

    /// Reads the memory operand into `bytes`, in pieces of `unit` bytes.
    pub(crate) fn load_area(&mut self, op: &Decoded, bytes: &mut [u8], unit: u8) -> Result {
        let linear = self.probe_area(op, bytes.len() as u64, unit, AccessKind::Read)?;
        let access = self.data(AccessKind::Read);
        for (n, chunk) in bytes.chunks_mut(usize::from(unit)).enumerate() {
            let at = self.along(linear, u64::from(unit) * n as u64);
            let word = self.read(at, chunk.len() as u8, access)?;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// FLD m32fp, FLD m64fp, FILD.
pub(crate) fn load<const KIND: u8>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_waiting()?;
    let number = x.number::<KIND>(op)?;
    x.remember(op);
    let x87 = &mut x.cpu.vectors.x87;
    // A denormal is loaded even if its exception is unmasked.
    let answer = widen(&number, x87.mode());
    if answer.flags & flag::DENORMAL != 0 && x87.is_empty(7) {
        x87.report(answer.flags, false);
        x87.push(answer.value);
    } else {
        x87.load(answer);
    }
    Ok(Flow::Next)
}

/// FLD m80fp: any encoding, without exceptions.
pub(crate) fn load_extended(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_waiting()?;
    let mut bytes = [0; 16];
    x.load_area(op, &mut bytes[..10], 8)?;
    x.remember(op);
    x.cpu.vectors.x87.load(Answer::new(F80::from_bits(u128::from_le_bytes(bytes)), 0));
    Ok(Flow::Next)
}

/// FLD ST(i).
pub(crate) fn load_register(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        let i = stack(op.operands[0]);
        if x87.is_empty(i) {
            if x87.stack_fault(false) {
                x87.push(F80::INDEFINITE);
            }
        } else {
            x87.load(Answer::new(x87.st(i), 0));
        }
    })
}

/// FLD1 (0), FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ (6): rounded from wider ones as the control word says.
pub(crate) fn constant<const N: usize>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    /// Truncated significands, exponents, and whether rounding to nearest goes up.
    const TABLE: [(u64, u16, bool); 7] = [
        (0x8000_0000_0000_0000, 0x3fff, false),
        (0xd49a_784b_cd1b_8afe, 0x4000, false),
        (0xb8aa_3b29_5c17_f0bb, 0x3fff, true),
        (0xc90f_daa2_2168_c234, 0x4000, true),
        (0x9a20_9a84_fbcf_f798, 0x3ffd, true),
        (0xb172_17f7_d1cf_79ab, 0x3ffe, true),
        (0, 0, false),
    ];
    x.on_stack(op, |x87| {
        let (significand, exponent, nearest_up) = TABLE[N];
        let exact = matches!(N, 0 | 6);
        let up = match x87.mode().rounding {
            Rounding::Nearest => nearest_up,
            Rounding::Up => !exact,
            Rounding::Down | Rounding::Zero => false,
        };
        x87.load(Answer::new(F80 { significand: significand + u64::from(up), exponent }, 0));
    })
}

/// FST and FSTP to single or double precision.
pub(crate) fn store<const KIND: u8, const POP: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let format = if KIND == F32 { SINGLE } else { DOUBLE };
    store_with::<POP>(x, op, bytes(KIND), |number, x87| match number {
        Some(number) => narrow(number, format, x87.mode()),
        None => Answer::new(indefinite(format), flag::INVALID),
    })
}

/// FIST, FISTP; FISTTP with `TRUNCATE`.
pub(crate) fn store_integer<const KIND: u8, const POP: bool, const TRUNCATE: bool>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
) -> Result<Flow> {
    let bits = u32::from(bytes(KIND)) * 8;
    store_with::<POP>(x, op, bytes(KIND), |number, x87| {
        let rounding = if TRUNCATE { Rounding::Zero } else { x87.mode().rounding };
        let (value, flags, up) = match number {
            Some(number) => convert::to_integer(number, bits, rounding),
            None => (i64::MIN >> (64 - bits), flag::INVALID, false),
        };
        Answer { value: value as u64, flags, up }
    })
}

/// A store of what `convert` makes of ST(0) (`None` if that is empty). Memory comes first: it may fault.
fn store_with<const POP: bool>(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
    size: u8,
    convert: impl Fn(Option<&Parts>, &crate::vectors::X87) -> Answer<u64>,
) -> Result<Flow> {
    x.require_waiting()?;
    let x87 = &x.cpu.vectors.x87;
    let empty = x87.is_empty(0);
    let answer = convert((!empty).then_some(&x87.parts(0)), x87);
    // Unmasked overflow and underflow have no result in memory either.
    let unmasked = answer.flags & !u32::from(x87.control) & !flag::INEXACT != 0;
    if unmasked {
        x.probe_unwritten(op, size.into(), size)?;
    } else {
        x.put(op, 0, size, answer.value)?;
    }
    x.remember(op);
    let x87 = &mut x.cpu.vectors.x87;
    if empty {
        x87.stack_fault(false);
    } else {
        // Without a result in memory nothing was rounded either.
        let lost = if unmasked { flag::INEXACT } else { 0 };
        x87.report(answer.flags & !lost, answer.up && !unmasked);
    }
    if POP && !unmasked {
        x87.pop();
    }
    Ok(Flow::Next)
}

/// FSTP m80fp: any encoding, without exceptions but for an empty register.
pub(crate) fn store_extended(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_waiting()?;
    let x87 = &x.cpu.vectors.x87;
    let (empty, masked) = (x87.is_empty(0), x87.control & 1 != 0);
    if !empty || masked {
        let value = if empty { F80::INDEFINITE } else { x87.st(0) };
        x.store_extended(op, value)?;
    } else {
        x.probe_unwritten(op, 10, 8)?;
    }
    x.remember(op);
    let x87 = &mut x.cpu.vectors.x87;
    let goes_on = if empty { x87.stack_fault(false) } else { x87.report(0, false) };
    if goes_on {
        x87.pop();
    }
    Ok(Flow::Next)
}

/// FST ST(i), FSTP ST(i).
pub(crate) fn store_register<const POP: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        let i = stack(op.operands[0]);
        let goes_on = if x87.is_empty(0) {
            x87.underflow(i)
        } else {
            let value = x87.st(0);
            x87.finish(i, Answer::new(value, 0))
        };
        if POP && goes_on {
            x87.pop();
        }
    })
}

/// The undocumented FSTPNCE: an empty register is not copied, and no fault.
pub(crate) fn store_unchecked(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        x87.status &= !C1;
        if !x87.is_empty(0) {
            x87.set_st(stack(op.operands[0]), x87.st(0));
        }
        x87.pop();
    })
}

/// FXCH: empty registers count as indefinite.
pub(crate) fn exchange(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.on_stack(op, |x87| {
        let i = stack(op.operands[1]);
        let either_empty = x87.is_empty(0) || x87.is_empty(i);
        let goes_on = if either_empty { x87.stack_fault(false) } else { x87.report(0, false) };
        if goes_on {
            let value = |n| if x87.is_empty(n) { F80::INDEFINITE } else { x87.st(n) };
            let (a, b) = (value(0), value(i));
            x87.set_st(0, b);
            x87.set_st(i, a);
        }
    })
}

/// FCMOVcc: the condition as in Jcc.
pub(crate) fn conditional<const CONDITION: u8>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let moves = condition(x.cpu.rflags().0, CONDITION);
    x.on_stack(op, |x87| {
        let i = stack(op.operands[1]);
        if x87.is_empty(0) || x87.is_empty(i) {
            x87.underflow(0);
        } else if moves {
            x87.set_st(0, x87.st(i));
        }
    })
}
