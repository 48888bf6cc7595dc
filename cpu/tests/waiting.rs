//! MONITOR, MWAIT, UMONITOR, UMWAIT and TPAUSE: what ends a wait, and when; bus locks that the system hears of.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod support;

use iced_x86::code_asm::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{AccessRights, DebugCtl, Feature, HostPhysical, RFlags, SegmentName, Selector};
use rootmode_cpu::board::{Board, Input};
use rootmode_cpu::{Activity, Cpu, Message, Model};
use support::*;

/// Processor 0 runs `waiter` at [`CODE`]; processor 1 counts down from `delay`, stores to `target` and halts.
fn pair(waiter: impl FnOnce(&mut CodeAssembler), delay: u32, target: u64) -> Board {
    let mut rig = Rig::new();
    rig.code(waiter);
    rig.gate(0x40, 0x1_8000, 0xe, 0, 0);
    rig.code_at(0x1_8000, |a| a.hlt().unwrap());
    rig.code_at(0x1_4000, |a| {
        let mut top = a.create_label();
        a.mov(ecx, delay).unwrap();
        a.set_label(&mut top).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(top).unwrap();
        a.mov(dword_ptr(target), ecx).unwrap();
        a.hlt().unwrap();
    });
    let mut board = Board::new();
    board.memory = rig.memory;
    for n in 0..2 {
        let mut cpu = rig.processor.cpu.clone();
        cpu.rip = if n == 0 { CODE } else { 0x1_4000 };
        cpu.gpr[4] = STACK - 0x1000 * n;
        board.add_processor(cpu, None);
    }
    board
}

/// MONITOR of [`DATA`] and MWAIT with `hints`, then EBX is 1 and the processor halts with interrupts off.
fn mwait(hints: u32) -> impl FnOnce(&mut CodeAssembler) {
    move |a| {
        a.mov(rax, DATA).unwrap();
        a.xor(ecx, ecx).unwrap();
        a.monitor().unwrap();
        a.mov(ecx, hints).unwrap();
        a.mwait().unwrap();
        a.mov(ebx, 1).unwrap();
        a.hlt().unwrap();
    }
}

/// Goes on at CPL 3 with flat segments.
fn to_user_mode(cpu: &mut Cpu) {
    for (name, selector, rights) in [(SegmentName::Cs, USER_CS, 0xa0fb), (SegmentName::Ss, USER_SS, 0xc0f3)] {
        let segment = cpu.segment_mut(name);
        (segment.selector, segment.rights) = (Selector(selector as u16), AccessRights(rights));
    }
    cpu.cpl = 3;
    cpu.refresh();
}

/// What processor 0 has in RBX, and when it stopped.
fn end(board: &mut Board) -> (u64, u64, Stop) {
    let stop = board.run(1_000_000).stop;
    let cpu = &board.processors()[0].cpu;
    (cpu.gpr[3], cpu.tick, stop)
}

#[test]
fn a_store_of_another_processor_to_the_line_ends_mwait() {
    let (woken, tick, stop) = end(&mut pair(mwait(0), 10_000, DATA + 8));
    assert_eq!((woken, stop), (1, Stop::Idle));
    assert!(
        (20_000..22_000).contains(&tick),
        "the store comes at tick 20,001, seen in that slice or the next: {tick}"
    );
    let mut board = pair(mwait(0), 10_000, DATA + 0x100);
    assert_eq!(end(&mut board).0, 0, "another line");
    assert_eq!(board.processors()[0].cpu.activity, Activity::Waiting);
}

#[test]
fn a_masked_interrupt_ends_mwait_only_if_it_says_so_and_is_not_delivered() {
    for hints in [0, 1] {
        let mut board = pair(mwait(hints), 1, DATA + 0x1000);
        board.input(Input { tick: 500, processor: 0, message: Message::Interrupt(0x40) });
        assert_eq!(end(&mut board).0, u64::from(hints));
        assert_eq!(board.processors()[0].cpu.gpr[4], STACK, "nothing was pushed");
    }
}

#[test]
fn an_interrupt_that_is_possible_is_delivered_and_returns_behind_mwait() {
    let mut board = pair(mwait(0), 1, DATA + 0x1000);
    board.input(Input { tick: 500, processor: 0, message: Message::Interrupt(0x40) });
    board.processors_mut()[0].cpu.set_rflags(RFlags::ONE | RFlags::IF);
    assert_eq!(end(&mut board).0, 0, "the handler halts");
    let rip = board.memory.read_u64(HostPhysical(STACK - 40));
    assert_eq!(rip, CODE + 10 + 2 + 3 + 5 + 3);
}

#[test]
fn mwait_goes_on_at_once_without_a_monitor_or_after_a_store() {
    let unarmed = |a: &mut CodeAssembler| {
        a.mwait().unwrap();
        a.mov(ebx, 1).unwrap();
        a.hlt().unwrap();
    };
    assert_eq!(end(&mut pair(unarmed, 1, DATA + 0x1000)).0, 1);
    let stored = |a: &mut CodeAssembler| {
        a.mov(rax, DATA).unwrap();
        a.monitor().unwrap();
        a.mov(dword_ptr(rax), eax).unwrap();
        a.mwait().unwrap();
        a.mov(ebx, 1).unwrap();
        a.hlt().unwrap();
    };
    assert_eq!(end(&mut pair(stored, 1, DATA + 0x1000)).0, 1);
    let of_users = |a: &mut CodeAssembler| {
        a.mov(rax, DATA).unwrap();
        a.umonitor(rax).unwrap();
        a.mwait().unwrap();
        a.mov(ebx, 1).unwrap();
        a.hlt().unwrap();
    };
    assert_eq!(end(&mut pair(of_users, 1, DATA + 0x1000)).0, 1, "UMONITOR's range is not MWAIT's");
}

#[test]
fn tpause_ends_when_the_counter_is_there_and_umwait_at_the_systems_limit_with_carry() {
    let pause = |limit: u32, monitors: bool| {
        move |a: &mut CodeAssembler| {
            a.mov(ecx, 0xe1).unwrap();
            a.mov(eax, limit).unwrap();
            a.xor(edx, edx).unwrap();
            a.wrmsr().unwrap();
            a.mov(rax, DATA).unwrap();
            a.umonitor(rax).unwrap();
            a.xor(esi, esi).unwrap();
            a.mov(eax, 40_000).unwrap();
            if monitors {
                a.umwait(esi).unwrap();
            } else {
                a.tpause(esi).unwrap();
            }
            a.setc(bl).unwrap();
            a.hlt().unwrap();
        }
    };
    // Four counts a tick. Nine instructions before and two behind; the limit counts from the ninth.
    for monitors in [false, true] {
        let (carry, tick, stop) = end(&mut pair(pause(0, monitors), 1, DATA + 0x1000));
        assert_eq!((carry, tick, stop), (0, 10_000 + 2, Stop::Idle));
        let (carry, tick, _) = end(&mut pair(pause(8_000, monitors), 1, DATA + 0x1000));
        assert_eq!((carry, tick), (1, 8 + 2_000 + 2));
    }
    let (carry, tick, _) = end(&mut pair(pause(0, true), 1_000, DATA));
    assert!(carry == 0 && (2_000..4_000).contains(&tick), "the store comes first: {tick}");
}

#[test]
fn a_snapshot_in_the_midst_of_a_wait_goes_on_like_the_original() {
    let mut board = pair(mwait(0), 10_000, DATA);
    board.run(5_000);
    let snapshot = board.snapshot().unwrap();
    let wanted = end(&mut board);
    let mut other = pair(mwait(0), 3, DATA);
    other.run(100);
    other.restore(&snapshot).unwrap();
    assert_eq!(end(&mut other), wanted);
    assert_eq!(other.digest(), board.digest());
    assert_eq!(wanted.0, 1);
}

#[test]
fn monitor_and_mwait_are_undefined_for_users_and_without_the_feature() {
    let undefined = |rig: &mut Rig, user: bool, build: fn(&mut CodeAssembler)| {
        rig.gate(6, 0x1_8000, 0xe, 0, 0);
        rig.gate(13, 0x1_9000, 0xe, 0, 0);
        rig.code_at(0x1_8000, |a| {
            a.mov(edi, 6).unwrap();
            a.hlt().unwrap();
        });
        rig.code_at(0x1_9000, |a| {
            a.mov(edi, 13).unwrap();
            a.hlt().unwrap();
        });
        rig.code(|a| {
            build(a);
            a.hlt().unwrap();
        });
        if user {
            to_user_mode(rig.cpu());
        }
        rig.run(20);
        rig.cpu().gpr[7]
    };
    let monitor = |a: &mut CodeAssembler| a.monitor().unwrap();
    let mwait = |a: &mut CodeAssembler| a.mwait().unwrap();
    let tpause = |a: &mut CodeAssembler| {
        a.xor(edx, edx).unwrap();
        a.tpause(ebx).unwrap();
    };
    for build in [monitor, mwait] {
        assert_eq!(undefined(&mut Rig::new(), true, build), 6);
        assert_eq!(undefined(&mut Rig::new(), false, build), 0);
        let mut hinted = Rig::new();
        hinted.cpu().gpr[1] = 2;
        assert_eq!(undefined(&mut hinted, false, build), 13, "reserved hints");
        let mut disabled = Rig::new();
        disabled.cpu().msrs.misc_enable &= !(1 << 18);
        assert_eq!(undefined(&mut disabled, false, build), 6, "IA32_MISC_ENABLE has taken them away");
    }
    assert_eq!(undefined(&mut Rig::new(), true, tpause), 13, "the HLT behind TPAUSE");
    let model = Model::max_intel();
    let without = |feature| Model::new(model.vendor(), model.features().without(feature));
    assert_eq!(undefined(&mut Rig::with_model(without(Feature::Monitor)), false, monitor), 6);
    assert_eq!(undefined(&mut Rig::with_model(without(Feature::Waitpkg)), false, tpause), 6);
}

#[test]
fn a_users_bus_lock_is_a_debug_trap_where_the_system_asks_for_it() {
    for (offset, level, asked) in [(60, 3, true), (60, 3, false), (60, 0, true), (56, 3, true)] {
        let mut rig = Rig::new();
        rig.gate(1, 0x1_8000, 0xe, 0, 0);
        rig.code_at(0x1_8000, |a| a.hlt().unwrap());
        rig.code(|a| {
            let mut here = a.create_label();
            a.lock().add(qword_ptr(DATA + offset), rcx).unwrap();
            a.set_label(&mut here).unwrap();
            a.jmp(here).unwrap();
        });
        let cpu = rig.cpu();
        cpu.msrs.debugctl = if asked { DebugCtl::BLD.0 } else { 0 };
        cpu.gpr[1] = 1;
        if level == 3 {
            to_user_mode(cpu);
        }
        rig.run(20);
        let trapped = offset == 60 && level == 3 && asked;
        assert_eq!(rig.cpu().activity == Activity::Halted, trapped, "{offset} {level} {asked}");
        assert_eq!(rig.read(DATA + offset), 1, "the store was made");
        let status: u64 = if trapped { 0xffff_07f0 } else { 0xffff_0ff0 };
        assert_eq!(rig.cpu().dr6, status, "bit 11 is active low");
    }
}
