//! VM exit: what is recorded, saved and loaded
//! (SDM Vol. 3C (326019-083, Mar 2024), chapter "VM Exits").

use super::{Vmx, region, state};
use crate::decide::Exit;
use crate::information::{Interruption, InterruptionType};
use crate::{EntryControls, ExitControls, ExitReason, Field, PinControls, SecondaryControls};
use rootmode_arch::record::{Payload, Stop};
use rootmode_arch::{Event, RFlags, Vendor, vector};
use rootmode_cpu::{Context, Cpu, Delivery, DeliveryKind, Published};
use rootmode_mmu::PagingMode;

/// VMX-abort indicators (SDM Vol. 3C "VMX Aborts").
const ABORT_SAVING_MSRS: u32 = 1;
const ABORT_HOST_PDPTES: u32 = 2;
const ABORT_LOADING_MSRS: u32 = 4;

impl Vmx {
    /// Leaves the guest. `event` is what the core offered; `None` between instructions.
    pub(super) fn leave(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, exit: &Exit, event: Option<&Event>) {
        let mut exit = *exit;
        if let Some(Event::ExternalInterrupt { .. }) = event
            && self.controls.exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT)
        {
            // The acknowledge cycle says which vector it is; of an 8259's interrupt nobody knew it before.
            let vector = cpu.acknowledge_interrupt(ctx);
            exit.interruption_information = exit.interruption_information & !0xff | u32::from(vector);
        }
        let exit = &exit;
        // An event that exits directly, as a double or triple fault of the first one does too, is no longer delivered.
        let direct = matches!(event, Some(Event::TripleFault))
            || matches!(event, Some(Event::Exception(e)) if e.vector == vector::DF);
        let delivering = cpu.delivering.take().filter(|_| !direct);
        self.record(cpu, ctx, exit, event, delivering.as_ref());
        let resume = saves_resume_flag(cpu.saved_flags(), event, delivering.as_ref());
        self.save(cpu, ctx, cpu.rflags().set(RFlags::RF, resume));
        if let Some(watcher) = &self.watcher {
            watcher.left();
        }
        let info2 = exit.guest_physical.map_or(0, |address| address.0);
        ctx.emit(
            cpu,
            Payload::Exit {
                vendor: Vendor::Intel,
                code: exit.reason.0.into(),
                info1: exit.qualification,
                info2,
                rip: cpu.rip,
            },
        );
        let nmi = exit.reason == ExitReason::EXCEPTION_OR_NMI && matches!(event, Some(Event::Nmi));
        // What the guest saw with virtual NMIs was virtual blocking.
        let blocked = cpu.nmi_blocked && !self.controls.pin.contains(PinControls::VIRTUAL_NMIS);
        if nmi {
            // The exit takes the NMI.
            cpu.interrupts.take_nmi();
        }
        cpu.nmi_blocked = blocked || nmi;
        self.go_to_host(cpu, ctx);
    }

    /// The VM-exit information fields. Those that the manual leaves undefined for an exit keep their values.
    fn record(
        &mut self,
        cpu: &Cpu,
        ctx: &mut Context<'_>,
        exit: &Exit,
        event: Option<&Event>,
        delivering: Option<&Delivery>,
    ) {
        let vectoring = delivering.map_or(0, |delivery| interruption(delivery).encode());
        // Exits say that the guest took a bus lock, whatever their reason is ("Basic VM-Exit Information").
        let locked = if std::mem::take(&mut self.bus_locked) { ExitReason::BUS_LOCK_PENDING } else { 0 };
        self.write(ctx, Field::ExitReason, (u32::from(exit.reason.0) | locked).into());
        self.write(ctx, Field::ExitQualification, exit.qualification);
        self.write(ctx, Field::ExitInterruptionInfo, exit.interruption_information.into());
        self.write(ctx, Field::IdtVectoringInfo, vectoring.into());
        if let Some(code) = exit.error_code {
            self.write(ctx, Field::ExitInterruptionErrorCode, code.into());
        }
        if let Some(code) = delivering.and_then(|delivery| delivery.error_code) {
            self.write(ctx, Field::IdtVectoringErrorCode, code.into());
        }
        if let Some(information) = exit.instruction_information {
            self.write(ctx, Field::ExitInstructionInfo, information.into());
        }
        if let Some(linear) = exit.guest_linear {
            self.write(ctx, Field::GuestLinearAddress, linear.0);
        }
        if let Some(physical) = exit.guest_physical {
            self.write(ctx, Field::GuestPhysicalAddress, physical.0);
        }
        if let Some(length) = instruction_length(cpu, event, delivering) {
            self.write(ctx, Field::ExitInstructionLength, length.into());
        }
    }

    /// Saves guest state, with `flags` as RFLAGS, and MSRs, and makes the injected event invalid.
    fn save(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, flags: RFlags) {
        let exit = ExitControls(self.vmcs.value(Field::ExitControls) as u32);
        let entry = EntryControls(self.vmcs.value(Field::EntryControls) as u32);
        state::save_guest(cpu, exit, entry, |field, value| self.write(ctx, field, value));
        self.write(ctx, Field::GuestRflags, flags.0);
        let mode = PagingMode::of(cpu.cr0, cpu.cr4, cpu.efer);
        if self.controls.has_secondary(SecondaryControls::ENABLE_EPT) && mode == PagingMode::Pae {
            for (field, entry) in state::PDPTES.into_iter().zip(cpu.pdptes) {
                self.write(ctx, field, entry);
            }
        }
        let timer = PinControls::PREEMPTION_TIMER;
        if self.controls.pin.contains(timer)
            && self.controls.exit.contains(ExitControls::SAVE_PREEMPTION_TIMER)
        {
            let value = self.timer_value(cpu);
            self.write(ctx, Field::PreemptionTimer, value);
        }
        if let Some(log) = cpu.published.modification_log {
            self.write(ctx, Field::PmlIndex, log.index.into());
        }
        let injected = self.vmcs.value(Field::EntryInterruptionInfo);
        self.write(ctx, Field::EntryInterruptionInfo, injected & !u64::from(Interruption::VALID));
        if self.store_msrs(cpu, ctx).is_err() {
            self.abort(ctx, ABORT_SAVING_MSRS);
        }
    }

    /// Loads host state, out of a guest or out of a failed entry.
    fn go_to_host(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        state::load_host(cpu, &self.vmcs);
        self.flush_on_transition(cpu);
        if self.load_msrs(cpu, ctx, Field::ExitMsrLoadAddress, Field::ExitMsrLoadCount).is_err() {
            self.abort(ctx, ABORT_LOADING_MSRS);
        }
        self.guest = false;
        self.pending_mtf = false;
        self.apic = Default::default();
        cpu.published = Published { level: self.host_level, ..Published::default() };
        cpu.injected = None;
        cpu.delivering = None;
        cpu.repeating = false;
        if cpu.reload_pdptes(ctx.memory).is_err() {
            self.abort(ctx, ABORT_HOST_PDPTES);
        }
        cpu.refresh();
    }

    /// An entry that failed after the checks of controls and host state: only reason and qualification are recorded.
    pub(super) fn leave_failed_entry(
        &mut self,
        cpu: &mut Cpu,
        ctx: &mut Context<'_>,
        reason: u64,
        detail: u64,
    ) {
        self.write(ctx, Field::ExitReason, reason);
        self.write(ctx, Field::ExitQualification, detail);
        self.take_controls();
        self.go_to_host(cpu, ctx);
    }

    fn abort(&mut self, ctx: &mut Context<'_>, indicator: u32) {
        if let Some(current) = self.current {
            region::set_abort(ctx.memory, current, indicator);
        }
        ctx.effects.stop = Some(Stop::VmxAbort(indicator));
    }
}

/// The event as IDT-vectoring information has it.
fn interruption(delivery: &Delivery) -> Interruption {
    let kind = match delivery.kind {
        DeliveryKind::External => InterruptionType::External,
        DeliveryKind::Nmi => InterruptionType::Nmi,
        DeliveryKind::Hardware => InterruptionType::HardwareException,
        DeliveryKind::Software => InterruptionType::SoftwareInterrupt,
        DeliveryKind::Privileged => InterruptionType::PrivilegedSoftwareException,
        DeliveryKind::SoftwareException => InterruptionType::SoftwareException,
    };
    Interruption { error_code: delivery.error_code.is_some(), ..Interruption::new(kind, delivery.vector) }
}

/// RFLAGS.RF as an exit saves it; `flags` are what an event that comes now would save
/// (SDM Vol. 3C "Saving RIP, RSP, RFLAGS, and SSP").
fn saves_resume_flag(flags: RFlags, event: Option<&Event>, delivering: Option<&Delivery>) -> bool {
    let before = flags.contains(RFlags::RF);
    if let Some(delivery) = delivering {
        return before || delivery.resumes;
    }
    match event {
        Some(Event::Exception(exception)) => before || exception.asks_for_resume(),
        Some(Event::SecondStage(_) | Event::ApicAccess { .. } | Event::PageModificationLogFull) => true,
        None
        | Some(
            Event::ExternalInterrupt { .. }
            | Event::Nmi
            | Event::Smi
            | Event::Init
            | Event::Sipi { .. }
            | Event::TripleFault
            | Event::TaskSwitch { .. },
        ) => before,
        // Instructions exit with 0, whatever it was.
        Some(_) => false,
    }
}

/// VM-exit instruction length, where it is defined: for instructions that exit, for software events, and for exits while
/// those are delivered (SDM Vol. 3C "Information for VM Exits Due to Instruction Execution").
fn instruction_length(cpu: &Cpu, event: Option<&Event>, delivering: Option<&Delivery>) -> Option<u8> {
    if let Some(delivery) = delivering {
        return (delivery.length != 0).then_some(delivery.length);
    }
    match event? {
        Event::Exception(exception) => {
            (exception.instruction_length != 0).then_some(exception.instruction_length)
        }
        Event::SecondStage(_)
        | Event::ExternalInterrupt { .. }
        | Event::Nmi
        | Event::Smi
        | Event::Init
        | Event::Sipi { .. }
        | Event::TripleFault => None,
        _ => Some(cpu.current.length),
    }
}
