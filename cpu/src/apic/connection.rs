//! How a processor is wired to its APIC: CR8, IA32_APIC_BASE, the register page, messages, and what it takes next.

use super::mode::{BASE_BSP, BASE_X2APIC};
use super::{Clock, Ipi, Local, Mode, Shorthand, Signal};
use crate::context::{DeliveryMode, InterruptMessage, Message};
use crate::fault::{Fault, Result};
use crate::state::Attention;
use crate::{Context, Cpu, time};
use rootmode_arch::HostPhysical;

/// A maskable interrupt that the processor would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// From the local APIC.
    Vector(u8),
    /// From an 8259, whose vector only the acknowledge cycle tells.
    ExtInt,
}

impl Cpu {
    /// CR8: bits 7:4 of the task priority.
    pub fn cr8(&self) -> u8 {
        self.apic.task_priority() >> 4
    }

    /// Writes CR8 (0 to 15).
    pub fn set_cr8(&mut self, value: u8) {
        self.apic.set_task_priority(value << 4);
        self.update_attention();
    }

    /// What time it is for the APIC's timer.
    pub const fn clock(&self) -> Clock {
        self.clock_at(self.tick)
    }

    /// What time it is for it at `tick`.
    pub const fn clock_at(&self, tick: u64) -> Clock {
        Clock { tick, tsc: time::TSC.at(tick).wrapping_add(self.msrs.tsc_adjust) }
    }

    /// Gives the processor its number: APIC ID and bootstrap flag follow.
    pub fn place(&mut self, index: u8) {
        self.index = index;
        self.apic.set_initial_id(index.into());
        let rest = self.msrs.apic_base & !BASE_BSP;
        self.msrs.apic_base = if index == 0 { rest | BASE_BSP } else { rest };
    }

    /// Whether this is the bootstrap processor.
    pub const fn is_bootstrap(&self) -> bool {
        self.msrs.apic_base & BASE_BSP != 0
    }

    /// The page of the APIC's registers, while memory accesses reach them.
    pub fn apic_page(&self) -> Option<HostPhysical> {
        (self.apic.mode() == Mode::XApic).then_some(HostPhysical(self.msrs.apic_base & !0xfff))
    }

    /// WRMSR of IA32_APIC_BASE. Translations to where the registers were and where they are now go.
    ///
    /// # Errors
    /// #GP(0) for reserved bits and for a transition that does not exist.
    pub(crate) fn write_apic_base(&mut self, value: u64) -> Result {
        let mut reserved = 0x2ff | !((1 << self.model.physical_width()) - 1);
        if !self.apic.abilities().x2apic {
            reserved |= BASE_X2APIC;
        }
        let mode = Mode::of(value).filter(|mode| self.apic.mode().may_become(*mode));
        let mode = mode.filter(|_| value & reserved == 0).ok_or(Fault::GP0)?;
        let before = self.apic_page();
        self.msrs.apic_base = value;
        self.apic.set_mode(mode);
        let after = self.apic_page();
        if before != after {
            for page in before.into_iter().chain(after) {
                self.tlb.flush_host_page(page);
            }
        }
        self.apic_changed();
        Ok(())
    }

    /// WRMSR of 0x800 to 0x8ff.
    ///
    /// # Errors
    /// See [`LocalApic::write_msr`](super::LocalApic::write_msr).
    pub(crate) fn write_x2apic(&mut self, index: u32, value: u64) -> Result {
        let clock = self.clock();
        self.apic.write_msr(index, value, clock)?;
        self.apic_changed();
        Ok(())
    }

    /// WRMSR of IA32_TSC_DEADLINE.
    pub(crate) fn write_tsc_deadline(&mut self, value: u64) {
        let clock = self.clock();
        self.apic.set_tsc_deadline(value, clock);
        self.apic_changed();
    }

    /// The time-stamp counter jumped: a TSC deadline may have come, or be elsewhere.
    pub(crate) fn tsc_changed(&mut self) {
        let clock = self.clock();
        self.apic.expire(clock);
        self.apic_changed();
    }

    /// A read of the register page.
    pub(crate) fn read_apic_page(&mut self, at: HostPhysical, size: u8) -> u64 {
        let clock = self.clock();
        let value = self.apic.read((at.0 & 0xfff) as u16, size, clock);
        self.update_attention();
        value
    }

    /// A write to the register page.
    pub(crate) fn write_apic_page(&mut self, at: HostPhysical, size: u8, value: u64) {
        let clock = self.clock();
        self.apic.write((at.0 & 0xfff) as u16, size, value, clock);
        self.apic_changed();
    }

    /// Software changed the APIC (or the clock that its timer compares with): the board looks at what left it and when its
    /// timer fires, before the next instruction.
    pub(crate) fn apic_changed(&mut self) {
        self.update_attention();
        self.attention.0 |= Attention::EFFECTS;
    }

    /// Rings AVIC's doorbell of the processor whose physical APIC ID is `id`.
    pub fn ring_doorbell(&mut self, id: u32) {
        self.apic.ring_doorbell(id);
        self.apic_changed();
    }

    /// Ends the interrupt in service, as a write to the EOI register does.
    pub fn end_of_interrupt(&mut self) {
        self.apic.end_of_interrupt();
        self.apic_changed();
    }

    /// Sends a fixed, edge-triggered interrupt to the physical destination `destination`, which has 8 bits outside x2APIC
    /// mode.
    pub fn send_fixed(&mut self, destination: u32, vector: u8) {
        let message = InterruptMessage {
            destination,
            logical: false,
            mode: DeliveryMode::Fixed,
            vector,
            level_triggered: false,
            asserted: true,
        };
        let wide = self.apic.mode() == Mode::X2Apic;
        self.apic.send(Ipi { shorthand: Shorthand::None, wide, message });
        self.apic_changed();
    }

    /// The time that the APIC's deadline stands for has come, or may have.
    pub(crate) fn apic_deadline(&mut self, tick: u64) {
        let clock = self.clock_at(tick);
        self.apic.expire(clock);
        self.update_attention();
    }

    /// Something arrives at the interrupt inputs.
    pub fn post(&mut self, message: Message) {
        let signal = match message {
            Message::Interrupt(vector) => {
                self.apic.receive(vector, false);
                None
            }
            Message::LevelInterrupt(vector) => {
                self.apic.receive(vector, true);
                None
            }
            Message::ExtInt => {
                self.apic.receive_ext_int();
                None
            }
            Message::Intr(level) => self.apic.set_pin(0, level),
            Message::NmiLine(level) => self.apic.set_pin(1, level),
            Message::Nmi => Some(Signal::Nmi),
            Message::Smi => Some(Signal::Smi),
            Message::Init => Some(Signal::Init),
            Message::Sipi(vector) => {
                self.interrupts.sipi = Some(vector);
                None
            }
            Message::Doorbell => {
                self.interrupts.doorbell = self.published.guest;
                None
            }
        };
        self.take_signal(signal);
    }

    /// A source inside the processor interrupts.
    pub fn local_interrupt(&mut self, local: Local) {
        let signal = self.apic.local_interrupt(local);
        self.take_signal(signal);
    }

    fn take_signal(&mut self, signal: Option<Signal>) {
        match signal {
            Some(Signal::Nmi) => self.interrupts.post_nmi(self.nmi_blocked),
            Some(Signal::Smi) => self.interrupts.smi = true,
            Some(Signal::Init) => self.interrupts.post_init(),
            None => {}
        }
        self.update_attention();
    }

    /// The maskable interrupt that waits, whatever RFLAGS.IF says. ExtINT goes first: it knows no priorities.
    pub fn pending_interrupt(&self) -> Option<Pending> {
        if self.apic.ext_int() { Some(Pending::ExtInt) } else { self.apic.deliverable().map(Pending::Vector) }
    }

    /// Acknowledges the maskable interrupt that waits and returns its vector; the spurious vector if none does any more.
    pub fn acknowledge_interrupt(&mut self, ctx: &mut Context<'_>) -> u8 {
        let vector = if self.apic.ext_int() {
            self.apic.ext_int_taken();
            let vector = ctx.bus.acknowledge(self.tick, ctx.effects);
            if !ctx.effects.is_empty() {
                self.attention.0 |= Attention::EFFECTS;
            }
            vector
        } else {
            self.apic.acknowledge()
        };
        self.update_attention();
        vector
    }
}
