//! Virtual-8086 mode: ways in and out, IOPL-sensitive instructions, CR4.VME's redirection and virtual interrupts, CR4.PVI
//! (SDM Vol. 3A "8086 Emulation", "Protected-Mode Virtual Interrupts").

use crate::legacy::*;
use rootmode_arch::{Cr4, RFlags, SegmentName};

const GP: u8 = 13;
const IOPL_3: u64 = 0x3000;
const VME_BITMAP: u64 = TSS + 0x88 - 32;

/// Ends a program outside level 0.
const INT_80: [u8; 2] = [0xcd, 0x80];

fn rig(flags: u64, vme: bool) -> Legacy {
    let mut rig = Legacy::new();
    rig.virtual_8086(flags);
    if vme {
        rig.cpu().cr4 = Cr4::VME;
        // Vectors of 0x80 on go to protected mode.
        rig.bytes(VME_BITMAP + 16, &[0xff; 16]);
    }
    rig.cpu().refresh();
    rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
    rig
}

/// Runs `code`; what came, and RIP of the frame behind an error code of `skip` bytes.
fn run(rig: &mut Legacy, code: &[u8]) -> (u8, u64) {
    let mut program = code.to_vec();
    program.extend(INT_80);
    rig.bytes(CODE, &program);
    rig.outcome().unwrap_err()
}

#[test]
fn an_interrupt_pushes_the_data_segments_and_clears_them() {
    let mut rig = rig(IOPL_3, false);
    for (index, name) in
        [SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs].into_iter().enumerate()
    {
        rig.cpu().segment_mut(name).selector.0 = 0x100 + index as u16;
    }
    assert_eq!(run(&mut rig, &[]), (0x80, 2));
    let sp = rig.cpu().gpr[4];
    assert_eq!(sp, STACK_0 - 36);
    let frame: Vec<u64> = (0..9).map(|n| rig.get(sp + n * 4)).collect();
    assert_eq!(frame, [2, CODE >> 4, 0x2_3002, 0x4000, 0, 0x100, 0x101, 0x102, 0x103]);
    assert!(!rig.cpu().rflags().contains(RFlags::VM));
    assert_eq!(rig.cpu().cpl, 0);
    for name in [SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs] {
        let segment = *rig.cpu().segment(name);
        assert_eq!((segment.selector.0, segment.rights.is_usable()), (0, false));
    }
}

#[test]
fn iretd_at_level_0_enters_virtual_8086_mode() {
    let mut rig = Legacy::new();
    let frame = [0x10, CODE >> 4, 0x2_3202, 0x4000, 1, 2, 3, 4, 5];
    for (n, value) in frame.into_iter().enumerate() {
        rig.put32(STACK + n as u64 * 4, value);
    }
    rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
    rig.bytes(CODE + 0x10, &INT_80);
    assert_eq!(rig.instruction(&[0xcf]), Err((0x80, 0x12)));
    let sp = STACK_0 - 36;
    let frame: Vec<u64> = (1..9).map(|n| rig.get(sp + n * 4)).collect();
    assert_eq!(frame, [CODE >> 4, 0x2_3202, 0x4000, 1, 2, 3, 4, 5]);
}

#[test]
fn the_gate_must_lead_to_level_0() {
    let mut rig = rig(IOPL_3, false);
    rig.put(IDT + 0x41 * 8, gate(CONFORMING, HANDLERS + 0x410, 0xe, 3, 0));
    assert_eq!(run(&mut rig, &[0xcd, 0x41]), (GP, CONFORMING.into()));
    let mut rig = self::rig(IOPL_3, false);
    rig.put(IDT + 0x41 * 8, gate(CODE_3, HANDLERS + 0x410, 0xe, 3, 0));
    assert_eq!(run(&mut rig, &[0xcd, 0x41]), (GP, u64::from(CODE_3 & !3)));
}

#[test]
fn below_iopl_3_flag_instructions_fault_without_vme() {
    // CLI, STI, PUSHF, POPF, IRET, INT 0x41, PUSHFD, POPFD.
    let rows: &[&[u8]] =
        &[&[0xfa], &[0xfb], &[0x9c], &[0x9d], &[0xcf], &[0xcd, 0x41], &[0x66, 0x9c], &[0x66, 0x9d]];
    for code in rows {
        assert_eq!(run(&mut rig(0, false), code), (GP, 0), "{code:02x?}");
        assert_eq!(rig(0, false).cpu().rip, 0);
    }
    for code in [&[0x66, 0x9c][..], &[0x66, 0x9d], &[0x66, 0xcf]] {
        assert_eq!(run(&mut rig(0, true), code), (GP, 0), "{code:02x?} has no virtual form");
    }
}

#[test]
fn with_vme_the_interrupt_flag_is_virtual() {
    // STI; PUSHF; POP AX: IF and IOPL 3 show, VIF holds it.
    let mut rig = rig(0, true);
    assert_eq!(run(&mut rig, &[0xfb, 0x9c, 0x58]).0, GP, "INT 0x80 is not redirected and IOPL is 0");
    assert_eq!(rig.cpu().gpr[0] & 0xffff, 0x3202);
    assert_eq!(rig.get(STACK_0 - 28) & 0x8_0200, 0x8_0000);
    // CLI clears it again.
    let mut rig = self::rig(RFlags::VIF.0, true);
    run(&mut rig, &[0xfa, 0x9c, 0x58]);
    assert_eq!(rig.cpu().gpr[0] & 0xffff, 0x3002);
    // A pending virtual interrupt: STI, and POPF of IF, are #GP(0).
    let mut rig = self::rig(RFlags::VIP.0, true);
    assert_eq!(run(&mut rig, &[0xfb]), (GP, 0));
    // PUSH 0x200; POPF
    let mut rig = self::rig(RFlags::VIP.0, true);
    assert_eq!(run(&mut rig, &[0x68, 0x00, 0x02, 0x9d]), (GP, 0));
    assert_eq!(rig.get(STACK_0 - 36), 3, "at POPF");
    let mut rig = self::rig(0, true);
    run(&mut rig, &[0x68, 0x00, 0x02, 0x9d]);
    assert_eq!(rig.get(STACK_0 - 28) & 0x8_0200, 0x8_0000);
    // TF is never loaded: PUSH 0x100; POPF.
    assert_eq!(run(&mut self::rig(0, true), &[0x68, 0x00, 0x01, 0x9d]), (GP, 0));
    assert_eq!(rig.cpu().cpl, 0);
}

#[test]
fn the_redirection_bitmap_sends_int_n_to_the_programs_own_table() {
    for (iopl, image) in [(IOPL_3, 0x3002), (0, 0x3202)] {
        let mut rig = rig(iopl | RFlags::VIF.0, true);
        // Vector 0x41 of the table at 0: CODE:0x40. There: POP AX, POP BX, POP CX and out.
        rig.memory.write_u32(rootmode_arch::HostPhysical(0x41 * 4), 0x40 | (CODE as u32 >> 4) << 16);
        rig.bytes(CODE + 0x40, &[0x58, 0x5b, 0x59, 0xcd, 0x80]);
        let (vector, _) = run(&mut rig, &[0xcd, 0x41]);
        assert_eq!(vector, if iopl == 0 { GP } else { 0x80 });
        let cpu = rig.cpu();
        let words = [cpu.gpr[0], cpu.gpr[3], cpu.gpr[1]].map(|v| v & 0xffff);
        assert_eq!(words, [2, CODE >> 4, image], "IOPL {iopl:#x}");
    }
}

#[test]
fn pvi_virtualizes_cli_and_sti_of_level_3() {
    for (pvi, expected) in [(false, (GP, 0)), (true, (0x80, CODE + 3))] {
        let mut rig = Legacy::new();
        rig.level(3);
        rig.cpu().cr4 = if pvi { Cr4::PVI } else { Cr4(0) };
        rig.put(IDT + 0x80 * 8, gate(CODE_0, HANDLERS + 0x800, 0xe, 3, 0));
        let code = [&[0xfb][..], &INT_80].concat();
        rig.bytes(CODE, &code);
        assert_eq!(rig.outcome(), Err(expected));
        if pvi {
            assert_eq!(rig.get(STACK_0 - 12) & 0x8_0200, 0x8_0000, "VIF, not IF");
        }
    }
    let mut rig = Legacy::new();
    rig.level(3);
    rig.cpu().cr4 = Cr4::PVI;
    rig.cpu().set_rflags(RFlags::VIP);
    assert_eq!(rig.instruction(&[0xfb]), Err((GP, 0)));
}

#[test]
fn the_permission_map_decides_about_ports_whatever_iopl_is() {
    // OUT 0x21, AL; OUT 0x21, AX: the bit of 0x22 is set.
    let rows: &[(&[u8], u64)] =
        &[(&[0xe6, 0x21], 0x80), (&[0xe7, 0x21], GP as u64), (&[0xe6, 0x22], GP as u64)];
    for (code, expected) in rows {
        let mut rig = rig(IOPL_3, false);
        rig.bytes(TSS + 0x88 + 4, &[1 << 2]);
        assert_eq!(u64::from(run(&mut rig, code).0), *expected, "{code:02x?}");
    }
    // A map that ends before the port.
    let mut rig = rig(IOPL_3, false);
    rig.cpu().segment_mut(SegmentName::Tr).limit = 0x88 + 4;
    assert_eq!(run(&mut rig, &[0xe6, 0x21]), (GP, 0));
}
