//! The engine's quick forms do what the semantic functions do: a run in one piece, through chained blocks, ends exactly like
//! the same run cut after every tick, which takes the careful way.

mod support;

use rootmode_arch::choices::{Choices, Seeded};
use rootmode_arch::{HostPhysical, RFlags, Site};
use rootmode_cpu::{Activity, RunEnd};
use rootmode_mmu::Digest;
use support::*;

/// Bytes of one random instruction out of those that have quick forms, most of them valid.
fn instruction(random: &mut Seeded, code: &mut Vec<u8>) {
    let mut draw = |n: u64| random.choose(Site::Program, n) as u8;
    const BINARY: [u8; 36] = [
        0x00, 0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x10, 0x11, 0x13, 0x18, 0x19, 0x1b, 0x20, 0x21, 0x23, 0x28,
        0x29, 0x2b, 0x30, 0x31, 0x33, 0x38, 0x39, 0x3a, 0x3b, 0x84, 0x85, 0x88, 0x89, 0x8a, 0x8b, 0x8d, 0xfe,
        0xff, 0x63,
    ];
    const EXTENDED: [u8; 8] = [0xaf, 0xb6, 0xb7, 0xbe, 0xbf, 0x40, 0x90, 0x40];
    if draw(6) == 0 {
        code.push(0x66);
    }
    let rex = draw(3) != 0;
    let kind = draw(12);
    // Short jumps and stack instructions.
    match kind {
        0 => return code.extend([0x70 + draw(16), draw(24)]),
        1 => return code.extend([0xeb, draw(8)]),
        2 => return code.push(0x50 + draw(16)),
        3 => return code.extend([0xe8, draw(16), 0, 0, 0]),
        4 => return code.push(0xc3),
        _ => {}
    }
    if rex {
        code.push(0x40 + draw(16));
    }
    let mut modrm = draw(256);
    match kind {
        5 => {
            let opcode = EXTENDED[usize::from(draw(8))];
            code.extend([0x0f, if opcode == 0x40 || opcode == 0x90 { opcode + draw(16) } else { opcode }]);
        }
        6 => {
            // Shifts and rotates by an immediate.
            code.push(if draw(2) == 0 { 0xc0 } else { 0xc1 });
            modrm |= 0xc0;
        }
        7 => code.push([0x83, 0x80, 0x6b, 0xc6][usize::from(draw(4))]),
        8 => {
            code.push(0xf7);
            modrm = modrm & 0xc7 | [0x10, 0x18][usize::from(draw(2))];
        }
        9 => return code.extend([0xb0 + draw(8), draw(256)]),
        _ => {
            let opcode = BINARY[usize::from(draw(36))];
            code.push(opcode);
            if matches!(opcode, 0xfe | 0xff) {
                modrm &= 0xcf;
            }
        }
    }
    // Mostly [base + disp8] and registers: absolute addresses lead nowhere.
    if modrm >> 6 == 0 {
        modrm |= 0x40;
    }
    if modrm >> 6 == 2 {
        modrm ^= 0x40 | 0x80;
    }
    code.push(modrm);
    if modrm >> 6 != 3 && modrm & 7 == 4 {
        code.push(draw(256));
    }
    if modrm >> 6 == 1 {
        code.push(draw(256));
    }
    if matches!(kind, 6 | 7) {
        code.push(draw(256));
    }
}

/// Runs a generated program for `ticks` ticks in pieces of `piece`, and answers with a digest and how often it faulted.
fn run(seed: u64, piece: u64, ticks: u64) -> u128 {
    let mut random = Seeded::new(seed);
    let mut rig = Rig::new();
    let mut code = Vec::new();
    while code.len() < 900 {
        instruction(&mut random, &mut code);
    }
    // Handlers skip nothing: they halt, and the run goes on somewhere else in the program.
    for vector in 0..32 {
        rig.gate(vector, CODE + 0xf00, 0xe, 0, 0);
    }
    rig.memory.write(HostPhysical(CODE), &code);
    rig.memory.write(HostPhysical(CODE + 0xf00), &[0xf4]);
    for n in 0..16 {
        rig.cpu().gpr[n] = DATA + 0x800 + random.choose(Site::Program, 0x8000);
    }
    rig.cpu().gpr[4] = STACK;
    rig.cpu().gpr[1] = random.choose(Site::Program, 64);
    rig.cpu().set_rflags(RFlags(random.choose(Site::Program, 0x1000) & 0x8d5));
    rig.cpu().refresh();
    while rig.cpu().tick < ticks {
        let left = ticks - rig.cpu().tick;
        let end = rig.run(piece.min(left));
        if end != RunEnd::Budget {
            let cpu = rig.cpu();
            cpu.rip = CODE + random.choose(Site::Program, 0x300);
            cpu.gpr[4] = STACK;
            cpu.gpr[3] = DATA + 0x1000;
            cpu.tick += 1;
            cpu.activity = Activity::Active;
            cpu.delivering = None;
            cpu.refresh();
        }
    }
    let mut digest = Digest::new();
    rig.memory.digest(&mut digest);
    rig.cpu().digest(&mut digest);
    digest.finish()
}

#[test]
fn a_run_in_one_piece_ends_like_a_run_cut_after_every_tick() {
    for seed in 0..120 {
        assert_eq!(run(seed, 1_000_000, 3000), run(seed, 1, 3000), "seed {seed}");
    }
}
