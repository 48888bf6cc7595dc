//! The x87: its register stack, its exceptions, and what every instruction does before and after its operation.
//!
//! An unmasked exception is pending until the next waiting instruction raises #MF. Those that are known beforehand (invalid,
//! denormal, zero divide) leave operands and stack as they were; overflow and underflow leave a result with a biased exponent.
//!
//! Source: SDM Vol. 1 (253665-083, Mar 2024) "Programming with the x87 FPU".

pub(crate) mod arithmetic;
pub(crate) mod compare;
pub(crate) mod control;
pub(crate) mod decimal;
pub(crate) mod environment;
pub(crate) mod load;
pub(crate) mod transcendental;

use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use crate::float::extended::Answer;
use crate::float::{F80, Mode, Parts, flag};
use crate::vectors::X87;
use rootmode_arch::{Cr0, SegmentName, vector};

/// C0, C1, C2, C3 and the stack-fault flag in the status word.
pub(crate) const C0: u16 = 0x100;
pub(crate) const C1: u16 = 0x200;
pub(crate) const C2: u16 = 0x400;
pub(crate) const C3: u16 = 0x4000;
pub(crate) const STACK_FAULT: u16 = 0x40;

/// Bits of significands that precision control keeps.
pub(crate) const fn precision(control: u16) -> u32 {
    match control >> 8 & 3 {
        0 => 24,
        2 => 53,
        _ => 64,
    }
}

impl X87 {
    /// ST(i).
    pub(crate) const fn st(&self, i: u8) -> F80 {
        self.registers[(self.top() + i) as usize & 7]
    }

    /// ST(i), taken apart.
    pub(crate) const fn parts(&self, i: u8) -> Parts {
        Parts::unpack_extended(self.st(i))
    }

    /// Writes ST(i), which is valid then.
    pub(crate) const fn set_st(&mut self, i: u8, value: F80) {
        let n = (self.top() + i) & 7;
        self.registers[n as usize] = value;
        self.used |= 1 << n;
    }

    /// Whether ST(i) is empty.
    pub(crate) const fn is_empty(&self, i: u8) -> bool {
        self.used >> ((self.top() + i) & 7) & 1 == 0
    }

    /// Marks ST(i) as empty.
    pub(crate) const fn free(&mut self, i: u8) {
        self.used &= !(1 << ((self.top() + i) & 7));
    }

    /// Pushes without a check.
    pub(crate) const fn push(&mut self, value: F80) {
        self.set_top(self.top() + 7);
        self.set_st(0, value);
    }

    /// Pops.
    pub(crate) const fn pop(&mut self) {
        self.free(0);
        self.set_top(self.top() + 1);
    }

    /// The rounding mode and masks.
    pub(crate) const fn mode(&self) -> Mode {
        Mode::from_control(self.control)
    }

    /// Reports exceptions and C1. `false`: an unmasked exception that was known beforehand; nothing may change then.
    pub(crate) const fn report(&mut self, flags: u32, up: bool) -> bool {
        let unmasked = flags & !(self.control as u32);
        let blocked = unmasked & flag::BEFORE != 0;
        // Nothing was rounded then; but a stack overflow still says so.
        let up = up && (!blocked || flags & flag::INEXACT == 0);
        let flags = if blocked { flags & flag::BEFORE } else { flags };
        self.status = self.status & !C1 | if up { C1 } else { 0 } | flags as u16;
        self.summarize();
        !blocked
    }

    /// Reports a stack fault: overflow sets C1, underflow clears it. `true`: it is masked.
    pub(crate) const fn stack_fault(&mut self, overflow: bool) -> bool {
        self.status |= STACK_FAULT;
        self.report(flag::INVALID, overflow)
    }

    /// Reports `answer` and writes it to ST(i). `false`: nothing was written.
    pub(crate) const fn finish(&mut self, i: u8, answer: Answer) -> bool {
        let writes = self.report(answer.flags, answer.up);
        if writes {
            self.set_st(i, answer.value);
        }
        writes
    }

    /// A stack underflow whose masked response puts the indefinite into ST(i). `false`: unmasked.
    pub(crate) const fn underflow(&mut self, i: u8) -> bool {
        let masked = self.stack_fault(false);
        if masked {
            self.set_st(i, F80::INDEFINITE);
        }
        masked
    }

    /// Pushes `answer`, unless the stack is full.
    pub(crate) const fn load(&mut self, answer: Answer) {
        if !self.is_empty(7) {
            if self.stack_fault(true) {
                self.push(F80::INDEFINITE);
            }
        } else if self.report(answer.flags, answer.up) {
            self.push(answer.value);
        }
    }
}

/// The number of a stack operand.
pub(crate) const fn stack(operand: Operand) -> u8 {
    if let Operand::Stack(i) = operand { i } else { 0 }
}

impl Exec<'_, '_> {
    /// # Errors
    /// #NM with CR0.EM or CR0.TS.
    pub(crate) const fn require_x87(&self) -> Result {
        if self.cpu.cr0.contains(Cr0::EM) || self.cpu.cr0.contains(Cr0::TS) {
            Err(Fault::exception(vector::NM))
        } else {
            Ok(())
        }
    }

    /// # Errors
    /// As [`Self::require_x87`]; #MF if an unmasked exception is pending.
    #[inline]
    pub(crate) fn require_waiting(&self) -> Result {
        self.require_x87()?;
        self.require_no_pending()
    }

    /// Remembers the instruction and its memory operand for exception handlers. The decoder put the opcode into the immediate.
    #[inline]
    pub(crate) fn remember(&mut self, op: &Decoded) {
        let operand = op.operands.contains(&Operand::Memory).then(|| self.effective(op));
        let cpu = &mut *self.cpu;
        let (code, data) =
            (cpu.segment(SegmentName::Cs).selector.0, cpu.segment(op.memory.segment).selector.0);
        let rip = cpu.rip;
        let x87 = &mut cpu.vectors.x87;
        (x87.opcode, x87.instruction, x87.instruction_selector) = (op.immediate as u16, rip, code);
        if let Some(offset) = operand {
            (x87.operand, x87.operand_selector) = (offset, data);
        }
    }

    /// An operation on registers: waits, remembers, and lets `f` change the x87 state.
    #[inline]
    pub(crate) fn on_stack(&mut self, op: &Decoded, f: impl FnOnce(&mut X87)) -> Result<Flow> {
        self.require_waiting()?;
        self.remember(op);
        f(&mut self.cpu.vectors.x87);
        Ok(Flow::Next)
    }
}
