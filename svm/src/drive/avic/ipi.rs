//! Interrupt commands of a guest with AVIC: whom they are meant for, and what is in the way
//! (APM Vol. 2 (24593 rev. 3.43) "Interprocessor Interrupts", "AVIC IPI Delivery Not Completed", "x2AVIC").

use super::{Avic, PAGE};
use crate::Processor;
use crate::decide::IpiOutcome;
use crate::encode::IpiFailure;
use rootmode_arch::HostPhysical;
use rootmode_cpu::apic::{ApicPage as _, MemoryPage, register};
use rootmode_mmu::PhysicalMemory;

/// Of an entry of the physical APIC ID table.
const VALID: u64 = 1 << 63;
const IS_RUNNING: u64 = 1 << 62;
const HOST_APIC_ID: u64 = 0xfff;
/// Of an entry of the logical APIC ID table.
const LOGICAL_VALID: u32 = 1 << 31;
/// Shorthands, bits 19:18 of a command.
const ITSELF: u64 = 1;
const OTHERS: u64 = 3;

/// A processor that a command names.
#[derive(Clone, Copy)]
struct Target {
    /// What an exit calls it: the index of the logical table's entry if that led to it, else of the physical table's.
    index: u32,
    /// Its guest physical APIC ID.
    id: u32,
}

/// Why a command cannot be completed: the cause and the index of the entry that is in the way.
type Obstacle = (IpiFailure, u32);

/// What a command leads to.
pub(super) struct Sent {
    pub(super) outcome: IpiOutcome,
    /// Host APIC IDs of the processors to be told.
    pub(super) doorbells: Vec<u32>,
}

impl Avic {
    fn own_id(&self, memory: &PhysicalMemory) -> u32 {
        let id = self.get(memory, register::ID);
        if self.x2 { id } else { id >> 24 }
    }

    fn entry(&self, memory: &PhysicalMemory, id: u32) -> u64 {
        memory.read_u64(self.physical.offset(u64::from(id) * 8))
    }

    /// Everybody whom the physical table knows: entries that are not valid are ignored.
    fn all(&self, memory: &PhysicalMemory) -> Vec<Target> {
        // In xAPIC mode 0xff is the broadcast, not an APIC.
        let last = if self.x2 { self.last } else { self.last.min(0xfe) };
        let valid = (0..=last).filter(|id| self.entry(memory, *id) & VALID != 0);
        valid.map(|id| Target { index: id, id }).collect()
    }

    /// The targets of a command that is not to the sender alone.
    fn targets(&self, memory: &PhysicalMemory, icr: u64) -> Result<Vec<Target>, Obstacle> {
        let destination = if self.x2 { (icr >> 32) as u32 } else { (icr >> 56) as u32 };
        let broadcast = destination == if self.x2 { u32::MAX } else { 0xff };
        let shorthand = icr >> 18 & 3;
        if shorthand != 0 || broadcast {
            let mut all = self.all(memory);
            if shorthand == OTHERS {
                let own = self.own_id(memory);
                all.retain(|target| target.id != own);
            }
            return Ok(all);
        }
        if icr & 1 << 11 == 0 {
            return Ok(vec![Target { index: destination, id: destination }]);
        }
        if self.x2 {
            // The logical ID follows from the x2APIC ID: a cluster of sixteen.
            let members = (0..16).filter(|bit| destination >> bit & 1 != 0);
            let ids = members.map(|bit| destination >> 16 << 4 | bit);
            return Ok(ids.map(|id| Target { index: id, id }).collect());
        }
        // Flat: eight bits; cluster: the bits of four of the table's entries.
        let flat = self.get(memory, register::DFR) >> 28 == 0xf;
        let (first, bits) = if flat { (0, destination) } else { ((destination >> 4) * 4, destination & 0xf) };
        let indices = (0..8).filter(|bit| bits >> bit & 1 != 0).map(|bit| first + bit);
        indices
            .map(|index| {
                let entry = memory.read_u32(self.logical.offset(u64::from(index) * 4));
                if entry & LOGICAL_VALID == 0 {
                    return Err((IpiFailure::InvalidTarget, index));
                }
                Ok(Target { index, id: entry & 0xff })
            })
            .collect()
    }

    /// The backing pages of a command's targets, each with its entry: all of them, or nobody gets the request.
    fn pages(
        &self,
        memory: &PhysicalMemory,
        processor: &Processor,
        icr: u64,
    ) -> Result<Vec<(Target, u64)>, Obstacle> {
        let check = |target: Target| {
            if target.id > self.last {
                return Err((IpiFailure::InvalidTarget, target.index));
            }
            let entry = self.entry(memory, target.id);
            if entry & VALID == 0 {
                return Err((IpiFailure::InvalidTarget, target.index));
            }
            if entry & PAGE >= processor.physical_limit() {
                return Err((IpiFailure::InvalidBackingPage, target.index));
            }
            Ok((target, entry))
        };
        self.targets(memory, icr)?.into_iter().map(check).collect()
    }

    /// Requests the interrupt of command `icr` of every target.
    pub(super) fn command(&mut self, memory: &mut PhysicalMemory, processor: &Processor, icr: u64) -> Sent {
        let ended = |failure: Option<Obstacle>, doorbells| {
            let index = failure.map_or(0, |(_, index)| index as u16);
            Sent { outcome: IpiOutcome { icr, failure: failure.map(|(cause, _)| cause), index }, doorbells }
        };
        let (vector, mode, level) = (icr as u8, icr >> 8 & 7, icr >> 15 & 1);
        if mode != 0 || level != 0 {
            return ended(Some((IpiFailure::InvalidType, 0)), Vec::new());
        }
        if vector < 16 {
            return ended(Some((IpiFailure::InvalidVector, 0)), Vec::new());
        }
        if icr >> 18 & 3 == ITSELF {
            self.registers(memory).put(register::IRR, vector, true);
            self.told = true;
            return ended(None, Vec::new());
        }
        let pages = match self.pages(memory, processor, icr) {
            Ok(pages) => pages,
            Err(obstacle) => return ended(Some(obstacle), Vec::new()),
        };
        let (mut failure, mut doorbells) = (None, Vec::new());
        for (target, entry) in pages {
            MemoryPage::new(memory, HostPhysical(entry & PAGE)).put(register::IRR, vector, true);
            if entry & IS_RUNNING == 0 {
                failure = failure.or(Some((IpiFailure::TargetNotRunning, target.index)));
            } else {
                doorbells.push((entry & HOST_APIC_ID) as u32);
            }
        }
        ended(failure, doorbells)
    }
}
