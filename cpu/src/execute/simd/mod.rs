//! MMX, SSE to SSE4.2, AES and SHA: gating, operands, and the shapes of handlers. Results are pure functions in the files beside this one;
//! the decoder's table joins a shape to a function.
//!
//! Sources: SDM Vol. 2A (325383-083, Mar 2024) "Exception Conditions of Legacy SIMD Instructions Operating on MMX Registers";
//! SDM Vol. 3A "System Programming for Instruction Set Extensions and Processor Extended States".

pub(crate) mod blend;
pub(crate) mod control;
pub(crate) mod conversion;
pub(crate) mod crypto;
pub(crate) mod dot;
pub(crate) mod estimate;
pub(crate) mod float;
pub(crate) mod lanes;
pub(crate) mod moves;
pub(crate) mod shuffle;
pub(crate) mod strings;
pub(crate) mod transfer;

use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use crate::float::flag;
use rootmode_arch::{Cr0, Cr4, Linear, vector};
use rootmode_mmu::{Access, AccessKind, PageKind};

impl Exec<'_, '_> {
    /// Whether instructions on XMM registers may execute.
    ///
    /// # Errors
    /// #UD with CR0.EM or without CR4.OSFXSR, #NM with CR0.TS.
    #[inline]
    pub(crate) const fn require_sse(&self) -> Result {
        let (cr0, cr4) = (self.cpu.cr0, self.cpu.cr4);
        if cr0.contains(Cr0::EM) || !cr4.contains(Cr4::OSFXSR) {
            return Err(Fault::UD);
        }
        if cr0.contains(Cr0::TS) { Err(Fault::exception(vector::NM)) } else { Ok(()) }
    }

    /// Whether instructions on MMX registers may execute.
    ///
    /// # Errors
    /// #UD with CR0.EM, #NM with CR0.TS, #MF if an unmasked x87 exception is pending.
    pub(crate) const fn require_mmx(&self) -> Result {
        if self.cpu.cr0.contains(Cr0::EM) {
            return Err(Fault::UD);
        }
        if self.cpu.cr0.contains(Cr0::TS) {
            return Err(Fault::exception(vector::NM));
        }
        self.require_no_pending()
    }

    /// # Errors
    /// #MF if an unmasked x87 exception is pending. With CR0.NE clear a processor would freeze and ask for IRQ 13 through
    /// FERR# and IGNNE#; those pins are not modelled, and #MF is raised either way.
    pub(crate) const fn require_no_pending(&self) -> Result {
        if self.cpu.vectors.x87.status & 0x80 != 0 { Err(Fault::exception(vector::MF)) } else { Ok(()) }
    }

    /// The check that fits the registers of `op`.
    #[inline]
    pub(crate) fn require_media(&self, op: &Decoded) -> Result {
        if op.operands[..2].iter().any(|o| matches!(o, Operand::Mmx(_))) {
            self.require_mmx()
        } else {
            self.require_sse()
        }
    }

    /// An instruction used an MMX register: all are valid, and TOP is 0.
    pub(crate) const fn enter_mmx(&mut self) {
        self.cpu.vectors.x87.set_top(0);
        self.cpu.vectors.x87.used = 0xff;
    }

    /// Writes MMX register `n`; the exponent becomes all ones.
    pub(crate) const fn set_mmx(&mut self, n: u8, value: u64) {
        let register = &mut self.cpu.vectors.x87.registers[n as usize & 7];
        register.significand = value;
        register.exponent = 0xffff;
        self.enter_mmx();
    }

    /// Reads 16 bytes.
    #[inline]
    pub(crate) fn read_wide(&mut self, linear: Linear, access: Access) -> Result<u128> {
        if self.cpu.checks_data {
            self.check_data(linear, 16, access)?;
        }
        if linear.page_offset() <= 4096 - 16 {
            let at = self.translate(linear, access)?;
            if at.kind == PageKind::Ram && self.cpu.published.apic_access.is_none() {
                let mut bytes = [0; 16];
                self.ctx.memory.read(at.host, &mut bytes);
                return Ok(u128::from_le_bytes(bytes));
            }
        } else {
            // Both pages before anything is read.
            self.translate(linear, access)?;
            self.translate(self.along(linear, 15).page_base(), access)?;
        }
        let low = self.read(linear, 8, access)?;
        let high = self.read(self.along(linear, 8), 8, access)?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }

    /// Writes 16 bytes, all or nothing.
    #[inline]
    pub(crate) fn write_wide(&mut self, linear: Linear, value: u128, access: Access) -> Result {
        if self.cpu.checks_data {
            self.check_data(linear, 16, access)?;
        }
        self.translate(linear, access)?;
        if linear.page_offset() > 4096 - 16 {
            self.translate(self.along(linear, 15).page_base(), access)?;
        }
        self.write(linear, 8, value as u64, access)?;
        self.write(self.along(linear, 8), 8, (value >> 64) as u64, access)
    }

    /// `bytes` behind `linear`; addresses wrap at 4 GBytes outside 64-bit mode.
    pub(crate) const fn along(&self, linear: Linear, bytes: u64) -> Linear {
        let next = linear.0.wrapping_add(bytes);
        Linear(if self.cpu.is_64_bit() { next } else { next & 0xffff_ffff })
    }

    /// The linear address of an operand that must be aligned to its 16 bytes, or need not be.
    #[inline]
    fn wide_address(&self, op: &Decoded, aligned: bool, kind: AccessKind) -> Result<Linear> {
        // #GP(0) for the alignment goes before #SS(0) for the end of the operand.
        let offset = self.effective(op);
        if aligned && self.unchecked(op.memory.segment, offset).0 & 15 != 0 {
            return Err(Fault::GP0);
        }
        self.segmented(op.memory.segment, offset, 16, kind)
    }

    /// A memory operand of `size` bytes.
    #[inline]
    pub(crate) fn load(&mut self, op: &Decoded, size: u8, aligned: bool) -> Result<u128> {
        let access = self.data(AccessKind::Read);
        if size == 16 {
            let linear = self.wide_address(op, aligned, AccessKind::Read)?;
            return self.read_wide(linear, access);
        }
        let linear = self.linear(op, u64::from(size), AccessKind::Read)?;
        self.read(linear, size, access).map(u128::from)
    }

    /// Writes a memory operand of `size` bytes.
    #[inline]
    pub(crate) fn store(&mut self, op: &Decoded, size: u8, aligned: bool, value: u128) -> Result {
        let access = self.data(AccessKind::Write);
        if size == 16 {
            let linear = self.wide_address(op, aligned, AccessKind::Write)?;
            return self.write_wide(linear, value, access);
        }
        let linear = self.linear(op, u64::from(size), AccessKind::Write)?;
        self.write(linear, size, value as u64, access)
    }

    /// Operand `n` as a source: a register, or memory of `size` bytes.
    #[inline]
    pub(crate) fn operand(&mut self, op: &Decoded, n: usize, size: u8, aligned: bool) -> Result<u128> {
        match op.operands[n] {
            Operand::Xmm(r) => Ok(self.cpu.vectors.xmm(r)),
            Operand::Mmx(r) => Ok(u128::from(self.cpu.vectors.x87.registers[usize::from(r & 7)].significand)),
            Operand::Memory => self.load(op, size, aligned),
            _ => self.get(op, n, size).map(u128::from),
        }
    }

    /// The second operand: 16-byte memory operands must be aligned.
    #[inline]
    pub(crate) fn source(&mut self, op: &Decoded) -> Result<u128> {
        self.operand(op, 1, op.source_size, true)
    }

    /// The first operand's register.
    #[inline]
    pub(crate) const fn target(&self, op: &Decoded) -> u128 {
        match op.operands[0] {
            Operand::Xmm(r) => self.cpu.vectors.xmm(r),
            Operand::Mmx(r) => self.cpu.vectors.x87.registers[r as usize & 7].significand as u128,
            _ => 0,
        }
    }

    /// Writes the first operand's register.
    #[inline]
    pub(crate) const fn set_target(&mut self, op: &Decoded, value: u128) {
        match op.operands[0] {
            Operand::Xmm(r) => self.cpu.vectors.set_xmm(r, value),
            Operand::Mmx(r) => self.set_mmx(r, value as u64),
            _ => {}
        }
    }

    /// Reports SIMD floating-point exceptions, before the result is written.
    ///
    /// # Errors
    /// #XM if one is unmasked; without CR4.OSXMMEXCPT #UD. An unmasked exception that is known beforehand suppresses
    /// those that are known only from results.
    #[inline]
    pub(crate) const fn report(&mut self, flags: u32) -> Result {
        if flags == 0 { Ok(()) } else { self.report_some(flags) }
    }

    const fn report_some(&mut self, flags: u32) -> Result {
        let unmasked = !(self.cpu.vectors.mxcsr >> 7) & flag::ALL;
        let flags = if flags & unmasked & flag::BEFORE != 0 { flags & flag::BEFORE } else { flags };
        self.cpu.vectors.mxcsr |= flags;
        if flags & unmasked == 0 {
            Ok(())
        } else if self.cpu.cr4.contains(Cr4::OSXMMEXCPT) {
            Err(Fault::exception(vector::XM))
        } else {
            Err(Fault::UD)
        }
    }

    /// Destination and source combined; MMX registers are the low halves, with zeros above.
    pub(crate) fn packed(&mut self, op: &Decoded, f: fn(u128, u128) -> u128) -> Result<Flow> {
        self.require_media(op)?;
        let source = self.source(op)?;
        self.set_target(op, f(self.target(op), source));
        Ok(Flow::Next)
    }

    /// As [`Self::packed`], for functions that depend on the register's width.
    pub(crate) fn sized(
        &mut self,
        op: &Decoded,
        wide: fn(u128, u128) -> u128,
        narrow: fn(u128, u128) -> u128,
    ) -> Result<Flow> {
        let f = if matches!(op.operands[0], Operand::Mmx(_)) { narrow } else { wide };
        self.packed(op, f)
    }

    /// As [`Self::packed`], with the immediate.
    pub(crate) fn packed_immediate(&mut self, op: &Decoded, f: fn(u128, u128, u8) -> u128) -> Result<Flow> {
        self.require_media(op)?;
        let source = self.source(op)?;
        self.set_target(op, f(self.target(op), source, op.immediate as u8));
        Ok(Flow::Next)
    }

    /// A shift by an immediate, or by the low 64 bits of a register or memory operand.
    pub(crate) fn shift(&mut self, op: &Decoded, f: fn(u128, u64) -> u128) -> Result<Flow> {
        self.require_media(op)?;
        let count = match op.operands[1] {
            Operand::Immediate => op.immediate & 0xff,
            _ => self.source(op)? as u64,
        };
        self.set_target(op, f(self.target(op), count));
        Ok(Flow::Next)
    }
}
