//! Reads and writes: by memory access in xAPIC mode, by MSR in x2APIC mode
//! (SDM Vol. 3A "The Local APIC Block Diagram", "Instructions to Access APIC Registers", "Reserved Bit Checking").

use super::delivery::ILLEGAL_REGISTER;
use super::register::*;
use super::shape::{LVT_LEVEL, LVT_MASKED, LVT_REMOTE_IRR, SVR_ENABLE, Shape, local_vectors, shape};
use super::{Abilities, ApicPage, Clock, LocalApic, Mode, TimerMode};
use crate::fault::{Fault, Result};
use rootmode_arch::msr::{IA32_X2APIC_ICR, IA32_X2APIC_SELF_IPI};

/// The offset of the register behind an MSR of 0x800 to 0x8ff.
fn register_of_msr(index: u32) -> Result<u16> {
    let offset = index.wrapping_sub(0x800);
    if offset < 0x40 { Ok((offset << 4) as u16) } else { Err(Fault::GP0) }
}

fn readable_msr(abilities: &Abilities, mode: Mode, offset: u16) -> Result {
    match shape(abilities, mode, offset) {
        Some(shape) if shape.read => Ok(()),
        _ => Err(Fault::GP0),
    }
}

fn writable_msr(abilities: &Abilities, mode: Mode, offset: u16, value: u64) -> Result<Shape> {
    let shape = shape(abilities, mode, offset).filter(|shape| shape.write).ok_or(Fault::GP0)?;
    let upper = if offset == ICR { 0 } else { value >> 32 };
    let reserved = value as u32 & !(shape.writable | shape.read_only);
    if upper != 0 || reserved != 0 { Err(Fault::GP0) } else { Ok(shape) }
}

/// The register that RDMSR (`written`: `None`) or WRMSR of `index` reaches in an APIC with `abilities` that is in x2APIC
/// mode: what a virtual one accepts.
///
/// # Errors
/// #GP(0) for a register that does not exist or cannot be accessed that way, and for reserved bits.
pub fn x2apic_register(abilities: &Abilities, index: u32, written: Option<u64>) -> Result<u16> {
    let offset = register_of_msr(index)?;
    match written {
        None => readable_msr(abilities, Mode::X2Apic, offset)?,
        Some(value) => drop(writable_msr(abilities, Mode::X2Apic, offset, value)?),
    }
    Ok(offset)
}

impl<P: ApicPage> LocalApic<P> {
    /// Reads `size` bytes (1 to 8) at `offset` in the page, in xAPIC mode. A reserved register reads as 0 and is an error.
    pub fn read(&mut self, offset: u16, size: u8, clock: Clock) -> u64 {
        let (slot, within) = (offset & 0xff0, offset & 0xf);
        let Some(shape) = shape(&self.abilities, self.mode, slot) else {
            self.error(ILLEGAL_REGISTER);
            return 0;
        };
        if !shape.read || within >= 4 {
            return 0;
        }
        let value = u64::from(self.value(slot, clock)) >> (8 * within);
        value & u64::MAX >> (64 - 8 * u32::from(size))
    }

    /// Writes `size` bytes at `offset`, in xAPIC mode. Only aligned 32-bit writes reach a register; reserved bits are ignored.
    pub fn write(&mut self, offset: u16, size: u8, value: u64, clock: Clock) {
        let slot = offset & 0xff0;
        let Some(shape) = shape(&self.abilities, self.mode, slot) else {
            self.error(ILLEGAL_REGISTER);
            return;
        };
        if shape.write && size == 4 && offset & 0xf == 0 {
            let kept = self.page.get(slot) & shape.read_only;
            self.store(slot, value as u32 & shape.writable | kept, clock);
        }
    }

    /// RDMSR of 0x800 to 0x8ff.
    ///
    /// # Errors
    /// #GP(0) outside x2APIC mode, and for a register that does not exist or cannot be read.
    pub fn read_msr(&self, index: u32, clock: Clock) -> Result<u64> {
        let offset = self.msr_offset(index)?;
        readable_msr(&self.abilities, self.mode, offset)?;
        let high = if index == IA32_X2APIC_ICR { u64::from(self.page.get(ICR_HIGH)) << 32 } else { 0 };
        Ok(high | u64::from(self.value(offset, clock)))
    }

    /// WRMSR of 0x800 to 0x8ff.
    ///
    /// # Errors
    /// #GP(0) outside x2APIC mode, for a register that does not exist or cannot be written, and for reserved bits.
    pub fn write_msr(&mut self, index: u32, value: u64, clock: Clock) -> Result {
        let offset = self.msr_offset(index)?;
        let shape = writable_msr(&self.abilities, self.mode, offset, value)?;
        let low = value as u32;
        if index == IA32_X2APIC_SELF_IPI {
            self.self_ipi(low as u8);
            return Ok(());
        }
        if index == IA32_X2APIC_ICR {
            self.page.set(ICR_HIGH, (value >> 32) as u32);
        }
        let kept = self.page.get(offset) & shape.read_only;
        self.store(offset, low & shape.writable | kept, clock);
        Ok(())
    }

    fn msr_offset(&self, index: u32) -> Result<u16> {
        if self.mode == Mode::X2Apic { register_of_msr(index) } else { Err(Fault::GP0) }
    }

    /// What reading the register at `offset` gives.
    pub(super) fn value(&self, offset: u16, clock: Clock) -> u32 {
        match offset {
            APR if self.abilities.intel => 0,
            APR => self.arbitration_priority().into(),
            PPR => self.processor_priority().into(),
            TIMER_CURRENT => {
                self.timer.current(self.timer_mode(), self.page.get(TIMER_INITIAL), self.rate(), clock)
            }
            _ => self.page.get(offset),
        }
    }

    /// Writes a register; reserved bits are gone from `value` already.
    fn store(&mut self, offset: u16, value: u32, clock: Clock) {
        match offset {
            EOI => self.end_of_interrupt(),
            ESR => {
                self.page.set(ESR, self.errors);
                self.errors = 0;
            }
            TPR => {
                self.page.set(TPR, value);
                self.update();
            }
            SVR => self.store_spurious(value),
            ICR => {
                self.page.set(ICR, value);
                self.command();
            }
            LVT_TIMER => self.store_timer_vector(value, clock),
            TIMER_INITIAL => {
                self.expire(clock);
                if self.timer_mode() != TimerMode::TscDeadline {
                    self.page.set(TIMER_INITIAL, value);
                    self.timer.start(value, self.rate(), clock);
                }
            }
            TIMER_DIVIDE => {
                self.expire(clock);
                let current = self.value(TIMER_CURRENT, clock);
                self.page.set(TIMER_DIVIDE, value);
                self.timer.start(current, self.rate(), clock);
            }
            LVT_LINT0 | LVT_LINT1 => {
                // Only a level-triggered fixed interrupt can have been accepted and not yet ended.
                let level = value & LVT_LEVEL != 0 && value & 0x700 == 0;
                let value = if level { value } else { value & !LVT_REMOTE_IRR };
                self.store_local_vector(offset, value);
                self.look_at_pins();
            }
            LVT_THERMAL | LVT_PERFORMANCE | LVT_ERROR | LVT_CMCI => self.store_local_vector(offset, value),
            _ => self.page.set(offset, value),
        }
    }

    /// While software has the APIC disabled, every mask bit stays set ("Local APIC State After It Has Been Software Disabled").
    fn store_local_vector(&mut self, offset: u16, value: u32) {
        let forced = if self.page.get(SVR) & SVR_ENABLE == 0 { LVT_MASKED } else { 0 };
        self.page.set(offset, value | forced);
    }

    fn store_spurious(&mut self, value: u32) {
        self.page.set(SVR, value);
        if value & SVR_ENABLE == 0 {
            for offset in local_vectors(&self.abilities) {
                self.page.set(offset, self.page.get(offset) | LVT_MASKED);
            }
        }
    }

    /// Between one-shot and periodic mode the count goes on; to and from TSC-deadline mode the timer is disarmed.
    fn store_timer_vector(&mut self, value: u32, clock: Clock) {
        self.expire(clock);
        let is_deadline = |mode| mode == TimerMode::TscDeadline;
        let changes = is_deadline(self.timer_mode()) != is_deadline(TimerMode::of(value));
        self.store_local_vector(LVT_TIMER, value);
        if changes {
            self.timer = super::Timer::default();
            self.page.set(TIMER_INITIAL, 0);
        }
    }
}
