//! [`Backend`] on VMX: a vCPU whose run loop is somebody else's.

use std::sync::Arc;

use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{
    AccessRights, Cr0, Cr4, DescriptorTable, Efer, Feature, Gpr, GuestPhysical, HostPhysical, RFlags,
    SegmentName, vector,
};
use rootmode_cpu::{DeliveryKind, Instruction, Model};
use rootmode_vmx::definitions::controls::Word;
use rootmode_vmx::drive::{offered, segment_fields};
use rootmode_vmx::qualification::{
    CrAccess, CrAccessKind, DebugQualification, EptViolation, Io, LinearAccess, MovDr,
};
use rootmode_vmx::{
    EntryControls, ExitControls, ExitReason, Field, PinControls, PrimaryControls, SecondaryControls,
};

use super::super::backend::{
    Arrival, Backend, Cause, Debugging, Entry, Exit, Injection, Nested, Own, Shadowed, Task, Touched,
};
use super::super::machine::HostBug;
use super::super::nested_state::NestedState;
use super::super::second_stage::Refused;
use super::super::state::State;
use super::nested::FIXED_CR0;
use super::{EPTP_BITS, VmxVcpu, nested_capabilities, setup};
use crate::kvm::interception::{Cause as Why, Configuration};
use crate::kvm::{Errno, Filter};

/// CR8 is the local APIC's.
const CR8: u32 = PrimaryControls::CR8_LOAD_EXITING.0 | PrimaryControls::CR8_STORE_EXITING.0;

/// CR0, CR3 and CR8 exits that a VM's clients need, beyond what L0 always wants.
const PRIMARY: u32 = setup::PRIMARY | PrimaryControls::USE_MSR_BITMAPS.0 | CR8;

/// The activity state HLT.
const ACTIVITY_HLT: u64 = 1;
/// Interruptibility: STI, MOV SS, NMI.
const STI: u64 = 1;
const MOV_SS: u64 = 2;
const NMI: u64 = 8;

/// Bit 31 of an interruption-information field.
const VALID: u64 = 1 << 31;
/// Bit 11: an error code is delivered.
const WITH_CODE: u64 = 1 << 11;

impl VmxVcpu {
    /// An interruption-information field with its error code and length, if it is valid.
    fn event(&self, info: Field, code: Field, length: Field) -> Result<Option<Injection>, HostBug> {
        let word = self.vmread(info)?;
        if word & VALID == 0 {
            return Ok(None);
        }
        let kind = match word >> 8 & 7 {
            0 => DeliveryKind::External,
            2 => DeliveryKind::Nmi,
            4 => DeliveryKind::Software,
            5 => DeliveryKind::Privileged,
            6 => DeliveryKind::SoftwareException,
            _ => DeliveryKind::Hardware,
        };
        let error_code = if word & WITH_CODE != 0 { Some(self.vmread(code)? as u32) } else { None };
        let software = matches!(
            kind,
            DeliveryKind::Software | DeliveryKind::Privileged | DeliveryKind::SoftwareException
        );
        let length = if software { self.vmread(length)? as u8 } else { 0 };
        Ok(Some(Injection { kind, vector: word as u8, error_code, length }))
    }

    fn cause(&self, reason: ExitReason) -> Result<Cause, HostBug> {
        let nested = if self.nested.running {
            self.belongs_to_l1(reason)?
        } else {
            reason.is_vmx_instruction() && reason != ExitReason::VMCALL
        };
        if nested {
            return Ok(Cause::Nested);
        }
        let qualification = self.vmread(Field::ExitQualification)?;
        Ok(match reason {
            ExitReason::CPUID => Cause::Cpuid,
            ExitReason::HLT => Cause::Hlt,
            ExitReason::RDMSR => Cause::Rdmsr,
            ExitReason::WRMSR => Cause::Wrmsr,
            ExitReason::VMCALL => Cause::Hypercall,
            ExitReason::TRIPLE_FAULT => Cause::Shutdown,
            ExitReason::EXTERNAL_INTERRUPT => Cause::HostInterrupt,
            ExitReason::INTERRUPT_WINDOW => Cause::InterruptWindow,
            ExitReason::NMI_WINDOW => Cause::NmiWindow,
            ExitReason::XSETBV => Cause::Xsetbv,
            ExitReason::INVD | ExitReason::WBINVD => Cause::CacheFlush,
            ExitReason::MONITOR | ExitReason::MWAIT | ExitReason::PAUSE => Cause::Idle,
            ExitReason::IO_INSTRUCTION => match Io::decode(qualification) {
                Some(Io { port, size, input, string, .. }) => Cause::Port { port, size, input, string },
                None => Cause::Unmodelled { reason: reason.0.into() },
            },
            ExitReason::EPT_VIOLATION => Cause::SecondStage(Touched {
                address: GuestPhysical(self.vmread(Field::GuestPhysicalAddress)?),
                write: qualification & 2 != 0,
            }),
            ExitReason::EXCEPTION_OR_NMI => {
                let fields = [
                    Field::ExitInterruptionInfo,
                    Field::ExitInterruptionErrorCode,
                    Field::ExitInstructionLength,
                ];
                match self.event(fields[0], fields[1], fields[2])? {
                    Some(Injection { kind: DeliveryKind::Nmi, .. }) => Cause::HostNmi,
                    Some(event) if event.vector == vector::DB => {
                        Cause::Debug { causes: DebugQualification::decode(qualification).encode() }
                    }
                    Some(event) => Cause::Exception { vector: event.vector, code: event.error_code },
                    None => Cause::Unmodelled { reason: reason.0.into() },
                }
            }
            ExitReason::CR_ACCESS => {
                let CrAccess { cr, kind } = CrAccess::decode(qualification);
                match kind {
                    CrAccessKind::MovTo(gpr) if cr == 8 => {
                        Cause::WriteCr8 { value: Backend::gpr(self, gpr)? }
                    }
                    CrAccessKind::MovFrom(gpr) => Cause::ReadCr8 { gpr },
                    _ => Cause::WriteCr,
                }
            }
            ExitReason::MOV_DR => match MovDr::decode(qualification) {
                MovDr { dr, read: true, gpr } => Cause::ReadDr { dr, gpr },
                MovDr { dr, gpr, .. } => Cause::WriteDr { dr, value: Backend::gpr(self, gpr)? },
            },
            ExitReason::GETSEC => Cause::Undefined,
            _ => Cause::Unmodelled { reason: reason.0.into() },
        })
    }

    /// CR0 and CR4 with their shadows; a guest never runs without CR0.NE and CR4.VMXE.
    fn store_control_registers(&self, cr0: u64, cr4: u64) -> Result<(), HostBug> {
        if self.nested.running {
            // The shadows are L1's.
            self.vmwrite(Field::GuestCr0, cr0)?;
            return self.vmwrite(Field::GuestCr4, cr4);
        }
        for (field, value) in [
            (Field::GuestCr0, cr0 | Cr0::NE.0),
            (Field::Cr0Shadow, cr0),
            (Field::GuestCr4, cr4 | Cr4::VMXE.0),
            (Field::Cr4Shadow, cr4),
        ] {
            self.vmwrite(field, value)?;
        }
        Ok(())
    }

    /// The processor serves the debugger until the guest is left.
    fn start_debugging(&mut self, debug: &Debugging) -> Result<(), HostBug> {
        if *debug == Debugging::default() && self.debugged.is_none() {
            return Ok(());
        }
        let exceptions = u64::from(debug.traps) << vector::DB | u64::from(debug.breakpoints) << vector::BP;
        let of_l1 = if self.nested.running { self.nested.vmcs12.value(Field::ExceptionBitmap) } else { 0 };
        self.vmwrite(Field::ExceptionBitmap, exceptions | of_l1)?;
        let flags = self.vmread(Field::GuestRflags)?;
        let mut own = Own::default();
        if debug.single_step {
            // A shadow with TF would ask for a debug exception that is pending.
            self.vmwrite(
                Field::GuestInterruptibility,
                self.vmread(Field::GuestInterruptibility)? & !(STI | MOV_SS),
            )?;
            self.vmwrite(Field::GuestRflags, flags | RFlags::TF.0)?;
            own.trap_flag = Some(flags & RFlags::TF.0);
        }
        if let Some((registers, dr7)) = debug.registers {
            let guests = std::mem::replace(&mut self.m().cpu_mut().dr, registers);
            own.registers = Some((guests, self.vmread(Field::GuestDr7)?));
            self.vmwrite(Field::GuestDr7, dr7)?;
        }
        self.debugged = (*debug != Debugging::default()).then_some(own);
        Ok(())
    }

    /// The guest has its own again.
    fn stop_debugging(&mut self) -> Result<(), HostBug> {
        let Some(Own { trap_flag, registers }) = self.debugged else { return Ok(()) };
        if trap_flag == Some(0) {
            self.vmwrite(Field::GuestRflags, self.vmread(Field::GuestRflags)? & !RFlags::TF.0)?;
        }
        if let Some((guests, dr7)) = registers {
            self.m().cpu_mut().dr = guests;
            self.vmwrite(Field::GuestDr7, dr7)?;
        }
        // The next entry without a debugger still has the exceptions' exits to take away.
        self.debugged = Some(Own::default());
        Ok(())
    }

    pub(super) fn behind_mask(&self, register: Field, mask: Field, shadow: Field) -> Result<u64, HostBug> {
        let mask = self.vmread(mask)?;
        Ok(self.vmread(register)? & !mask | self.vmread(shadow)? & mask)
    }
}

/// The exit qualification of an EPT violation by an access that L0 makes for L2.
fn qualification(access: &GuestPhysicalAccess) -> u64 {
    let linear = match access.linear {
        None => LinearAccess::None,
        Some(_) if access.table_walk => LinearAccess::TableWalk,
        Some(_) => LinearAccess::Final { user: false, writable: false, execute_disable: false },
    };
    EptViolation {
        read: access.read,
        write: access.write,
        fetch: access.fetch,
        permissions: 0,
        linear,
        nmi_unblocking: false,
        shadow_stack: false,
        supervisor_shadow_stack: false,
        paging_verification: false,
        asynchronous: false,
    }
    .encode()
}

impl Backend for VmxVcpu {
    fn load(&mut self, state: &State) -> Result<(), HostBug> {
        if !self.nested.running {
            // With them, an NMI window can be asked for, and NMIs that are injected block others until IRET.
            let pin = setup::PIN | PinControls::VIRTUAL_NMIS.0;
            self.vmwrite(Field::PinControls, self.allowed(Word::Pin, pin))?;
        }
        self.start_state(state)?;
        self.store_control_registers(state.cr0, state.cr4)?;
        let blocking = u64::from(state.sti_shadow) * STI
            | u64::from(state.mov_ss_shadow) * MOV_SS
            | u64::from(state.nmi_blocked) * NMI;
        self.vmwrite(Field::GuestInterruptibility, blocking)?;
        let long = if state.efer & Efer::LMA.0 != 0 { EntryControls::IA32E_MODE_GUEST.0 } else { 0 };
        self.vmwrite(Field::EntryControls, self.allowed(Word::Entry, setup::ENTRY | long))?;
        for (field, value) in [Field::GuestPdpte0, Field::GuestPdpte1, Field::GuestPdpte2, Field::GuestPdpte3]
            .into_iter()
            .zip(state.pdptes)
        {
            self.vmwrite(field, value)?;
        }
        let mut m = self.m();
        let cpu = m.cpu_mut();
        (cpu.gpr, cpu.cr2, cpu.dr6) = (state.gpr, state.cr2, state.dr6);
        Ok(())
    }

    fn save(&self) -> Result<State, HostBug> {
        let mut state = {
            let m = self.m();
            State::of(m.cpu())
        };
        for name in SegmentName::ALL {
            let [selector, limit, rights, base] = segment_fields(name);
            let segment = &mut state.segments[name as usize];
            segment.selector = rootmode_arch::Selector(self.vmread(selector)? as u16);
            segment.limit = self.vmread(limit)? as u32;
            segment.rights = AccessRights(self.vmread(rights)? as u32);
            segment.base = self.vmread(base)?;
        }
        state.cpl = state.segment(SegmentName::Ss).rights.dpl();
        state.gpr[Gpr::Rsp as usize] = self.vmread(Field::GuestRsp)?;
        state.rip = self.vmread(Field::GuestRip)?;
        state.rflags = self.vmread(Field::GuestRflags)?;
        state.gdtr = DescriptorTable {
            base: self.vmread(Field::GuestGdtrBase)?,
            limit: self.vmread(Field::GuestGdtrLimit)? as u16,
        };
        state.idtr = DescriptorTable {
            base: self.vmread(Field::GuestIdtrBase)?,
            limit: self.vmread(Field::GuestIdtrLimit)? as u16,
        };
        (state.cr0, state.cr4) = if self.nested.running {
            (self.vmread(Field::GuestCr0)?, self.vmread(Field::GuestCr4)?)
        } else {
            (self.behind_mask(Field::GuestCr0, Field::Cr0Mask, Field::Cr0Shadow)?, self.cr4_of_l1()?.0)
        };
        state.cr3 = self.vmread(Field::GuestCr3)?;
        state.efer = self.vmread(Field::GuestEfer)?;
        state.dr7 = self.vmread(Field::GuestDr7)?;
        state.pat = self.vmread(Field::GuestPat)?;
        for (pdpte, field) in state.pdptes.iter_mut().zip([
            Field::GuestPdpte0,
            Field::GuestPdpte1,
            Field::GuestPdpte2,
            Field::GuestPdpte3,
        ]) {
            *pdpte = self.vmread(field)?;
        }
        state.sysenter = [
            self.vmread(Field::GuestSysenterCs)?,
            self.vmread(Field::GuestSysenterEsp)?,
            self.vmread(Field::GuestSysenterEip)?,
        ];
        let blocking = self.vmread(Field::GuestInterruptibility)?;
        state.sti_shadow = blocking & STI != 0;
        state.mov_ss_shadow = blocking & MOV_SS != 0;
        state.nmi_blocked = blocking & NMI != 0;
        Ok(state)
    }

    fn accepts(&self) -> Result<(bool, bool), HostBug> {
        let blocking = self.vmread(Field::GuestInterruptibility)?;
        let enabled = self.vmread(Field::GuestRflags)? & RFlags::IF.0 != 0;
        let shadow = blocking & (STI | MOV_SS) != 0;
        let exits = |arrival| self.nested.running && self.l1_takes(arrival);
        Ok((
            enabled && !shadow && !exits(Arrival::Interrupt(None)),
            !shadow && blocking & NMI == 0 && !exits(Arrival::Nmi),
        ))
    }

    fn nest(&mut self) -> Task<'_, Result<Nested, HostBug>> {
        Box::pin(async {
            let reason = ExitReason(self.vmread(Field::ExitReason)? as u16);
            if self.nested.running {
                self.nested_exit(reason).await
            } else {
                self.nested_instruction(reason).await
            }
        })
    }

    fn in_l2(&self) -> bool {
        self.nested.running
    }

    fn entry_pending(&self) -> bool {
        self.nested.pending
    }

    fn reaches_l1(&self, arrival: Arrival) -> Result<bool, HostBug> {
        Ok(self.l1_takes(arrival))
    }

    fn acknowledges(&self) -> bool {
        let exit = ExitControls(self.nested.vmcs12.value(Field::ExitControls) as u32);
        exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT)
    }

    fn arrive(&mut self, arrival: Arrival) -> Task<'_, Result<Nested, HostBug>> {
        Box::pin(self.exit_for(arrival))
    }

    fn halts(&mut self) -> Result<bool, HostBug> {
        if self.nested.running {
            // L1's preemption timer goes on meanwhile, and an exit says that L2 was halted.
            self.vmwrite(Field::GuestActivity, ACTIVITY_HLT)?;
        }
        Ok(self.nested.running)
    }

    fn raises_fault(&mut self) -> Result<(), HostBug> {
        self.set_resume_flag(true)
    }

    fn completes(&mut self) {
        self.note_completed();
    }

    fn trap_waits(&self) -> bool {
        VmxVcpu::trap_waits(self)
    }

    fn unlock(&mut self) {
        self.feature_control = 0;
    }

    fn second_stage(&self) -> (HostPhysical, bool) {
        let m = self.m();
        match m.shadow().filter(|_| self.nested.running && self.has_ept12()) {
            Some(shadow) => (shadow.root(), true),
            None => (m.tables01.root(), false),
        }
    }

    fn shadow_page(&mut self, access: &GuestPhysicalAccess) -> Result<Shadowed, HostBug> {
        self.shadow(access.address, qualification(access))
    }

    fn refuse(&mut self, access: GuestPhysicalAccess, refused: Refused) -> Task<'_, Result<Nested, HostBug>> {
        Box::pin(async move {
            for (field, value) in [
                (Field::GuestPhysicalAddress, access.address.0),
                (Field::GuestLinearAddress, access.linear.map_or(0, |linear| linear.0)),
            ] {
                self.vmwrite(field, value)?;
            }
            self.refused(qualification(&access), refused).await
        })
    }

    fn fixes(&self, cr0: u64, cr4: u64) -> bool {
        !self.nested.running
            && (self.leaves_vmx(cr4) || self.nested.vmxon.is_some() && !Cr0(cr0).contains(FIXED_CR0))
    }

    fn blocks_init(&self) -> bool {
        self.nested.vmxon.is_some() && !self.nested.running
    }

    fn nested_state(&mut self) -> Result<NestedState, HostBug> {
        Ok(NestedState::Vmx(self.state_of_nesting()?))
    }

    fn set_nested_state(&mut self, state: NestedState) -> Task<'_, Result<Result<(), Errno>, HostBug>> {
        Box::pin(async move {
            match state {
                NestedState::Vmx(state) => self.restore_nesting(state).await,
                NestedState::Svm(_) => Ok(Err(Errno::Einval)),
            }
        })
    }

    fn leave_nested(&mut self) -> Task<'_, Result<(), HostBug>> {
        Box::pin(async {
            self.leave_guest();
            self.free_nested().await
        })
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), HostBug> {
        let nested = self.nested.running;
        let exits = |arrival| nested && self.l1_takes(arrival);
        let mut primary = if nested { self.nested.primary02 | CR8 } else { PRIMARY };
        if entry.interrupt_window && !exits(Arrival::Interrupt(None)) {
            primary |= PrimaryControls::INTERRUPT_WINDOW_EXITING.0;
        }
        if entry.nmi_window && !exits(Arrival::Nmi) {
            primary |= PrimaryControls::NMI_WINDOW_EXITING.0;
        }
        if entry.debug.registers.is_some() {
            primary |= PrimaryControls::MOV_DR_EXITING.0;
        }
        self.start_debugging(&entry.debug)?;
        self.vmwrite(Field::PrimaryControls, self.allowed(Word::Primary, primary))?;
        if entry.flush && nested {
            self.flush_vpid02()?;
        }
        if entry.flush {
            let (root, _) = self.second_stage();
            self.m().vmx(Instruction::Invept { kind: 1, descriptor: [root.0 | EPTP_BITS, 0] })?;
        }
        let info = match entry.injection {
            Some(event) => {
                let code = event.error_code.map_or(0, |_| WITH_CODE);
                self.vmwrite(Field::EntryErrorCode, event.error_code.unwrap_or(0).into())?;
                self.vmwrite(Field::EntryInstructionLength, event.length.into())?;
                VALID | code | (event.kind as u64) << 8 | u64::from(event.vector)
            }
            None => 0,
        };
        if !self.nested.pending {
            self.vmwrite(Field::EntryInterruptionInfo, info)?;
        }
        self.m().park();
        VmxVcpu::enter(self)
    }

    fn leave(&mut self) -> Result<Exit, HostBug> {
        self.m().idle();
        self.stop_debugging()?;
        self.trace_exit()?;
        self.nested.pending = false;
        let reason = self.vmread(Field::ExitReason)?;
        if reason & u64::from(ExitReason::ENTRY_FAILURE) != 0 {
            return Ok(Exit { cause: Cause::Refused { reason }, interrupted: None });
        }
        let cause = self.cause(ExitReason(reason as u16))?;
        let interrupted =
            self.event(Field::IdtVectoringInfo, Field::IdtVectoringErrorCode, Field::ExitInstructionLength)?;
        Ok(Exit { cause, interrupted })
    }

    fn skip(&mut self) -> Result<bool, HostBug> {
        if self.nested.running {
            // The processor lets it trap behind the entry, so that L1 sees it if it wants to.
            VmxVcpu::skip(self)?;
            return Ok(false);
        }
        self.complete()?;
        Ok(self.vmread(Field::GuestRflags)? & RFlags::TF.0 != 0)
    }

    fn repeats(&self) -> Result<bool, HostBug> {
        Ok(Io::decode(self.vmread(Field::ExitQualification)?).is_some_and(|io| io.rep))
    }

    fn gpr(&self, gpr: Gpr) -> Result<u64, HostBug> {
        if gpr == Gpr::Rsp { self.vmread(Field::GuestRsp) } else { Ok(self.m().gpr(gpr)) }
    }

    fn set_gpr(&mut self, gpr: Gpr, value: u64) -> Result<(), HostBug> {
        if gpr == Gpr::Rsp {
            return self.vmwrite(Field::GuestRsp, value);
        }
        self.m().set_gpr(gpr, value);
        Ok(())
    }

    fn read_msr(&mut self, index: u32) -> Result<Option<u64>, HostBug> {
        VmxVcpu::read_msr(self, index)
    }

    fn write_msr(&mut self, index: u32, value: u64) -> Result<Option<()>, HostBug> {
        VmxVcpu::write_msr(self, index, value)
    }

    fn tsc_offset(&self) -> Result<u64, HostBug> {
        Ok(self.tsc_offset01)
    }

    fn set_tsc_offset(&mut self, offset: u64) -> Result<(), HostBug> {
        let change = offset.wrapping_sub(self.tsc_offset01);
        self.tsc_offset01 = offset;
        self.vmwrite(Field::TscOffset, self.vmread(Field::TscOffset)?.wrapping_add(change))
    }

    fn set_model(&mut self, model: Arc<Model>) -> Result<(), HostBug> {
        self.offered = nested_capabilities(&model);
        self.fields12 = offered::fields(&self.offered);
        self.model = model;
        if self.nested.running {
            return Ok(());
        }
        // Guests without XSAVES get #UD (Linux 6.12, vmx_adjust_sec_exec_control).
        let hidden = if self.model.has(Feature::Xsaves) { 0 } else { SecondaryControls::ENABLE_XSAVES.0 };
        self.vmwrite(Field::SecondaryControls, self.allowed(Word::Secondary, setup::SECONDARY & !hidden))
    }

    fn configure(&mut self, configuration: &Configuration, filter: &Filter) -> Result<(), HostBug> {
        self.config = *configuration;
        self.filter = filter.clone();
        self.intercepts.recalculate(&self.config, &self.filter, Why::FilterChanged);
        self.intercepts.set_apic_mode(&self.config, &self.filter);
        let page = *self.intercepts.map.as_page();
        let bitmap = self.bitmap01;
        self.m().board.memory.write(bitmap, &page);
        Ok(())
    }

    fn release(&mut self) -> Result<(), HostBug> {
        self.m().take_shadow();
        for region in [self.vmcs01.region, self.vmcs02.region] {
            self.m().vmx(Instruction::Vmclear { region: region.0 })?;
        }
        self.m().vmx(Instruction::Vmxoff)?;
        Ok(())
    }
}
