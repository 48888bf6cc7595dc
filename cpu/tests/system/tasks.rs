//! Task switches (SDM Vol. 3A "Task Switching"): what is saved and loaded, busy flags and links, and which task a fault belongs to.

use crate::legacy::*;
use rootmode_arch::{Cr0, RFlags, SegmentName};

const TS: u8 = 10;
const NP: u8 = 11;
const SS: u8 = 12;
const GP: u8 = 13;

const TASK: u64 = CODE + 0x800;
const TASK_STACK: u64 = 0x3_2000;

/// A machine whose task B runs an HLT at [`TASK`].
fn rig() -> Legacy {
    let mut rig = Legacy::new();
    rig.bytes(TASK, &[0xf4]);
    let registers = [TASK, 2, 0x11, 0x22, 0x33, 0x44, TASK_STACK, 0x66, 0x77, 0x88];
    for (n, value) in registers.into_iter().enumerate() {
        rig.put32(TSS_B + 0x20 + n as u64 * 4, value);
    }
    let selectors = [DATA_0, CODE_0, DATA_0, DATA_0, 0, DATA_3, LOCAL];
    for (n, selector) in selectors.into_iter().enumerate() {
        rig.put32(TSS_B + 0x48 + n as u64 * 4, selector.into());
    }
    rig
}

fn kind(rig: &Legacy, selector: u16) -> u64 {
    rig.get(GDT + u64::from(selector) + 4) >> 8 & 0xff
}

#[test]
fn a_jump_saves_the_old_task_and_loads_the_new_one() {
    let mut rig = rig();
    rig.cpu().gpr[..4].copy_from_slice(&[1, 2, 3, 4]);
    rig.cpu().dr7 = 0x455;
    rig.cpu().dr[0] = 0x10;
    assert_eq!(rig.instruction(&far_jmp(TASK_B, 0)), Ok(TASK + 1));
    let cpu = rig.cpu();
    assert_eq!(cpu.gpr[..8], [0x11, 0x22, 0x33, 0x44, TASK_STACK, 0x66, 0x77, 0x88]);
    assert_eq!(cpu.rflags().0, 2);
    assert!(cpu.cr0.contains(Cr0::TS));
    assert_eq!(cpu.dr7, 0x400, "the local breakpoints are gone");
    assert_eq!(rig.selector(SegmentName::Tr), TASK_B);
    assert_eq!(rig.selector(SegmentName::Ldtr), LOCAL);
    assert_eq!(rig.processor.cpu.segment(SegmentName::Ldtr).base, LDT);
    assert_eq!((rig.selector(SegmentName::Fs), rig.selector(SegmentName::Gs)), (0, DATA_3));
    assert_eq!((rig.get(TSS + 0x20), rig.get(TSS + 0x24), rig.get(TSS + 0x28)), (CODE + 7, 2, 1));
    assert_eq!((rig.get(TSS + 0x38), rig.get16(TSS + 0x4c)), (STACK, CODE_0.into()));
    assert_eq!((kind(&rig, TASK_A), kind(&rig, TASK_B)), (0x89, 0x8b), "a jump hands the busy flag over");
    assert_eq!(rig.get16(TSS_B), 0, "and links nothing");
}

#[test]
fn a_call_nests_and_iret_comes_back() {
    for code in [far_call(TASK_B, 0), far_call(TASK_GATE, 0)] {
        let mut rig = rig();
        // IRETD; then HLT for the second visit.
        rig.bytes(TASK, &[0xcf, 0xf4]);
        assert_eq!(rig.instruction(&code), Ok(CODE + 8));
        assert_eq!(rig.get16(TSS_B), TASK_A.into(), "the link");
        assert_eq!((kind(&rig, TASK_A), kind(&rig, TASK_B)), (0x8b, 0x89));
        assert_eq!(rig.get(TSS_B + 0x20), TASK + 1);
        assert_eq!(rig.get(TSS_B + 0x24) & 0x4000, 0, "IRET clears NT in what it saves");
        assert_eq!(rig.selector(SegmentName::Tr), TASK_A);
        assert!(!rig.cpu().rflags().contains(RFlags::NT));
    }
    let mut rig = rig();
    assert_eq!(rig.instruction(&far_call(TASK_B, 0)), Ok(TASK + 1));
    assert!(rig.cpu().rflags().contains(RFlags::NT));
    assert_eq!((kind(&rig, TASK_A), kind(&rig, TASK_B)), (0x8b, 0x8b), "both are busy");
}

#[test]
fn an_interrupt_through_a_task_gate_pushes_the_error_code_on_the_new_stack() {
    let mut rig = rig();
    rig.put(IDT + 13 * 8, gate(TASK_B, 0, 5, 0, 0));
    rig.cpu().gpr[0] = u64::from(OUTSIDE);
    // MOV DS, AX
    assert_eq!(rig.instruction(&[0x8e, 0xd8]), Ok(TASK + 1));
    assert_eq!(rig.cpu().gpr[4], TASK_STACK - 4);
    assert_eq!(rig.get(TASK_STACK - 4), OUTSIDE.into());
    assert_eq!(rig.get(TSS + 0x20), CODE);
    assert_eq!(rig.get(TSS + 0x24), 0x1_0002, "RF in the flags of a fault");
}

#[test]
fn a_16_bit_task_has_no_upper_halves_and_no_fs_and_gs() {
    let mut rig = rig();
    let registers = [0x800_u64, 2, 0x11, 0x22, 0x33, 0x44, 0x2000, 0x66, 0x77, 0x88];
    for (n, value) in registers.into_iter().enumerate() {
        rig.memory.write_u16(rootmode_arch::HostPhysical(TSS_16 + 0x0e + n as u64 * 2), value as u16);
    }
    for (n, selector) in [DATA_0, CODE_16, DATA_16, DATA_0, 0].into_iter().enumerate() {
        rig.memory.write_u16(rootmode_arch::HostPhysical(TSS_16 + 0x22 + n as u64 * 2), selector);
    }
    rig.bytes(0x800, &[0xf4]);
    assert_eq!(rig.instruction(&far_jmp(TASK_16, 0)), Ok(0x801));
    assert_eq!(rig.cpu().gpr[0] & 0xffff, 0x11);
    assert_eq!(rig.cpu().gpr[4] & 0xffff, 0x2000);
    assert_eq!((rig.selector(SegmentName::Fs), rig.selector(SegmentName::Gs)), (0, 0));
}

#[test]
fn defects_of_the_task_are_faults_of_the_old_task() {
    let rows: &[(u16, (u8, u64))] = &[
        (TASK_A, (GP, TASK_A as u64)),
        (ABSENT_TASK, (NP, ABSENT_TASK as u64)),
        (SHORT_TASK, (TS, SHORT_TASK as u64)),
    ];
    for (selector, expected) in rows {
        let mut rig = rig();
        assert_eq!(rig.instruction(&far_jmp(*selector, 0)), Err(*expected), "{selector:#x}");
        assert_eq!(rig.selector(SegmentName::Tr), TASK_A);
        assert_eq!(rig.get(STACK - 12), CODE);
    }
    // The gate's own privilege, from level 3.
    let mut rig = rig();
    rig.level(3);
    assert_eq!(rig.instruction(&far_jmp(TASK_B, 0)), Err((GP, TASK_B.into())));
}

#[test]
fn defects_of_the_new_state_are_faults_of_the_new_task() {
    // What is put where in the TSS, and the fault.
    let rows: &[(&str, u64, u16, (u8, u64))] = &[
        ("a null CS", 0x4c, 0, (TS, 0)),
        ("CS outside", 0x4c, OUTSIDE, (TS, OUTSIDE as u64)),
        ("CS is data", 0x4c, DATA_0, (TS, DATA_0 as u64)),
        ("CS's DPL is not its RPL", 0x4c, CODE_0 | 3, (TS, CODE_0 as u64)),
        ("absent code", 0x4c, ABSENT_CODE, (NP, ABSENT_CODE as u64)),
        ("a null SS", 0x50, 0, (TS, 0)),
        ("SS of another level", 0x50, DATA_3, (TS, (DATA_3 & !3) as u64)),
        ("a read-only SS", 0x50, READ_ONLY, (TS, READ_ONLY as u64)),
        ("an absent SS", 0x50, ABSENT_DATA, (SS, ABSENT_DATA as u64)),
        ("DS is execute-only", 0x54, EXECUTE_ONLY, (TS, EXECUTE_ONLY as u64)),
        ("DS is a system descriptor", 0x54, TASK_16, (TS, TASK_16 as u64)),
        ("an absent DS", 0x54, ABSENT_DATA, (NP, ABSENT_DATA as u64)),
        ("ES outside", 0x48, OUTSIDE, (TS, OUTSIDE as u64)),
        ("the LDT is no LDT", 0x60, DATA_0, (TS, DATA_0 as u64)),
        ("the LDT is in the LDT", 0x60, 0x0c, (TS, 0x0c)),
    ];
    for (name, offset, selector, expected) in rows {
        let mut rig = rig();
        rig.put32(TSS_B + offset, (*selector).into());
        // A handler in a task of its own, because the new task's stack may be what is wrong.
        let tss = 0x8000;
        rig.put(GDT + 0xb0, descriptor(tss, 0x67, 0x0089));
        rig.put(IDT + u64::from(expected.0) * 8, gate(0xb0, 0, 5, 0, 0));
        rig.put32(tss + 0x20, HANDLERS + 16 * u64::from(expected.0));
        rig.put32(tss + 0x38, 0x3_0000);
        rig.put32(tss + 0x4c, CODE_0.into());
        rig.put32(tss + 0x50, DATA_0.into());
        assert_eq!(rig.instruction(&far_jmp(TASK_B, 0)), Err(*expected), "{name}");
        assert_eq!(rig.get16(tss), TASK_B.into(), "{name}: it is the new task that was interrupted");
        assert_eq!(rig.get(TSS_B + 0x20), TASK, "{name}: at its first instruction");
    }
}

#[test]
fn iret_with_nt_demands_a_busy_task_in_the_link() {
    for (link, expected) in [
        (0, (TS, 0)),
        (0x34, (TS, 0x34)),
        (OUTSIDE, (TS, OUTSIDE.into())),
        (TASK_B, (TS, TASK_B.into())),
        (CODE_0, (TS, CODE_0.into())),
    ] {
        let mut rig = rig();
        rig.put32(TSS, link.into());
        rig.cpu().set_rflags(RFlags::NT);
        assert_eq!(rig.instruction(&[0xcf]), Err(expected), "{link:#x}");
    }
}

#[test]
fn the_debug_flag_of_a_tss_traps_before_the_first_instruction() {
    let mut rig = rig();
    rig.put32(TSS_B + 0x64, 1);
    assert_eq!(rig.instruction(&far_jmp(TASK_B, 0)), Err((1, TASK)));
    assert_eq!(rig.cpu().dr6, 0xffff_8ff0, "BT");
}
