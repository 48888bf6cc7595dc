//! From a message or a pin to the processor: IRR, ISR and TMR, priorities, the end of an interrupt, local vectors, errors
//! (SDM Vol. 3A "Handling Local Interrupts", "Handling Interrupts", "Task Priority", "Signaling Interrupt Servicing
//! Completion", "Error Handling").

use super::register::*;
use super::shape::{LVT_LEVEL, LVT_MASKED, LVT_REMOTE_IRR, SVR_SUPPRESS_EOI};
use super::{ApicPage, LocalApic, Mode, Outgoing};
use crate::context::DeliveryMode;

/// ESR: an IPI had a vector below 16.
pub(super) const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
/// ESR: a vector below 16 arrived.
pub(super) const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
/// ESR: a reserved register was accessed in xAPIC mode.
pub(super) const ILLEGAL_REGISTER: u32 = 1 << 7;

/// A source of interrupts inside the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// The APIC timer.
    Timer,
    /// The thermal monitor.
    Thermal,
    /// A performance counter.
    Performance,
    /// Corrected machine checks.
    Cmci,
    /// An APIC error.
    Error,
}

impl Local {
    const fn offset(self) -> u16 {
        match self {
            Self::Timer => LVT_TIMER,
            Self::Thermal => LVT_THERMAL,
            Self::Performance => LVT_PERFORMANCE,
            Self::Cmci => LVT_CMCI,
            Self::Error => LVT_ERROR,
        }
    }
}

/// What goes past the APIC's priorities straight to the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A non-maskable interrupt.
    Nmi,
    /// A system-management interrupt.
    Smi,
    /// INIT.
    Init,
}

const LINT: [u16; 2] = [LVT_LINT0, LVT_LINT1];

impl<P: ApicPage> LocalApic<P> {
    /// A fixed interrupt arrives. A disabled APIC does not accept it; vectors below 16 are an error instead.
    pub fn receive(&mut self, vector: u8, level_triggered: bool) {
        if !self.is_enabled() {
            return;
        }
        if vector < 16 {
            self.error(RECEIVE_ILLEGAL_VECTOR);
            return;
        }
        self.page.put(IRR, vector, true);
        self.page.put(TMR, vector, level_triggered);
        self.update();
    }

    /// An ExtINT message arrives: an 8259 will supply the vector.
    pub fn receive_ext_int(&mut self) {
        self.ext_int |= self.is_enabled();
    }

    /// Whether the processor should run an acknowledge cycle to an 8259: ExtINT, or INTR itself without an APIC.
    pub fn ext_int(&self) -> bool {
        self.ext_int || self.lines[0] && self.passes_external()
    }

    /// Whether INTR of an 8259 on LINT0 reaches the processor.
    pub fn passes_external(&self) -> bool {
        self.mode == Mode::Disabled || self.page.get(LVT_LINT0) & (LVT_MASKED | 0x700) == 0x700
    }

    /// Lets INTR of an 8259 through from now on, although software has not enabled the APIC.
    pub fn pass_external(&mut self) {
        self.page.set(LVT_LINT0, 0x700);
    }

    /// The acknowledge cycle to the 8259 is under way.
    pub const fn ext_int_taken(&mut self) {
        self.ext_int = false;
    }

    /// The vector that would be delivered now: the highest requested one, if its class is above the processor priority's.
    pub const fn deliverable(&self) -> Option<u8> {
        self.deliverable
    }

    /// The highest requested vector, deliverable or not.
    pub fn highest_requested(&self) -> Option<u8> {
        self.page.highest(IRR)
    }

    /// The processor takes an interrupt: its vector, now in service; or the spurious vector if none is deliverable any more.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(vector) = self.deliverable else { return self.page.get(SVR) as u8 };
        self.page.put(IRR, vector, false);
        self.page.put(ISR, vector, true);
        self.update();
        vector
    }

    /// EOI: the highest vector in service ends. A level-triggered one is broadcast unless software suppressed that.
    pub fn end_of_interrupt(&mut self) {
        let Some(vector) = self.page.highest(ISR) else { return };
        self.page.put(ISR, vector, false);
        if self.page.contains(TMR, vector) {
            if self.page.get(SVR) & SVR_SUPPRESS_EOI == 0 {
                self.outgoing.push(Outgoing::EndOfInterrupt(vector));
            }
            for offset in LINT {
                let lvt = self.page.get(offset);
                if lvt as u8 == vector {
                    self.page.set(offset, lvt & !LVT_REMOTE_IRR);
                }
            }
            self.look_at_pins();
        }
        self.update();
    }

    /// The task priority, bits 7:0 of the TPR.
    pub fn task_priority(&self) -> u8 {
        self.page.get(TPR) as u8
    }

    /// Replaces the task priority.
    pub fn set_task_priority(&mut self, priority: u8) {
        self.page.set(TPR, priority.into());
        self.update();
    }

    /// PPR: the task priority, or the class in service if that is higher.
    pub fn processor_priority(&self) -> u8 {
        self.page.processor_priority()
    }

    /// APR (APM Vol. 2 "Lowest Priority Messages and Arbitration"; the SDM had the same formula for P6 processors).
    pub(super) fn arbitration_priority(&self) -> u8 {
        let task = self.task_priority();
        let class = |base| self.page.highest(base).unwrap_or(0) & 0xf0;
        let (requested, service) = (class(IRR), class(ISR));
        if task & 0xf0 >= requested && task & 0xf0 > service {
            task
        } else {
            (task & 0xf0 & service).max(requested)
        }
    }

    /// Recomputes what is deliverable, after IRR, ISR or TPR changed.
    pub(super) fn update(&mut self) {
        self.deliverable =
            self.page.highest(IRR).filter(|vector| vector >> 4 > self.processor_priority() >> 4);
    }

    /// A source inside the processor interrupts, as its local vector says.
    pub fn local_interrupt(&mut self, local: Local) -> Option<Signal> {
        let lvt = self.page.get(local.offset());
        let absent = local == Local::Cmci && !self.abilities.cmci;
        if lvt & LVT_MASKED != 0 || self.mode == Mode::Disabled || absent {
            return None;
        }
        if local == Local::Performance && self.abilities.intel {
            self.page.set(LVT_PERFORMANCE, lvt | LVT_MASKED);
        }
        // The timer and errors have no delivery mode; their bits 10:8 are reserved and 0.
        self.deliver(lvt, false)
    }

    fn deliver(&mut self, lvt: u32, level_triggered: bool) -> Option<Signal> {
        match DeliveryMode::from_bits((lvt >> 8) as u8) {
            Some(DeliveryMode::Fixed) => {
                self.receive(lvt as u8, level_triggered);
                None
            }
            Some(DeliveryMode::Nmi) => Some(Signal::Nmi),
            Some(DeliveryMode::Smi) => Some(Signal::Smi),
            Some(DeliveryMode::Init) => Some(Signal::Init),
            // ExtINT is a level that `ext_int` looks at; the others are reserved.
            _ => None,
        }
    }

    /// The level of LINT0 (`pin` 0) or LINT1. NMI, SMI and INIT are edges whatever the trigger mode says. Without an APIC the
    /// pins are INTR and NMI.
    pub fn set_pin(&mut self, pin: usize, level: bool) -> Option<Signal> {
        let rises = level && !self.lines[pin];
        self.lines[pin] = level;
        if self.mode == Mode::Disabled {
            return (rises && pin == 1).then_some(Signal::Nmi);
        }
        let lvt = self.page.get(LINT[pin]);
        if lvt & LVT_MASKED != 0 {
            return None;
        }
        if lvt & LVT_LEVEL != 0 && lvt & 0x700 == 0 {
            self.look_at_pins();
            return None;
        }
        if rises { self.deliver(lvt, false) } else { None }
    }

    /// Level-triggered fixed interrupts of the pins: accepted while the level is high and the last one has ended.
    pub(super) fn look_at_pins(&mut self) {
        for (pin, offset) in LINT.into_iter().enumerate() {
            let lvt = self.page.get(offset);
            let idle = lvt & (LVT_MASKED | LVT_REMOTE_IRR | LVT_LEVEL | 0x700) == LVT_LEVEL;
            if self.lines[pin] && idle {
                self.page.set(offset, lvt | LVT_REMOTE_IRR);
                self.receive(lvt as u8, true);
            }
        }
    }

    /// Notes an error. The first one since the last write of the ESR interrupts.
    pub(super) fn error(&mut self, bit: u32) {
        let first = self.errors == 0;
        self.errors |= bit;
        if first {
            self.local_interrupt(Local::Error);
        }
    }
}
