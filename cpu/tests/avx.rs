//! AVX state: who may use it, what the encodings do to the upper halves, how it is saved, and where gathers and masked moves
//! stop.

mod support;

use iced_x86::code_asm::*;
use rootmode_arch::{Cr0, Cr4, Feature, HostPhysical, RFlags, SegmentName, vector};
use rootmode_cpu::{Cpu, Model};
use support::*;

const HANDLERS: u64 = 0x8000;

/// A rig that enables AVX; handlers do not return.
fn rig() -> Rig {
    rig_of(Model::max_intel())
}

fn rig_of(model: Model) -> Rig {
    let mut rig = Rig::with_model(model);
    let cpu = rig.cpu();
    cpu.cr4 = cpu.cr4 | Cr4::OSXSAVE | Cr4::OSXMMEXCPT;
    cpu.xcr0 = 7;
    cpu.refresh();
    for vector in 0..32 {
        rig.gate(vector, HANDLERS + u64::from(vector) * 16, 0xe, 0, 0);
    }
    rig
}

/// The exception that the code at [`CODE`] led to after `ticks` ticks.
fn raised(rig: &mut Rig, ticks: u64) -> Option<u8> {
    rig.cpu().rip = CODE;
    rig.run(ticks);
    let rip = rig.cpu().rip;
    (HANDLERS..HANDLERS + 32 * 16).contains(&rip).then(|| ((rip - HANDLERS) / 16) as u8)
}

fn fill(cpu: &mut Cpu) {
    for n in 0..16_u8 {
        let value = u128::from(n + 1) * 0x0101_0101_0101_0101_0101_0101_0101_0101;
        cpu.vectors.set_halves(n, [value, !value]);
    }
}

#[test]
fn avx_needs_its_state_enabled() {
    let run = |change: fn(&mut Cpu)| {
        let mut rig = rig();
        rig.code(|a| a.vaddps(ymm1, ymm2, ymm3).unwrap());
        change(rig.cpu());
        rig.cpu().refresh();
        raised(&mut rig, 1)
    };
    assert_eq!(run(|_| ()), None);
    assert_eq!(run(|cpu| cpu.cr4 = cpu.cr4.without(Cr4::OSXSAVE)), Some(vector::UD));
    assert_eq!(run(|cpu| cpu.xcr0 = 3), Some(vector::UD));
    assert_eq!(run(|cpu| cpu.cr0 = cpu.cr0.with(Cr0::TS)), Some(vector::NM));
    let both = |cpu: &mut Cpu| {
        cpu.xcr0 = 1;
        cpu.cr0 = cpu.cr0.with(Cr0::TS);
    };
    assert_eq!(run(both), Some(vector::UD), "#UD goes first");
    // CR0.EM and CR4.OSFXSR are about legacy encodings.
    assert_eq!(run(|cpu| cpu.cr0 = cpu.cr0.with(Cr0::EM)), None);
    assert_eq!(run(|cpu| cpu.cr4 = cpu.cr4.without(Cr4::OSFXSR)), None);
}

#[test]
fn processors_without_avx_have_no_vex_prefix_for_vectors() {
    let features = Model::max_intel().features().without_all(&[
        Feature::Avx,
        Feature::Avx2,
        Feature::Fma,
        Feature::F16c,
        Feature::Vaes,
        Feature::Vpclmulqdq,
    ]);
    let model = Model::new(rootmode_arch::Vendor::Intel, features);
    assert_eq!(model.cpuid(0xd, 0, Cr4(0), 0)[0] & 4, 0);
    let mut rig = rig_of(model);
    rig.code(|a| a.vaddps(xmm1, xmm2, xmm3).unwrap());
    assert_eq!(raised(&mut rig, 1), Some(vector::UD));
}

#[test]
fn real_and_virtual_8086_mode_have_no_vex_prefix() {
    for virtual_8086 in [false, true] {
        let mut rig = rig();
        // VADDPS YMM1, YMM2, YMM3; the interrupt table and the handlers are zeros and HLT.
        rig.memory.write(HostPhysical(0xc000), &[0xc5, 0xec, 0x58, 0xcb]);
        let cpu = rig.cpu();
        if virtual_8086 {
            cpu.set_rflags(RFlags::ONE | RFlags::VM);
            cpu.cpl = 3;
        } else {
            cpu.cr0 = cpu.cr0.without(Cr0::PE | Cr0::PG);
        }
        cpu.efer = rootmode_arch::Efer::default();
        cpu.cr0 = cpu.cr0.without(Cr0::PG);
        let code = cpu.segment_mut(SegmentName::Cs);
        (code.base, code.limit, code.rights) = (0xc000, 0xffff, rootmode_arch::AccessRights(0xf3));
        code.selector = rootmode_arch::Selector(0xc00);
        cpu.rip = 0;
        fill(cpu);
        cpu.refresh();
        let before = cpu.vectors.clone();
        rig.run(1);
        assert_eq!(rig.cpu().vectors, before, "virtual-8086: {virtual_8086}");
        assert_ne!(rig.cpu().rip, 4, "virtual-8086: {virtual_8086}");
    }
}

#[test]
fn legacy_encodings_keep_the_upper_half_and_vex_clears_it() {
    let mut rig = rig();
    fill(rig.cpu());
    let [_, upper] = rig.cpu().vectors.halves(1);
    rig.code(|a| {
        a.paddb(xmm1, xmm2).unwrap();
        a.vpaddb(xmm1, xmm1, xmm2).unwrap();
        a.vpaddb(ymm3, ymm4, ymm5).unwrap();
    });
    assert_eq!(raised(&mut rig, 1), None);
    assert_eq!(rig.cpu().vectors.halves(1), [0x0505_0505_0505_0505_0505_0505_0505_0505, upper]);
    rig.run(2);
    let vectors = &rig.cpu().vectors;
    assert_eq!(vectors.halves(1), [0x0808_0808_0808_0808_0808_0808_0808_0808, 0]);
    // 0xfa + 0xf9.
    let sums = [0x0b0b_0b0b_0b0b_0b0b_0b0b_0b0b_0b0b_0b0b, 0xf3f3_f3f3_f3f3_f3f3_f3f3_f3f3_f3f3_f3f3];
    assert_eq!(vectors.halves(3), sums);
}

#[test]
fn vzeroupper_and_vzeroall_reach_what_the_mode_can_name() {
    for (wide, all) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut rig = rig();
        fill(rig.cpu());
        let before = rig.cpu().vectors.clone();
        if !wide {
            // Compatibility mode.
            let rights = rootmode_arch::AccessRights(0xc09b);
            rig.cpu().segment_mut(SegmentName::Cs).rights = rights;
            rig.cpu().refresh();
        }
        rig.memory.write(HostPhysical(CODE), if all { &[0xc5, 0xfc, 0x77] } else { &[0xc5, 0xf8, 0x77] });
        assert_eq!(raised(&mut rig, 1), None);
        for n in 0..16 {
            let [low, high] = before.halves(n);
            let expected = match (n < 8 || wide, all) {
                (false, _) => [low, high],
                (true, false) => [low, 0],
                (true, true) => [0, 0],
            };
            assert_eq!(rig.cpu().vectors.halves(n), expected, "YMM{n}, {wide} {all}");
        }
    }
}

/// An XSAVE area at [`DATA`] in standard and compacted format, and back.
#[test]
fn upper_halves_are_saved_and_restored_as_component_2() {
    for model in [Model::max_intel(), Model::max_amd()] {
        let mut rig = rig_of(model);
        for (compacted, at) in [(false, DATA), (true, DATA + 0x1000)] {
            rig.memory.write(HostPhysical(at), &[0; 0x1000]);
            fill(rig.cpu());
            let before = rig.cpu().vectors.clone();
            rig.code(|a| {
                a.mov(rdi, at).unwrap();
                a.mov(eax, 7).unwrap();
                a.xor(edx, edx).unwrap();
                if compacted { a.xsavec(ptr(rdi)) } else { a.xsave(ptr(rdi)) }.unwrap();
                a.vzeroall().unwrap();
                a.xrstor(ptr(rdi)).unwrap();
            });
            assert_eq!(raised(&mut rig, 5), None);
            assert_eq!(rig.cpu().vectors.halves(5), [0, 0]);
            assert_eq!(rig.read(at + 512) & 6, 6, "SSE and AVX are in use");
            assert_eq!(rig.read(at + 520), if compacted { 1 << 63 | 7 } else { 0 });
            // YMM_Hi128 is at 576 in both formats, for it is the first.
            let [_, upper] = before.halves(1);
            assert_eq!(rig.read(at + 576 + 16), upper as u64);
            assert_eq!(rig.run(1), rootmode_cpu::RunEnd::Budget);
            assert_eq!(rig.cpu().vectors.ymm, before.ymm);
            // Without bit 2 in XSTATE_BV they take their initial values.
            rig.memory.write_u64(HostPhysical(at + 512), 3);
            rig.code(|a| a.xrstor(ptr(rdi)).unwrap());
            assert_eq!(raised(&mut rig, 1), None);
            assert_eq!(rig.cpu().vectors.halves(5), [before.halves(5)[0], 0]);
        }
    }
}

#[test]
fn compatibility_mode_saves_eight_registers() {
    let mut rig = rig();
    fill(rig.cpu());
    rig.memory.write(HostPhysical(DATA), &[0; 1024]);
    rig.cpu().segment_mut(SegmentName::Cs).rights = rootmode_arch::AccessRights(0xc09b);
    let cpu = rig.cpu();
    (cpu.gpr[0], cpu.gpr[2], cpu.gpr[7]) = (6, 0, DATA);
    cpu.refresh();
    // XSAVE [EDI].
    rig.memory.write(HostPhysical(CODE), &[0x0f, 0xae, 0x27]);
    assert_eq!(raised(&mut rig, 1), None);
    assert_ne!(rig.read(DATA + 576 + 16 * 7), 0);
    assert_eq!(rig.read(DATA + 576 + 16 * 8), 0);
}

#[test]
fn xgetbv_tells_whether_upper_halves_are_in_use() {
    let mut rig = rig();
    rig.code(|a| {
        a.mov(ecx, 1).unwrap();
        a.xgetbv().unwrap();
    });
    assert_eq!(raised(&mut rig, 2), None);
    assert_eq!(rig.cpu().gpr[0] & 4, 0);
    rig.cpu().vectors.set_halves(3, [0, 1]);
    assert_eq!(raised(&mut rig, 2), None);
    assert_eq!(rig.cpu().gpr[0] & 4, 4);
}

#[test]
fn leaf_0xd_has_the_component() {
    for model in [Model::max_intel(), Model::max_amd()] {
        assert_eq!(model.cpuid(0xd, 0, Cr4(0), 0)[0] & 7, 7);
        assert_eq!(model.cpuid(0xd, 2, Cr4(0), 0), [256, 576, 0, 0]);
    }
}

/// The page behind [`DATA`] does not exist.
fn without_second_page(rig: &mut Rig) {
    // 4-KByte pages for the first 2 MBytes.
    for n in 0..512_u64 {
        let present = if n == DATA / 4096 + 1 { 0 } else { 7 };
        rig.memory.write_u64(HostPhysical(0x4000 + n * 8), n << 12 | present);
    }
    rig.memory.write_u64(HostPhysical(0x3000), 0x4000 | 7);
}

#[test]
fn a_gather_keeps_what_it_has_when_an_element_faults() {
    let mut rig = rig();
    without_second_page(&mut rig);
    for n in 0..8_u64 {
        rig.memory.write_u64(HostPhysical(DATA + 8 * n), 0x1111 * (n + 1));
    }
    let cpu = rig.cpu();
    cpu.gpr[0] = DATA;
    let lanes = |values: [u32; 4]| values.iter().rev().fold(0, |all, v| all << 32 | u128::from(*v));
    // Element 2 lies on the missing page, element 1 is not asked for.
    cpu.vectors.set_halves(1, [lanes([1, 512, 513, 3]), lanes([4, 5, 6, 7])]);
    cpu.vectors.set_halves(2, [!lanes([0, u32::MAX, 0, 0]), u128::MAX]);
    cpu.vectors.set_halves(3, [lanes([9, 9, 9, 9]), lanes([9, 9, 9, 9])]);
    // VPGATHERDD YMM3, [RAX + YMM1 * 8], YMM2.
    rig.memory.write(HostPhysical(CODE), &[0xc4, 0xe2, 0x6d, 0x90, 0x1c, 0xc8]);
    assert_eq!(raised(&mut rig, 1), Some(vector::PF));
    assert_eq!(rig.cpu().cr2, DATA + 513 * 8);
    let vectors = &rig.cpu().vectors;
    assert_eq!(vectors.halves(3)[0], lanes([0x2222, 9, 9, 9]));
    assert_eq!(vectors.halves(2), [lanes([0, 0, u32::MAX, u32::MAX]), u128::MAX], "element 0 is done");
    // With the page it goes on.
    rig.memory.write_u64(HostPhysical(0x4000 + (DATA / 4096 + 1) * 8), DATA + 0x1000 | 7);
    rig.memory.write_u64(HostPhysical(DATA + 513 * 8), 0x77);
    rig.memory.write_u64(HostPhysical(DATA + 8), 0);
    assert_eq!(raised(&mut rig, 1), None);
    let vectors = &rig.cpu().vectors;
    assert_eq!(vectors.halves(3)[0], lanes([0x2222, 9, 0x77, 0x4444]), "element 0 is not read again");
    assert_eq!(vectors.halves(3)[1], lanes([0x5555, 0x6666, 0x7777, 0x8888]));
    assert_eq!(vectors.halves(2), [0, 0]);
}

#[test]
fn masked_moves_do_not_touch_what_is_masked() {
    let mut rig = rig();
    without_second_page(&mut rig);
    let cpu = rig.cpu();
    cpu.gpr[0] = DATA + 0x1000 - 8;
    // The lower two elements of four exist.
    cpu.vectors.set_halves(1, [u128::from(u64::MAX), 0]);
    cpu.vectors.set_halves(2, [0x0000_0004_0000_0003_0000_0002_0000_0001, 0]);
    rig.code(|a| {
        a.vpmaskmovd(dword_ptr(rax), xmm1, xmm2).unwrap();
        a.vpmaskmovd(xmm3, xmm1, dword_ptr(rax)).unwrap();
        a.vpcmpeqd(xmm1, xmm1, xmm1).unwrap();
        a.vpmaskmovd(dword_ptr(rax), xmm1, xmm4).unwrap();
    });
    assert_eq!(raised(&mut rig, 3), None);
    assert_eq!(rig.read(DATA + 0x1000 - 8), 0x0000_0002_0000_0001);
    assert_eq!(rig.cpu().vectors.halves(3), [0x0000_0002_0000_0001, 0]);
    assert_eq!(rig.run(1), rootmode_cpu::RunEnd::Budget);
    assert_eq!(
        rig.cpu().cr2,
        DATA + 0x1007,
        "all elements are asked for, and the last byte tells it on Intel's parts"
    );
    assert_eq!(rig.read(DATA + 0x1000 - 8), 0x0000_0002_0000_0001, "nothing was stored");
}

#[test]
fn vex_operands_in_memory_need_no_alignment_but_for_aligned_moves() {
    let mut rig = rig();
    rig.cpu().gpr[0] = DATA + 8;
    rig.code(|a| {
        a.vaddps(xmm1, xmm2, xmmword_ptr(rax)).unwrap();
        a.vaddps(ymm1, ymm2, ymmword_ptr(rax)).unwrap();
        a.vmovups(ymm1, ymmword_ptr(rax)).unwrap();
        a.vmovaps(ymm1, ymmword_ptr(rax)).unwrap();
    });
    assert_eq!(raised(&mut rig, 3), None);
    assert_eq!(rig.run(1), rootmode_cpu::RunEnd::Budget);
    assert_eq!(rig.cpu().rip, HANDLERS + 16 * u64::from(vector::GP));
    // 16 bytes are not enough for a YMM register.
    rig.cpu().gpr[0] = DATA + 16;
    rig.code(|a| {
        a.vmovaps(xmm1, xmmword_ptr(rax)).unwrap();
        a.vmovaps(ymm1, ymmword_ptr(rax)).unwrap();
    });
    assert_eq!(raised(&mut rig, 1), None);
    assert_eq!(rig.run(1), rootmode_cpu::RunEnd::Budget);
    assert_eq!(rig.cpu().rip, HANDLERS + 16 * u64::from(vector::GP));
}
