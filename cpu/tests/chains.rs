//! The engine's quick forms do what the semantic functions do: a run in one piece, through chained blocks, ends exactly like
//! the same run cut after every tick, which takes the careful way.

mod support;

use rootmode_arch::choices::{Choices, Seeded};
use rootmode_arch::{HostPhysical, RFlags, Site};
use rootmode_cpu::{Activity, Bus, Effects, RunEnd};
use rootmode_mmu::{Digest, PhysicalMemory};
use support::*;

/// Where in the code's page pointers into the program lie.
const TABLE: usize = 0xe00;

/// Appends one random instruction out of those that have quick forms. Registers 0 to 2 and 8 to 10 are results, 3 and 5 to 7
/// point to data and are never written, so that most programs run on.
fn instruction(random: &mut Seeded, code: &mut Vec<u8>) {
    let mut draw = |n: u64| random.choose(Site::Program, n) as u8;
    const BINARY: [u8; 32] = [
        0x00, 0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x10, 0x11, 0x13, 0x18, 0x19, 0x1b, 0x20, 0x21, 0x23, 0x28,
        0x29, 0x2b, 0x30, 0x31, 0x33, 0x38, 0x39, 0x3a, 0x3b, 0x84, 0x85, 0x88, 0x89, 0x8a, 0x8b,
    ];
    const EXTENDED: [u8; 8] = [0xaf, 0xb6, 0xb7, 0xbe, 0xbf, 0x40, 0x90, 0x40];
    const POINTERS: [u8; 4] = [3, 5, 6, 7];
    let kind = draw(36);
    match kind {
        32.. => return vector(random, code),
        0 | 1 => return code.extend([0x70 + draw(16), draw(24)]),
        2 => return code.extend([0xeb, draw(8)]),
        // PUSHes or POPs in a row, and sometimes RET; or MOVs.
        3 => {
            let (opcode, count) = ([0x50, 0x58, 0x89][usize::from(draw(3))], draw(4));
            for _ in 0..=count {
                match opcode {
                    0x89 => code.extend([0x48, opcode, 0xc0 | draw(3) << 3 | draw(3)]),
                    _ => code.push(opcode + draw(3)),
                }
            }
            if opcode == 0x58 && draw(4) == 0 {
                code.push(0xc3);
            }
            return;
        }
        4 => return code.extend([0xe8, draw(16), 0, 0, 0]),
        5 if draw(4) == 0 => return code.push(0xc3),
        20 => {
            let opcode = [0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef][usize::from(draw(8))];
            if draw(3) == 0 {
                code.push(0x66);
            }
            code.push(opcode);
            if opcode < 0xe8 {
                code.push(draw(4));
            }
            return;
        }
        21 => return code.extend([0x0f, 0x0b]),
        // A string, mostly copied to where it overlaps itself: lea rdi, [rsi + n]; mov ecx, n; rep ...
        30 => {
            let kind = usize::from(draw(6));
            if draw(3) != 0 {
                code.extend([0x48, 0x8d, 0x7e, draw(256)]);
            }
            code.extend([0xb9, draw(64), 0, 0, 0, 0xf3]);
            if kind > 3 {
                code.push(0x48);
            }
            return code.push([0xa4, 0xaa, 0xa5, 0xab, 0xa5, 0xab][kind]);
        }
        // MOV to CR3, which drops translations.
        31 if draw(4) == 0 => return code.extend([0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]),
        // Without REX these registers are AH, CH and DH.
        28 => return code.extend([0x80, 0xc4 + draw(3) | draw(8) << 3, draw(256)]),
        29 => return code.extend([0x0f, 0xb6, 0xc4 + draw(3) | draw(3) << 3]),
        // mov rbp, rsp; leave; mov rbp, rbx.
        22 => return code.extend([0x48, 0x89, 0xe5, 0xc9, 0x48, 0x89, 0xdd]),
        // CALL and JMP through a pointer of the table.
        23 if draw(2) == 0 => {
            let from_next = (TABLE + 8 * usize::from(draw(8)) - code.len() - 6) as u32;
            code.extend([0xff, [0x15, 0x25][usize::from(draw(2))]]);
            return code.extend(from_next.to_le_bytes());
        }
        _ => {}
    }
    if draw(5) == 0 {
        code.push(0x66);
    }
    let (wide, high) = (draw(2), draw(2));
    let register = draw(3);
    if kind > 23 {
        code.push(0x40 | wide << 3 | high << 2 | draw(2));
        let test = draw(4) << 3;
        return match kind {
            // Bit tests; in memory they would lie anywhere.
            24 => code.extend([0x0f, 0xa3 + test, 0xc0 | register << 3 | draw(3)]),
            25 => code.extend([0x0f, 0xba, 0xe0 | test | draw(3), draw(256)]),
            26 => code.extend([0xd2 + draw(2), [0xe0, 0xe8, 0xf8][usize::from(draw(3))] | draw(3)]),
            _ => code.push(0x98 + draw(2)),
        };
    }
    // Unary operations name theirs in the register field.
    let in_memory = draw(3) == 0;
    let (form, base) = if in_memory { (0x40, POINTERS[usize::from(draw(4))]) } else { (0xc0, draw(3)) };
    let low = if in_memory { 0 } else { draw(2) };
    code.push(0x40 | wide << 3 | high << 2 | low);
    let unary = |field: u8| form | field << 3 | base;
    let (opcode, modrm, immediate): (&[u8], u8, bool) = match kind {
        6 | 7 => {
            let opcode = EXTENDED[usize::from(draw(8))];
            let opcode = if opcode == 0x40 || opcode == 0x90 { opcode + draw(16) } else { opcode };
            (&[0x0f, opcode], form | register << 3 | base, false)
        }
        8 | 9 => (&[[0xc0, 0xc1][usize::from(draw(2))]], unary([0, 1, 4, 5, 7][usize::from(draw(5))]), true),
        10 => (&[[0x83, 0x80][usize::from(draw(2))]], unary(draw(8)), true),
        11 => (&[0xc6], unary(0), true),
        12 => (&[0x6b], form | register << 3 | base, true),
        13 => (&[[0xf6, 0xf7][usize::from(draw(2))]], unary(2 + draw(2)), false),
        14 | 15 => (&[[0xfe, 0xff][usize::from(draw(2))]], unary(draw(2)), false),
        16 => (&[0x8d], 0x40 | register << 3 | POINTERS[usize::from(draw(4))], false),
        _ => (&[BINARY[usize::from(draw(32))]], form | register << 3 | base, false),
    };
    code.extend(opcode);
    code.push(modrm);
    if modrm >> 6 == 1 {
        code.push(draw(256));
    }
    if immediate {
        code.push(draw(256));
    }
}

/// Appends an instruction on XMM registers 0 to 3: a move, arithmetic, a comparison or a conversion, mostly one that exists.
fn vector(random: &mut Seeded, code: &mut Vec<u8>) {
    let mut draw = |n: u64| random.choose(Site::Program, n) as u8;
    const ANY: [u8; 12] = [0x10, 0x11, 0x58, 0x59, 0x5c, 0x5e, 0x58, 0x59, 0x5c, 0x5e, 0x5a, 0xe6];
    const PACKED: [u8; 16] =
        [0x28, 0x29, 0x2e, 0x2f, 0x54, 0x57, 0x6e, 0x6f, 0x7e, 0x7f, 0xd6, 0xfe, 0xef, 0xd4, 0x14, 0x62];
    const SCALAR: [u8; 4] = [0x2a, 0x2c, 0x2d, 0x51];
    let (prefix, opcode): (Option<u8>, u8) = match draw(3) {
        0 => ([None, Some(0x66), Some(0xf2), Some(0xf3)][usize::from(draw(4))], ANY[usize::from(draw(12))]),
        1 => (Some(0x66).filter(|_| draw(4) != 0), PACKED[usize::from(draw(16))]),
        _ => (Some(0xf2 + draw(2)), SCALAR[usize::from(draw(4))]),
    };
    code.extend(prefix);
    if draw(3) == 0 {
        code.push(0x48);
    }
    code.extend([0x0f, opcode]);
    let register = draw(3) << 3;
    match draw(3) {
        // RBX is aligned, RSI probably not.
        0 => code.extend([0x40 | register | [3, 6][usize::from(draw(4) == 0)], draw(8) << 4]),
        _ => code.push(0xc0 | register | draw(3)),
    }
}

/// Ports that keep what is written, answer it with the time mixed in, and now and then have an effect.
#[derive(Default)]
struct Ports(u64);

impl Bus for Ports {
    fn read_port(&mut self, port: u16, size: u8, tick: u64, effects: &mut Effects) -> u32 {
        self.write_port(port, size, 0, tick, effects);
        self.0 as u32
    }
    fn write_port(&mut self, port: u16, size: u8, value: u32, tick: u64, effects: &mut Effects) {
        let all = u64::from(port) << 40 | u64::from(size) << 32 | u64::from(value);
        self.0 = (self.0 ^ all).wrapping_add(tick).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        if self.0 & 7 == 0 {
            effects.deadlines.push((tick, 0));
        }
    }
    fn read_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: &mut Effects) -> u64 {
        0
    }
    fn write_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: u64, _: &mut Effects) {}
    fn deadline(&mut self, _: u32, _: u64, _: &mut PhysicalMemory, _: &mut Effects) {}
}

/// Runs a generated program for `ticks` ticks in pieces of `piece`, and answers with the digest of what is left.
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
    for entry in 0..8 {
        let target = CODE + random.choose(Site::Program, 0x300);
        rig.memory.write_u64(HostPhysical(CODE + TABLE as u64 + 8 * entry), target);
    }
    rig.memory.write(HostPhysical(CODE + 0xf00), &[0xf4]);
    // That of #UD returns behind UD2, with RFLAGS.RF: add qword [rsp], 2; iretq.
    rig.gate(6, CODE + 0xf10, 0xe, 0, 0);
    rig.memory.write(HostPhysical(CODE + 0xf10), &[0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf]);
    rig.bus = Box::new(Ports::default());
    for n in 0..16 {
        rig.cpu().gpr[n] = DATA + 0x800 + random.choose(Site::Program, 0x8000);
    }
    // Numbers near 1, mostly inexact; rounding to nearest or not; PE set, clear, or unmasked.
    for n in 0..4 {
        let fraction = random.next() & 0x000f_ffff_ffff_ffff;
        rig.cpu().vectors.ymm[n][0] =
            0x3fe0_0000_0000_0000 + (fraction << (n & 1)) & !0xffff_ffff | 0x3f80_1234;
        rig.cpu().vectors.ymm[n][1] = 0x3f00_0000_3f80_0000 + (fraction & 0x00ff_0000_00ff_ffff);
    }
    rig.cpu().vectors.mxcsr =
        [0x1fa0, 0x1fa0, 0x1f80, 0x3fa0, 0x0f80][random.choose(Site::Program, 5) as usize];
    rig.cpu().gpr[3] &= !15;
    rig.cpu().gpr[4] = STACK;
    rig.cpu().gpr[1] = random.choose(Site::Program, 64);
    rig.cpu().set_rflags(RFlags(random.choose(Site::Program, 0x1000) & 0x8d5));
    rig.cpu().refresh();
    while rig.cpu().tick < ticks {
        let left = ticks - rig.cpu().tick;
        let end = rig.run(piece.min(left));
        if end == RunEnd::Effects {
            rig.effects = Effects::default();
        } else if end != RunEnd::Budget {
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
