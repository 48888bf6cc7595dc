//! The transcendental instructions of the x87 against values that were computed apart from them: fixed-point numbers of 700 bits
//! and Taylor series, rounded to nearest. `native_simd` compares with the host's processor.

mod support;

use iced_x86::{Code, Encoder, Instruction};
use rootmode_arch::HostPhysical;
use rootmode_cpu::F80;
use support::*;

const fn f80(exponent: u16, significand: u64) -> F80 {
    F80 { significand, exponent }
}

/// Instruction, ST(0) and ST(1), result.
type Row = (Code, [F80; 2], F80);

#[rustfmt::skip]
fn table() -> Vec<Row> {
    vec![
        (Code::F2xm1, [f80(0x3ff5, 0xd428_0f16_44dc_da6a), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3ff5, 0x9323_607f_72af_e307)),
        (Code::F2xm1, [f80(0xbfe5, 0xb0d9_9cff_2481_74e5), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbfe4, 0xf52a_8de8_ca6c_f33a)),
        (Code::F2xm1, [f80(0x3fe8, 0xa314_026d_7b87_a9e2), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fe7, 0xe213_087e_884a_7923)),
        (Code::F2xm1, [f80(0x3ff3, 0xeea2_d78e_b0ca_ae1c), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3ff3, 0xa56f_a01a_81db_ca7c)),
        (Code::F2xm1, [f80(0xbfb9, 0xcfe6_dcf0_a94c_56b9), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbfb9, 0x901b_4707_c835_f03a)),
        (Code::F2xm1, [f80(0xbff1, 0x94c5_2cfc_5e1e_a978), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbff0, 0xce3b_f760_9722_c528)),
        (Code::F2xm1, [f80(0x3fd3, 0xc9c1_6638_0f0f_1c69), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fd3, 0x8bd8_a2af_f687_fed9)),
        (Code::F2xm1, [f80(0x3fc2, 0xd7ed_d48e_8376_0998), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fc2, 0x95ab_ac16_95e4_34fd)),
        (Code::Fsin, [f80(0xbfec, 0xebd3_dfaf_cc41_9a5e), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbfec, 0xebd3_dfaf_ca2b_eed2)),
        (Code::Fcos, [f80(0xbfec, 0xebd3_dfaf_cc41_9a5e), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3ffe, 0xffff_ffff_f936_0aa0)),
        (Code::Fptan, [f80(0xbfec, 0xebd3_dfaf_cc41_9a5e), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbfec, 0xebd3_dfaf_d06c_f175)),
        (Code::Fsin, [f80(0x3ffd, 0xf51f_d28e_d1d4_d2b3), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3ffd, 0xebdd_ed17_63fe_dfc8)),
        (Code::Fcos, [f80(0x3ffd, 0xf51f_d28e_d1d4_d2b3), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3ffe, 0xe337_a0fb_b5f9_c8d5)),
        (Code::Fptan, [f80(0x3ffd, 0xf51f_d28e_d1d4_d2b3), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3ffe, 0x84df_657d_e197_5558)),
        (Code::Fsin, [f80(0x3fd5, 0xfea6_5c59_174a_554f), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fd5, 0xfea6_5c59_174a_554f)),
        (Code::Fcos, [f80(0x3fd5, 0xfea6_5c59_174a_554f), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fff, 0x8000_0000_0000_0000)),
        (Code::Fptan, [f80(0x3fd5, 0xfea6_5c59_174a_554f), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fd5, 0xfea6_5c59_174a_554f)),
        (Code::Fsin, [f80(0xc016, 0xd497_35ca_1cce_9c77), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbffd, 0xca4a_8d1d_fe68_9fc1)),
        (Code::Fcos, [f80(0xc016, 0xd497_35ca_1cce_9c77), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3ffe, 0xeb2b_dde4_70a0_5975)),
        (Code::Fptan, [f80(0xc016, 0xd497_35ca_1cce_9c77), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbffd, 0xdc35_2e18_e1b4_d017)),
        (Code::Fsin, [f80(0x3fca, 0xa801_555a_8a1c_0f22), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fca, 0xa801_555a_8a1c_0f22)),
        (Code::Fcos, [f80(0x3fca, 0xa801_555a_8a1c_0f22), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fff, 0x8000_0000_0000_0000)),
        (Code::Fptan, [f80(0x3fca, 0xa801_555a_8a1c_0f22), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fca, 0xa801_555a_8a1c_0f22)),
        (Code::Fsin, [f80(0x401d, 0xfcf2_9e7d_29dc_b79c), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbffd, 0xc543_88fd_8d62_c9fd)),
        (Code::Fcos, [f80(0x401d, 0xfcf2_9e7d_29dc_b79c), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbffe, 0xec3c_9411_99df_2325)),
        (Code::Fptan, [f80(0x401d, 0xfcf2_9e7d_29dc_b79c), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3ffd, 0xd5c4_490d_4b68_1295)),
        (Code::Fsin, [f80(0x3fbf, 0x95ea_57e0_8e1e_5540), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fbf, 0x95ea_57e0_8e1e_5540)),
        (Code::Fcos, [f80(0x3fbf, 0x95ea_57e0_8e1e_5540), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fff, 0x8000_0000_0000_0000)),
        (Code::Fptan, [f80(0x3fbf, 0x95ea_57e0_8e1e_5540), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x3fbf, 0x95ea_57e0_8e1e_5540)),
        (Code::Fsin, [f80(0xbfff, 0xcdc0_8fa3_6688_64bf), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbffe, 0xffd4_01ff_c45c_83a1)),
        (Code::Fcos, [f80(0xbfff, 0xcdc0_8fa3_6688_64bf), f80(0x0000, 0x0000_0000_0000_0000)], f80(0xbffa, 0x960e_0727_97d8_7973)),
        (Code::Fptan, [f80(0xbfff, 0xcdc0_8fa3_6688_64bf), f80(0x0000, 0x0000_0000_0000_0000)], f80(0x4003, 0xda3a_1ad5_7694_8ce0)),
        (Code::Fyl2x, [f80(0x4011, 0xbd06_bded_7837_0ed4), f80(0xc007, 0xc544_6033_6273_ed06)], f80(0xc00b, 0xe4dc_25e7_b929_1cd9)),
        (Code::Fyl2x, [f80(0x3fff, 0x8000_0000_0005_cf5f), f80(0xc013, 0xa17a_ebaf_a9e1_6e27)], f80(0xbfe7, 0xa931_7a54_1926_7806)),
        (Code::Fyl2x, [f80(0x4003, 0xa7aa_e39e_ac7c_603b), f80(0xbfe8, 0x9e13_9394_409b_d305)], f80(0xbfea, 0xad77_b29b_4229_7841)),
        (Code::Fyl2x, [f80(0x3fff, 0x8000_0000_0006_183a), f80(0xc014, 0xc000_65b0_c3dc_69fc)], f80(0xbfe8, 0xd306_c898_4e3b_c64a)),
        (Code::Fyl2x, [f80(0x4006, 0xc26e_80fd_085f_fef8), f80(0xbfe2, 0xd67b_d78a_38df_ffb7)], f80(0xbfe5, 0xcbd7_dbf5_65ea_c45e)),
        (Code::Fyl2x, [f80(0x3fff, 0x8000_0000_0002_d94a), f80(0x4007, 0xe06b_fe62_1a44_db6e)], f80(0x3fda, 0xe696_e5c6_5384_db54)),
        (Code::Fyl2x, [f80(0x3fef, 0xa30b_739e_b226_35cb), f80(0xbfe3, 0xa365_e9aa_6ef8_b434)], f80(0x3fe7, 0x9fd5_2c6c_b524_18fc)),
        (Code::Fyl2x, [f80(0x3fff, 0x8000_0000_0005_6f3e), f80(0xbfe4, 0xbac9_1930_8396_ae9b)], f80(0xbfb8, 0xb70f_0ca0_c3b3_1bb1)),
        (Code::Fyl2xp1, [f80(0x3fd5, 0xbcf6_2ad1_74a4_3821), f80(0x4004, 0xfa5a_aa36_3d6a_e5bd)], f80(0x3fdc, 0x854d_04a8_85d3_a76e)),
        (Code::Fyl2xp1, [f80(0x3fcd, 0xf64d_d0cc_76f8_6037), f80(0x3ffa, 0xe21a_a3db_3071_86cf)], f80(0x3fca, 0x9cec_146c_4573_dddf)),
        (Code::Fyl2xp1, [f80(0x3ff2, 0xf4bd_c9ee_384a_54c5), f80(0x3ffd, 0xe2a5_67a7_ea5b_1e10)], f80(0x3ff2, 0x9c48_3f05_40d2_28eb)),
        (Code::Fyl2xp1, [f80(0xbff6, 0x96fb_2acf_577f_8847), f80(0x3ff5, 0x851f_78cf_805c_2f63)], f80(0xbfec, 0xe2cc_8189_eb5a_c45f)),
        (Code::Fyl2xp1, [f80(0x3fd2, 0x8edb_013e_9e7b_d62f), f80(0x4006, 0x93d0_b44a_80eb_e557)], f80(0x3fd9, 0xee00_87f7_6c84_e008)),
        (Code::Fyl2xp1, [f80(0x3fc4, 0xa946_4080_ed71_1aba), f80(0x3ffd, 0x8f1e_2496_a3b0_718f)], f80(0x3fc3, 0x8886_fb08_a74e_17bc)),
        (Code::Fpatan, [f80(0x3ff9, 0xc37c_812a_c8bf_b0f0), f80(0xbff9, 0xbeb0_0c9c_7a36_21f5)], f80(0xbffe, 0xc5e1_894a_9609_c238)),
        (Code::Fpatan, [f80(0x4007, 0xde91_802c_e4f2_0d34), f80(0xc007, 0xa54a_04d8_72e4_5d1d)], f80(0xbffe, 0xa386_e125_2e59_84a7)),
        (Code::Fpatan, [f80(0xc000, 0xee5b_5f34_f1a3_ab9f), f80(0x4000, 0xd915_9732_a3e6_36f3)], f80(0x4000, 0x99c8_97b5_9aaa_421a)),
        (Code::Fpatan, [f80(0x3ffd, 0xa0a1_ed28_855e_fa74), f80(0xbfec, 0x8078_fb47_aeec_6a9b)], f80(0xbfed, 0xccbf_289c_60f3_03d6)),
        (Code::Fpatan, [f80(0xbffc, 0x91b6_621e_6b9a_4742), f80(0xbffa, 0xb7b7_38db_3344_cbb0)], f80(0xc000, 0xb585_149f_fa0d_91a1)),
        (Code::Fpatan, [f80(0xc00f, 0xdc01_a88e_9fee_df85), f80(0x3ffb, 0x8504_a824_c2ab_d260)], f80(0x4000, 0xc90f_d837_026f_f6c9)),
        (Code::Fpatan, [f80(0x4004, 0x9978_8f89_ca0b_296a), f80(0x4010, 0xac7a_2994_8e92_e1b8)], f80(0x3fff, 0xc908_bc50_7490_7047)),
        (Code::Fpatan, [f80(0xc003, 0x9499_270b_9036_36cf), f80(0xbfec, 0xdae5_9549_b055_a7f9)], f80(0xc000, 0xc90f_d9e5_9397_3de0)),
    ]
}

/// Runs `code` on ST(0) and ST(1) under the control word, and answers the registers from TOP on and the status word.
fn run(rig: &mut Rig, code: Code, [first, second]: [F80; 2], control: u16) -> ([F80; 2], u16) {
    let mut encoder = Encoder::new(64);
    let mut instruction = Instruction::new();
    instruction.set_code(code);
    encoder.encode(&instruction, 0).expect("the instruction has no operands to go wrong");
    rig.memory.write(HostPhysical(CODE), &encoder.take_buffer());
    let cpu = rig.cpu();
    cpu.rip = CODE;
    let x87 = &mut cpu.vectors.x87;
    // TOP is 6: the registers 6 and 7 are in use.
    (x87.control, x87.status, x87.used) = (control, 6 << 11, 0xc0);
    (x87.registers[6], x87.registers[7]) = (first, second);
    assert_eq!(rig.run(1), rootmode_cpu::RunEnd::Budget);
    let x87 = &rig.cpu().vectors.x87;
    let top = usize::from(x87.top());
    ([x87.registers[top], x87.registers[(top + 1) & 7]], x87.status)
}

/// All exceptions masked; rounding to nearest, down, up, to zero.
const MODES: [u16; 4] = [0x37f, 0x77f, 0xb7f, 0xf7f];
const PE: u16 = 0x20;

#[test]
fn results_are_correctly_rounded() {
    let mut rig = Rig::new();
    for (code, operands, expected) in table() {
        let (registers, status) = run(&mut rig, code, operands, MODES[0]);
        // FPTAN pushed 1.
        let result = registers[usize::from(code == Code::Fptan)];
        assert_eq!(result, expected, "{code:?} of {operands:x?}");
        assert_eq!(status & 0x7f, PE, "{code:?} of {operands:x?}");
        // Other modes differ by at most one unit, and to the right side.
        let [down, up] = [MODES[1], MODES[2]].map(|mode| {
            let registers = run(&mut rig, code, operands, mode).0;
            registers[usize::from(code == Code::Fptan)]
        });
        let magnitudes = if expected.exponent >> 15 != 0 { [up, down] } else { [down, up] };
        // From one binade to the next all but the integer bit counts on.
        let place = |x: F80| u128::from(x.exponent) << 63 | u128::from(x.significand & (1 << 63) - 1);
        assert_eq!(place(magnitudes[0]) + 1, place(magnitudes[1]), "{code:?}");
        assert!(magnitudes.contains(&expected), "{code:?} of {operands:x?}");
    }
}

#[test]
fn what_is_too_small_to_be_seen_still_decides_the_rounding() {
    let mut rig = Rig::new();
    let tiny = f80(0x3fff - 300, 1 << 63);
    let one = f80(0x3fff, 1 << 63);
    let below = f80(0x3fff - 301, u64::MAX);
    let above = f80(0x3fff - 300, 1 << 63 | 1);
    for (code, [nearest, down, up, zero]) in [
        (Code::Fsin, [tiny, below, tiny, below]),
        (Code::Fcos, [one, f80(0x3ffe, u64::MAX), one, f80(0x3ffe, u64::MAX)]),
        (Code::Fptan, [tiny, tiny, above, tiny]),
    ] {
        for (mode, expected) in MODES.into_iter().zip([nearest, down, up, zero]) {
            let (registers, status) = run(&mut rig, code, [tiny, one], mode);
            let result = registers[usize::from(code == Code::Fptan)];
            assert_eq!((result, status & 0x7f), (expected, PE), "{code:?} under {mode:#x}");
        }
    }
    for (mode, expected) in MODES.into_iter().zip([tiny, below, tiny, below]) {
        // arctan(tiny / 1).
        assert_eq!(run(&mut rig, Code::Fpatan, [one, tiny], mode).0[0], expected, "FPATAN under {mode:#x}");
    }
}

#[test]
fn operands_of_2_to_the_63_are_out_of_range() {
    let mut rig = Rig::new();
    let (last, first) = (f80(0x3fff + 62, u64::MAX), f80(0x3fff + 63, 1 << 63));
    for code in [Code::Fsin, Code::Fcos, Code::Fsincos, Code::Fptan] {
        let (_, status) = run(&mut rig, code, [last, last], MODES[0]);
        assert_eq!(status & 0x4_00, 0, "{code:?}");
        let (registers, status) = run(&mut rig, code, [first, last], MODES[0]);
        assert_eq!(
            (registers[0], status & 0x7_ff, status >> 11 & 7),
            (first, 0x400, 6),
            "{code:?} sets C2 alone"
        );
    }
}

#[test]
fn pi_has_66_bits() {
    // SDM Vol. 1 "Approximation of Pi": the sine of its 64 bits is the rest.
    let mut rig = Rig::new();
    let pi = f80(0x4000, 0xc90f_daa2_2168_c234);
    assert_eq!(run(&mut rig, Code::Fsin, [pi, pi], MODES[0]).0[0], f80(0x3fff - 63, 3 << 62));
}
