//! The interrupt fabric: what devices and local APICs caused reaches the processors that it is meant for.
//!
//! A message that a processor's own access causes reaches itself at once and others at the start of their next slice; outside
//! slices everybody is reached at once.

use super::{Board, Source};
use crate::apic::{Ipi, Outgoing, Shorthand, targets};
use crate::context::{Effects, Message};
use rootmode_arch::record::Stop;
use rootmode_mmu::Digest;

impl Board {
    /// Applies what a device access of processor `source`, or a deadline of a device (`None`), caused, and what left that
    /// processor's local APIC.
    pub(super) fn apply(&mut self, source: Option<u8>, effects: Effects) -> Option<Stop> {
        let mut stop = self.apply_effects(source, effects);
        if let Some(source) = source {
            let outgoing = match self.processors.get_mut(usize::from(source)) {
                Some(processor) if processor.cpu.apic.has_outgoing() => processor.cpu.apic.take_outgoing(),
                _ => Vec::new(),
            };
            for outgoing in outgoing {
                match outgoing {
                    Outgoing::Ipi(ipi) => self.route(Some(source), &ipi),
                    Outgoing::Doorbell(id) => self.ring(source, id),
                    Outgoing::EndOfInterrupt(vector) => {
                        let tick = self.processors[usize::from(source)].cpu.tick;
                        let mut effects = Effects::default();
                        self.bus.end_of_interrupt(vector, tick, &mut effects);
                        stop = stop.or(self.apply_effects(Some(source), effects));
                    }
                }
            }
            self.follow_timer(source);
        }
        stop
    }

    fn apply_effects(&mut self, source: Option<u8>, effects: Effects) -> Option<Stop> {
        for (target, message) in effects.messages {
            self.send(source, target, message);
        }
        for (tick, number) in effects.deadlines {
            self.deadlines.add(tick, Source::Bus(number));
        }
        for message in effects.interrupts {
            self.route(source, &Ipi { shorthand: Shorthand::None, wide: false, message });
        }
        let lines = [effects.intr.map(Message::Intr), effects.nmi.map(Message::NmiLine)];
        for message in lines.into_iter().flatten() {
            for target in 0..self.processors.len() {
                self.send(source, target as u8, message);
            }
        }
        if let Some(map) = effects.memory_map {
            self.memory.set_map(map);
            // What they remember of a page may be wrong now.
            for processor in &mut self.processors {
                processor.cpu.tlb.flush_all();
            }
        }
        effects.stop
    }

    fn send(&mut self, source: Option<u8>, target: u8, message: Message) {
        if source.is_none_or(|source| source == target) {
            self.post(target, message);
        } else {
            self.messages.push((target, message));
        }
    }

    pub(super) fn post(&mut self, target: u8, message: Message) {
        if let Some(processor) = self.processors.get_mut(usize::from(target)) {
            processor.cpu.post(message);
        }
    }

    /// Adds the messages that wait for the next slice to `digest`.
    pub(super) fn digest_messages(&self, digest: &mut Digest) {
        for (target, message) in &self.messages {
            let (kind, value) = match *message {
                Message::Interrupt(vector) => (1, vector),
                Message::LevelInterrupt(vector) => (2, vector),
                Message::ExtInt => (3, 0),
                Message::Intr(level) => (4, u8::from(level)),
                Message::NmiLine(level) => (5, u8::from(level)),
                Message::Nmi => (6, 0),
                Message::Smi => (7, 0),
                Message::Init => (8, 0),
                Message::Sipi(vector) => (9, vector),
                Message::Doorbell => (10, 0),
            };
            digest.all(&[u64::from(*target), kind, u64::from(value)]);
        }
    }

    /// The deadline queue follows the timer of `processor`'s local APIC.
    fn follow_timer(&mut self, processor: u8) {
        let cpu = &self.processors[usize::from(processor)].cpu;
        self.deadlines.set_apic(processor, cpu.apic.next_expiry(cpu.clock()));
    }

    /// The deadline of a local APIC's timer has come.
    pub(super) fn apic_deadline(&mut self, processor: u8) {
        let cpu = &mut self.processors[usize::from(processor)].cpu;
        cpu.apic_deadline(self.now);
        let next = cpu.apic.next_expiry(cpu.clock_at(self.now));
        self.deadlines.set_apic(processor, next);
    }

    /// Rings the doorbell of the processor whose physical APIC ID is `id`.
    fn ring(&mut self, source: u8, id: u32) {
        for target in 0..self.processors.len() {
            if self.processors[target].cpu.apic.id() == id {
                self.send(Some(source), target as u8, Message::Doorbell);
            }
        }
    }

    /// Finds the local APICs that `ipi` is meant for.
    fn route(&mut self, source: Option<u8>, ipi: &Ipi) {
        let apics = self.processors.iter().zip(0_u8..).map(|(processor, index)| (index, &processor.cpu.apic));
        let targets = targets(apics, source, ipi);
        if let Some(arrives) = ipi.message.arrives() {
            for target in targets {
                self.send(source, target, arrives);
            }
        }
    }
}
