//! INVPCID's check of the address in its descriptor.

use crate::support::{DATA, Rig};
use iced_x86::code_asm::*;
use rootmode_arch::{Feature, HostPhysical, vector};
use rootmode_cpu::{Model, RunEnd};

const HANDLER: u64 = 0x1_8000;

#[test]
fn an_address_is_checked_against_the_widest_that_the_part_has() {
    // Address, whether the part has 57-bit addresses, whether type 0 faults. Paging has four levels throughout.
    let rows = [
        (0xffaa_aaaa_aaaa_aaaa, true, false),
        (0xffaa_aaaa_aaaa_aaaa, false, true),
        (0x00ff_ffff_ffff_ffff, true, false),
        (0x00ff_ffff_ffff_ffff, false, true),
        (0x0100_0000_0000_0000, true, true),
        (0xaaaa_aaaa_aaaa_aaaa, true, true),
        (0xffff_8000_0000_0000, false, false),
    ];
    for (address, wide, faults) in rows {
        let model = Model::max_intel();
        let features = if wide { *model.features() } else { model.features().without(Feature::La57) };
        let mut rig = Rig::with_model(Model::new(model.vendor(), features));
        rig.gate(vector::GP, HANDLER, 0xe, 0, 0);
        rig.code_at(HANDLER, |a| a.hlt().unwrap());
        rig.memory.write_u64(HostPhysical(DATA), 0);
        rig.memory.write_u64(HostPhysical(DATA + 8), address);
        rig.code(|a| {
            a.xor(eax, eax).unwrap();
            a.mov(ebx, DATA as u32).unwrap();
            a.invpcid(rax, xmmword_ptr(rbx)).unwrap();
            a.hlt().unwrap();
        });
        assert_eq!(rig.run(100), RunEnd::Asleep);
        assert_eq!(rig.cpu().rip == HANDLER + 1, faults, "{address:#x}, 57 bits: {wide}");
    }
}
