//! Later additions to SVM, each with its own rules.

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::{Feature, Gpr};
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

/// "Bus Lock Threshold", "Idle HLT Intercept": reserved bits of older processors.
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

/// "Idle HLT Intercept": HLT with a virtual interrupt or a virtual NMI pending does not exit, and is woken by it or goes on.
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
