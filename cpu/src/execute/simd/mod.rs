//! MMX, SSE to SSE4.2, AES, SHA, AVX and AVX2: gating, operands, and the shapes of handlers. Results are pure functions in the
//! files beside this one; the decoder's table joins a shape to a function, one row for the legacy and the VEX encoding.
//!
//! YMM registers are two halves of 128 bits, and most instructions do the same to both: their functions know one half.
//!
//! Sources: SDM Vol. 2A (325383-083, Mar 2024) "Exception Conditions of Legacy SIMD Instructions Operating on MMX Registers",
//! "Vector Instruction Exception Specification (VEX)"; SDM Vol. 1 "Programming With Intel AVX, FMA, and Intel AVX2";
//! SDM Vol. 3A "System Programming for Instruction Set Extensions and Processor Extended States".

pub(crate) mod blend;
pub(crate) mod control;
pub(crate) mod conversion;
pub(crate) mod crypto;
pub(crate) mod dot;
pub(crate) mod estimate;
pub(crate) mod float;
pub(crate) mod gather;
pub(crate) mod lanes;
pub(crate) mod masked;
pub(crate) mod moves;
pub(crate) mod permute;
pub(crate) mod shuffle;
pub(crate) mod strings;
pub(crate) mod transfer;

use super::{Exec, Flow};
use crate::components::{AVX, SSE};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use crate::float::flag;
use rootmode_arch::{Cr0, Cr4, Linear, SegmentName, vector};
use rootmode_mmu::{Access, AccessKind, PageKind};

/// A YMM register, the lower half first.
pub(crate) type Halves = [u128; 2];

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

    /// Whether instructions with a VEX prefix on vector registers may execute.
    ///
    /// # Errors
    /// #UD in real and virtual-8086 mode, and unless CR4.OSXSAVE and XCR0 enable SSE and AVX state; #NM with CR0.TS
    /// (SDM Vol. 2A "Exceptions Type 1 (Aligned Memory Reference)" and those that follow).
    #[inline]
    pub(crate) const fn require_avx(&self) -> Result {
        const STATE: u64 = SSE | AVX;
        let cpu = &*self.cpu;
        if !cpu.is_protected() || !cpu.cr4.contains(Cr4::OSXSAVE) || cpu.xcr0 & STATE != STATE {
            return Err(Fault::UD);
        }
        if cpu.cr0.contains(Cr0::TS) { Err(Fault::exception(vector::NM)) } else { Ok(()) }
    }

    /// The check that fits the encoding of `op`, which has no MMX register.
    #[inline]
    pub(crate) const fn require_vector(&self, op: &Decoded) -> Result {
        if op.vex { self.require_avx() } else { self.require_sse() }
    }

    /// The check that fits the encoding and the registers of `op`.
    #[inline]
    pub(crate) fn require_media(&self, op: &Decoded) -> Result {
        if op.operands[..2].iter().any(|o| matches!(o, Operand::Mmx(_))) {
            self.require_mmx()
        } else {
            self.require_vector(op)
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
        let low = self.read_checked(linear, 8, access)?;
        let high = self.read_checked(self.along(linear, 8), 8, access)?;
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
        self.write_checked(linear, 8, value as u64, access)?;
        self.write_checked(self.along(linear, 8), 8, (value >> 64) as u64, access)
    }

    /// Translates every page of `bytes` bytes, of which there are at most two.
    fn reach(&mut self, linear: Linear, bytes: u64, access: Access) -> Result {
        self.translate(linear, access)?;
        let last = self.along(linear, bytes - 1).page_base();
        if last != linear.page_base() {
            self.translate(last, access)?;
        }
        Ok(())
    }

    /// Makes sure that `bytes` bytes, at most 32, can be accessed, before any of them is. Where alignment is checked 16 bytes
    /// are enough for 32.
    fn probe_wide(&mut self, linear: Linear, bytes: u8, access: Access) -> Result {
        if self.cpu.checks_data {
            self.check_data(linear, bytes.min(16), access)?;
        }
        self.reach(linear, bytes.into(), access)
    }

    /// The linear address of an element of `bytes` bytes at `offset`, whose alignment is never checked.
    ///
    /// # Errors
    /// As [`Self::segmented`], but for #AC.
    fn element_address(
        &self,
        segment: SegmentName,
        offset: u64,
        bytes: u8,
        kind: AccessKind,
    ) -> Result<Linear> {
        let start = self.segmented(segment, offset, 1, kind)?;
        self.segmented(segment, offset.wrapping_add(u64::from(bytes) - 1), 1, kind)?;
        Ok(start)
    }

    /// Reads an element of 4 or 8 bytes of a masked move or a gather, whose alignment is never checked.
    fn read_element(&mut self, linear: Linear, bytes: u8, access: Access) -> Result<u64> {
        if !self.cpu.checks_data {
            return self.read(linear, bytes, access);
        }
        self.match_breakpoints(linear, bytes, access);
        self.read_checked(linear, bytes, access)
    }

    /// Writes an element of 4 or 8 bytes of a masked move, whose alignment is never checked.
    fn write_element(&mut self, linear: Linear, bytes: u8, value: u64, access: Access) -> Result {
        if !self.cpu.checks_data {
            return self.write(linear, bytes, value, access);
        }
        self.match_breakpoints(linear, bytes, access);
        self.write_checked(linear, bytes, value, access)
    }

    /// `bytes` behind `linear`; addresses wrap at 4 GBytes outside 64-bit mode.
    pub(crate) const fn along(&self, linear: Linear, bytes: u64) -> Linear {
        let next = linear.0.wrapping_add(bytes);
        Linear(if self.cpu.is_64_bit() { next } else { next & 0xffff_ffff })
    }

    /// The linear address of an operand of 16 or 32 bytes that must be aligned to its size, or need not be.
    #[inline]
    fn wide_address(&self, op: &Decoded, size: u8, aligned: bool, kind: AccessKind) -> Result<Linear> {
        // #GP(0) for the alignment goes before #SS(0) for the end of the operand.
        let offset = self.effective(op);
        if aligned && self.unchecked(op.memory.segment, offset).0 & (u64::from(size) - 1) != 0 {
            return Err(Fault::GP0);
        }
        self.segmented(op.memory.segment, offset, size.into(), kind)
    }

    /// A memory operand of at most 16 bytes.
    #[inline]
    pub(crate) fn load(&mut self, op: &Decoded, size: u8, aligned: bool) -> Result<u128> {
        let access = self.data(AccessKind::Read);
        if size == 16 {
            let linear = self.wide_address(op, 16, aligned, AccessKind::Read)?;
            return self.read_wide(linear, access);
        }
        let linear = self.linear(op, u64::from(size), AccessKind::Read)?;
        self.read(linear, size, access).map(u128::from)
    }

    /// A memory operand of at most 32 bytes.
    #[inline]
    pub(crate) fn load_halves(&mut self, op: &Decoded, size: u8, aligned: bool) -> Result<Halves> {
        if size != 32 {
            return Ok([self.load(op, size, aligned)?, 0]);
        }
        let linear = self.wide_address(op, 32, aligned, AccessKind::Read)?;
        let access = self.data(AccessKind::Read);
        self.probe_wide(linear, 32, access)?;
        Ok([self.read_wide(linear, access)?, self.read_wide(self.along(linear, 16), access)?])
    }

    /// Writes a memory operand of at most 16 bytes.
    #[inline]
    pub(crate) fn store(&mut self, op: &Decoded, size: u8, aligned: bool, value: u128) -> Result {
        let access = self.data(AccessKind::Write);
        if size == 16 {
            let linear = self.wide_address(op, 16, aligned, AccessKind::Write)?;
            return self.write_wide(linear, value, access);
        }
        let linear = self.linear(op, u64::from(size), AccessKind::Write)?;
        self.write(linear, size, value as u64, access)
    }

    /// Writes a memory operand of at most 32 bytes.
    #[inline]
    pub(crate) fn store_halves(&mut self, op: &Decoded, size: u8, aligned: bool, value: Halves) -> Result {
        if size != 32 {
            return self.store(op, size, aligned, value[0]);
        }
        let linear = self.wide_address(op, 32, aligned, AccessKind::Write)?;
        let access = self.data(AccessKind::Write);
        self.probe_wide(linear, 32, access)?;
        self.write_wide(linear, value[0], access)?;
        self.write_wide(self.along(linear, 16), value[1], access)
    }

    /// Operand `n` as a source: a register, or memory of `size` bytes.
    #[inline]
    pub(crate) fn operand(&mut self, op: &Decoded, n: usize, size: u8, aligned: bool) -> Result<u128> {
        match op.operands[n] {
            Operand::Memory => self.load(op, size, aligned),
            Operand::Register(_) | Operand::High(_) | Operand::Immediate => {
                self.get(op, n, size).map(u128::from)
            }
            register => Ok(self.register_halves(register)[0]),
        }
    }

    /// A vector register. XMM and MMX registers have zeros above.
    #[inline]
    pub(crate) const fn register_halves(&self, operand: Operand) -> Halves {
        let vectors = &self.cpu.vectors;
        match operand {
            Operand::Xmm(r) => [vectors.xmm(r), 0],
            Operand::Ymm(r) => vectors.halves(r),
            Operand::Mmx(r) => [vectors.x87.registers[r as usize & 7].significand as u128, 0],
            _ => [0; 2],
        }
    }

    /// The last source, of at most 16 bytes. In memory 16 bytes must be aligned without VEX.
    #[inline]
    pub(crate) fn source(&mut self, op: &Decoded) -> Result<u128> {
        self.operand(op, usize::from(op.last), op.source_size, !op.vex)
    }

    /// The last source. In memory 16 bytes must be aligned without VEX.
    #[inline]
    pub(crate) fn source_halves(&mut self, op: &Decoded) -> Result<Halves> {
        match op.last_operand() {
            Operand::Memory => self.load_halves(op, op.source_size, !op.vex),
            register => Ok(self.register_halves(register)),
        }
    }

    /// The lower half of the first source: of instructions with two operands that is the destination.
    #[inline]
    pub(crate) const fn target(&self, op: &Decoded) -> u128 {
        self.target_halves(op)[0]
    }

    /// The first source.
    #[inline]
    pub(crate) const fn target_halves(&self, op: &Decoded) -> Halves {
        self.register_halves(op.first_operand())
    }

    /// Writes the lower half of the destination's register. VEX clears what is above, legacy encodings leave it.
    #[inline]
    pub(crate) const fn set_target(&mut self, op: &Decoded, value: u128) {
        self.set_target_halves(op, [value, 0]);
    }

    /// Writes the destination's register.
    #[inline]
    pub(crate) const fn set_target_halves(&mut self, op: &Decoded, value: Halves) {
        match op.operands[0] {
            Operand::Xmm(r) if op.vex => self.cpu.vectors.set_halves(r, [value[0], 0]),
            Operand::Xmm(r) => self.cpu.vectors.set_xmm(r, value[0]),
            Operand::Ymm(r) => self.cpu.vectors.set_halves(r, value),
            Operand::Mmx(r) => self.set_mmx(r, value[0] as u64),
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

    /// Both sources combined half by half, by a function that is told the half; MMX registers are the low part of a half, with
    /// zeros above.
    #[inline]
    pub(crate) fn each_half(&mut self, op: &Decoded, f: impl Fn(u128, u128, usize) -> u128) -> Result<Flow> {
        self.require_media(op)?;
        if op.wide {
            let (a, b) = (self.target_halves(op), self.source_halves(op)?);
            self.set_target_halves(op, [f(a[0], b[0], 0), f(a[1], b[1], 1)]);
        } else {
            let source = self.source(op)?;
            self.set_target(op, f(self.target(op), source, 0));
        }
        Ok(Flow::Next)
    }

    /// Both sources combined.
    pub(crate) fn packed(&mut self, op: &Decoded, f: fn(u128, u128) -> u128) -> Result<Flow> {
        self.each_half(op, |a, b, _| f(a, b))
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

    /// As [`Self::packed`], with the immediate: the upper half's begins `bits` bits higher.
    pub(crate) fn packed_immediate(
        &mut self,
        op: &Decoded,
        f: fn(u128, u128, u8) -> u128,
        bits: u32,
    ) -> Result<Flow> {
        let immediate = op.immediate as u8;
        self.each_half(op, |a, b, half| f(a, b, immediate >> (bits * half as u32)))
    }

    /// The source's lanes made wider: the lower half of a YMM register comes from its low `bits` bits.
    pub(crate) fn widened(&mut self, op: &Decoded, f: fn(u128, u128) -> u128, bits: u32) -> Result<Flow> {
        self.require_vector(op)?;
        let source = self.source(op)?;
        let high = if op.wide { f(0, source >> bits) } else { 0 };
        self.set_target_halves(op, [f(0, source), high]);
        Ok(Flow::Next)
    }

    /// Both sources combined, across halves, with the immediate.
    pub(crate) fn crossing(&mut self, op: &Decoded, f: fn(Halves, Halves, u8) -> Halves) -> Result<Flow> {
        self.require_vector(op)?;
        let source = self.source_halves(op)?;
        self.set_target_halves(op, f(self.target_halves(op), source, op.immediate as u8));
        Ok(Flow::Next)
    }

    /// A shift by an immediate, or by the low 64 bits of a register or memory operand.
    pub(crate) fn shift(&mut self, op: &Decoded, f: fn(u128, u64) -> u128) -> Result<Flow> {
        self.require_media(op)?;
        let by_immediate = op.operands[1..].contains(&Operand::Immediate);
        let count = if by_immediate { op.immediate & 0xff } else { self.source(op)? as u64 };
        // With VEX the immediate follows the source, without it the destination, which is the source.
        let shifted = if by_immediate && op.vex { op.operands[1] } else { op.first_operand() };
        let [low, high] = self.register_halves(shifted);
        let high = if op.wide { f(high, count) } else { 0 };
        self.set_target_halves(op, [f(low, count), high]);
        Ok(Flow::Next)
    }
}
