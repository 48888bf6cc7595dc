//! What a processor is lent for each run: memory, bus, choices, observer. It owns none of them.

use crate::Cpu;
use rootmode_arch::choices::Choices;
use rootmode_arch::record::{Observer, Payload, Record, Stop};
use rootmode_arch::{HostPhysical, Site};
use rootmode_mmu::PhysicalMemory;

/// What a device may cause; the board applies it after the access. A device never calls back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Messages to processors, in order.
    pub messages: Vec<(u8, Message)>,
    /// Deadlines: at this tick, call [`Bus::deadline`] with this source.
    pub deadlines: Vec<(u64, u32)>,
    /// Stop the machine.
    pub stop: Option<Stop>,
}

impl Effects {
    /// Whether nothing was caused.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.deadlines.is_empty() && self.stop.is_none()
    }
}

/// A message to a processor's interrupt inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A fixed interrupt with this vector.
    Interrupt(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// A system-management interrupt.
    Smi,
    /// INIT.
    Init,
    /// Start-up with this vector.
    Sipi(u8),
}

/// What lies outside the processors: ports and MMIO windows.
pub trait Bus: Send {
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
