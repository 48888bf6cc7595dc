//! AVIC: the guest's APIC is its backing page, whose registers the processor acts on
//! (APM Vol. 2 (24593 rev. 3.43) "Advanced Virtual Interrupt Controller").
//!
//! Tables and backing pages are looked at in memory when they are needed. A doorbell has nothing to do: every boundary of a
//! guest with AVIC looks at its requests.

use super::{Running, Svm, gates, view};
use crate::decide::{ApicBehaviour, IpiOutcome, View, apic_behaviour, decide};
use crate::encode::IpiFailure;
use crate::vmcb::Field;
use crate::{Processor, Vmcb};
use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{Event, GuestPhysical, HostPhysical, RFlags, Reaction};
use rootmode_cpu::apic::{ApicPage as _, MemoryPage, register};
use rootmode_cpu::{Context, Cpu, DeliveryKind};
use rootmode_mmu::{Digest, PhysicalMemory};

/// Bits of a pointer to a page.
const PAGE: u64 = 0x000f_ffff_ffff_f000;
/// Of an entry of the physical APIC ID table.
const VALID: u64 = 1 << 63;
const IS_RUNNING: u64 = 1 << 62;
/// Of an entry of the logical APIC ID table.
const LOGICAL_VALID: u32 = 1 << 31;

/// AVIC of the guest that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avic {
    bar: GuestPhysical,
    pub(super) page: HostPhysical,
    physical: HostPhysical,
    logical: HostPhysical,
    /// The greatest index of the physical table.
    last: u64,
    /// A register that the instruction in progress has written.
    written: Option<u16>,
    /// What became of the last interrupt command.
    pub(super) ipi: IpiOutcome,
}

impl Avic {
    /// As `vmcb` sets it up.
    pub(super) fn of(vmcb: &Vmcb) -> Self {
        let value = |field| vmcb.get(field).unwrap_or(0);
        let page = |field| HostPhysical(value(field) & PAGE);
        Self {
            bar: GuestPhysical(value(Field::AvicApicBar) & PAGE),
            page: page(Field::AvicBackingPage),
            physical: page(Field::AvicPhysicalTable),
            logical: page(Field::AvicLogicalTable),
            last: value(Field::AvicPhysicalTable) & 0xfff,
            written: None,
            ipi: IpiOutcome::default(),
        }
    }

    /// Adds what is not in memory to `digest`.
    pub(super) fn digest(&self, digest: &mut Digest) {
        let pointers = [self.bar.0, self.page.0, self.physical.0, self.logical.0, self.last];
        digest.all(&pointers);
        digest.u64(self.written.map_or(0, |offset| 1 << 16 | u64::from(offset)));
    }

    pub(super) fn get(&self, memory: &PhysicalMemory, offset: u16) -> u32 {
        memory.read_u32(self.page.offset(offset.into()))
    }
    /// The backing page.
    fn registers<'a>(&self, memory: &'a mut PhysicalMemory) -> MemoryPage<'a> {
        MemoryPage::new(memory, self.page)
    }
    /// The processor priority, which the PPR register shows.
    fn priority(&self, memory: &mut PhysicalMemory) -> u8 {
        let mut page = self.registers(memory);
        let priority = page.processor_priority();
        if page.get(register::PPR) != priority.into() {
            page.set(register::PPR, priority.into());
        }
        priority
    }
    /// The requested interrupt that passes the processor priority.
    pub(super) fn pending(&self, memory: &mut PhysicalMemory) -> Option<u8> {
        let priority = self.priority(memory);
        self.registers(memory).highest(register::IRR).filter(|vector| vector & 0xf0 > priority & 0xf0)
    }
    /// Takes `vector` into service.
    fn accept(&self, memory: &mut PhysicalMemory, vector: u8) {
        let mut page = self.registers(memory);
        page.put(register::IRR, vector, false);
        page.put(register::ISR, vector, true);
        self.priority(memory);
    }

    /// "IPI Virtualization": the targets of a command, as indices of the physical table, or the entry that is in the way.
    fn targets(&self, memory: &PhysicalMemory, icr: u64) -> Result<Vec<u16>, (IpiFailure, u16)> {
        let own = (self.get(memory, register::ID) >> 24) as u16;
        let destination = (icr >> 56) as u16;
        let all = || 0..=self.last.min(255) as u16;
        let valid = |id: &u16| memory.read_u64(self.entry(*id)) & VALID != 0;
        match (icr >> 18 & 3, icr >> 11 & 1) {
            (1, _) => Ok(vec![own]),
            (2, _) => Ok(all().filter(valid).collect()),
            (3, _) => Ok(all().filter(valid).filter(|id| *id != own).collect()),
            (_, 0) if destination == 0xff => Ok(all().filter(valid).collect()),
            (_, 0) => Ok(vec![destination]),
            _ => {
                // Flat: eight bits; cluster: four clusters bits of 15 clusters.
                let flat = self.get(memory, register::DFR) >> 28 == 0xf;
                let (first, bits) =
                    if flat { (0, destination) } else { ((destination >> 4) * 4, destination & 0xf) };
                let indices = (0..8).filter(|bit| bits >> bit & 1 != 0).map(|bit| first + bit);
                indices
                    .map(|index| {
                        let entry = memory.read_u32(self.logical.offset(u64::from(index) * 4));
                        if entry & LOGICAL_VALID == 0 {
                            return Err((IpiFailure::InvalidTarget, index));
                        }
                        Ok((entry & 0xff) as u16)
                    })
                    .collect()
            }
        }
    }

    fn entry(&self, id: u16) -> HostPhysical {
        self.physical.offset(u64::from(id) * 8)
    }

    /// Requests the interrupt of command `icr` of every target.
    fn command(&self, memory: &mut PhysicalMemory, processor: &Processor, icr: u64) -> IpiOutcome {
        let outcome = |failure, index| IpiOutcome { icr, failure, index };
        let (vector, mode, level) = (icr as u8, icr >> 8 & 7, icr >> 15 & 1);
        if mode != 0 || level != 0 {
            return outcome(Some(IpiFailure::InvalidType), 0);
        }
        if vector < 16 {
            return outcome(Some(IpiFailure::InvalidVector), 0);
        }
        let targets = match self.targets(memory, icr) {
            Ok(targets) => targets,
            Err((failure, index)) => return outcome(Some(failure), index),
        };
        let mut pages = Vec::with_capacity(targets.len());
        for id in targets {
            let entry = memory.read_u64(self.entry(id));
            if u64::from(id) > self.last || entry & VALID == 0 {
                return outcome(Some(IpiFailure::InvalidTarget), id);
            }
            if entry & PAGE >= processor.physical_limit() {
                return outcome(Some(IpiFailure::InvalidBackingPage), id);
            }
            pages.push((id, entry));
        }
        let mut failure = None;
        for (id, entry) in pages {
            MemoryPage::new(memory, HostPhysical(entry & PAGE)).put(register::IRR, vector, true);
            if entry & IS_RUNNING == 0 {
                failure = failure.or(Some(id));
            }
        }
        outcome(failure.map(|_| IpiFailure::TargetNotRunning), failure.unwrap_or(0))
    }
}

impl Running {
    /// An access to the backing page that does not exit. Registers that do something are acted on when the instruction is
    /// complete.
    pub(super) fn note_apic_access(&mut self, access: &GuestPhysicalAccess) {
        let extended = self.controls.traits.extended_lvt;
        let Some(avic) = &mut self.avic else { return };
        let offset = access.address.page_offset() as u16;
        // The read of a read-modify-write has not written yet.
        let acts =
            matches!(apic_behaviour(offset, true, extended), ApicBehaviour::Accelerate | ApicBehaviour::Trap);
        if access.write && !access.read && acts {
            avic.written = Some(offset & 0xff0);
        }
    }

    /// Whether the access is to the guest's APIC rather than to another mapping of its backing page.
    pub(super) fn is_apic(&self, access: &GuestPhysicalAccess) -> bool {
        self.avic.as_ref().is_some_and(|avic| access.address.page_base() == avic.bar)
    }
}

impl Svm {
    /// Acts on the register that the last instruction wrote; between instructions, so that exits are traps.
    pub(super) fn act_on_apic_write(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) -> Reaction {
        let Some(running) = &mut self.running else { return Reaction::Proceed };
        let Some(avic) = &mut running.avic else { return Reaction::Proceed };
        let tpr = avic.get(ctx.memory, register::TPR) as u8;
        let written = avic.written.take();
        if written == Some(register::TPR) {
            cpu.published.virtual_tpr = Some(tpr >> 4);
        } else if let Some(priority) = cpu.published.virtual_tpr
            && priority != tpr >> 4
        {
            // MOV to CR8 writes the task priority.
            avic.registers(ctx.memory).set(register::TPR, u32::from(priority) << 4);
        }
        let event = match written {
            None | Some(register::TPR) => return Reaction::Proceed,
            Some(register::EOI) => {
                let mut page = avic.registers(ctx.memory);
                let Some(vector) = page.highest(register::ISR) else { return Reaction::Proceed };
                page.put(register::ISR, vector, false);
                if !page.contains(register::TMR, vector) {
                    return Reaction::Proceed;
                }
                Event::VirtualizedEoi { vector }
            }
            Some(register::ICR) => {
                let high = u64::from(avic.get(ctx.memory, register::ICR_HIGH)) << 32;
                let icr = high | u64::from(avic.get(ctx.memory, register::ICR));
                avic.ipi = avic.command(ctx.memory, &self.processor, icr);
                Event::ApicWrite { offset: register::ICR }
            }
            Some(offset) => Event::ApicWrite { offset },
        };
        let state = view::state(running, cpu);
        let maps = view::MemoryMaps { memory: ctx.memory, maps: running.maps };
        let view = View { controls: &running.controls, state: &state, maps: &maps };
        let Some(exit) = decide(&view, &event) else { return Reaction::Proceed };
        self.leave(cpu, ctx, &exit, None);
        Reaction::Exit
    }

    /// Lets the interrupt in that the backing page requests.
    pub(super) fn deliver_from_backing_page(&self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        let Some(avic) = self.running.as_ref().and_then(|running| running.avic) else { return };
        if cpu.rflags().contains(RFlags::IF)
            && let Some(vector) = avic.pending(ctx.memory)
        {
            avic.accept(ctx.memory, vector);
            gates::inject(cpu, DeliveryKind::External, vector);
        }
    }
}
