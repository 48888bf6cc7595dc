//! SYSENTER, SYSEXIT, SYSCALL, SYSRET in legacy and compatibility mode, by vendor
//! (SDM Vol. 2B; APM Vol. 3 "SYSCALL", "SYSRET"; APM Vol. 2 "SYSENTER and SYSEXIT MSRs").

use crate::legacy::*;
use crate::support::{self, Rig};
use rootmode_arch::{AccessRights, Efer, Feature, RFlags, SegmentName};
use rootmode_cpu::{Model, RunEnd};

const UD: u8 = 6;
const GP: u8 = 13;

fn with_sysenter(model: Model) -> Model {
    Model::new(model.vendor(), model.features().with(Feature::Sep))
}

fn rig(model: Model, cpl: u8) -> Legacy {
    let mut rig = Legacy::with_model(with_sysenter(model));
    rig.level(cpl);
    let msrs = &mut rig.cpu().msrs;
    msrs.sysenter_cs = CODE_0.into();
    msrs.sysenter_esp = STACK_0;
    msrs.sysenter_eip = CODE + 0x400;
    rig.bytes(CODE + 0x400, &[0xf4]);
    rig
}

#[test]
fn sysenter_loads_flat_segments_of_level_0_and_clears_if() {
    for model in [Model::max_intel(), Model::max_amd()] {
        let mut rig = rig(model, 3);
        rig.cpu().set_rflags(RFlags::IF | RFlags::CF);
        assert_eq!(rig.instruction(&[0x0f, 0x34]), Ok(CODE + 0x401));
        let cpu = rig.cpu();
        assert_eq!((cpu.cpl, cpu.gpr[4], cpu.rflags().0), (0, STACK_0, 3));
        let (cs, ss) = (*cpu.segment(SegmentName::Cs), *cpu.segment(SegmentName::Ss));
        assert_eq!((cs.selector.0, cs.rights, cs.limit), (CODE_0, AccessRights(0xc09b), u32::MAX));
        assert_eq!((ss.selector.0, ss.rights), (CODE_0 + 8, AccessRights(0xc093)));
    }
}

#[test]
fn sysenter_and_sysexit_demand_a_selector_and_protected_mode() {
    for code in [&[0x0f, 0x34][..], &[0x0f, 0x35]] {
        let mut rig = rig(Model::max_intel(), 0);
        rig.cpu().msrs.sysenter_cs = 3;
        assert_eq!(rig.instruction(code), Err((GP, 0)), "{code:02x?}");
        let mut rig = self::rig(Model::max_intel(), 0);
        rig.real();
        assert_eq!(rig.instruction(code).unwrap_err().0, GP);
    }
    assert_eq!(rig(Model::max_intel(), 3).instruction(&[0x0f, 0x35]), Err((GP, 0)));
}

#[test]
fn sysexit_returns_to_level_3() {
    let mut rig = rig(Model::max_intel(), 0);
    rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
    rig.bytes(CODE + 0x40, &[0xcd, 0x80]);
    (rig.cpu().gpr[1], rig.cpu().gpr[2]) = (USER_STACK, CODE + 0x40);
    assert_eq!(rig.instruction(&[0x0f, 0x35]), Err((0x80, CODE + 0x42)));
    assert_eq!(rig.get(STACK_0 - 16), u64::from(CODE_0 + 16) | 3);
    assert_eq!((rig.get(STACK_0 - 8), rig.get(STACK_0 - 4)), (USER_STACK, u64::from(CODE_0 + 24) | 3));
}

#[test]
fn amd_has_no_sysenter_in_long_mode_and_intel_has() {
    for (model, expected) in [(Model::max_intel(), None), (Model::max_amd(), Some(UD))] {
        let mut rig = Rig::with_model(with_sysenter(model));
        rig.gate(UD, 0x1_8000, 0xe, 0, 0);
        rig.code_at(0x1_8000, |a| a.hlt().unwrap());
        rig.code(|a| a.sysenter().unwrap());
        rig.code_at(0x1_9000, |a| a.hlt().unwrap());
        rig.cpu().msrs.sysenter_cs = 8;
        rig.cpu().msrs.sysenter_esp = 0x3_c000;
        rig.cpu().msrs.sysenter_eip = 0x1_9000;
        assert_eq!(rig.run(10), RunEnd::Asleep);
        let at = if expected.is_some() { 0x1_8001 } else { 0x1_9001 };
        assert_eq!(rig.cpu().rip, at);
        if expected.is_none() {
            assert_eq!(rig.cpu().segment(SegmentName::Cs).rights, AccessRights(0xa09b));
        }
    }
}

#[test]
fn syscall_outside_64_bit_mode_exists_on_amd_only() {
    let star = u64::from(CODE_0) << 32 | (CODE + 0x400);
    for (model, amd) in [(Model::max_intel(), false), (Model::max_amd(), true)] {
        let mut rig = rig(model, 3);
        rig.cpu().efer = Efer::SCE;
        rig.cpu().msrs.star = star;
        rig.cpu().set_rflags(RFlags::IF);
        let outcome = rig.instruction(&[0x0f, 0x05]);
        if !amd {
            assert_eq!(outcome, Err((UD, CODE)));
            continue;
        }
        assert_eq!(outcome, Ok(CODE + 0x401));
        let cpu = rig.cpu();
        assert_eq!((cpu.cpl, cpu.gpr[1], cpu.rflags().0), (0, CODE + 2, 2));
        assert_eq!(cpu.segment(SegmentName::Cs).rights, AccessRights(0xc09b));
    }
}

#[test]
fn amd_enters_cstar_from_compatibility_mode() {
    let mut rig = Rig::with_model(Model::max_amd());
    rig.cpu().segment_mut(SegmentName::Cs).rights = AccessRights(0xc0fb);
    rig.cpu().cpl = 3;
    rig.cpu().msrs.star = 8 << 32;
    rig.cpu().msrs.cstar = 0x1_8000;
    rig.cpu().msrs.fmask = 0x200;
    rig.cpu().set_rflags(RFlags::IF);
    rig.cpu().refresh();
    rig.code(|a| a.syscall().unwrap());
    rig.code_at(0x1_8000, |a| a.hlt().unwrap());
    assert_eq!(rig.run(10), RunEnd::Asleep);
    let cpu = rig.cpu();
    assert_eq!((cpu.rip, cpu.gpr[1], cpu.gpr[11], cpu.rflags().0), (0x1_8001, support::CODE + 2, 0x202, 2));
    assert!(cpu.is_64_bit());
}

#[test]
fn a_trap_flag_that_fmask_leaves_traps_at_the_target_of_syscall() {
    for (mask, expected) in [(0, 0x1_9000_u64), (0x100, 0)] {
        let mut rig = Rig::new();
        rig.gate(1, 0x1_a000, 0xe, 0, 0);
        rig.code_at(0x1_a000, |a| a.hlt().unwrap());
        rig.cpu().msrs.star = 8 << 32;
        rig.cpu().msrs.lstar = 0x1_9000;
        rig.cpu().msrs.fmask = mask;
        rig.cpu().set_rflags(RFlags::TF);
        rig.code(|a| a.syscall().unwrap());
        rig.code_at(0x1_9000, |a| {
            a.nop().unwrap();
            a.hlt().unwrap();
        });
        assert_eq!(rig.run(10), RunEnd::Asleep);
        let sp = rig.cpu().gpr[4];
        let (rip, seen) = (rig.cpu().rip, rig.read(sp));
        if expected == 0 {
            assert_eq!(rip, 0x1_9002, "no trap");
        } else {
            assert_eq!((rip, seen), (0x1_a001, expected));
        }
    }
}

#[test]
fn sysret_leaves_the_hidden_part_of_ss_on_amd() {
    for (model, limit) in [(Model::max_intel(), u32::MAX), (Model::max_amd(), 0x1234)] {
        let mut rig = Rig::with_model(model);
        rig.cpu().msrs.star = 0x13 << 48;
        rig.cpu().segment_mut(SegmentName::Ss).limit = 0x1234;
        rig.cpu().gpr[1] = 0x1_9000;
        rig.cpu().gpr[11] = 2;
        rig.code(|a| a.sysretq().unwrap());
        rig.run(1);
        let (cs, ss) = (*rig.cpu().segment(SegmentName::Cs), *rig.cpu().segment(SegmentName::Ss));
        assert_eq!((rig.cpu().cpl, cs.selector.0, ss.selector.0), (3, 0x23, 0x1b));
        assert_eq!((ss.limit, ss.rights.dpl()), (limit, 3));
    }
}
