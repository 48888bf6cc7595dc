//! AVIC against the manual's tables: what each register of the guest's APIC does, where interrupt commands go, which requests are
//! taken ("Virtual APIC Register Accesses", "AVIC IPI Delivery Not Completed", "Logical APIC ID Table").

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::Gpr;
use rootmode_svm::Field;

const VMMCALL: u64 = 0x81;
const INCOMPLETE: u64 = 0x401;
const NO_ACCELERATION: u64 = 0x402;
/// Bit 32 of EXITINFO1: a write.
const WRITE: u64 = 1 << 32;
const IRR: u64 = 0x200;
const ISR: u64 = 0x100;

/// Whether bit `vector` of the 256 bits at `base` of the backing page is set.
fn bit(bench: &Bench, page: u64, base: u64, vector: u64) -> bool {
    bench.get(page + base + vector / 32 * 16) >> (vector % 32) & 1 != 0
}
fn set_bit(bench: &mut Bench, page: u64, base: u64, vector: u64) {
    let at = page + base + vector / 32 * 16;
    bench.put(at, bench.get(at) | 1 << (vector % 32));
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.avic();
    bench
}

#[derive(Debug, PartialEq, Eq)]
enum Does {
    Passes,
    Faults,
    Traps,
}

/// The manual's table, for processors without extended local vectors.
fn expected(register: u64, write: bool) -> Does {
    match register {
        0x090 | 0x390 | 0x400..=0x420 | 0x480..=0x4f0 | 0x500..=0xff0 => Does::Faults,
        0x030 | 0x0a0 | 0x100..=0x270 if write => Does::Faults,
        0x020 | 0x0c0 | 0x0d0 | 0x0e0 | 0x0f0 | 0x280 | 0x320..=0x380 | 0x3e0 if write => Does::Traps,
        _ => Does::Passes,
    }
}

#[test]
fn every_register_passes_faults_or_traps_as_the_table_says() {
    for register in (0..0x1000).step_by(16) {
        for write in [false, true] {
            let mut bench = bench();
            bench.put(BACKING + register, 0x1100);
            bench.register(Gpr::Rbx, APIC + register);
            bench.register(Gpr::Rax, 0);
            if write {
                bench.assemble(|a| a.mov(dword_ptr(rbx), eax).and_then(|()| a.vmmcall()));
            } else {
                bench.assemble(|a| a.mov(eax, dword_ptr(rbx)).and_then(|()| a.vmmcall()));
            }
            // ICR 0 has vector 0, which is too low.
            let exit = bench.exit();
            let name = format!("{register:#x}, write: {write}");
            let info = register | if write { WRITE } else { 0 };
            let stored = bench.get(BACKING + register) & 0xffff_ffff;
            if register == 0x300 && write {
                assert_eq!((exit.code, exit.info1, exit.info2, exit.rip), (INCOMPLETE, 0, 4 << 32, CODE + 2));
                continue;
            }
            match expected(register, write) {
                Does::Passes => assert_eq!((exit.code, exit.rip), (VMMCALL, CODE + 2), "{name}"),
                Does::Faults => {
                    assert_eq!((exit.code, exit.info1, exit.rip), (NO_ACCELERATION, info, CODE), "{name}");
                    // PPR follows TPR.
                    assert!(register == 0xa0 || stored == 0x1100, "{name}");
                }
                Does::Traps => {
                    assert_eq!(
                        (exit.code, exit.info1, exit.rip),
                        (NO_ACCELERATION, info, CODE + 2),
                        "{name}"
                    );
                    assert_eq!(stored, 0, "{name}");
                }
            }
        }
    }
}

/// An address that is not the guest's APIC is memory, even where the backing page lies behind it.
#[test]
fn other_addresses_are_memory() {
    let mut bench = bench();
    bench.put(Bench::nested_entry(DATA), BACKING | 7);
    bench.register(Gpr::Rbx, DATA + 0x90);
    bench.assemble(|a| a.mov(dword_ptr(rbx), eax).and_then(|()| a.vmmcall()));
    assert_eq!(bench.exit().code, VMMCALL);
}

struct Command {
    icr: u64,
    /// Cause and index of the exit.
    fails: Option<(u64, u64)>,
    /// Which of the processors 0, 1 and 2 get the request.
    requested: [bool; 3],
}

#[test]
fn commands_reach_their_targets_or_exit_with_what_is_in_the_way() {
    const LEVEL: u64 = 1 << 15;
    const LOGICAL: u64 = 1 << 11;
    let to = |id: u64| id << 56;
    let shorthand = |kind: u64| kind << 18;
    let command = |icr, fails, requested| Command { icr: icr | 0x51, fails, requested };
    let none = [false; 3];
    for Command { icr, fails, requested } in [
        command(to(1), None, [false, true, false]),
        command(to(2), Some((1, 2)), [false, false, true]),
        command(to(3), Some((2, 3)), none),
        command(to(9), Some((2, 9)), none),
        command(to(4), Some((3, 4)), none),
        command(to(1) | 4 << 8, Some((0, 0)), none),
        command(to(1) | 1 << 8, Some((0, 0)), none),
        command(to(1) | LEVEL, Some((0, 0)), none),
        command(shorthand(1), None, [true, false, false]),
        // Flat logical: bits 1 and 2 are processors 1 and 2; bit 5 is nobody.
        command(to(2) | LOGICAL, None, [false, true, false]),
        command(to(6) | LOGICAL, Some((1, 2)), [false, true, true]),
        // Logical ID 0xff is everybody, as physical ID 0xff is: processor 4's page is in the way.
        command(to(0xff) | LOGICAL, Some((3, 4)), none),
        command(to(0xff), Some((3, 4)), none),
        command(to(0x22) | LOGICAL, Some((2, 5)), none),
    ] {
        let mut bench = bench();
        bench.register(Gpr::Rbx, APIC);
        bench.assemble(|a| {
            a.mov(dword_ptr(rbx + 0x310), (icr >> 32) as u32)?;
            a.mov(dword_ptr(rbx + 0x300), icr as u32)?;
            a.vmmcall()
        });
        let exit = bench.exit();
        match fails {
            None => assert_eq!(exit.code, VMMCALL, "{icr:#x}: {exit:?}"),
            Some((cause, index)) => assert_eq!(
                (exit.code, exit.info1, exit.info2),
                (INCOMPLETE, icr, cause << 32 | index),
                "{icr:#x}"
            ),
        }
        let got = [BACKING, OTHER_BACKING, THIRD_BACKING].map(|page| bit(&bench, page, IRR, 0x51));
        assert_eq!(got, requested, "{icr:#x}");
    }
    // To all but itself: not everybody runs. In a cluster: the first one's bit 1 is entry 1.
    for (icr, dfr, expected, pages) in [
        (shorthand(3) | 0x51, u32::MAX, (INCOMPLETE, 1 << 32 | 2), [false, true, true]),
        (to(0x02) | LOGICAL | 0x51, 0x0fff_ffff, (VMMCALL, 0), [false, true, false]),
    ] {
        let mut bench = bench();
        bench.put(BACKING + 0xe0, dfr.into());
        // Whose page has no legal address is not there.
        bench.put(PHYSICAL_TABLE + 4 * 8, 0);
        bench.register(Gpr::Rbx, APIC);
        bench.assemble(|a| {
            a.mov(dword_ptr(rbx + 0x310), (icr >> 32) as u32)?;
            a.mov(dword_ptr(rbx + 0x300), icr as u32)?;
            a.vmmcall()
        });
        let exit = bench.exit();
        assert_eq!((exit.code, exit.info2), expected, "{icr:#x}");
        let got = [BACKING, OTHER_BACKING, THIRD_BACKING].map(|page| bit(&bench, page, IRR, 0x51));
        assert_eq!(got, pages, "{icr:#x}");
    }
}

#[test]
fn a_request_is_taken_if_its_class_is_above_the_task_priority_and_what_is_in_service() {
    for vector in [0x25, 0x61, 0x9f] {
        for task in [0, 0x20, 0x2f, 0x60, 0x61, 0xf0] {
            for service in [None, Some(0x2f), Some(0x60), Some(0x91)] {
                let mut bench = bench();
                bench.interrupts_on();
                set_bit(&mut bench, BACKING, IRR, vector);
                if let Some(service) = service {
                    set_bit(&mut bench, BACKING, ISR, service);
                }
                bench.put(BACKING + 0x80, task);
                bench.assemble(|a| a.nop().and_then(|()| a.vmmcall()));
                let exit = bench.exit();
                let priority = (task >> 4).max(service.unwrap_or(0) >> 4);
                let taken = vector >> 4 > priority;
                let name = format!("{vector:#x} {task:#x} {service:x?}");
                assert_eq!(exit.rip, if taken { HANDLER } else { CODE + 1 }, "{name}");
                assert_eq!(bit(&bench, BACKING, IRR, vector), !taken, "{name}");
                if taken {
                    assert!(bit(&bench, BACKING, ISR, vector), "{name}");
                    assert_eq!(bench.get(BACKING + 0xa0) & 0xff, vector & 0xf0, "{name}");
                }
            }
        }
    }
}

#[test]
fn the_end_of_an_interrupt_exits_only_if_it_is_level_triggered() {
    for level in [false, true] {
        let mut bench = bench();
        set_bit(&mut bench, BACKING, ISR, 0x31);
        set_bit(&mut bench, BACKING, ISR, 0x71);
        if level {
            set_bit(&mut bench, BACKING, 0x180, 0x71);
        }
        bench.register(Gpr::Rbx, APIC + 0xb0);
        bench.assemble(|a| a.mov(dword_ptr(rbx), eax).and_then(|()| a.vmmcall()));
        let exit = bench.exit();
        assert_eq!(
            (exit.code, exit.info1, exit.info2),
            if level { (NO_ACCELERATION, 0xb0 | WRITE, 0x71) } else { (VMMCALL, 0, 0) }
        );
        assert!(bit(&bench, BACKING, ISR, 0x31) && !bit(&bench, BACKING, ISR, 0x71));
    }
}

#[test]
fn cr8_and_the_task_priority_register_are_one() {
    let mut bench = bench();
    bench.put(BACKING + 0x80, 0x30);
    bench.register(Gpr::Rbx, APIC + 0x80);
    bench.assemble(|a| {
        a.mov(rcx, cr8)?;
        a.mov(dword_ptr(rbx), 0x75)?;
        a.mov(rdx, cr8)?;
        a.mov(eax, 9)?;
        a.mov(cr8, rax)?;
        a.vmmcall()
    });
    assert_eq!(bench.exit().code, VMMCALL);
    let read = [Gpr::Rcx, Gpr::Rdx].map(|gpr| bench.cpu().gpr[gpr as usize]);
    assert_eq!(read, [3, 7]);
    assert_eq!(bench.get(BACKING + 0x80) & 0xff, 0x90);
    assert_eq!(bench.field(Field::IntCtl) & 0xf, 9);
}
