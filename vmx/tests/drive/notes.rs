//! What is commonly got wrong about VMX, a test each.

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{Cr0, Cr4, Gpr, HostPhysical, RFlags, msr};
use rootmode_cpu::{Instruction, Message, Outcome};
use rootmode_vmx::definitions::controls::Word;
use rootmode_vmx::{
    Control, EntryControls, ExitControls, ExitReason, Field, PinControls, PrimaryControls, SecondaryControls,
};

const fn reason(reason: ExitReason) -> u64 {
    reason.0 as u64
}

/// Valid interruption information of an external interrupt with vector 0x33, to be injected.
const INJECTED: u64 = 0x8000_0033;
/// The same of a pending MTF VM exit.
const PENDING_MTF: u64 = 0x8000_0700;

impl Bench {
    /// A guest of VMCALLs.
    fn idle() -> Self {
        let mut bench = Self::new();
        bench.assemble(|a| a.vmcall());
        bench
    }
    /// A guest of NOPs.
    fn nops() -> Self {
        let mut bench = Self::new();
        bench.nops_at_code();
        bench
    }
    fn nops_at_code(&mut self) {
        self.code(&[0x90; 64]);
    }
    /// Exit reason and RIP, relative to the guest's code.
    fn leaves(&mut self) -> (u64, u64) {
        let exit = self.exit();
        (exit.reason, exit.rip.wrapping_sub(CODE))
    }
    fn handler_leaves(&mut self) -> (u64, u64) {
        let exit = self.exit();
        (exit.reason, exit.rip.wrapping_sub(HANDLER))
    }
}

/// "Prioritization of Concurrent Events" of Vol. 3A, and the special features of VM entry: of any two events that are due
/// after an entry, the one that stands first exits.
#[test]
fn of_two_events_at_a_boundary_the_one_with_priority_exits() {
    type Cause = (ExitReason, fn(&mut Bench));
    let causes: [Cause; 9] = [
        (ExitReason::INIT, |b| b.post(Message::Init)),
        (ExitReason::TPR_BELOW_THRESHOLD, |b| {
            b.tpr_shadow(0);
            b.secondary(SecondaryControls::VIRTUALIZE_APIC_ACCESSES);
            b.set(Field::TprThreshold, 1);
        }),
        (ExitReason::MONITOR_TRAP_FLAG, |b| b.set(Field::EntryInterruptionInfo, PENDING_MTF)),
        // A pending breakpoint exits as #DB.
        (ExitReason::EXCEPTION_OR_NMI, |b| {
            b.set(Field::GuestPendingDebug, 1 << 12 | 1);
            b.set(Field::ExceptionBitmap, 2);
        }),
        (ExitReason::PREEMPTION_TIMER, |b| {
            b.pin(PinControls::PREEMPTION_TIMER);
            b.set(Field::PreemptionTimer, 0);
        }),
        (ExitReason::NMI_WINDOW, |b| {
            b.pin(PinControls::NMI_EXITING | PinControls::VIRTUAL_NMIS);
            b.primary(PrimaryControls::NMI_WINDOW_EXITING);
        }),
        (ExitReason::EXCEPTION_OR_NMI, |b| {
            b.pin(PinControls::NMI_EXITING);
            b.post(Message::Nmi);
        }),
        (ExitReason::INTERRUPT_WINDOW, |b| {
            b.interrupts_on();
            b.primary(PrimaryControls::INTERRUPT_WINDOW_EXITING);
        }),
        (ExitReason::EXTERNAL_INTERRUPT, |b| {
            b.pin(PinControls::EXTERNAL_INTERRUPT_EXITING);
            b.post(Message::Interrupt(0x33));
        }),
    ];
    for (n, (first, prepare)) in causes.iter().enumerate() {
        for (_, other) in &causes[n..] {
            let mut bench = Bench::idle();
            prepare(&mut bench);
            other(&mut bench);
            // An NMI that did not exit meets the host before its first instruction.
            bench.run();
            let told = (bench.vmread(Field::ExitReason), bench.vmread(Field::GuestRip));
            assert_eq!(told, (reason(*first), CODE));
            let vector = match n {
                3 => 0x8000_0301,
                6 => 0x8000_0202,
                _ => 0,
            };
            assert_eq!(bench.vmread(Field::ExitInterruptionInfo), vector, "{first:?}");
        }
    }
}

/// "Monitor Trap Flag".
#[test]
fn the_monitor_trap_flag_exits_after_delivery_and_after_one_iteration_but_not_in_shutdown() {
    let mtf = |b: &mut Bench| b.primary(PrimaryControls::MONITOR_TRAP_FLAG);

    let mut bench = Bench::idle();
    mtf(&mut bench);
    bench.set(Field::EntryInterruptionInfo, INJECTED);
    bench.interrupts_on();
    assert_eq!(bench.handler_leaves(), (reason(ExitReason::MONITOR_TRAP_FLAG), 0));

    let mut bench = Bench::idle();
    bench.set(Field::EntryInterruptionInfo, PENDING_MTF);
    assert_eq!(bench.leaves(), (reason(ExitReason::MONITOR_TRAP_FLAG), 0));

    let mut bench = Bench::new();
    mtf(&mut bench);
    bench.assemble(|a| a.rep().stosb());
    bench.register(Gpr::Rcx, 5);
    bench.register(Gpr::Rdi, DATA);
    assert_eq!(bench.leaves(), (reason(ExitReason::MONITOR_TRAP_FLAG), 0));
    assert_eq!(bench.cpu().gpr[Gpr::Rcx as usize], 4);

    for activity in [2, 3] {
        let mut bench = Bench::idle();
        mtf(&mut bench);
        bench.set(Field::GuestActivity, activity);
        assert!(matches!(bench.run(), End::Stopped(_)), "activity state {activity}");
    }
}

/// "VMX-Preemption Timer": it counts when bit 5 of the TSC changes, which 8 instructions here take.
#[test]
fn the_preemption_timer_follows_a_bit_of_the_tsc_and_expires_at_0_after_injection_and_debug_exceptions() {
    let timer = |b: &mut Bench, value| {
        b.pin(PinControls::PREEMPTION_TIMER);
        b.set(Field::PreemptionTimer, value);
    };
    let expired = reason(ExitReason::PREEMPTION_TIMER);

    let mut bench = Bench::nops();
    timer(&mut bench, 1);
    assert_eq!(bench.leaves(), (expired, 8));

    // The same, entered 3 instructions later: the timer comes 3 instructions earlier.
    let mut bench = Bench::nops();
    bench.primary(PrimaryControls::MONITOR_TRAP_FLAG);
    for _ in 0..3 {
        bench.exit();
    }
    bench.clear(Field::PrimaryControls, PrimaryControls::MONITOR_TRAP_FLAG.0.into());
    timer(&mut bench, 1);
    assert_eq!(bench.leaves(), (expired, 8));

    let mut bench = Bench::idle();
    timer(&mut bench, 0);
    bench.set(Field::EntryInterruptionInfo, INJECTED);
    bench.interrupts_on();
    assert_eq!(bench.handler_leaves(), (expired, 0));

    let mut bench = Bench::idle();
    timer(&mut bench, 0);
    bench.set(Field::GuestPendingDebug, 1 << 12 | 1);
    assert_eq!(bench.handler_leaves(), (expired, 0));

    let mut bench = Bench::idle();
    timer(&mut bench, 1);
    bench.set(Field::GuestActivity, 1);
    let exit = bench.exit();
    assert_eq!((exit.reason, exit.rip, exit.activity), (expired, CODE, 1), "HLT");

    let mut bench = Bench::idle();
    timer(&mut bench, 0);
    bench.set(Field::GuestActivity, 3);
    assert!(matches!(bench.run(), End::Stopped(_)), "wait-for-SIPI");
}

/// "NMI Unblocking Due to IRET", "Changes to Instruction Behavior in VMX Non-Root Operation" on IRET.
#[test]
fn iret_ends_blocking_of_virtual_nmis_even_if_it_exits_and_of_nmis_only_if_they_do_not_exit() {
    let virtual_nmis = PinControls::NMI_EXITING | PinControls::VIRTUAL_NMIS;
    let returning = |pin| {
        let mut bench = Bench::new();
        bench.pin(pin);
        bench.assemble(|a| a.iretq());
        bench.set(Field::GuestInterruptibility, 8);
        let frame = [CODE + 0x10, KERNEL_CS.into(), 2, STACK, KERNEL_SS.into()];
        for (n, value) in frame.into_iter().enumerate() {
            bench.put(STACK + 8 * n as u64, value);
        }
        let vmcall = assemble(64, CODE + 0x10, |a| a.vmcall());
        bench.board.memory.write(HostPhysical(CODE + 0x10), &vmcall);
        bench
    };
    let mut bench = returning(virtual_nmis);
    assert_eq!((bench.exit().interruptibility, bench.field(Field::GuestRip)), (0, CODE + 0x10));
    let mut bench = returning(PinControls::NMI_EXITING);
    assert_eq!((bench.exit().interruptibility, bench.field(Field::GuestRip)), (8, CODE + 0x10));

    let mut bench = returning(virtual_nmis);
    bench.ept();
    bench.put(Bench::ept_entry(STACK), 0);
    let exit = bench.exit();
    let unblocking = exit.qualification >> 12 & 1;
    assert_eq!((exit.reason, unblocking, exit.interruptibility), (reason(ExitReason::EPT_VIOLATION), 1, 0));

    let mut bench = returning(virtual_nmis);
    bench.set(Field::ExceptionBitmap, 1 << 14);
    bench.set(Field::GuestRsp, 1 << 30);
    let exit = bench.exit();
    assert_eq!((exit.interruption & 0xffff_ffff, exit.interruptibility), (0x8000_1b0e, 0));
}

/// "Architectural State Before a VM Exit".
#[test]
fn exceptions_that_exit_leave_cr2_and_dr6_alone() {
    let mut bench = Bench::new();
    bench.assemble(|a| a.mov(rax, qword_ptr(rbx)));
    bench.register(Gpr::Rbx, 1 << 30);
    bench.set(Field::ExceptionBitmap, 1 << 14);
    let exit = bench.exit();
    assert_eq!((exit.interruption, exit.qualification), (0x8000_0b0e, 1 << 30));
    assert_eq!(bench.cpu().cr2, 0);

    let mut bench = Bench::nops();
    bench.or(Field::GuestRflags, RFlags::TF.0);
    bench.set(Field::ExceptionBitmap, 2);
    let before = bench.cpu().dr6;
    let exit = bench.exit();
    assert_eq!((exit.interruption, exit.qualification, exit.rip), (0x8000_0301, 1 << 14, CODE + 1));
    assert_eq!(bench.cpu().dr6, before);
}

/// "Saving RIP, RSP, RFLAGS, and SSP": RF is what the exit's event would have pushed, 1 for what the second stage refuses, and 0
/// for instructions.
#[test]
fn the_resume_flag_that_an_exit_saves_is_that_of_its_event() {
    type Cause = (&'static str, fn(&mut Bench), ExitReason, [bool; 2]);
    let causes: [Cause; 7] = [
        ("an instruction", |b| b.assemble(|a| a.vmcall()), ExitReason::VMCALL, [false, false]),
        (
            "a fault",
            |b| {
                b.assemble(|a| a.ud2());
                b.set(Field::ExceptionBitmap, 1 << 6);
            },
            ExitReason::EXCEPTION_OR_NMI,
            [true, true],
        ),
        (
            "INT3",
            |b| {
                b.assemble(|a| a.int3());
                b.set(Field::ExceptionBitmap, 1 << 3);
            },
            ExitReason::EXCEPTION_OR_NMI,
            [false, false],
        ),
        (
            "an EPT violation",
            |b| {
                b.nops_at_code();
                b.ept();
                b.put(Bench::ept_entry(CODE), CODE | 0x33);
            },
            ExitReason::EPT_VIOLATION,
            [true, true],
        ),
        (
            "an EPT violation as an interrupt is delivered",
            |b| {
                b.ept();
                b.put(Bench::ept_entry(IDT), 0);
                b.set(Field::EntryInterruptionInfo, INJECTED);
                b.interrupts_on();
            },
            ExitReason::EPT_VIOLATION,
            [false, true],
        ),
        (
            "an EPT violation as an injected fault is delivered",
            |b| {
                b.ept();
                b.put(Bench::ept_entry(IDT), 0);
                b.set(Field::EntryInterruptionInfo, 0x8000_0306);
            },
            ExitReason::EPT_VIOLATION,
            [false, true],
        ),
        (
            "an NMI between instructions",
            |b| {
                b.nops_at_code();
                b.pin(PinControls::NMI_EXITING);
                b.post(Message::Nmi);
            },
            ExitReason::EXCEPTION_OR_NMI,
            [false, true],
        ),
    ];
    for (name, prepare, expected, saved) in causes {
        for (before, saved) in [false, true].into_iter().zip(saved) {
            let mut bench = Bench::new();
            prepare(&mut bench);
            let flags = RFlags(bench.field(Field::GuestRflags)).set(RFlags::RF, before);
            bench.set(Field::GuestRflags, flags.0);
            assert_eq!(bench.exit().reason, reason(expected), "{name}");
            let flags = RFlags(bench.field(Field::GuestRflags));
            assert_eq!(flags.contains(RFlags::RF), saved, "{name}, RF before: {before}");
        }
    }
}

/// "Details of Vectored-Event Injection": no event changes RF in what is pushed.
#[test]
fn an_injected_event_pushes_the_resume_flag_of_the_guest_state_area() {
    for (event, before) in [(0x8000_0306, false), (0x8000_0306, true), (0x8000_0b0d, false), (INJECTED, true)]
    {
        let mut bench = Bench::idle();
        let flags = RFlags(bench.field(Field::GuestRflags)).with(RFlags::IF).set(RFlags::RF, before);
        bench.set(Field::GuestRflags, flags.0);
        bench.set(Field::EntryInterruptionInfo, event);
        assert_eq!(bench.handler_leaves(), (reason(ExitReason::VMCALL), 0));
        let frame = bench.field(Field::GuestRsp) + if event & 0x800 != 0 { 8 } else { 0 };
        assert_eq!(bench.get(frame + 16), flags.0, "{event:#x}");
    }
}

/// "Instruction-Breakpoint Exception Condition" of Vol. 3B: what comes between the iterations of a REP instruction saves RF.
#[test]
fn an_exit_between_iterations_saves_the_resume_flag() {
    for (count, saved) in [(5, true), (1, false)] {
        let mut bench = Bench::new();
        bench.primary(PrimaryControls::MONITOR_TRAP_FLAG);
        bench.assemble(|a| a.rep().stosb());
        bench.register(Gpr::Rcx, count);
        bench.register(Gpr::Rdi, DATA);
        assert_eq!(bench.exit().reason, reason(ExitReason::MONITOR_TRAP_FLAG));
        let flags = RFlags(bench.field(Field::GuestRflags));
        assert_eq!(flags.contains(RFlags::RF), saved, "{count} iterations");
    }
}

/// "Accessed and Dirty Flags for EPT", "Page-Modification Logging".
#[test]
fn with_ept_accessed_and_dirty_flags_accesses_to_guest_page_tables_are_writes() {
    const FLAGS: u64 = 1 << 6;
    let mut bench = Bench::idle();
    bench.ept();
    bench.set(Field::Eptp, EPT | EPTP | FLAGS);
    bench.put(Bench::ept_entry(0x2000), 0x2000 | 0x35);
    let exit = bench.exit();
    // Read and write; readable and executable; a linear address, but not its own.
    let bits = 3 | 5 << 3 | 1 << 7;
    assert_eq!((exit.reason, exit.qualification), (reason(ExitReason::EPT_VIOLATION), bits));
    assert_eq!((exit.linear, exit.physical), (CODE, 0x2000));

    let mut bench = Bench::idle();
    bench.ept();
    bench.set(Field::Eptp, EPT | EPTP | FLAGS);
    bench.secondary(SecondaryControls::ENABLE_PML);
    bench.set(Field::PmlIndex, 511);
    assert_eq!(bench.leaves(), (reason(ExitReason::VMCALL), 0));
    for (entry, page) in [(511, CR3), (510, 0x2000), (509, 0x3000)] {
        assert_eq!(bench.get(PML + 8 * entry), page);
        assert_eq!(bench.get(Bench::ept_entry(page)) & 0x300, 0x300, "accessed and dirty");
    }
    assert_eq!(bench.field(Field::PmlIndex), 508);
    assert_eq!(bench.get(Bench::ept_entry(CODE)) & 0x300, 0x100, "a fetch dirties nothing");
}

/// "Loading Page-Directory-Pointer-Table Entries", "EPT Violations".
#[test]
fn entry_with_ept_takes_pdptes_from_the_vmcs_and_mov_to_cr3_loads_them_through_ept() {
    let mut bench = Bench::new();
    bench.legacy();
    bench.clear(Field::SecondaryControls, SecondaryControls::UNRESTRICTED_GUEST.0.into());
    bench.or(Field::GuestCr0, Cr0::PG.0);
    bench.or(Field::GuestCr4, Cr4::PAE.0);
    bench.put(0x7_0000, 0x87);
    for field in [Field::GuestPdpte0, Field::GuestPdpte1, Field::GuestPdpte2, Field::GuestPdpte3] {
        bench.set(field, 0);
    }
    bench.set(Field::GuestPdpte0, 0x7_0001);
    // Nothing is there, in neither stage.
    bench.set(Field::GuestCr3, 0x4000_0000);
    bench.code(&assemble(32, CODE, |a| a.mov(cr3, ecx)));
    bench.register(Gpr::Rcx, 0x5000_0000);
    let exit = bench.exit();
    assert_eq!((exit.reason, exit.rip), (reason(ExitReason::EPT_VIOLATION), CODE));
    assert_eq!((exit.qualification, exit.physical), (1, 0x5000_0000), "a read without a linear address");
}

/// "Virtualizing Memory-Mapped APIC Accesses".
#[test]
fn accesses_to_the_apic_page_are_told_by_their_physical_address_and_by_their_kind() {
    const ELSEWHERE: u64 = 0x8_0000;
    let apic = |prepare: fn(&mut Bench)| {
        let mut bench = Bench::new();
        bench.ept();
        bench.secondary(SecondaryControls::VIRTUALIZE_APIC_ACCESSES);
        bench.tpr_shadow(0x50);
        bench.put(Bench::ept_entry(ELSEWHERE), APIC_ACCESS | 0x37);
        bench.register(Gpr::Rbx, ELSEWHERE);
        prepare(&mut bench);
        let exit = bench.exit();
        (exit.reason, exit.qualification)
    };
    let exits = reason(ExitReason::APIC_ACCESS);
    let read = apic(|b| b.assemble(|a| a.mov(eax, dword_ptr(rbx + 0x90))));
    assert_eq!(read, (exits, 0x90));
    let write = apic(|b| b.assemble(|a| a.mov(dword_ptr(rbx + 0x90), eax)));
    assert_eq!(write, (exits, 0x1090));
    let fetch = apic(|b| b.set(Field::GuestRip, ELSEWHERE + 0x20));
    assert_eq!(fetch, (exits, 0x2020));
    let delivery = apic(|b| {
        b.assemble(|a| a.ud2());
        b.set(Field::GuestRsp, ELSEWHERE + 0x1000);
    });
    // Which word of the frame is written first is not specified.
    assert_eq!((delivery.0, delivery.1 >> 12), (exits, 3));
    let walk = apic(|b| {
        b.assemble(|a| a.vmcall());
        b.put(Bench::ept_entry(CR3), APIC_ACCESS | 0x37);
        b.put(APIC_ACCESS, 0x2007);
    });
    assert_eq!(walk, (exits, 0xf000), "guest-physical");
    let shadowed = apic(|b| {
        b.assemble(|a| {
            a.mov(eax, dword_ptr(rbx + 0x80))?;
            a.vmcall()
        });
    });
    assert_eq!(shadowed.0, reason(ExitReason::VMCALL), "a TPR shadow virtualizes offset 0x80");
}

/// "VM Exits Induced by the TPR Threshold".
#[test]
fn the_tpr_threshold_exits_right_after_entry_unless_virtual_interrupts_are_delivered() {
    let below = |delivery: bool| {
        let mut bench = Bench::idle();
        bench.tpr_shadow(0x20);
        bench.secondary(SecondaryControls::VIRTUALIZE_APIC_ACCESSES);
        bench.set(Field::TprThreshold, 3);
        bench.set(Field::GuestInterruptStatus, 0);
        if delivery {
            bench.virtual_interrupts();
            bench.put(VIRTUAL_APIC + 0x80, 0x20);
        }
        bench.leaves()
    };
    assert_eq!(below(false), (reason(ExitReason::TPR_BELOW_THRESHOLD), 0));
    assert_eq!(below(true), (reason(ExitReason::VMCALL), 0));
}

/// "VM-Entry Failures During or After Loading Guest State".
#[test]
fn a_failed_entry_writes_reason_and_qualification_alone() {
    let mut bench = Bench::idle();
    bench.set(Field::EntryInterruptionInfo, INJECTED);
    bench.interrupts_on();
    bench.set(Field::ExitMsrStoreCount, 1);
    bench.set(Field::ExitMsrStoreAddress, MSR_AREA);
    bench.put(MSR_AREA, msr::IA32_PAT.into());
    bench.set(Field::GuestCr4, 0);
    let before = bench.vmcs.clone();
    let exit = bench.exit();
    let failed = u64::from(ExitReason::ENTRY_FAILURE) | reason(ExitReason::INVALID_GUEST_STATE);
    assert_eq!((exit.reason, exit.qualification), (failed, 0));
    assert_eq!(bench.vmcs, before, "nothing else changed, the event to inject stays valid");
    assert_eq!(bench.get(MSR_AREA + 8), 0, "no MSR was stored");
    // The launch state is still clear: VMLAUNCH works.
    bench.or(Field::GuestCr4, (Cr4::PAE | Cr4::VMXE).0);
    assert_eq!(bench.handler_leaves(), (reason(ExitReason::VMCALL), 0));
    assert_eq!(bench.field(Field::EntryInterruptionInfo) >> 31, 0, "an exit makes it invalid");
    assert_eq!(bench.get(MSR_AREA + 8), 0x0007_0406_0007_0406);
}

/// "Loading MSRs".
#[test]
fn fs_and_gs_bases_and_x2apic_registers_are_illegal_in_msr_lists() {
    for index in [msr::IA32_FS_BASE, msr::IA32_GS_BASE, msr::IA32_X2APIC_TPR] {
        let mut bench = Bench::idle();
        bench.set(Field::EntryMsrLoadCount, 2);
        bench.put(MSR_AREA, msr::IA32_TSC_AUX.into());
        bench.put(MSR_AREA + 16, index.into());
        let exit = bench.exit();
        let failed = u64::from(ExitReason::ENTRY_FAILURE) | reason(ExitReason::MSR_LOADING);
        assert_eq!((exit.reason, exit.qualification), (failed, 2), "{index:#x}: the second entry");
    }
}

/// "Basic VM-Entry Checks" and what follows: with everything wrong, errors come in order as one after the other is mended.
#[test]
fn entries_fail_in_order() {
    let mut bench = Bench::idle();
    let good = bench.vmcs.clone();
    bench.cpu().mov_ss_shadow = true;
    bench.execute(Instruction::Vmclear { region: VMCS }).unwrap();
    assert_eq!(bench.execute(Instruction::Vmlaunch), Ok(Outcome::Done));
    assert!(bench.cpu().rflags().contains(RFlags::CF), "VMfailInvalid without a current VMCS");
    bench.execute(Instruction::Vmptrld { region: SHADOW }).unwrap();
    assert_eq!(bench.execute(Instruction::Vmlaunch), Ok(Outcome::Done));
    assert!(bench.cpu().rflags().contains(RFlags::CF), "VMfailInvalid for a shadow VMCS");
    bench.load();

    bench.set(Field::PinControls, 0);
    bench.set(Field::HostCr4, 0);
    bench.set(Field::GuestRflags, 0);
    bench.set(Field::EntryMsrLoadCount, 1);
    bench.put(MSR_AREA, msr::IA32_FS_BASE.into());
    let resume = |bench: &mut Bench| {
        bench.execute(Instruction::Vmresume).unwrap();
        bench.vmread(Field::InstructionError)
    };
    assert_eq!(bench.run(), End::Fail(26), "MOV SS");
    bench.cpu().mov_ss_shadow = false;
    assert_eq!(resume(&mut bench), 5, "launch state");
    assert_eq!(bench.run(), End::Fail(7), "controls");
    bench.set(Field::PinControls, good.value(Field::PinControls));
    assert_eq!(bench.run(), End::Fail(8), "host state");
    bench.set(Field::HostCr4, good.value(Field::HostCr4));
    let failure = |reason: ExitReason| u64::from(ExitReason::ENTRY_FAILURE) | u64::from(reason.0);
    assert_eq!(bench.exit().reason, failure(ExitReason::INVALID_GUEST_STATE));
    bench.set(Field::GuestRflags, good.value(Field::GuestRflags));
    assert_eq!(bench.exit().reason, failure(ExitReason::MSR_LOADING));
    bench.set(Field::EntryMsrLoadCount, 0);
    assert_eq!(bench.leaves(), (reason(ExitReason::VMCALL), 0));
    bench.execute(Instruction::Vmlaunch).unwrap();
    assert_eq!(bench.vmread(Field::InstructionError), 4, "launched already");
}

/// "Blocking of INIT", "Default Treatment of SMI Delivery".
#[test]
fn init_waits_in_root_operation_sipis_are_dropped_in_active_guests_and_smm_has_no_vmx() {
    let mut bench = Bench::idle();
    bench.post(Message::Init);
    let until = bench.cpu().tick + 10;
    let code = assemble(64, CODE, |a| a.nop());
    bench.code(&code);
    bench.cpu().rip = CODE;
    bench.board.run(until);
    assert!(bench.cpu().interrupts.init, "blocked, not lost");
    bench.execute(Instruction::Vmxoff).unwrap();
    let until = bench.cpu().tick + 10;
    bench.board.run(until);
    assert!(!bench.cpu().interrupts.init && !bench.cpu().cr0.contains(Cr0::PE), "taken after VMXOFF");

    let mut bench = Bench::idle();
    bench.post(Message::Sipi(0x12));
    assert_eq!(bench.leaves(), (reason(ExitReason::VMCALL), 0));
    assert_eq!(bench.cpu().interrupts.sipi, None);

    // The SMM handler tries VMX, and what it finds is an undefined instruction.
    let mut bench = Bench::idle();
    bench.put(CODE, 0x9090_9090_9090_9090);
    bench.put(0x3_8000, 0xc1_010f);
    bench.post(Message::Smi);
    bench.run();
    assert!(bench.cpu().smm);
    assert!(!bench.cpu().cr4.contains(Cr4::VMXE), "hidden");
}

/// "Interruptibility State": without virtual NMIs, NMIs are blocked if and only if the field says so.
#[test]
fn an_injected_nmi_blocks_others_only_where_they_are_virtual() {
    let nmi_exiting = PinControls::NMI_EXITING;
    for (controls, blocked) in
        [(PinControls(0), 0), (nmi_exiting, 0), (nmi_exiting | PinControls::VIRTUAL_NMIS, 8)]
    {
        let mut bench = Bench::new();
        bench.pin(controls);
        bench.set(Field::EntryInterruptionInfo, 0x8000_0202);
        assert_eq!(bench.handler_leaves(), (reason(ExitReason::VMCALL), 0));
        assert_eq!(bench.field(Field::GuestInterruptibility), blocked, "{controls:?}");
    }
}

/// "Instructions That Cause VM Exits Conditionally": RSM does in SMM, where no guest is.
#[test]
fn rsm_of_a_guest_is_an_undefined_instruction() {
    let mut bench = Bench::new();
    bench.set(Field::ExceptionBitmap, 1 << 6);
    bench.assemble(|a| a.rsm());
    assert_eq!(bench.leaves(), (reason(ExitReason::EXCEPTION_OR_NMI), 0));
}

/// "Invalidating Cached Translation Information".
#[test]
fn translations_survive_exits_under_a_vpid_until_invvpid_names_it() {
    const AWAY: u64 = 0x40_0000;
    for (kind, vpid, gone) in [(1, 2, false), (1, 1, true), (2, 0, true)] {
        let mut bench = Bench::new();
        bench.secondary(SecondaryControls::ENABLE_VPID);
        bench.assemble(|a| {
            a.mov(rcx, qword_ptr(rbx))?;
            a.vmcall()
        });
        bench.register(Gpr::Rbx, AWAY + DATA);
        bench.put(0x3010, 0x87);
        bench.put(DATA, 0x1234);
        bench.exit();
        bench.put(0x3010, AWAY | 0x87);
        bench.set(Field::GuestRip, CODE);
        bench.execute(Instruction::Invvpid { kind, descriptor: [vpid, 0] }).unwrap();
        bench.exit();
        let seen = bench.cpu().gpr[Gpr::Rcx as usize];
        assert_eq!(seen, if gone { u64::MAX } else { 0x1234 }, "type {kind}, VPID {vpid}");
    }
}

/// What Linux's KVM wants, and what kvm-unit-tests' `test_vmx_caps` does.
#[test]
fn capabilities_come_in_pairs_and_have_nothing_that_hypervisors_do_not_know() {
    let offered = offered();
    let has =
        |word, bits: u32| offered.supports(Control { word, bit: bits.trailing_zeros() as u8 }) == Some(true);
    for (entry, exit) in [
        (EntryControls::LOAD_PERF_GLOBAL_CTRL, ExitControls::LOAD_PERF_GLOBAL_CTRL),
        (EntryControls::LOAD_PAT, ExitControls::LOAD_PAT),
        (EntryControls::LOAD_EFER, ExitControls::LOAD_EFER),
        (EntryControls::LOAD_BNDCFGS, ExitControls::CLEAR_BNDCFGS),
        (EntryControls::LOAD_RTIT_CTL, ExitControls::CLEAR_RTIT_CTL),
        (EntryControls::LOAD_CET, ExitControls::LOAD_CET),
        (EntryControls::LOAD_PKRS, ExitControls::LOAD_PKRS),
    ] {
        assert_eq!(has(Word::Entry, entry.0), has(Word::Exit, exit.0), "{entry:?}");
    }
    assert_eq!(offered.value(msr::IA32_VMX_MISC) >> 14 & 1, 0, "no PT");
    let known = [0, 6, 7, 8, 14, 16, 17, 20, 21, 22, 25, 26, 32, 40, 41, 42, 43];
    let known = known.into_iter().fold(0_u64, |all, bit| all | 1 << bit);
    assert_eq!(offered.value(msr::IA32_VMX_EPT_VPID_CAP), known);
    assert_eq!(
        Bench::idle().run(),
        End::Exit(Exit { reason: reason(ExitReason::VMCALL), length: 3, rip: CODE, ..Exit::default() })
    );
    assert!(matches!(Bench::nops().run(), End::Stopped(Stop::Limit)));
}
