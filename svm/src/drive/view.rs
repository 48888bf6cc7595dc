//! What a decision reads, gathered from the processor; the permission maps are looked up in simulated memory, in place.

use super::{Maps, Running};
use crate::bitmap::PermissionMaps;
use crate::decide::State;
use rootmode_cpu::Cpu;
use rootmode_mmu::PhysicalMemory;

/// The permission maps of the running guest, in memory.
pub(super) struct MemoryMaps<'a> {
    pub(super) memory: &'a PhysicalMemory,
    pub(super) maps: Maps,
}

impl PermissionMaps for MemoryMaps<'_> {
    fn msrpm(&self, bit: u32) -> bool {
        self.memory.read_u8(self.maps.msrpm.offset(u64::from(bit / 8))) >> (bit % 8) & 1 != 0
    }
    fn iopm(&self, bit: u32) -> bool {
        self.memory.read_u8(self.maps.iopm.offset(u64::from(bit / 8))) >> (bit % 8) & 1 != 0
    }
}

/// The processor as decisions see it now.
pub(super) fn state(running: &Running, cpu: &Cpu, memory: &PhysicalMemory) -> State {
    let requests = running.avic.is_some_and(|avic| avic.has_requests(memory));
    State {
        cr0: cpu.cr0,
        rflags: cpu.rflags(),
        next_rip: cpu.rip.wrapping_add(cpu.current.length.into()),
        address_size: if cpu.is_64_bit() { 8 } else { 4 },
        pause: running.pause,
        ipi: running.avic.map_or_else(Default::default, |avic| avic.ipi),
        bus_lock_counter: running.bus_locks,
        virtual_interrupt_pending: running.is_interrupt_pending() || requests,
        ..State::default()
    }
}
