//! Global interrupt flag, gates of interrupts, virtual interrupts and virtual NMIs
//! (APM Vol. 2 (24593 rev. 3.43) "Global Interrupt Flag, STGI and CLGI Instructions", "Interrupt and Local APIC Support",
//! "Virtual GIF", "NMI Virtualization").

use super::{Running, Svm, view};
use crate::decide::{View, decide};
use crate::vmcb::IntCtl;
use rootmode_arch::{Event, Feature, RFlags, Reaction, vector};
use rootmode_cpu::{Context, Cpu, Delivery, DeliveryKind, Gate, Published, Slot};

impl Running {
    /// Whether virtual interrupts and virtual NMIs are let through: V_GIF where it is in use.
    const fn is_virtual_gif_set(&self) -> bool {
        !self.virtual_gif || self.int_ctl.contains(IntCtl::V_GIF)
    }

    /// Whether a virtual interrupt or a virtual NMI is pending.
    pub(super) const fn is_interrupt_pending(&self) -> bool {
        self.int_ctl.contains(IntCtl::V_IRQ) || self.virtual_nmi && self.int_ctl.contains(IntCtl::V_NMI)
    }

    /// Whether something virtual waits that a boundary may let in.
    fn waits(&self) -> bool {
        let requests = self.avic.is_some_and(|avic| avic.told);
        (self.is_interrupt_pending() || requests) && self.is_virtual_gif_set()
    }

    /// Whether the guest wrote a register of its APIC that is to be acted on.
    fn has_apic_work(&self) -> bool {
        self.avic.is_some_and(|avic| avic.has_work())
    }

    /// Whether V_IRQ passes V_TPR.
    fn has_priority(&self, cpu: &Cpu) -> bool {
        let task_priority = cpu.published.virtual_tpr.unwrap_or(self.int_ctl.v_tpr());
        self.int_ctl.contains(IntCtl::V_IGN_TPR) || self.int_ctl.v_intr_prio() > task_priority
    }
}

impl Svm {
    /// Publishes the gates that follow from GIF, V_INTR_MASKING and the host's RFLAGS.IF, and whether boundaries matter.
    pub(super) fn publish_gates(&self, cpu: &mut Cpu) {
        self.set_gates(cpu);
        cpu.refresh();
    }

    /// The same amid a transition, which ends with [`Cpu::refresh`].
    pub(super) fn set_gates(&self, cpu: &mut Cpu) {
        let (interrupts, nmis) = match &self.running {
            _ if !self.gif => (Gate::Closed, Gate::Closed),
            None => (Gate::Normal, Gate::Normal),
            Some(running) => {
                let masking = running.int_ctl.contains(IntCtl::V_INTR_MASKING);
                let interrupts = match (masking, running.host_interrupts) {
                    (false, _) => Gate::Normal,
                    (true, true) => Gate::Open,
                    (true, false) => Gate::Closed,
                };
                // With virtual NMIs the processor's blocking is the guest's virtual one.
                let nmis = match (running.virtual_nmi, running.host_nmi_blocked) {
                    (false, _) => Gate::Normal,
                    (true, false) => Gate::Open,
                    (true, true) => Gate::Closed,
                };
                (interrupts, nmis)
            }
        };
        cpu.published = Published {
            interrupt_gate: interrupts,
            nmi_gate: nmis,
            held: !self.gif,
            boundary: self.wants_boundary(),
            ..cpu.published
        };
    }

    fn wants_boundary(&self) -> bool {
        let at_once = |running: &Running| running.traps() || running.has_apic_work();
        self.running.as_ref().is_some_and(|running| at_once(running) || self.gif && running.waits())
    }

    /// Publishes whether boundaries matter, which may have changed.
    pub(super) fn follow_boundary(&self, cpu: &mut Cpu) {
        let boundary = self.wants_boundary();
        if boundary != cpu.published.boundary {
            cpu.published.boundary = boundary;
            cpu.update_attention();
        }
    }

    /// STGI and CLGI. In a guest with virtual GIF they change V_GIF; in a guest whose hypervisor neither intercepts them nor
    /// virtualizes GIF, the one GIF.
    pub(super) fn set_gif(&mut self, cpu: &mut Cpu, gif: bool) {
        match &mut self.running {
            Some(running) if running.virtual_gif => running.int_ctl = running.int_ctl.set(IntCtl::V_GIF, gif),
            _ => self.gif = gif,
        }
        self.publish_gates(cpu);
    }

    /// Lets a virtual NMI or a virtual interrupt in.
    pub(super) fn deliver_virtual(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, slot: Slot) -> Reaction {
        if slot == Slot::BeforeDebug {
            if let Some(reaction) = self.take_trap(cpu, ctx) {
                return reaction;
            }
            let rings = std::mem::take(&mut cpu.interrupts.doorbell);
            if let Some(avic) = self.running.as_mut().and_then(|running| running.avic.as_mut()) {
                avic.told |= rings;
            }
            let reaction = self.act_on_apic_write(cpu, ctx);
            if reaction == Reaction::Proceed {
                self.follow_boundary(cpu);
            }
            return reaction;
        }
        let Some(running) = &mut self.running else { return Reaction::Proceed };
        let shadow = cpu.sti_shadow || cpu.mov_ss_shadow;
        if !self.gif || !running.is_virtual_gif_set() || shadow {
            return Reaction::Proceed;
        }
        let nmi = running.virtual_nmi && running.int_ctl.contains(IntCtl::V_NMI) && !cpu.nmi_blocked;
        if slot == Slot::BeforeInterrupt && nmi {
            running.int_ctl = running.int_ctl.without(IntCtl::V_NMI);
            inject(cpu, DeliveryKind::Nmi, vector::NMI);
        }
        if slot == Slot::AfterInterrupt && running.avic.is_some() {
            // AVIC takes the place of V_IRQ.
            self.deliver_from_backing_page(cpu, ctx);
            self.follow_boundary(cpu);
            return Reaction::Proceed;
        }
        let interrupt = running.int_ctl.contains(IntCtl::V_IRQ) && running.has_priority(cpu);
        if slot == Slot::AfterInterrupt && interrupt && cpu.rflags().contains(RFlags::IF) {
            let vector = running.int_vector;
            let state = view::state(running, cpu, ctx.memory);
            let maps = view::MemoryMaps { memory: ctx.memory, maps: running.maps };
            let view = View { controls: &running.controls, state: &state, maps: &maps };
            if let Some(exit) = decide(&view, &Event::VirtualInterrupt { vector }) {
                // The exit comes before the interrupt is taken: V_IRQ stays.
                self.leave(cpu, ctx, &exit, None);
                return Reaction::Exit;
            }
            running.int_ctl = running.int_ctl.without(IntCtl::V_IRQ);
            inject(cpu, DeliveryKind::External, vector);
        }
        if cpu.injected.is_some() {
            self.publish_gates(cpu);
        }
        Reaction::Proceed
    }

    /// Whether the processor has `feature` and the guest's VMCB asks for it with `bit` of VINTR_CONTROL.
    pub(super) const fn enables(&self, int_ctl: IntCtl, feature: Feature, bit: IntCtl) -> bool {
        self.processor.has(feature) && int_ctl.contains(bit)
    }
}

pub(super) fn inject(cpu: &mut Cpu, kind: DeliveryKind, vector: u8) {
    cpu.injected = Some(Delivery::interruption(kind, vector));
}
