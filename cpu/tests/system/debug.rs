//! Debug registers, single step, alignment checks (SDM Vol. 3B "Debug, Branch Profile, TSC, and Intel Resource Director
//! Technology Features", sections on debug exceptions; SDM Vol. 3A "Alignment Checking").

use crate::legacy::*;
use rootmode_arch::{Cr0, Cr4, RFlags};
use rootmode_cpu::Model;

const DB: u8 = 1;
/// DR6 at reset.
const DR6: u64 = 0xffff_0ff0;

/// DR7 with breakpoint `n` enabled globally for `condition` (0 execute, 1 write, 2 port, 3 any data) and `length` field.
const fn enable(n: u64, condition: u64, length: u64) -> u64 {
    0x400 | 2 << (2 * n) | condition << (16 + 4 * n) | length << (18 + 4 * n)
}

fn rig(dr7: u64, addresses: [u64; 4]) -> Legacy {
    let mut rig = Legacy::new();
    rig.cpu().dr = addresses;
    rig.cpu().dr7 = dr7;
    rig.cpu().refresh();
    rig
}

#[test]
fn an_instruction_breakpoint_is_a_fault_without_rf() {
    let mut rig = rig(enable(0, 0, 0), [CODE + 1, 0, 0, 0]);
    // NOP; INC EAX.
    assert_eq!(rig.instruction(&[0x90, 0x40]), Err((DB, CODE + 1)));
    assert_eq!((rig.cpu().dr6, rig.cpu().gpr[0]), (DR6 | 1, 0));
    assert_eq!(rig.get(STACK - 4), 2);
    // With RF it is skipped once; the instruction clears RF.
    let mut rig = self::rig(enable(0, 0, 0), [CODE, 0, 0, 0]);
    rig.cpu().set_rflags(RFlags::RF);
    // INC EAX; CMP EAX, 2; JNZ CODE: the second time it hits.
    assert_eq!(rig.instruction(&[0x40, 0x83, 0xf8, 0x02, 0x75, 0xfa]), Err((DB, CODE)));
    assert_eq!(rig.cpu().gpr[0], 1);
}

#[test]
fn data_breakpoints_match_their_bytes_and_kind_and_trap_behind() {
    // MOV [EBX], EAX and MOV EAX, [EBX] of 4 bytes at DATA + 4.
    let (store, load): (&[u8], &[u8]) = (&[0x89, 0x03], &[0x8b, 0x03]);
    let rows: &[(u64, u64, u64, &[u8], bool)] = &[
        // Condition, length field, address, access, hit.
        (1, 0, DATA + 4, store, true),
        (1, 0, DATA + 4, load, false),
        (3, 0, DATA + 7, load, true),
        (3, 0, DATA + 8, load, false),
        (3, 0, DATA + 3, load, false),
        (1, 1, DATA + 7, store, true),
        (1, 1, DATA + 8, store, false),
        (1, 3, DATA, store, false),
        (1, 3, DATA + 7, store, true),
        (1, 2, DATA, store, true),
        (1, 2, DATA + 15, store, false),
        (3, 2, DATA + 3, load, true),
        (0, 0, DATA + 4, load, false),
    ];
    for (condition, length, address, code, hit) in rows {
        let mut rig = rig(enable(2, *condition, *length), [0, 0, *address, 0]);
        rig.cpu().gpr[3] = DATA + 4;
        let outcome = rig.instruction(code);
        let expected = if *hit { Err((DB, CODE + 2)) } else { Ok(CODE + 3) };
        assert_eq!(outcome, expected, "condition {condition}, length {length}, {address:#x}, {code:02x?}");
        assert_eq!(rig.cpu().dr6, if *hit { DR6 | 4 } else { DR6 });
    }
}

#[test]
fn disabled_breakpoints_that_match_show_beside_an_enabled_one() {
    // 0 enabled, 1 the same but disabled, 3 elsewhere.
    let dr7 = enable(0, 1, 0) | 1 << 20 | enable(3, 1, 0);
    let mut rig = rig(dr7, [DATA, DATA, 0, DATA + 8]);
    rig.cpu().gpr[3] = DATA;
    assert_eq!(rig.instruction(&[0x88, 0x03]), Err((DB, CODE + 2)));
    assert_eq!(rig.cpu().dr6, DR6 | 3);
    let mut rig = self::rig(0x400 | 1 << 20, [0, DATA, 0, 0]);
    rig.cpu().gpr[3] = DATA;
    assert_eq!(rig.instruction(&[0x88, 0x03]), Ok(CODE + 3));
}

#[test]
fn port_breakpoints_need_cr4_de() {
    for (de, expected) in [(false, Ok(CODE + 3)), (true, Err((DB, CODE + 2)))] {
        let mut rig = rig(enable(1, 2, 1), [0, 0x81, 0, 0]);
        rig.cpu().cr4 = if de { Cr4::DE } else { Cr4(0) };
        // OUT 0x80, AL: port 0x81 of length 2 covers 0x80 and 0x81.
        assert_eq!(rig.instruction(&[0xe6, 0x80]), expected);
    }
}

#[test]
fn a_faulting_instruction_forgets_its_data_breakpoints() {
    let mut rig = rig(enable(0, 3, 0), [DATA, 0, 0, 0]);
    (rig.cpu().gpr[3], rig.cpu().gpr[0]) = (DATA, 1);
    // DIV DWORD [EBX] by 0: the operand was read.
    assert_eq!(rig.instruction(&[0xf7, 0x33]), Err((0, CODE)));
    assert_eq!(rig.cpu().dr6, DR6);
}

#[test]
fn single_step_traps_behind_every_instruction_but_the_one_after_mov_ss() {
    // PUSH 0x102; POPF; NOP; the trap comes behind NOP, not behind POPF.
    let mut rig = Legacy::new();
    assert_eq!(rig.instruction(&[0x68, 0x02, 0x01, 0, 0, 0x9d, 0x90]), Err((DB, CODE + 7)));
    assert_eq!(rig.cpu().dr6, DR6 | 0x4000);
    assert_eq!(rig.get(STACK - 4), 0x102, "TF is in the image, RF is not");

    let mut rig = Legacy::new();
    rig.cpu().gpr[0] = u64::from(DATA_0);
    rig.cpu().set_rflags(RFlags::TF);
    // MOV SS, AX; NOP.
    assert_eq!(rig.instruction(&[0x8e, 0xd0, 0x90]), Err((DB, CODE + 3)));
    assert_eq!(rig.cpu().dr6, DR6 | 0x4000);
    // An instruction breakpoint behind MOV SS is lost on Intel's parts.
    for (model, expected) in [(Model::max_intel(), Ok(CODE + 4)), (Model::max_amd(), Err((DB, CODE + 2)))] {
        let mut rig = Legacy::with_model(model);
        rig.cpu().dr[0] = CODE + 2;
        rig.cpu().dr7 = enable(0, 0, 0);
        rig.cpu().refresh();
        rig.cpu().gpr[0] = u64::from(DATA_0);
        assert_eq!(rig.instruction(&[0x8e, 0xd0, 0x90]), expected);
    }
    // A data breakpoint of MOV SS, [EBX] waits for one instruction.
    let mut rig = self::rig(enable(0, 3, 3), [DATA, 0, 0, 0]);
    rig.put32(DATA, DATA_0.into());
    rig.cpu().gpr[3] = DATA;
    assert_eq!(rig.instruction(&[0x8e, 0x13, 0x90]), Err((DB, CODE + 3)));
    assert_eq!(rig.cpu().dr6, DR6 | 1);
}

#[test]
fn int_n_under_single_step_does_not_trap_in_the_handler() {
    let mut rig = Legacy::new();
    rig.cpu().set_rflags(RFlags::TF);
    assert_eq!(rig.instruction(&[0xcd, 0x41]), Err((0x41, CODE + 2)));
    // IRET that loads TF: the instruction behind traps.
    let mut rig = Legacy::new();
    for (n, value) in [CODE + 0x40, CODE_0.into(), 0x102].into_iter().enumerate() {
        rig.put32(STACK + n as u64 * 4, value);
    }
    rig.bytes(CODE + 0x40, &[0x90, 0x90, 0xf4]);
    assert_eq!(rig.instruction(&[0xcf]), Err((DB, CODE + 0x41)));
}

#[test]
fn a_branch_trap_waits_for_a_taken_branch() {
    let mut rig = Legacy::new();
    rig.cpu().msrs.debugctl = 2;
    rig.cpu().set_rflags(RFlags::TF);
    // NOP; JNZ taken.
    assert_eq!(rig.instruction(&[0x90, 0x75, 0x01, 0x90]), Err((DB, CODE + 4)));
    assert_eq!((rig.cpu().dr6, rig.cpu().msrs.debugctl), (DR6 | 0x4000, 0), "#DB clears BTF");
}

#[test]
fn general_detect_faults_before_the_access_and_clears_itself() {
    let mut rig = rig(0x2400, [0; 4]);
    // MOV EAX, DR7
    assert_eq!(rig.instruction(&[0x0f, 0x21, 0xf8]), Err((DB, CODE)));
    assert_eq!((rig.cpu().dr6, rig.cpu().dr7), (DR6 | 0x2000, 0x400));
    assert_eq!(rig.get(STACK - 4), 0x1_0002, "a fault asks for RF");
}

#[test]
fn an_event_in_the_shadow_of_mov_ss_drops_its_single_step_trap() {
    let mut rig = Legacy::new();
    rig.cpu().gpr[0] = u64::from(DATA_0);
    rig.cpu().set_rflags(RFlags::TF);
    // MOV SS, AX; INT1: one #DB, which is INT1's.
    assert_eq!(rig.instruction(&[0x8e, 0xd0, 0xf1]), Err((DB, CODE + 3)));
    assert_eq!((rig.cpu().dr6, rig.cpu().gpr[4]), (DR6, STACK - 12));
}

#[test]
fn int1_takes_along_the_data_breakpoint_that_mov_ss_holds_back_and_int_n_does_not() {
    let run = |code: &[u8]| {
        let mut rig = rig(enable(1, 3, 3), [0, DATA, 0, 0]);
        rig.put32(DATA, DATA_0.into());
        rig.cpu().gpr[3] = DATA;
        let outcome = rig.instruction(code);
        (outcome, rig.cpu().dr6, rig.cpu().gpr[4])
    };
    // MOV SS, [EBX]; INT1: one frame.
    assert_eq!(run(&[0x8e, 0x13, 0xf1]), (Err((DB, CODE + 3)), DR6 | 2, STACK - 12));
    // MOV SS, [EBX]; INT 1: the breakpoint's frame lies above that of INT, whose handler has not begun.
    assert_eq!(run(&[0x8e, 0x13, 0xcd, 0x01]).1, DR6 | 2);
    assert_eq!(run(&[0x8e, 0x13, 0xcd, 0x01]).2, STACK - 24);
}

#[test]
fn int1_leaves_dr6_alone() {
    let mut rig = Legacy::new();
    rig.cpu().dr6 = DR6 | 0x4001;
    assert_eq!(rig.instruction(&[0xf1]), Err((DB, CODE + 1)));
    assert_eq!(rig.cpu().dr6, DR6 | 0x4001);
}

#[test]
fn debug_registers_4_and_5_are_aliases_unless_cr4_de() {
    for (de, expected) in [(false, Ok(CODE + 4)), (true, Err((6, CODE)))] {
        let mut rig = Legacy::new();
        rig.cpu().cr4 = if de { Cr4::DE } else { Cr4(0) };
        // MOV EAX, DR4
        assert_eq!(rig.instruction(&[0x0f, 0x21, 0xe0]), expected);
        assert_eq!(rig.cpu().gpr[0], if de { 0 } else { DR6 });
    }
}

#[test]
fn unaligned_accesses_of_level_3_fault_with_am_and_ac() {
    // MOV EAX, [EBX]; MOV AX, [EBX]; MOV AL, [EBX].
    let (dword, word, byte): (&[u8], &[u8], &[u8]) = (&[0x8b, 0x03], &[0x66, 0x8b, 0x03], &[0x8a, 0x03]);
    let rows: &[(u8, bool, bool, &[u8], u64, bool)] = &[
        (3, true, true, dword, DATA + 2, true),
        (3, true, true, dword, DATA + 4, false),
        (3, true, true, word, DATA + 1, true),
        (3, true, true, word, DATA + 2, false),
        (3, true, true, byte, DATA + 1, false),
        (3, false, true, dword, DATA + 2, false),
        (3, true, false, dword, DATA + 2, false),
        (0, true, true, dword, DATA + 2, false),
    ];
    for (cpl, am, ac, code, address, faults) in rows {
        let mut rig = Legacy::new();
        rig.level(*cpl);
        if *am {
            rig.cpu().cr0 = rig.cpu().cr0.with(Cr0::AM);
        }
        rig.cpu().set_rflags(if *ac { RFlags::AC } else { RFlags(0) });
        rig.cpu().gpr[3] = *address;
        rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
        let mut program = code.to_vec();
        program.extend([0xcd, 0x80]);
        rig.bytes(CODE, &program);
        let outcome = rig.outcome().unwrap_err();
        let expected = if *faults { (17, 0) } else { (0x80, CODE + program.len() as u64) };
        assert_eq!(outcome, expected, "CPL {cpl}, AM {am}, AC {ac}, {code:02x?} at {address:#x}");
    }
}
