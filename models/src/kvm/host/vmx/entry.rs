//! VM entry by L1: the checks, vmcs02 from vmcs12, and the switch.

use rootmode_arch::record::{Level, Payload};
use rootmode_arch::{Efer, Feature, GuestPhysical, HostPhysical, Linear, Vendor, msr, vector};
use rootmode_vmx::context::{EntryContext, Item, Memory, Processor};
use rootmode_vmx::definitions::controls::Word;
use rootmode_vmx::definitions::field::Kind;
use rootmode_vmx::rules::{Group, Report, check_entry};
use rootmode_vmx::{
    EntryControls, ExitControls, ExitReason, Field, InstructionError, PinControls, PrimaryControls,
    SecondaryControls,
};

use super::super::backend::Nested;
use super::super::machine::HostBug;
use super::super::point::Point;
use super::nested::End;
use super::operands::OperandFault;
use super::{EPTP_BITS, VPID02, VmxVcpu, setup};
use crate::kvm::Regression;
use crate::kvm::nested::{VirtualApic, Vmcs12};
use crate::kvm::slots::Reader;

impl Memory for Reader<'_> {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        self.quadword(address.0)
    }
}

/// Controls that come from vmcs12 alone, never from L0.
const SECONDARY_FROM_L1: u32 = SecondaryControls::VIRTUALIZE_APIC_ACCESSES.0
    | SecondaryControls::ENABLE_RDTSCP.0
    | SecondaryControls::ENABLE_INVPCID.0
    | SecondaryControls::DESCRIPTOR_TABLE_EXITING.0
    | SecondaryControls::WBINVD_EXITING.0
    | SecondaryControls::UNRESTRICTED_GUEST.0
    | SecondaryControls::RDRAND_EXITING.0
    | SecondaryControls::RDSEED_EXITING.0
    | SecondaryControls::USE_TSC_SCALING.0;

impl VmxVcpu {
    fn word12<T>(&self, field: Field, word: fn(u32) -> T) -> T {
        word(self.nested.vmcs12.value(field) as u32)
    }

    /// Whether L1 turned these secondary controls on, and activated them.
    pub(super) fn secondary12(&self, controls: SecondaryControls) -> bool {
        self.word12(Field::PrimaryControls, PrimaryControls).contains(PrimaryControls::ACTIVATE_SECONDARY)
            && self.word12(Field::SecondaryControls, SecondaryControls).contains(controls)
    }

    pub(super) async fn nested_entry(&mut self, resume: bool) -> Result<End, HostBug> {
        self.before_guest_memory().await;
        let blocking = self.vmread(Field::GuestInterruptibility)?;
        let long_mode = Efer(self.vmread(Field::GuestEfer)?).contains(Efer::LMA);
        let refusal = self.check12(resume, blocking, long_mode);
        self.point(Point::NestedEntry).await?;
        // Segment registers are looked at last, in vmcs02.
        let segments = !matches!(refusal, Some((Group::GuestSegments, _)));
        if let Some((_, report)) = refusal.filter(|_| segments) {
            return self.refuse12(report).await;
        }
        if !self.prepare_vmcs02(true).await? {
            return self.pages_missing().await;
        }
        self.nested.running = true;
        self.nested.pending = true;
        if !self.takes_segments(segments)? {
            self.leave_guest_mode().await?;
            // Other checks have numbers of their own.
            let link_pointer = self.config.regressions.has(Regression::SegmentsHaveQualification);
            let qualification = if link_pointer { 4 } else { 0 };
            let reason = ExitReason::INVALID_GUEST_STATE;
            return self.refuse12(Report::Exit { reason, qualification }).await;
        }
        for number in 0..self.nested.vmcs12.value(Field::EntryMsrLoadCount) {
            if !self.load_msr12(Field::EntryMsrLoadAddress, number)? {
                self.leave_guest_mode().await?;
                let report = Report::Exit { reason: ExitReason::MSR_LOADING, qualification: number + 1 };
                return self.refuse12(report).await;
            }
        }
        self.nested.launched = true;
        let injection = self.nested.vmcs12.value(Field::EntryInterruptionInfo);
        let rip = self.nested.vmcs12.value(Field::GuestRip);
        self.m().emit(Level::L2, Payload::Entry { vendor: Vendor::Intel, rip, injection });
        Ok(End::Over(Nested::Resumes))
    }

    /// The entry is undone after the vCPU has entered guest mode.
    async fn leave_guest_mode(&mut self) -> Result<(), HostBug> {
        self.nested.running = self.config.regressions.has(Regression::GuestModeStays);
        self.nested.pending = false;
        self.load_vmcs(false).await
    }

    /// A page that vmcs12 names is nowhere: the client is told, and L1 is as before its instruction.
    async fn pages_missing(&mut self) -> Result<End, HostBug> {
        if !self.config.regressions.has(Regression::Vmcs01NotReloaded) {
            self.load_vmcs(false).await?;
        }
        Ok(End::Over(Nested::Missing))
    }

    /// The rule that vmcs12 breaks, by its section, and what the processor does about it.
    pub(super) fn check12(&self, resume: bool, blocking: u64, long_mode: bool) -> Option<(Group, Report)> {
        let la57 = self.model.has(Feature::La57);
        let mut processor = Processor::unknown()
            .with(Item::PhysicalWidth, self.model.physical_width().into())
            .with(Item::LinearWidth, if la57 { 57 } else { 48 })
            .with(Item::LongModeActive, long_mode.into())
            .with(Item::InVmxRoot, 1)
            .with(Item::CompatibilityOrVirtual, 0)
            .with(Item::Cpl, 0)
            .with(Item::CurrentVmcs, self.nested.current.map_or(u64::MAX, |current| current.0))
            .with(Item::CurrentIsShadow, 0)
            .with(Item::MovSsBlocking, blocking >> 1 & 1)
            .with(Item::IsResume, resume.into())
            .with(Item::Launched, self.nested.launched.into())
            .with(Item::InSmm, 0)
            .with(Item::TraceEnabled, 0)
            .with(Item::NmiNeedsNoSti, 0)
            .with(Item::PerfGlobalMask, 0)
            .with(Item::RtitCtlMask, 0);
        processor.set_features(*self.model.features());
        let mut m = self.m();
        let memory = m.l1();
        let context = EntryContext {
            vmcs: &self.nested.vmcs12,
            capabilities: &self.offered,
            processor: &processor,
            memory: &memory,
        };
        check_entry(&context).err().map(|refusal| (refusal.rule.group, refusal.report))
    }

    /// L1's entry fails: an exception, VMfail, or an exit with bit 31 of the reason.
    async fn refuse12(&mut self, report: Report) -> Result<End, HostBug> {
        let (code, detail, end) = match report {
            Report::Exception(vector::UD) => return Ok(fault(vector::UD)),
            Report::Exception(_) => return Ok(fault(vector::GP)),
            Report::FailInvalid => (0, 0, End::Invalid),
            Report::Fail(error)
                if error == InstructionError::ENTRY_CONTROLS
                    && self.config.regressions.has(Regression::ControlsFailAsExit) =>
            {
                (
                    u64::from(ExitReason::INVALID_GUEST_STATE.0) | u64::from(ExitReason::ENTRY_FAILURE),
                    0,
                    End::Over(Nested::Resumes),
                )
            }
            Report::Fail(error) => (error.0.into(), 0, End::Fail(error)),
            Report::Exit { reason, qualification } => {
                let code = u64::from(reason.0) | u64::from(ExitReason::ENTRY_FAILURE);
                (code, qualification, End::Over(Nested::Resumes))
            }
        };
        self.m().emit(Level::L1, Payload::EntryFailed { vendor: Vendor::Intel, code, detail });
        if matches!(end, End::Over(_)) {
            self.nested.vmcs12.set(Field::ExitReason, code);
            self.nested.vmcs12.set(Field::ExitQualification, detail);
            return Ok(End::Over(self.load_host12().await?));
        }
        Ok(end)
    }

    /// Fills vmcs02 from vmcs12 and what L0 wants, and makes it current. `enters`: L1 executes the entry now, so what it says
    /// is loaded and injected; otherwise that has happened before. False: a page that vmcs12 names is missing.
    pub(super) async fn prepare_vmcs02(&mut self, enters: bool) -> Result<bool, HostBug> {
        let inherited = [Field::GuestEfer, Field::GuestPat, Field::GuestDr7, Field::GuestDebugCtl];
        let mut of_l1 = [0; 4];
        for (value, field) in of_l1.iter_mut().zip(inherited) {
            *value = self.vmread(field)?;
        }
        let (tsc_offset, eptp01) = (self.vmread(Field::TscOffset)?, self.vmread(Field::Eptp)?);
        let use_bitmap = self.prepare_bitmap();
        let eptp = if self.secondary12(SecondaryControls::ENABLE_EPT) { self.shadow_eptp()? } else { eptp01 };
        self.load_vmcs(true).await?;
        if let Some(page) = self.apic_page12() {
            let Some(host) = page else { return Ok(false) };
            self.vmwrite(Field::ApicAccessAddress, host.0)?;
        }
        for field in Field::ALL.into_iter().filter(|field| field.kind() == Kind::Guest) {
            if self.fields12.has(field) {
                self.vmwrite(field, self.nested.vmcs12.value(field))?;
            }
        }
        if !self.config.regressions.has(Regression::SegmentCacheNotCleared) {
            self.cache().forget_segments();
        }
        self.inherited_state(of_l1, enters)?;
        self.controls02(use_bitmap, enters)?;
        for (field, value) in [
            (Field::Eptp, eptp),
            (Field::Vpid, VPID02),
            (Field::TscOffset, self.tsc_offset02(tsc_offset)),
            (Field::LinkPointer, u64::MAX),
        ] {
            self.vmwrite(field, value)?;
        }
        let vpid12 =
            self.secondary12(SecondaryControls::ENABLE_VPID).then(|| self.nested.vmcs12.value(Field::Vpid));
        if vpid12.is_none() || vpid12 != self.nested.vpid12 {
            self.flush_vpid02()?;
        }
        self.nested.vpid12 = vpid12;
        Ok(true)
    }

    /// Where the APIC-access page that vmcs12 names is, if it names one; inside, `None` if it is nowhere.
    pub(super) fn apic_page12(&self) -> Option<Option<HostPhysical>> {
        let named = self.secondary12(SecondaryControls::VIRTUALIZE_APIC_ACCESSES);
        let page = GuestPhysical(self.nested.vmcs12.value(Field::ApicAccessAddress));
        named.then(|| self.m().place(page, true))
    }

    /// What L2 starts with where vmcs12 does not say: L1's values.
    fn inherited_state(&self, [efer, pat, dr7, debugctl]: [u64; 4], enters: bool) -> Result<(), HostBug> {
        let entry = self.word12(Field::EntryControls, EntryControls);
        let loads = |control| enters && entry.contains(control);
        if !loads(EntryControls::LOAD_EFER) {
            let long = entry.contains(EntryControls::IA32E_MODE_GUEST);
            self.vmwrite(Field::GuestEfer, Efer(efer).set(Efer::LMA, long).set(Efer::LME, long).0)?;
        }
        if !loads(EntryControls::LOAD_PAT) {
            self.vmwrite(Field::GuestPat, pat)?;
        }
        if !loads(EntryControls::LOAD_DEBUG_CONTROLS) {
            self.vmwrite(Field::GuestDr7, dr7)?;
            self.vmwrite(Field::GuestDebugCtl, debugctl)?;
        }
        Ok(())
    }

    fn tsc_offset02(&self, tsc_offset01: u64) -> u64 {
        let primary = self.word12(Field::PrimaryControls, PrimaryControls);
        let own = primary.contains(PrimaryControls::USE_TSC_OFFSETTING);
        tsc_offset01.wrapping_add(if own { self.nested.vmcs12.value(Field::TscOffset) } else { 0 })
    }

    /// L0's controls and L1's, united.
    fn controls02(&mut self, use_bitmap: bool, enters: bool) -> Result<(), HostBug> {
        let pin12 = self.word12(Field::PinControls, PinControls);
        let injects_nmi = self.nested.vmcs12.value(Field::EntryInterruptionInfo) >> 8 & 7 == 2;
        // NMIs that are L2's own are L0's to inject. One that is injected while NMIs are blocked has to go in first.
        let virtual_nmis = !pin12.contains(PinControls::NMI_EXITING) && !injects_nmi;
        let pin = pin12.0 | setup::PIN | if virtual_nmis { PinControls::VIRTUAL_NMIS.0 } else { 0 };
        let vmcs12 = &self.nested.vmcs12;
        // Ports and MSRs exit to L0, which asks L1's bitmaps.
        let from_l1 = self
            .word12(Field::PrimaryControls, PrimaryControls)
            .without(PrimaryControls::USE_IO_BITMAPS | PrimaryControls::USE_MSR_BITMAPS);
        let bitmap = if use_bitmap { PrimaryControls::USE_MSR_BITMAPS.0 } else { 0 };
        let primary = from_l1.0 | setup::PRIMARY | bitmap;
        let secondary12 = if from_l1.contains(PrimaryControls::ACTIVATE_SECONDARY) {
            vmcs12.value(Field::SecondaryControls) as u32 & SECONDARY_FROM_L1
        } else {
            0
        };
        let secondary = secondary12 | (SecondaryControls::ENABLE_EPT | SecondaryControls::ENABLE_VPID).0;
        let ia32e = vmcs12.value(Field::EntryControls) as u32 & EntryControls::IA32E_MODE_GUEST.0;
        // The timer goes on where it stopped after exits that L1 does not see.
        let timer = if pin & PinControls::PREEMPTION_TIMER.0 != 0 {
            ExitControls::SAVE_PREEMPTION_TIMER.0
        } else {
            0
        };
        let primary02 = self.allowed(Word::Primary, primary);
        for (field, value) in [
            (Field::PinControls, self.allowed(Word::Pin, pin)),
            (Field::PrimaryControls, primary02),
            (Field::SecondaryControls, self.allowed(Word::Secondary, secondary)),
            (Field::EntryControls, self.allowed(Word::Entry, setup::ENTRY | ia32e)),
            (Field::ExitControls, self.allowed(Word::Exit, setup::EXIT | timer)),
        ] {
            self.vmwrite(field, value)?;
        }
        for field in [
            Field::ExceptionBitmap,
            Field::PageFaultErrorMask,
            Field::PageFaultErrorMatch,
            Field::Cr0Mask,
            Field::Cr0Shadow,
            Field::Cr4Mask,
            Field::Cr4Shadow,
            Field::Cr3TargetCount,
            Field::Cr3Target0,
            Field::Cr3Target1,
            Field::Cr3Target2,
            Field::Cr3Target3,
            Field::TscMultiplier,
            Field::EntryInterruptionInfo,
            Field::EntryErrorCode,
            Field::EntryInstructionLength,
        ] {
            self.vmwrite(field, vmcs12.value(field))?;
        }
        if !enters {
            self.vmwrite(Field::EntryInterruptionInfo, 0)?;
        }
        self.nested.primary02 = primary;
        Ok(())
    }

    /// The MSR bitmap that L2 runs under; whether there is one.
    fn prepare_bitmap(&mut self) -> bool {
        let primary = self.word12(Field::PrimaryControls, PrimaryControls);
        let vmcs12 = Vmcs12 {
            use_bitmaps: primary.contains(PrimaryControls::USE_MSR_BITMAPS),
            bitmap: self.nested.vmcs12.value(Field::MsrBitmap),
            apic: VirtualApic::default(),
            enlightened: false,
            clean: false,
        };
        let mut m = self.machine.lock().expect("no task panics while it holds the machine");
        m.current = self.processor;
        let in_use = self.nested_bitmap.prepare(
            &mut self.intercepts,
            &vmcs12,
            self.config.kernel,
            &mut m.l1(),
            self.config.regressions,
        );
        let page = *self.nested_bitmap.map.as_page();
        m.board.memory.write(self.bitmap02, &page);
        in_use
    }

    /// The shadow of the tables that vmcs12 names; a new, empty one if they are others than before.
    fn shadow_eptp(&mut self) -> Result<u64, HostBug> {
        let eptp12 = self.nested.vmcs12.value(Field::Eptp);
        if self.nested.shadow_of != Some(eptp12) {
            self.drop_shadow()?;
            self.nested.shadow_of = Some(eptp12);
        }
        let root = self.m().shadow_root(Self::VENDOR)?;
        // With accessed and dirty flags, walks of L2's own tables count as writes.
        Ok(root.0 | EPTP_BITS | eptp12 & 1 << 6)
    }

    /// Entry `number` of an MSR-load area of vmcs12; false if it is refused.
    pub(super) fn load_msr12(&mut self, area: Field, number: u64) -> Result<bool, HostBug> {
        let at = self.nested.vmcs12.value(area).wrapping_add(16 * number);
        let (index, value) = {
            let mut m = self.m();
            (m.l1().quadword(at), m.l1().quadword(at.wrapping_add(8)))
        };
        let (Some(index), Some(value)) = (index, value) else { return Ok(false) };
        let forbidden =
            matches!(index as u32, msr::IA32_FS_BASE | msr::IA32_GS_BASE) || index as u32 >> 8 == 8;
        if index >> 32 != 0 || forbidden {
            return Ok(false);
        }
        Ok(self.write_msr(index as u32, value)?.is_some())
    }
}

const fn fault(vector: u8) -> End {
    End::Fault(OperandFault { vector, code: 0, address: Linear(0) })
}
