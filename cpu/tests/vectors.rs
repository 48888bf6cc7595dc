//! x87, MMX and SSE as parts of the processor: what gates them, what faults, layouts in memory, CPUID and XCR0.

mod support;

use rootmode_arch::{Cr0, Cr4, HostPhysical};
use rootmode_cpu::{F80, Model, RunEnd};
use support::*;

/// Where vector `n`'s handler lies: `HANDLERS + 16 * n`.
const HANDLERS: u64 = 0x8000;
const UD: u64 = 6;
const NM: u64 = 7;
const GP: u64 = 13;
const PF: u64 = 14;
const MF: u64 = 16;
const XM: u64 = 19;

fn rig() -> Rig {
    let mut rig = Rig::new();
    for vector in 0..32 {
        rig.gate(vector, HANDLERS + u64::from(vector) * 16, 0xe, 0, 0);
    }
    rig.cpu().gpr[6] = DATA;
    rig
}

/// Runs one instruction: the vector that it raised, if any.
fn step(rig: &mut Rig, bytes: &[u8]) -> Option<u64> {
    rig.memory.write(HostPhysical(CODE), bytes);
    rig.cpu().rip = CODE;
    rig.cpu().gpr[4] = STACK;
    assert_eq!(rig.run(1), RunEnd::Budget);
    let rip = rig.cpu().rip;
    (rip < CODE).then(|| (rip - HANDLERS) / 16)
}

const ADDPS_MEMORY: &[u8] = &[0x0f, 0x58, 0x06];
const MOVUPS_MEMORY: &[u8] = &[0x0f, 0x10, 0x06];
const MOVUPS_STORE: &[u8] = &[0x0f, 0x11, 0x06];
const PADDB_MMX: &[u8] = &[0x0f, 0xfc, 0xc1];
const FADD: &[u8] = &[0xd8, 0xc1];
const FNINIT: &[u8] = &[0xdb, 0xe3];
const WAIT: &[u8] = &[0x9b];
const SFENCE: &[u8] = &[0x0f, 0xae, 0xf8];
const FXSAVE: &[u8] = &[0x0f, 0xae, 0x06];
const XSAVE: &[u8] = &[0x0f, 0xae, 0x26];
const DIVSD: &[u8] = &[0xf2, 0x0f, 0x5e, 0xc1];

/// Tables 2 of SDM Vol. 3A "System Programming for Instruction Set Extensions": what EM, TS, MP and OSFXSR do to whom.
#[test]
fn control_registers_gate_each_register_file() {
    // (EM, TS, MP, OSFXSR), then what ADDPS, PADDB mm, FADD, WAIT and SFENCE raise.
    let table = [
        ((0, 0, 1, 1), [None, None, None, None, None]),
        ((1, 0, 1, 1), [Some(UD), Some(UD), Some(NM), None, None]),
        ((0, 1, 1, 1), [Some(NM), Some(NM), Some(NM), Some(NM), None]),
        ((0, 1, 0, 1), [Some(NM), Some(NM), Some(NM), None, None]),
        ((0, 0, 1, 0), [Some(UD), None, None, None, None]),
        ((1, 1, 0, 0), [Some(UD), Some(UD), Some(NM), None, None]),
    ];
    for ((em, ts, mp, osfxsr), expected) in table {
        let mut rig = rig();
        step(&mut rig, FNINIT);
        let cpu = rig.cpu();
        cpu.cr0 = cpu.cr0.set(Cr0::EM, em == 1).set(Cr0::TS, ts == 1).set(Cr0::MP, mp == 1);
        cpu.cr4 = cpu.cr4.set(Cr4::OSFXSR, osfxsr == 1);
        for (bytes, wanted) in [ADDPS_MEMORY, PADDB_MMX, FADD, WAIT, SFENCE].iter().zip(expected) {
            assert_eq!(
                step(&mut rig, bytes),
                wanted,
                "{bytes:x?} with EM {em} TS {ts} MP {mp} OSFXSR {osfxsr}"
            );
        }
    }
}

#[test]
fn an_unmasked_simd_exception_needs_its_handler_enabled_and_writes_nothing_but_its_flag() {
    for (enabled, wanted) in [(true, XM), (false, UD)] {
        let mut rig = rig();
        let cpu = rig.cpu();
        cpu.cr4 = cpu.cr4.set(Cr4::OSXMMEXCPT, enabled);
        cpu.vectors.set_xmm(0, u128::from(1.0_f64.to_bits()));
        cpu.vectors.set_xmm(1, 0);
        cpu.vectors.mxcsr = 0x1f80 & !0x200;
        assert_eq!(step(&mut rig, DIVSD), Some(wanted));
        assert_eq!(rig.cpu().vectors.xmm(0), u128::from(1.0_f64.to_bits()));
        assert_eq!(rig.cpu().vectors.mxcsr & 0x3f, 4);
    }
}

#[test]
fn a_pending_x87_exception_reaches_the_next_waiting_instruction_only() {
    let mut rig = rig();
    step(&mut rig, FNINIT);
    // Invalid is unmasked and the stack is empty: the addition itself completes.
    rig.cpu().vectors.x87.control = 0x37e;
    assert_eq!(step(&mut rig, FADD), None);
    assert_eq!(rig.cpu().vectors.x87.status & 0x80c1, 0x80c1);
    // FNSTSW AX does not wait; FADD, WAIT and MMX do.
    assert_eq!(step(&mut rig, &[0xdf, 0xe0]), None);
    for bytes in [FADD, WAIT, PADDB_MMX] {
        assert_eq!(step(&mut rig, bytes), Some(MF));
    }
    assert_eq!(step(&mut rig, ADDPS_MEMORY), None, "SSE has exceptions of its own");
}

#[test]
fn legacy_sse_operands_of_16_bytes_are_aligned_and_faults_leave_no_trace() {
    let mut rig = rig();
    rig.cpu().gpr[6] = DATA + 8;
    assert_eq!(step(&mut rig, ADDPS_MEMORY), Some(GP));
    assert_eq!(step(&mut rig, MOVUPS_MEMORY), None);
    // The last page of the first 2 MBytes borders on one that is not present.
    rig.memory.write_u64(HostPhysical(0x3008), 0);
    rig.cpu().gpr[6] = 0x20_0000 - 8;
    rig.memory.write_u64(HostPhysical(0x20_0000 - 8), 0x1122_3344_5566_7788);
    rig.cpu().vectors.set_xmm(0, u128::MAX);
    assert_eq!(step(&mut rig, MOVUPS_STORE), Some(PF));
    assert_eq!(rig.cpu().cr2, 0x20_0000);
    assert_eq!(rig.read(0x20_0000 - 8), 0x1122_3344_5566_7788);
    assert_eq!(step(&mut rig, MOVUPS_MEMORY), Some(PF));
    assert_eq!(rig.cpu().vectors.xmm(0), u128::MAX);
}

#[test]
fn mmx_registers_are_the_x87s_and_fxsave_shows_both() {
    let mut rig = rig();
    step(&mut rig, FNINIT);
    let x87 = &mut rig.cpu().vectors.x87;
    x87.registers[0] = F80 { significand: 0x0101_0101_0101_0101, exponent: 0x3fff };
    x87.registers[1] = F80 { significand: 0x0203_0405_0607_08ff, exponent: 0x3fff };
    assert_eq!(step(&mut rig, PADDB_MMX), None);
    assert_eq!(step(&mut rig, FXSAVE), None);
    // All tags are valid, TOP is 0, the exponent is all ones.
    assert_eq!(rig.read(DATA) >> 16 & 0xff_ffff, 0xff_0000);
    assert_eq!(rig.read(DATA + 32), 0x0304_0506_0708_0900);
    assert_eq!(rig.read(DATA + 40), 0xffff);
    assert_eq!(rig.read(DATA + 24), 0xffff_0000_1f80);
    // It wants 16-byte alignment.
    rig.cpu().gpr[6] = DATA + 8;
    assert_eq!(step(&mut rig, FXSAVE), Some(GP));
}

#[test]
fn fnstenv_has_the_protected_mode_layout_and_masks_everything() {
    let mut rig = rig();
    step(&mut rig, FNINIT);
    // FLD1 at the code address; then FNSTENV in 28 bytes.
    assert_eq!(step(&mut rig, &[0xd9, 0xe8]), None);
    rig.cpu().vectors.x87.control = 0x340;
    assert_eq!(step(&mut rig, &[0xd9, 0x36]), None);
    let words: Vec<u32> = (0..7).map(|n| rig.memory.read_u32(HostPhysical(DATA + 4 * n))).collect();
    let (control, status, tags) = (0xffff_0340, 0xffff_3800, 0xffff_3fff);
    assert_eq!(words[..5], [control, status, tags, CODE as u32, 0x01e8_0008]);
    assert_eq!(rig.cpu().vectors.x87.control, 0x37f);
}

#[test]
fn xsave_needs_osxsave_and_keeps_the_header_bits_it_was_not_asked_about() {
    let mut rig = rig();
    assert_eq!(step(&mut rig, XSAVE), Some(UD));
    let cpu = rig.cpu();
    cpu.cr4 = cpu.cr4 | Cr4::OSXSAVE;
    cpu.xcr0 = 3;
    cpu.vectors.set_xmm(3, 7);
    (cpu.gpr[0], cpu.gpr[2]) = (2, 0);
    rig.memory.write_u64(HostPhysical(DATA + 512), 1);
    assert_eq!(step(&mut rig, XSAVE), None);
    assert_eq!(rig.read(DATA + 512), 3);
    assert_eq!(rig.read(DATA + 160 + 48), 7);
    assert_eq!(rig.read(DATA), 0, "x87 was not asked for");
    rig.cpu().gpr[6] = DATA + 16;
    assert_eq!(step(&mut rig, XSAVE), Some(GP));
}

#[test]
fn protection_keys_travel_through_save_areas() {
    let mut rig = rig();
    let cpu = rig.cpu();
    cpu.cr4 = cpu.cr4 | Cr4::OSXSAVE;
    cpu.xcr0 = 0x203;
    cpu.pkru = 0x5555_5554;
    (cpu.gpr[0], cpu.gpr[2]) = (0x200, 0);
    // XSAVEC, then XRSTOR in the compacted format.
    assert_eq!(step(&mut rig, &[0x0f, 0xc7, 0x26]), None);
    assert_eq!([rig.read(DATA + 512), rig.read(DATA + 520)], [0x200, 1 << 63 | 0x200]);
    assert_eq!(rig.read(DATA + 576), 0x5555_5554);
    rig.cpu().pkru = 0;
    assert_eq!(step(&mut rig, &[0x0f, 0xae, 0x2e]), None);
    assert_eq!(rig.cpu().pkru, 0x5555_5554);
}

#[test]
fn cpuid_and_xcr0_agree_about_components() {
    for model in [Model::max_intel(), Model::max_amd()] {
        let leaf = |n| model.leaves().get(&(0xd, n)).copied().unwrap_or_default();
        let user = u64::from(leaf(0)[0]) | u64::from(leaf(0)[3]) << 32;
        let ends = (2..63).filter(|n| user >> n & 1 != 0).map(|n| leaf(n)[0] + leaf(n)[1]);
        assert_eq!(ends.max().unwrap_or(576), leaf(0)[2]);
        let mut rig = Rig::with_model(model.clone());
        let cpu = rig.cpu();
        cpu.cr4 = cpu.cr4 | Cr4::OSXSAVE;
        (cpu.gpr[0], cpu.gpr[1], cpu.gpr[2]) = (user & 0xffff_ffff, 0, user >> 32);
        assert_eq!(step(&mut rig, &[0x0f, 0x01, 0xd1]), None, "XSETBV takes what CPUID offers");
        assert_eq!(rig.cpu().xcr0, user);
        // EBX follows XCR0.
        (rig.cpu().gpr[0], rig.cpu().gpr[1]) = (0xd, 0);
        assert_eq!(step(&mut rig, &[0x0f, 0xa2]), None);
        assert_eq!(rig.cpu().gpr[3], u64::from(leaf(0)[2]));
    }
}

/// The manual bounds the relative error of RCPPS and RSQRTPS by 1.5 * 2^-12.
#[test]
fn estimates_stay_within_the_manuals_bound() {
    for model in [Model::max_intel(), Model::max_amd()] {
        let mut rig = Rig::with_model(model);
        for step_bits in (0..0x100_0000_u32).step_by(997) {
            let value = f32::from_bits(0x3f80_0000 + step_bits);
            rig.cpu().vectors.set_xmm(1, u128::from(value.to_bits()));
            for (opcode, exact) in [(0x53, 1.0 / f64::from(value)), (0x52, 1.0 / f64::from(value).sqrt())] {
                assert_eq!(step(&mut rig, &[0xf3, 0x0f, opcode, 0xc1]), None);
                let found = f64::from(f32::from_bits(rig.cpu().vectors.xmm(0) as u32));
                let error = ((found - exact) / exact).abs();
                assert!(error <= 1.5 / 4096.0, "{value}: {found} instead of {exact}");
            }
        }
    }
}
