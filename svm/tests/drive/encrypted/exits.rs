//! Which exits stay exits, which become #VC, and what either tells.

use super::super::bench::*;
use super::super::scenarios::{Scenario, all};
use super::*;
use iced_x86::code_asm::*;
use rootmode_arch::{Cr0, Cr4, Efer, Gpr, HostPhysical, msr, vector};
use rootmode_cpu::Message;
use rootmode_svm::vmcb::{EventInfo, EventKind, IntCtl, VirtExt};
use rootmode_svm::{ExitCode, Field, Intercept};

/// The automatic exits, and whether RIP is behind the instruction then ("Types of Exits", table of automatic exits).
const AUTOMATIC: [(u64, bool); 30] = [
    (0x52, false),
    (0x60, false),
    (0x61, false),
    (0x62, false),
    (0x63, false),
    (0x64, false),
    (0x77, true),
    (0x78, true),
    (0x7f, false),
    (0x8f, true),
    (0x90, true),
    (0x91, true),
    (0x92, true),
    (0x93, true),
    (0x94, true),
    (0x95, true),
    (0x96, true),
    (0x97, true),
    (0x98, true),
    (0x99, true),
    (0x9a, true),
    (0x9b, true),
    (0x9c, true),
    (0x9d, true),
    (0x9e, true),
    (0x9f, true),
    (0xa5, false),
    (0xa6, true),
    (0x403, true),
    (u64::MAX, false),
];

/// What the automatic exit of `code` does with RIP; `None`: it is not automatic. A nested page fault is, unless it is about
/// reserved bits.
fn automatic(code: u64, info1: u64) -> Option<bool> {
    if code == 0x400 {
        return (info1 & 8 == 0).then_some(false);
    }
    AUTOMATIC.iter().find(|(automatic, _)| *automatic == code).map(|(_, behind)| *behind)
}

/// Scenarios that cannot be those of an SEV-ES guest.
fn is_impossible(scenario: &Scenario) -> bool {
    let code = scenario.expected.code;
    // VMLOAD cannot be virtualized; #VC amid the delivery of #GP is #DF.
    code == 0x400 && scenario.bit == VirtExt::VMLOAD_VMSAVE_ENABLE.into()
        || scenario.expected.interrupted != 0
}

#[test]
fn each_exit_of_the_scenarios_is_automatic_or_becomes_vc_with_its_code() {
    let mut codes = std::collections::BTreeSet::new();
    for scenario in all().iter().filter(|scenario| !is_impossible(scenario)) {
        let name = &scenario.name;
        let mut bench = bench();
        scenario.prepare(&mut bench);
        if bench.field(Field::SCet) != 0 {
            // Stacks of the IST have shadow stacks of their own, which is not what this is about.
            bench.put(IDT + u64::from(vector::VC) * 16, gate(HANDLER_OF_VC, 0));
        }
        seal(&mut bench);
        let end = bench.run();
        let expected = &scenario.expected;
        codes.insert(expected.code);
        let Some(behind) = automatic(expected.code, expected.info1) else {
            let communicated = communicated(&bench, &end);
            assert_eq!(communicated, Some((expected.code, expected.rip)), "{name}: {end:x?}");
            continue;
        };
        let End::Exit(exit) = end else { panic!("{name}: {end:x?}") };
        // Neither RIP nor next RIP nor the instruction's bytes are the hypervisor's to know.
        let rip = if behind { expected.next_rip } else { expected.rip };
        assert_eq!(saved(&bench, Field::Rip), rip, "{name}");
        let known = Exit { next_rip: 0, bytes: Vec::new(), rip: exit.rip, ..expected.clone() };
        assert_eq!(exit, known, "{name}");
        assert_eq!(exit.rip, 0xa5a5_a5a5_a5a5_a5a5, "{name}: saved state of the VMCB is not used");
    }
    assert!(codes.len() > 80, "{}", codes.len());
}

/// "Control Register Write Traps": behind the instruction, with the new value.
#[test]
fn write_traps_come_behind_the_write_and_report_the_new_value() {
    let with_mp = Cr0::PE | Cr0::MP | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::PG;
    let without_exceptions = Cr4::PAE | Cr4::OSFXSR;
    for (register, value) in [(0, with_mp.0), (2, 0x1234), (3, CR3), (4, without_exceptions.0), (8, 5)] {
        for trapped in [true, false] {
            let mut bench = bench();
            bench.assemble(|a| {
                let target = [cr0, cr2, cr3, cr4, cr8];
                let index = [0, 2, 3, 4, 8].iter().position(|n| *n == register).unwrap();
                a.mov(target[index], rbx)?;
                a.nop()?;
                vmgexit(a)
            });
            bench.register(Gpr::Rbx, value);
            if trapped {
                bench.intercept(Intercept(Intercept::CR0_WRITE_TRAP.0 + register));
            }
            seal(&mut bench);
            let exit = bench.exit();
            let length = if register == 8 { 4 } else { 3 };
            let trap = (0x90 + u64::from(register), value, CODE + length);
            let none = (0x403, 0, CODE + length + 5);
            let seen = (exit.code, exit.info1, saved(&bench, Field::Rip));
            assert_eq!(seen, if trapped { trap } else { none }, "CR{register}");
            if trapped {
                assert_eq!(exit, nothing_but(0x90 + u64::from(register), value));
                // Nothing is left of it.
                bench.set(Field::EventInj, 0);
                let End::Exit(exit) = bench.resume() else { panic!("the guest goes on") };
                assert_eq!((exit.code, saved(&bench, Field::Rip)), (0x403, CODE + length + 5));
            }
        }
    }
    let mut efer = bench();
    let value = efer.field(Field::Efer) & !Efer::SCE.0;
    efer.assemble(|a| {
        a.wrmsr()?;
        vmgexit(a)
    });
    efer.register(Gpr::Rdx, 0);
    efer.register(Gpr::Rcx, msr::IA32_EFER.into());
    efer.register(Gpr::Rax, value);
    efer.intercept(Intercept::EFER_WRITE_TRAP);
    seal(&mut efer);
    let exit = efer.exit();
    assert_eq!((exit.code, exit.info1, saved(&efer, Field::Rip)), (0x8f, value, CODE + 2));
    assert_eq!(saved(&efer, Field::Efer), value);
    // CLTS and LMSW write CR0.
    for code in [&[0x0f, 0x06][..], &[0x0f, 0x01, 0xf3]] {
        let mut bench = bench();
        bench.code(code);
        bench.register(Gpr::Rbx, 3);
        bench.intercept(Intercept::CR0_WRITE_TRAP);
        seal(&mut bench);
        assert_eq!((bench.exit().code, saved(&bench, Field::Rip)), (0x90, CODE + code.len() as u64));
    }
    // A write that faults traps nothing.
    let mut bench = bench();
    bench.assemble(|a| a.mov(cr0, rbx));
    bench.register(Gpr::Rbx, 1 << 40);
    bench.intercept(Intercept::CR0_WRITE_TRAP);
    bench.intercept(Intercept::EXCP_GP);
    seal(&mut bench);
    let end = bench.run();
    assert_eq!(communicated(&bench, &end), Some((0x4d, CODE)));
}

/// "#VC Exception": contributory.
#[test]
fn vc_amid_the_delivery_of_a_contributory_exception_is_a_double_fault() {
    // #GP, whose handler's stack is not mapped, so that its delivery is #PF, which is intercepted.
    let mut bench = bench();
    bench.assemble(|a| a.mov(al, byte_ptr(rbx)));
    bench.register(Gpr::Rbx, 1 << 63);
    bench.register(Gpr::Rsp, UNMAPPED + 0x1000);
    bench.intercept(Intercept::EXCP_PF);
    let double_fault = assemble(64, DATA, vmgexit);
    bench.board.memory.write(HostPhysical(DATA), &double_fault);
    bench.put(IDT + 8 * 16, gate(DATA, 1));
    seal(&mut bench);
    assert_eq!(bench.exit().code, 0x403);
    assert_eq!(saved(&bench, Field::Rip), DATA + 4, "the handler of #DF");
    assert_eq!(bench.get(saved(&bench, Field::Rsp)), 0);
    // Amid an interrupt's it is served after it.
    let mut bench = bench_of_interrupt();
    let end = bench.run();
    assert_eq!(communicated(&bench, &end), Some((0x4e, CODE)));
}

/// An interrupt is injected whose delivery is #PF, which is intercepted.
fn bench_of_interrupt() -> Bench {
    let mut bench = bench();
    bench.assemble(|a| a.nop());
    bench.intercept(Intercept::EXCP_PF);
    bench.register(Gpr::Rsp, UNMAPPED + 0x1000);
    bench.set(Field::EventInj, EventInfo::new(EventKind::Interrupt, 0x55, None).0);
    seal(&mut bench);
    bench
}

/// #VC that the hypervisor interrupted is injected again, error code and all.
#[test]
fn an_interrupted_vc_is_in_exitintinfo_and_can_be_injected() {
    let mut bench = bench();
    bench.assemble(|a| a.cpuid());
    bench.intercept(Intercept::CPUID);
    bench.put(TSS + 0x24, DATA + 0x1000);
    seal(&mut bench);
    bench.put(Bench::nested_entry(DATA), 0);
    let exit = bench.exit();
    let event = EventInfo::new(EventKind::Exception, vector::VC, Some(0x72));
    assert_eq!((exit.code, exit.interrupted), (0x400, event.0));
    assert_eq!(saved(&bench, Field::Rip), CODE);
    bench.put(Bench::nested_entry(DATA), DATA | 7);
    bench.set(Field::EventInj, event.0);
    bench.set(Field::EventInjError, event.0 >> 32);
    let end = bench.run();
    assert_eq!(communicated(&bench, &end), Some((0x72, CODE)));
}

/// An intercepted #VC would have no end: it is the guest's.
#[test]
fn the_intercept_of_vc_does_nothing() {
    let mut bench = bench();
    bench.assemble(|a| a.cpuid());
    bench.intercept(Intercept::CPUID);
    bench.intercept(Intercept::exception(vector::VC));
    seal(&mut bench);
    let end = bench.run();
    assert_eq!(communicated(&bench, &end), Some((0x72, CODE)));
}

/// An interrupt that the hypervisor injects into the halted guest.
#[test]
fn a_halted_guest_goes_on_behind_hlt_with_an_interrupt() {
    let mut bench = bench();
    bench.assemble(|a| {
        a.sti()?;
        a.hlt()?;
        vmgexit(a)
    });
    bench.intercept(Intercept::HLT);
    // The handler of vector 0x55 ends in VMGEXIT.
    bench.put(IDT + 0x55 * 16, gate(HANDLER_OF_VC, 1));
    seal(&mut bench);
    assert_eq!((bench.exit().code, saved(&bench, Field::Rip)), (0x78, CODE + 2));
    assert_eq!(bench.field(Field::InterruptState), 2, "STI's shadow ended with HLT");
    bench.set(Field::EventInj, EventInfo::new(EventKind::Interrupt, 0x55, None).0);
    assert_eq!(bench.exit().code, 0x403);
    // The frame's RIP.
    assert_eq!(bench.get(saved(&bench, Field::Rsp)), CODE + 2);
}

/// V_IRQ works as for every guest.
#[test]
fn virtual_interrupts_reach_sev_es_guests() {
    let mut bench = guest(|a| a.nop());
    change(&mut bench, &[(Field::Rflags, 0x202)]);
    bench.int_ctl(IntCtl::V_IRQ | IntCtl::V_IGN_TPR);
    bench.set(Field::IntVector, 0x66);
    bench.put(IDT + 0x66 * 16, gate(HANDLER_OF_VC, 1));
    assert_eq!((bench.exit().code, saved(&bench, Field::Rip)), (0x403, HANDLER_OF_VC + 4));
    assert_eq!(bench.field(Field::IntCtl) & u64::from(IntCtl::V_IRQ.0), 0);
}

/// "Interaction with SMI and #MC": SMIs exit whatever their intercept.
#[test]
fn smis_exit_without_an_intercept() {
    let mut bench = guest(|a| a.nop());
    bench.cpu().post(Message::Smi);
    let exit = bench.exit();
    assert_eq!((ExitCode(exit.code), exit.info1), (ExitCode::of(Intercept::SMI), 1));
}
