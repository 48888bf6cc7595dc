//! Control-flow enforcement: shadow stacks and tracking of indirect branches
//! (SDM Vol. 1 "Control-Flow Enforcement Technology (CET)"; the error codes of SDM Vol. 3A "Control Protection Exception").

use crate::support::{CODE, CR3, Rig, STACK, TSS, USER_CS, USER_SS};
use iced_x86::code_asm::*;
use rootmode_arch::{Cr4, Feature, HostPhysical, RFlags, SegmentName, vector};
use rootmode_cpu::{Activity, Model, RunEnd};

const HANDLER: u64 = 0x1_8000;
/// Shadow-stack pages of the supervisor and of the user, the same memory as at address 0.
const SUPERVISOR: u64 = 0x40_0000;
const USER: u64 = 0x60_0000;
const SSP: u64 = SUPERVISOR + 0x2_4000;
const ENABLE: u64 = 1;
const WRITE: u64 = 2;
const ENDBRANCH: u64 = 4;
const NO_TRACK: u64 = 0x10;
const WAIT: u64 = 1 << 11;

fn rig(control: u64) -> Rig {
    let model = Model::max_intel();
    let features = model.features().with(Feature::Shstk).with(Feature::Ibt);
    let mut rig = Rig::with_model(Model::new(model.vendor(), features));
    // 2-MiB pages, dirty and not writable.
    rig.memory.write_u64(HostPhysical(0x3000 + 2 * 8), 0xc1);
    rig.memory.write_u64(HostPhysical(0x3000 + 3 * 8), 0xc5);
    for v in [vector::CP, vector::GP, vector::PF, vector::UD, vector::BP] {
        rig.gate(v, HANDLER + 16 * u64::from(v), 0xe, 3, 0);
        rig.code_at(HANDLER + 16 * u64::from(v), |a| {
            a.endbr64().unwrap();
            a.hlt().unwrap();
        });
    }
    let cpu = rig.cpu();
    cpu.cr4 = cpu.cr4 | Cr4::CET;
    cpu.control_flow.supervisor = control;
    cpu.control_flow.ssp = SSP;
    cpu.refresh();
    rig
}

/// Runs to an HLT: the vector of the handler and its error code, or nothing.
fn outcome(rig: &mut Rig) -> Option<(u8, u64)> {
    assert_eq!(rig.run(100), RunEnd::Asleep);
    let (rip, top) = (rig.cpu().rip, rig.cpu().gpr[4]);
    let handler = (HANDLER..HANDLER + 0x1000).contains(&rip);
    handler.then(|| (((rip - HANDLER) / 16) as u8, rig.read(top)))
}

fn shadow(rig: &Rig, at: u64) -> u64 {
    rig.read(at & 0x1f_ffff)
}

#[test]
fn near_calls_push_the_return_address_twice_and_returns_compare() {
    for tampers in [false, true] {
        let mut rig = rig(ENABLE);
        rig.code(|a| {
            let mut f = a.create_label();
            a.call(f).unwrap();
            a.hlt().unwrap();
            a.set_label(&mut f).unwrap();
            if tampers {
                a.inc(qword_ptr(rsp)).unwrap();
            }
            a.ret().unwrap();
        });
        let expected = tampers.then_some((vector::CP, 1));
        assert_eq!(outcome(&mut rig), expected);
        assert_eq!(shadow(&rig, SSP - 8), CODE + 5);
        if !tampers {
            assert_eq!((rig.cpu().control_flow.ssp, rig.cpu().gpr[4]), (SSP, STACK));
        }
    }
}

#[test]
fn a_call_to_the_next_instruction_leaves_the_shadow_stack_alone() {
    let mut rig = rig(ENABLE);
    rig.code(|a| {
        let mut next = a.create_label();
        a.call(next).unwrap();
        a.set_label(&mut next).unwrap();
        a.pop(rax).unwrap();
        a.hlt().unwrap();
    });
    assert_eq!(outcome(&mut rig), None);
    assert_eq!(rig.cpu().control_flow.ssp, SSP);
}

#[test]
fn a_shadow_stack_is_no_ordinary_memory() {
    let mut rig = rig(ENABLE);
    rig.code(|a| {
        a.mov(rbx, SSP).unwrap();
        a.mov(qword_ptr(rbx), rax).unwrap();
    });
    assert_eq!(outcome(&mut rig), Some((vector::PF, 3)));
    // And an ordinary page is no shadow stack: present, write, shadow-stack access.
    let mut rig = self::rig(ENABLE | WRITE);
    rig.cpu().gpr[3] = 0x2_4000;
    rig.code(|a| a.wrssq(qword_ptr(rbx), rax).unwrap());
    assert_eq!(outcome(&mut rig), Some((vector::PF, 0x43)));
}

#[test]
fn indirect_branches_must_reach_endbranch() {
    let rows: [(&[u8], &[u8], u64, Option<(u8, u64)>); 8] = [
        // JMP RAX, CALL RAX; the target's first bytes.
        (&[0xff, 0xe0], &[0x90], ENDBRANCH, Some((vector::CP, 3))),
        (&[0xff, 0xe0], &[0xf3, 0x0f, 0x1e, 0xfa], ENDBRANCH, None),
        // ENDBR32 is not the one of 64-bit mode.
        (&[0xff, 0xe0], &[0xf3, 0x0f, 0x1e, 0xfb], ENDBRANCH, Some((vector::CP, 3))),
        (&[0xff, 0xd0], &[0x90], ENDBRANCH, Some((vector::CP, 3))),
        // NOTRACK counts when it is enabled.
        (&[0x3e, 0xff, 0xe0], &[0x90], ENDBRANCH | NO_TRACK, None),
        (&[0x3e, 0xff, 0xe0], &[0x90], ENDBRANCH, Some((vector::CP, 3))),
        (&[0xff, 0xe0], &[0x90], ENABLE, None),
        // Suppressed.
        (&[0xff, 0xe0], &[0x90], ENDBRANCH | 1 << 10, None),
    ];
    for (branch, target, control, expected) in rows {
        let mut rig = rig(control);
        rig.cpu().gpr[0] = CODE + 0x100;
        rig.memory.write(HostPhysical(CODE), branch);
        rig.memory.write(HostPhysical(CODE + 0x100), &[target, &[0xf4]].concat());
        assert_eq!(outcome(&mut rig), expected, "{branch:02x?} {target:02x?} {control:#x}");
    }
    // INT3 goes before #CP, and the tracker keeps waiting.
    let mut rig = rig(ENDBRANCH | WAIT);
    rig.memory.write(HostPhysical(CODE), &[0xcc]);
    assert_eq!(rig.run(1), RunEnd::Budget);
    assert_eq!(rig.cpu().rip, HANDLER + 16 * u64::from(vector::BP));
}

#[test]
fn the_legacy_bitmap_names_pages_without_endbranch() {
    for (bit, expected) in [(1_u8, None), (0, Some((vector::CP, 3)))] {
        let mut rig = rig(ENDBRANCH | 8 | 0x2_0000);
        // Page 0x10 of the code: bit 0 of byte 2.
        rig.memory.write_u8(HostPhysical(0x2_0002), bit);
        rig.cpu().gpr[0] = CODE + 0x100;
        rig.memory.write(HostPhysical(CODE), &[0xff, 0xe0]);
        rig.memory.write(HostPhysical(CODE + 0x100), &[0x90, 0xf4]);
        assert_eq!(outcome(&mut rig), expected);
        if bit != 0 {
            assert_eq!(rig.cpu().control_flow.supervisor & 0xc00, 1 << 10, "legacy code suppresses tracking");
        }
    }
}

#[test]
fn a_far_return_compares_cs_and_address() {
    for tampers in [false, true] {
        let mut rig = rig(ENABLE);
        rig.memory.write_u64(HostPhysical(0x2_0000), (CODE + 0x100) | 8 << 32);
        rig.cpu().gpr[3] = 0x2_0000;
        // CALL FAR [RBX] of 32 bits; HLT. There: optionally INC DWORD [RSP], RETF.
        rig.memory.write(HostPhysical(CODE), &[0xff, 0x1b, 0xf4, 0xf4]);
        let tamper: &[u8] = if tampers { &[0xff, 0x04, 0x24] } else { &[] };
        rig.memory.write(HostPhysical(CODE + 0x100), &[tamper, &[0xcb]].concat());
        assert_eq!(outcome(&mut rig), tampers.then_some((vector::CP, 2)));
        let words = [SSP - 8, SSP - 16, SSP - 24].map(|at| shadow(&rig, at));
        assert_eq!(words, [8, CODE + 2, SSP]);
        if !tampers {
            assert_eq!(rig.cpu().control_flow.ssp, SSP);
        }
    }
}

#[test]
fn an_interrupt_of_user_code_takes_the_supervisors_token_and_iret_gives_it_back() {
    let mut rig = rig(ENABLE);
    rig.cpu().control_flow.user = ENABLE;
    rig.cpu().control_flow.levels = [SSP, 0, 0, 0];
    rig.memory.write_u64(HostPhysical(SSP & 0x1f_ffff), SSP);
    rig.gate(0x40, HANDLER + 0x800, 0xe, 3, 0);
    rig.code_at(HANDLER + 0x800, |a| {
        a.rdsspq(r15).unwrap();
        a.iretq().unwrap();
    });
    let user_ssp = USER + 0x2_8000;
    rig.cpu().control_flow.ssp = user_ssp;
    for (name, selector, rights) in [(SegmentName::Cs, USER_CS, 0xa0fb), (SegmentName::Ss, USER_SS, 0xc0f3)] {
        let segment = rig.cpu().segment_mut(name);
        segment.selector.0 = selector as u16;
        segment.rights.0 = rights;
    }
    rig.cpu().cpl = 3;
    rig.cpu().refresh();
    rig.code(|a| {
        let mut f = a.create_label();
        a.int(0x40).unwrap();
        a.call(f).unwrap();
        a.set_label(&mut f).unwrap();
        a.call(f).unwrap();
    });
    // INT and its delivery; RDSSP.
    rig.run(2);
    assert_eq!((rig.cpu().cpl, rig.cpu().gpr[15]), (0, SSP));
    assert_eq!(rig.cpu().control_flow.levels[3], user_ssp);
    assert_eq!(shadow(&rig, SSP), SSP | 1, "busy");
    rig.run(1);
    assert_eq!((rig.cpu().cpl, rig.cpu().control_flow.ssp), (3, user_ssp));
    assert_eq!(shadow(&rig, SSP), SSP, "free");
    // A busy token: #GP(0), whose own delivery finds it busy as well, and so on to the triple fault.
    rig.memory.write_u64(HostPhysical(SSP & 0x1f_ffff), SSP | 1);
    rig.cpu().rip = CODE;
    assert!(matches!(rig.run(10), RunEnd::Stop(rootmode_arch::record::Stop::TripleFault)));
    assert_eq!(rig.read(TSS + 4), 0x3_c000);
}

#[test]
fn an_interrupt_within_the_level_pushes_a_frame_on_the_same_shadow_stack() {
    for misaligned in [0, 4] {
        let mut rig = rig(ENABLE);
        let ssp = SSP - misaligned;
        rig.cpu().control_flow.ssp = ssp;
        rig.gate(0x40, HANDLER + 0x800, 0xe, 0, 0);
        rig.code_at(HANDLER + 0x800, |a| a.iretq().unwrap());
        rig.code(|a| {
            a.int(0x40).unwrap();
            a.hlt().unwrap();
        });
        assert_eq!(outcome(&mut rig), None);
        let top = ssp & !7;
        assert_eq!([top - 8, top - 16, top - 24].map(|at| shadow(&rig, at)), [8, CODE + 2, ssp]);
        assert_eq!(rig.cpu().control_flow.ssp, ssp);
    }
}

#[test]
fn restore_and_save_move_between_shadow_stacks() {
    let other = SUPERVISOR + 0x2_6000;
    let mut rig = rig(ENABLE);
    // A restore token of 64-bit mode: the address above it, bit 0.
    rig.memory.write_u64(HostPhysical((other - 8) & 0x1f_ffff), other | 1);
    rig.code(|a| {
        a.mov(rbx, other - 8).unwrap();
        a.rstorssp(qword_ptr(rbx)).unwrap();
        a.saveprevssp().unwrap();
        a.rdsspq(rax).unwrap();
        a.hlt().unwrap();
    });
    assert_eq!(outcome(&mut rig), None);
    assert_eq!(rig.cpu().gpr[0], other);
    assert_eq!(shadow(&rig, SSP - 8), SSP | 1, "the way back");
    // Any other value is #CP(RSTORSSP).
    for token in [other, other | 3, (other + 8) | 1, 0] {
        let mut rig = self::rig(ENABLE);
        rig.memory.write_u64(HostPhysical((other - 8) & 0x1f_ffff), token);
        rig.cpu().gpr[3] = other - 8;
        rig.code(|a| a.rstorssp(qword_ptr(rbx)).unwrap());
        assert_eq!(outcome(&mut rig), Some((vector::CP, 4)), "{token:#x}");
    }
}

#[test]
fn the_small_instructions_do_what_their_pages_say() {
    let mut rig = rig(ENABLE | WRITE);
    rig.cpu().gpr[3] = SSP - 0x100;
    rig.cpu().gpr[1] = 3;
    rig.cpu().control_flow.ssp = SSP - 0x40;
    rig.code(|a| {
        a.mov(eax, 0x1234_5678).unwrap();
        a.wrssq(qword_ptr(rbx), rax).unwrap();
        a.incsspq(rcx).unwrap();
        a.hlt().unwrap();
    });
    assert_eq!(outcome(&mut rig), None);
    assert_eq!((shadow(&rig, SSP - 0x100), rig.cpu().control_flow.ssp), (0x1234_5678, SSP - 0x40 + 24));
    // WRSS without its enable bit, INCSSP without shadow stacks: #UD. RDSSP without: nothing.
    let mut rig = self::rig(ENABLE);
    rig.cpu().gpr[3] = SSP;
    rig.code(|a| a.wrssq(qword_ptr(rbx), rax).unwrap());
    assert_eq!(outcome(&mut rig).unwrap().0, vector::UD);
    let mut rig = self::rig(0);
    rig.code(|a| a.incsspq(rcx).unwrap());
    assert_eq!(outcome(&mut rig).unwrap().0, vector::UD);
    let mut rig = self::rig(0);
    rig.cpu().gpr[0] = 7;
    rig.code(|a| {
        a.rdsspq(rax).unwrap();
        a.hlt().unwrap();
    });
    assert_eq!((outcome(&mut rig), rig.cpu().gpr[0]), (None, 7));
    // WRUSS writes a user shadow stack.
    let mut rig = self::rig(0);
    rig.cpu().gpr[3] = USER + 0x2_8000;
    rig.cpu().gpr[0] = 99;
    rig.code(|a| {
        a.wrussq(qword_ptr(rbx), rax).unwrap();
        a.hlt().unwrap();
    });
    assert_eq!((outcome(&mut rig), shadow(&rig, USER + 0x2_8000)), (None, 99));
}

#[test]
fn setssbsy_takes_and_clrssbsy_frees_the_stack_of_level_0() {
    let mut rig = rig(ENABLE);
    rig.cpu().control_flow.levels[0] = SSP;
    rig.cpu().control_flow.ssp = 0;
    rig.memory.write_u64(HostPhysical(SSP & 0x1f_ffff), SSP);
    rig.cpu().gpr[3] = SSP;
    rig.code(|a| {
        a.setssbsy().unwrap();
        a.rdsspq(rax).unwrap();
        a.clrssbsy(qword_ptr(rbx)).unwrap();
        a.hlt().unwrap();
    });
    assert_eq!(outcome(&mut rig), None);
    assert_eq!((rig.cpu().gpr[0], rig.cpu().control_flow.ssp, shadow(&rig, SSP)), (SSP, 0, SSP));
    assert!(!rig.cpu().rflags().contains(RFlags::CF));
    // A busy one.
    let mut rig = self::rig(ENABLE);
    rig.cpu().control_flow.levels[0] = SSP - 0x80;
    rig.memory.write_u64(HostPhysical((SSP - 0x80) & 0x1f_ffff), (SSP - 0x80) | 1);
    rig.code(|a| a.setssbsy().unwrap());
    assert_eq!(outcome(&mut rig), Some((vector::CP, 5)));
}

#[test]
fn registers_refuse_reserved_bits_and_write_protection_is_a_condition() {
    // (MSR, value): #GP(0).
    for (msr, value) in [(0x6a0, 0x40_u64), (0x6a2, 0xc00), (0x6a7, 1), (0x6a4, 1 << 62), (0x6a8, 1 << 62)] {
        let mut rig = rig(0);
        rig.cpu().gpr[1] = msr;
        rig.cpu().gpr[0] = value & 0xffff_ffff;
        rig.cpu().gpr[2] = value >> 32;
        rig.code(|a| a.wrmsr().unwrap());
        assert_eq!(outcome(&mut rig), Some((vector::GP, 0)), "{msr:#x} = {value:#x}");
    }
    let mut rig = rig(0);
    rig.code(|a| {
        a.mov(rax, cr0).unwrap();
        a.and(eax, !0x1_0000).unwrap();
        a.mov(cr0, rax).unwrap();
    });
    assert_eq!(outcome(&mut rig), Some((vector::GP, 0)));
    assert_eq!(rig.cpu().cr3.0, CR3);
}

/// An area of the XSAVE family, 64-byte aligned.
const AREA: u64 = 0x2_8000;
const XSS: u32 = 0xda0;

/// Runs XSAVES or XRSTORS of the CET components, with IA32_XSS enabling them.
fn xsaves(rig: &mut Rig, restores: bool) -> Option<(u8, u64)> {
    let cpu = rig.cpu();
    cpu.cr4 = cpu.cr4 | Cr4::OSXSAVE;
    (cpu.rip, cpu.activity) = (CODE, Activity::Active);
    cpu.refresh();
    rig.code(|a| {
        a.mov(ecx, XSS).unwrap();
        a.mov(eax, 3 << 11).unwrap();
        a.xor(edx, edx).unwrap();
        a.wrmsr().unwrap();
        a.mov(ebx, AREA as u32).unwrap();
        if restores {
            a.xrstors64(ptr(rbx)).unwrap();
        } else {
            a.xsaves64(ptr(rbx)).unwrap();
        }
        a.hlt().unwrap();
    });
    outcome(rig)
}

#[test]
fn supervisor_components_hold_the_msrs_of_cet() {
    let mut rig = rig(0);
    let flow = &mut rig.cpu().control_flow;
    (flow.user, flow.levels) = (ENABLE | WRITE, [0x10, 0x20, 0x30, 0x40]);
    assert_eq!(xsaves(&mut rig, false), None);
    // XSTATE_BV and XCOMP_BV; then U_CET and PL3_SSP; then PL0_SSP to PL2_SSP.
    let saved: Vec<u64> = (0..7).map(|n| rig.read(AREA + [512, 520, 576, 584, 592, 600, 608][n])).collect();
    assert_eq!(saved, [0x1800, 1 << 63 | 0x1800, 3, 0x40, 0x10, 0x20, 0x30]);

    let mut other = self::rig(0);
    other.memory = rig.memory;
    assert_eq!(xsaves(&mut other, true), None);
    let flow = &other.cpu().control_flow;
    assert_eq!((flow.user, flow.levels), (ENABLE | WRITE, [0x10, 0x20, 0x30, 0x40]));

    // A component that XSTATE_BV lacks goes to its initial values.
    other.memory.write_u64(HostPhysical(AREA + 512), 0x1000);
    assert_eq!(xsaves(&mut other, true), None);
    let flow = &other.cpu().control_flow;
    assert_eq!((flow.user, flow.levels), (0, [0x10, 0x20, 0x30, 0]));
}

#[test]
fn xrstors_refuses_what_wrmsr_refuses() {
    for (at, value) in [(576, 1 << 6), (576, 3 << 10), (584, 1), (592, 2), (608, 1 << 60)] {
        let mut rig = rig(0);
        rig.cpu().control_flow.user = ENABLE;
        assert_eq!(xsaves(&mut rig, false), None);
        rig.memory.write_u64(HostPhysical(AREA + 512), 0x1800);
        rig.memory.write_u64(HostPhysical(AREA + at), value);
        assert_eq!(xsaves(&mut rig, true), Some((vector::GP, 0)), "{at} {value:#x}");
        assert_eq!((rig.cpu().control_flow.user, rig.cpu().control_flow.levels), (ENABLE, [0; 4]));
    }
}

#[test]
fn bits_of_what_a_processor_lacks_are_reserved() {
    for (shadow_stacks, tracking, value, legal) in [
        (true, true, ENABLE | WRITE | ENDBRANCH | NO_TRACK | WAIT, true),
        (true, false, ENABLE | WRITE, true),
        (true, false, ENDBRANCH, false),
        (true, false, 0x1000, false),
        (false, true, ENDBRANCH | 0x1000, true),
        (false, true, ENABLE, false),
    ] {
        let model = Model::max_intel();
        let mut features = model.features().without(Feature::Shstk).without(Feature::Ibt);
        if shadow_stacks {
            features = features.with(Feature::Shstk);
        }
        if tracking {
            features = features.with(Feature::Ibt);
        }
        let mut rig = Rig::with_model(Model::new(model.vendor(), features));
        rig.gate(vector::GP, HANDLER, 0xe, 0, 0);
        rig.code_at(HANDLER, |a| a.hlt().unwrap());
        rig.code(|a| {
            a.mov(ecx, 0x6a0).unwrap();
            a.mov(eax, value as u32).unwrap();
            a.xor(edx, edx).unwrap();
            a.wrmsr().unwrap();
            a.hlt().unwrap();
        });
        assert_eq!(rig.run(100), RunEnd::Asleep);
        assert_eq!(rig.cpu().rip < HANDLER, legal, "{shadow_stacks} {tracking} {value:#x}");
        assert_eq!(rig.cpu().control_flow.user, if legal { value } else { 0 });
    }
}
