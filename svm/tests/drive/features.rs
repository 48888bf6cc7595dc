//! Later additions to SVM, each with its own rules.

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::{Efer, Feature, Gpr, msr};
use rootmode_cpu::{Fault, Instruction, Message, Outcome};
use rootmode_svm::vmcb::IntCtl;
use rootmode_svm::{Field, Intercept};

const VMMCALL: u64 = 0x81;

/// "Bus Lock Threshold".
#[test]
fn a_guest_gets_as_many_bus_locks_as_its_threshold_says_and_exits_before_the_next() {
    for count in [0, 1, 3] {
        let mut bench = Bench::new();
        bench.intercept(Intercept::BUSLOCK);
        bench.set(Field::BusLockCounter, count);
        bench.register(Gpr::Rbx, DATA + 61);
        bench.assemble(|a| {
            let mut again = a.create_label();
            a.mov(ecx, 0)?;
            a.set_label(&mut again)?;
            // Neither inside a line nor without a lock.
            a.lock().inc(qword_ptr(rbx - 61))?;
            a.inc(qword_ptr(rbx))?;
            a.inc(ecx)?;
            a.lock().add(qword_ptr(rbx), 1)?;
            a.jmp(again)
        });
        let exit = bench.exit();
        assert_eq!((exit.code, exit.next_rip), (0xa5, 0));
        assert_eq!(bench.cpu().gpr[Gpr::Rcx as usize], count + 1);
        assert_eq!(bench.get(DATA + 61), 2 * count + 1, "the lock that exits has not happened");
        assert_eq!(bench.field(Field::BusLockCounter), 0);
    }
    // What is left of the threshold comes back with another exit.
    let mut bench = Bench::new();
    bench.intercept(Intercept::BUSLOCK);
    bench.set(Field::BusLockCounter, 9);
    bench.register(Gpr::Rbx, DATA + 63);
    bench.assemble(|a| {
        a.xchg(word_ptr(rbx), ax)?;
        a.lock().bts(dword_ptr(rbx), 3)?;
        a.lock().cmpxchg8b(qword_ptr(rbx))?;
        a.vmmcall()
    });
    assert_eq!(bench.exit().code, VMMCALL);
    assert_eq!(bench.field(Field::BusLockCounter), 6);
}

/// "Bus Lock Threshold", "Instruction Intercepts": reserved bits of older processors.
#[test]
fn processors_without_the_features_ignore_their_intercepts() {
    let features = features().without(Feature::BusLockThreshold).without(Feature::IdleHltIntercept);
    let mut bench = Bench::with_features(features);
    bench.intercept(Intercept::BUSLOCK);
    bench.intercept(Intercept::IDLE_HLT);
    bench.intercept(Intercept::HLT);
    bench.register(Gpr::Rbx, DATA + 63);
    bench.assemble(|a| {
        a.xchg(word_ptr(rbx), ax)?;
        a.hlt()
    });
    assert_eq!(bench.exit().code, 0x78);
}

/// "Instruction Intercepts": HLT with a virtual interrupt or a virtual NMI pending does not exit, and is woken by it or goes on.
#[test]
fn idle_hlt_exits_only_while_nothing_virtual_is_pending() {
    for (pending, nmi) in [(false, false), (true, false), (true, true)] {
        let mut bench = Bench::new();
        bench.intercept(Intercept::IDLE_HLT);
        bench.intercept(Intercept::NMI);
        bench.int_ctl(IntCtl::V_NMI_ENABLE | IntCtl::V_GIF_ENABLE);
        if pending {
            bench.int_ctl(if nmi { IntCtl::V_NMI } else { IntCtl::V_IRQ | IntCtl::V_IGN_TPR });
        }
        bench.set(Field::IntVector, 0x66);
        // The virtual GIF keeps what is pending away until the guest has halted.
        bench.interrupts_on();
        bench.assemble(|a| a.hlt());
        let end = bench.run();
        if pending {
            assert!(matches!(end, End::Stopped(_)), "{end:?}");
        } else {
            assert!(matches!(end, End::Exit(Exit { code: 0xa6, .. })), "{end:?}");
        }
    }
    // HLT's own intercept does not ask.
    let mut bench = Bench::new();
    bench.intercept(Intercept::HLT);
    bench.int_ctl(IntCtl::V_IRQ);
    bench.assemble(|a| a.hlt());
    assert_eq!(bench.exit().code, 0x78);
}

fn read(bench: &mut Bench, index: u32) -> u64 {
    match bench.execute(Instruction::Rdmsr { index }) {
        Ok(Outcome::Value(value)) => value,
        other => panic!("RDMSR of {index:#x}: {other:?}"),
    }
}

/// "SPEC_CTRL Virtualization": VMRUN loads the guest's, #VMEXIT saves it, and the host's is in effect again; without it there
/// is one register.
#[test]
fn a_guest_has_a_spec_ctrl_of_its_own() {
    const INDEX: u32 = msr::IA32_SPEC_CTRL;
    for own in [true, false] {
        let features = if own { features() } else { features().without(Feature::VirtualSpecCtrl) };
        let mut bench = Bench::with_features(features);
        bench.execute(Instruction::Wrmsr { index: INDEX, value: 1 }).unwrap();
        // Bits that the register does not have are not loaded.
        bench.set(Field::SpecCtrl, 1 << 40 | 4);
        bench.register(Gpr::Rcx, INDEX.into());
        bench.assemble(|a| {
            a.rdmsr()?;
            a.mov(ebx, eax)?;
            a.mov(eax, 2)?;
            a.wrmsr()?;
            a.vmmcall()
        });
        assert_eq!(bench.exit().code, VMMCALL);
        let found = bench.cpu().gpr[Gpr::Rbx as usize];
        let after = (found, bench.field(Field::SpecCtrl), read(&mut bench, INDEX));
        assert_eq!(after, if own { (4, 2, 1) } else { (1, 1 << 40 | 4, 2) });
    }
    // A refused VMRUN changes nothing.
    let mut bench = Bench::new();
    bench.execute(Instruction::Wrmsr { index: INDEX, value: 1 }).unwrap();
    bench.set(Field::Asid, 0);
    bench.set(Field::SpecCtrl, 4);
    assert_eq!(bench.exit().code, u64::MAX);
    assert_eq!((bench.field(Field::SpecCtrl), read(&mut bench, INDEX)), (4, 1));
}

/// "TSC Ratio MSR": a guest reads MPERF scaled as the TSC is, but without its offset.
#[test]
fn a_guest_reads_mperf_scaled() {
    let mut bench = Bench::new();
    bench.execute(Instruction::Wrmsr { index: msr::TSC_RATIO, value: 2 << 32 }).unwrap();
    bench.execute(Instruction::Wrmsr { index: msr::IA32_MPERF, value: 1 << 30 }).unwrap();
    bench.set(Field::TscOffset, 1 << 40);
    bench.register(Gpr::Rcx, msr::IA32_MPERF.into());
    bench.assemble(|a| a.rdmsr().and_then(|()| a.vmmcall()));
    bench.exit();
    let guest = bench.cpu().gpr[Gpr::Rdx as usize] << 32 | bench.field(Field::Rax);
    assert!((2 << 30..(2 << 30) + 1000).contains(&guest), "{guest:#x}");
    assert!(read(&mut bench, msr::IA32_MPERF) < (1 << 30) + 1000);
}

/// "VM_CR MSR (C001_0114h)".
#[test]
fn svm_cannot_be_disabled_while_it_is_on_and_init_enables_it_again_unless_it_is_locked() {
    const SVMDIS: u64 = 1 << 4;
    const LOCK: u64 = 1 << 3;
    let write = |bench: &mut Bench, value| bench.execute(Instruction::Wrmsr { index: msr::VM_CR, value });
    for locked in [false, true] {
        let mut bench = Bench::new();
        assert_eq!(write(&mut bench, SVMDIS), Err(Fault::GP0));
        bench.cpu().efer = bench.cpu().efer.without(Efer::SVME);
        bench.cpu().refresh();
        let value = SVMDIS | if locked { LOCK } else { 0 };
        assert_eq!(write(&mut bench, value), Ok(Outcome::Done));
        bench.cpu().post(Message::Init);
        bench.cpu().rip = CODE;
        bench.assemble(|a| a.nop());
        let until = bench.board.now() + 1;
        bench.board.run(until);
        assert_eq!(read(&mut bench, msr::VM_CR), if locked { LOCK | SVMDIS } else { 0 });
    }
}
