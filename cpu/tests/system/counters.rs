//! AMD's performance counters: which clocks they count, by the manual's fields of PERF_CTL
//! (APM Vol. 2 "Performance Monitoring Counters").

use crate::support::{Rig, STACK, USER_CS, USER_SS};
use iced_x86::code_asm::*;
use rootmode_cpu::Model;

const CTL0: u32 = 0xc001_0000;
const CLOCKS: u32 = 0x76;
const USR: u32 = 1 << 16;
const OS: u32 = 1 << 17;
const EN: u32 = 1 << 22;

/// WRMSR of PERF_CTL0, `supervisor` NOPs, a return to level 3 with `user` NOPs, RDPMC there, and what it gave.
fn count(control: u32, supervisor: usize, user: usize) -> u64 {
    let mut rig = Rig::with_model(Model::max_amd());
    rig.cpu().cr4.0 |= 1 << 8;
    let mut at = 0;
    rig.code(|a| {
        a.mov(ecx, CTL0).unwrap();
        a.mov(eax, control).unwrap();
        a.xor(edx, edx).unwrap();
        a.wrmsr().unwrap();
        (0..supervisor).for_each(|_| a.nop().unwrap());
        for word in [USER_SS, STACK, 2, USER_CS, 0x1_1000] {
            a.push(word as i32).unwrap();
        }
        a.iretq().unwrap();
        at = a.instructions().len();
    });
    rig.code_at(0x1_1000, |a| {
        (0..user).for_each(|_| a.nop().unwrap());
        a.xor(ecx, ecx).unwrap();
        a.rdpmc().unwrap();
        a.nop().unwrap();
    });
    rig.run((at + user + 2) as u64);
    let [low, _, high] = rig.cpu().gpr[..3] else { unreachable!("there are 16 registers") };
    high << 32 | low
}

#[test]
fn clocks_are_counted_at_the_levels_that_the_control_selects() {
    // A clock belongs to what the processor is at its end. At level 0: the write that starts the counter, NOPs, five pushes.
    // At level 3: IRET, NOPs, and XOR.
    let (kernel, user) = (1 + 10 + 5, 1 + 20 + 1);
    for (control, expected) in [
        (CLOCKS | EN | USR | OS, kernel + user),
        (CLOCKS | EN | OS, kernel),
        (CLOCKS | EN | USR, user),
        (CLOCKS | EN, 0),
        (CLOCKS | USR | OS, 0),
        // CntMask 1 is reached by one event a clock, 2 never; INV turns it round.
        (CLOCKS | EN | USR | OS | 1 << 24, kernel + user),
        (CLOCKS | EN | USR | OS | 2 << 24, 0),
        (CLOCKS | EN | USR | OS | 2 << 24 | 1 << 23, kernel + user),
        (CLOCKS | EN | USR | OS | 1 << 24 | 1 << 23, 0),
    ] {
        assert_eq!(count(control, 10, 20), expected, "{control:#x}");
    }
}

#[test]
fn counters_have_48_bits_and_intel_has_none_of_them() {
    let program = |rig: &mut Rig| {
        rig.code(|a| {
            a.mov(ecx, CTL0 + 4).unwrap();
            a.mov(eax, -1).unwrap();
            a.mov(edx, -1).unwrap();
            a.wrmsr().unwrap();
            a.rdmsr().unwrap();
        });
        rig.run(5);
    };
    let mut amd = Rig::with_model(Model::max_amd());
    program(&mut amd);
    assert_eq!((amd.cpu().gpr[0], amd.cpu().gpr[2]), (0xffff_ffff, 0xffff));
    let mut intel = Rig::with_model(Model::max_intel());
    intel.gate(13, 0x1_2000, 0xe, 0, 0);
    intel.code_at(0x1_2000, |a| a.hlt().unwrap());
    program(&mut intel);
    assert_eq!(intel.cpu().rip, 0x1_2001, "#GP");
}

mod intel {
    //! Version 2 of the architectural counters (SDM Vol. 3B "Architectural Performance Monitoring Version 2", 325462-083).

    use crate::support::{CODE, DATA, Rig};
    use iced_x86::code_asm::*;
    use rootmode_arch::HostPhysical;
    use rootmode_cpu::{Activity, RunEnd};

    const PMC0: u32 = 0xc1;
    const EVENT_SELECT0: u32 = 0x186;
    const FIXED0: u32 = 0x309;
    const FIXED_CONTROL: u32 = 0x38d;
    const STATUS: u32 = 0x38e;
    const GLOBAL: u32 = 0x38f;
    const OVERFLOW_CONTROL: u32 = 0x390;
    const FULL0: u32 = 0x4c1;
    const DEBUGCTL: u32 = 0x1d9;
    const INSTRUCTIONS: u64 = 0xc0;
    const BRANCHES: u64 = 0xc4;
    const CYCLES: u64 = 0x3c;
    const BOTH: u64 = 3 << 16;
    const INT: u64 = 1 << 20;
    const EN: u64 = 1 << 22;
    const VECTOR: u8 = 0x40;
    const HANDLER: u64 = 0x1_8000;
    const LVT_PERFORMANCE: u16 = 0x340;

    fn wrmsr(a: &mut CodeAssembler, index: u32, value: u64) {
        a.mov(ecx, index).unwrap();
        a.mov(eax, value as u32).unwrap();
        a.mov(edx, (value >> 32) as u32).unwrap();
        a.wrmsr().unwrap();
    }

    /// A processor whose counter interrupts come to [`HANDLER`], and with data for string instructions.
    fn rig() -> Rig {
        let mut rig = Rig::new();
        rig.gate(VECTOR, HANDLER, 0xe, 0, 0);
        rig.gate(13, HANDLER + 0x100, 0xe, 0, 0);
        for at in [HANDLER, HANDLER + 0x100] {
            rig.code_at(at, |a| a.hlt().unwrap());
        }
        let clock = rig.cpu().clock();
        rig.cpu().apic.write(LVT_PERFORMANCE, 4, VECTOR.into(), clock);
        rig
    }

    /// Runs `body` between two writes of the global control register that enable counter 0 with `control`, in one piece or
    /// cut after every tick: the counter.
    fn count(control: u64, cut: bool, body: impl Fn(&mut CodeAssembler)) -> u64 {
        let mut rig = rig();
        rig.code(|a| {
            wrmsr(a, GLOBAL, 0);
            wrmsr(a, EVENT_SELECT0, control);
            wrmsr(a, GLOBAL, 1);
            body(a);
            wrmsr(a, GLOBAL, 0);
            wrmsr(a, GLOBAL, 0);
            a.xor(ecx, ecx).unwrap();
            a.rdpmc().unwrap();
            a.hlt().unwrap();
        });
        if cut {
            (0..400).for_each(|_| {
                rig.run(1);
            });
        } else {
            rig.run(400);
        }
        assert_eq!(rig.cpu().activity, Activity::Halted);
        let cpu = rig.cpu();
        cpu.gpr[0] | cpu.gpr[2] << 32
    }

    /// A loop of five, a call and its return, seven iterations of MOVS and none of STOS.
    fn program(a: &mut CodeAssembler) {
        let (mut top, mut f, mut over) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(ebx, 5).unwrap();
        a.set_label(&mut top).unwrap();
        a.dec(ebx).unwrap();
        a.jne(top).unwrap();
        a.call(f).unwrap();
        a.jmp(over).unwrap();
        a.set_label(&mut f).unwrap();
        a.ret().unwrap();
        a.set_label(&mut over).unwrap();
        a.mov(ecx, 7).unwrap();
        a.mov(esi, DATA as u32).unwrap();
        a.mov(edi, DATA as u32 + 64).unwrap();
        a.rep().movsb().unwrap();
        a.rep().stosb().unwrap();
    }

    #[test]
    fn instructions_branches_and_clocks_are_exact_however_the_run_is_cut() {
        // The write that enables counts, the one that disables does not; three instructions load its registers.
        let instructions = 1 + 3 + 1 + 10 + 3 + 5;
        let iterations = 6;
        for (event, expected) in
            [(INSTRUCTIONS, instructions), (CYCLES, instructions + iterations), (BRANCHES, 5 + 3), (0xc5, 0)]
        {
            for cut in [false, true] {
                assert_eq!(count(event | BOTH | EN, cut, program), expected, "{event:#x} {cut}");
            }
        }
        // Clocks without an instruction.
        let inverted = INSTRUCTIONS | BOTH | EN | 1 << 24 | 1 << 23;
        assert_eq!(count(inverted, false, program), iterations);
    }

    #[test]
    fn the_third_fixed_counter_counts_clocks_of_the_time_stamp_counter() {
        let mut rig = rig();
        rig.code(|a| {
            wrmsr(a, FIXED_CONTROL, 3 << 8);
            wrmsr(a, FIXED0 + 2, (1 << 48) - 6);
            wrmsr(a, GLOBAL, 1 << 34);
            a.nop().unwrap();
            wrmsr(a, GLOBAL, 0);
            a.mov(ecx, FIXED0 + 2).unwrap();
            a.rdmsr().unwrap();
            a.mov(ebx, eax).unwrap();
            a.mov(ecx, STATUS).unwrap();
            a.rdmsr().unwrap();
            a.hlt().unwrap();
        });
        assert_eq!(rig.run(100), RunEnd::Asleep);
        // The write that starts it, a NOP and three moves, each of four clocks.
        let cpu = rig.cpu();
        assert_eq!((cpu.gpr[3], cpu.gpr[2] >> 2 & 1), (5 * 4 - 6, 1));
    }

    #[test]
    fn an_exception_is_neither_an_instruction_nor_a_branch() {
        let faults = |a: &mut CodeAssembler| {
            a.ud2().unwrap();
            a.nop().unwrap();
        };
        for (event, expected) in [(INSTRUCTIONS, 1 + 3 + 3), (CYCLES, 1 + 3 + 4), (BRANCHES, 1)] {
            let mut rig = rig();
            rig.gate(6, HANDLER + 0x200, 0xe, 0, 0);
            rig.code_at(HANDLER + 0x200, |a| {
                a.add(qword_ptr(rsp), 2).unwrap();
                a.iretq().unwrap();
            });
            rig.code(|a| {
                wrmsr(a, GLOBAL, 0);
                wrmsr(a, EVENT_SELECT0, event | BOTH | EN);
                wrmsr(a, GLOBAL, 1);
                faults(a);
                wrmsr(a, GLOBAL, 0);
                a.hlt().unwrap();
            });
            rig.run(100);
            assert_eq!(rig.cpu().activity, Activity::Halted);
            rig.code_at(0x1_4000, |a| {
                a.xor(ecx, ecx).unwrap();
                a.rdpmc().unwrap();
                a.hlt().unwrap();
            });
            (rig.cpu().rip, rig.cpu().activity) = (0x1_4000, Activity::Active);
            rig.cpu().refresh();
            rig.run(10);
            assert_eq!(rig.cpu().gpr[0], expected, "{event:#x}");
        }
    }

    /// Runs NOPs with a counter that overflows after `n` of what it counts: how many were executed when the interrupt came,
    /// and the status register.
    fn overflow(event: u64, n: u64, interrupts: bool, fixed: bool) -> (Option<u64>, u64) {
        let mut rig = rig();
        rig.code(|a| {
            wrmsr(a, GLOBAL, 0);
            if fixed {
                wrmsr(a, FIXED_CONTROL, 3 | if interrupts { 8 } else { 0 });
                wrmsr(a, FIXED0, (1 << 48) - n);
            } else {
                wrmsr(a, EVENT_SELECT0, event | BOTH | EN | if interrupts { INT } else { 0 });
                wrmsr(a, FULL0, (1 << 48) - n);
            }
            wrmsr(a, GLOBAL, if fixed { 1 << 32 } else { 1 });
            a.sti().unwrap();
        });
        let start = rig.memory.read_u64(HostPhysical(CODE));
        assert_ne!(start, 0);
        let mut at = CODE;
        while rig.memory.read_u8(HostPhysical(at)) != 0xfb {
            at += 1;
        }
        at += 1;
        // Two jumps among the NOPs, to the instruction behind each.
        let mut bytes = [0x90; 64];
        bytes[20..22].copy_from_slice(&[0xeb, 0]);
        bytes[40..42].copy_from_slice(&[0xeb, 0]);
        bytes[63] = 0xf4;
        rig.memory.write(HostPhysical(at), &bytes);
        rig.run(200);
        let cpu = rig.cpu();
        let came = (HANDLER..HANDLER + 2).contains(&cpu.rip);
        let top = cpu.gpr[4];
        let done = came.then(|| rig.read(top) - at);
        rig.code_at(0x1_4000, |a| {
            a.mov(ecx, STATUS).unwrap();
            a.rdmsr().unwrap();
            a.mov(ebx, eax).unwrap();
            a.mov(esi, edx).unwrap();
            a.shl(rsi, 32).unwrap();
            a.or(rbx, rsi).unwrap();
            wrmsr(a, OVERFLOW_CONTROL, 1 << 32 | 1);
            a.mov(ecx, STATUS).unwrap();
            a.rdmsr().unwrap();
            a.or(eax, edx).unwrap();
            a.hlt().unwrap();
        });
        (rig.cpu().rip, rig.cpu().activity) = (0x1_4000, Activity::Active);
        rig.cpu().refresh();
        assert_eq!(rig.run(100), RunEnd::Asleep);
        let cpu = rig.cpu();
        assert_eq!(cpu.gpr[0], 0, "what is cleared stays so");
        (done, cpu.gpr[3])
    }

    #[test]
    fn an_overflow_interrupts_behind_the_instruction_that_caused_it() {
        // WRMSR and STI count too, and STI holds interrupts for one instruction.
        for n in [4, 7, 12] {
            assert_eq!(overflow(INSTRUCTIONS, n, true, false), (Some(n - 2), 1), "{n}");
            assert_eq!(overflow(CYCLES, n, true, false), (Some(n - 2), 1), "{n}");
            assert_eq!(overflow(0, n, true, true), (Some(n - 2), 1 << 32), "{n}");
        }
        // The first branch is two bytes at 20, the second at 40.
        assert_eq!(overflow(BRANCHES, 1, true, false), (Some(22), 1));
        assert_eq!(overflow(BRANCHES, 2, true, false), (Some(42), 1));
        assert_eq!(overflow(BRANCHES, 3, true, false), (None, 0));
        assert_eq!(overflow(INSTRUCTIONS, 4, false, false), (None, 1));
    }

    #[test]
    fn an_overflow_interrupt_masks_itself_and_freezes_the_counters_if_asked() {
        for freezes in [false, true] {
            let mut rig = rig();
            rig.code(|a| {
                wrmsr(a, DEBUGCTL, if freezes { 1 << 12 } else { 0 });
                wrmsr(a, EVENT_SELECT0, INSTRUCTIONS | BOTH | EN | INT);
                wrmsr(a, PMC0, 0xffff_ffff);
                (0..8).for_each(|_| a.nop().unwrap());
                a.mov(ecx, GLOBAL).unwrap();
                a.rdmsr().unwrap();
                a.mov(ebx, eax).unwrap();
                a.mov(ecx, PMC0).unwrap();
                a.rdmsr().unwrap();
                a.hlt().unwrap();
            });
            assert_eq!(rig.run(200), RunEnd::Asleep);
            let clock = rig.cpu().clock();
            let lvt = rig.cpu().apic.read(LVT_PERFORMANCE, 4, clock);
            assert_eq!(lvt, u64::from(VECTOR) | 1 << 16);
            // WRMSR overflows the counter; NOPs, three moves and a read follow.
            let expected = if freezes { (0, 0) } else { (0xff, 8 + 4) };
            assert_eq!((rig.cpu().gpr[3], rig.cpu().gpr[0]), expected, "{freezes}");
        }
    }

    #[test]
    fn writes_of_reserved_bits_and_registers_that_are_not_there_fault() {
        for (index, value, legal) in [
            (EVENT_SELECT0, 1 << 21, false),
            (EVENT_SELECT0, 1 << 32, false),
            (EVENT_SELECT0 + 7, 0xffdf_ffff, true),
            (EVENT_SELECT0 + 8, 0, false),
            (PMC0, u64::MAX, true),
            (FULL0, 1 << 48, false),
            (FULL0, (1 << 48) - 1, true),
            (FIXED0 + 1, (1 << 48) - 1, true),
            (FIXED0 + 2, (1 << 48) - 1, true),
            (FIXED0 + 3, 0, false),
            (FIXED_CONTROL, 0xbbb, true),
            (FIXED_CONTROL, 4, false),
            (FIXED_CONTROL, 0x1000, false),
            (GLOBAL, 7 << 32 | 0xff, true),
            (GLOBAL, 1 << 35, false),
            (STATUS, 0, false),
            (OVERFLOW_CONTROL, 1 << 63 | 3 << 32 | 0xff, true),
            (0x345, 0, false),
        ] {
            let mut rig = rig();
            rig.code(|a| {
                wrmsr(a, index, value);
                a.hlt().unwrap();
            });
            assert_eq!(rig.run(100), RunEnd::Asleep);
            assert_eq!(rig.cpu().rip < HANDLER, legal, "{index:#x} {value:#x}");
        }
    }
}

mod amd {
    //! The core extension's counters and the global registers (APM Vol. 2 "Performance Monitoring Counters").

    use crate::support::Rig;
    use iced_x86::code_asm::*;
    use rootmode_cpu::{Model, RunEnd};

    fn wrmsr(a: &mut CodeAssembler, index: u32, value: u64) {
        a.mov(ecx, index).unwrap();
        a.mov(eax, value as u32).unwrap();
        a.mov(edx, (value >> 32) as u32).unwrap();
        a.wrmsr().unwrap();
    }

    #[test]
    fn the_sixth_counter_counts_and_the_global_status_tells_of_its_overflow() {
        let mut rig = Rig::with_model(Model::max_amd());
        rig.code(|a| {
            wrmsr(a, 0xc001_020b, (1 << 48) - 3);
            wrmsr(a, 0xc001_020a, 0xc0 | 3 << 16 | 1 << 22);
            a.nop().unwrap();
            a.nop().unwrap();
            wrmsr(a, 0xc000_0301, 0);
            a.nop().unwrap();
            a.mov(ecx, 0xc000_0300_u32).unwrap();
            a.rdmsr().unwrap();
            a.mov(ebx, eax).unwrap();
            wrmsr(a, 0xc000_0302, 0x3f);
            a.mov(ecx, 0xc000_0300_u32).unwrap();
            a.rdmsr().unwrap();
            a.mov(esi, eax).unwrap();
            a.mov(ecx, 5).unwrap();
            a.rdpmc().unwrap();
            a.hlt().unwrap();
        });
        assert_eq!(rig.run(200), RunEnd::Asleep);
        // WRMSR, two NOPs, three moves: 6 counted from -3.
        let cpu = rig.cpu();
        assert_eq!((cpu.gpr[3], cpu.gpr[6], cpu.gpr[0]), (1 << 5, 0, 3));
    }
}
