//! Makes a case on which the host and we differ as plain as it can be, and prints it.

use super::compare::flags_text;
use super::run::{Mismatch, Pair};
use super::state::*;
use iced_x86::{Formatter, IntelFormatter};
use std::fmt::Write as _;

/// One way to make a case plainer.
type Step = Box<dyn Fn(&mut Case)>;

/// Simplifies: one register, flag or piece of memory after another becomes 0, as long as the two still differ.
pub fn shrink(pair: &mut Pair, mut mismatch: Mismatch) -> Mismatch {
    let mut steps: Vec<Step> = vec![
        Box::new(|case| case.memory.fill(0)),
        Box::new(|case| case.registers.rflags = 0x202),
        Box::new(|case| case.registers.fx = initial_fx()),
        Box::new(|case| case.steps = 1),
        Box::new(|case| case.together = false),
    ];
    for n in 0..16 {
        steps.push(Box::new(move |case| case.registers.gpr[n] = 0));
        steps.push(Box::new(move |case| case.registers.gpr[n] &= 0xffff_ffff));
        steps.push(Box::new(move |case| case.registers.fx[160 + n * 16..][..16].fill(0)));
        steps.push(Box::new(move |case| case.registers.upper[n].fill(0)));
    }
    steps.push(Box::new(|case| case.registers.fx[..32].copy_from_slice(&initial_fx()[..32])));
    for n in 0..8 {
        steps.push(Box::new(move |case| case.registers.fx[32 + n * 16..][..16].fill(0)));
    }
    for bit in [0, 2, 4, 6, 7, 10, 11, 16, 18] {
        steps.push(Box::new(move |case| case.registers.rflags &= !(1 << bit)));
    }
    for step in steps {
        let mut simpler = mismatch.drawn.clone();
        step(&mut simpler.case);
        if simpler.case == mismatch.drawn.case {
            continue;
        }
        match pair.judge(&simpler) {
            Ok(differences) if !differences.is_empty() => {
                mismatch.drawn = simpler;
                mismatch.differences = differences;
            }
            _ => {}
        }
    }
    mismatch
}

/// The case and what differs, as text.
pub fn text(mismatch: &Mismatch) -> String {
    let Mismatch { drawn, differences } = mismatch;
    let mut text = String::new();
    let mut instruction = String::new();
    IntelFormatter::new().format(&drawn.instruction, &mut instruction);
    let bytes: Vec<String> =
        drawn.case.code[..drawn.instruction.len()].iter().map(|byte| format!("{byte:02x}")).collect();
    let registers = &drawn.case.registers;
    let _ = writeln!(text, "    {}  {instruction}", bytes.join(" "));
    let _ = write!(text, "    at {:#x}, flags [{}]", registers.rip, flags_text(registers.rflags));
    for (n, value) in registers.gpr.iter().enumerate().filter(|(_, value)| **value != 0) {
        let _ = write!(text, ", r{n} = {value:#x}");
    }
    if registers.fs_base | registers.gs_base != 0 {
        let _ = write!(text, ", fs = {:#x}, gs = {:#x}", registers.fs_base, registers.gs_base);
    }
    let _ =
        writeln!(text, ", {} steps{}", drawn.case.steps, if drawn.case.together { " together" } else { "" });
    for (n, piece) in registers.fx[160..416].chunks(16).enumerate().filter(|(_, p)| p.iter().any(|b| *b != 0))
    {
        let value = u128::from_le_bytes(piece.try_into().expect("a piece has 16 bytes"));
        let _ = writeln!(text, "    xmm{n} = {value:#034x}");
    }
    for (n, half) in registers.upper.iter().enumerate().filter(|(_, half)| **half != [0; 16]) {
        let _ = writeln!(text, "    ymm{n} upper half = {:#034x}", u128::from_le_bytes(*half));
    }
    if registers.fx[..32] != initial_fx()[..32] {
        let word = |at: usize| u16::from_le_bytes([registers.fx[at], registers.fx[at + 1]]);
        let (control, status, used, mxcsr) = (word(0), word(2), registers.fx[4], word(24));
        let _ =
            writeln!(text, "    fcw = {control:#x}, fsw = {status:#x}, ftw = {used:#x}, mxcsr = {mxcsr:#x}");
    }
    for (n, piece) in registers.fx[32..160].chunks(16).enumerate().filter(|(_, p)| p.iter().any(|b| *b != 0))
    {
        let value = u128::from_le_bytes(piece.try_into().expect("a piece has 16 bytes"));
        let _ = writeln!(text, "    st{n} = {value:#022x}");
    }
    for (what, host, here) in differences.iter().take(12) {
        let _ = writeln!(text, "    {what}: host {host:#x}, here {here:#x}");
    }
    text
}
