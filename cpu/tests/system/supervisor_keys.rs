//! Protection keys of supervisor pages (SDM Vol. 3A "Protection Keys", 325462-083).

use crate::support::{DATA, Rig};
use iced_x86::code_asm::*;
use rootmode_arch::{Cr4, Feature, HostPhysical, vector};
use rootmode_cpu::{Model, RunEnd};

const HANDLER: u64 = 0x1_8000;
const PKRS: u32 = 0x6e1;

/// Writes IA32_PKRS and stores to a supervisor page with key 1: the fault's vector and error code, or nothing.
fn outcome(has: bool, value: u64, write: bool) -> Option<(u8, u64)> {
    let model = Model::max_intel();
    let features =
        if has { model.features().with(Feature::Pks) } else { model.features().without(Feature::Pks) };
    let mut rig = Rig::with_model(Model::new(model.vendor(), features));
    // The second 2-MiB page is the first one's memory again, for the supervisor, with key 1.
    rig.memory.write_u64(HostPhysical(0x3000 + 8), 1 << 59 | 0x83);
    for v in [vector::GP, vector::PF] {
        rig.gate(v, HANDLER + 16 * u64::from(v), 0xe, 0, 0);
        rig.code_at(HANDLER + 16 * u64::from(v), |a| a.hlt().unwrap());
    }
    let cpu = rig.cpu();
    if has {
        cpu.cr4 = cpu.cr4 | Cr4::PKS;
        cpu.refresh();
    }
    rig.code(|a| {
        a.mov(ecx, PKRS).unwrap();
        a.mov(eax, value as u32).unwrap();
        a.mov(edx, (value >> 32) as u32).unwrap();
        a.wrmsr().unwrap();
        a.mov(ebx, (0x20_0000 + DATA) as u32).unwrap();
        if write {
            a.mov(qword_ptr(rbx), rax).unwrap();
        } else {
            a.mov(rax, qword_ptr(rbx)).unwrap();
        }
        a.hlt().unwrap();
    });
    assert_eq!(rig.run(100), RunEnd::Asleep);
    let (rip, top) = (rig.cpu().rip, rig.cpu().gpr[4]);
    (HANDLER..HANDLER + 0x1000).contains(&rip).then(|| (((rip - HANDLER) / 16) as u8, rig.read(top)))
}

#[test]
fn the_rights_of_a_key_follow_ia32_pkrs() {
    // Bits 2 and 3 are key 1's access disable and write disable. Error code: protection, write, key.
    for (value, write, expected) in [
        (0, true, None),
        (4, false, Some((vector::PF, 0x21))),
        (4, true, Some((vector::PF, 0x23))),
        (8, false, None),
        (8, true, Some((vector::PF, 0x23))),
        (0x33, true, None),
        (1 << 32, true, Some((vector::GP, 0))),
    ] {
        assert_eq!(outcome(true, value, write), expected, "{value:#x} {write}");
    }
    assert_eq!(outcome(false, 0, true), Some((vector::GP, 0)));
}
