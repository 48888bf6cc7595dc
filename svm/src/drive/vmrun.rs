//! VMRUN (APM Vol. 2 (24593 rev. 3.43) "VMRUN Instruction", "Event Injection", "TLB Flush").

use super::avic::{self, Avic};
use super::encrypted::{self, Encrypted};
use super::page::Page;
use super::{Maps, Running, Svm, state};
use crate::decide::{Controls, Exit, PauseFilter, Traits};
use crate::encode::ExitCode;
use crate::rules::{EntryContext, Host, PhysicalMemory, Verdict, check_entry};
use crate::vmcb::{EventInfo, EventKind, Field, IntCtl, Intercept, NestedControl, TlbControl, VirtExt};
use crate::{Vmcb, Vmsa};
use rootmode_arch::record::Payload;
use rootmode_arch::{Cr4, Efer, Feature, HostPhysical, RFlags, Vendor, vector};
use rootmode_cpu::apic::register;
use rootmode_cpu::msr::speculation_bits;
use rootmode_cpu::{
    Activity, Context, Cpu, Delivery, DeliveryKind, Fault, Outcome, Published, Result, TscRatio,
};
use rootmode_mmu::{Npt, PagingMode, SecondStage};

/// HWCR.SmmLock.
const SMM_LOCK: u64 = 1;
/// Host-physical addresses of the VMCB, which the host may write with its C-bit.
const ADDRESSES: [Field; 7] = [
    Field::IopmBase,
    Field::MsrpmBase,
    Field::NestedCr3,
    Field::VmsaPointer,
    Field::AvicBackingPage,
    Field::AvicLogicalTable,
    Field::AvicPhysicalTable,
];

/// Intercepts that processors without the feature ignore.
const OPTIONAL: [(Feature, Intercept); 2] =
    [(Feature::BusLockThreshold, Intercept::BUSLOCK), (Feature::IdleHltIntercept, Intercept::IDLE_HLT)];

struct SimulatedMemory<'a>(&'a rootmode_mmu::PhysicalMemory);

impl PhysicalMemory for SimulatedMemory<'_> {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        Some(self.0.read_u64(address))
    }
}

impl Svm {
    /// Whether `address` can be a VMCB's.
    pub(super) fn check_vmcb_address(&self, cpu: &Cpu, address: u64) -> Result<HostPhysical> {
        let address = address & !cpu.host_c_bit();
        if address & 0xfff != 0 || address >= self.processor.physical_limit() {
            return Err(Fault::GP0);
        }
        Ok(HostPhysical(address))
    }

    /// Where the host save area is.
    pub(super) fn host_save(&self, cpu: &Cpu) -> HostPhysical {
        HostPhysical(self.hsave & !cpu.host_c_bit())
    }

    pub(super) fn vmrun(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, address: u64) -> Result<Outcome> {
        let at = self.check_vmcb_address(cpu, address)?;
        self.save_host(cpu, ctx);
        let mut image = self.image.take().unwrap_or_else(|| Box::new(Vmcb::zeroed()));
        super::read_vmcb(ctx, at, &mut image);
        self.trust_clean_bits(cpu, ctx, at, &mut image);
        for field in ADDRESSES.into_iter().filter(|_| cpu.host_c_bit() != 0) {
            let address = image.get(field).unwrap_or(0) & !cpu.host_c_bit();
            image.set(field, address);
        }
        self.run_vmcb(cpu, ctx, at, &mut image);
        self.image = Some(image);
        Ok(Outcome::Entered)
    }

    fn run_vmcb(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, at: HostPhysical, vmcb: &mut Vmcb) {
        let traits = Traits {
            sev: self.processor.has(Feature::Sev) && cpu.host_c_bit() != 0,
            host_64_bit: cpu.is_64_bit(),
            smm_locked: cpu.msrs.hwcr & SMM_LOCK != 0,
            ..Traits::of(&self.processor)
        };
        let mut controls = Controls::of(vmcb, traits);
        if !self.processor.has(Feature::SevEs) {
            controls.nested = controls.nested.without(NestedControl::SEV_ES_ENABLE);
        }
        let vmsa = controls.is_sev_es().then(|| {
            let at = HostPhysical(vmcb.get(Field::VmsaPointer).unwrap_or(0)).page_base();
            let mut vmsa = Box::new(Vmsa::zeroed());
            ctx.memory.read(at, vmsa.bytes_mut());
            vmsa
        });
        let encrypted = vmsa.as_ref().map(|_| Encrypted {
            vmsa: HostPhysical(vmcb.get(Field::VmsaPointer).unwrap_or(0)).page_base(),
            ghcb: vmcb.get(Field::GhcbAddress).unwrap_or(0),
            trap: None,
        });
        let host = Host {
            cr0: Some(cpu.cr0),
            cr4: Some(cpu.cr4),
            efer: Some(cpu.efer),
            in_64_bit_mode: Some(cpu.is_64_bit()),
            u_cet: Some(cpu.control_flow.user),
            smm_locked: Some(traits.smm_locked),
            memory_encryption: Some(traits.sev),
            secure_nested_paging: Some(false),
            ibs_enabled: Some(false),
            sibling_idle: Some(true),
        };
        let memory = SimulatedMemory(ctx.memory);
        let context = EntryContext {
            vmsa: vmsa.as_deref(),
            ..EntryContext::new(&self.processor, vmcb).with_host(host).with_memory(&memory)
        };
        let verdict = check_entry(&context);
        if let (Verdict::Refused(rule), Some(watcher)) = (&verdict, &self.watcher) {
            watcher.refused(cpu, &context, rule);
        }
        if let Some(vmsa) = &vmsa {
            encrypted::overlay(vmcb, vmsa);
        }
        let value = |field| vmcb.get(field).unwrap_or(0);
        for (feature, intercept) in OPTIONAL {
            if !self.processor.has(feature) {
                controls.intercepts = controls.intercepts.without(intercept);
            }
        }
        // Most entries find the intercepts of the entry before.
        if controls != self.interest.0 {
            let classes = avic::virtualized(&controls)
                .iter()
                .fold(crate::decide::interest(&controls), |all, class| all.with(*class));
            self.interest = (controls, classes);
        }
        self.running = Some(Running {
            vmcb: at,
            controls,
            maps: Maps {
                msrpm: HostPhysical(value(Field::MsrpmBase)).page_base(),
                iopm: HostPhysical(value(Field::IopmBase)).page_base(),
            },
            pause: PauseFilter::at_entry(&controls),
            bus_locks: value(Field::BusLockCounter) as u16,
            int_ctl: controls.int_ctl,
            int_vector: value(Field::IntVector) as u8,
            host_pat: cpu.msrs.pat,
            host_speculation: cpu.msrs.spec_ctrl,
            host_interrupts: cpu.rflags().contains(RFlags::IF),
            virtual_gif: self.enables(controls.int_ctl, Feature::VirtualGif, IntCtl::V_GIF_ENABLE),
            virtual_nmi: self.enables(controls.int_ctl, Feature::VirtualNmi, IntCtl::V_NMI_ENABLE),
            host_nmi_blocked: cpu.nmi_blocked,
            virtual_branches: self.processor.has(Feature::LbrVirtualization)
                && controls.virt_ext.contains(VirtExt::LBR_ENABLE),
            avic: controls.is_avic().then(|| Avic::of(vmcb, &controls)),
            encrypted,
        });
        if let Verdict::Refused(rule) = verdict {
            ctx.emit(cpu, Payload::EntryFailed { vendor: Vendor::Amd, code: rule.report.0, detail: 0 });
            self.refuse(cpu, ctx, rule.report);
            return;
        }
        let mut published = self.publish_guest(cpu, vmcb);
        crate::rules::canonicalize(vmcb, &self.processor);
        if let Some(encrypted) = self.running.as_ref().and_then(|running| running.encrypted.as_ref()) {
            encrypted.enter(cpu, ctx);
        }
        state::load_guest(cpu, vmcb);
        let value = |field| vmcb.get(field).unwrap_or(0);
        if controls.nested.contains(NestedControl::NP_ENABLE) {
            cpu.msrs.pat = value(Field::GPat);
        }
        if self.processor.has(Feature::VirtualSpecCtrl) {
            // APM Vol. 2 "SPEC_CTRL Virtualization". What is in effect is the OR of both registers; nothing here speculates.
            cpu.msrs.spec_ctrl = value(Field::SpecCtrl) & speculation_bits(&cpu.model);
        }
        if let Some(running) = &self.running {
            if running.virtual_branches {
                state::load_branches(cpu, vmcb);
            }
            if running.virtual_nmi {
                cpu.nmi_blocked = running.int_ctl.contains(IntCtl::V_NMI_MASK);
            }
        }
        if let Some(avic) = self.running.as_ref().and_then(|running| running.avic) {
            published.virtual_tpr = Some((avic.get(ctx.memory, register::TPR) >> 4 & 15) as u8);
            published.tpr_is_shared = false;
        }
        cpu.activity = Activity::Active;
        let asid = value(Field::Asid) as u32;
        match TlbControl::from_byte(value(Field::TlbControl) as u8) {
            Some(TlbControl::FlushAll) => cpu.tlb.flush_all(),
            Some(TlbControl::FlushGuest) => cpu.tlb.flush_space(asid),
            Some(TlbControl::FlushGuestNonGlobal) => cpu.tlb.flush_non_global(asid),
            Some(TlbControl::Nothing) | None => {}
        }
        self.gif = true;
        cpu.interrupts.doorbell = false;
        cpu.published = published;
        if cpu.reload_pdptes(ctx.memory).is_err() {
            self.refuse(cpu, ctx, ExitCode::INVALID);
            return;
        }
        let injection = value(Field::EventInj) | value(Field::EventInjError) << 32;
        cpu.injected = self.injection(vmcb, EventInfo(injection));
        self.publish_gates(cpu);
        ctx.emit(cpu, Payload::Entry { vendor: Vendor::Amd, rip: cpu.rip, injection });
    }

    /// VMRUN exits at once: the guest's state is not touched.
    fn refuse(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, code: ExitCode) {
        let Some(running) = self.running.take() else { return };
        if running.virtual_nmi {
            cpu.nmi_blocked = running.host_nmi_blocked;
        }
        cpu.msrs.pat = running.host_pat;
        cpu.msrs.spec_ctrl = running.host_speculation;
        let exit = Exit { code, info1: 0, info2: 0, next_rip: 0, id: "svm.vmrun.refused" };
        super::vmexit::record(&mut Page::new(ctx.memory, running.vmcb), &exit, EventInfo::NONE);
        self.return_to_host(cpu, ctx, false);
    }

    fn publish_guest(&self, cpu: &Cpu, vmcb: &Vmcb) -> Published {
        let value = |field| vmcb.get(field).unwrap_or(0);
        let Some(running) = &self.running else { return cpu.published };
        let controls = &running.controls;
        let nested =
            self.processor.has(Feature::NestedPaging) && controls.nested.contains(NestedControl::NP_ENABLE);
        let second_stage = if nested {
            // The mode is the host's at VMRUN, never the guest's.
            SecondStage::Npt(Npt {
                root: HostPhysical(value(Field::NestedCr3) & 0x000f_ffff_ffff_ffe0),
                mode: PagingMode::of(cpu.cr0, cpu.cr4, cpu.efer),
                no_execute: cpu.efer.contains(Efer::NXE),
                smep: cpu.cr4.contains(Cr4::SMEP),
                execute_trap: self.processor.has(Feature::Gmet)
                    && controls.nested.contains(NestedControl::GMET_ENABLE),
                huge_pages: cpu.model.has(Feature::Page1Gb),
                physical_width: cpu.model.physical_width(),
                c_bit: cpu.host_c_bit(),
            })
        } else {
            SecondStage::None
        };
        Published {
            intercepts: self.interest.1,
            guest: true,
            level: self.guest_level(),
            second_stage,
            space: value(Field::Asid) as u32,
            c_bit: if controls.is_sev() { cpu.host_c_bit() } else { 0 },
            tsc_offset: value(Field::TscOffset),
            tsc_ratio: TscRatio { multiplier: self.tsc_ratio, shift: 32 },
            // "Virtualizing APIC.TPR": without V_INTR_MASKING, CR8 is the APIC's priority, and writes change V_TPR too.
            virtual_tpr: Some(controls.int_ctl.v_tpr()),
            tpr_is_shared: !controls.int_ctl.contains(IntCtl::V_INTR_MASKING),
            apic_access: running.avic.and_then(|avic| avic.window()),
            ..Published::default()
        }
    }

    /// The event that EVENTINJ asks for.
    fn injection(&self, vmcb: &Vmcb, event: EventInfo) -> Option<Delivery> {
        if !event.is_valid() {
            return None;
        }
        let number = event.vector();
        let kind = match event.kind()? {
            EventKind::Interrupt => DeliveryKind::External,
            EventKind::Nmi => DeliveryKind::Nmi,
            EventKind::Exception if matches!(number, vector::BP | vector::OF) => {
                DeliveryKind::SoftwareException
            }
            EventKind::Exception => DeliveryKind::Hardware,
            EventKind::SoftwareInterrupt => DeliveryKind::Software,
        };
        let vector = if kind == DeliveryKind::Nmi { vector::NMI } else { number };
        // An injected software interrupt returns to nRIP where the processor saves it.
        let next = self.processor.has(Feature::NripSave) && kind == DeliveryKind::Software;
        let return_rip = if next { vmcb.get(Field::NextRip) } else { None };
        let detail = if number == vector::PF { vmcb.get(Field::Cr2).unwrap_or(0) } else { 0 };
        let plain = Delivery::interruption(kind, vector);
        let resumes = kind == DeliveryKind::Hardware && vector != vector::DB;
        Some(Delivery { error_code: event.error_code(), return_rip, detail, resumes, ..plain })
    }
}
