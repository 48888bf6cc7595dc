//! APIC virtualization: what the processor does with the virtual-APIC page, and with interrupts that are posted to it
//! (SDM Vol. 3C (325384-083, Mar 2024), chapter "APIC Virtualization and Virtual Interrupts").

use super::Vmx;
use crate::decide::{Controls, Processor, apic_access_is_virtualized};
use crate::{Field, PinControls, PrimaryControls, SecondaryControls, TertiaryControls};
use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{Event, HostPhysical, RFlags, Reaction, msr, vector};
use rootmode_cpu::apic::{ApicPage as _, MemoryPage, Mode, register};
use rootmode_cpu::{Context, Cpu, Delivery, DeliveryKind};
use rootmode_mmu::{Digest, PhysicalMemory};

/// The APIC virtualization that is under way while a guest runs. Everything else is in the VMCS and on the virtual-APIC page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Virtual {
    /// A virtual interrupt is recognized, and delivered as soon as the guest can take it.
    pub(super) recognized: bool,
    /// A write to the APIC-access page that the operation in progress had virtualized: offset and bytes. It is emulated when
    /// the operation is complete.
    pub(super) written: Option<(u16, u8)>,
    /// The trap-like exit that is due.
    pub(super) trap: Option<Event>,
}

impl Virtual {
    /// Adds the state to `digest`.
    pub(super) fn digest(&self, digest: &mut Digest) {
        let written =
            self.written.map_or(0, |(offset, size)| 1 << 32 | u64::from(offset) << 8 | u64::from(size));
        let trap = match self.trap {
            None => 0,
            Some(Event::ApicWrite { offset }) => 1 << 16 | u64::from(offset),
            Some(Event::VirtualizedEoi { vector }) => 2 << 16 | u64::from(vector),
            Some(_) => 3 << 16,
        };
        digest.all(&[self.recognized.into(), written, trap]);
    }
}

/// What of an interrupt command allows self-IPI virtualization: fixed, edge, nothing reserved, and the self shorthand.
const SELF_IPI_MASK: u32 = 0xffff_b700;
const SELF_IPI: u32 = 1 << 18;
/// What allows IPI virtualization: physical destination, no shorthand, fixed, edge, nothing reserved.
const IPI_MASK: u32 = SELF_IPI_MASK | 1 << 11;

impl Controls {
    pub(super) fn delivers_virtual_interrupts(&self) -> bool {
        self.has_secondary(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY)
    }
    fn virtualizes_ipis(&self) -> bool {
        self.primary.contains(PrimaryControls::ACTIVATE_TERTIARY)
            && self.tertiary.contains(TertiaryControls::IPI_VIRTUALIZATION)
    }
    /// Bits 7:0 of the notification vector, if posted interrupts are processed.
    fn notification(&self) -> Option<u8> {
        let posted = self.pin.contains(PinControls::POSTED_INTERRUPTS);
        posted.then_some(self.posted_interrupt_vector as u8)
    }
}

impl Vmx {
    fn virtual_page(&self) -> HostPhysical {
        HostPhysical(self.vmcs.value(Field::VirtualApicAddress))
    }

    /// The virtual-APIC page.
    fn page<'a>(&self, ctx: &'a mut Context<'_>) -> MemoryPage<'a> {
        MemoryPage::new(ctx.memory, self.virtual_page())
    }

    fn apic_register(&self, memory: &PhysicalMemory, offset: u16) -> u32 {
        memory.read_u32(self.virtual_page().offset(offset.into()))
    }

    /// VTPR; 0 without a TPR shadow.
    pub(super) fn virtual_tpr(&self, memory: &PhysicalMemory) -> u8 {
        if self.controls.primary.contains(PrimaryControls::USE_TPR_SHADOW) {
            self.apic_register(memory, register::TPR) as u8
        } else {
            0
        }
    }

    /// RVI and SVI.
    fn interrupt_status(&self) -> [u8; 2] {
        (self.vmcs.value(Field::GuestInterruptStatus) as u16).to_le_bytes()
    }

    fn set_interrupt_status(&mut self, ctx: &mut Context<'_>, [rvi, svi]: [u8; 2]) {
        self.write(ctx, Field::GuestInterruptStatus, u16::from_le_bytes([rvi, svi]).into());
    }

    /// What of APIC virtualization a VM entry does.
    pub(super) fn start_virtual_apic(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        self.apic = Virtual::default();
        if self.controls.delivers_virtual_interrupts() {
            self.virtualize_ppr(ctx);
            self.evaluate(cpu, ctx.memory);
        } else if self.controls.has_secondary(SecondaryControls::VIRTUALIZE_APIC_ACCESSES) {
            // Without "virtualize APIC accesses" the threshold was checked against VTPR.
            self.compare_with_threshold(cpu, ctx.memory);
        }
    }

    /// The core asks at boundaries from now on, as long as something is due.
    pub(super) fn rearm(&self, cpu: &mut Cpu) {
        cpu.published.boundary = self.wants_boundaries();
        cpu.update_attention();
    }

    fn trap(&mut self, cpu: &mut Cpu, event: Event) {
        self.apic.trap = Some(event);
        self.rearm(cpu);
    }

    fn compare_with_threshold(&mut self, cpu: &mut Cpu, memory: &PhysicalMemory) {
        let below = self.virtual_tpr(memory) >> 4 < (self.controls.tpr_threshold & 15) as u8;
        if below && self.controls.primary.contains(PrimaryControls::USE_TPR_SHADOW) {
            self.trap(cpu, Event::TprBelowThreshold);
        }
    }

    /// "TPR Virtualization".
    fn virtualize_tpr(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        if self.controls.delivers_virtual_interrupts() {
            self.virtualize_ppr(ctx);
            self.evaluate(cpu, ctx.memory);
        } else {
            self.compare_with_threshold(cpu, ctx.memory);
        }
    }

    /// "PPR Virtualization".
    fn virtualize_ppr(&self, ctx: &mut Context<'_>) {
        let [_, svi] = self.interrupt_status();
        let tpr = self.virtual_tpr(ctx.memory);
        let ppr = if tpr >> 4 >= svi >> 4 { tpr } else { svi & 0xf0 };
        self.page(ctx).set(register::PPR, ppr.into());
    }

    /// "EOI Virtualization".
    fn virtualize_eoi(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        let [rvi, ended] = self.interrupt_status();
        self.page(ctx).put(register::ISR, ended, false);
        let svi = self.page(ctx).highest(register::ISR).unwrap_or(0);
        self.set_interrupt_status(ctx, [rvi, svi]);
        self.virtualize_ppr(ctx);
        let exits = self.controls.eoi_exit_bitmap[usize::from(ended >> 6)] >> (ended & 63) & 1 != 0;
        if exits {
            self.trap(cpu, Event::VirtualizedEoi { vector: ended });
        } else {
            self.evaluate(cpu, ctx.memory);
        }
    }

    /// "Self-IPI Virtualization".
    fn virtualize_self_ipi(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, vector: u8) {
        self.page(ctx).put(register::IRR, vector, true);
        let [rvi, svi] = self.interrupt_status();
        self.set_interrupt_status(ctx, [rvi.max(vector), svi]);
        self.evaluate(cpu, ctx.memory);
    }

    /// "Evaluation of Pending Virtual Interrupts".
    fn evaluate(&mut self, cpu: &mut Cpu, memory: &PhysicalMemory) {
        let [rvi, _] = self.interrupt_status();
        let priority = self.apic_register(memory, register::PPR) as u8;
        let window = self.controls.primary.contains(PrimaryControls::INTERRUPT_WINDOW_EXITING);
        self.apic.recognized = !window && rvi >> 4 > priority >> 4;
        self.rearm(cpu);
    }

    /// "Virtual-Interrupt Delivery": hands a recognized interrupt to the core if the guest can take it.
    pub(super) fn deliver_virtual_interrupt(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        let awake = cpu.activity.is_awake();
        let open = cpu.rflags().contains(RFlags::IF) && !cpu.sti_shadow && !cpu.mov_ss_shadow;
        if !self.apic.recognized || !awake || !open {
            return;
        }
        let [vector, _] = self.interrupt_status();
        self.page(ctx).put(register::ISR, vector, true);
        self.page(ctx).set(register::PPR, (vector & 0xf0).into());
        self.page(ctx).put(register::IRR, vector, false);
        let rvi = self.page(ctx).highest(register::IRR).unwrap_or(0);
        self.set_interrupt_status(ctx, [rvi, vector]);
        self.apic.recognized = false;
        cpu.injected = Some(Delivery::interruption(DeliveryKind::External, vector));
        self.rearm(cpu);
    }

    /// "APIC-Write Emulation", when the operation that wrote is complete.
    pub(super) fn emulate_apic_write(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        let Some((offset, _)) = self.apic.written.take() else { return };
        let delivers = self.controls.delivers_virtual_interrupts();
        match offset & 0xff0 {
            register::TPR => {
                let tpr = self.apic_register(ctx.memory, register::TPR);
                self.page(ctx).set(register::TPR, tpr & 0xff);
                self.virtualize_tpr(cpu, ctx);
            }
            register::EOI if delivers => {
                self.page(ctx).set(register::EOI, 0);
                self.virtualize_eoi(cpu, ctx);
            }
            register::ICR_HIGH => {
                let high = self.apic_register(ctx.memory, register::ICR_HIGH);
                self.page(ctx).set(register::ICR_HIGH, high & 0xff00_0000);
            }
            register::ICR => {
                let low = self.apic_register(ctx.memory, register::ICR);
                let target = self.apic_register(ctx.memory, register::ICR_HIGH) >> 24;
                self.command(cpu, ctx, (low, target), offset);
            }
            _ => self.trap(cpu, Event::ApicWrite { offset }),
        }
    }

    /// An interrupt command was written: an interrupt to itself or to another virtual processor, or an APIC-write exit.
    fn command(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, (low, target): (u32, u32), offset: u16) {
        let fixed = low & 0xf0 != 0;
        let to_itself = low & SELF_IPI_MASK == SELF_IPI && self.controls.delivers_virtual_interrupts();
        let to_another = low & IPI_MASK == 0 && self.controls.virtualizes_ipis();
        if fixed && to_itself {
            self.virtualize_self_ipi(cpu, ctx, low as u8);
        } else if !(fixed && to_another && self.virtualize_ipi(cpu, ctx, low as u8, target)) {
            self.trap(cpu, Event::ApicWrite { offset });
        }
    }

    /// "IPI Virtualization": posts `vector` to the virtual processor `target`. False if its descriptor is not to be had.
    fn virtualize_ipi(&self, cpu: &mut Cpu, ctx: &mut Context<'_>, vector: u8, target: u32) -> bool {
        if u64::from(target) > self.vmcs.value(Field::LastPidPointerIndex) {
            return false;
        }
        let table = HostPhysical(self.vmcs.value(Field::PidPointerTable));
        let pointer = ctx.memory.read_u64(table.offset(8 * u64::from(target)));
        // Valid in bit 0; the descriptor has 64 bytes.
        if pointer & 0x3f != 1 || pointer >> cpu.model.physical_width() != 0 {
            return false;
        }
        let descriptor = HostPhysical(pointer & !1);
        let word = descriptor.offset(u64::from(vector >> 5) * 4);
        ctx.memory.write_u32(word, ctx.memory.read_u32(word) | 1 << (vector & 31));
        let control = ctx.memory.read_u64(descriptor.offset(CONTROL));
        if control & (OUTSTANDING | SUPPRESS) == 0 {
            ctx.memory.write_u64(descriptor.offset(CONTROL), control | OUTSTANDING);
            let destination = (control >> 32) as u32;
            let wide = cpu.apic.mode() == Mode::X2Apic;
            let destination = if wide { destination } else { destination >> 8 & 0xff };
            cpu.send_fixed(destination, (control >> 16) as u8);
        }
        true
    }

    /// "Posted-Interrupt Processing": takes over what others have posted.
    fn process_posted_interrupts(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        let _notification = cpu.acknowledge_interrupt(ctx);
        let descriptor = HostPhysical(self.vmcs.value(Field::PostedInterruptDescriptor));
        let control = ctx.memory.read_u64(descriptor.offset(CONTROL));
        ctx.memory.write_u64(descriptor.offset(CONTROL), control & !OUTSTANDING);
        cpu.end_of_interrupt();
        let [mut rvi, svi] = self.interrupt_status();
        for word in 0..8_u16 {
            let from = descriptor.offset(u64::from(word) * 4);
            let requests = ctx.memory.read_u32(from);
            if requests != 0 {
                ctx.memory.write_u32(from, 0);
                rvi = rvi.max((word * 32) as u8 + (31 - requests.leading_zeros() as u8));
                let mut page = self.page(ctx);
                let offset = register::IRR + word * 16;
                page.set(offset, page.get(offset) | requests);
            }
        }
        self.set_interrupt_status(ctx, [rvi, svi]);
        self.evaluate(cpu, ctx.memory);
    }

    /// What happens instead to an event that does not exit; `None`: it is not about the APIC.
    pub(super) fn virtualize_apic(
        &mut self,
        cpu: &mut Cpu,
        ctx: &mut Context<'_>,
        processor: &Processor,
        event: &Event,
    ) -> Option<Reaction> {
        let shadow = self.controls.primary.contains(PrimaryControls::USE_TPR_SHADOW);
        Some(match *event {
            Event::CrRead { cr: 8, .. } if shadow => Reaction::Done((processor.vtpr >> 4).into()),
            Event::CrWrite { cr: 8, value, .. } if shadow => {
                if value > 15 {
                    return Some(Reaction::Exception(vector::GP, 0));
                }
                self.page(ctx).set(register::TPR, (value as u32) << 4);
                self.virtualize_tpr(cpu, ctx);
                Reaction::Done(value)
            }
            Event::ApicAccess { access, size, .. } => self.redirect(cpu, processor, &access, size),
            Event::Rdmsr { index: index @ 0x800..=0x8ff } => self.read_x2apic(ctx.memory, index)?,
            Event::Wrmsr { index: index @ 0x800..=0x8ff, value } => {
                self.write_x2apic(cpu, ctx, index, value)?
            }
            Event::ExternalInterrupt { vector } if self.controls.notification() == Some(vector) => {
                self.process_posted_interrupts(cpu, ctx);
                Reaction::Done(0)
            }
            _ => return None,
        })
    }

    /// An access to the APIC-access page goes to the virtual-APIC page.
    fn redirect(
        &mut self,
        cpu: &mut Cpu,
        processor: &Processor,
        access: &GuestPhysicalAccess,
        size: u8,
    ) -> Reaction {
        if !apic_access_is_virtualized(&self.controls, processor, access, size) {
            return Reaction::Proceed;
        }
        let offset = access.address.page_offset() as u16;
        // The read of a read-modify-write has not written yet.
        if access.write && !access.read {
            self.apic.written = Some((offset, size));
            self.rearm(cpu);
        }
        Reaction::Done(self.virtual_page().offset(offset.into()).0)
    }

    /// RDMSR under "virtualize x2APIC mode".
    fn read_x2apic(&self, memory: &PhysicalMemory, index: u32) -> Option<Reaction> {
        let all = self.controls.has_secondary(SecondaryControls::APIC_REGISTER_VIRTUALIZATION);
        let virtualized = self.controls.has_secondary(SecondaryControls::VIRTUALIZE_X2APIC)
            && (all || index == msr::IA32_X2APIC_TPR);
        let at = self.virtual_page().offset(u64::from(index & 0xff) << 4);
        virtualized.then(|| Reaction::Done(memory.read_u64(at)))
    }

    /// WRMSR under "virtualize x2APIC mode".
    fn write_x2apic(
        &mut self,
        cpu: &mut Cpu,
        ctx: &mut Context<'_>,
        index: u32,
        value: u64,
    ) -> Option<Reaction> {
        let delivers = self.controls.delivers_virtual_interrupts();
        let reserved = match index {
            msr::IA32_X2APIC_TPR => !0xff,
            msr::IA32_X2APIC_EOI if delivers => u64::MAX,
            msr::IA32_X2APIC_SELF_IPI if delivers => !0xff,
            msr::IA32_X2APIC_ICR if self.controls.virtualizes_ipis() => 0xfff3_2000,
            _ => return None,
        };
        if !self.controls.has_secondary(SecondaryControls::VIRTUALIZE_X2APIC) {
            return None;
        }
        if value & reserved != 0 {
            return Some(Reaction::Exception(vector::GP, 0));
        }
        let offset = (index & 0xff) << 4;
        ctx.memory.write_u64(self.virtual_page().offset(offset.into()), value);
        match index {
            msr::IA32_X2APIC_TPR => self.virtualize_tpr(cpu, ctx),
            msr::IA32_X2APIC_EOI => self.virtualize_eoi(cpu, ctx),
            msr::IA32_X2APIC_SELF_IPI if value >> 4 != 0 => self.virtualize_self_ipi(cpu, ctx, value as u8),
            msr::IA32_X2APIC_ICR => self.command(cpu, ctx, (value as u32, (value >> 32) as u32), 0x300),
            _ => self.trap(cpu, Event::ApicWrite { offset: offset as u16 }),
        }
        Some(Reaction::Done(value))
    }
}

/// Offset of the part of a posted-interrupt descriptor behind the 256 requests, and bits in it: an outstanding
/// notification, notifications suppressed. The notification vector is in its bits 23:16, the destination in 63:32.
const CONTROL: u64 = 32;
const OUTSTANDING: u64 = 1;
const SUPPRESS: u64 = 2;
