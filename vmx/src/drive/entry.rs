//! VM entry: what happens after the rules have been asked
//! (SDM Vol. 3C (326019-083, Mar 2024), chapter "VM Entries").

use super::{Vmx, region, state};
use crate::context::{EntryContext, Item, Memory, Processor};
use crate::decide::Controls;
use crate::definitions::capabilities::EptVpid;
use crate::information::{Interruption, InterruptionType};
use crate::rules::Report;
use crate::{ExitReason, Field, PinControls, PrimaryControls, SecondaryControls};
use rootmode_arch::record::Payload;
use rootmode_arch::{Efer, EventClass, EventClasses, Feature, HostPhysical, Vendor};
use rootmode_cpu::{
    Activity, ApicWindow, Context, Cpu, Delivery, DeliveryKind, Fault, Gate, ModificationLog, Outcome,
    Published, Result, TscRatio,
};
use rootmode_mmu::{Ept, PhysicalMemory, SecondStage};

struct SimulatedMemory<'a>(&'a PhysicalMemory);

impl Memory for SimulatedMemory<'_> {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        Some(self.0.read_u64(address))
    }
}

/// Classes of events, as the controls of a guest have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Classes {
    /// Those that the core must offer.
    intercepts: EventClasses,
    /// Instructions that need a control to be defined in the guest
    /// (SDM Vol. 3C "Changes to Instruction Behavior in VMX Non-Root Operation").
    undefined: EventClasses,
}

impl Classes {
    pub(super) fn of(controls: &Controls) -> Self {
        let mut intercepts =
            REGISTERS.into_iter().fold(crate::decide::interest(controls), EventClasses::with);
        let window = controls.primary.contains(PrimaryControls::INTERRUPT_WINDOW_EXITING);
        if window || controls.delivers_virtual_interrupts() {
            intercepts = intercepts.with(EventClass::Mwait);
        }
        Self {
            intercepts,
            undefined: UNLESS_ENABLED
                .iter()
                .filter(|(control, _)| !controls.has_secondary(*control))
                .fold(EventClasses::NONE, |all, (_, class)| all.with(*class)),
        }
    }
}

impl Vmx {
    /// VMLAUNCH or VMRESUME.
    pub(super) fn enter(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, resume: bool) -> Result<Outcome> {
        let processor = self.entry_processor(cpu, ctx, resume);
        let context = EntryContext {
            vmcs: &self.vmcs,
            capabilities: &self.capabilities,
            processor: &processor,
            memory: &SimulatedMemory(ctx.memory),
        };
        if let Err(refusal) = self.passed.check_entry(&context, &mut self.changed) {
            if let Some(watcher) = &self.watcher {
                watcher.refused(cpu, &context, refusal.report, Some(refusal.rule));
            }
            return self.refuse(cpu, ctx, refusal.report);
        }
        let Some(current) = self.current else { return self.refuse(cpu, ctx, Report::FailInvalid) };
        let before = cpu.published;
        state::load_guest(cpu, &self.vmcs);
        if let Err(number) = self.load_msrs(cpu, ctx, Field::EntryMsrLoadAddress, Field::EntryMsrLoadCount) {
            let report = Report::Exit { reason: ExitReason::MSR_LOADING, qualification: number };
            if let Some(watcher) = &self.watcher {
                let memory = &SimulatedMemory(ctx.memory);
                let (vmcs, capabilities) = (&self.vmcs, &self.capabilities);
                let context = EntryContext { vmcs, capabilities, processor: &processor, memory };
                watcher.refused(cpu, &context, report, None);
            }
            return self.refuse(cpu, ctx, report);
        }
        if !resume {
            self.set_launched(ctx.memory, current);
        }
        self.guest = true;
        self.take_controls();
        self.pause_loop = Default::default();
        self.entry_tick = cpu.tick;
        self.flush_on_transition(cpu);
        self.inject(cpu);
        cpu.published = self.publish(cpu, &before);
        cpu.published.deadline = self.timer_deadline(cpu);
        self.start_virtual_apic(cpu, ctx);
        self.load_pdptes(cpu, ctx);
        cpu.refresh();
        let injection = self.vmcs.value(Field::EntryInterruptionInfo);
        ctx.emit(cpu, Payload::Entry { vendor: Vendor::Intel, rip: cpu.rip, injection });
        Ok(Outcome::Entered)
    }

    /// What the rules may ask about the processor.
    fn entry_processor(&self, cpu: &Cpu, ctx: &Context<'_>, resume: bool) -> Processor {
        let launched = self.is_launched(ctx.memory);
        let shadow = self.current.is_some_and(|current| region::revision(ctx.memory, current) >> 31 != 0);
        let la57 = cpu.model.has(Feature::La57);
        let mut processor = Processor::unknown()
            .with(Item::PhysicalWidth, cpu.model.physical_width().into())
            .with(Item::LinearWidth, if la57 { 57 } else { 48 })
            .with(Item::LongModeActive, cpu.efer.contains(Efer::LMA).into())
            .with(Item::InVmxRoot, 1)
            .with(Item::CompatibilityOrVirtual, 0)
            .with(Item::Cpl, cpu.cpl.into())
            .with(Item::CurrentVmcs, self.current.map_or(u64::MAX, |current| current.0))
            .with(Item::CurrentIsShadow, shadow.into())
            .with(Item::MovSsBlocking, cpu.mov_ss_shadow.into())
            .with(Item::IsResume, resume.into())
            .with(Item::Launched, launched.into())
            .with(Item::InSmm, 0)
            .with(Item::TraceEnabled, 0)
            .with(Item::NmiNeedsNoSti, 0)
            .with(Item::PerfGlobalMask, cpu.counters.global_mask())
            .with(Item::RtitCtlMask, 0);
        processor.set_features(*cpu.model.features());
        processor
    }

    /// Reports a refused entry as the rule says: an exception, VMfail, or an exit with bit 31 of the reason set.
    fn refuse(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, report: Report) -> Result<Outcome> {
        let (code, detail) = match report {
            Report::Exception(vector) => {
                return Err(if vector == rootmode_arch::vector::GP {
                    Fault::GP0
                } else {
                    Fault::exception(vector)
                });
            }
            Report::FailInvalid => (0, 0),
            Report::Fail(error) => (error.0.into(), 0),
            Report::Exit { reason, qualification } => {
                (u64::from(reason.0) | u64::from(ExitReason::ENTRY_FAILURE), qualification)
            }
        };
        ctx.emit(cpu, Payload::EntryFailed { vendor: Vendor::Intel, code, detail });
        match report {
            Report::Exit { .. } => {
                self.leave_failed_entry(cpu, ctx, code, detail);
                Ok(Outcome::Entered)
            }
            Report::Fail(error) => {
                self.fail_valid(cpu, ctx, error);
                Ok(Outcome::Done)
            }
            _ => {
                super::instructions::fail_invalid(cpu);
                Ok(Outcome::Done)
            }
        }
    }

    /// Hands the event to inject to the core.
    fn inject(&mut self, cpu: &mut Cpu) {
        cpu.injected = None;
        let Some(event) = Interruption::decode(self.vmcs.value(Field::EntryInterruptionInfo) as u32) else {
            return;
        };
        let kind = match event.kind {
            InterruptionType::External => DeliveryKind::External,
            InterruptionType::Nmi => DeliveryKind::Nmi,
            InterruptionType::HardwareException => DeliveryKind::Hardware,
            InterruptionType::SoftwareInterrupt => DeliveryKind::Software,
            InterruptionType::PrivilegedSoftwareException => DeliveryKind::Privileged,
            InterruptionType::SoftwareException => DeliveryKind::SoftwareException,
            InterruptionType::Other | InterruptionType::Reserved => {
                self.pending_mtf = true;
                return;
            }
        };
        let software = matches!(
            kind,
            DeliveryKind::Software | DeliveryKind::Privileged | DeliveryKind::SoftwareException
        );
        let length = if software { self.vmcs.value(Field::EntryInstructionLength) as u8 } else { 0 };
        let error_code = event.error_code.then(|| self.vmcs.value(Field::EntryErrorCode) as u32);
        // An injected #PF does not write CR2: it has its value.
        let detail = if event.vector == rootmode_arch::vector::PF { cpu.cr2 } else { 0 };
        // Without virtual NMIs, only the interruptibility state says whether NMIs are blocked
        // (SDM Vol. 3C "Interruptibility State", "Details of Vectored-Event Injection").
        let blocks_nmis = kind == DeliveryKind::Nmi && self.controls.pin.contains(PinControls::VIRTUAL_NMIS);
        // No event asks for RFLAGS.RF: the guest-state area has it, or not (SDM Vol. 3C "Details of Vectored-Event Injection").
        // A vectoring entry leaves the processor active, whatever the activity state says.
        cpu.activity = Activity::Active;
        let plain = Delivery::interruption(kind, event.vector);
        cpu.injected = Some(Delivery { error_code, length, detail, blocks_nmis, ..plain });
    }

    /// What the core may know while the guest runs.
    fn publish(&self, cpu: &Cpu, before: &Published) -> Published {
        let controls = &self.controls;
        let pin = controls.pin;
        let ept = controls.has_secondary(SecondaryControls::ENABLE_EPT);
        let second_stage = if ept { SecondStage::Ept(self.ept(cpu)) } else { SecondStage::None };
        let offsetting = controls.primary.contains(PrimaryControls::USE_TSC_OFFSETTING);
        let scaling = offsetting && controls.has_secondary(SecondaryControls::USE_TSC_SCALING);
        let open = |on| if on { Gate::Open } else { Gate::Normal };
        Published {
            intercepts: self.classes.intercepts,
            guest: true,
            level: self.guest_level(),
            second_stage,
            space: self.space(),
            tsc_offset: if offsetting { self.vmcs.value(Field::TscOffset) } else { 0 },
            tsc_ratio: if scaling {
                TscRatio { multiplier: self.vmcs.value(Field::TscMultiplier), shift: 48 }
            } else {
                TscRatio::default()
            },
            interrupt_gate: open(pin.contains(PinControls::EXTERNAL_INTERRUPT_EXITING)),
            nmi_gate: open(pin.contains(PinControls::VIRTUAL_NMIS)),
            iret_keeps_nmi_blocked: pin.contains(PinControls::NMI_EXITING)
                && !pin.contains(PinControls::VIRTUAL_NMIS),
            undefined: self.classes.undefined,
            apic_access: controls
                .has_secondary(SecondaryControls::VIRTUALIZE_APIC_ACCESSES)
                .then(|| ApicWindow::Host(HostPhysical(self.vmcs.value(Field::ApicAccessAddress)))),
            modification_log: controls.has_secondary(SecondaryControls::ENABLE_PML).then(|| {
                ModificationLog {
                    page: HostPhysical(self.vmcs.value(Field::PmlAddress)),
                    index: self.vmcs.value(Field::PmlIndex) as u16,
                }
            }),
            boundary: self.wants_boundaries(),
            ..*before
        }
    }

    /// PDPTE registers of a guest with PAE paging: with EPT from the VMCS, without it from memory, which was checked.
    fn load_pdptes(&self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        if self.controls.has_secondary(SecondaryControls::ENABLE_EPT) {
            cpu.pdptes = state::PDPTES.map(|field| self.vmcs.value(field));
        } else {
            let loaded = cpu.reload_pdptes(ctx.memory);
            debug_assert!(loaded.is_ok(), "the rules about PDPTEs were satisfied");
        }
    }

    /// VPID, 0 if not enabled.
    pub(super) fn space(&self) -> u32 {
        if self.controls.has_secondary(SecondaryControls::ENABLE_VPID) {
            self.vmcs.value(Field::Vpid) as u32
        } else {
            0
        }
    }

    pub(super) fn ept(&self, cpu: &Cpu) -> Ept {
        let eptp = self.vmcs.value(Field::Eptp);
        let supported = self.capabilities.ept_vpid().unwrap_or(EptVpid(0));
        Ept {
            root: HostPhysical(eptp & 0x000f_ffff_ffff_f000),
            five_level: eptp >> 3 & 7 == 4,
            accessed_dirty: eptp >> 6 & 1 != 0,
            mode_based_execute: self.controls.has_secondary(SecondaryControls::MODE_BASED_EXECUTE),
            execute_only: supported.contains(EptVpid::EXECUTE_ONLY),
            huge_pages: supported.contains(EptVpid::PAGE_1G),
            physical_width: cpu.model.physical_width(),
        }
    }

    /// Without VPID, transitions drop linear and combined mappings.
    pub(super) fn flush_on_transition(&self, cpu: &mut Cpu) {
        if !self.controls.has_secondary(SecondaryControls::ENABLE_VPID) {
            cpu.tlb.flush_space(0);
        }
    }
}

/// Classes that the core must offer whatever the controls say, because the masks and shadows change what they do.
const REGISTERS: [EventClass; 5] =
    [EventClass::CrRead, EventClass::CrWrite, EventClass::Clts, EventClass::Lmsw, EventClass::Smsw];

/// Instructions, and the secondary control without which they are undefined.
const UNLESS_ENABLED: [(SecondaryControls, EventClass); 6] = [
    (SecondaryControls::ENABLE_RDTSCP, EventClass::Rdtscp),
    (SecondaryControls::ENABLE_INVPCID, EventClass::Invpcid),
    (SecondaryControls::ENABLE_USER_WAIT, EventClass::Umwait),
    (SecondaryControls::ENABLE_USER_WAIT, EventClass::Tpause),
    (SecondaryControls::ENABLE_XSAVES, EventClass::Xsaves),
    (SecondaryControls::ENABLE_XSAVES, EventClass::Xrstors),
];
