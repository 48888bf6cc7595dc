//! Programs that use their local APIC: memory access, timers that wake, IPIs and start-up, an 8259 and an I/O APIC behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests assemble code as tests do")]

mod support;

use iced_x86::code_asm::*;
use rootmode_arch::msr::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{HostPhysical, RFlags};
use rootmode_cpu::apic::Mode;
use rootmode_cpu::board::{Board, Input};
use rootmode_cpu::{Activity, Bus, DeliveryMode, Effects, InterruptMessage, Message};
use rootmode_mmu::PhysicalMemory;
use support::*;

const APIC: u32 = 0xfee0_0000;
const HANDLER: u64 = 0x1_8000;

/// A device. OUT 0x10: the 8259's INTR rises; OUT 0x12: a level-triggered message with this vector to logical destination 3;
/// OUT 0x13: the NMI line's level; OUT 0x14: an edge-triggered lowest-priority message with this vector to everybody.
#[derive(Default)]
struct Devices {
    acknowledged: u32,
    ended: Vec<u8>,
}

impl Bus for Devices {
    fn read_port(&mut self, port: u16, _: u8, _: u64, _: &mut Effects) -> u32 {
        match port {
            0x10 => self.acknowledged,
            _ => self.ended.iter().fold(0, |all, vector| all << 8 | u32::from(*vector)),
        }
    }
    fn write_port(&mut self, port: u16, _: u8, value: u32, _: u64, effects: &mut Effects) {
        let message = |mode, logical, level_triggered| InterruptMessage {
            destination: if logical { 3 } else { 0xff },
            logical,
            mode,
            vector: value as u8,
            level_triggered,
            asserted: true,
        };
        match port {
            0x10 => effects.intr = Some(true),
            0x12 => effects.interrupts.push(message(DeliveryMode::Fixed, true, true)),
            0x13 => effects.nmi = Some(value != 0),
            0x14 => effects.interrupts.push(message(DeliveryMode::LowestPriority, false, false)),
            _ => effects.stop = Some(Stop::Requested(value)),
        }
    }
    fn read_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: &mut Effects) -> u64 {
        0
    }
    fn write_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: u64, _: &mut Effects) {}
    fn deadline(&mut self, _: u32, _: u64, _: &mut PhysicalMemory, _: &mut Effects) {}
    fn acknowledge(&mut self, _: u64, effects: &mut Effects) -> u8 {
        self.acknowledged += 1;
        effects.intr = Some(false);
        0x38
    }
    fn end_of_interrupt(&mut self, vector: u8, _: u64, effects: &mut Effects) {
        self.ended.push(vector);
        if self.ended.len() == 1 {
            let level_triggered = true;
            let mode = DeliveryMode::Fixed;
            effects.interrupts.push(InterruptMessage {
                destination: 0,
                logical: false,
                mode,
                vector,
                level_triggered,
                asserted: true,
            });
        }
    }
}

/// A rig whose page tables reach 0xfec00000 to 0xfeffffff, with handlers that count in R8 and end the interrupt by memory access
/// (vectors 0x38, 0x40, 0x41, NMI in R9 without an EOI).
fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.memory.write_u64(HostPhysical(0x2018), 0x4007);
    for n in 502..504 {
        rig.memory.write_u64(HostPhysical(0x4000 + n * 8), 0xc000_0000 | n << 21 | 0x87);
    }
    for vector in [0x38, 0x40, 0x41] {
        rig.gate(vector, HANDLER, 0xe, 0, 0);
    }
    rig.gate(2, HANDLER + 0x100, 0xe, 0, 0);
    rig.code_at(HANDLER, |a| {
        a.inc(r8).unwrap();
        a.mov(r15d, APIC + 0xb0).unwrap();
        a.mov(dword_ptr(r15), 0).unwrap();
        a.iretq().unwrap();
    });
    rig.code_at(HANDLER + 0x100, |a| {
        a.inc(r9).unwrap();
        a.iretq().unwrap();
    });
    rig
}

fn board(rig: Rig, count: u8) -> Board {
    let mut board = Board::new();
    board.memory = rig.memory;
    board.set_bus(Box::new(Devices::default()));
    for n in 0..count {
        let mut cpu = rig.processor.cpu.clone();
        cpu.gpr[4] = STACK - 0x1000 * u64::from(n);
        cpu.gpr[3] = u64::from(n);
        board.add_processor(cpu, None);
    }
    board
}

fn register(a: &mut CodeAssembler, offset: u32, value: u32) {
    a.mov(r14d, APIC + offset).unwrap();
    a.mov(dword_ptr(r14), value).unwrap();
}

fn write_msr(a: &mut CodeAssembler, index: u32, value: u64) {
    a.mov(ecx, index).unwrap();
    a.mov(eax, value as u32).unwrap();
    a.mov(edx, (value >> 32) as u32).unwrap();
    a.wrmsr().unwrap();
}

#[test]
fn the_register_page_follows_the_base_and_disappears_with_the_apic() {
    let mut rig = rig();
    rig.code(|a| {
        a.mov(r14d, APIC + 0x30).unwrap();
        a.mov(r15d, 0xfed4_0030_u32).unwrap();
        for (base, [here, there]) in
            [(0xfee0_0900, [r8d, r9d]), (0xfed4_0900, [r10d, r11d]), (0xfed4_0100, [r12d, r13d])]
        {
            write_msr(a, IA32_APIC_BASE, base);
            a.mov(here, dword_ptr(r14)).unwrap();
            a.mov(there, dword_ptr(r15)).unwrap();
        }
        a.hlt().unwrap();
    });
    let mut board = board(rig, 1);
    assert_eq!(board.run(1000).stop, Stop::Idle);
    let cpu = &board.processors()[0].cpu;
    let (none, version) = (0xffff_ffff, 0x0105_0014);
    assert_eq!(cpu.gpr[8..14], [version, none, none, version, none, none]);
    assert_eq!(cpu.apic.mode(), Mode::Disabled);
}

#[test]
fn cpuid_shows_the_apic_while_it_is_enabled() {
    let mut rig = rig();
    rig.code(|a| {
        for (base, keep) in [(0xfee0_0900_u64, r8d), (0xfee0_0100, r9d), (0xfee0_0900, r10d)] {
            write_msr(a, IA32_APIC_BASE, base);
            a.mov(eax, 1).unwrap();
            a.cpuid().unwrap();
            a.mov(keep, edx).unwrap();
        }
        a.hlt().unwrap();
    });
    let mut board = board(rig, 1);
    board.run(1000);
    let shown = board.processors()[0].cpu.gpr[8..11].iter().map(|leaf| leaf >> 9 & 1);
    assert_eq!(shown.collect::<Vec<_>>(), [1, 0, 1]);
}

#[test]
fn the_timer_wakes_a_halted_processor_at_its_tick() {
    let mut rig = rig();
    rig.code(|a| {
        register(a, 0x3e0, 0xb);
        register(a, 0x320, 0x40);
        register(a, 0x380, 5000);
        a.sti().unwrap();
        a.hlt().unwrap();
        a.hlt().unwrap();
    });
    let mut board = board(rig, 1);
    let stopped = board.run(1_000_000);
    // The count starts in the sixth instruction, at tick 5; delivery, the handler's four instructions, and HLT follow.
    assert_eq!((stopped.stop, stopped.tick), (Stop::Idle, 5005 + 1 + 4 + 1));
    assert_eq!(board.processors()[0].cpu.gpr[8], 1);
}

#[test]
fn a_periodic_timer_and_a_cut_run_end_like_a_whole_one() {
    let make = || {
        let mut rig = rig();
        rig.code(|a| {
            let mut top = a.create_label();
            register(a, 0x3e0, 0xb);
            register(a, 0x320, 0x2_0040);
            a.lea(edx, dword_ptr(rbx * 8 + 97)).unwrap();
            a.mov(r14d, APIC + 0x380).unwrap();
            a.mov(dword_ptr(r14), edx).unwrap();
            a.sti().unwrap();
            a.set_label(&mut top).unwrap();
            a.inc(r10).unwrap();
            // An interrupt to the other processor: shorthand "all but self".
            register(a, 0x300, 0xc_0041);
            a.jmp(top).unwrap();
        });
        board(rig, 3)
    };
    let mut whole = make();
    assert_eq!(whole.run(20_000).stop, Stop::Limit);
    let mut pieces = make();
    for limit in (1000..=20_000).step_by(1000) {
        assert_eq!(pieces.run(limit).stop, Stop::Limit);
    }
    assert_eq!(whole.digest(), pieces.digest());
    assert!(whole.processors().iter().all(|p| p.cpu.gpr[8] > 100));
}

#[test]
fn a_tsc_deadline_wakes_and_an_x2apic_eoi_ends() {
    let mut rig = rig();
    rig.code_at(HANDLER, |a| {
        a.inc(r8).unwrap();
        write_msr(a, IA32_X2APIC_EOI, 0);
        a.iretq().unwrap();
    });
    rig.code(|a| {
        write_msr(a, IA32_APIC_BASE, 0xfee0_0d00);
        write_msr(a, IA32_X2APIC_LVT_TIMER, 0x4_0040);
        for deadline in [12_000_u64, 28_000] {
            write_msr(a, IA32_TSC_DEADLINE, deadline);
            a.sti().unwrap();
            a.hlt().unwrap();
            a.rdtsc().unwrap();
            a.mov(r9, rax).unwrap();
        }
        a.hlt().unwrap();
    });
    let mut board = board(rig, 1);
    assert_eq!(board.run(1_000_000).stop, Stop::Idle);
    let cpu = &board.processors()[0].cpu;
    assert_eq!((cpu.gpr[8], cpu.apic.mode()), (2, Mode::X2Apic));
    assert_eq!(
        cpu.gpr[9],
        28_000 + 4 * (1 + 6),
        "four counts a tick; delivery and the handler come before RDTSC"
    );
}

#[test]
fn init_and_start_up_wake_application_processors_at_the_vector() {
    let mut rig = rig();
    rig.code(|a| {
        register(a, 0x300, 0xc_4500);
        register(a, 0x300, 0xc_0612);
        a.mov(ecx, 4000).unwrap();
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(top).unwrap();
        a.hlt().unwrap();
    });
    // HLT in any mode.
    rig.memory.write(HostPhysical(0x12000), &[0xf4]);
    let mut board = board(rig, 3);
    for processor in &mut board.processors_mut()[1..] {
        processor.cpu.activity = Activity::WaitForSipi;
        processor.cpu.refresh();
    }
    board.run(20_000);
    for processor in &board.processors()[1..] {
        let cpu = &processor.cpu;
        assert_eq!((cpu.activity, cpu.rip), (Activity::Halted, 1));
        assert_eq!((cpu.segments[1].base, cpu.segments[1].selector.0), (0x12000, 0x1200));
        assert!(!cpu.apic.is_enabled() && !cpu.is_bootstrap());
    }
    assert!(board.processors()[0].cpu.is_64_bit(), "the sender is not among the others");
}

#[test]
fn an_8259_interrupts_through_lint0_and_straight_without_an_apic() {
    for enabled in [true, false] {
        let mut rig = rig();
        rig.code_at(HANDLER, |a| {
            a.inc(r8).unwrap();
            a.iretq().unwrap();
        });
        rig.code(|a| {
            write_msr(a, IA32_APIC_BASE, if enabled { 0xfee0_0900 } else { 0xfee0_0100 });
            // ExtINT knows no task priority.
            a.mov(eax, 15).unwrap();
            a.mov(cr8, rax).unwrap();
            a.out(0x10, eax).unwrap();
            a.sti().unwrap();
            a.hlt().unwrap();
            a.in_(eax, 0x10).unwrap();
            a.hlt().unwrap();
        });
        let mut board = board(rig, 1);
        board.run(1000);
        let cpu = &board.processors()[0].cpu;
        assert_eq!((cpu.gpr[8], cpu.gpr[0]), (1, 1), "one delivery, one acknowledge cycle");
        assert_eq!(cpu.pending_interrupt(), None);
    }
}

#[test]
fn a_level_triggered_message_is_broadcast_at_its_end_and_may_come_again() {
    let mut rig = rig();
    rig.code(|a| {
        register(a, 0xd0, 0x0200_0000);
        a.sti().unwrap();
        a.mov(eax, 0x41).unwrap();
        a.out(0x12, eax).unwrap();
        a.nop().unwrap();
        a.in_(eax, 0x11).unwrap();
        a.mov(r14d, APIC + 0x1a0).unwrap();
        a.mov(r10d, dword_ptr(r14)).unwrap();
        a.cli().unwrap();
        a.hlt().unwrap();
    });
    let mut board = board(rig, 1);
    board.run(1000);
    let cpu = &board.processors()[0].cpu;
    assert_eq!((cpu.gpr[8], cpu.gpr[0]), (2, 0x4141));
    assert_eq!(cpu.gpr[10], 1 << 1, "TMR keeps the mode of the last arrival");
}

#[test]
fn lowest_priority_messages_go_to_the_lowest_processor_priority_then_number() {
    for (priorities, expected) in [([0, 0, 0], 0), ([3, 2, 2], 1), ([1, 1, 0], 2)] {
        let mut rig = rig();
        rig.code(|a| {
            let mut wait = a.create_label();
            a.sti().unwrap();
            a.test(ebx, ebx).unwrap();
            a.jnz(wait).unwrap();
            a.mov(eax, 0x40).unwrap();
            a.out(0x14, eax).unwrap();
            a.set_label(&mut wait).unwrap();
            a.hlt().unwrap();
            a.hlt().unwrap();
        });
        let mut board = board(rig, 3);
        for (processor, priority) in board.processors_mut().iter_mut().zip(priorities) {
            processor.cpu.set_cr8(priority);
        }
        board.run(10_000);
        let counts: Vec<u64> = board.processors().iter().map(|p| p.cpu.gpr[8]).collect();
        let wanted: Vec<u64> = (0..3).map(|n| u64::from(n == expected)).collect();
        assert_eq!(counts, wanted, "{priorities:?}");
    }
}

#[test]
fn two_nmis_before_a_boundary_are_two_and_three_during_a_handler_are_one() {
    let mut rig = rig();
    rig.code(|a| a.hlt().unwrap());
    let mut board = board(rig, 1);
    let nmi = |tick| Input { tick, processor: 0, message: Message::Nmi };
    for tick in [0, 0, 0] {
        board.input(nmi(tick));
    }
    board.run(1000);
    assert_eq!(board.processors()[0].cpu.gpr[9], 2);
    let mut rig = self::rig();
    rig.code(|a| a.hlt().unwrap());
    let mut board = self::board(rig, 1);
    board.processors_mut()[0].cpu.nmi_blocked = true;
    for tick in [0, 0, 0] {
        board.input(nmi(tick));
    }
    board.run(1000);
    assert_eq!(board.processors()[0].cpu.gpr[9], 0);
    let cpu = &mut board.processors_mut()[0].cpu;
    cpu.nmi_blocked = false;
    cpu.refresh();
    board.run(2000);
    assert_eq!(board.processors()[0].cpu.gpr[9], 1);
}

#[test]
fn the_nmi_line_is_an_edge_on_lint1_and_sti_holds_it_for_one_instruction() {
    let mut rig = rig();
    rig.code(|a| {
        a.mov(eax, 1).unwrap();
        a.out(0x13, eax).unwrap();
        a.out(0x13, eax).unwrap();
        a.hlt().unwrap();
    });
    let mut board = board(rig, 1);
    board.run(1000);
    assert_eq!(board.processors()[0].cpu.gpr[9], 1);

    let mut rig = self::rig();
    rig.code_at(HANDLER + 0x100, |a| {
        a.mov(r9, qword_ptr(rsp)).unwrap();
        a.hlt().unwrap();
    });
    rig.code(|a| {
        a.sti().unwrap();
        a.nop().unwrap();
        a.hlt().unwrap();
    });
    assert_eq!(rig.run(1), rootmode_cpu::RunEnd::Budget);
    rig.cpu().post(Message::Nmi);
    rig.run(100);
    assert_eq!(rig.cpu().gpr[9], CODE + 2, "after the NOP");
    assert!(!rig.cpu().rflags().contains(RFlags::IF));
}
