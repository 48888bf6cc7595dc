//! Delivery through the IDT of protected mode: frames, and the error code of every defect of gate, code segment and stack
//! (SDM Vol. 2A "INT n/INTO/INT3/INT1—Call to Interrupt Procedure", SDM Vol. 3A "Error Code").

use crate::legacy::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{AccessRights, RFlags, SegmentName};
use rootmode_cpu::{Message, RunEnd};

const TS: u8 = 10;
const NP: u8 = 11;
const SS: u8 = 12;
const GP: u8 = 13;

const INT_40: &[u8] = &[0xcd, 0x40];

/// One defect: the gate of vector 0x40, a change of the machine, and what INT 0x40 and an external interrupt raise.
struct Defect {
    name: &'static str,
    gate: u64,
    cpl: u8,
    prepare: fn(&mut Legacy),
    /// For INT n; an external interrupt has bit 0 (EXT) set as well.
    expected: (u8, u64),
    /// INT n alone is refused.
    software_only: bool,
}

const fn defect(name: &'static str, gate: u64, cpl: u8, expected: (u8, u64)) -> Defect {
    Defect { name, gate, cpl, prepare: |_| {}, expected, software_only: false }
}

const IDT_40: u64 = 0x40 * 8 + 2;
const HANDLER: u64 = HANDLERS + 0x400;

#[test]
fn every_defect_of_a_gate_has_its_vector_and_error_code() {
    let absent = !(1_u64 << 47);
    let good = gate(CODE_0, HANDLER, 0xe, 3, 0);
    let defects = [
        defect("an empty gate", 0, 0, (GP, IDT_40)),
        defect("a call gate", gate(CODE_0, HANDLER, 0xc, 3, 0), 0, (GP, IDT_40)),
        defect("an absent gate", good & absent, 0, (NP, IDT_40)),
        Defect {
            software_only: true,
            ..defect("DPL below CPL", gate(CODE_0, HANDLER, 0xe, 0, 0), 3, (GP, IDT_40))
        },
        Defect {
            software_only: true,
            ..defect("DPL before presence", gate(CODE_0, HANDLER, 0xe, 0, 0) & absent, 3, (GP, IDT_40))
        },
        defect("a null code selector", gate(3, HANDLER, 0xe, 3, 0), 0, (GP, 0)),
        defect("a selector outside", gate(OUTSIDE | 3, HANDLER, 0xe, 3, 0), 0, (GP, OUTSIDE as u64)),
        defect("a local selector without LDT", gate(0x0c, HANDLER, 0xe, 3, 0), 0, (GP, 0x0c)),
        defect("a data segment", gate(DATA_0, HANDLER, 0xe, 3, 0), 0, (GP, DATA_0 as u64)),
        defect("code of an outer level", gate(CODE_3, HANDLER, 0xe, 3, 0), 0, (GP, (CODE_3 & !3) as u64)),
        defect("absent code", gate(ABSENT_CODE, HANDLER, 0xe, 3, 0), 0, (NP, ABSENT_CODE as u64)),
        defect("an offset beyond the limit", gate(CODE_16, 0x1_0000, 0xe, 3, 0), 0, (GP, 0)),
        defect("a task gate to the LDT", gate(0x34, 0, 5, 3, 0), 0, (GP, 0x34)),
        defect("a task gate to the busy task", gate(TASK_A, 0, 5, 3, 0), 0, (GP, TASK_A as u64)),
        defect("a task gate to code", gate(CODE_0, 0, 5, 3, 0), 0, (GP, CODE_0 as u64)),
        defect("a task gate to an absent task", gate(ABSENT_TASK, 0, 5, 3, 0), 0, (NP, ABSENT_TASK as u64)),
        defect("a task gate to a short TSS", gate(SHORT_TASK, 0, 5, 3, 0), 0, (TS, SHORT_TASK as u64)),
        Defect { prepare: |rig| rig.put32(TSS + 8, 0), ..defect("a null inner stack", good, 3, (TS, 0)) },
        Defect {
            prepare: |rig| rig.put32(TSS + 8, DATA_3.into()),
            ..defect("an inner stack of level 3", good, 3, (TS, (DATA_3 & !3) as u64))
        },
        Defect {
            prepare: |rig| rig.put32(TSS + 8, u64::from(DATA_0) | 1),
            ..defect("an inner stack with the wrong RPL", good, 3, (TS, DATA_0 as u64))
        },
        Defect {
            prepare: |rig| rig.put32(TSS + 8, OUTSIDE.into()),
            ..defect("an inner stack outside", good, 3, (TS, OUTSIDE as u64))
        },
        Defect {
            prepare: |rig| rig.put32(TSS + 8, READ_ONLY.into()),
            ..defect("a read-only inner stack", good, 3, (TS, READ_ONLY as u64))
        },
        Defect {
            prepare: |rig| rig.put32(TSS + 8, ABSENT_DATA.into()),
            ..defect("an absent inner stack", good, 3, (SS, ABSENT_DATA as u64))
        },
        Defect {
            prepare: |rig| {
                rig.put32(TSS + 4, 0x1_0004);
                rig.put32(TSS + 8, EXPAND_DOWN.into());
            },
            ..defect("an inner stack without room", good, 3, (SS, EXPAND_DOWN as u64))
        },
    ];
    for defect in &defects {
        for software in [true, false] {
            let mut rig = Legacy::new();
            // The faults' own handlers run on a stack that works whatever is wrong with the tested one.
            rescue(&mut rig);
            rig.level(defect.cpl);
            rig.put(IDT + 0x40 * 8, defect.gate);
            (defect.prepare)(&mut rig);
            let code: &[u8] = if software { INT_40 } else { &[0x90] };
            if !software {
                rig.cpu().set_rflags(RFlags::IF);
                rig.cpu().post(Message::Interrupt(0x40));
                rig.cpu().refresh();
            }
            rig.bytes(CODE, code);
            let name = defect.name;
            assert_eq!(rig.run(200), RunEnd::Asleep, "{name}");
            // The handler is a task: its code and stack tell what came.
            let (vector, mut error) = (rig.cpu().gpr[0] as u8, rig.cpu().gpr[4]);
            error = rig.get(error);
            let expected = if software || defect.software_only {
                defect.expected
            } else {
                (defect.expected.0, defect.expected.1 | 1)
            };
            if software || !defect.software_only {
                assert_eq!((vector, error), expected, "{name}, software: {software}");
                assert_eq!(rig.get(TSS + 0x20), CODE, "{name}: the old task stays at the instruction");
                assert_eq!(
                    rig.get(TSS + 0x38),
                    if defect.cpl == 3 { USER_STACK } else { STACK },
                    "{name}: ESP stays"
                );
            }
        }
    }
}

#[test]
fn a_tss_that_ends_before_the_inner_stack_is_named_by_ts() {
    let mut rig = Legacy::new();
    rig.level(3);
    rig.put(IDT + 0x40 * 8, gate(CODE_0, HANDLER, 0xe, 3, 0));
    // The handler of #TS stays at level 3.
    rig.put(IDT + u64::from(TS) * 8, gate(CONFORMING, HANDLER, 0xe, 0, 0));
    rig.bytes(HANDLER, &[0xeb, 0xfe]);
    rig.bytes(CODE, INT_40);
    rig.cpu().segment_mut(SegmentName::Tr).limit = 8;
    rig.run(10);
    let sp = rig.cpu().gpr[4];
    assert_eq!((sp, rig.get(sp), rig.get(sp + 4)), (USER_STACK - 16, TASK_A.into(), CODE));
}

/// #TS, #NP, #SS and #GP go to tasks of their own, which need nothing of the interrupted one.
fn rescue(rig: &mut Legacy) {
    for vector in [TS, NP, SS, GP] {
        let tss = 0x8000 + u64::from(vector) * 0x80;
        let selector = 0xb0 + (u16::from(vector) - 10) * 8;
        rig.put(GDT + u64::from(selector), descriptor(tss, 0x67, 0x0089));
        rig.put(IDT + u64::from(vector) * 8, gate(selector, 0, 5, 0, 0));
        rig.put32(tss + 0x20, HANDLERS + 16 * u64::from(vector));
        rig.put32(tss + 0x24, 2);
        rig.put32(tss + 0x28, u64::from(vector));
        rig.put32(tss + 0x38, 0x3_0000);
        rig.put32(tss + 0x4c, CODE_0.into());
        rig.put32(tss + 0x50, DATA_0.into());
    }
}

#[test]
fn frames_have_the_size_and_order_of_their_gate() {
    // From level 3 through a 32-bit interrupt gate: SS, ESP, EFLAGS, CS, EIP.
    let mut rig = Legacy::new();
    rig.level(3);
    rig.put(IDT + 0x40 * 8, gate(CODE_0, HANDLER, 0xe, 3, 0));
    rig.cpu().set_rflags(RFlags(0x4302));
    rig.bytes(CODE, &[0xcd, 0x40]);
    rig.put(IDT + 8, 0);
    rig.outcome().unwrap_err();
    let sp = rig.cpu().gpr[4];
    assert_eq!(sp, STACK_0 - 20);
    let frame: Vec<u64> = (0..5).map(|n| rig.get(sp + n * 4)).collect();
    assert_eq!(frame, [CODE + 2, CODE_3.into(), 0x4302, USER_STACK, DATA_3.into()]);
    assert_eq!(rig.cpu().rflags().0, 2, "TF, NT and IF are cleared");
    assert_eq!((rig.cpu().cpl, rig.selector(SegmentName::Ss)), (0, DATA_0));

    // Within level 0 through a 16-bit trap gate: 2-byte slots, IF stays.
    let mut rig = Legacy::new();
    rig.put(IDT + 0x40 * 8, gate(CODE_16, 0x100, 7, 0, 0));
    rig.bytes(0x100, &[0xf4]);
    rig.cpu().set_rflags(RFlags(0x202));
    assert_eq!(rig.instruction(INT_40), Ok(0x101));
    assert_eq!(rig.cpu().gpr[4], STACK - 6);
    assert_eq!(rig.get16(STACK - 6), (CODE + 2) & 0xffff);
    assert_eq!(rig.get16(STACK - 4), CODE_0.into());
    assert_eq!(rig.get16(STACK - 2), 0x202);
    assert!(rig.cpu().rflags().contains(RFlags::IF));
}

#[test]
fn a_conforming_handler_keeps_the_level_and_the_stack() {
    let mut rig = Legacy::new();
    rig.level(3);
    rig.put(IDT + 0x40 * 8, gate(CONFORMING, HANDLER, 0xe, 3, 0));
    // The handler comes back: IRETD.
    rig.bytes(HANDLER, &[0xcf]);
    rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
    rig.bytes(CODE, &[0xcd, 0x40, 0xcd, 0x80]);
    assert_eq!(rig.outcome(), Err((0x80, CODE + 4)));
    assert_eq!(rig.get(USER_STACK - 8), u64::from(CODE_3));
}

#[test]
fn faults_push_rf_and_traps_do_not() {
    let mut rig = Legacy::new();
    // UD2.
    assert_eq!(rig.instruction(&[0x0f, 0x0b]).unwrap_err(), (6, CODE));
    assert_eq!(rig.get(STACK - 4), 0x1_0002);
    for (code, vector) in [(&[0xcc][..], 3), (&[0xf1], 1), (&[0xcd, 0x41], 0x41)] {
        let mut rig = Legacy::new();
        assert_eq!(rig.instruction(code), Err((vector, CODE + code.len() as u64)));
        assert_eq!(rig.get(STACK - 4), 2, "{code:02x?}");
    }
}

#[test]
fn int3_into_and_int_check_the_gate_but_int1_does_not() {
    let rows: &[(&[u8], u64)] = &[(&[0xcc], 3), (&[0xce], 4), (&[0xcd, 0x41], 0x41), (&[0xf1], 1)];
    for (code, vector) in rows {
        let mut rig = Legacy::new();
        rig.level(3);
        rig.cpu().set_rflags(RFlags::OF);
        let expected = if *vector == 1 { (1, CODE + 1) } else { (GP, vector * 8 + 2) };
        assert_eq!(rig.instruction(code), Err(expected), "{code:02x?}");
    }
    // INTO without OF goes on.
    assert_eq!(Legacy::new().instruction(&[0xce]), Ok(CODE + 2));
}

#[test]
fn bound_compares_as_signed_numbers() {
    for (index, inside) in [(5_i32, true), (-3, true), (10, true), (11, false), (-4, false)] {
        let mut rig = Legacy::new();
        rig.put32(DATA, -3_i32 as u32 as u64);
        rig.put32(DATA + 4, 10);
        (rig.cpu().gpr[0], rig.cpu().gpr[3]) = (u64::from(index as u32), DATA);
        // BOUND EAX, [EBX]
        let expected = if inside { Ok(CODE + 3) } else { Err((5, CODE)) };
        assert_eq!(rig.instruction(&[0x62, 0x03]), expected, "{index}");
    }
}

#[test]
fn contributory_faults_combine_and_benign_ones_do_not() {
    // (first, instruction, what is broken, what arrives). An absent gate makes #NP, with the vector's error code and EXT.
    let rows: &[(&[u8], &[u64], (u8, u64))] = &[
        // #UD is benign: #NP alone.
        (&[0x0f, 0x0b], &[6], (11, 6 * 8 + 3)),
        // #GP and #NP: double fault.
        (&[0x0f, 0x22, 0xe0], &[13], (8, 0)),
        // #DE and #NP: double fault.
        (&[0xf7, 0xf1], &[0], (8, 0)),
        // INT 0x40's missing gate, whose #GP's missing gate: #GP does not combine with INT n, #NP with #GP does.
        (&[0xcd, 0x40], &[0x40, 11], (8, 0)),
    ];
    for (code, absent, expected) in rows {
        let mut rig = Legacy::new();
        rig.cpu().gpr[0] = 1 << 30;
        for vector in *absent {
            let at = IDT + vector * 8;
            let gate = rig.read(at);
            rig.put(at, gate & !(1 << 47));
        }
        assert_eq!(rig.instruction(code), Err(*expected), "{code:02x?}");
    }
    let mut rig = Legacy::new();
    for vector in [13, 8] {
        rig.put(IDT + vector * 8, 0);
    }
    rig.cpu().gpr[0] = 1 << 30;
    rig.bytes(CODE, &[0x0f, 0x22, 0xe0]);
    assert_eq!(rig.run(100), RunEnd::Stop(Stop::TripleFault));
}

#[test]
fn iret_checks_the_segments_that_it_returns_to() {
    let row = |cs: u16, ss: u16| -> Result<u64, (u8, u64)> {
        let mut rig = Legacy::new();
        for (n, value) in [CODE + 0x40, cs.into(), 2, USER_STACK, ss.into()].into_iter().enumerate() {
            rig.put32(STACK + n as u64 * 4, value);
        }
        rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
        rig.bytes(CODE + 0x40, &[0xcd, 0x80]);
        rig.instruction(&[0xcf])
    };
    assert_eq!(row(CODE_3, DATA_3), Err((0x80, CODE + 0x42)));
    assert_eq!(row(CODE_0, DATA_3), Err((0x80, CODE + 0x42)), "the same level pops no stack");
    assert_eq!(row(0, DATA_3), Err((GP, 0)));
    assert_eq!(row(OUTSIDE, DATA_3), Err((GP, OUTSIDE.into())));
    assert_eq!(row(DATA_0, DATA_3), Err((GP, DATA_0.into())));
    assert_eq!(row(CODE_0 | 3, DATA_3), Err((GP, CODE_0.into())), "DPL below RPL");
    assert_eq!(row(CONFORMING | 3, DATA_3), Err((0x80, CODE + 0x42)), "conforming code runs at the RPL");
    assert_eq!(row(ABSENT_CODE, DATA_3), Err((NP, ABSENT_CODE.into())));
    assert_eq!(row(CODE_3, 0), Err((GP, 0)));
    assert_eq!(row(CODE_3, DATA_0), Err((GP, DATA_0.into())));
    assert_eq!(row(CODE_3, CODE_3), Err((GP, u64::from(CODE_3 & !3))));
}

#[test]
fn a_return_outward_forgets_privileged_data_segments() {
    let mut rig = Legacy::new();
    for (n, value) in [CODE + 0x40, CODE_3.into(), 2, USER_STACK, DATA_3.into()].into_iter().enumerate() {
        rig.put32(STACK + n as u64 * 4, value);
    }
    rig.cpu().segment_mut(SegmentName::Fs).rights = AccessRights(0xc09f);
    rig.cpu().segment_mut(SegmentName::Gs).rights = AccessRights(0xc0f3);
    rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
    rig.bytes(CODE + 0x40, &[0xcd, 0x80]);
    rig.instruction(&[0xcf]).unwrap_err();
    let usable = [SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs]
        .map(|name| rig.processor.cpu.segment(name).rights.is_usable());
    assert_eq!(usable, [false, false, true, true], "conforming code and level 3 stay");
}
