//! Segment loads and questions about descriptors, expectations from SDM Vol. 2B "MOV—Move" and the pages of LAR, LSL, VERR, ARPL.

use crate::legacy::*;
use rootmode_arch::{AccessRights, RFlags, Segment, SegmentName, Selector};

/// MOV to a segment register from AX.
const MOV_DS: &[u8] = &[0x8e, 0xd8];
const MOV_SS: &[u8] = &[0x8e, 0xd0];

const GP: u8 = 13;
const NP: u8 = 11;
const SS: u8 = 12;

#[test]
fn loads_of_segment_registers_fault_as_the_manual_lists() {
    let rows: &[(&[u8], u16, Result<(), (u8, u64)>)] = &[
        (MOV_DS, DATA_0, Ok(())),
        (MOV_DS, 0, Ok(())),
        (MOV_DS, 3, Ok(())),
        (MOV_DS, DATA_3, Ok(())),
        (MOV_DS, DATA_0 | 3, Err((GP, DATA_0.into()))),
        (MOV_DS, CODE_0, Ok(())),
        (MOV_DS, CONFORMING | 3, Ok(())),
        (MOV_DS, EXECUTE_ONLY, Err((GP, EXECUTE_ONLY.into()))),
        (MOV_DS, READ_ONLY, Ok(())),
        (MOV_DS, TASK_B, Err((GP, TASK_B.into()))),
        (MOV_DS, LOCAL, Err((GP, LOCAL.into()))),
        (MOV_DS, CALL_GATE, Err((GP, CALL_GATE.into()))),
        (MOV_DS, ABSENT_DATA, Err((NP, ABSENT_DATA.into()))),
        (MOV_DS, OUTSIDE, Err((GP, OUTSIDE.into()))),
        (MOV_DS, 0xf8, Err((GP, 0xf8))),
        // No LDT: the table indicator stays in the error code.
        (MOV_DS, 0x0c, Err((GP, 0x0c))),
        (MOV_SS, DATA_0, Ok(())),
        (MOV_SS, 0, Err((GP, 0))),
        (MOV_SS, DATA_3, Err((GP, u64::from(DATA_3 & !3)))),
        (MOV_SS, DATA_0 | 1, Err((GP, DATA_0.into()))),
        (MOV_SS, READ_ONLY, Err((GP, READ_ONLY.into()))),
        (MOV_SS, CODE_0, Err((GP, CODE_0.into()))),
        (MOV_SS, ABSENT_DATA, Err((SS, ABSENT_DATA.into()))),
    ];
    for (code, selector, expected) in rows {
        let mut rig = Legacy::new();
        rig.cpu().gpr[0] = u64::from(*selector);
        let outcome = rig.instruction(code).map(|_| ());
        assert_eq!(outcome, *expected, "{code:02x?} with {selector:#x}");
    }
}

#[test]
fn a_load_sets_the_accessed_flag_and_caches_the_descriptor() {
    let mut rig = Legacy::new();
    rig.put(GDT + 0x10, descriptor(0x12_3400, 0x55, 0x4092));
    rig.cpu().gpr[0] = u64::from(DATA_0);
    rig.instruction(MOV_DS).unwrap();
    let ds = *rig.cpu().segment(SegmentName::Ds);
    assert_eq!((ds.base, ds.limit, ds.rights), (0x12_3400, 0x55, AccessRights(0x4093)));
    assert_eq!(rig.get(GDT + 0x14) >> 8 & 0xff, 0x93);
}

#[test]
fn a_descriptor_in_the_ldt_is_found_within_its_limit() {
    for (selector, expected) in [(0x0c, Ok(())), (0x1c, Ok(())), (0x24, Err((GP, 0x24)))] {
        let mut rig = Legacy::new();
        rig.put(LDT + 8, descriptor(0, 0xf_ffff, 0xc093));
        rig.put(LDT + 0x18, descriptor(0, 0xf_ffff, 0xc093));
        rig.cpu().gpr[1] = u64::from(LOCAL);
        rig.cpu().gpr[0] = selector;
        // LLDT CX; MOV DS, AX.
        let outcome = rig.instruction(&[0x0f, 0x00, 0xd1, 0x8e, 0xd8]).map(|_| ());
        assert_eq!(outcome, expected, "{selector:#x}");
    }
}

#[test]
fn far_pointers_load_register_and_segment_or_neither() {
    let mut rig = Legacy::new();
    rig.put(DATA, 0x1234_5678 | u64::from(DATA_3) << 32);
    rig.cpu().gpr[3] = DATA;
    // LES EAX, [EBX]
    rig.instruction(&[0xc4, 0x03]).unwrap();
    assert_eq!((rig.cpu().gpr[0], rig.selector(SegmentName::Es)), (0x1234_5678, DATA_3));

    let mut rig = Legacy::new();
    rig.put(DATA, 0x1234_5678 | u64::from(ABSENT_DATA) << 32);
    rig.cpu().gpr[3] = DATA;
    // LFS AX, [EBX + 2]: 2 bytes of offset.
    assert_eq!(rig.instruction(&[0x66, 0x0f, 0xb4, 0x43, 0x02]), Err((NP, ABSENT_DATA.into())));
    assert_eq!((rig.cpu().gpr[0], rig.selector(SegmentName::Fs)), (0, DATA_0));
}

#[test]
fn pop_ss_moves_the_old_stack_pointer_and_shadows_one_instruction() {
    let mut rig = Legacy::new();
    rig.put32(STACK, u64::from(DATA_16));
    // POP SS; then nothing but HLT.
    rig.instruction(&[0x17]).unwrap();
    assert_eq!((rig.selector(SegmentName::Ss), rig.cpu().gpr[4]), (DATA_16, STACK + 4));
    let mut rig = Legacy::new();
    rig.put32(STACK, u64::from(READ_ONLY));
    assert_eq!(rig.instruction(&[0x17]), Err((GP, READ_ONLY.into())));
    assert_eq!(rig.cpu().gpr[4], STACK - 16, "the stack pointer had not moved when the fault came");
}

#[test]
fn limits_and_types_guard_memory_accesses() {
    // MOV EAX, [EBX] and MOV [EBX], EAX.
    let (load, store): (&[u8], &[u8]) = (&[0x8b, 0x03], &[0x89, 0x03]);
    let rows: &[(u16, &[u8], u64, bool)] = &[
        (READ_ONLY, load, DATA, true),
        (READ_ONLY, store, DATA, false),
        (CODE_0, load, DATA, true),
        (CODE_0, store, DATA, false),
        (0, load, DATA, false),
        // Expand-down with limit 0xffff: what lies above.
        (EXPAND_DOWN, load, 0xffff, false),
        (EXPAND_DOWN, load, 0x1_0000, true),
        (EXPAND_DOWN, load, 0xffff_fffd, false),
        (DATA_16, load, 0xfffc, true),
        (DATA_16, load, 0xfffd, false),
    ];
    for (selector, code, at, works) in rows {
        let mut rig = Legacy::new();
        rig.cpu().gpr[0] = u64::from(*selector);
        rig.cpu().gpr[3] = *at;
        let mut program = MOV_DS.to_vec();
        program.extend(*code);
        let outcome = rig.instruction(&program);
        assert_eq!(outcome.is_ok(), *works, "{selector:#x} {code:02x?} {at:#x}: {outcome:?}");
        assert!(*works || outcome == Err((GP, 0)));
    }
}

#[test]
fn lar_and_lsl_answer_for_the_types_that_they_know() {
    // LAR ECX, EAX; LSL EDX, EAX. Expected: the rights and the limit, or none.
    let rows: &[(u16, Option<u64>, Option<u64>)] = &[
        (DATA_0, Some(0xc0_9300), Some(0xffff_ffff)),
        (CODE_16, Some(0x00_9b00), Some(0xffff)),
        (DATA_0 | 3, None, None),
        (CONFORMING | 3, Some(0xc0_9f00), Some(0xffff_ffff)),
        (TASK_B, Some(0x00_8900), Some(0x67)),
        (TASK_16, Some(0x00_8100), Some(0x2b)),
        (LOCAL, Some(0x00_8200), Some(0x1f)),
        (CALL_GATE, Some(0x00_ec00), None),
        (CALL_GATE_16, Some(0x00_e400), None),
        (TASK_GATE, Some(0x00_e500), None),
        (ABSENT_DATA, Some(0xc0_1300), Some(0xffff_ffff)),
        (0, None, None),
        (OUTSIDE, None, None),
    ];
    for (selector, rights, limit) in rows {
        let mut rig = Legacy::new();
        rig.cpu().gpr[0] = u64::from(*selector);
        (rig.cpu().gpr[1], rig.cpu().gpr[2]) = (1, 2);
        // LAR ECX, EAX; PUSHFD; POP EBX; LSL EDX, EAX.
        rig.instruction(&[0x0f, 0x02, 0xc8, 0x9c, 0x5b, 0x0f, 0x03, 0xd0]).unwrap();
        let cpu = rig.cpu();
        let (lar, lsl) = (cpu.gpr[3] & 0x40 != 0, cpu.rflags().contains(RFlags::ZF));
        assert_eq!(lar.then_some(cpu.gpr[1] & 0xf0_ff00), *rights, "LAR {selector:#x}");
        assert_eq!(lsl.then_some(cpu.gpr[2]), *limit, "LSL {selector:#x}");
        assert!(lar || cpu.gpr[1] == 1, "a destination without an answer stays");
    }
}

#[test]
fn verr_and_verw_tell_what_may_be_read_and_written() {
    let rows = [
        (DATA_0, true, true),
        (READ_ONLY, true, false),
        (CODE_0, true, false),
        (EXECUTE_ONLY, false, false),
        (DATA_0 | 3, false, false),
        (CONFORMING | 3, true, false),
        (TASK_B, false, false),
        (0, false, false),
        (OUTSIDE, false, false),
    ];
    for (selector, readable, writable) in rows {
        for (modrm, expected) in [(0xe0, readable), (0xe8, writable)] {
            let mut rig = Legacy::new();
            rig.cpu().gpr[0] = u64::from(selector);
            rig.instruction(&[0x0f, 0x00, modrm]).unwrap();
            assert_eq!(rig.cpu().rflags().contains(RFlags::ZF), expected, "{modrm:#x} {selector:#x}");
        }
    }
}

#[test]
fn arpl_raises_the_requested_level_only() {
    for (destination, source, result, zero) in
        [(0x10, 3, 0x13, true), (0x13, 1, 0x13, false), (0x12, 2, 0x12, false)]
    {
        let mut rig = Legacy::new();
        (rig.cpu().gpr[0], rig.cpu().gpr[3]) = (destination, source);
        // ARPL AX, BX
        rig.instruction(&[0x63, 0xd8]).unwrap();
        assert_eq!((rig.cpu().gpr[0], rig.cpu().rflags().contains(RFlags::ZF)), (result, zero));
    }
}

#[test]
fn ltr_and_lldt_check_type_presence_and_level() {
    // LTR AX, LLDT AX.
    let (ltr, lldt): (&[u8], &[u8]) = (&[0x0f, 0x00, 0xd8], &[0x0f, 0x00, 0xd0]);
    let rows: &[(&[u8], u16, Result<(), (u8, u64)>)] = &[
        (ltr, TASK_B, Ok(())),
        (ltr, TASK_16, Ok(())),
        (ltr, TASK_A, Err((GP, TASK_A.into()))),
        (ltr, 0, Err((GP, 0))),
        (ltr, LOCAL, Err((GP, LOCAL.into()))),
        (ltr, 0x2c, Err((GP, 0x2c))),
        (ltr, ABSENT_TASK, Err((NP, ABSENT_TASK.into()))),
        (lldt, LOCAL, Ok(())),
        (lldt, 0, Ok(())),
        (lldt, TASK_B, Err((GP, TASK_B.into()))),
    ];
    for (code, selector, expected) in rows {
        let mut rig = Legacy::new();
        rig.cpu().gpr[0] = u64::from(*selector);
        assert_eq!(rig.instruction(code).map(|_| ()), *expected, "{code:02x?} {selector:#x}");
    }
    let mut rig = Legacy::new();
    rig.cpu().gpr[0] = u64::from(TASK_B);
    rig.instruction(ltr).unwrap();
    assert_eq!(rig.get(GDT + u64::from(TASK_B) + 4) >> 8 & 0xff, 0x8b, "busy");
    let mut rig = Legacy::new();
    rig.level(3);
    rig.cpu().gpr[0] = u64::from(TASK_B);
    assert_eq!(rig.instruction(ltr), Err((GP, 0)));
}

#[test]
fn lgdt_drops_the_highest_byte_of_the_base_with_16_bit_operands() {
    for (prefix, base) in [(&[0x66][..], 0x56_7800), (&[], 0x1256_7800)] {
        let mut rig = Legacy::new();
        rig.put(DATA, 0x0fff | 0x1256_7800 << 16);
        rig.cpu().gpr[3] = DATA;
        let mut code = prefix.to_vec();
        // LIDT [EBX]
        code.extend([0x0f, 0x01, 0x1b]);
        rig.instruction(&code).unwrap();
        assert_eq!((rig.cpu().idtr.base, rig.cpu().idtr.limit), (base, 0xfff));
    }
    // SIDT stores 6 bytes in any case.
    let mut rig = Legacy::new();
    rig.put(DATA, u64::MAX);
    rig.cpu().gpr[3] = DATA;
    rig.instruction(&[0x66, 0x0f, 0x01, 0x0b]).unwrap();
    assert_eq!(rig.read(DATA), 0xffff_0000_0000_07ff | IDT << 16);
}

#[test]
fn protected_mode_questions_are_undefined_in_real_and_virtual_8086_mode() {
    let rows: &[&[u8]] = &[
        &[0x0f, 0x02, 0xc8],
        &[0x0f, 0x03, 0xd0],
        &[0x0f, 0x00, 0xe0],
        &[0x0f, 0x00, 0xe8],
        &[0x0f, 0x00, 0xd8],
        &[0x0f, 0x00, 0xd0],
        &[0x0f, 0x00, 0xc0],
        &[0x0f, 0x00, 0xc8],
        &[0x63, 0xd8],
    ];
    for code in rows {
        let mut rig = Legacy::new();
        rig.real();
        assert_eq!(rig.instruction(code).unwrap_err().0, 6, "{code:02x?} in real mode");
        let mut rig = Legacy::new();
        rig.virtual_8086(0x3000);
        assert_eq!(rig.instruction(code).unwrap_err().0, 6, "{code:02x?} in virtual-8086 mode");
    }
}

#[test]
fn a_null_selector_clears_base_and_limit() {
    use rootmode_cpu::Model;
    for model in [Model::max_intel(), Model::max_amd()] {
        let mut rig = Legacy::with_model(model);
        rig.instruction(MOV_DS).unwrap();
        let ds: Segment = *rig.cpu().segment(SegmentName::Ds);
        assert!(!ds.rights.is_usable());
        assert_eq!((ds.selector, ds.base, ds.limit), (Selector(0), 0, 0));
    }
}

#[test]
fn umip_keeps_user_code_from_reading_system_registers() {
    use rootmode_arch::Cr4;
    // SGDT, SIDT [EBX]; SLDT, STR, SMSW EAX.
    let rows: &[&[u8]] =
        &[&[0x0f, 0x01, 0x03], &[0x0f, 0x01, 0x0b], &[0x0f, 0, 0xc0], &[0x0f, 0, 0xc8], &[0x0f, 1, 0xe0]];
    for code in rows {
        for (umip, cpl, expected) in [(true, 3, Err((GP, 0))), (false, 3, Ok(())), (true, 0, Ok(()))] {
            let mut rig = Legacy::new();
            rig.level(cpl);
            rig.cpu().gpr[3] = DATA;
            rig.cpu().cr4 = if umip { Cr4::UMIP } else { Cr4(0) };
            rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
            rig.bytes(CODE, &[code, &[0xcd, 0x80][..]].concat());
            let outcome = rig.outcome().map(|_| ());
            let expected =
                if expected.is_ok() { Err((0x80, CODE + code.len() as u64 + 2)) } else { expected };
            assert_eq!(outcome, expected, "{code:02x?} UMIP {umip} CPL {cpl}");
        }
    }
}
