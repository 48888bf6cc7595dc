//! #VMEXIT (APM Vol. 2 (24593 rev. 3.43) "#VMEXIT").

use super::page::Page;
use super::{Running, Svm, encrypted, state};
use crate::decide::Exit;
use crate::vmcb::{EventInfo, EventKind, Field, IntCtl, NestedControl};
use rootmode_arch::event::ExceptionSource;
use rootmode_arch::record::Payload;
use rootmode_arch::{Dr7, Event, Feature, Vendor, vector};
use rootmode_cpu::{Activity, Context, Cpu, Current, Delivery, DeliveryKind};

/// Writes what the exit reports.
pub(super) fn record(vmcb: &mut Page<'_>, exit: &Exit, interrupted: EventInfo) {
    vmcb.set(Field::ExitCode, exit.code.0);
    vmcb.set(Field::ExitInfo1, exit.info1);
    vmcb.set(Field::ExitInfo2, exit.info2);
    vmcb.set(Field::ExitIntInfo, interrupted.0 & 0xffff_ffff);
    vmcb.set(Field::ExitIntInfoError, interrupted.0 >> 32);
    vmcb.set(Field::NextRip, exit.next_rip);
}

/// With decode assists, page faults of data accesses report the 15 bytes at CS:RIP, or as many as can be fetched; every other
/// exit, and one during the delivery of an event, reports none (APM Vol. 2 (24593 rev. 3.43) "Nested and Intercepted #PF").
fn code_bytes(
    cpu: &Cpu,
    ctx: &mut Context<'_>,
    running: &Running,
    event: Option<&Event>,
) -> ([u8; 15], usize) {
    let data = match event {
        Some(Event::SecondStage(access)) => !access.fetch,
        Some(Event::Exception(e)) => e.vector == vector::PF && e.error_code.unwrap_or(0) & 1 << 4 == 0,
        _ => false,
    };
    let may_show = running.controls.traits.decode_assists && running.encrypted.is_none();
    if data && may_show && cpu.delivering.is_none() { cpu.code_bytes(ctx.memory) } else { ([0; 15], 0) }
}

/// The event as EXITINTINFO has it.
fn interrupted(delivery: &Delivery) -> EventInfo {
    let kind = match delivery.kind {
        DeliveryKind::External => EventKind::Interrupt,
        DeliveryKind::Nmi => EventKind::Nmi,
        DeliveryKind::Hardware | DeliveryKind::Privileged | DeliveryKind::SoftwareException => {
            EventKind::Exception
        }
        DeliveryKind::Software => EventKind::SoftwareInterrupt,
    };
    EventInfo::new(kind, delivery.vector, delivery.error_code)
}

impl Svm {
    /// Leaves the guest. `event` is what the core offered; `None` between instructions.
    pub(super) fn leave(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, exit: &Exit, event: Option<&Event>) {
        let Some(running) = self.running.take() else { return };
        if let Some(watcher) = &self.watcher {
            watcher.left();
        }
        // Shutdown, and an exception that the delivery itself caused to be a double fault, end the first delivery.
        let direct = matches!(event, Some(Event::TripleFault))
            || matches!(event, Some(Event::Exception(e)) if e.vector == vector::DF);
        let (code, length) = code_bytes(cpu, ctx, &running, event);
        let delivering = cpu.delivering.take().filter(|_| !direct);
        let mut page = Page::new(ctx.memory, running.vmcb);
        let vmcb = &mut page;
        let known = if running.encrypted.is_some() { Exit { next_rip: 0, ..*exit } } else { *exit };
        record(vmcb, &known, delivering.as_ref().map_or(EventInfo::NONE, interrupted));
        vmcb.set(Field::BytesFetched, length as u64);
        vmcb.set_bytes(Field::InstructionBytes, code);
        if let Some(Event::Exception(e)) = event
            && (e.vector, e.source) == (vector::DB, ExceptionSource::Hardware)
        {
            // What the handler would see (APM Vol. 2 "#DB (Debug)").
            cpu.dr6 = cpu.dr6 & !0xf | e.detail;
            cpu.dr7 &= !Dr7::GD.0;
        }
        if running.encrypted.is_none() {
            state::save_guest(cpu, vmcb);
            if running.virtual_branches {
                state::save_branches(cpu, vmcb);
            }
            if running.controls.nested.contains(NestedControl::NP_ENABLE) {
                vmcb.set(Field::GPat, cpu.msrs.pat);
            }
        }
        let speculation = self.processor.has(Feature::VirtualSpecCtrl);
        if speculation && running.encrypted.is_none() {
            vmcb.set(Field::SpecCtrl, cpu.msrs.spec_ctrl);
        }
        let mut int_ctl = running.int_ctl;
        if let Some(priority) = cpu.published.virtual_tpr {
            int_ctl = int_ctl.with_v_tpr(priority);
        }
        if running.virtual_nmi {
            int_ctl = int_ctl.set(IntCtl::V_NMI_MASK, cpu.nmi_blocked);
            cpu.nmi_blocked = running.host_nmi_blocked;
        }
        vmcb.set(Field::IntCtl, int_ctl.0.into());
        if self.processor.has(Feature::BusLockThreshold) {
            vmcb.set(Field::BusLockCounter, running.bus_locks.into());
        }
        // The event was delivered, or is in EXITINTINFO now.
        vmcb.set(Field::EventInj, 0);
        vmcb.set(Field::EventInjError, 0);
        if let Some(encrypted) = &running.encrypted {
            vmcb.set(Field::GhcbAddress, encrypted.ghcb);
            let interruptibility = encrypted.store(cpu, ctx, exit);
            Page::new(ctx.memory, running.vmcb).set(Field::InterruptState, interruptibility);
        }
        if speculation {
            cpu.msrs.spec_ctrl = running.host_speculation;
        }
        self.keep_exit(ctx, running.vmcb);
        ctx.emit(
            cpu,
            Payload::Exit {
                vendor: Vendor::Amd,
                code: exit.code.0,
                info1: exit.info1,
                info2: exit.info2,
                rip: cpu.rip,
            },
        );
        cpu.msrs.pat = running.host_pat;
        self.return_to_host(cpu, ctx, running.virtual_branches);
        if running.encrypted.is_some() {
            encrypted::leave_to(cpu, &Page::new(ctx.memory, self.host_save(cpu)));
            cpu.refresh();
        }
    }

    /// Loads the host's state; GIF is 0 afterwards.
    pub(super) fn return_to_host(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, branches: bool) {
        self.load_host(cpu, ctx, branches);
        self.running = None;
        self.gif = false;
        cpu.activity = Activity::Active;
        cpu.injected = None;
        cpu.delivering = None;
        cpu.repeating = false;
        cpu.interrupts.doorbell = false;
        cpu.current = Current::default();
        self.publish_host(cpu);
        // A host whose PDPTEs are illegal cannot go on (APM Vol. 2 "#VMEXIT").
        if cpu.reload_pdptes(ctx.memory).is_err() {
            cpu.activity = Activity::Shutdown;
        }
        cpu.refresh();
    }
}
