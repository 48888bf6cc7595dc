//! Real mode, and the way from it through protected to long mode (SDM Vol. 3A "Interrupt and Exception Handling in
//! Real-Address Mode", "Mode Switching", "Initializing IA-32e Mode").

use crate::legacy::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{Cr0, Efer, SegmentName};
use rootmode_cpu::RunEnd;

fn rig() -> Legacy {
    let mut rig = Legacy::new();
    rig.real();
    rig
}

#[test]
fn an_interrupt_pushes_three_words_and_no_error_code() {
    let mut rig = rig();
    rig.cpu().set_rflags(rootmode_arch::RFlags(0x4_0302));
    rig.bytes(CODE, &[0xcd, 0x41]);
    // TF is set: the delivery clears it before a trap.
    assert_eq!(rig.outcome().unwrap_err().0, 0x41);
    let sp = rig.cpu().gpr[4];
    assert_eq!(sp, 0x4000 - 6);
    assert_eq!((rig.get16(sp), rig.get16(sp + 2), rig.get16(sp + 4)), (2, CODE >> 4, 0x302));
    assert_eq!(rig.cpu().rflags().0, 2, "IF, TF and AC");

    // A #GP: MOV EAX, [0x1000E] crosses the limit.
    let mut rig = self::rig();
    assert_eq!(rig.instruction(&[0x66, 0xa1, 0xfe, 0xff]).unwrap_err().0, 13);
    assert_eq!(rig.cpu().gpr[4], 0x4000 - 6);
}

#[test]
fn the_table_has_a_limit_too() {
    let mut rig = rig();
    rig.cpu().idtr.limit = 0x41 * 4 + 2;
    assert_eq!(rig.instruction(&[0xcd, 0x41]).unwrap_err().0, 13);
    let mut rig = self::rig();
    rig.cpu().idtr.limit = 0;
    rig.bytes(CODE, &[0xcd, 0x41]);
    assert_eq!(rig.run(10), RunEnd::Stop(Stop::TripleFault));
}

#[test]
fn far_calls_and_returns_use_paragraphs() {
    let mut rig = rig();
    // CALL 0x1100:0x20; there RETF 2.
    rig.bytes(0x1_1020, &[0xca, 0x02, 0x00]);
    assert_eq!(rig.instruction(&[0x9a, 0x20, 0x00, 0x00, 0x11]), Ok(CODE + 6));
    assert_eq!(rig.cpu().gpr[4] & 0xffff, 0x4002);
    assert_eq!((rig.get16(0x3ffc), rig.get16(0x3ffe)), (5, CODE >> 4));
    // IRET: flags too.
    let mut rig = self::rig();
    for (n, value) in [0x30, 0x1000, 0x0801].into_iter().enumerate() {
        rig.memory.write_u16(rootmode_arch::HostPhysical(0x4000 + n as u64 * 2), value);
    }
    rig.bytes(CODE + 0x30, &[0xf4]);
    assert_eq!(rig.instruction(&[0xcf]), Ok(CODE + 0x31));
    assert_eq!(rig.cpu().rflags().0, 0x803);
    // An offset beyond the limit.
    assert_eq!(self::rig().instruction(&[0x66, 0xea, 0, 0, 1, 0, 0, 0x11]).unwrap_err().0, 13);
}

#[test]
fn big_real_mode_keeps_limits_of_protected_mode() {
    let mut rig = rig();
    let ds = rig.cpu().segment_mut(SegmentName::Ds);
    ds.limit = u32::MAX;
    rig.put32(0x10_0000, 0x1234_5678);
    rig.cpu().gpr[3] = 0x10_0000;
    // MOV AX, 0; MOV DS, AX; MOV EAX, [EBX]
    rig.instruction(&[0xb8, 0, 0, 0x8e, 0xd8, 0x67, 0x66, 0x8b, 0x03]).unwrap();
    assert_eq!(rig.cpu().gpr[0], 0x1234_5678);
}

#[test]
fn a_program_goes_from_real_through_protected_to_long_mode_and_back() {
    let mut rig = rig();
    rig.put(GDT + 0xb0, 0x00af_9b00_0000_ffff);
    // The GDT's pseudo-descriptor.
    rig.put(0x4800, 0xff | GDT << 16);
    let mut at = CODE;
    let mut emit = |rig: &mut Legacy, bytes: &[u8]| {
        rig.bytes(at, bytes);
        at += bytes.len() as u64;
    };
    // LGDT [0x4800]; SMSW AX; OR AL, 1; LMSW AX; JMP 8:CODE+0x100.
    emit(&mut rig, &[0x66, 0x0f, 0x01, 0x16, 0x00, 0x48, 0x0f, 0x01, 0xe0, 0x0c, 0x01, 0x0f, 0x01, 0xf0]);
    emit(&mut rig, &[0x66, 0xea, 0x00, 0x01, 0x01, 0x00, 0x08, 0x00]);
    rig.assemble(32, CODE + 0x100, |a| {
        use iced_x86::code_asm::*;
        a.mov(eax, 0x10).unwrap();
        a.mov(ds, eax).unwrap();
        a.mov(ss, eax).unwrap();
        a.mov(esp, STACK as u32).unwrap();
        a.mov(eax, 0x20).unwrap();
        a.mov(cr4, eax).unwrap();
        a.mov(eax, 0x1000).unwrap();
        a.mov(cr3, eax).unwrap();
        a.mov(ecx, 0xc000_0080_u32).unwrap();
        a.mov(eax, 0x100).unwrap();
        a.xor(edx, edx).unwrap();
        a.wrmsr().unwrap();
        a.mov(eax, cr0).unwrap();
        a.or(eax, 0x8000_0000_u32 as i32).unwrap();
        a.mov(cr0, eax).unwrap();
        a.db(&far_jmp(0xb0, CODE + 0x200)).unwrap();
    });
    // In 64-bit mode: a far pointer back to compatibility code.
    rig.put(0x4810, (CODE + 0x300) | u64::from(CODE_0) << 32);
    rig.assemble(64, CODE + 0x200, |a| {
        use iced_x86::code_asm::*;
        a.mov(r8, 0x1122_3344_5566_7788_u64).unwrap();
        a.mov(rbx, 0x4810_u64).unwrap();
        a.db(&[0xff, 0x2b]).unwrap();
    });
    // Compatibility mode: PG off leaves long mode.
    rig.assemble(32, CODE + 0x300, |a| {
        use iced_x86::code_asm::*;
        a.mov(eax, cr0).unwrap();
        a.and(eax, 0x7fff_ffff).unwrap();
        a.mov(cr0, eax).unwrap();
        a.mov(ebp, 7).unwrap();
        a.hlt().unwrap();
    });
    assert!(rig.outcome().is_ok());
    let cpu = rig.cpu();
    assert_eq!((cpu.gpr[8], cpu.gpr[5]), (0x1122_3344_5566_7788, 7));
    assert_eq!(cpu.efer, Efer::LME, "LMA went with paging");
    assert!(!cpu.cr0.contains(Cr0::PG));
}

#[test]
fn long_mode_demands_pae_a_legacy_code_segment_and_a_32_bit_task() {
    type Prepare = fn(&mut Legacy);
    let rows: &[(&str, Prepare, bool)] = &[
        ("as it should be", |_| {}, true),
        ("no PAE", |rig| rig.cpu().cr4 = rootmode_arch::Cr4(0), false),
        ("CS.L", |rig| rig.cpu().segment_mut(SegmentName::Cs).rights.0 |= 0x2000, false),
        ("a 16-bit TSS", |rig| rig.cpu().segment_mut(SegmentName::Tr).rights.0 = 0x83, false),
    ];
    for (name, prepare, works) in rows {
        let mut rig = Legacy::new();
        rig.cpu().efer = Efer::LME;
        rig.cpu().cr4 = rootmode_arch::Cr4::PAE;
        rig.cpu().cr3 = rootmode_arch::Cr3(0x1000);
        rig.cpu().gpr[0] = (Cr0::PG | Cr0::PE | Cr0::NE).0;
        prepare(&mut rig);
        rig.cpu().refresh();
        // MOV CR0, EAX
        rig.bytes(CODE, &[0x0f, 0x22, 0xc0]);
        rig.run(1);
        assert_eq!(rig.cpu().efer.contains(Efer::LMA), *works, "{name}");
    }
}
