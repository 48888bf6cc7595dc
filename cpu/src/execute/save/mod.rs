//! FXSAVE and the XSAVE family: memory images of x87, SSE and further state.
//!
//! The pointers to the last x87 instruction are always saved and restored (what AMD calls XSaveErPtr).

pub(crate) mod fxsave;
pub(crate) mod xsave;

use super::Exec;
use crate::decode::Decoded;
use crate::fault::{Fault, Result};
use crate::float::F80;
use rootmode_arch::Linear;
use rootmode_mmu::AccessKind;

/// Offsets in the legacy region (SDM Vol. 1 "Legacy Region of an XSAVE Area").
pub(crate) const MXCSR: usize = 24;
const REGISTERS: usize = 32;
pub(crate) const XMM: usize = 160;

/// Number `at` of `bytes`, little-endian.
pub(crate) fn word<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(word)
}

impl Exec<'_, '_> {
    /// XMM registers that the running code can name.
    pub(crate) const fn xmm_count(&self) -> usize {
        if self.cpu.is_64_bit() { 16 } else { 8 }
    }

    /// Writes the x87 part of the legacy region: `long` pointers have 64 bits and no selectors.
    pub(crate) fn put_x87(&self, bytes: &mut [u8], long: bool) {
        let x87 = &self.cpu.vectors.x87;
        let heads = [x87.control, x87.status, u16::from(x87.used), x87.opcode & 0x7ff];
        for (n, head) in heads.iter().enumerate() {
            bytes[2 * n..2 * n + 2].copy_from_slice(&head.to_le_bytes());
        }
        let pointers =
            [(8, x87.instruction, x87.instruction_selector), (16, x87.operand, x87.operand_selector)];
        for (at, offset, selector) in pointers {
            let short = offset & 0xffff_ffff | u64::from(selector) << 32;
            let value = if long { offset } else { short };
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for i in 0..8 {
            let at = REGISTERS + 16 * usize::from(i);
            bytes[at..at + 16].copy_from_slice(&x87.st(i).to_bits().to_le_bytes());
        }
    }

    /// Loads the x87 part of the legacy region.
    pub(crate) fn take_x87(&mut self, bytes: &[u8], long: bool) {
        let x87 = &mut self.cpu.vectors.x87;
        x87.status = word::<2>(bytes, 2) as u16;
        x87.used = bytes[4];
        x87.opcode = word::<2>(bytes, 6) as u16 & 0x7ff;
        let pointer = |at| if long { word::<8>(bytes, at) } else { word::<4>(bytes, at) };
        (x87.instruction, x87.operand) = (pointer(8), pointer(16));
        let selector = |at| if long { 0 } else { word::<2>(bytes, at) as u16 };
        (x87.instruction_selector, x87.operand_selector) = (selector(12), selector(20));
        let top = usize::from(x87.top());
        for i in 0..8 {
            let at = REGISTERS + 16 * i;
            let significand = word::<8>(bytes, at);
            let exponent = word::<2>(bytes, at + 8) as u16;
            x87.registers[(top + i) & 7] = F80 { significand, exponent };
        }
        x87.set_control(word::<2>(bytes, 0) as u16);
    }

    /// Writes the XMM part of the legacy region.
    pub(crate) fn put_xmm(&self, bytes: &mut [u8]) {
        for n in 0..self.xmm_count() {
            let at = XMM + 16 * n;
            bytes[at..at + 16].copy_from_slice(&self.cpu.vectors.xmm(n as u8).to_le_bytes());
        }
    }

    /// Loads the XMM part of the legacy region.
    pub(crate) fn take_xmm(&mut self, bytes: &[u8]) {
        for n in 0..self.xmm_count() {
            let at = XMM + 16 * n;
            let value = u128::from(word::<8>(bytes, at + 8)) << 64 | u128::from(word::<8>(bytes, at));
            self.cpu.vectors.set_xmm(n as u8, value);
        }
    }

    /// The linear address of an area of `bytes` bytes.
    ///
    /// # Errors
    /// #GP(0) if it is not aligned to `alignment`; those of segmentation.
    pub(crate) fn area(&self, op: &Decoded, bytes: u64, alignment: u64, kind: AccessKind) -> Result<Linear> {
        // The alignment goes before #SS(0).
        if !self.unchecked(op.memory.segment, self.effective(op)).is_aligned(alignment) {
            return Err(Fault::GP0);
        }
        self.linear(op, bytes, kind)
    }

    /// Makes sure that `bytes` bytes from `linear` can be accessed.
    pub(crate) fn probe(&mut self, linear: Linear, bytes: u64, kind: AccessKind) -> Result {
        let access = self.data(kind);
        for at in (0..bytes).step_by(4096).chain([bytes - 1]) {
            self.translate(self.along(linear, at), access)?;
        }
        Ok(())
    }

    /// Reads `bytes.len()` bytes at `linear` + `at`; both are multiples of 8.
    pub(crate) fn fetch_area(&mut self, linear: Linear, at: u64, bytes: &mut [u8]) -> Result {
        let access = self.data(AccessKind::Read);
        for (n, chunk) in bytes.chunks_mut(8).enumerate() {
            let word = self.read(self.along(linear, at + 8 * n as u64), 8, access)?;
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }

    /// Writes `bytes` at `linear` + `at`; both are multiples of 8.
    pub(crate) fn write_area(&mut self, linear: Linear, at: u64, bytes: &[u8]) -> Result {
        let access = self.data(AccessKind::Write);
        for (n, chunk) in bytes.chunks(8).enumerate() {
            self.write(self.along(linear, at + 8 * n as u64), 8, word::<8>(chunk, 0), access)?;
        }
        Ok(())
    }
}
