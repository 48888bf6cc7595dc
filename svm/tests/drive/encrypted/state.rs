//! The VMSA, swapped state, the MSRs of SEV-ES, VMGEXIT.

use super::super::bench::*;
use super::*;
use iced_x86::code_asm::*;
use rootmode_arch::{Cr4, Gpr, HostPhysical, SegmentName, msr};
use rootmode_cpu::{Instruction, Outcome, vectors::Vectors};
use rootmode_svm::vmcb::NestedControl;
use rootmode_svm::{Field, Intercept};

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
        assert_eq!(saved(&bench, Field::Rip), CODE + 4);
        assert_eq!(exit, nothing_but(0x403, 0));
        assert_eq!(saved(&bench, Field::Cpl), 3);
    }
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
