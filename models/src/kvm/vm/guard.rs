//! The extension of the processor that emulates: it sees what an instruction touches, and stops it before it commits
//! anything for which an answer is missing.

use std::sync::{Arc, Mutex, MutexGuard};

use rootmode_arch::event::{Exception, GuestPhysicalAccess};
use rootmode_arch::{Event, EventClass, EventClasses, GuestPhysical, HostPhysical, Reaction, Stage, Vendor};
use rootmode_cpu::{Bus, Context, Cpu, Effects, Published, Virtualization, gate_address};
use rootmode_mmu::{Digest, PhysicalMemory};

/// An access to something that is not memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The value at a guest-physical address.
    Mmio {
        /// Where.
        address: GuestPhysical,
        /// Bytes, 1 to 8.
        size: u8,
    },
    /// The value of a port.
    Port {
        /// Which.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
    },
}

/// A write to something that is not memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// To a guest-physical address.
    Mmio {
        /// Where.
        address: GuestPhysical,
        /// Bytes, 1 to 8.
        size: u8,
        /// What.
        value: u64,
    },
    /// To a port.
    Port {
        /// Which.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
        /// What.
        value: u32,
    },
}

/// Why an attempt ended before the instruction was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abort {
    /// An answer is missing.
    Needs(Need),
    /// A page of guest memory is not mapped, or not for this access.
    Page(GuestPhysicalAccess),
    /// The instruction raised this.
    Raised(Exception),
    /// It does something that cannot be emulated.
    Impossible,
}

/// What one attempt knows and finds out.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Answers to reads, in the order in which the instruction asks.
    pub(super) answers: Vec<u64>,
    served: usize,
    /// Writes, in order; values of those to memory addresses lie in the scratch page until the instruction is complete.
    sent: Vec<Sent>,
    pub(super) abort: Option<Abort>,
    /// A page of L0's memory for values on their way.
    scratch: HostPhysical,
}

/// Slots of the scratch page: reads use the first one, writes one each.
const SLOT: u64 = 16;
const SLOTS: usize = 255;

impl Script {
    pub(super) fn new(answers: Vec<u64>, scratch: HostPhysical) -> Self {
        Self { answers, scratch, ..Self::default() }
    }

    /// The writes of the instruction, which is complete.
    pub(super) fn sent(&self, memory: &PhysicalMemory) -> Vec<Sent> {
        let mut sent = self.sent.clone();
        for (number, write) in sent.iter_mut().enumerate() {
            if let Sent::Mmio { size, value, .. } = write {
                let mut bytes = [0; 8];
                memory.read(self.place(number), &mut bytes[..usize::from(*size).min(8)]);
                *value = u64::from_le_bytes(bytes);
            }
        }
        sent
    }

    const fn place(&self, write: usize) -> HostPhysical {
        self.scratch.offset(SLOT * (1 + write as u64))
    }

    fn next_answer(&mut self) -> Option<u64> {
        let answer = self.answers.get(self.served).copied();
        self.served += usize::from(answer.is_some());
        answer
    }
}

/// A script in two hands: the guard's and the emulator's.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Script>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().expect("nobody panics while a script is read or written")
    }
}

/// What the guard wants to see.
pub(super) const CLASSES: EventClasses = EventClasses::NONE
    .with(EventClass::Exception)
    .with(EventClass::ApicAccess)
    .with(EventClass::SecondStage)
    .with(EventClass::PortIo);

/// The guard.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) vendor: Vendor,
    pub(super) script: Shared,
}

impl Guard {
    fn leave(&self, cpu: &mut Cpu, abort: Abort) -> Reaction {
        self.script.lock().abort.get_or_insert(abort);
        cpu.published = Published::default();
        (cpu.injected, cpu.delivering) = (None, None);
        cpu.rip = gate_address(0).0;
        cpu.refresh();
        Reaction::Exit
    }

    fn device(
        &self,
        cpu: &mut Cpu,
        memory: &mut PhysicalMemory,
        access: &GuestPhysicalAccess,
        size: u8,
    ) -> Reaction {
        if access.table_walk || access.fetch {
            return self.leave(cpu, Abort::Impossible);
        }
        let mut script = self.script.lock();
        let place = if access.read {
            let Some(value) = script.next_answer() else {
                drop(script);
                let need = Need::Mmio { address: access.address, size };
                return self.leave(cpu, Abort::Needs(need));
            };
            let place = script.scratch;
            memory.write_u64(place, value);
            place
        } else {
            if script.sent.len() >= SLOTS {
                drop(script);
                return self.leave(cpu, Abort::Impossible);
            }
            script.sent.push(Sent::Mmio { address: access.address, size, value: 0 });
            script.place(script.sent.len() - 1)
        };
        Reaction::Done(place.0)
    }
}

impl Virtualization for Guard {
    fn vendor(&self) -> Vendor {
        self.vendor
    }

    fn raise(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, event: &Event, stage: Stage) -> Reaction {
        match *event {
            Event::Exception(exception) => self.leave(cpu, Abort::Raised(exception)),
            Event::ApicAccess { access, size, .. } => self.device(cpu, ctx.memory, &access, size),
            Event::SecondStage(access) if access.misconfigured => self.leave(cpu, Abort::Impossible),
            Event::SecondStage(access) => self.leave(cpu, Abort::Page(access)),
            Event::PortIo(access) if stage == Stage::AfterOperands && access.input => {
                let known = {
                    let script = self.script.lock();
                    script.served < script.answers.len()
                };
                if known {
                    return Reaction::Proceed;
                }
                self.leave(cpu, Abort::Needs(Need::Port { port: access.port, size: access.size }))
            }
            Event::PortIo(_) => Reaction::Proceed,
            _ => self.leave(cpu, Abort::Impossible),
        }
    }

    fn digest(&self, _: &mut Digest) {}

    fn clone_box(&self) -> Box<dyn Virtualization> {
        Box::new(self.clone())
    }
}

/// The bus of the processor that emulates: ports are answered from the script.
pub(super) struct Ports(pub(super) Shared);

impl Bus for Ports {
    fn read_port(&mut self, _: u16, _: u8, _: u64, _: &mut Effects) -> u32 {
        self.0.lock().next_answer().unwrap_or(u64::MAX) as u32
    }

    fn write_port(&mut self, port: u16, size: u8, value: u32, _: u64, _: &mut Effects) {
        self.0.lock().sent.push(Sent::Port { port, size, value });
    }

    fn read_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: &mut Effects) -> u64 {
        u64::MAX
    }

    fn write_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: u64, _: &mut Effects) {}

    fn deadline(&mut self, _: u32, _: u64, _: &mut PhysicalMemory, _: &mut Effects) {}
}
