//! What is commonly got wrong about SVM, a test each.

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{Cr0, Cr4, Efer, Feature, Gpr, HostPhysical, RFlags, SegmentName, msr, vector};
use rootmode_cpu::{Gate, Instruction, Message, Model};
use rootmode_svm::vmcb::{EventInfo, EventKind, IntCtl};
use rootmode_svm::{Field, Intercept};

const VMMCALL: u64 = 0x81;
const NPF: u64 = 0x400;
const INVALID: u64 = u64::MAX;

/// Where the host goes on for an exception.
const fn handler(vector: u8) -> Stop {
    Stop::Gate(0x100 + vector as u32)
}

/// "VMRUN Instruction": exceptions first, then the exit for a bad VMCB, which leaves GIF clear as every exit does.
#[test]
fn vmrun_raises_its_exceptions_before_it_looks_at_the_vmcb_and_a_bad_vmcb_exits_with_gif_clear() {
    let refused = |address: u64, change: fn(&mut Bench)| {
        let mut bench = Bench::new();
        bench.set(Field::Asid, 0);
        bench.assemble(|a| a.vmrun());
        bench.board.memory.write(HostPhysical(VMCB), bench.vmcb.clone().as_bytes());
        bench.cpu().gpr[Gpr::Rax as usize] = address;
        change(&mut bench);
        bench.host(CODE)
    };
    let no_svme = |b: &mut Bench| {
        b.cpu().efer = b.cpu().efer.without(Efer::SVME);
        b.cpu().refresh();
    };
    let user = |b: &mut Bench| b.user_host();
    assert_eq!(refused(VMCB + 1, no_svme), handler(vector::UD));
    assert_eq!(refused(VMCB, user), handler(vector::GP));
    assert_eq!(refused(VMCB + 8, |_| {}), handler(vector::GP));
    assert_eq!(refused(1 << 46, |_| {}), handler(vector::GP));

    let mut bench = Bench::new();
    bench.set(Field::Asid, 0);
    let exit = bench.exit();
    assert_eq!((exit.code, exit.info1, exit.info2, exit.next_rip), (INVALID, 0, 0, 0));
    assert!(bench.cpu().published.held && bench.cpu().published.interrupt_gate == Gate::Closed);
}

/// "VMSAVE and VMLOAD Instructions": what #VMEXIT does not switch.
#[test]
fn hidden_state_stays_the_guests_until_vmload() {
    const OTHER: u64 = 0x1_8000;
    let registers = [
        msr::IA32_STAR,
        msr::IA32_LSTAR,
        msr::IA32_CSTAR,
        msr::IA32_FMASK,
        msr::IA32_KERNEL_GS_BASE,
        msr::IA32_SYSENTER_CS,
        msr::IA32_SYSENTER_ESP,
        msr::IA32_SYSENTER_EIP,
        msr::IA32_FS_BASE,
        msr::IA32_GS_BASE,
    ];
    let mut bench = Bench::new();
    bench.assemble(|a| {
        for register in registers {
            a.mov(ecx, register)?;
            a.mov(eax, register & 0xff)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
        }
        a.mov(ax, u32::from(LONG_TASK))?;
        a.ltr(ax)?;
        a.vmmcall()
    });
    bench.execute(Instruction::Vmsave { vmcb: OTHER }).unwrap();
    assert_eq!(bench.exit().code, VMMCALL);
    let values =
        |bench: &mut Bench| registers.map(|index| bench.execute(Instruction::Rdmsr { index }).unwrap());
    let guests = registers.map(|register| rootmode_cpu::Outcome::Value(u64::from(register & 0xff)));
    assert_eq!(values(&mut bench), guests);
    assert_eq!(bench.cpu().segment(SegmentName::Tr).selector.0, LONG_TASK);
    bench.execute(Instruction::Vmload { vmcb: OTHER }).unwrap();
    assert_eq!(values(&mut bench), registers.map(|_| rootmode_cpu::Outcome::Value(0)));
    assert_eq!(bench.cpu().segment(SegmentName::Tr).selector.0, BUSY_TSS);
}

/// "Nested versus Guest Page Faults, Fault Ordering".
#[test]
fn walks_of_guest_tables_are_user_writes_and_final_accesses_user_accesses() {
    let mut bench = Bench::new();
    bench.nested_paging();
    bench.put(Bench::nested_entry(CR3), CR3 | 5);
    bench.assemble(|a| a.nop());
    let exit = bench.exit();
    assert_eq!((exit.code, exit.info1, exit.info2), (NPF, 0x2_0000_0007, CR3), "no flag was due");
    // At CPL 0, to a page without U/S.
    let mut bench = Bench::new();
    bench.nested_paging();
    bench.put(Bench::nested_entry(CODE), CODE | 3);
    assert_eq!(bench.exit().info1, 0x1_0000_0015);
}

/// "Nested Paging": the host's EFER and CR4 at VMRUN set up the walk, the guest's do not.
#[test]
fn nested_no_execute_and_reserved_bits_follow_the_host() {
    let fault = |host: bool, guest: bool| {
        let mut bench = Bench::new();
        bench.nested_paging();
        bench.put(Bench::nested_entry(CODE), CODE | 7 | 1 << 63);
        if !host {
            bench.cpu().efer = bench.cpu().efer.without(Efer::NXE);
            bench.cpu().refresh();
        }
        if !guest {
            bench.clear(Field::Efer, Efer::NXE.0);
        }
        let exit = bench.exit();
        (exit.code, exit.info1)
    };
    for guest in [false, true] {
        assert_eq!(fault(true, guest), (NPF, 0x1_0000_0015), "a fetch from a page that forbids it");
        assert_eq!(fault(false, guest), (NPF, 0x1_0000_000d), "bit 63 is reserved, and no fetch is told");
    }
}

/// "Nested Paging", on legacy PAE mode: no PDPTE registers.
#[test]
fn pae_guests_read_their_pdptes_from_memory_under_nested_paging_and_from_registers_without() {
    const TABLE: u64 = 0x1_8000;
    for nested in [false, true] {
        let mut bench = Bench::new();
        if nested {
            bench.nested_paging();
        }
        bench.legacy();
        bench.or(Field::Cr0, Cr0::PG.0);
        bench.set(Field::Cr4, Cr4::PAE.0);
        bench.set(Field::Cr3, TABLE);
        // Both gigabytes go through the directory that maps the first one.
        bench.put(TABLE, 0x3000 | 1);
        bench.put(TABLE + 8, 0);
        let entry = TABLE as u32;
        bench.code(&assemble(32, CODE, |a| {
            a.mov(dword_ptr(entry + 8), 0x3001)?;
            a.mov(al, byte_ptr(0x4000_0000 + DATA as u32))?;
            a.vmmcall()
        }));
        bench.intercept(Intercept::EXCP_PF);
        let code = bench.exit().code;
        assert_eq!(code, if nested { VMMCALL } else { 0x4e }, "nested paging: {nested}");
    }
}

/// "Paged Real Mode": page faults are for who made the tables, who is told what the access was, as in every other mode.
#[test]
fn paged_real_mode_tells_the_error_code_of_a_page_fault() {
    const TABLE: u64 = 0x1_8000;
    const PAGE: u32 = 0x2000;
    let fault = |entry: u64| {
        let mut bench = Bench::new();
        bench.legacy();
        bench.set(Field::Cr0, (Cr0::PG | Cr0::WP | Cr0::ET).0);
        bench.set(Field::Cr4, Cr4::PAE.0);
        bench.set(Field::Cr3, TABLE);
        // The first 2 MBytes by 4-KByte pages, of which one is as the case says.
        bench.put(TABLE, (TABLE + 0x1000) | 1);
        bench.put(TABLE + 0x1000, (TABLE + 0x2000) | 7);
        for page in 0..512 {
            bench.put(TABLE + 0x2000 + 8 * page, page << 12 | 3);
        }
        bench.put(TABLE + 0x2000 + 8 * (u64::from(PAGE) >> 12), entry);
        bench.set(Field::Rip, 0);
        bench.set(Field::CsSelector, CODE >> 4);
        bench.set(Field::CsBase, CODE);
        bench.set(Field::CsAttrib, 0x9b);
        bench.set(Field::CsLimit, 0xffff);
        bench.code(&assemble(16, 0, |a| a.mov(word_ptr(PAGE), 1_i32)));
        bench.intercept(Intercept::EXCP_PF);
        let exit = bench.exit();
        (exit.code, exit.info1, exit.info2)
    };
    assert_eq!(fault(0), (0x4e, 2, PAGE.into()), "a write to a page that is not there");
    assert_eq!(fault(0x2000 | 1), (0x4e, 3, PAGE.into()), "a write to a page that is read-only");
}

/// "Event Injection", "State Saved on Exit": nRIP out and in.
#[test]
fn next_rip_is_saved_for_instructions_and_returned_to_by_injected_software_interrupts() {
    let mut bench = Bench::new();
    bench.assemble(|a| a.nop());
    bench.set(Field::EventInj, EventInfo::new(EventKind::SoftwareInterrupt, 0x80, None).0);
    bench.set(Field::NextRip, 0x1_2345);
    let exit = bench.exit();
    assert_eq!((exit.code, exit.rip, exit.next_rip), (VMMCALL, HANDLER, HANDLER + 3));
    assert_eq!(bench.get(bench.field(Field::Rsp)), 0x1_2345);
    // An interrupt is no instruction.
    let mut bench = Bench::new();
    bench.intercept(Intercept::INTR);
    bench.interrupts_on();
    bench.set(Field::NextRip, 0x1_2345);
    bench.cpu().post(Message::Interrupt(0x55));
    assert_eq!((bench.exit().code, bench.field(Field::NextRip)), (0x60, 0));
    // An exception that an instruction raised explicitly is.
    let mut bench = Bench::new();
    bench.intercept(Intercept::EXCP_BP);
    bench.assemble(|a| a.int3());
    assert_eq!(bench.exit().next_rip, CODE + 1);
    // The return address of another injected event is RIP.
    let mut bench = Bench::new();
    bench.set(Field::EventInj, EventInfo::new(EventKind::Interrupt, 0x80, None).0);
    bench.set(Field::NextRip, 0x1_2345);
    bench.exit();
    assert_eq!(bench.get(bench.field(Field::Rsp)), CODE);
}

/// "Physical (INTR) Interrupt Masking in EFLAGS", "Injecting Virtual (INTR) Interrupts".
#[test]
fn with_v_intr_masking_the_hosts_interrupt_flag_gates_physical_interrupts_and_cr8_is_v_tpr() {
    for masking in [false, true] {
        for host in [false, true] {
            for guest in [false, true] {
                let mut bench = Bench::new();
                bench.intercept(Intercept::INTR);
                bench.assemble(|a| {
                    a.nop()?;
                    a.vmmcall()
                });
                if masking {
                    bench.int_ctl(IntCtl::V_INTR_MASKING);
                }
                if host {
                    let flags = bench.cpu().rflags();
                    bench.cpu().set_rflags(flags.with(RFlags::IF));
                }
                if guest {
                    bench.interrupts_on();
                }
                bench.cpu().refresh();
                bench.cpu().post(Message::Interrupt(0x55));
                let taken = if masking { host } else { guest };
                let code = bench.exit().code;
                assert_eq!(code, if taken { 0x60 } else { VMMCALL }, "{masking} {host} {guest}");
            }
        }
        let mut bench = Bench::new();
        bench.assemble(|a| {
            a.mov(eax, 5)?;
            a.mov(cr8, rax)?;
            a.vmmcall()
        });
        if masking {
            bench.int_ctl(IntCtl::V_INTR_MASKING);
        }
        bench.exit();
        // "Virtualizing APIC.TPR": V_TPR follows CR8 either way.
        assert_eq!(bench.field(Field::IntCtl) & 0xf, 5);
        assert_eq!(bench.cpu().apic.task_priority() >> 4, if masking { 0 } else { 5 });
    }
}

/// "Virtual Interrupt Intercept".
#[test]
fn the_virtual_interrupt_intercept_leaves_v_irq_set() {
    for intercepted in [false, true] {
        let mut bench = Bench::new();
        bench.interrupts_on();
        bench.int_ctl(IntCtl::V_IRQ | IntCtl::V_IGN_TPR);
        bench.set(Field::IntVector, 0x66);
        if intercepted {
            bench.intercept(Intercept::VINTR);
        }
        let exit = bench.exit();
        assert_eq!((exit.code, exit.rip), if intercepted { (0x64, CODE) } else { (VMMCALL, HANDLER) });
        let pending = bench.field(Field::IntCtl) & u64::from(IntCtl::V_IRQ.0) != 0;
        assert_eq!(pending, intercepted);
    }
}

/// "Global Interrupt Flag, STGI and CLGI Instructions".
#[test]
fn with_gif_clear_events_are_held_and_exceptions_work() {
    for (message, then) in [
        (Message::Interrupt(0x55), handler(0x55)),
        (Message::Nmi, handler(vector::NMI)),
        // The SMM handler at SMBASE + 0x8000 is RSM; then the host goes on.
        (Message::Smi, handler(vector::BP)),
        // R_INIT makes INIT an exception.
        (Message::Init, handler(vector::SX)),
    ] {
        let mut bench = Bench::new();
        bench.execute(Instruction::Wrmsr { index: msr::VM_CR, value: 2 }).unwrap();
        bench.board.memory.write(HostPhysical(STACK), &[0x0f, 0xaa]);
        bench.assemble(|a| {
            a.clgi()?;
            a.sti()?;
            a.nop()?;
            a.ud2()?;
            // The handler's gate cleared IF.
            a.sti()?;
            a.nop()?;
            a.stgi()?;
            a.nop()?;
            a.int3()
        });
        bench.cpu().post(message);
        // SMI and the others come before the first instruction unless GIF is clear already.
        bench.execute(Instruction::Clgi).unwrap();
        assert_eq!(bench.host(CODE), handler(vector::UD), "{message:?}");
        let entries = bench.cpu().tick;
        assert_eq!(bench.host(CODE + 3 + 1 + 1 + 2), then, "{message:?}");
        assert!(bench.cpu().tick > entries);
    }
}

/// "MSR Intercepts", "IN and OUT Behavior", "Instruction Intercepts": privilege first, then the intercept, then the rest.
#[test]
fn intercepts_come_behind_privilege_checks_and_before_the_instructions_own() {
    let end = |intercepts: &[Intercept], user: bool, code: &[u8], registers: &[(Gpr, u64)]| {
        let mut bench = Bench::new();
        for intercept in intercepts {
            bench.intercept(*intercept);
        }
        bench.intercept(Intercept::EXCP_GP);
        bench.fill(MSRPM, 0x2000, 0xff);
        bench.fill(IOPM, 0x3000, 0xff);
        if user {
            bench.user();
        }
        for (gpr, value) in registers {
            bench.register(*gpr, *value);
        }
        bench.code(code);
        bench.exit().code
    };
    let rdmsr = [0x0f, 0x32];
    let known = (Gpr::Rcx, u64::from(msr::IA32_STAR));
    let unknown = (Gpr::Rcx, 0x1fff);
    let map = [Intercept::MSR_PROT];
    assert_eq!(end(&map, true, &rdmsr, &[known]), 0x4d);
    assert_eq!(end(&map, false, &rdmsr, &[unknown]), 0x7c);
    assert_eq!(end(&[], false, &rdmsr, &[unknown]), 0x4d);
    let in_al_dx = [0xec];
    assert_eq!(end(&[Intercept::IOIO_PROT], true, &in_al_dx, &[]), 0x4d, "IOPL 0, and no I/O bit map");
    assert_eq!(end(&[Intercept::IOIO_PROT], false, &in_al_dx, &[]), 0x7b);
    // MOV to CR0 with a reserved upper half is #GP before both intercepts; of these the plain one comes first.
    let mov_cr0_rbx = [0x0f, 0x22, 0xc3];
    let (illegal, legal) = ([(Gpr::Rbx, 1 << 40 | 0x8000_0031)], [(Gpr::Rbx, 0xe000_0031)]);
    let (plain, selective) = (Intercept::CR0_WRITE, Intercept::CR0_SEL_WRITE);
    assert_eq!(end(&[], false, &mov_cr0_rbx, &illegal), 0x4d);
    assert_eq!(end(&[plain, selective], false, &mov_cr0_rbx, &illegal), 0x4d);
    assert_eq!(end(&[selective], false, &mov_cr0_rbx, &legal), 0x65);
    assert_eq!(end(&[plain, selective], false, &mov_cr0_rbx, &legal), 0x10);
}

/// Linux looks for a security processor where CPUID tells of SEV.
#[test]
fn no_default_model_tells_of_memory_encryption() {
    let model = Model::max_amd();
    for feature in [Feature::Sev, Feature::SevEs, Feature::SevSnp, Feature::Sme] {
        assert!(!model.has(feature), "{feature:?}");
    }
    assert_eq!(model.cpuid(0x8000_001f, 0, Cr4(0), 0), [0; 4]);
}

/// "Instruction Intercepts": illegal values of MOV to CR are #GP before the intercept is asked, also before the selective one.
#[test]
fn what_a_control_register_cannot_hold_is_gp_before_its_intercept() {
    for (cr, value, legal) in [
        // NW without CD; both.
        (0, 0xa001_0031_u64, false),
        (0, 0xe001_0031, true),
        (0, 1 << 32 | 0x8001_0031, false),
        (3, 1 << 51, false),
        (4, 1 << 13 | 0x620, false),
        (4, 0x6a0, true),
        (8, 16, false),
        (8, 15, true),
    ] {
        let intercepts: &[Intercept] = if cr == 0 {
            &[Intercept::cr_write(0), Intercept::CR0_SEL_WRITE]
        } else {
            &[Intercept::cr_write(cr)]
        };
        for intercept in intercepts {
            let mut bench = Bench::new();
            bench.intercept(*intercept);
            bench.intercept(Intercept::EXCP_GP);
            bench.register(Gpr::Rbx, value);
            bench.assemble(|a| match cr {
                0 => a.mov(cr0, rbx),
                3 => a.mov(cr3, rbx),
                4 => a.mov(cr4, rbx),
                _ => a.mov(cr8, rbx),
            });
            let code = if legal { u64::from(intercept.0) } else { 0x4d };
            assert_eq!(bench.exit().code, code, "CR{cr} {value:#x}");
        }
    }
}
