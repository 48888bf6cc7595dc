//! What a processor is lent for each run: memory, bus, choices, observer. It owns none of them.

use crate::Cpu;
use rootmode_arch::choices::Choices;
use rootmode_arch::record::{Observer, Payload, Record, Stop};
use rootmode_arch::{HostPhysical, Site};
use rootmode_mmu::{Digest, MemoryMap, PhysicalMemory};
use std::any::Any;

/// What a device may cause; the board applies it after the access. A device never calls back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Messages to processors, in order.
    pub messages: Vec<(u8, Message)>,
    /// Deadlines: at this tick, call [`Bus::deadline`] with this source.
    pub deadlines: Vec<(u64, u32)>,
    /// Interrupt messages from the I/O APIC and from message-signalled interrupts, in order. The board finds the local
    /// APICs that they are meant for.
    pub interrupts: Vec<InterruptMessage>,
    /// The new level of the 8259's INTR output: LINT0 of every local APIC, and the INTR pin of a processor whose local APIC
    /// is globally disabled.
    pub intr: Option<bool>,
    /// The new level of the platform's NMI line: LINT1 of every local APIC, and the NMI pin where the APIC is disabled.
    pub nmi: Option<bool>,
    /// What the chipset makes of RAM from now on.
    pub memory_map: Option<MemoryMap>,
    /// Stop the machine.
    pub stop: Option<Stop>,
}

impl Effects {
    /// Whether nothing was caused.
    pub const fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.deadlines.is_empty()
            && self.interrupts.is_empty()
            && self.intr.is_none()
            && self.nmi.is_none()
            && self.memory_map.is_none()
            && self.stop.is_none()
    }
}

/// How an interrupt message is delivered (SDM Vol. 3A "Interrupt Command Register (ICR)", "Message Data Register Format").
/// The numbers are those of the delivery-mode field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeliveryMode {
    /// The vector, to every processor of the destination.
    Fixed = 0,
    /// The vector, to the processor of the destination that runs at the lowest priority.
    LowestPriority = 1,
    /// A system-management interrupt.
    Smi = 2,
    /// A non-maskable interrupt.
    Nmi = 4,
    /// INIT.
    Init = 5,
    /// Start-up; the vector is the page to start at. Only the interrupt command register can send it.
    StartUp = 6,
    /// An interrupt whose vector an 8259 supplies in an acknowledge cycle.
    ExtInt = 7,
}

impl DeliveryMode {
    /// The mode of a 3-bit delivery-mode field; `None` for the reserved encoding 3.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => return None,
        })
    }
}

/// An interrupt message on its way to local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterruptMessage {
    /// The destination field: 8 bits in xAPIC messages (an I/O APIC, an MSI), 32 from an APIC in x2APIC mode.
    pub destination: u32,
    /// The destination is logical: matched against the LDR, not the APIC ID.
    pub logical: bool,
    /// What arrives.
    pub mode: DeliveryMode,
    /// Vector of fixed, lowest-priority and start-up messages.
    pub vector: u8,
    /// Level-triggered: the end of this interrupt is broadcast ([`Bus::end_of_interrupt`]).
    pub level_triggered: bool,
    /// Asserted; `false` is the de-assert message of a level, which only INIT knows, and which changes nothing.
    pub asserted: bool,
}

impl InterruptMessage {
    /// What arrives at a local APIC; nothing if a level is de-asserted.
    pub fn arrives(&self) -> Option<Message> {
        self.asserted.then_some(match self.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if self.level_triggered => {
                Message::LevelInterrupt(self.vector)
            }
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => Message::Interrupt(self.vector),
            DeliveryMode::Smi => Message::Smi,
            DeliveryMode::Nmi => Message::Nmi,
            DeliveryMode::Init => Message::Init,
            DeliveryMode::StartUp => Message::Sipi(self.vector),
            DeliveryMode::ExtInt => Message::ExtInt,
        })
    }
}

/// A message to a processor's interrupt inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A fixed, edge-triggered interrupt with this vector, for the local APIC.
    Interrupt(u8),
    /// A fixed, level-triggered interrupt with this vector, for the local APIC.
    LevelInterrupt(u8),
    /// An interrupt whose vector an 8259 supplies, for the local APIC.
    ExtInt,
    /// The level of the 8259's INTR output: LINT0, or the INTR pin without an APIC.
    Intr(bool),
    /// The level of the platform's NMI line: LINT1, or the NMI pin without an APIC.
    NmiLine(bool),
    /// A non-maskable interrupt.
    Nmi,
    /// A system-management interrupt.
    Smi,
    /// INIT.
    Init,
    /// Start-up with this vector.
    Sipi(u8),
    /// AVIC's doorbell: the guest that runs, if one does, has new requests in its backing page.
    Doorbell,
}

/// What lies outside the processors: ports and MMIO windows. Whoever composed a machine knows the bus's type and can get it
/// back through [`Any`], to snapshot it or to exchange data with its devices.
pub trait Bus: Any + Send {
    /// IN of `size` bytes (1, 2, 4) at machine time `tick`.
    fn read_port(&mut self, port: u16, size: u8, tick: u64, effects: &mut Effects) -> u32;
    /// OUT of `size` bytes.
    fn write_port(&mut self, port: u16, size: u8, value: u32, tick: u64, effects: &mut Effects);
    /// A read of `size` bytes (1 to 8) from an MMIO window.
    fn read_mmio(&mut self, address: HostPhysical, size: u8, tick: u64, effects: &mut Effects) -> u64;
    /// A write of `size` bytes to an MMIO window.
    fn write_mmio(&mut self, address: HostPhysical, size: u8, value: u64, tick: u64, effects: &mut Effects);
    /// A deadline that the bus asked for has come. `memory` is for devices that move data themselves.
    fn deadline(&mut self, source: u32, tick: u64, memory: &mut PhysicalMemory, effects: &mut Effects);
    /// An interrupt-acknowledge (INTA) cycle: the 8259's vector. Nothing drives the data lines of a bus without one.
    fn acknowledge(&mut self, tick: u64, effects: &mut Effects) -> u8 {
        let _ = (tick, effects);
        0xff
    }
    /// A local APIC's EOI message for the level-triggered `vector`; I/O APICs clear their remote IRR and look at the line
    /// again.
    fn end_of_interrupt(&mut self, vector: u8, tick: u64, effects: &mut Effects) {
        let _ = (vector, tick, effects);
    }
    /// Adds everything that a guest can observe to `digest`. A bus without state adds nothing.
    fn digest(&self, digest: &mut Digest) {
        let _ = digest;
    }
    /// The same devices in the same state, for snapshots. `None`: they cannot be copied.
    fn copy(&self) -> Option<Box<dyn Bus>> {
        None
    }
}

/// A bus without devices: reads are all ones, writes and deadlines are ignored.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyBus;

impl Bus for EmptyBus {
    fn read_port(&mut self, _: u16, size: u8, _: u64, _: &mut Effects) -> u32 {
        u32::MAX >> (32 - 8 * u32::from(size))
    }
    fn write_port(&mut self, _: u16, _: u8, _: u32, _: u64, _: &mut Effects) {}
    fn read_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: &mut Effects) -> u64 {
        u64::MAX
    }
    fn write_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: u64, _: &mut Effects) {}
    fn deadline(&mut self, _: u32, _: u64, _: &mut PhysicalMemory, _: &mut Effects) {}
    fn copy(&self) -> Option<Box<dyn Bus>> {
        Some(Box::new(*self))
    }
}

/// Everything that a processor and its extension are lent while they run.
pub struct Context<'a> {
    /// The host-physical address space. Extensions read and write VMCS regions, VMCBs and bitmaps here, in place.
    pub memory: &'a mut PhysicalMemory,
    /// Ports and MMIO windows.
    pub bus: &'a mut dyn Bus,
    /// Whatever image and inputs do not determine.
    pub choices: &'a mut dyn Choices,
    /// Who watches, if anyone does.
    pub observer: Option<&'a mut dyn Observer>,
    /// Collects what devices cause.
    pub effects: &'a mut Effects,
    /// Gate addresses stop host-mode execution (a machine whose supervisor is a Rust host).
    pub gates: bool,
}

impl Context<'_> {
    /// Offers a record to the observer. Costs one test when nobody watches.
    #[inline]
    pub fn emit(&mut self, cpu: &Cpu, payload: Payload) {
        if let Some(observer) = self.observer.as_deref_mut() {
            let level = cpu.published.level;
            observer.observe(&Record { tick: cpu.tick, vcpu: cpu.index, level, payload });
        }
    }

    /// Draws a choice and records it.
    pub fn choose(&mut self, cpu: &Cpu, site: Site, n: u64) -> u64 {
        let k = self.choices.choose(site, n);
        self.emit(cpu, Payload::Choice { site: site as u16, n, k });
        k
    }
}
