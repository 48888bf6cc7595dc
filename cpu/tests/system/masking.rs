//! Pointers with metadata (SDM Vol. 3A "Linear-Address Masking", 325462-083).

use crate::support::{CR3, DATA, Rig};
use iced_x86::code_asm::*;
use rootmode_arch::{Cr3, Cr4, Feature, HostPhysical, vector};
use rootmode_cpu::{Model, RunEnd};

const HANDLER: u64 = 0x1_8000;
const VALUE: u64 = 0x0123_4567_89ab_cdef;
/// The same memory as at [`DATA`], through the highest entry of the PML4.
const HIGH: u64 = 0xffff_ff80_0000_0000 + DATA;

/// `user` and `supervisor` are added to CR3 and CR4.
fn rig(user: Cr3, supervisor: Cr4) -> Rig {
    let mut rig = Rig::new();
    rig.memory.write_u64(HostPhysical(CR3 + 511 * 8), 0x2000 | 7);
    rig.memory.write_u64(HostPhysical(DATA), VALUE);
    for v in [vector::GP, vector::SS, vector::PF] {
        rig.gate(v, HANDLER + 16 * u64::from(v), 0xe, 0, 0);
        rig.code_at(HANDLER + 16 * u64::from(v), |a| a.hlt().unwrap());
    }
    let cpu = rig.cpu();
    cpu.cr3 = cpu.cr3 | user;
    cpu.cr4 = cpu.cr4 | supervisor;
    cpu.refresh();
    rig
}

/// The vector of the exception that ended the run, if one did.
fn exception(rig: &mut Rig) -> Option<u8> {
    let rip = rig.cpu().rip;
    (HANDLER..HANDLER + 0x1000).contains(&rip).then(|| ((rip - HANDLER) / 16) as u8)
}

/// Increments the word at `pointer` twice, through the shortcut the second time, in one piece or tick by tick.
fn increments(user: Cr3, supervisor: Cr4, pointer: u64, cut: bool) -> Option<u8> {
    let mut rig = rig(user, supervisor);
    rig.code(|a| {
        a.mov(rbx, pointer).unwrap();
        a.inc(qword_ptr(rbx)).unwrap();
        a.inc(qword_ptr(rbx)).unwrap();
        a.mov(rax, qword_ptr(rbx)).unwrap();
        a.hlt().unwrap();
    });
    let end = if cut { (0..20).map(|_| rig.run(1)).last() } else { Some(rig.run(20)) };
    assert_eq!(end, Some(RunEnd::Asleep));
    let fault = exception(&mut rig);
    let added = if fault.is_some() { 0 } else { 2 };
    assert_eq!(rig.read(DATA), VALUE + added);
    if fault.is_none() {
        assert_eq!(rig.cpu().gpr[0], VALUE + 2);
    }
    fault
}

#[test]
fn metadata_is_masked_where_cr3_and_cr4_say_so() {
    let (none, u48, u57, sup) = (Cr4(0), Cr3::LAM_U48, Cr3::LAM_U57, Cr4::LAM_SUP);
    let gp = Some(vector::GP);
    for (user, supervisor, pointer, expected) in [
        (Cr3(0), none, DATA | 1 << 60, gp),
        (u48, none, DATA | 0x7fff << 48, None),
        (u48, none, DATA | 1 << 48, None),
        // Bit 47 is no metadata: it makes all bits above it 1.
        (u48, none, DATA | 1 << 47, gp),
        (u48, none, DATA | 1 << 63, gp),
        (u57, none, DATA | 0x3f << 57, None),
        (u57, none, DATA | 1 << 56, gp),
        (u57, none, DATA | 1 << 48, gp),
        // LAM_U57 goes first where both are set.
        (u48 | u57, none, DATA | 1 << 48, gp),
        (u48, none, HIGH & !(1 << 60), gp),
        (Cr3(0), sup, HIGH & !(1 << 60), None),
        (Cr3(0), sup, HIGH & !(0x7fff << 48), None),
        (Cr3(0), sup, HIGH & !(1 << 47), gp),
        (Cr3(0), sup, DATA | 1 << 60, gp),
        (Cr3(0), none, HIGH, None),
    ] {
        for cut in [false, true] {
            assert_eq!(
                increments(user, supervisor, pointer, cut),
                expected,
                "{user:?} {supervisor:?} {pointer:#x} {cut}"
            );
        }
    }
}

#[test]
fn a_page_fault_reports_the_address_without_metadata() {
    let mut rig = rig(Cr3::LAM_U48, Cr4(0));
    let beyond = 0x80_0000_0000 + DATA;
    rig.code(|a| {
        a.mov(rbx, beyond | 0x55 << 52).unwrap();
        a.mov(rax, qword_ptr(rbx)).unwrap();
    });
    assert_eq!(rig.run(20), RunEnd::Asleep);
    assert_eq!((exception(&mut rig), rig.cpu().cr2), (Some(vector::PF), beyond));
}

#[test]
fn the_stack_is_data_and_code_is_not() {
    let tag = 0x2a << 57;
    let mut rig = rig(Cr3::LAM_U57, Cr4(0));
    rig.code(|a| {
        a.mov(rbx, VALUE).unwrap();
        a.bts(rsp, 60).unwrap();
        a.push(rbx).unwrap();
        a.pop(rcx).unwrap();
        a.btr(rsp, 60).unwrap();
        a.mov(rdx, (crate::support::CODE + 0x100) | tag).unwrap();
        a.jmp(rdx).unwrap();
    });
    assert_eq!(rig.run(20), RunEnd::Asleep);
    assert_eq!((exception(&mut rig), rig.cpu().gpr[1]), (Some(vector::GP), VALUE));
}

#[test]
fn the_enabling_bits_exist_with_the_feature_only() {
    for has in [true, false] {
        let model = Model::max_intel();
        let features = model.features();
        let features = if has { *features } else { features.without(Feature::Lam) };
        for register in [3, 4] {
            let mut rig = Rig::with_model(Model::new(model.vendor(), features));
            rig.gate(vector::GP, HANDLER + 16 * u64::from(vector::GP), 0xe, 0, 0);
            rig.code_at(HANDLER + 16 * u64::from(vector::GP), |a| a.hlt().unwrap());
            rig.code(|a| {
                if register == 3 {
                    a.mov(rax, cr3).unwrap();
                    a.bts(rax, 61).unwrap();
                    a.bts(rax, 62).unwrap();
                    a.mov(cr3, rax).unwrap();
                } else {
                    a.mov(rax, cr4).unwrap();
                    a.bts(rax, 28).unwrap();
                    a.mov(cr4, rax).unwrap();
                }
                a.hlt().unwrap();
            });
            assert_eq!(rig.run(20), RunEnd::Asleep);
            let expected = if has { None } else { Some(vector::GP) };
            assert_eq!(exception(&mut rig), expected, "CR{register} {has}");
        }
    }
}
