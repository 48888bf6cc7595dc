//! Guests, each about one control or one exit reason: with the control as the scenario sets it the guest exits as written
//! here, with the control alone the other way round something else happens.

mod waits;

use super::bench::*;
use super::flips::Flip;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::{Cr4, Efer, Gpr, msr};
use rootmode_cpu::Message;
use rootmode_vmx::drive::region::field_address;
use rootmode_vmx::{
    Control, EntryControls, ExitControls, ExitReason, Field, PinControls, PrimaryControls, SecondaryControls,
    TertiaryControls, VmFunctions,
};

type Prepare = Box<dyn Fn(&mut Bench)>;
type Look = Box<dyn Fn(&mut Bench) -> u64>;

pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) control: Option<Control>,
    pub(crate) expected: Exit,
    steps: Vec<Prepare>,
    /// What happens between the first exit and the entry whose exit counts.
    between: Option<Prepare>,
    look: Option<Look>,
}

/// Instruction information of the operand [RBX] in 64-bit mode.
const AT_RBX: u64 = 3 << 23 | 1 << 22 | 2 << 7 | 3 << 15;
/// Length of VMCALL.
const VMCALL: u64 = 3;

impl Scenario {
    /// A guest that exits with `reason` at its first instruction, without any control.
    fn plain(
        reason: ExitReason,
        build: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + 'static,
    ) -> Self {
        let code = assemble(64, CODE, build);
        Self {
            name: format!("{reason:?}"),
            control: None,
            expected: Exit { reason: reason.0.into(), rip: CODE, ..Exit::default() },
            steps: vec![Box::new(move |b| {
                b.code(&code);
                b.register(Gpr::Rbx, DATA);
            })],
            between: None,
            look: None,
        }
    }
    /// The same under `control`, which is set.
    fn on(
        control: impl Into<Flip>,
        reason: ExitReason,
        build: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + 'static,
    ) -> Self {
        let Flip(control) = control.into();
        let mut scenario = Self::plain(reason, build);
        scenario.name = format!("{:?} bit {}, {reason:?}", control.word, control.bit);
        scenario.control = Some(control);
        scenario.with(move |b| b.or(control.word.field().unwrap(), 1 << control.bit))
    }
    fn with(mut self, step: impl Fn(&mut Bench) + 'static) -> Self {
        self.steps.push(Box::new(step));
        self
    }
    fn set(self, field: Field, value: u64) -> Self {
        self.with(move |b| b.set(field, value))
    }
    fn register(self, gpr: Gpr, value: u64) -> Self {
        self.with(move |b| b.register(gpr, value))
    }
    fn between(mut self, step: impl Fn(&mut Bench) + 'static) -> Self {
        self.between = Some(Box::new(step));
        self
    }
    fn expect(mut self, change: impl FnOnce(&mut Exit)) -> Self {
        change(&mut self.expected);
        self
    }
    fn qualification(self, value: u64) -> Self {
        self.expect(|exit| exit.qualification = value)
    }
    fn length(self, value: u64) -> Self {
        self.expect(|exit| exit.length = value)
    }
    fn information(self, value: u64) -> Self {
        self.expect(|exit| exit.information = value)
    }
    fn interruption(self, value: u64) -> Self {
        self.expect(|exit| exit.interruption = value)
    }
    /// The exit is `bytes` behind the first instruction.
    fn after(self, bytes: u64) -> Self {
        self.expect(|exit| exit.rip += bytes)
    }
    /// The exit is VMCALL's in a handler.
    fn in_handler(self) -> Self {
        self.expect(|exit| exit.rip = HANDLER).length(VMCALL)
    }
    /// What `look` finds after the exit.
    fn sees(mut self, value: u64, look: impl Fn(&mut Bench) -> u64 + 'static) -> Self {
        self.expected.seen = value;
        self.look = Some(Box::new(look));
        self
    }
    fn sees_register(self, gpr: Gpr, value: u64) -> Self {
        self.sees(value, move |b| b.cpu().gpr[gpr as usize])
    }
    fn sees_field(self, field: Field, value: u64) -> Self {
        self.sees(value, move |b| b.vmread(field))
    }

    /// What happens with these controls flipped.
    pub(crate) fn run(&self, flipped: &[Control]) -> End {
        let mut bench = Bench::new();
        for step in &self.steps {
            step(&mut bench);
        }
        for control in flipped {
            let field = control.word.field().unwrap();
            bench.set(field, bench.field(field) ^ 1 << control.bit);
        }
        let mut end = bench.run();
        if let (Some(between), End::Exit(exit)) = (&self.between, &end) {
            bench.set(Field::GuestRip, exit.rip + exit.length);
            between(&mut bench);
            end = bench.run();
        }
        match (&self.look, end) {
            (Some(look), End::Exit(exit)) => End::Exit(Exit { seen: look(&mut bench), ..exit }),
            (_, end) => end,
        }
    }
}

/// Every scenario.
pub(crate) fn all() -> Vec<Scenario> {
    [
        pin(),
        primary(),
        secondary(),
        apic(),
        exit_controls(),
        entry_controls(),
        instructions(),
        events(),
        waits::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn pin() -> Vec<Scenario> {
    use ExitReason as R;
    use PinControls as P;
    vec![
        Scenario::on(P::EXTERNAL_INTERRUPT_EXITING, R::EXTERNAL_INTERRUPT, |a| a.vmcall())
            .with(|b| b.post(Message::Interrupt(0x33))),
        Scenario::on(P::NMI_EXITING, R::EXCEPTION_OR_NMI, |a| a.vmcall())
            .with(|b| b.post(Message::Nmi))
            .interruption(0x8000_0202),
        Scenario::on(P::VIRTUAL_NMIS, R::EXCEPTION_OR_NMI, |a| a.vmcall())
            .with(|b| b.pin(P::NMI_EXITING))
            .set(Field::GuestInterruptibility, 8)
            .with(|b| b.post(Message::Nmi))
            .interruption(0x8000_0202)
            .expect(|exit| exit.interruptibility = 8),
        Scenario::on(P::PREEMPTION_TIMER, R::PREEMPTION_TIMER, |a| a.vmcall()).set(Field::PreemptionTimer, 0),
        Scenario::on(P::POSTED_INTERRUPTS, R::VMCALL, |a| a.vmcall())
            .with(Bench::virtual_interrupts)
            .with(|b| {
                b.exit_controls(ExitControls::ACKNOWLEDGE_INTERRUPT);
                b.interrupts_on();
                b.put(DESCRIPTOR + 8, 1 << 0x11);
                b.put(DESCRIPTOR + 32, 1);
                b.post(Message::Interrupt(0xf2));
            })
            .set(Field::PostedInterruptVector, 0xf2)
            .set(Field::GuestInterruptStatus, 0)
            .in_handler()
            .sees_field(Field::GuestInterruptStatus, 0x5100),
    ]
}

fn primary() -> Vec<Scenario> {
    use ExitReason as R;
    use PrimaryControls as P;
    vec![
        Scenario::on(P::INTERRUPT_WINDOW_EXITING, R::INTERRUPT_WINDOW, |a| a.vmcall())
            .with(Bench::interrupts_on),
        Scenario::on(P::USE_TSC_OFFSETTING, R::VMCALL, |a| {
            a.rdtsc()?;
            a.vmcall()
        })
        .set(Field::TscOffset, 0x5555 << 32)
        .after(2)
        .length(VMCALL)
        .sees_register(Gpr::Rdx, 0x5555),
        Scenario::on(P::HLT_EXITING, R::HLT, |a| a.hlt()).length(1),
        Scenario::on(P::INVLPG_EXITING, R::INVLPG, |a| a.invlpg(byte_ptr(rbx))).length(3).qualification(DATA),
        Scenario::on(P::RDPMC_EXITING, R::RDPMC, |a| a.rdpmc()).length(2),
        Scenario::on(P::RDTSC_EXITING, R::RDTSC, |a| a.rdtsc()).length(2),
        Scenario::on(P::CR3_LOAD_EXITING, R::CR_ACCESS, |a| a.mov(cr3, rcx)).length(3).qualification(0x103),
        Scenario::on(P::CR3_STORE_EXITING, R::CR_ACCESS, |a| a.mov(rcx, cr3)).length(3).qualification(0x113),
        Scenario::on(P::CR8_LOAD_EXITING, R::CR_ACCESS, |a| a.mov(cr8, rcx)).length(4).qualification(0x108),
        Scenario::on(P::CR8_STORE_EXITING, R::CR_ACCESS, |a| a.mov(rcx, cr8)).length(4).qualification(0x118),
        Scenario::on(P::NMI_WINDOW_EXITING, R::NMI_WINDOW, |a| a.vmcall())
            .with(|b| b.pin(PinControls::NMI_EXITING | PinControls::VIRTUAL_NMIS)),
        Scenario::on(P::MOV_DR_EXITING, R::MOV_DR, |a| a.mov(rcx, dr7)).length(3).qualification(0x117),
        Scenario::on(P::UNCONDITIONAL_IO_EXITING, R::IO_INSTRUCTION, |a| a.in_(al, dx))
            .register(Gpr::Rdx, 0x3f8)
            .length(1)
            .qualification(0x3f8_0008),
        Scenario::on(P::USE_IO_BITMAPS, R::IO_INSTRUCTION, |a| a.out(0x80, al))
            .with(|b| b.put(IO_BITMAPS + 0x10, 1))
            .length(2)
            .qualification(0x80_0040),
        Scenario::on(P::MONITOR_TRAP_FLAG, R::MONITOR_TRAP_FLAG, |a| {
            a.nop()?;
            a.vmcall()
        })
        .after(1),
        Scenario::on(P::USE_MSR_BITMAPS, R::VMCALL, |a| {
            a.mov(ecx, msr::IA32_TSC_AUX)?;
            a.rdmsr()?;
            a.vmcall()
        })
        .after(7)
        .length(VMCALL),
        Scenario::on(P::PAUSE_EXITING, R::PAUSE, |a| a.pause()).length(2),
        Scenario::on(P::ACTIVATE_SECONDARY, R::WBINVD, |a| a.wbinvd())
            .with(|b| b.secondary(SecondaryControls::WBINVD_EXITING))
            .length(2),
    ]
}

/// VMFUNC to EPTP 1, under which [`DATA`] is another page.
fn switches_eptp(control: impl Into<Flip>) -> Scenario {
    Scenario::on(control, ExitReason::VMCALL, |a| {
        a.xor(eax, eax)?;
        a.mov(ecx, 1)?;
        a.vmfunc()?;
        a.mov(rdx, qword_ptr(rbx))?;
        a.vmcall()
    })
    .with(|b| {
        b.ept();
        b.secondary(SecondaryControls::ENABLE_VM_FUNCTIONS);
        b.set(Field::VmFunctionControls, VmFunctions::EPTP_SWITCHING.0);
        b.put(EPTP_LIST + 8, OTHER_EPT | EPTP);
        b.put(OTHER_EPT + 0x3000 + (DATA >> 12) * 8, (DATA + 0x1000) | 0x37);
        b.put(DATA + 0x1000, 0x77);
    })
    .after(13)
    .length(VMCALL)
    .sees_register(Gpr::Rdx, 0x77)
}

fn secondary() -> Vec<Scenario> {
    use ExitReason as R;
    use SecondaryControls as S;
    vec![
        Scenario::on(S::ENABLE_EPT, R::EPT_VIOLATION, |a| a.mov(rax, qword_ptr(rbx)))
            .with(|b| {
                b.ept();
                b.put(Bench::ept_entry(DATA), 0);
            })
            .qualification(0x781)
            .expect(|exit| (exit.linear, exit.physical) = (DATA, DATA)),
        Scenario::on(S::DESCRIPTOR_TABLE_EXITING, R::GDTR_IDTR_ACCESS, |a| a.sgdt(fword_ptr(rbx)))
            .length(3)
            .information(AT_RBX),
        Scenario::on(S::ENABLE_RDTSCP, R::VMCALL, |a| {
            a.rdtscp()?;
            a.vmcall()
        })
        .after(3)
        .length(VMCALL),
        // The page goes away between two exits, and nobody invalidates its translation.
        Scenario::on(S::ENABLE_VPID, R::VMCALL, |a| {
            a.mov(rax, qword_ptr(rbx))?;
            a.vmcall()?;
            a.mov(rcx, qword_ptr(rbx))?;
            a.vmcall()
        })
        .register(Gpr::Rbx, 0x40_0000 + DATA)
        .with(|b| {
            b.put(0x3010, 0x87);
            b.put(DATA, 0x1234);
        })
        .between(|b| b.put(0x3010, 0x40_0087))
        .after(9)
        .length(VMCALL)
        .sees_register(Gpr::Rcx, 0x1234),
        Scenario::on(S::WBINVD_EXITING, R::WBINVD, |a| a.wbinvd()).length(2),
        Scenario::on(S::UNRESTRICTED_GUEST, R::VMCALL, |a| a.vmcall()).with(Bench::legacy).length(VMCALL),
        Scenario::on(S::PAUSE_LOOP_EXITING, R::PAUSE, |a| {
            a.pause()?;
            a.pause()
        })
        .set(Field::PleGap, 100)
        .set(Field::PleWindow, 0)
        .after(2)
        .length(2),
        Scenario::on(S::RDRAND_EXITING, R::RDRAND, |a| a.rdrand(rcx)).length(4).information(1 << 3 | 2 << 11),
        Scenario::on(S::RDSEED_EXITING, R::RDSEED, |a| a.rdseed(ecx)).length(3).information(1 << 3 | 1 << 11),
        Scenario::on(S::ENABLE_INVPCID, R::VMCALL, |a| {
            a.invpcid(rcx, xmmword_ptr(rbx))?;
            a.vmcall()
        })
        .register(Gpr::Rcx, 2)
        .after(5)
        .length(VMCALL),
        switches_eptp(S::ENABLE_VM_FUNCTIONS),
        switches_eptp(VmFunctions::EPTP_SWITCHING),
        Scenario::on(S::VMCS_SHADOWING, R::VMCALL, |a| {
            a.mov(ecx, Field::GuestRip.encoding())?;
            a.vmread(rax, rcx)?;
            a.vmcall()
        })
        .with(|b| {
            let shadow = field_address(rootmode_arch::HostPhysical(SHADOW), Field::GuestRip);
            b.put(shadow.0, 0x1234);
        })
        .set(Field::LinkPointer, SHADOW)
        .after(8)
        .length(VMCALL)
        .sees_register(Gpr::Rax, 0x1234),
        // The walk for the first fetch already makes a page dirty.
        Scenario::on(S::ENABLE_PML, R::PML_FULL, |a| a.vmcall())
            .with(Bench::ept)
            .set(Field::Eptp, EPT | EPTP | 1 << 6)
            .set(Field::PmlIndex, 0xffff),
        Scenario::on(S::EPT_VIOLATION_VE, R::VMCALL, |a| a.mov(rax, qword_ptr(rbx)))
            .with(|b| {
                b.ept();
                b.put(Bench::ept_entry(DATA), 0);
            })
            .in_handler()
            .sees(0xffff_ffff_0000_0030, |b| b.get(EXCEPTION_AREA)),
        Scenario::on(S::ENABLE_XSAVES, R::VMCALL, |a| {
            a.xor(eax, eax)?;
            a.xor(edx, edx)?;
            a.xsaves(ptr(rbx))?;
            a.vmcall()
        })
        .with(|b| b.or(Field::GuestCr4, Cr4::OSXSAVE.0))
        .set(Field::XssExitingBitmap, 0)
        .after(7)
        .length(VMCALL),
        // The guest's page tables map user-mode pages, which may not be executed.
        Scenario::on(S::MODE_BASED_EXECUTE, R::EPT_VIOLATION, |a| a.vmcall())
            .with(Bench::ept)
            .qualification(0x7bc)
            .expect(|exit| (exit.linear, exit.physical) = (CODE, CODE)),
        Scenario::on(S::USE_TSC_SCALING, R::VMCALL, |a| {
            a.nop()?;
            a.rdtsc()?;
            a.vmcall()
        })
        .with(|b| b.primary(PrimaryControls::USE_TSC_OFFSETTING))
        .set(Field::TscMultiplier, 1)
        .set(Field::TscOffset, 5)
        .after(3)
        .length(VMCALL)
        .sees_register(Gpr::Rax, 5),
    ]
}

/// WRMSR of `index` with the low half `low`.
fn writes(a: &mut CodeAssembler, index: u32, low: u32) -> Result<(), IcedError> {
    a.mov(ecx, index)?;
    a.mov(eax, low)?;
    a.xor(edx, edx)?;
    a.wrmsr()
}

/// A virtual IPI to virtual processor 0.
fn sends_ipi(control: impl Into<Flip>) -> Scenario {
    Scenario::on(control, ExitReason::VMCALL, |a| {
        writes(a, msr::IA32_X2APIC_ICR, 0x51)?;
        a.vmcall()
    })
    .with(Bench::virtual_interrupts)
    .with(Bench::virtual_x2apic)
    .with(|b| {
        b.primary(PrimaryControls::ACTIVATE_TERTIARY);
        b.set(Field::TertiaryControls, TertiaryControls::IPI_VIRTUALIZATION.0);
        b.put(PID_TABLE, DESCRIPTOR | 1);
        // Notifications suppressed.
        b.put(DESCRIPTOR + 32, 2);
    })
    .set(Field::LastPidPointerIndex, 0)
    .after(14)
    .length(VMCALL)
    .sees(1 << 0x11, |b| b.get(DESCRIPTOR + 8))
}

fn apic() -> Vec<Scenario> {
    use ExitReason as R;
    use SecondaryControls as S;
    vec![
        sends_ipi(PrimaryControls::ACTIVATE_TERTIARY),
        sends_ipi(TertiaryControls::IPI_VIRTUALIZATION),
        Scenario::on(PrimaryControls::USE_TPR_SHADOW, R::VMCALL, |a| {
            a.mov(rax, cr8)?;
            a.vmcall()
        })
        .with(|b| b.tpr_shadow(0x50))
        .after(4)
        .length(VMCALL)
        .sees_register(Gpr::Rax, 5),
        Scenario::on(S::VIRTUALIZE_APIC_ACCESSES, R::APIC_ACCESS, |a| a.mov(eax, dword_ptr(rbx)))
            .register(Gpr::Rbx, APIC_ACCESS + 0x30)
            .length(2)
            .qualification(0x30),
        Scenario::on(S::VIRTUALIZE_X2APIC, R::VMCALL, |a| {
            a.mov(ecx, msr::IA32_X2APIC_TPR)?;
            a.rdmsr()?;
            a.vmcall()
        })
        .with(|b| b.tpr_shadow(0x50))
        .with(Bench::virtual_x2apic)
        .after(7)
        .length(VMCALL)
        .sees_register(Gpr::Rax, 0x50),
        Scenario::on(S::APIC_REGISTER_VIRTUALIZATION, R::VMCALL, |a| {
            a.mov(eax, dword_ptr(rbx))?;
            a.vmcall()
        })
        .with(|b| {
            b.tpr_shadow(0);
            b.secondary(S::VIRTUALIZE_APIC_ACCESSES);
            b.put(VIRTUAL_APIC + 0x20, 0x0700_0000);
        })
        .register(Gpr::Rbx, APIC_ACCESS + 0x20)
        .after(2)
        .length(VMCALL)
        .sees_register(Gpr::Rax, 0x0700_0000),
        Scenario::on(S::VIRTUAL_INTERRUPT_DELIVERY, R::VMCALL, |a| a.vmcall())
            .with(Bench::virtual_interrupts)
            .with(|b| {
                b.interrupts_on();
                b.put(VIRTUAL_APIC + 0x220, 1 << 0x11);
            })
            .set(Field::GuestInterruptStatus, 0x51)
            .in_handler()
            .sees_field(Field::GuestInterruptStatus, 0x5100),
        Scenario::plain(R::TPR_BELOW_THRESHOLD, |a| a.mov(cr8, rcx))
            .with(|b| b.tpr_shadow(0x50))
            .set(Field::TprThreshold, 3)
            .register(Gpr::Rcx, 1)
            .after(4)
            .sees(0x10, |b| b.get(VIRTUAL_APIC + 0x80)),
        Scenario::plain(R::VIRTUALIZED_EOI, |a| writes(a, msr::IA32_X2APIC_EOI, 0))
            .with(Bench::virtual_interrupts)
            .with(Bench::virtual_x2apic)
            .set(Field::GuestInterruptStatus, 0x5100)
            .set(Field::EoiExitBitmap1, 1 << 0x11)
            .qualification(0x51)
            .after(14)
            .sees_field(Field::GuestInterruptStatus, 0),
        Scenario::plain(R::APIC_WRITE, |a| a.mov(dword_ptr(rbx), ecx))
            .with(|b| {
                b.tpr_shadow(0);
                b.secondary(S::VIRTUALIZE_APIC_ACCESSES | S::APIC_REGISTER_VIRTUALIZATION);
            })
            .register(Gpr::Rbx, APIC_ACCESS + 0xf0)
            .register(Gpr::Rcx, 0x1ff)
            .qualification(0xf0)
            .after(2)
            .sees(0x1ff, |b| b.get(VIRTUAL_APIC + 0xf0)),
    ]
}

/// A guest that writes an MSR which does not exit, and leaves.
fn changes_msr(control: ExitControls, index: u32, value: u64) -> Scenario {
    Scenario::on(control, ExitReason::VMCALL, move |a| {
        a.mov(ecx, index)?;
        a.mov(eax, value as u32)?;
        a.mov(edx, (value >> 32) as u32)?;
        a.wrmsr()?;
        a.vmcall()
    })
    .with(|b| b.primary(PrimaryControls::USE_MSR_BITMAPS))
    .after(17)
    .length(VMCALL)
}

const PAT: u64 = 0x0606_0606_0606_0606;

fn exit_controls() -> Vec<Scenario> {
    use ExitControls as E;
    use ExitReason as R;
    let leaves = |control| Scenario::on(control, R::VMCALL, |a| a.vmcall()).length(VMCALL);
    vec![
        Scenario::on(E::SAVE_DEBUG_CONTROLS, R::VMCALL, |a| {
            a.mov(dr7, rcx)?;
            a.vmcall()
        })
        .register(Gpr::Rcx, 0x402)
        .after(3)
        .length(VMCALL)
        .sees_field(Field::GuestDr7, 0x402),
        leaves(E::HOST_ADDRESS_SPACE_SIZE),
        Scenario::on(E::ACKNOWLEDGE_INTERRUPT, R::EXTERNAL_INTERRUPT, |a| a.vmcall())
            .with(|b| {
                b.pin(PinControls::EXTERNAL_INTERRUPT_EXITING);
                b.post(Message::Interrupt(0x33));
            })
            .interruption(0x8000_0033),
        changes_msr(E::SAVE_PAT, msr::IA32_PAT, PAT).sees_field(Field::GuestPat, PAT),
        leaves(E::LOAD_PAT).set(Field::HostPat, PAT).sees(PAT, |b| b.cpu().msrs.pat),
        changes_msr(E::SAVE_EFER, msr::IA32_EFER, 0xd00)
            .set(Field::GuestEfer, 0x500)
            .sees_field(Field::GuestEfer, 0xd00),
        leaves(E::LOAD_EFER)
            .set(Field::HostEfer, (Efer::LME | Efer::LMA | Efer::SCE).0)
            .sees(0x501, |b| b.cpu().efer.0),
        // 40 instructions take 160 ticks of the TSC, 5 of the timer.
        Scenario::on(E::SAVE_PREEMPTION_TIMER, R::VMCALL, |a| {
            for _ in 0..40 {
                a.nop()?;
            }
            a.vmcall()
        })
        .with(|b| b.pin(PinControls::PREEMPTION_TIMER))
        .set(Field::PreemptionTimer, 1000)
        .after(40)
        .length(VMCALL)
        .sees_field(Field::PreemptionTimer, 995),
        leaves(E::LOAD_CET).set(Field::HostSsp, 0x1000).sees(0x1000, |b| b.cpu().control_flow.ssp),
        leaves(E::LOAD_PKRS).set(Field::HostPkrs, 0x55).sees(0x55, |b| b.cpu().pkrs.into()),
        leaves(E::LOAD_PERF_GLOBAL_CTRL)
            .set(Field::HostPerfGlobalCtrl, 0x0f)
            .sees(0x0f, |b| b.cpu().counters.global_control()),
        changes_msr(E::SAVE_PERF_GLOBAL_CTRL, msr::IA32_PERF_GLOBAL_CTRL, 0x55)
            .sees_field(Field::GuestPerfGlobalCtrl, 0x55),
    ]
}

/// A guest that reads an MSR which does not exit, and leaves with its low half.
fn finds_msr(control: EntryControls, index: u32, low: u64) -> Scenario {
    Scenario::on(control, ExitReason::VMCALL, move |a| {
        a.mov(ecx, index)?;
        a.rdmsr()?;
        a.vmcall()
    })
    .with(|b| b.primary(PrimaryControls::USE_MSR_BITMAPS))
    .after(7)
    .length(VMCALL)
    .sees_register(Gpr::Rax, low)
}

fn entry_controls() -> Vec<Scenario> {
    use EntryControls as E;
    use ExitReason as R;
    vec![
        Scenario::on(E::LOAD_DEBUG_CONTROLS, R::VMCALL, |a| {
            a.mov(rax, dr7)?;
            a.vmcall()
        })
        .set(Field::GuestDr7, 0x402)
        .set(Field::GuestDebugCtl, 0)
        .after(3)
        .length(VMCALL)
        .sees_register(Gpr::Rax, 0x402),
        Scenario::on(E::IA32E_MODE_GUEST, R::VMCALL, |a| a.vmcall()).length(VMCALL),
        finds_msr(E::LOAD_PAT, msr::IA32_PAT, PAT & 0xffff_ffff).set(Field::GuestPat, PAT),
        finds_msr(E::LOAD_EFER, msr::IA32_EFER, 0xd00).set(Field::GuestEfer, 0xd00),
        Scenario::on(E::LOAD_CET, R::VMCALL, |a| a.vmcall())
            .set(Field::GuestSsp, 0x2000)
            .length(VMCALL)
            .sees_field(Field::GuestSsp, 0x2000),
        finds_msr(E::LOAD_PKRS, msr::IA32_PKRS, 0x33).set(Field::GuestPkrs, 0x33),
        finds_msr(E::LOAD_PERF_GLOBAL_CTRL, msr::IA32_PERF_GLOBAL_CTRL, 0x33)
            .set(Field::GuestPerfGlobalCtrl, 0x33),
    ]
}

/// XSAVES or XRSTORS of a component that the XSS-exiting bitmap names: shadow stacks of user mode.
fn saves_supervisor_state(
    reason: ExitReason,
    build: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + 'static,
) -> Scenario {
    Scenario::plain(reason, build)
        .with(|b| {
            b.secondary(SecondaryControls::ENABLE_XSAVES);
            b.or(Field::GuestCr4, Cr4::OSXSAVE.0);
            b.cpu().xss = 1 << 11;
        })
        .set(Field::XssExitingBitmap, 1 << 11)
        .register(Gpr::Rax, 1 << 11)
        .register(Gpr::Rdx, 0)
        .length(3)
        .information(AT_RBX)
}

fn instructions() -> Vec<Scenario> {
    use ExitReason as R;
    vec![
        Scenario::plain(R::CPUID, |a| a.cpuid()).length(2),
        Scenario::plain(R::INVD, |a| a.invd()).length(2),
        Scenario::plain(R::VMCLEAR, |a| a.vmclear(qword_ptr(rbx))).length(4).information(AT_RBX),
        Scenario::plain(R::VMLAUNCH, |a| a.vmlaunch()).length(3),
        Scenario::plain(R::VMPTRLD, |a| a.vmptrld(qword_ptr(rbx + 8)))
            .length(4)
            .qualification(8)
            .information(AT_RBX),
        Scenario::plain(R::VMPTRST, |a| a.vmptrst(qword_ptr(rbx))).length(3).information(AT_RBX),
        Scenario::plain(R::VMREAD, |a| a.vmread(qword_ptr(rbx), rcx)).length(3).information(AT_RBX | 1 << 28),
        Scenario::plain(R::VMRESUME, |a| a.vmresume()).length(3),
        Scenario::plain(R::VMWRITE, |a| a.vmwrite(rcx, rdx))
            .length(3)
            .information(2 << 3 | 1 << 10 | 1 << 28),
        Scenario::plain(R::VMXOFF, |a| a.vmxoff()).length(3),
        Scenario::plain(R::VMXON, |a| a.vmxon(qword_ptr(rbx))).length(4).information(AT_RBX),
        Scenario::plain(R::INVEPT, |a| a.invept(rcx, xmmword_ptr(rbx)))
            .length(5)
            .information(AT_RBX | 1 << 28),
        Scenario::plain(R::INVVPID, |a| a.invvpid(rcx, xmmword_ptr(rbx)))
            .length(5)
            .information(AT_RBX | 1 << 28),
        Scenario::plain(R::INVPCID, |a| a.invpcid(rcx, xmmword_ptr(rbx)))
            .with(|b| {
                b.secondary(SecondaryControls::ENABLE_INVPCID);
                b.primary(PrimaryControls::INVLPG_EXITING);
            })
            .length(5)
            .information(AT_RBX | 1 << 28),
        Scenario::plain(R::RDTSCP, |a| a.rdtscp())
            .with(|b| {
                b.secondary(SecondaryControls::ENABLE_RDTSCP);
                b.primary(PrimaryControls::RDTSC_EXITING);
            })
            .length(3),
        Scenario::plain(R::RDMSR, |a| a.rdmsr()).length(2),
        Scenario::plain(R::WRMSR, |a| a.wrmsr()).length(2),
        Scenario::plain(R::LDTR_TR_ACCESS, |a| a.str(ecx))
            .with(|b| b.secondary(SecondaryControls::DESCRIPTOR_TABLE_EXITING))
            .length(3)
            .information(1 << 3 | 1 << 10 | 1 << 28),
        Scenario::plain(R::XSETBV, |a| a.xsetbv()).with(|b| b.or(Field::GuestCr4, Cr4::OSXSAVE.0)).length(3),
        saves_supervisor_state(R::XSAVES, |a| a.xsaves(ptr(rbx))),
        saves_supervisor_state(R::XRSTORS, |a| a.xrstors(ptr(rbx))),
        Scenario::plain(R::VMFUNC, |a| a.vmfunc())
            .with(|b| {
                b.ept();
                b.secondary(SecondaryControls::ENABLE_VM_FUNCTIONS);
                b.set(Field::VmFunctionControls, VmFunctions::EPTP_SWITCHING.0);
            })
            .register(Gpr::Rax, 0)
            .register(Gpr::Rcx, 512)
            .length(3),
    ]
}

fn events() -> Vec<Scenario> {
    use ExitReason as R;
    let failed = u64::from(R::ENTRY_FAILURE);
    vec![
        Scenario::plain(R::EXCEPTION_OR_NMI, |a| a.ud2())
            .set(Field::ExceptionBitmap, 1 << 6)
            .interruption(0x8000_0306),
        Scenario::plain(R::TRIPLE_FAULT, |a| a.ud2()).set(Field::GuestIdtrLimit, 0),
        Scenario::plain(R::INIT, |a| a.vmcall()).with(|b| b.post(Message::Init)),
        Scenario::plain(R::SIPI, |a| a.vmcall())
            .set(Field::GuestActivity, 3)
            .with(|b| b.post(Message::Sipi(0x12)))
            .qualification(0x12)
            .expect(|exit| exit.activity = 3),
        // JMP 40:0.
        Scenario::plain(R::TASK_SWITCH, |a| a.db(&[0xea, 0, 0, 0, 0, TASK as u8, 0]))
            .with(Bench::legacy)
            .length(7)
            .qualification(2 << 30 | u64::from(TASK)),
        Scenario::plain(R::EPT_MISCONFIGURATION, |a| a.mov(rax, qword_ptr(rbx)))
            .with(|b| {
                b.ept();
                b.put(Bench::ept_entry(DATA), DATA | 2);
            })
            .expect(|exit| exit.physical = DATA),
        Scenario::plain(R::INVALID_GUEST_STATE, |a| a.vmcall())
            .set(Field::GuestRflags, 0)
            .expect(|exit| exit.reason |= failed),
        Scenario::plain(R::MSR_LOADING, |a| a.vmcall())
            .set(Field::EntryMsrLoadCount, 1)
            .with(|b| b.put(MSR_AREA, msr::IA32_FS_BASE.into()))
            .qualification(1)
            .expect(|exit| exit.reason |= failed),
    ]
}
