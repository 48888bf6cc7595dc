//! AVIC: the guest's APIC is its backing page, whose registers the processor acts on
//! (APM Vol. 2 (24593 rev. 3.43) "Advanced Virtual Interrupt Controller", "x2AVIC").
//!
//! The guest reaches the page through its APIC's guest-physical page, whatever nested paging puts there, or through the
//! x2APIC MSRs. Tables and pages are looked at in memory when they are needed. Requests are looked at when the processor has
//! a reason to: at VMRUN, after a doorbell, and when the guest itself changed its priority or its requests.

mod ipi;

use super::{Running, Svm, gates, view};
use crate::Vmcb;
use crate::decide::{ApicBehaviour, Controls, IpiOutcome, View, apic_behaviour, decide};
use crate::vmcb::Field;
use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{Event, EventClass, GuestPhysical, HostPhysical, RFlags, Reaction, vector};
use rootmode_cpu::apic::{ApicPage as _, MemoryPage, register, x2apic_register};
use rootmode_cpu::{ApicWindow, Context, Cpu, DeliveryKind};
use rootmode_mmu::{Digest, PhysicalMemory};

/// Bits of a pointer to a page.
const PAGE: u64 = 0x000f_ffff_ffff_f000;
/// ICR's shorthand "self", which a write to SELF_IPI stands for.
const TO_ITSELF: u64 = 1 << 18;

/// AVIC of the guest that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avic {
    /// The guest's APIC is in x2APIC mode.
    x2: bool,
    bar: GuestPhysical,
    page: HostPhysical,
    physical: HostPhysical,
    logical: HostPhysical,
    /// The greatest index of the physical table.
    last: u32,
    /// A register that the instruction in progress has written.
    written: Option<u16>,
    /// The instruction in progress writes CR8.
    writes_cr8: bool,
    /// The requests have to be looked at.
    pub(super) told: bool,
    /// What became of the last interrupt command.
    pub(super) ipi: IpiOutcome,
}

/// The events that AVIC virtualizes beyond those that exit.
pub(super) const fn virtualized(controls: &Controls) -> &'static [EventClass] {
    match (controls.is_avic(), controls.is_x2avic()) {
        (false, _) => &[],
        (true, false) => &[EventClass::CrWrite],
        (true, true) => &[EventClass::CrWrite, EventClass::Rdmsr, EventClass::Wrmsr],
    }
}

impl Avic {
    /// As `vmcb` sets it up.
    pub(super) fn of(vmcb: &Vmcb, controls: &Controls) -> Self {
        let value = |field| vmcb.get(field).unwrap_or(0);
        let page = |field| HostPhysical(value(field) & PAGE);
        Self {
            x2: controls.is_x2avic(),
            bar: GuestPhysical(value(Field::AvicApicBar) & PAGE),
            page: page(Field::AvicBackingPage),
            physical: page(Field::AvicPhysicalTable),
            logical: page(Field::AvicLogicalTable),
            last: (value(Field::AvicPhysicalTable) & 0xfff) as u32,
            written: None,
            writes_cr8: false,
            // "Additional VMRUN Handling": requests are looked at on the way in.
            told: true,
            ipi: IpiOutcome::default(),
        }
    }

    /// Adds what is not in memory to `digest`.
    pub(super) fn digest(&self, digest: &mut Digest) {
        let pointers = [self.bar.0, self.page.0, self.physical.0, self.logical.0, self.last.into()];
        digest.all(&pointers);
        let written = self.written.map_or(0, |offset| 1 << 16 | u64::from(offset));
        let flags = [self.x2, self.writes_cr8, self.told].map(u64::from);
        digest.u64(written | flags[0] << 17 | flags[1] << 18 | flags[2] << 19);
    }

    /// Where the guest's accesses are its APIC's.
    pub(super) fn window(&self) -> Option<ApicWindow> {
        (!self.x2).then_some(ApicWindow::Guest(self.bar))
    }
    /// Whether the next boundary has something to do.
    pub(super) const fn has_work(&self) -> bool {
        self.written.is_some() || self.writes_cr8
    }
    /// The guest writes CR8, or tries to.
    pub(super) const fn note_cr8(&mut self) {
        self.writes_cr8 = true;
    }

    pub(super) fn get(&self, memory: &PhysicalMemory, offset: u16) -> u32 {
        memory.read_u32(self.page.offset(offset.into()))
    }
    /// Whether any interrupt is requested.
    pub(super) fn has_requests(&self, memory: &PhysicalMemory) -> bool {
        (0..8).any(|word| self.get(memory, register::IRR + word * 16) != 0)
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
    fn pending(&self, memory: &mut PhysicalMemory) -> Option<u8> {
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

    /// The command that the last write to `register` gives.
    fn written_command(&self, memory: &PhysicalMemory, register: u16) -> u64 {
        if register == register::SELF_IPI {
            return TO_ITSELF | u64::from(self.get(memory, register) & 0xff);
        }
        let high = u64::from(self.get(memory, register::ICR_HIGH)) << 32;
        high | u64::from(self.get(memory, register::ICR))
    }

    /// A write to `register` that has reached the page. Registers that do something are acted on when the instruction is
    /// complete.
    fn note_write(&mut self, register: u16, controls: &Controls) {
        let behaviour = apic_behaviour(register, true, controls.traits.extended_lvt);
        let acts = matches!(behaviour, ApicBehaviour::Accelerate | ApicBehaviour::Trap);
        if acts || self.x2 && register == register::SELF_IPI {
            self.written = Some(register);
        }
    }
}

impl Running {
    /// An access to the guest's APIC that does not exit: where it goes instead.
    pub(super) fn reach_backing_page(&mut self, access: &GuestPhysicalAccess) -> Reaction {
        let Some(avic) = &mut self.avic else { return Reaction::Proceed };
        let offset = access.address.page_offset();
        // The read of a read-modify-write has not written yet.
        if access.write && !access.read {
            avic.note_write(offset as u16 & 0xff0, &self.controls);
        }
        Reaction::Done(avic.page.offset(offset).0)
    }
}

impl Svm {
    /// RDMSR or WRMSR (of `written`) of the x2APIC range in a guest with x2AVIC, behind the MSR intercept: what the register
    /// does not accept goes before AVIC's permissions.
    pub(super) fn reach_by_msr(
        &mut self,
        cpu: &mut Cpu,
        ctx: &mut Context<'_>,
        index: u32,
        written: Option<u64>,
    ) -> Reaction {
        let Ok(register) = x2apic_register(cpu.apic.abilities(), index, written) else {
            return Reaction::Exception(vector::GP, 0);
        };
        let (read, write) = (written.is_none(), written.is_some());
        let address = GuestPhysical(register.into());
        let access = GuestPhysicalAccess { address, read, write, ..Default::default() };
        let event = Event::ApicAccess { access, size: 8, in_delivery: false };
        match self.leave_for(cpu, ctx, &event) {
            Reaction::Proceed => {}
            reaction => return reaction,
        }
        let Some(running) = &mut self.running else { return Reaction::Proceed };
        let Some(avic) = &mut running.avic else { return Reaction::Proceed };
        let mut page = avic.registers(ctx.memory);
        let wide = register == register::ICR;
        let Some(value) = written else {
            let high = if wide { u64::from(page.get(register::ICR_HIGH)) << 32 } else { 0 };
            return Reaction::Done(high | u64::from(page.get(register)));
        };
        if wide {
            page.set(register::ICR_HIGH, (value >> 32) as u32);
        }
        page.set(register, value as u32);
        avic.note_write(register, &running.controls);
        self.follow_boundary(cpu);
        Reaction::Done(0)
    }

    /// Exits if `event`, which is AVIC's own, does.
    fn leave_for(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, event: &Event) -> Reaction {
        let Some(running) = &self.running else { return Reaction::Proceed };
        let state = view::state(running, cpu, ctx.memory);
        let maps = view::MemoryMaps { memory: ctx.memory, maps: running.maps };
        let view = View { controls: &running.controls, state: &state, maps: &maps };
        let Some(exit) = decide(&view, event) else { return Reaction::Proceed };
        if let Some(reaction) = running.instead_of(cpu, &exit, None) {
            return reaction;
        }
        self.leave(cpu, ctx, &exit, None);
        Reaction::Exit
    }

    /// Acts on the register that the last instruction wrote; between instructions, so that exits are traps.
    pub(super) fn act_on_apic_write(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) -> Reaction {
        let Some(running) = &mut self.running else { return Reaction::Proceed };
        let Some(avic) = &mut running.avic else { return Reaction::Proceed };
        let written = avic.written.take();
        if std::mem::take(&mut avic.writes_cr8)
            && let Some(priority) = cpu.published.virtual_tpr
        {
            avic.registers(ctx.memory).set(register::TPR, u32::from(priority) << 4);
            avic.told = true;
        }
        let event = match written {
            None => None,
            Some(register::TPR) => {
                cpu.published.virtual_tpr = Some((avic.get(ctx.memory, register::TPR) >> 4 & 15) as u8);
                avic.told = true;
                None
            }
            Some(register::EOI) => {
                avic.told = true;
                let mut page = avic.registers(ctx.memory);
                page.highest(register::ISR).and_then(|vector| {
                    page.put(register::ISR, vector, false);
                    page.contains(register::TMR, vector).then_some(Event::VirtualizedEoi { vector })
                })
            }
            Some(register @ (register::ICR | register::SELF_IPI)) => {
                let icr = avic.written_command(ctx.memory, register);
                let sent = avic.command(ctx.memory, &self.processor, icr);
                avic.ipi = sent.outcome;
                for id in sent.doorbells {
                    cpu.ring_doorbell(id);
                }
                Some(Event::ApicWrite { offset: register::ICR })
            }
            Some(offset) => Some(Event::ApicWrite { offset }),
        };
        if avic.told {
            avic.priority(ctx.memory);
        }
        match event {
            Some(event) => self.leave_for(cpu, ctx, &event),
            None => Reaction::Proceed,
        }
    }

    /// Looks at the backing page's requests, if there is a reason, and lets the highest in.
    pub(super) fn deliver_from_backing_page(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        let Some(avic) = self.running.as_mut().and_then(|running| running.avic.as_mut()) else { return };
        if !avic.told {
            return;
        }
        match avic.pending(ctx.memory) {
            None => avic.told = false,
            Some(vector) if cpu.rflags().contains(RFlags::IF) => {
                avic.accept(ctx.memory, vector);
                gates::inject(cpu, DeliveryKind::External, vector);
            }
            Some(_) => {}
        }
    }
}
