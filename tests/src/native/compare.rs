//! What differs between two outcomes, in so far as the architecture defines it.

use super::state::*;
use iced_x86::{Instruction, Mnemonic, RflagsBits};

/// Status flags, DF, IF, IOPL, NT, RF, AC and ID. TF ends every case.
const COMPARED: u64 = 0x25_7ed5 & !TF;
const TF: u64 = 0x100;
const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// One difference: what, and its value on the host and here.
pub type Difference = (String, u64, u64);

/// RFLAGS bits that iced calls undefined after `instruction`.
fn undefined_flags(instruction: &Instruction) -> u64 {
    let bits = [
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 4),
        (RflagsBits::AF, 0x10),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::SF, 0x80),
        (RflagsBits::OF, 0x800),
    ];
    let undefined = instruction.rflags_undefined();
    bits.iter().filter(|(flag, _)| undefined & flag != 0).map(|(_, bit)| bit).sum()
}

/// Everything that differs. Empty: the outcomes agree.
pub fn differences(
    instruction: &Instruction,
    case: &Case,
    host: &Outcome,
    here: &Outcome,
) -> Vec<Difference> {
    let mut host = *host;
    if matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Pop | Mnemonic::Lss) {
        // A load of SS keeps the single step's trap away until the next instruction is done.
        host.take_back_int3(case.registers.rip + instruction.len() as u64);
    }
    let host = &host;
    let mut all: Vec<Difference> = Vec::new();
    let mut compare = |what: &str, a: u64, b: u64| {
        if a != b {
            all.push((what.to_owned(), a, b));
        }
    };
    compare("vector", host.vector, here.vector);
    let (a, b) = (&host.registers, &here.registers);
    // What the upper halves hold after a far branch from 64-bit to 32-bit code is undefined.
    let visible = if a.cs == CODE_32 { 0xffff_ffff } else { u64::MAX };
    for (n, name) in NAMES.into_iter().enumerate() {
        compare(name, a.gpr[n] & visible, b.gpr[n] & visible);
    }
    compare("rip", a.rip, b.rip);
    compare("cs", a.cs, b.cs);
    for (n, name) in ["es", "ds", "fs", "gs"].into_iter().enumerate() {
        // A return to user mode makes null selectors 0, whatever their RPL was.
        let plain = |selector: u64| if selector < 4 { 0 } else { selector };
        compare(name, plain(a.selectors[n]), plain(b.selectors[n]));
    }
    compare("fs_base", a.fs_base, b.fs_base);
    compare("gs_base", a.gs_base, b.gs_base);
    compare_vectors(&a.fx, &b.fx, &mut compare);
    for (n, (a, b)) in a.upper.iter().zip(&b.upper).enumerate() {
        let [a, b] = [a, b].map(|bytes| u128::from_le_bytes(*bytes));
        compare(&format!("ymm{n} bits 191:128"), a as u64, b as u64);
        compare(&format!("ymm{n} bits 255:192"), (a >> 64) as u64, (b >> 64) as u64);
    }
    let defined = COMPARED & !undefined_flags(instruction);
    compare("rflags", a.rflags & defined, b.rflags & defined);
    if host.vector == here.vector {
        // Linux reports every page fault above user mode's addresses as one on a present page.
        let ignored = u64::from(host.vector == 14 && host.cr2 >= 0x7fff_ffff_f000);
        compare("error code", host.error & !ignored, here.error & !ignored);
        if host.vector == 14 {
            compare("cr2", host.cr2, here.cr2);
        }
    }
    compare_memory(instruction, case, host, here, &mut all);
    all
}

/// x87, SSE and MXCSR; not the last x87 instruction's address and opcode, which AMD saves only with a pending exception.
fn compare_vectors(a: &[u8; 512], b: &[u8; 512], compare: &mut impl FnMut(&str, u64, u64)) {
    let field = |fx: &[u8; 512], at: usize, size: usize| {
        fx[at..at + size].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    };
    for (name, at, size) in [("fcw", 0, 2), ("fsw", 2, 2), ("ftw", 4, 1), ("mxcsr", 24, 4)] {
        compare(name, field(a, at, size), field(b, at, size));
    }
    for n in 0..8 {
        let at = 32 + 16 * n;
        compare(&format!("st{n} significand"), field(a, at, 8), field(b, at, 8));
        compare(&format!("st{n} sign and exponent"), field(a, at + 8, 2), field(b, at + 8, 2));
    }
    for n in 0..16 {
        let at = 160 + 16 * n;
        compare(&format!("xmm{n} low"), field(a, at, 8), field(b, at, 8));
        compare(&format!("xmm{n} high"), field(a, at + 8, 8), field(b, at + 8, 8));
    }
}

fn compare_memory(i: &Instruction, case: &Case, host: &Outcome, here: &Outcome, all: &mut Vec<Difference>) {
    // The TF that ends the case is pushed with the flags.
    let pushes_flags = matches!(i.mnemonic(), Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq)
        && host.vector == COMPLETED;
    let pushed = super::draw::memory_index(host.registers.gpr[4].wrapping_add(1)).filter(|_| pushes_flags);
    // MXCSR_MASK says whether the part has AMD's misaligned-SSE mode.
    let saves = matches!(
        i.mnemonic(),
        Mnemonic::Fxsave
            | Mnemonic::Fxsave64
            | Mnemonic::Xsave
            | Mnemonic::Xsave64
            | Mnemonic::Xsavec
            | Mnemonic::Xsavec64
    );
    let mask = super::undefined::operand(case, i, 0)
        .and_then(|at| super::draw::memory_index(at.wrapping_add(30)))
        .filter(|_| saves);
    for (n, (x, y)) in host.memory.iter().zip(&here.memory).enumerate() {
        let x = if pushed == Some(n) { x & !1 } else { *x };
        if x != *y && mask != Some(n) && all.len() < 40 {
            let address = ARENA + DATA_PAGES[n / PAGE as usize] * PAGE + n as u64 % PAGE;
            all.push((format!("[{address:#x}], was {:#x}", case.memory[n]), u64::from(x), u64::from(*y)));
        }
    }
}

/// The status flags in words.
pub fn flags_text(flags: u64) -> String {
    let names = [
        (1, "cf"),
        (4, "pf"),
        (0x10, "af"),
        (0x40, "zf"),
        (0x80, "sf"),
        (0x800, "of"),
        (0x400, "df"),
        (0x1_0000, "rf"),
        (0x4_0000, "ac"),
    ];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    set.join(" ")
}
