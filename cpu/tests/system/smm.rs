//! SMI and RSM: the state-save maps of both vendors, the entry state, SMBASE, halt and port restarts
//! (SDM Vol. 3C "System Management Mode", APM Vol. 2 "System-Management Mode").

use crate::legacy::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{Cr0, HostPhysical, RFlags, SegmentName};
use rootmode_cpu::{Message, Model, RunEnd};

const SMBASE: u64 = 0x3_0000;
const RSM: [u8; 2] = [0x0f, 0xaa];

fn rig(model: Model) -> Legacy {
    let mut rig = Legacy::with_model(model);
    // The stack of the legacy machine lies within SMRAM; move it.
    rig.cpu().gpr[4] = 0x2_8000;
    rig
}

fn smi(rig: &mut Legacy) {
    rig.cpu().post(Message::Smi);
    rig.cpu().refresh();
}

#[test]
fn the_handler_starts_flat_in_real_mode_and_rsm_puts_everything_back() {
    // Where the maps keep RIP, RAX, CR0, revision.
    for (model, [rip, rax, cr0, revision], number) in [
        (Model::max_intel(), [0xffd8, 0xff5c, 0xfff8, 0xfefc], 0x3_0101),
        (Model::max_amd(), [0xff78, 0xfff8, 0xff58, 0xfefc], 0x3_0064),
    ] {
        let mut rig = rig(model);
        rig.cpu().gpr[0] = 0x1234_5678_9abc_def0;
        rig.cpu().set_rflags(RFlags(0x3246));
        rig.level(3);
        let before = rig.processor.cpu.clone();
        smi(&mut rig);
        rig.run(0);
        rig.bytes(SMBASE + 0x8000, &[0xf4]);
        assert_eq!(rig.run(5), RunEnd::Asleep);
        let cpu = rig.cpu();
        assert!(cpu.smm);
        assert_eq!((cpu.rip, cpu.rflags().0, cpu.cpl, cpu.cr4.0, cpu.dr7), (0x8001, 2, 0, 0, 0x400));
        assert!(!cpu.cr0.intersects(Cr0::PE | Cr0::PG | Cr0::TS | Cr0::EM));
        let cs = *cpu.segment(SegmentName::Cs);
        assert_eq!((cs.selector.0, cs.base, cs.limit), (0x3000, SMBASE, u32::MAX));
        let ds = *cpu.segment(SegmentName::Ds);
        assert_eq!((ds.selector.0, ds.base, ds.limit), (0, 0, u32::MAX));
        assert_eq!(rig.read(SMBASE + rip), CODE);
        assert_eq!(rig.read(SMBASE + rax), 0x1234_5678_9abc_def0);
        assert_eq!(rig.read(SMBASE + cr0), before.cr0.0);
        assert_eq!(rig.get(SMBASE + revision), number);

        // The handler changes RAX in the area and returns.
        rig.put(SMBASE + rax, 42);
        rig.bytes(SMBASE + 0x8001, &RSM);
        rig.cpu().activity = rootmode_cpu::Activity::Active;
        rig.cpu().refresh();
        rig.run(1);
        let cpu = rig.cpu();
        assert!(!cpu.smm && !cpu.nmi_blocked);
        assert_eq!(cpu.gpr[0], 42);
        assert_eq!((cpu.rip, cpu.cpl, cpu.cr0, cpu.rflags()), (before.rip, 3, before.cr0, before.rflags()));
        for (now, then) in cpu.segments.iter().zip(before.segments) {
            // AMD's map shows an unusable segment as one that is not present.
            let rights = [now.rights, then.rights].map(|r| if r.is_usable() { r.0 } else { 0 });
            assert_eq!((now.selector, now.base, now.limit), (then.selector, then.base, then.limit));
            assert_eq!(rights[0], rights[1]);
        }
        assert_eq!((cpu.gdtr, cpu.idtr), (before.gdtr, before.idtr));
    }
}

#[test]
fn rsm_outside_smm_is_undefined() {
    assert_eq!(rig(Model::max_intel()).instruction(&RSM), Err((6, CODE)));
}

#[test]
fn a_halted_processor_halts_again() {
    for (model, field) in [(Model::max_intel(), 0xff02), (Model::max_amd(), 0xfec9)] {
        for again in [true, false] {
            let mut rig = rig(model.clone());
            rig.bytes(CODE, &[0xf4, 0x40, 0xf4]);
            rig.bytes(SMBASE + 0x8000, &RSM);
            assert_eq!(rig.run(5), RunEnd::Asleep);
            if !again {
                // The handler clears the flag: MOV BYTE [field], 0; RSM.
                let mut code = vec![0x2e, 0xc6, 0x06];
                code.extend((field as u16).to_le_bytes());
                code.extend([0, 0x0f, 0xaa]);
                rig.bytes(SMBASE + 0x8000, &code);
            }
            smi(&mut rig);
            assert_eq!(rig.run(10), RunEnd::Asleep);
            assert_eq!((rig.get(SMBASE + field) & 1 == 1, rig.cpu().gpr[0]), (again, u64::from(!again)));
        }
    }
}

#[test]
fn smbase_moves_with_rsm_and_a_second_smi_waits() {
    let mut rig = rig(Model::max_intel());
    rig.bytes(CODE, &[0xeb, 0xfe]);
    // MOV DWORD CS:[0xFEF8], 0x40000; RSM.
    rig.bytes(SMBASE + 0x8000, &[0x2e, 0x66, 0xc7, 0x06, 0xf8, 0xfe, 0, 0, 4, 0, 0x0f, 0xaa]);
    rig.bytes(0x4_8000, &[0xf4]);
    smi(&mut rig);
    rig.run(1);
    smi(&mut rig);
    assert_eq!(rig.run(10), RunEnd::Asleep);
    assert_eq!(rig.cpu().segment(SegmentName::Cs).base, 0x4_0000);
}

#[test]
fn a_port_instruction_can_be_restarted() {
    for (model, misc, expected, restart) in [
        (Model::max_intel(), 0xffa4_u64, 0x0080_0083_u64, 0xff00_u64),
        (Model::max_amd(), 0xfec0, 0x0080_0012, 0xfec8),
    ] {
        let mut rig = rig(model);
        // OUT 0x80, AL; HLT. The SMI comes behind OUT.
        rig.bytes(CODE, &[0xe6, 0x80, 0xf4]);
        rig.run(1);
        smi(&mut rig);
        // MOV BYTE CS:[restart], 0xFF; RSM.
        let mut code = vec![0x2e, 0xc6, 0x06];
        code.extend((restart as u16).to_le_bytes());
        code.extend([0xff, 0x0f, 0xaa]);
        rig.bytes(SMBASE + 0x8000, &code);
        rig.run(2);
        assert_eq!(rig.get(SMBASE + misc), expected);
        assert_eq!(rig.cpu().rip, CODE, "OUT again");
    }
}

#[test]
fn rsm_of_an_impossible_state_shuts_down() {
    let mut rig = rig(Model::max_intel());
    smi(&mut rig);
    rig.bytes(SMBASE + 0x8000, &[0x90, 0x0f, 0xaa]);
    rig.run(1);
    // PG without PE.
    rig.memory.write_u64(HostPhysical(SMBASE + 0xfff8), 0x8000_0010);
    assert_eq!(rig.run(5), RunEnd::Stop(Stop::TripleFault));
}
