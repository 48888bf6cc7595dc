//! [`Backend`] on SVM: a vCPU whose run loop is somebody else's.

use std::sync::Arc;

use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{
    DescriptorTable, Dr6, Efer, Gpr, GuestPhysical, HostPhysical, RFlags, SegmentName, msr, vector,
};
use rootmode_cpu::{DeliveryKind, Instruction, Model};
use rootmode_svm::encode::{IoioInfo, MovCr, MovDr, NpfInfo};
use rootmode_svm::vmcb::{EventInfo, EventKind, Field, IntCtl, Intercept, Intercepts};
use rootmode_svm::{ExitCode, Processor, Vmcb};

use super::super::backend::{
    Arrival, Backend, Cause, Debugging, Entry, Exit, Injection, Nested, Own, Shadowed, Task, Touched,
};
use super::super::machine::HostBug;
use super::super::nested_state::NestedState;
use super::super::second_stage::Refused;
use super::super::state::State;
use super::vmcb::MOVED;
use super::{INTERCEPTS, SvmVcpu};
use crate::kvm::interception::{Cause as Why, Configuration};
use crate::kvm::{Errno, Filter};

/// What a VM's clients need, beyond what L0 always wants.
const MORE: [Intercept; 2] = [Intercept::cr_read(8), Intercept::cr_write(8)];

/// Causes of a debug exception in DR6: breakpoints, access to a debug register, single step.
const DR6_CAUSES: u64 = 0x600f;

/// Bit 0 of the interrupt state: STI or MOV SS blocks.
const SHADOW: u64 = 1;

/// Whether vector `n` of a hardware exception comes with an error code.
const fn has_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

impl SvmVcpu {
    fn event_of(&self, info: Field, code: Field) -> Option<Injection> {
        let vmcb = self.vmcb();
        let event = EventInfo::from_halves(self.get(vmcb, info) as u32, self.get(vmcb, code) as u32);
        if !event.is_valid() {
            return None;
        }
        let kind = match event.kind() {
            Some(EventKind::Interrupt) => DeliveryKind::External,
            Some(EventKind::Nmi) => DeliveryKind::Nmi,
            Some(EventKind::SoftwareInterrupt) => DeliveryKind::Software,
            _ if matches!(event.vector(), 3 | 4) => DeliveryKind::SoftwareException,
            _ => DeliveryKind::Hardware,
        };
        Some(Injection { kind, vector: event.vector(), error_code: event.error_code(), length: 0 })
    }

    fn cause(&self, code: ExitCode) -> Cause {
        let vmcb = self.vmcb();
        if self.in_l2() && self.belongs_to_l1(code) {
            return Cause::Nested;
        }
        let info = self.get(vmcb, Field::ExitInfo1);
        if code == ExitCode::NPF {
            return Cause::SecondStage(Touched {
                address: GuestPhysical(self.get(vmcb, Field::ExitInfo2)),
                write: NpfInfo(info).contains(NpfInfo::WRITE),
            });
        }
        let unmodelled = Cause::Unmodelled { reason: code.0 };
        let Some(intercept) = code.intercept() else { return unmodelled };
        match intercept {
            Intercept::CPUID => Cause::Cpuid,
            Intercept::HLT => Cause::Hlt,
            Intercept::MSR_PROT if info & 1 != 0 => Cause::Wrmsr,
            Intercept::MSR_PROT => Cause::Rdmsr,
            Intercept::VMMCALL => Cause::Hypercall,
            Intercept::SHUTDOWN => Cause::Shutdown,
            Intercept::INTR => Cause::HostInterrupt,
            Intercept::NMI => Cause::HostNmi,
            Intercept::VINTR => Cause::InterruptWindow,
            Intercept::IRET => Cause::NmiWindow,
            Intercept::IOIO_PROT => {
                let IoioInfo { port, size, input, string, .. } = IoioInfo::decode(info);
                Cause::Port { port, size, input, string }
            }
            Intercept::VMRUN
            | Intercept::VMLOAD
            | Intercept::VMSAVE
            | Intercept::STGI
            | Intercept::CLGI
            | Intercept::SKINIT
            | Intercept::INVLPGA
                if !self.in_l2() =>
            {
                Cause::Nested
            }
            _ if intercept == Intercept::exception(vector::DB) => Cause::Debug { causes: 0 },
            _ if intercept == Intercept::exception(vector::BP) => {
                Cause::Exception { vector: vector::BP, code: None }
            }
            Intercept(number @ 32..64) => {
                let (dr, gpr) = (number & 15, MovDr::decode(info).gpr);
                if number < 48 {
                    Cause::ReadDr { dr, gpr }
                } else {
                    Cause::WriteDr { dr, value: self.register(gpr) }
                }
            }
            _ if intercept == Intercept::cr_read(8) => match MovCr::decode(info).gpr {
                Some(gpr) => Cause::ReadCr8 { gpr },
                None => unmodelled,
            },
            _ if intercept == Intercept::cr_write(8) => match MovCr::decode(info).gpr {
                Some(gpr) => Cause::WriteCr8 { value: self.register(gpr) },
                None => unmodelled,
            },
            _ => unmodelled,
        }
    }

    /// The processor serves the debugger until the guest is left: what is intercepted for that.
    fn start_debugging(
        &mut self,
        debug: &Debugging,
        image: &mut Vmcb,
        mut intercepts: Intercepts,
    ) -> Intercepts {
        if *debug == Debugging::default() {
            return intercepts;
        }
        if debug.traps {
            intercepts = intercepts.with(Intercept::exception(vector::DB));
        }
        if debug.breakpoints {
            intercepts = intercepts.with(Intercept::exception(vector::BP));
        }
        let value = |field| image.get(field).unwrap_or(0);
        let mut own = Own::default();
        let (flags, dr6, dr7) = (value(Field::Rflags), value(Field::Dr6), value(Field::Dr7));
        if debug.single_step {
            image.set(Field::InterruptState, value(Field::InterruptState) & !SHADOW);
            image.set(Field::Rflags, flags | RFlags::TF.0);
            own.trap_flag = Some(flags & RFlags::TF.0);
        }
        if let Some((registers, debuggers)) = debug.registers {
            let moves = (0..16).flat_map(|dr| [Intercept::dr_read(dr), Intercept::dr_write(dr)]);
            intercepts = moves.fold(intercepts, Intercepts::with);
            let guests = std::mem::replace(&mut self.m().cpu_mut().dr, registers);
            own.registers = Some((guests, dr7));
            image.set(Field::Dr7, debuggers);
        }
        image.set(Field::Dr6, dr6 & !DR6_CAUSES);
        self.debugged = Some((own, dr6));
        intercepts
    }

    /// The guest has its own again.
    fn stop_debugging(&mut self) {
        let Some((Own { trap_flag, registers }, dr6)) = self.debugged.take() else { return };
        let vmcb = self.vmcb();
        if trap_flag == Some(0) {
            self.set(vmcb, Field::Rflags, self.get(vmcb, Field::Rflags) & !RFlags::TF.0);
        }
        if let Some((guests, dr7)) = registers {
            self.m().cpu_mut().dr = guests;
            self.set(vmcb, Field::Dr7, dr7);
        }
        self.set(vmcb, Field::Dr6, dr6);
    }

    fn register(&self, gpr: Gpr) -> u64 {
        match gpr {
            Gpr::Rax => self.get(self.vmcb(), Field::Rax),
            Gpr::Rsp => self.get(self.vmcb(), Field::Rsp),
            _ => self.m().gpr(gpr),
        }
    }
}

/// IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP.
pub(super) const SYSENTER: [Field; 3] = [Field::SysenterCs, Field::SysenterEsp, Field::SysenterEip];

/// Whether VMLOAD and VMSAVE move the segment register: it is in vmcb01, whoever runs.
const fn is_moved(name: SegmentName) -> bool {
    matches!(name, SegmentName::Fs | SegmentName::Gs | SegmentName::Ldtr | SegmentName::Tr)
}

/// Fields that hold one register each.
pub(super) const fn fields(state: &State) -> [(Field, u64); 17] {
    [
        (Field::GPat, state.pat),
        (Field::Efer, state.efer | Efer::SVME.0),
        (Field::Cr0, state.cr0),
        (Field::Cr2, state.cr2),
        (Field::Cr3, state.cr3),
        (Field::Cr4, state.cr4),
        (Field::Dr6, state.dr6),
        (Field::Dr7, state.dr7),
        (Field::Rflags, state.rflags),
        (Field::Rip, state.rip),
        (Field::Rsp, state.gpr[Gpr::Rsp as usize]),
        (Field::Rax, state.gpr[Gpr::Rax as usize]),
        (Field::GdtrBase, state.gdtr.base),
        (Field::GdtrLimit, state.gdtr.limit as u64),
        (Field::IdtrBase, state.idtr.base),
        (Field::IdtrLimit, state.idtr.limit as u64),
        (Field::Cpl, state.cpl as u64),
    ]
}

impl Backend for SvmVcpu {
    fn load(&mut self, state: &State) -> Result<(), HostBug> {
        let vmcb = self.vmcb();
        let mut image = self.read_vmcb(vmcb);
        let mut own = self.read_vmcb(self.vmcb01);
        for name in SegmentName::ALL {
            if is_moved(name) { &mut own } else { &mut image }.set_segment(name, state.segment(name));
        }
        for (field, value) in fields(state) {
            image.set(field, value);
        }
        for (field, value) in SYSENTER.into_iter().zip(state.sysenter) {
            own.set(field, value);
        }
        image.set(Field::InterruptState, u64::from(state.sti_shadow || state.mov_ss_shadow));
        if !self.in_l2() {
            // There is only one then, and `image` has all but what moves.
            for field in MOVED {
                image.set(*field, own.get(*field).unwrap_or(0));
            }
            self.set_enabled(state.efer & Efer::SVME.0 != 0);
        }
        let mut m = self.m();
        m.board.memory.write(self.vmcb01, own.as_bytes());
        m.board.memory.write(vmcb, image.as_bytes());
        m.cpu_mut().gpr = state.gpr;
        Ok(())
    }

    fn save(&self) -> Result<State, HostBug> {
        let mut state = {
            let m = self.m();
            State::of(m.cpu())
        };
        let vmcb = self.read_vmcb(self.vmcb());
        let own = if self.in_l2() { self.read_vmcb(self.vmcb01) } else { vmcb.clone() };
        let get = |field| vmcb.get(field).unwrap_or(0);
        for name in SegmentName::ALL {
            if let Some(segment) = if is_moved(name) { &own } else { &vmcb }.segment(name) {
                state.segments[name as usize] = segment;
            }
        }
        state.gpr[Gpr::Rax as usize] = get(Field::Rax);
        state.gpr[Gpr::Rsp as usize] = get(Field::Rsp);
        state.rip = get(Field::Rip);
        state.rflags = get(Field::Rflags);
        state.cpl = get(Field::Cpl) as u8;
        state.gdtr = DescriptorTable { base: get(Field::GdtrBase), limit: get(Field::GdtrLimit) as u16 };
        state.idtr = DescriptorTable { base: get(Field::IdtrBase), limit: get(Field::IdtrLimit) as u16 };
        (state.cr0, state.cr2) = (get(Field::Cr0), get(Field::Cr2));
        (state.cr3, state.cr4) = (get(Field::Cr3), get(Field::Cr4));
        state.efer = Efer(get(Field::Efer)).set(Efer::SVME, self.in_l2() || self.nested.enabled).0;
        (state.dr6, state.dr7, state.pat) = (get(Field::Dr6), get(Field::Dr7), get(Field::GPat));
        state.sysenter = SYSENTER.map(|field| own.get(field).unwrap_or(0));
        state.sti_shadow = get(Field::InterruptState) & SHADOW != 0;
        state.mov_ss_shadow = false;
        state.nmi_blocked = self.nmi_blocked;
        Ok(state)
    }

    fn accepts(&self) -> Result<(bool, bool), HostBug> {
        let shadow = self.get(self.vmcb(), Field::InterruptState) & SHADOW != 0;
        let exits = |intercept| self.in_l2() && self.intercepts12().has(intercept);
        let interrupt = self.interrupts_enabled() && !shadow && !exits(Intercept::INTR);
        let nmi = !shadow && !self.nmi_blocked && !exits(Intercept::NMI);
        Ok((self.nested.gif && interrupt, self.nested.gif && nmi))
    }

    fn nest(&mut self) -> Task<'_, Result<Nested, HostBug>> {
        Box::pin(async {
            let code = ExitCode(self.get(self.vmcb(), Field::ExitCode));
            if self.in_l2() {
                return self.nested_exit(code).await;
            }
            match code.intercept() {
                Some(intercept) => self.nested_instruction(intercept).await,
                None => Ok(Nested::Unmodelled),
            }
        })
    }

    fn in_l2(&self) -> bool {
        self.nested.running.is_some()
    }

    fn entry_pending(&self) -> bool {
        self.nested.pending
    }

    fn reaches_l1(&self, arrival: Arrival) -> Result<bool, HostBug> {
        let intercepts = self.intercepts12();
        Ok(match arrival {
            Arrival::Interrupt(_) => intercepts.has(Intercept::INTR) && self.interrupts_enabled(),
            Arrival::Nmi => intercepts.has(Intercept::NMI),
            Arrival::Init => intercepts.has(Intercept::INIT),
            Arrival::Trap => false,
            Arrival::Exception(event, _) => intercepts.has(Intercept::exception(event.vector)),
        })
    }

    fn acknowledges(&self) -> bool {
        false
    }

    fn arrive(&mut self, arrival: Arrival) -> Task<'_, Result<Nested, HostBug>> {
        Box::pin(self.exit_for(arrival))
    }

    fn halts(&mut self) -> Result<bool, HostBug> {
        Ok(false)
    }

    fn raises_fault(&mut self) -> Result<(), HostBug> {
        // The processor injects it as if it had happened, RFLAGS.RF included.
        Ok(())
    }

    fn completes(&mut self) {}

    fn trap_waits(&self) -> bool {
        false
    }

    fn unlock(&mut self) {}

    fn second_stage(&self) -> (HostPhysical, bool) {
        let m = self.m();
        match m.shadow().filter(|_| self.in_l2() && self.nested_paging12()) {
            Some(shadow) => (shadow.root(), true),
            None => (m.tables01.root(), false),
        }
    }

    fn shadow_page(&mut self, access: &GuestPhysicalAccess) -> Result<Shadowed, HostBug> {
        self.shadow(access.address, NpfInfo::new(access, false))
    }

    fn refuse(&mut self, access: GuestPhysicalAccess, refused: Refused) -> Task<'_, Result<Nested, HostBug>> {
        Box::pin(async move {
            for (field, value) in [
                (Field::ExitInfo2, access.address.0),
                (Field::ExitIntInfo, 0),
                (Field::ExitIntInfoError, 0),
                (Field::BytesFetched, 0),
            ] {
                self.set(self.vmcb02, field, value);
            }
            self.refused(NpfInfo::new(&access, false), refused).await
        })
    }

    fn fixes(&self, _: u64, _: u64) -> bool {
        false
    }

    fn blocks_init(&self) -> bool {
        !self.nested.gif
    }

    fn nested_state(&mut self) -> Result<NestedState, HostBug> {
        Ok(NestedState::Svm(self.state_of_nesting()))
    }

    fn set_nested_state(&mut self, state: NestedState) -> Task<'_, Result<Result<(), Errno>, HostBug>> {
        Box::pin(async move {
            match state {
                NestedState::Svm(state) => self.restore_nesting(&state),
                NestedState::Vmx(_) => Ok(Err(Errno::Einval)),
            }
        })
    }

    fn leave_nested(&mut self) -> Task<'_, Result<(), HostBug>> {
        Box::pin(async {
            self.stop_nesting();
            self.set_enabled(false);
            Ok(())
        })
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), HostBug> {
        let vmcb = self.vmcb();
        let nested = self.in_l2();
        let mut image = self.read_vmcb(vmcb);
        let mut intercepts = INTERCEPTS.into_iter().fold(Intercepts::NONE, Intercepts::with);
        // The host's RFLAGS.IF gates its interrupts, not the guest's.
        let mut int_ctl = IntCtl::V_INTR_MASKING;
        let mut shows_priority = true;
        if nested {
            intercepts = INTERCEPTS.into_iter().fold(self.intercepts12(), Intercepts::with);
            int_ctl = int_ctl.with(IntCtl(self.virtual_interrupts() as u32));
            shows_priority = self.field12(Field::IntCtl) & u64::from(IntCtl::V_INTR_MASKING.0) == 0;
        }
        // CR8 is the local APIC's.
        if shows_priority {
            intercepts = MORE.into_iter().fold(intercepts, Intercepts::with);
        }
        // What L1 gets needs no window, unless L2's RFLAGS.IF is what holds it back.
        let exits = |intercept| nested && self.intercepts12().has(intercept);
        let held = !shows_priority && exits(Intercept::INTR);
        let nmi_window = entry.nmi_window && self.nested.gif && !exits(Intercept::NMI);
        let interrupt_window = entry.interrupt_window && self.nested.gif && !held;
        self.window = None;
        if interrupt_window {
            self.window = Some(int_ctl.0.into());
            intercepts = intercepts.with(Intercept::VINTR);
            int_ctl = int_ctl.with(IntCtl::V_IRQ).with(IntCtl::V_IGN_TPR).with_v_intr_prio(0xf);
        }
        // NMIs are blocked until IRET is complete: it is seen when it begins, and stepped over if somebody waits.
        let steps = nmi_window && self.iret.is_some() && entry.injection.is_none();
        self.stepping = steps && !entry.debug.single_step;
        if (nmi_window || self.nmi_blocked) && self.iret.is_none() {
            intercepts = intercepts.with(Intercept::IRET);
        }
        let debug = Debugging {
            traps: entry.debug.traps || steps,
            single_step: entry.debug.single_step || steps,
            ..entry.debug
        };
        let intercepts = self.start_debugging(&debug, &mut image, intercepts);
        image.set_intercepts(intercepts);
        image.set(Field::IntCtl, int_ctl.0.into());
        let flush = entry.flush || nested && std::mem::take(&mut self.nested.flush);
        let pending = nested && image.get(Field::TlbControl).is_some_and(|control| control != 0);
        image.set(Field::TlbControl, if flush || pending { 3 } else { 0 });
        let event = entry.injection.map_or(EventInfo::NONE, |event| {
            let kind = match event.kind {
                DeliveryKind::External => EventKind::Interrupt,
                DeliveryKind::Nmi => EventKind::Nmi,
                DeliveryKind::Software => EventKind::SoftwareInterrupt,
                _ => EventKind::Exception,
            };
            let code = event.error_code.filter(|_| has_code(event.vector));
            EventInfo::new(kind, event.vector, code)
        });
        if !self.nested.pending {
            image.set(Field::EventInj, event.0 & 0xffff_ffff);
            image.set(Field::EventInjError, event.0 >> 32);
            if let Some(Injection { kind: DeliveryKind::Software, length, .. }) = entry.injection {
                // Of one whose delivery an exit interrupted nobody knows the length any more.
                let next = match length {
                    0 => self.injected_return,
                    length => image.get(Field::Rip).unwrap_or(0).wrapping_add(length.into()),
                };
                image.set(Field::NextRip, next);
            }
        }
        let halves =
            [Field::EventInj, Field::EventInjError].map(|field| image.get(field).unwrap_or(0) as u32);
        self.injected = EventInfo::from_halves(halves[0], halves[1]);
        self.injected_return = image.get(Field::NextRip).unwrap_or(0);
        if entry.injection.is_some_and(|event| event.kind == DeliveryKind::Nmi) {
            self.nmi_blocked = true;
        }
        let mut m = self.m();
        m.board.memory.write(vmcb, image.as_bytes());
        m.park();
        let flags = m.cpu().rflags().with(RFlags::IF);
        m.cpu_mut().set_rflags(flags);
        m.execute(Instruction::Vmload { vmcb: self.vmcb01.0 })?;
        m.execute(Instruction::Vmrun { vmcb: vmcb.0 })?;
        Ok(())
    }

    fn leave(&mut self) -> Result<Exit, HostBug> {
        let vmcb = self.vmcb();
        {
            let mut m = self.m();
            m.execute(Instruction::Vmsave { vmcb: self.vmcb01.0 })?;
            m.idle();
        }
        self.nested.pending = false;
        self.set(vmcb, Field::TlbControl, 0);
        let code = ExitCode(self.get(vmcb, Field::ExitCode));
        let causes = self.get(vmcb, Field::Dr6) & DR6_CAUSES;
        self.stop_debugging();
        if code.is_entry_failure() {
            return Ok(Exit { cause: Cause::Refused { reason: code.0 }, interrupted: None });
        }
        if self.iret.is_some_and(|rip| rip != self.get(vmcb, Field::Rip)) {
            (self.iret, self.nmi_blocked) = (None, false);
        }
        let cause = match self.cause(code) {
            Cause::Debug { .. } => Cause::Debug { causes },
            cause => cause,
        };
        if let Some(own) = self.window.take().filter(|_| self.in_l2()) {
            // L0's virtual interrupt goes, L1's stays.
            let priority = self.get(vmcb, Field::IntCtl) & 0xf;
            self.set(vmcb, Field::IntCtl, own & !0xf | priority);
        }
        match cause {
            // The host's handler, which is not modelled, acknowledges it.
            Cause::HostInterrupt => {
                let physical = self.physical;
                let mut m = self.m();
                m.board.with_processor(physical, |processor, ctx| processor.cpu.acknowledge_interrupt(ctx));
            }
            Cause::HostNmi => self.m().cpu_mut().interrupts.take_nmi(),
            Cause::NmiWindow => self.iret = Some(self.get(vmcb, Field::Rip)),
            _ => {}
        }
        // Software events that were not injected happen again by themselves.
        let interrupted = self.event_of(Field::ExitIntInfo, Field::ExitIntInfoError).filter(|event| {
            let software = matches!(event.kind, DeliveryKind::Software | DeliveryKind::SoftwareException);
            !software || self.injected.is_valid() && self.injected.vector() == event.vector
        });
        let own = self.stepping && cause == Cause::Debug { causes: Dr6::BS.0 };
        Ok(Exit { cause: if own { Cause::NmiWindow } else { cause }, interrupted })
    }

    fn skip(&mut self) -> Result<bool, HostBug> {
        let vmcb = self.vmcb();
        // A port access has the next instruction's address in EXITINFO2.
        let port = ExitCode(self.get(vmcb, Field::ExitCode)).intercept() == Some(Intercept::IOIO_PROT);
        let next = if port { Field::ExitInfo2 } else { Field::NextRip };
        self.advance(self.get(vmcb, next));
        self.m().charge();
        Ok(self.get(vmcb, Field::Rflags) & RFlags::TF.0 != 0)
    }

    fn repeats(&self) -> Result<bool, HostBug> {
        Ok(IoioInfo::decode(self.get(self.vmcb(), Field::ExitInfo1)).rep)
    }

    fn gpr(&self, gpr: Gpr) -> Result<u64, HostBug> {
        Ok(self.register(gpr))
    }

    fn set_gpr(&mut self, gpr: Gpr, value: u64) -> Result<(), HostBug> {
        match gpr {
            Gpr::Rax => self.set(self.vmcb(), Field::Rax, value),
            Gpr::Rsp => self.set(self.vmcb(), Field::Rsp, value),
            _ => self.m().set_gpr(gpr, value),
        }
        Ok(())
    }

    fn read_msr(&mut self, index: u32) -> Result<Option<u64>, HostBug> {
        Ok(SvmVcpu::read_msr(self, index))
    }

    fn write_msr(&mut self, index: u32, value: u64) -> Result<Option<()>, HostBug> {
        Ok(SvmVcpu::write_msr(self, index, value))
    }

    fn tsc_offset(&self) -> Result<u64, HostBug> {
        Ok(self.get(self.vmcb01, Field::TscOffset))
    }

    fn set_tsc_offset(&mut self, offset: u64) -> Result<(), HostBug> {
        let change = offset.wrapping_sub(self.get(self.vmcb01, Field::TscOffset));
        self.set(self.vmcb01, Field::TscOffset, offset);
        if self.in_l2() {
            let nested = self.get(self.vmcb02, Field::TscOffset).wrapping_add(change);
            self.set(self.vmcb02, Field::TscOffset, nested);
        }
        Ok(())
    }

    fn set_model(&mut self, model: Arc<Model>) -> Result<(), HostBug> {
        self.processor = Processor::new("l1", *model.features(), model.physical_width());
        self.model = model;
        Ok(())
    }

    fn configure(&mut self, configuration: &Configuration, filter: &Filter) -> Result<(), HostBug> {
        self.config = *configuration;
        self.filter = filter.clone();
        self.intercepts.recalculate(&self.config, &self.filter, Why::FilterChanged);
        self.intercepts.set_apic_mode(&self.config, &self.filter);
        let mut m = self.m();
        m.board.memory.write(self.msrpm01, self.intercepts.map.as_bytes());
        Ok(())
    }

    fn release(&mut self) -> Result<(), HostBug> {
        self.stop_nesting();
        let mut m = self.m();
        let efer = m.cpu().efer.0 & !Efer::SVME.0;
        m.execute(Instruction::Wrmsr { index: msr::VM_HSAVE_PA, value: 0 })?;
        m.execute(Instruction::Wrmsr { index: msr::IA32_EFER, value: efer })?;
        Ok(())
    }
}
