//! The local APIC, register by register
//! (SDM Vol. 3A (325384-083, Mar 2024), chapter "Advanced Programmable Interrupt Controller (APIC)";
//! APM Vol. 2 (24593 rev. 3.42, Mar 2024), chapter "Advanced Programmable Interrupt Controller (APIC)").
//!
//! A state machine without callbacks: what leaves it (interprocessor interrupts, EOI messages) waits in
//! [`LocalApic::take_outgoing`] until the board collects it, and the board is told when the timer fires by
//! [`LocalApic::next_expiry`]. Its rules are written over an [`ApicPage`], so that a virtual-APIC page in simulated memory
//! obeys the same ones.
//!
//! | file | what |
//! | --- | --- |
//! | `page.rs`, `shape.rs` | where registers lie; which exist in which mode; reserved bits |
//! | `access.rs` | reads and writes by MMIO and by MSR, and what a write does |
//! | `mode.rs` | IA32_APIC_BASE: disabled, xAPIC, x2APIC |
//! | `delivery.rs` | IRR, ISR, TMR, priorities, EOI, local vectors, LINT pins, errors |
//! | `command.rs`, `destination.rs` | IPIs, and who they are meant for |
//! | `timer.rs` | counts and deadlines |
//! | `saved.rs` | registers out and in, for those who virtualize an APIC |
//! | `connection.rs` | how a [`Cpu`](crate::Cpu) is wired to its APIC |
//!
//! Where the manuals leave latitude: globally disabling the APIC loses all its state but the task priority; lowest-priority
//! messages go to the software-enabled destination with the lowest PPR, of equal ones to the lowest processor number;
//! the APIC ID can be written in xAPIC mode; an IPI with an illegal vector is not sent; accesses other than aligned 32-bit
//! ones read what lies there (0 between registers) and write nothing.

mod access;
mod command;
mod connection;
mod delivery;
mod destination;
mod mode;
mod page;
mod saved;
mod shape;
mod timer;

#[cfg(test)]
mod tests;

pub use access::x2apic_register;
pub use command::{Ipi, Outgoing, Shorthand};
pub use connection::Pending;
pub use delivery::{Local, Signal};
pub use destination::targets;
pub use mode::Mode;
pub use page::{ApicPage, MemoryPage, OwnPage, register};
pub use saved::Registers;
pub use timer::{Clock, TimerMode, divisor};

use crate::Model;
use crate::time::{self, Rate};
use register::*;
use rootmode_arch::{Feature, Vendor};
use rootmode_mmu::Digest;
use shape::{LVT_MASKED, SVR_ENABLE, local_vectors};
use timer::Timer;

/// What an APIC can do, from its processor's model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Intel's: APR and RRR have no MSRs, performance-counter interrupts mask themselves.
    pub intel: bool,
    /// It has the x2APIC mode.
    pub x2apic: bool,
    /// Its timer has the TSC-deadline mode.
    pub tsc_deadline: bool,
    /// It has a local vector for corrected machine checks.
    pub cmci: bool,
    /// EOI messages can be suppressed (SVR bit 12).
    pub suppress_eoi: bool,
    /// The timer's clock before division.
    pub timer_clock: Rate,
}

impl Abilities {
    /// Those of `model`. The timer counts at the core crystal clock's rate: the time-stamp counter's divided by the ratio in
    /// CPUID leaf 0x15, if the model has that; else [`time::CRYSTAL`].
    pub fn of(model: &Model) -> Self {
        let crystal = model.leaves().get(&(0x15, 0)).filter(|leaf| leaf[0] != 0 && leaf[1] != 0);
        Self {
            intel: model.vendor() == Vendor::Intel,
            x2apic: model.has(Feature::X2apic),
            tsc_deadline: model.has(Feature::TscDeadline),
            // No model reports corrected machine checks.
            cmci: false,
            suppress_eoi: true,
            timer_clock: crystal.map_or(time::CRYSTAL, |leaf| Rate {
                counts: time::TSC.counts * u64::from(leaf[0]),
                ticks: time::TSC.ticks * u64::from(leaf[1]),
            }),
        }
    }
}

/// A local APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalApic<P = OwnPage> {
    page: P,
    mode: Mode,
    initial_id: u32,
    abilities: Abilities,
    /// Errors since the last write of the ESR.
    errors: u32,
    /// Levels of LINT0 and LINT1.
    lines: [bool; 2],
    /// An ExtINT message waits for its acknowledge cycle.
    ext_int: bool,
    timer: Timer,
    /// Derived: the requested vector above the processor priority.
    deliverable: Option<u8>,
    outgoing: Vec<Outgoing>,
}

impl<P: ApicPage> LocalApic<P> {
    /// An APIC after power-up: xAPIC mode, disabled by software, with this initial ID.
    pub fn new(mut page: P, abilities: Abilities, initial_id: u32) -> Self {
        page.set(TPR, 0);
        let mut apic = Self {
            page,
            mode: Mode::XApic,
            initial_id,
            abilities,
            errors: 0,
            lines: [false; 2],
            ext_int: false,
            timer: Timer::default(),
            deliverable: None,
            outgoing: Vec::new(),
        };
        apic.reset_registers();
        apic
    }

    /// "Local APIC State After Power-Up or Reset", except that the task priority and the levels of the pins stay.
    fn reset_registers(&mut self) {
        let task_priority = self.page.get(TPR);
        for offset in (0..0x400).step_by(16) {
            self.page.set(offset, self.reset_value(offset));
        }
        self.page.set(TPR, task_priority);
        self.errors = 0;
        self.ext_int = false;
        self.timer = Timer::default();
        self.update();
    }

    fn reset_value(&self, offset: u16) -> u32 {
        match offset {
            ID => self.initial_id << 24,
            VERSION => {
                let (version, last) =
                    (if self.abilities.intel { 0x14 } else { 0x10 }, 5 + u32::from(self.abilities.cmci));
                version | last << 16 | u32::from(self.abilities.suppress_eoi) << 24
            }
            DFR => u32::MAX,
            SVR => 0xff,
            offset if local_vectors(&self.abilities).any(|lvt| lvt == offset) => LVT_MASKED,
            _ => 0,
        }
    }

    /// INIT: the state after power-up, but mode and ID stay ("Local APIC State After It Receives an INIT-Deassert IPI",
    /// "x2APIC State Transitions").
    pub fn init(&mut self) {
        let id = self.page.get(ID);
        self.page.set(TPR, 0);
        self.reset_registers();
        self.page.set(ID, id);
        if self.mode == Mode::X2Apic {
            self.page.set(LDR, destination::logical_x2apic_id(self.initial_id));
        }
    }

    /// Gives the APIC the ID of another processor, as after power-up.
    pub fn set_initial_id(&mut self, initial_id: u32) {
        self.initial_id = initial_id;
        let id = if self.mode == Mode::X2Apic { initial_id } else { initial_id << 24 };
        self.page.set(ID, id);
        if self.mode == Mode::X2Apic {
            self.page.set(LDR, destination::logical_x2apic_id(initial_id));
        }
    }

    /// Leaves the APIC as PC firmware does: enabled, the 8259's INTR through LINT0, NMI through LINT1
    /// (MultiProcessor Specification 1.4 "Virtual Wire Mode").
    pub fn virtual_wire(&mut self) {
        self.page.set(SVR, 0xff | SVR_ENABLE);
        self.page.set(LVT_LINT0, 0x700);
        self.page.set(LVT_LINT1, 0x400);
    }

    /// Which interface it has now.
    pub const fn mode(&self) -> Mode {
        self.mode
    }
    /// What it can do.
    pub const fn abilities(&self) -> &Abilities {
        &self.abilities
    }
    /// Its ID: 8 bits in xAPIC mode, 32 in x2APIC mode.
    pub fn id(&self) -> u32 {
        let id = self.page.get(ID);
        if self.mode == Mode::X2Apic { id } else { id >> 24 }
    }
    /// The initial (x2APIC) ID.
    pub const fn initial_id(&self) -> u32 {
        self.initial_id
    }
    /// The register page as it lies there, without what is computed on reading.
    pub const fn page(&self) -> &P {
        &self.page
    }
    /// Whether fixed interrupts are accepted: enabled globally and by software.
    pub fn is_enabled(&self) -> bool {
        self.mode != Mode::Disabled && self.page.get(SVR) & SVR_ENABLE != 0
    }

    /// Whether the board has something to collect with [`Self::take_outgoing`].
    pub const fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }
    /// AVIC's doorbells travel as interprocessor interrupts do.
    pub(crate) fn ring_doorbell(&mut self, id: u32) {
        self.outgoing.push(Outgoing::Doorbell(id));
    }
    /// Takes what left the APIC since the last call, in order.
    pub fn take_outgoing(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outgoing)
    }

    fn rate(&self) -> timer::Rate {
        timer::Rate { clock: self.abilities.timer_clock, divisor: divisor(self.page.get(TIMER_DIVIDE)) }
    }
    fn timer_mode(&self) -> TimerMode {
        TimerMode::of(self.page.get(LVT_TIMER))
    }

    /// The tick at which the timer fires next.
    pub fn next_expiry(&self, clock: Clock) -> Option<u64> {
        self.timer.expiry(self.timer_mode(), clock)
    }

    /// Fires the timer if it has come to zero by now.
    pub fn expire(&mut self, clock: Clock) {
        let (mode, initial, rate) = (self.timer_mode(), self.page.get(TIMER_INITIAL), self.rate());
        if self.timer.fire(mode, initial, rate, clock) {
            self.local_interrupt(Local::Timer);
        }
    }

    /// IA32_TSC_DEADLINE: 0 when disarmed or in another mode ("TSC-Deadline Mode").
    pub const fn tsc_deadline(&self, clock: Clock) -> u64 {
        if clock.tsc >= self.timer.deadline { 0 } else { self.timer.deadline }
    }

    /// Writes IA32_TSC_DEADLINE: 0 disarms, a value that has passed fires at once, and in another timer mode nothing happens.
    pub fn set_tsc_deadline(&mut self, value: u64, clock: Clock) {
        self.expire(clock);
        if self.timer_mode() == TimerMode::TscDeadline {
            self.timer.deadline = value;
            self.expire(clock);
        }
    }

    /// Adds what differs from the state after power-up to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        for word in 0..4 {
            let half = |n: u16| u64::from(self.page.get(IRR + n * 16));
            digest.u64(half(word * 2) | half(word * 2 + 1) << 32);
        }
        for offset in (0..0x400).step_by(16) {
            let value = self.page.get(offset);
            if value != self.reset_value(offset) && !(IRR..ESR).contains(&offset) {
                digest.all(&[offset.into(), value.into()]);
            }
        }
        self.timer.digest(digest);
        let hidden = self.errors
            | u32::from(self.lines[0]) << 16
            | u32::from(self.lines[1]) << 17
            | u32::from(self.ext_int) << 18;
        if hidden != 0 {
            digest.u64(hidden.into());
        }
    }
}
