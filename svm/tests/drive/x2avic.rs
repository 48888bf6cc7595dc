//! x2AVIC: the guest's APIC behind the x2APIC MSRs ("x2AVIC", "Virtual APIC Register Accesses").

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::{Gpr, HostPhysical};
use rootmode_svm::vmcb::IntCtl;
use rootmode_svm::{Field, Intercept};

const GENERAL_PROTECTION: u64 = 0x4d;
const MSR: u64 = 0x7c;
const VMMCALL: u64 = 0x81;
const INCOMPLETE: u64 = 0x401;
const NO_ACCELERATION: u64 = 0x402;
const WRITE: u64 = 1 << 32;
const IRR: u64 = 0x200;
/// Length of RDMSR and of WRMSR.
const BEHIND: u64 = CODE + 2;

fn prepare(mut bench: Bench) -> Bench {
    bench.avic();
    bench.int_ctl(IntCtl::X2AVIC_ENABLE);
    bench.intercept(Intercept::EXCP_GP);
    bench
}

/// A guest that reads (`None`) or writes `msr`, and its exit.
fn access(bench: &mut Bench, msr: u64, value: Option<u64>) -> Exit {
    bench.set(Field::Rip, CODE);
    bench.register(Gpr::Rcx, msr);
    bench.register(Gpr::Rax, value.unwrap_or(0) & 0xffff_ffff);
    bench.register(Gpr::Rdx, value.unwrap_or(0) >> 32);
    match value {
        None => bench.assemble(|a| a.rdmsr().and_then(|()| a.vmmcall())),
        Some(_) => bench.assemble(|a| a.wrmsr().and_then(|()| a.vmmcall())),
    }
    bench.exit()
}

#[derive(Debug, PartialEq, Eq)]
enum Does {
    NotThere,
    Passes,
    Faults,
    Traps,
    /// An interrupt command with vector 0.
    Commands,
}

/// What the two manuals' tables say together: a register that x2APIC mode does not have, cannot be read or cannot be written,
/// is #GP before AVIC is asked. (AMD's x2APICs have the remote-read register.)
fn expected(msr: u64, write: bool) -> Does {
    match (msr, write) {
        (0x809 | 0x839, false) => Does::Faults,
        (0x802 | 0x803 | 0x80a | 0x80c | 0x80d | 0x810..=0x827, false) => Does::Passes,
        (0x808 | 0x80f | 0x828 | 0x830 | 0x832..=0x838 | 0x83e, false) => Does::Passes,
        (0x808 | 0x80b, true) => Does::Passes,
        (0x80f | 0x828 | 0x832..=0x838 | 0x83e, true) => Does::Traps,
        (0x830 | 0x83f, true) => Does::Commands,
        _ => Does::NotThere,
    }
}

#[test]
fn every_msr_of_the_range_is_refused_passes_faults_or_traps() {
    for msr in 0x800..=0x8ff {
        for write in [false, true] {
            let mut bench = prepare(Bench::new());
            let place = BACKING + (msr & 0xff) * 16;
            bench.put(place, 0x1100);
            let exit = access(&mut bench, msr, write.then_some(0));
            let name = format!("{msr:#x}, write: {write}: {exit:?}");
            let info = (msr & 0xff) << 4 | if write { WRITE } else { 0 };
            let stored = bench.get(place) & 0xffff_ffff;
            let report = (exit.code, exit.info1, exit.rip);
            match expected(msr, write) {
                Does::NotThere => assert_eq!((exit.code, exit.rip), (GENERAL_PROTECTION, CODE), "{name}"),
                Does::Passes => {
                    assert_eq!((exit.code, exit.rip), (VMMCALL, BEHIND), "{name}");
                    // PPR follows TPR, which is 0 in that case.
                    let value = if msr == 0x80a { 0 } else { 0x1100 };
                    assert!(write || bench.field(Field::Rax) == value, "{name}");
                }
                Does::Faults => assert_eq!(report, (NO_ACCELERATION, info, CODE), "{name}"),
                Does::Traps => assert_eq!((report, stored), ((NO_ACCELERATION, info, BEHIND), 0), "{name}"),
                Does::Commands => {
                    assert_eq!((exit.code, exit.info2, exit.rip), (INCOMPLETE, 4 << 32, BEHIND), "{name}");
                }
            }
        }
    }
}

/// MSR intercepts go before everything, reserved bits before AVIC's permissions.
#[test]
fn intercepts_come_first_and_reserved_bits_second() {
    for (msr, write) in [(0x839, false), (0x80f, true), (0x80e, false), (0x83f, true), (0x802, true)] {
        let mut bench = prepare(Bench::new());
        bench.intercept(Intercept::MSR_PROT);
        bench.fill(MSRPM, 0x2000, 0xff);
        assert_eq!(access(&mut bench, msr, write.then_some(0)).code, MSR, "{msr:#x}");
    }
    // The timer's TSC-deadline mode, which AMD's parts do not have; what EOI does not accept; an upper half.
    for (msr, value) in [(0x832, 1 << 18), (0x80b, 1), (0x80f, 1 << 32), (0x830, 1 << 12), (0x83f, 0x100)] {
        let mut bench = prepare(Bench::new());
        assert_eq!(access(&mut bench, msr, Some(value)).code, GENERAL_PROTECTION, "{msr:#x}");
    }
}

#[test]
fn the_interrupt_command_is_one_register_of_64_bits() {
    let mut bench = prepare(Bench::new());
    let exit = access(&mut bench, 0x830, Some(1 << 32 | 0x51));
    assert_eq!(exit.code, VMMCALL);
    assert_eq!([0x300, 0x310].map(|at| bench.get(BACKING + at) & 0xffff_ffff), [0x51, 1]);
    let mut bench = prepare(Bench::new());
    bench.put(BACKING + 0x300, 0x51);
    bench.put(BACKING + 0x310, 7);
    access(&mut bench, 0x830, None);
    assert_eq!([bench.field(Field::Rax), bench.cpu().gpr[Gpr::Rdx as usize]], [0x51, 7]);
}

/// Neither the APIC's page nor the logical table is used.
#[test]
fn the_page_of_the_apic_is_memory() {
    let mut bench = prepare(Bench::new());
    bench.register(Gpr::Rbx, APIC + 0xf0);
    bench.assemble(|a| a.mov(dword_ptr(rbx), 0x1234).and_then(|()| a.vmmcall()));
    assert_eq!(bench.exit().code, VMMCALL);
    assert_eq!((bench.get(SPARE + 0xf0), bench.get(BACKING + 0xf0)), (0x1234, 0));
}

#[test]
fn cr8_and_the_task_priority_msr_are_one() {
    let mut bench = prepare(Bench::new());
    bench.assemble(|a| {
        a.mov(ecx, 0x808)?;
        a.mov(eax, 0x75)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.mov(rbx, cr8)?;
        a.mov(esi, 9)?;
        a.mov(cr8, rsi)?;
        a.rdmsr()?;
        a.vmmcall()
    });
    assert_eq!(bench.exit().code, VMMCALL);
    assert_eq!((bench.cpu().gpr[Gpr::Rbx as usize], bench.field(Field::Rax)), (7, 0x90));
}

/// SELF_IPI asks nobody; the interrupt comes at once, and EOI ends it.
#[test]
fn an_interrupt_to_oneself_is_taken_and_ended() {
    for (msr, value) in [(0x83f, 0x51), (0x830, 1 << 18 | 0x51)] {
        let mut bench = prepare(Bench::new());
        bench.put(PHYSICAL_TABLE, 0);
        bench.interrupts_on();
        bench.board.memory.write(
            HostPhysical(HANDLER),
            &assemble(64, HANDLER, |a| {
                a.mov(ecx, 0x80b)?;
                a.xor(eax, eax)?;
                a.wrmsr()?;
                a.vmmcall()
            }),
        );
        let exit = access(&mut bench, msr, Some(value));
        assert_eq!(exit.code, VMMCALL, "{exit:?}");
        assert!(exit.rip > HANDLER && exit.rip < HANDLER + 0x20);
        for base in [IRR, 0x100] {
            assert_eq!((0..8).map(|word| bench.get(BACKING + base + word * 16)).sum::<u64>(), 0);
        }
    }
}

/// Destinations have 32 bits; logical ones are a cluster of sixteen; only the physical table is looked at.
#[test]
fn commands_reach_their_targets_or_exit_with_what_is_in_the_way() {
    const LOGICAL: u64 = 1 << 11;
    let to = |id: u64| id << 32 | 0x51;
    let shorthand = |kind: u64| kind << 18 | 0x51;
    let none = [false; 3];
    for (icr, fails, requested) in [
        (to(1), None, [false, true, false]),
        (to(2), Some((1, 2)), [false, false, true]),
        (to(3), Some((2, 3)), none),
        (to(0x101), Some((2, 0x101)), none),
        (to(1) | 4 << 8, Some((0, 0)), none),
        (to(1) | 1 << 15, Some((0, 0)), none),
        (to(0x0_0003) | LOGICAL, None, [true, true, false]),
        (to(0x0_0006) | LOGICAL, Some((1, 2)), [false, true, true]),
        (to(0x1_0002) | LOGICAL, Some((2, 0x11)), none),
        // 0xff is an APIC like any other.
        (to(0xff), Some((2, 0xff)), none),
        (to(0xffff_ffff), Some((3, 4)), none),
        (shorthand(2), Some((3, 4)), none),
    ] {
        let mut bench = prepare(Bench::new());
        bench.board.memory.write(HostPhysical(LOGICAL_TABLE), &[0; 4096]);
        let exit = access(&mut bench, 0x830, Some(icr));
        match fails {
            None => assert_eq!(exit.code, VMMCALL, "{icr:#x}: {exit:?}"),
            Some((cause, index)) => assert_eq!(
                (exit.code, exit.info1, exit.info2),
                (INCOMPLETE, icr, cause << 32 | index),
                "{icr:#x}"
            ),
        }
        let got = [BACKING, OTHER_BACKING, THIRD_BACKING].map(|page| bench.get(page + IRR + 0x20) >> 17 & 1);
        assert_eq!(got.map(|bit| bit != 0), requested, "{icr:#x}");
    }
}

/// "Physical Address Pointer Restrictions": 511 is the greatest index, 4095 on processors with extended x2AVIC.
#[test]
fn the_physical_table_reaches_as_far_as_the_processor_says() {
    const TABLE: u64 = 0x8_0000;
    for (extended, last, enters) in
        [(false, 511, true), (false, 512, false), (true, 512, true), (true, 4095, true)]
    {
        let mut bench = prepare(if extended { Bench::extended() } else { Bench::new() });
        bench.set(Field::AvicPhysicalTable, TABLE | last);
        bench.put(TABLE + last * 8, 1 << 63 | 1 << 62 | OTHER_BACKING);
        let exit = access(&mut bench, 0x830, Some(last << 32 | 0x51));
        let code = if enters { VMMCALL } else { u64::MAX };
        assert_eq!(exit.code, code, "{extended} {last}");
        assert_eq!(bench.get(OTHER_BACKING + IRR + 0x20) >> 17 & 1, u64::from(enters));
        if enters {
            // One more is beyond the table.
            let exit = access(&mut bench, 0x830, Some((last + 1) << 32 | 0x51));
            assert_eq!((exit.code, exit.info2), (INCOMPLETE, 2 << 32 | (last + 1) & 0xfff));
        }
    }
}
