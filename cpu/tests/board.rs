//! The board: gates, deadlines, sleep, several processors in the same interval, and runs cut into pieces.

#![allow(clippy::unwrap_used, reason = "helpers of tests assemble code as tests do")]

mod support;

use rootmode_arch::HostPhysical;
use rootmode_arch::record::Stop;
use rootmode_cpu::board::{Board, Input};
use rootmode_cpu::{Activity, Bus, Effects, Message, gate_address};
use rootmode_mmu::PhysicalMemory;
use support::*;

/// Port 0x10 asks for a deadline so many ticks ahead; the deadline interrupts processor 0. Port 0x11 interrupts processor 1.
struct Timer;

impl Bus for Timer {
    fn read_port(&mut self, _: u16, _: u8, tick: u64, _: &mut Effects) -> u32 {
        tick as u32
    }
    fn write_port(&mut self, port: u16, _: u8, value: u32, tick: u64, effects: &mut Effects) {
        match port {
            0x10 => effects.deadlines.push((tick + u64::from(value), 7)),
            0x11 => effects.messages.push((1, Message::Interrupt(value as u8))),
            _ => effects.stop = Some(Stop::Requested(value)),
        }
    }
    fn read_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: &mut Effects) -> u64 {
        0
    }
    fn write_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: u64, _: &mut Effects) {}
    fn deadline(&mut self, source: u32, _: u64, _: &mut PhysicalMemory, effects: &mut Effects) {
        assert_eq!(source, 7);
        effects.messages.push((0, Message::Interrupt(0x40)));
    }
}

/// A board from a rig, with `count` processors that all start at [`CODE`].
fn board(rig: Rig, count: u8) -> Board {
    let mut board = Board::new();
    board.memory = rig.memory;
    board.set_bus(Box::new(Timer));
    for n in 0..count {
        let mut cpu = rig.processor.cpu.clone();
        cpu.gpr[4] = STACK - 0x1000 * u64::from(n);
        cpu.gpr[3] = u64::from(n);
        board.add_processor(cpu, None);
    }
    board
}

#[test]
fn an_idle_machine_jumps_to_the_deadline_and_then_stops() {
    let mut rig = Rig::new();
    rig.gate(0x40, 0x1_8000, 0xe, 0, 0);
    rig.code_at(0x1_8000, |a| a.hlt().unwrap());
    rig.code(|a| {
        a.mov(iced_x86::code_asm::eax, 5000).unwrap();
        a.out(0x10, iced_x86::code_asm::eax).unwrap();
        a.sti().unwrap();
        a.hlt().unwrap();
    });
    let mut board = board(rig, 1);
    let stopped = board.run(1_000_000);
    assert_eq!(stopped.stop, Stop::Idle);
    // OUT sees tick 1, so the deadline is 5001; then delivery and HLT.
    assert_eq!(stopped.tick, 5001 + 2);
}

#[test]
fn clocks_do_not_pass_while_a_processor_is_halted() {
    use iced_x86::code_asm::*;
    let mut rig = Rig::new();
    rig.gate(0x40, 0x1_8000, 0xe, 0, 0);
    rig.code_at(0x1_8000, |a| {
        a.mov(ecx, 0xe8).unwrap();
        a.rdmsr().unwrap();
        a.mov(ebx, eax).unwrap();
        a.mov(ecx, 0xe7).unwrap();
        a.rdmsr().unwrap();
        a.out(0x20, eax).unwrap();
    });
    rig.code(|a| {
        a.mov(eax, 5000).unwrap();
        a.out(0x10, eax).unwrap();
        a.sti().unwrap();
        a.hlt().unwrap();
    });
    let mut board = board(rig, 1);
    // APERF: four instructions, the delivery, one more. MPERF: four counts a tick, three instructions later.
    assert_eq!(board.run(1_000_000).stop, Stop::Requested(4 * 9));
    assert_eq!(board.processors()[0].cpu.gpr[3], 6);
}

#[test]
fn a_gate_stops_before_any_fetch_and_only_in_host_mode_with_gates() {
    let mut rig = Rig::new();
    rig.cpu().rip = gate_address(5).0;
    let mut board = board(rig, 1);
    board.gates = true;
    let stopped = board.run(100);
    assert_eq!((stopped.stop, stopped.tick), (Stop::Gate(5), 0));
    board.gates = false;
    assert_eq!(board.run(100).stop, Stop::TripleFault, "nothing is mapped there");
}

#[test]
fn a_run_cut_into_pieces_ends_like_one_in_one_piece() {
    let make = || {
        let mut rig = Rig::new();
        rig.gate(0x41, 0x1_8000, 0xe, 0, 0);
        rig.code_at(0x1_8000, |a| {
            a.inc(iced_x86::code_asm::r8).unwrap();
            a.iretq().unwrap();
        });
        rig.code(|a| {
            use iced_x86::code_asm::*;
            let mut top = a.create_label();
            a.sti().unwrap();
            a.mov(eax, 0x41).unwrap();
            a.set_label(&mut top).unwrap();
            a.lock().add(qword_ptr(DATA), rbx).unwrap();
            a.lock().inc(qword_ptr(DATA + 8)).unwrap();
            a.test(rbx, rbx).unwrap();
            a.jnz(top).unwrap();
            a.out(0x11, eax).unwrap();
            a.jmp(top).unwrap();
        });
        let mut board = board(rig, 2);
        board.slice_ticks = 50;
        board.input(Input { tick: 777, processor: 0, message: Message::Interrupt(0x41) });
        board
    };
    let mut whole = make();
    assert_eq!(whole.run(3000).stop, Stop::Limit);
    let mut pieces = make();
    for limit in (50..=3000).step_by(50) {
        assert_eq!(pieces.run(limit).stop, Stop::Limit);
    }
    assert_eq!(whole.digest(), pieces.digest());
    assert!(whole.processors()[1].cpu.gpr[8] > 0, "processor 1 was interrupted");
    assert_eq!(whole.processors()[0].cpu.gpr[8], 1, "processor 0 by the input alone");
    assert_eq!(whole.processors()[0].cpu.tick, whole.processors()[1].cpu.tick);
}

#[test]
fn a_device_can_stop_the_machine_and_a_sleeping_processor_costs_nothing() {
    let mut rig = Rig::new();
    rig.code(|a| {
        a.mov(iced_x86::code_asm::eax, 9).unwrap();
        a.out(0x20, iced_x86::code_asm::eax).unwrap();
    });
    let mut board = board(rig, 2);
    board.processors_mut()[1].cpu.activity = Activity::WaitForSipi;
    board.processors_mut()[1].cpu.refresh();
    let stopped = board.run(100);
    assert_eq!((stopped.stop, stopped.processor, stopped.tick), (Stop::Requested(9), 0, 2));
}

/// Three processors that each compare what they are told with the latest that any of them was told before.
fn no_warp(read: impl Fn(&mut iced_x86::code_asm::CodeAssembler)) -> Stop {
    use iced_x86::code_asm::*;
    let mut rig = Rig::new();
    rig.code(|a| {
        let (mut top, mut warp) = (a.create_label(), a.create_label());
        a.mov(ecx, 2000).unwrap();
        a.set_label(&mut top).unwrap();
        a.mov(rsi, qword_ptr(DATA)).unwrap();
        read(a);
        a.cmp(rax, rsi).unwrap();
        a.jb(warp).unwrap();
        a.mov(qword_ptr(DATA), rax).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
        a.hlt().unwrap();
        a.set_label(&mut warp).unwrap();
        a.out(0x20, eax).unwrap();
    });
    board(rig, 3).run(1_000_000).stop
}

#[test]
fn no_processor_is_told_a_time_before_one_that_it_can_know_of() {
    use iced_x86::code_asm::*;
    let stop = no_warp(|a| {
        a.rdtsc().unwrap();
        a.shl(rdx, 32).unwrap();
        a.or(rax, rdx).unwrap();
    });
    assert_eq!(stop, Stop::Idle, "RDTSC");
    let stop = no_warp(|a| {
        a.in_(eax, 0x20).unwrap();
    });
    assert_eq!(stop, Stop::Idle, "a device");
}
