//! Far transfers and call gates (SDM Vol. 2A "CALL—Call Procedure", "JMP—Jump"; SDM Vol. 2B "RET—Return From Procedure").

use crate::legacy::*;
use rootmode_arch::SegmentName;

const TS: u8 = 10;
const NP: u8 = 11;
const SS: u8 = 12;
const GP: u8 = 13;

const TARGET: u64 = CODE + 0x400;

fn rig() -> Legacy {
    let mut rig = Legacy::new();
    rig.bytes(TARGET, &[0xf4]);
    rig
}

#[test]
fn direct_far_jumps_check_type_level_and_limit() {
    let rows: &[(u16, u64, Result<u64, (u8, u64)>)] = &[
        (CODE_0, TARGET, Ok(TARGET + 1)),
        (CONFORMING | 3, TARGET, Ok(TARGET + 1)),
        (CODE_0 | 3, TARGET, Err((GP, CODE_0 as u64))),
        (CODE_3, TARGET, Err((GP, (CODE_3 & !3) as u64))),
        (0, TARGET, Err((GP, 0))),
        (DATA_0, TARGET, Err((GP, DATA_0 as u64))),
        (OUTSIDE, TARGET, Err((GP, OUTSIDE as u64))),
        (ABSENT_CODE, TARGET, Err((NP, ABSENT_CODE as u64))),
        (CODE_16, 0x1_0000, Err((GP, 0))),
        (LOCAL, TARGET, Err((GP, LOCAL as u64))),
        (CALL_GATE, 0, Ok(TARGET + 1)),
    ];
    for (selector, offset, expected) in rows {
        assert_eq!(rig().instruction(&far_jmp(*selector, *offset)), *expected, "JMP {selector:#x}");
        assert_eq!(rig().instruction(&far_call(*selector, *offset)), *expected, "CALL {selector:#x}");
    }
}

#[test]
fn a_far_call_pushes_cs_and_the_return_address_and_retf_takes_them() {
    let mut rig = rig();
    // RETF 8 at the target.
    rig.bytes(TARGET, &[0xca, 0x08, 0x00]);
    assert_eq!(rig.instruction(&far_call(CODE_0, TARGET)), Ok(CODE + 8));
    assert_eq!((rig.get(STACK - 4), rig.get(STACK - 8)), (CODE_0.into(), CODE + 7));
    assert_eq!(rig.cpu().gpr[4], STACK + 8);
}

#[test]
fn a_call_through_a_gate_inward_copies_parameters_and_the_return_drops_them_from_both_stacks() {
    let mut rig = rig();
    rig.level(3);
    rig.put32(USER_STACK, 0x1111);
    rig.put32(USER_STACK + 4, 0x2222);
    rig.bytes(TARGET, &[0xca, 0x08, 0x00]);
    rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
    let mut code = far_call(CALL_GATE | 3, 0xdead_beef);
    code.extend([0xcd, 0x80]);
    rig.bytes(CODE, &code);
    assert_eq!(rig.outcome(), Err((0x80, CODE + 9)));
    let frame: Vec<u64> = (1..=6).map(|n| rig.get(STACK_0 - n * 4)).collect();
    // INT 0x80 has overwritten the five upper slots with its own frame; SS and ESP are the same but for the parameters.
    assert_eq!(frame[0], DATA_3.into());
    assert_eq!(frame[1], USER_STACK + 8, "the outer stack pointer is past the parameters");
    assert_eq!(rig.get(STACK_0 - 24), CODE + 7, "the return address of the call");
}

#[test]
fn the_inner_stack_holds_ss_esp_parameters_cs_and_eip() {
    let mut rig = rig();
    rig.level(3);
    rig.put32(USER_STACK, 0x1111);
    rig.put32(USER_STACK + 4, 0x2222);
    assert_eq!(rig.instruction(&far_call(CALL_GATE, 0)), Ok(TARGET + 1));
    assert_eq!(rig.cpu().gpr[4], STACK_0 - 24);
    let frame: Vec<u64> = (0..6).map(|n| rig.get(STACK_0 - 24 + n * 4)).collect();
    assert_eq!(frame, [CODE + 7, CODE_3.into(), 0x1111, 0x2222, USER_STACK, DATA_3.into()]);
    assert_eq!(
        (rig.cpu().cpl, rig.selector(SegmentName::Cs), rig.selector(SegmentName::Ss)),
        (0, CODE_0, DATA_0)
    );

    let mut rig = self::rig();
    rig.level(3);
    rig.put(GDT + u64::from(CALL_GATE_16), gate(CODE_0, TARGET & 0xffff, 4, 3, 0));
    rig.bytes(TARGET & 0xffff, &[0xf4]);
    assert_eq!(rig.instruction(&far_call(CALL_GATE_16, 0)), Ok((TARGET & 0xffff) + 1));
    assert_eq!(rig.cpu().gpr[4], STACK_0 - 8);
    assert_eq!(rig.get16(STACK_0 - 8), (CODE + 7) & 0xffff);
}

#[test]
fn every_defect_of_a_call_gate_has_its_vector_and_error_code() {
    type Prepare = fn(&mut Legacy);
    let at = GDT + u64::from(CALL_GATE);
    let code = u64::from(CALL_GATE);
    let absent = gate(CODE_0, TARGET, 0xc, 3, 0) & !(1 << 47);
    let rows: &[(&str, u64, u16, Prepare, (u8, u64))] = &[
        ("DPL below CPL", gate(CODE_0, TARGET, 0xc, 0, 0), 0, |_| {}, (GP, code)),
        ("DPL below RPL", gate(CODE_0, TARGET, 0xc, 2, 0), 3, |_| {}, (GP, code)),
        ("absent", absent, 0, |_| {}, (NP, code)),
        ("a null code selector", gate(0, TARGET, 0xc, 3, 0), 0, |_| {}, (GP, 0)),
        ("a data segment", gate(DATA_0, TARGET, 0xc, 3, 0), 0, |_| {}, (GP, DATA_0 as u64)),
        ("outside", gate(OUTSIDE, TARGET, 0xc, 3, 0), 0, |_| {}, (GP, OUTSIDE as u64)),
        ("absent code", gate(ABSENT_CODE, TARGET, 0xc, 3, 0), 0, |_| {}, (NP, ABSENT_CODE as u64)),
        ("beyond the limit", gate(CODE_16, 0x1_0000, 0xc, 3, 0), 0, |_| {}, (GP, 0)),
        (
            "no inner stack in the TSS",
            gate(CODE_0, TARGET, 0xc, 3, 0),
            0,
            |rig| rig.cpu().segment_mut(SegmentName::Tr).limit = 8,
            (TS, TASK_A as u64),
        ),
        ("a null stack", gate(CODE_0, TARGET, 0xc, 3, 0), 0, |rig| rig.put32(TSS + 8, 0), (TS, 0)),
        (
            "an absent stack",
            gate(CODE_0, TARGET, 0xc, 3, 0),
            0,
            |rig| rig.put32(TSS + 8, ABSENT_DATA.into()),
            (SS, ABSENT_DATA as u64),
        ),
    ];
    for (name, descriptor, rpl, prepare, expected) in rows {
        let mut rig = rig();
        rig.level(3);
        rig.put(at, *descriptor);
        // Faults are handled at level 3 as well, where nothing depends on the TSS.
        for vector in [TS, NP, SS, GP] {
            let handler = HANDLERS + 16 * u64::from(vector);
            rig.put(IDT + u64::from(vector) * 8, gate(CONFORMING, handler, 0xe, 0, 0));
            rig.bytes(handler, &[0xeb, 0xfe]);
        }
        prepare(&mut rig);
        rig.bytes(CODE, &far_call(CALL_GATE | rpl, 0));
        rig.run(20);
        let cpu = rig.cpu();
        let (vector, top) = ((cpu.rip - HANDLERS) / 16, cpu.gpr[4]);
        assert_eq!((vector as u8, rig.get(top)), *expected, "{name}");
        assert_eq!((top, rig.get(top + 4)), (USER_STACK - 16, CODE), "{name}: nothing was committed");
    }
}

#[test]
fn a_jump_through_a_gate_does_not_change_the_level() {
    let mut rig = rig();
    rig.level(3);
    assert_eq!(rig.instruction(&far_jmp(CALL_GATE, 0)), Err((GP, CODE_0.into())));
}

#[test]
fn retf_checks_the_outer_segments_in_order() {
    let row = |cs: u16, ss: u16| {
        let mut rig = rig();
        for (n, value) in [CODE + 0x40, cs.into(), USER_STACK, ss.into()].into_iter().enumerate() {
            rig.put32(STACK + n as u64 * 4, value);
        }
        rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
        rig.bytes(CODE + 0x40, &[0xcd, 0x80]);
        rig.instruction(&[0xcb])
    };
    assert_eq!(row(CODE_3, DATA_3), Err((0x80, CODE + 0x42)));
    assert_eq!(row(0, DATA_3), Err((GP, 0)));
    assert_eq!(row(CODE_0 | 3, DATA_3), Err((GP, CODE_0.into())));
    assert_eq!(row(ABSENT_CODE, DATA_3), Err((NP, ABSENT_CODE.into())));
    assert_eq!(row(CODE_3, DATA_0), Err((GP, DATA_0.into())));
    assert_eq!(row(CODE_3, 0), Err((GP, 0)));
}
