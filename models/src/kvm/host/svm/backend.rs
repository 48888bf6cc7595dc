//! [`Backend`] on SVM: a vCPU whose run loop is somebody else's, on vmcb01.

use std::sync::Arc;

use rootmode_arch::{DescriptorTable, Dr6, Efer, Gpr, GuestPhysical, RFlags, SegmentName, msr, vector};
use rootmode_cpu::{DeliveryKind, Instruction, Model};
use rootmode_svm::encode::{IoioInfo, MovCr, MovDr, NpfInfo};
use rootmode_svm::vmcb::{EventInfo, EventKind, Field, IntCtl, Intercept, Intercepts};
use rootmode_svm::{ExitCode, Vmcb};

use super::super::backend::{Backend, Cause, Debugging, Entry, Exit, Injection, Own, Touched};
use super::super::machine::HostBug;
use super::super::state::State;
use super::{INTERCEPTS, SvmVcpu};
use crate::kvm::Filter;
use crate::kvm::interception::{Cause as Why, Configuration};

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
        let vmcb = self.vmcb01;
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
        let vmcb = self.vmcb01;
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
            | Intercept::INVLPGA => Cause::Undefined,
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
        let vmcb = self.vmcb01;
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
            Gpr::Rax => self.get(self.vmcb01, Field::Rax),
            Gpr::Rsp => self.get(self.vmcb01, Field::Rsp),
            _ => self.m().gpr(gpr),
        }
    }
}

/// Fields that hold one register each.
const fn fields(state: &State) -> [(Field, u64); 17] {
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
        let vmcb = self.vmcb01;
        let mut image = self.read_vmcb(vmcb);
        for name in SegmentName::ALL {
            image.set_segment(name, state.segment(name));
        }
        for (field, value) in fields(state) {
            image.set(field, value);
        }
        for (field, value) in
            [Field::SysenterCs, Field::SysenterEsp, Field::SysenterEip].into_iter().zip(state.sysenter)
        {
            image.set(field, value);
        }
        image.set(Field::InterruptState, u64::from(state.sti_shadow || state.mov_ss_shadow));
        let mut m = self.m();
        m.board.memory.write(vmcb, image.as_bytes());
        m.cpu_mut().gpr = state.gpr;
        Ok(())
    }

    fn save(&self) -> Result<State, HostBug> {
        let mut state = {
            let m = self.m();
            State::of(m.cpu())
        };
        let vmcb = self.read_vmcb(self.vmcb01);
        let get = |field| vmcb.get(field).unwrap_or(0);
        for name in SegmentName::ALL {
            if let Some(segment) = vmcb.segment(name) {
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
        state.efer = get(Field::Efer) & !Efer::SVME.0;
        (state.dr6, state.dr7, state.pat) = (get(Field::Dr6), get(Field::Dr7), get(Field::GPat));
        state.sysenter = [Field::SysenterCs, Field::SysenterEsp, Field::SysenterEip].map(get);
        state.sti_shadow = get(Field::InterruptState) & SHADOW != 0;
        state.mov_ss_shadow = false;
        state.nmi_blocked = self.nmi_blocked;
        Ok(state)
    }

    fn accepts(&self) -> Result<(bool, bool), HostBug> {
        let shadow = self.get(self.vmcb01, Field::InterruptState) & SHADOW != 0;
        let enabled = self.get(self.vmcb01, Field::Rflags) & RFlags::IF.0 != 0;
        Ok((enabled && !shadow, !shadow && !self.nmi_blocked))
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), HostBug> {
        let vmcb = self.vmcb01;
        let mut image = self.read_vmcb(vmcb);
        let mut intercepts = INTERCEPTS.into_iter().chain(MORE).fold(Intercepts::NONE, Intercepts::with);
        // The host's RFLAGS.IF gates its interrupts, not the guest's.
        let mut int_ctl = IntCtl::V_INTR_MASKING;
        if entry.interrupt_window {
            intercepts = intercepts.with(Intercept::VINTR);
            int_ctl = int_ctl.with(IntCtl::V_IRQ).with(IntCtl::V_IGN_TPR).with_v_intr_prio(0xf);
        }
        // NMIs are blocked until IRET is complete: it is seen when it begins, and stepped over if somebody waits.
        let steps = entry.nmi_window && self.iret.is_some() && entry.injection.is_none();
        self.stepping = steps && !entry.debug.single_step;
        if (entry.nmi_window || self.nmi_blocked) && self.iret.is_none() {
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
        image.set(Field::TlbControl, if entry.flush { 3 } else { 0 });
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
        image.set(Field::EventInj, event.0 & 0xffff_ffff);
        image.set(Field::EventInjError, event.0 >> 32);
        if entry.injection.is_some_and(|event| event.kind == DeliveryKind::Nmi) {
            self.nmi_blocked = true;
        }
        let mut m = self.m();
        m.board.memory.write(vmcb, image.as_bytes());
        m.park();
        let flags = m.cpu().rflags().with(RFlags::IF);
        m.cpu_mut().set_rflags(flags);
        m.execute(Instruction::Vmload { vmcb: vmcb.0 })?;
        m.execute(Instruction::Vmrun { vmcb: vmcb.0 })?;
        Ok(())
    }

    fn leave(&mut self) -> Result<Exit, HostBug> {
        let vmcb = self.vmcb01;
        {
            let mut m = self.m();
            m.execute(Instruction::Vmsave { vmcb: vmcb.0 })?;
            m.idle();
        }
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
        let interrupted = self.event_of(Field::ExitIntInfo, Field::ExitIntInfoError);
        let own = self.stepping && cause == Cause::Debug { causes: Dr6::BS.0 };
        Ok(Exit { cause: if own { Cause::NmiWindow } else { cause }, interrupted })
    }

    fn skip(&mut self) -> Result<(), HostBug> {
        let vmcb = self.vmcb01;
        // A port access has the next instruction's address in EXITINFO2.
        let port = ExitCode(self.get(vmcb, Field::ExitCode)).intercept() == Some(Intercept::IOIO_PROT);
        let next = if port { Field::ExitInfo2 } else { Field::NextRip };
        self.advance(self.get(vmcb, next));
        self.m().charge();
        Ok(())
    }

    fn repeats(&self) -> Result<bool, HostBug> {
        Ok(IoioInfo::decode(self.get(self.vmcb01, Field::ExitInfo1)).rep)
    }

    fn gpr(&self, gpr: Gpr) -> Result<u64, HostBug> {
        Ok(self.register(gpr))
    }

    fn set_gpr(&mut self, gpr: Gpr, value: u64) -> Result<(), HostBug> {
        match gpr {
            Gpr::Rax => self.set(self.vmcb01, Field::Rax, value),
            Gpr::Rsp => self.set(self.vmcb01, Field::Rsp, value),
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
        self.set(self.vmcb01, Field::TscOffset, offset);
        Ok(())
    }

    fn set_model(&mut self, model: Arc<Model>) {
        self.model = model;
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
        let mut m = self.m();
        let efer = m.cpu().efer.0 & !Efer::SVME.0;
        m.execute(Instruction::Wrmsr { index: msr::VM_HSAVE_PA, value: 0 })?;
        m.execute(Instruction::Wrmsr { index: msr::IA32_EFER, value: efer })?;
        Ok(())
    }
}
