//! Exceptions and interrupts through the 64-bit IDT: frames, stacks, double and triple faults, shadows, single step.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod support;

use iced_x86::code_asm::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{RFlags, vector};
use rootmode_cpu::{Activity, Message, RunEnd};
use support::*;

const HANDLER: u64 = 0x1_8000;

fn rig_with_handler(v: u8) -> Rig {
    let mut rig = Rig::new();
    rig.gate(v, HANDLER, 0xe, 0, 0);
    rig.code_at(HANDLER, |a| a.hlt().unwrap());
    rig
}

#[test]
fn a_loop_counts_and_halts() {
    let mut rig = Rig::new();
    rig.code(|a| {
        let mut top = a.create_label();
        a.xor(eax, eax).unwrap();
        a.mov(ecx, 10).unwrap();
        a.set_label(&mut top).unwrap();
        a.add(eax, ecx).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(top).unwrap();
        a.hlt().unwrap();
    });
    assert_eq!(rig.run(1000), RunEnd::Asleep);
    assert_eq!(rig.cpu().gpr[0], 55);
    assert_eq!(rig.cpu().tick, 2 + 3 * 10 + 1);
}

#[test]
fn a_page_fault_pushes_its_frame_and_sets_cr2() {
    let mut rig = rig_with_handler(vector::PF);
    rig.code(|a| {
        a.mov(rbx, 0x7000_0000_1234_u64).unwrap();
        a.mov(qword_ptr(rbx), rax).unwrap();
    });
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.cpu().cr2, 0x7000_0000_1234);
    let frame = rig.cpu().gpr[4];
    assert_eq!(frame, STACK - 48);
    assert_eq!(rig.read(frame), 2, "error code: write, not present");
    assert_eq!(rig.read(frame + 8), CODE + 10, "the faulting instruction");
    assert_eq!(rig.read(frame + 16), KERNEL_CS);
    assert_eq!(rig.read(frame + 24), 0x1_0002, "RF is set in the image of a fault");
    assert_eq!(rig.read(frame + 32), STACK);
    assert_eq!(rig.cpu().tick, 3, "mov, delivery, hlt");
}

#[test]
fn missing_handlers_escalate_to_a_double_and_a_triple_fault() {
    let mut rig = rig_with_handler(vector::DF);
    rig.code(|a| a.ud2().unwrap());
    // #UD is benign, so #NP of its empty gate is delivered serially, and *its* empty gate makes the double fault.
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.read(rig.processor.cpu.gpr[4]), 0);

    let mut rig = Rig::new();
    rig.code(|a| a.ud2().unwrap());
    assert_eq!(rig.run(100), RunEnd::Stop(Stop::TripleFault));
}

#[test]
fn sti_delays_an_interrupt_by_one_instruction() {
    let mut rig = rig_with_handler(0x40);
    rig.code(|a| {
        a.sti().unwrap();
        a.inc(rax).unwrap();
        a.inc(rax).unwrap();
    });
    rig.cpu().post(Message::Interrupt(0x40));
    rig.cpu().refresh();
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.cpu().gpr[0], 1);
    assert!(!rig.cpu().rflags().contains(RFlags::IF), "an interrupt gate clears IF");
}

#[test]
fn the_highest_vector_above_the_task_priority_goes_first() {
    let mut rig = rig_with_handler(0x51);
    rig.cpu().set_cr8(4);
    for v in [0x42, 0x51, 0x50] {
        rig.cpu().post(Message::Interrupt(v));
    }
    rig.cpu().set_rflags(RFlags::IF);
    rig.code(|a| a.nop().unwrap());
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.cpu().gpr[4], STACK - 40);
    assert_eq!(rig.cpu().apic.highest_requested(), Some(0x50));
}

#[test]
fn an_interrupt_wakes_hlt_and_iretq_returns_behind_it() {
    let mut rig = Rig::new();
    rig.gate(0x33, HANDLER, 0xe, 0, 0);
    rig.code_at(HANDLER, |a| {
        a.mov(ebx, 7).unwrap();
        a.iretq().unwrap();
    });
    rig.code(|a| {
        a.sti().unwrap();
        a.hlt().unwrap();
        a.mov(ecx, 9).unwrap();
        a.cli().unwrap();
        a.hlt().unwrap();
    });
    assert_eq!(rig.run(100), RunEnd::Asleep);
    rig.cpu().post(Message::Interrupt(0x33));
    rig.cpu().refresh();
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!((rig.cpu().gpr[3], rig.cpu().gpr[1]), (7, 9));
    assert_eq!(rig.cpu().gpr[4], STACK);
}

#[test]
fn the_trap_flag_stops_after_one_instruction() {
    let mut rig = rig_with_handler(vector::DB);
    rig.code(|a| {
        a.pushfq().unwrap();
        a.or(qword_ptr(rsp), 0x100).unwrap();
        a.popfq().unwrap();
        a.inc(rax).unwrap();
        a.inc(rax).unwrap();
    });
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.cpu().gpr[0], 1);
    assert_eq!(rig.cpu().dr6 & 0x4000, 0x4000);
}

#[test]
fn int_n_from_user_mode_switches_stacks_and_checks_the_gate() {
    let mut rig = Rig::new();
    rig.gate(0x80, HANDLER, 0xf, 3, 0);
    rig.gate(vector::GP, HANDLER, 0xe, 0, 1);
    rig.memory.write_u64(rootmode_arch::HostPhysical(TSS + 0x24), 0x3_e000);
    rig.code_at(HANDLER, |a| a.hlt().unwrap());
    rig.code(|a| {
        a.push(USER_SS as i32).unwrap();
        a.push(0x3_0000).unwrap();
        a.push(0x202).unwrap();
        a.push(USER_CS as i32).unwrap();
        a.push(0x1_4000).unwrap();
        a.iretq().unwrap();
    });
    rig.code_at(0x1_4000, |a| a.int(0x80).unwrap());
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.cpu().cpl, 0);
    assert_eq!(rig.cpu().gpr[4], 0x3_c000 - 40);
    assert_eq!(rig.read(0x3_c000 - 8), USER_SS);
    assert_eq!(rig.read(0x3_c000 - 40), 0x1_4002, "the return address is behind INT n");
    assert!(rig.cpu().rflags().contains(RFlags::IF), "a trap gate leaves IF");

    // Without DPL 3 the same INT n is #GP(vector * 8 + 2), on IST 1.
    rig.gate(0x80, HANDLER, 0xf, 0, 0);

    rig.cpu().activity = Activity::Active;
    rig.cpu().enter_long_mode(CR3, CODE, STACK);
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.cpu().gpr[4], 0x3_e000 - 48);
    assert_eq!(rig.read(0x3_e000 - 48), 0x80 * 8 + 2);
    assert_eq!(rig.read(0x3_e000 - 40), 0x1_4000);
}

#[test]
fn self_modifying_code_takes_effect_at_the_next_instruction() {
    let mut rig = Rig::new();
    rig.code(|a| {
        let mut patched = a.create_label();
        a.lea(rdi, qword_ptr(patched)).unwrap();
        a.mov(byte_ptr(rdi + 1), 42).unwrap();
        a.set_label(&mut patched).unwrap();
        a.mov(al, 1).unwrap();
        a.hlt().unwrap();
    });
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.cpu().gpr[0], 42);
}
