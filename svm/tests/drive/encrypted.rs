//! SEV-ES guests ("Encrypted State (SEV-ES)"): exits that become #VC and exits that stay exits, swapped state, the GHCB MSR,
//! write traps, the C-bit.

use super::bench::*;
use super::scenarios::{Scenario, all};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{Cr0, Cr4, Efer, Feature, FeatureSet, Gpr, HostPhysical, SegmentName, msr, vector};
use rootmode_cpu::{Instruction, Message, Outcome, vectors::Vectors};
use rootmode_svm::vmcb::{EventInfo, EventKind, IntCtl, NestedControl, VirtExt};
use rootmode_svm::{ExitCode, Field, Intercept, Vmsa};

const VMSA: u64 = 0x7_6000;
const GHCB: u64 = 0x7_7000;
/// The guest's #VC handler: VMGEXIT. It has a stack of its own.
const HANDLER_OF_VC: u64 = 0x1_1800;
const STACK_OF_VC: u64 = 0x3_f000;
const VMGEXIT: [u8; 4] = [0xf3, 0x0f, 0x01, 0xd9];
const C_BIT: u64 = 1 << 51;
const SYSCFG_ENCRYPTION: u64 = 1 << 23;

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

fn encrypting() -> FeatureSet {
    features().with(Feature::Sme).with(Feature::Sev).with(Feature::SevEs)
}

/// A guest with SEV-ES, whose state moves into its VMSA when it is run.
fn bench() -> Bench {
    let mut bench = Bench::with_features(encrypting());
    for (index, value) in [(msr::HWCR, 1), (msr::SYSCFG, SYSCFG_ENCRYPTION)] {
        bench.execute(Instruction::Wrmsr { index, value }).unwrap();
    }
    bench.board.memory.write(HostPhysical(HANDLER_OF_VC), &VMGEXIT);
    for vector in 0..=255 {
        bench.handler(vector, 0x8e);
    }
    let legacy = HANDLER_OF_VC & 0xffff | u64::from(LEGACY_CS) << 16 | 0x8e << 40 | 1 << 48;
    bench.put(LEGACY_IDT + u64::from(vector::VC) * 8, legacy);
    bench.put(IDT + u64::from(vector::VC) * 16, gate(HANDLER_OF_VC, 1));
    // IST1.
    bench.put(TSS + 0x24, STACK_OF_VC);
    bench
}

/// A 64-bit interrupt gate with this stack of the IST.
fn gate(target: u64, stack: u64) -> u64 {
    target & 0xffff | u64::from(KERNEL_CS) << 16 | stack << 32 | 0x8e << 40 | (target >> 16) << 48
}

/// Sets the controls of SEV-ES and moves the guest's state into the VMSA; what is left in the VMCB is nonsense.
fn seal(bench: &mut Bench) {
    bench.nested_paging();
    bench.or(Field::NestedControl, (NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE).0);
    bench.or(Field::VirtExt, VirtExt::LBR_ENABLE.0);
    bench.set(Field::VmsaPointer, VMSA);
    bench.set(Field::GhcbAddress, GHCB);
    let tr = *bench.cpu().segment(SegmentName::Tr);
    let mut vmsa = Vmsa::zeroed();
    let state = bench.vmcb.as_bytes()[0x400..0x6e8].to_vec();
    vmsa.bytes_mut()[..state.len()].copy_from_slice(&state);
    for (field, value) in [
        (Field::TrSelector, tr.selector.0.into()),
        (Field::TrAttrib, tr.rights.to_vmcb().into()),
        (Field::TrLimit, tr.limit.into()),
        (Field::TrBase, tr.base),
    ] {
        vmsa.set(field, value);
    }
    let cpu = bench.cpu();
    for (gpr, field) in GENERAL {
        vmsa.set(field, cpu.gpr[gpr as usize]);
    }
    let x87 = &cpu.vectors.x87;
    for (field, value) in [
        (Field::Xcr0, cpu.xcr0),
        (Field::X87Fcw, x87.control.into()),
        (Field::X87Fsw, x87.status.into()),
        (Field::X87Ftw, x87.tag_word().into()),
        (Field::Mxcsr, cpu.vectors.mxcsr.into()),
    ] {
        vmsa.set(field, value);
    }
    put_vmsa(bench, &vmsa);
    bench.vmcb.bytes_mut()[0x400..].fill(0xa5);
}

const GENERAL: [(Gpr, Field); 14] = [
    (Gpr::Rbx, Field::Rbx),
    (Gpr::Rcx, Field::Rcx),
    (Gpr::Rdx, Field::Rdx),
    (Gpr::Rsi, Field::Rsi),
    (Gpr::Rdi, Field::Rdi),
    (Gpr::Rbp, Field::Rbp),
    (Gpr::R8, Field::R8),
    (Gpr::R9, Field::R9),
    (Gpr::R10, Field::R10),
    (Gpr::R11, Field::R11),
    (Gpr::R12, Field::R12),
    (Gpr::R13, Field::R13),
    (Gpr::R14, Field::R14),
    (Gpr::R15, Field::R15),
];

fn put_vmsa(bench: &mut Bench, vmsa: &Vmsa) {
    bench.board.memory.write(HostPhysical(VMSA), vmsa.as_bytes());
}

fn vmsa(bench: &Bench) -> Vmsa {
    let mut vmsa = Vmsa::zeroed();
    bench.board.memory.read(HostPhysical(VMSA), vmsa.bytes_mut());
    vmsa
}

fn saved(bench: &Bench, field: Field) -> u64 {
    vmsa(bench).get(field).unwrap()
}

/// Changes fields of the sealed guest's VMSA.
fn change(bench: &mut Bench, fields: &[(Field, u64)]) {
    let mut vmsa = vmsa(bench);
    for (field, value) in fields {
        assert!(vmsa.set(*field, *value));
    }
    put_vmsa(bench, &vmsa);
}

/// A sealed guest with this code.
fn guest(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Bench {
    let mut bench = bench();
    bench.assemble(build);
    seal(&mut bench);
    bench
}

fn vmgexit(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.db(&VMGEXIT)
}

/// The guest took #VC, whose handler executed VMGEXIT: the error code, and where the exception happened.
fn communicated(bench: &Bench, end: &End) -> Option<(u64, u64)> {
    let End::Exit(exit) = end else { return None };
    let stack = saved(bench, Field::Rsp);
    let handled = exit.code == 0x403 && saved(bench, Field::Rip) == HANDLER_OF_VC + 4;
    let wide = saved(bench, Field::Efer) & Efer::LMA.0 != 0;
    let word = |n: u64| if wide { bench.get(stack + 8 * n) } else { bench.get(stack + 4 * n) & 0xffff_ffff };
    handled.then(|| (word(0), word(1)))
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

/// "VMRUN", "Swap types": what the host finds after an exit.
#[test]
fn the_host_gets_back_what_the_table_of_swap_types_says() {
    let mut bench = guest(vmgexit);
    bench.cpu().gpr = std::array::from_fn(|n| 0x100 + n as u64);
    bench.cpu().vectors.set_xmm(3, 77);
    bench.cpu().vectors.mxcsr = 0x1fa0;
    bench.cpu().xcr0 = 3;
    bench.cpu().pkru = 0x55;
    bench.cpu().dr = [1, 2, 3, 4];
    let (first, stack) = (0x100, bench.cpu().gpr[Gpr::Rsp as usize]);
    // Type B: what software stored at the offsets of a VMSA.
    bench.execute(Instruction::Vmsave { vmcb: HSAVE }).unwrap();
    let host = |field: Field| HSAVE + 0x400 + field.vmsa_offset().unwrap() as u64;
    for (n, (_, field)) in GENERAL.into_iter().enumerate() {
        bench.put(host(field), 0x2000 + n as u64);
    }
    bench.put(host(Field::Xcr0), 1);
    bench.board.memory.write_u32(HostPhysical(host(Field::Pkru)), 0x66);
    bench.put(host(Field::Lstar), 0x7777);
    assert_eq!(bench.exit().code, 0x403);
    let cpu = bench.cpu();
    // Type A.
    assert_eq!((cpu.gpr[Gpr::Rax as usize], cpu.gpr[Gpr::Rsp as usize]), (first, stack));
    assert!(cpu.is_64_bit() && cpu.cr3.0 == CR3);
    for (n, (gpr, _)) in GENERAL.into_iter().enumerate() {
        assert_eq!(cpu.gpr[gpr as usize], 0x2000 + n as u64, "{gpr:?}");
    }
    assert_eq!((cpu.xcr0, cpu.pkru, cpu.msrs.lstar), (1, 0x66, 0x7777));
    assert_eq!(cpu.segment(SegmentName::Tr).selector.0, BUSY_TSS);
    // Type C.
    assert_eq!(cpu.vectors, Vectors::RESET);
    // Not swapped.
    assert_eq!(cpu.dr, [1, 2, 3, 4]);
}

/// Everything that the VMSA holds is loaded, and stored again.
#[test]
fn the_guests_state_comes_from_its_vmsa_and_goes_back_there() {
    let mut bench = guest(|a| {
        a.movd(eax, xmm5)?;
        a.fld1()?;
        a.xgetbv()?;
        vmgexit(a)
    });
    let mut state = vmsa(&bench);
    for (n, (_, field)) in GENERAL.into_iter().enumerate() {
        state.set(field, 0x3000 + n as u64);
    }
    for (field, value) in [
        (Field::Rcx, 0),
        (Field::Cr4, saved(&bench, Field::Cr4) | Cr4::OSXSAVE.0),
        (Field::Xcr0, 3),
        (Field::Pkru, 0x1234),
        (Field::Star, 0x11),
        (Field::Lstar, 0x12),
        (Field::KernelGsBase, 0x13),
        (Field::SysenterEip, 0x14),
        (Field::GsBase, 0x15),
        (Field::X87Fcw, 0x27f),
        (Field::X87Fsw, 6 << 11),
        (Field::X87Ftw, 0x0fff),
        (Field::X87Fop, 0x123),
        (Field::Mxcsr, 0x1fc0),
        (Field::GPat, 0x0007_0406_0007_0406),
        (Field::Cr2, 0x99),
        (Field::Dr6, 0xffff_0ff1),
        (Field::BrFrom, 0x21),
        (Field::SpecCtrl, 1),
        (Field::Dbgctl, 0),
    ] {
        assert!(state.set(field, value), "{field:?}");
    }
    let mut x87 = [0; 80];
    x87[..10].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 0x88, 0xff, 0x3f]);
    x87[10..20].copy_from_slice(&[9, 2, 3, 4, 5, 6, 7, 0x88, 0xff, 0x3f]);
    state.set_bytes(Field::FpregX87, &x87);
    let xmm: Vec<u8> = (0..=255).collect();
    state.set_bytes(Field::FpregXmm, &xmm);
    put_vmsa(&mut bench, &state);
    assert_eq!(bench.exit().code, 0x403);
    let after = vmsa(&bench);
    for field in Field::all().filter(|field| field.vmsa_offset().is_some()) {
        let moved = match field {
            // XGETBV, MOVD and the pushed number.
            Field::Rax | Field::Rdx | Field::Rip | Field::X87Fsw | Field::X87Ftw | Field::FpregX87 => {
                continue;
            }
            Field::X87Rip | Field::X87Fop | Field::X87Cs | Field::X87Ds | Field::X87Dp => continue,
            _ => state.bytes_of(field).unwrap(),
        };
        assert_eq!(after.bytes_of(field).unwrap(), moved, "{field:?}");
    }
    assert_eq!((saved(&bench, Field::Rax), saved(&bench, Field::Rdx)), (3, 0));
    // The stack is one deeper, its old top the second register.
    assert_eq!((saved(&bench, Field::X87Fsw), saved(&bench, Field::X87Ftw)), (5 << 11, 0x03ff));
    let stack = after.bytes_of(Field::FpregX87).unwrap();
    assert_eq!((&stack[..10], &stack[10..30]), (&[0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f][..], &x87[..20]));
}

/// "GHCB": the MSR is the guest's; the VMCB shows it to the hypervisor, which may change it.
#[test]
fn the_ghcb_msr_is_the_vmcbs_field_and_exists_in_sev_es_guests_only() {
    let mut bench = guest(|a| {
        a.rdmsr()?;
        a.mov(ebx, eax)?;
        a.mov(eax, 0x4)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        vmgexit(a)?;
        a.rdmsr()?;
        vmgexit(a)
    });
    change(&mut bench, &[(Field::Rcx, msr::SEV_ES_GHCB.into())]);
    assert_eq!(bench.exit().code, 0x403);
    assert_eq!((saved(&bench, Field::Rbx), bench.field(Field::GhcbAddress)), (GHCB, 4));
    bench.set(Field::GhcbAddress, 0x33_0005);
    assert_eq!(bench.exit().code, 0x403);
    assert_eq!(saved(&bench, Field::Rax), 0x33_0005);
    // Outside, it does not exist.
    let read = |bench: &mut Bench, index| bench.execute(Instruction::Rdmsr { index });
    assert!(read(&mut bench, msr::SEV_ES_GHCB).is_err());
    assert_eq!(read(&mut bench, msr::SEV_STATUS), Ok(Outcome::Value(0)));
    assert!(bench.execute(Instruction::Wrmsr { index: msr::SEV_STATUS, value: 0 }).is_err());
    let mut other = Bench::new();
    assert!(read(&mut other, msr::SEV_STATUS).is_err());
    // SEV_STATUS is never intercepted.
    for (bits, status) in
        [(NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE, 3), (NestedControl::NP_ENABLE, 0)]
    {
        let mut bench = bench_with(bits);
        assert_eq!(run_status(&mut bench), status);
    }
}

fn bench_with(bits: NestedControl) -> Bench {
    let mut bench = bench();
    bench.assemble(|a| {
        a.rdmsr()?;
        a.hlt()
    });
    bench.register(Gpr::Rcx, msr::SEV_STATUS.into());
    bench.intercept(Intercept::HLT);
    bench.intercept(Intercept::MSR_PROT);
    bench.fill(MSRPM, 0x2000, 0xff);
    if bits.contains(NestedControl::SEV_ENABLE) {
        seal(&mut bench);
    } else {
        bench.nested_paging();
    }
    bench
}

/// EAX after the guest's RDMSR; without encryption the MSR is intercepted, and reads as 0 without.
fn run_status(bench: &mut Bench) -> u64 {
    match bench.exit().code {
        0x78 => saved(bench, Field::Rax),
        0x7c => 0,
        code => panic!("{code:#x}"),
    }
}

/// "VMGEXIT": elsewhere it is VMMCALL.
#[test]
fn vmgexit_is_vmmcall_outside_sev_es_guests() {
    for features in [features(), encrypting()] {
        for intercepted in [true, false] {
            let mut bench = Bench::with_features(features);
            bench.assemble(vmgexit);
            bench.intercept(Intercept::EXCP_UD);
            if !intercepted {
                bench.clear(Field::Intercept4, 1 << Intercept::VMMCALL.bit_in_field());
            }
            assert_eq!(bench.exit().code, if intercepted { 0x81 } else { 0x46 });
        }
    }
    // At every privilege level, with either prefix.
    for prefix in [0xf2, 0xf3] {
        let mut bench = bench();
        bench.code(&[prefix, 0x0f, 0x01, 0xd9]);
        bench.user();
        seal(&mut bench);
        let exit = bench.exit();
        assert_eq!((exit.code, saved(&bench, Field::Rip)), (0x403, CODE + 4));
        assert_eq!(saved(&bench, Field::Cpl), 3);
    }
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

/// What a hypervisor that cannot see RFLAGS knows of them.
#[test]
fn exits_show_the_guests_interrupt_flag_and_shadow() {
    for (on, shadow) in [(false, false), (true, false), (true, true)] {
        let mut bench = bench();
        bench.assemble(|a| {
            if shadow {
                a.sti()?;
            } else {
                a.nop()?;
            }
            a.mov(al, byte_ptr(rbx))?;
            vmgexit(a)
        });
        bench.register(Gpr::Rbx, DATA);
        if on && !shadow {
            bench.interrupts_on();
        }
        seal(&mut bench);
        bench.put(Bench::nested_entry(DATA), 0);
        assert_eq!(bench.exit().code, 0x400);
        let expected = u64::from(on) << 1 | u64::from(shadow);
        assert_eq!(bench.field(Field::InterruptState), expected);
    }
}

/// Memory is the same with the C-bit as without, for the guest, for its host and in nested tables.
#[test]
fn the_c_bit_is_no_part_of_addresses_while_encryption_is_on() {
    let read = |a: &mut CodeAssembler| {
        a.mov(rax, qword_ptr(rbx))?;
        vmgexit(a)
    };
    let mut bench = bench();
    bench.assemble(read);
    bench.register(Gpr::Rbx, DATA);
    bench.put(DATA, 0x1122_3344_5566_7788);
    for entry in [CR3, 0x2000, 0x3000] {
        bench.put(entry, bench.get(entry) | C_BIT);
    }
    bench.set(Field::Cr3, CR3 | C_BIT);
    seal(&mut bench);
    bench.or(Field::NestedCr3, C_BIT);
    bench.put(Bench::nested_entry(DATA), DATA | 7 | C_BIT);
    for field in [Field::MsrpmBase, Field::IopmBase, Field::VmsaPointer] {
        bench.or(field, C_BIT);
    }
    assert_eq!(bench.exit().code, 0x403);
    assert_eq!(saved(&bench, Field::Rax), 0x1122_3344_5566_7788);
    assert_eq!(saved(&bench, Field::Cr3), CR3 | C_BIT);
    // The host's CR3 and page tables, as the tables are by now.
    bench.execute(Instruction::WriteCr { cr: 3, value: CR3 | C_BIT }).unwrap();
    bench.assemble(|a| {
        a.mov(rax, qword_ptr(DATA))?;
        a.ud2()
    });
    assert_eq!(bench.host(CODE), Stop::Gate(0x106));
    assert_eq!(bench.cpu().gpr[Gpr::Rax as usize], 0x1122_3344_5566_7788);
    // With encryption off the bit is reserved.
    bench.execute(Instruction::Wrmsr { index: msr::SYSCFG, value: 0 }).unwrap();
    assert!(bench.execute(Instruction::WriteCr { cr: 3, value: CR3 | C_BIT }).is_err());
    // A guest without SEV has no C-bit.
    let mut plain = bench_without_sev();
    assert_eq!(plain.exit().code, 0x4e);
}

fn bench_without_sev() -> Bench {
    let mut bench = bench();
    bench.nested_paging();
    bench.intercept(Intercept::EXCP_PF);
    bench.put(0x2000, bench.get(0x2000) | C_BIT);
    bench.assemble(|a| a.vmmcall());
    bench
}

/// "Enabling SEV", "Enabling SEV-ES", "VMRUN": what VMRUN refuses, each with its twin that enters.
#[test]
fn vmrun_refuses_what_sev_es_forbids() {
    type Change = fn(&mut Bench);
    let cases: [(&str, Change); 9] = [
        ("no nested paging", |b| b.clear(Field::NestedControl, NestedControl::NP_ENABLE.0)),
        ("no SEV", |b| b.clear(Field::NestedControl, NestedControl::SEV_ENABLE.0)),
        ("no LBR virtualization", |b| b.clear(Field::VirtExt, VirtExt::LBR_ENABLE.0)),
        ("VMSA beyond the width", |b| b.set(Field::VmsaPointer, 1 << 46)),
        ("an ASID above those of encrypted guests", |b| b.set(Field::Asid, 1007)),
        ("a software interrupt", |b| {
            b.set(Field::EventInj, EventInfo::new(EventKind::SoftwareInterrupt, 0x80, None).0);
        }),
        ("#BP", |b| b.set(Field::EventInj, EventInfo::new(EventKind::Exception, 3, None).0)),
        ("SMM is not locked", |b| {
            b.execute(Instruction::Wrmsr { index: msr::HWCR, value: 0 }).unwrap();
        }),
        ("EFER.SVME clear in the VMSA", |b| {
            let efer = saved(b, Field::Efer) & !Efer::SVME.0;
            change(b, &[(Field::Efer, efer)]);
        }),
    ];
    for (name, refused) in cases {
        let mut bench = guest(vmgexit);
        refused(&mut bench);
        let before = vmsa(&bench);
        assert_eq!(bench.exit().code, u64::MAX, "{name}");
        assert!(before == vmsa(&bench), "{name}: the guest's state is not touched");
    }
    let mut bench = guest(vmgexit);
    bench.set(Field::Asid, 1006);
    assert_eq!(bench.exit().code, 0x403);
    // Without encryption the bits say nothing, and the state is the VMCB's.
    let mut bench = Bench::with_features(encrypting());
    bench.nested_paging();
    bench.or(Field::NestedControl, (NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE).0);
    bench.assemble(|a| a.vmmcall());
    assert_eq!(bench.exit().code, 0x81);
    // With SEV alone as well, but for the ASIDs that SEV-ES keeps.
    for (asid, code) in [(99, u64::MAX), (100, 0x81)] {
        let mut bench = bench_with_sev();
        bench.set(Field::Asid, asid);
        assert_eq!(bench.exit().code, code, "ASID {asid}");
    }
}

fn bench_with_sev() -> Bench {
    let mut bench = bench();
    bench.nested_paging();
    bench.or(Field::NestedControl, NestedControl::SEV_ENABLE.0);
    bench.assemble(|a| a.vmmcall());
    bench
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
