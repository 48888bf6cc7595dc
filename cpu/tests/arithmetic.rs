//! Integer instructions against plain Rust arithmetic on random operands, all sizes: results and every defined flag.

mod support;

use rootmode_arch::choices::Seeded;
use rootmode_arch::{HostPhysical, RFlags};
use rootmode_cpu::RunEnd;
use support::*;

const CF: u64 = 1;
const PF: u64 = 4;
const AF: u64 = 0x10;
const ZF: u64 = 0x40;
const SF: u64 = 0x80;
const OF: u64 = 0x800;
const ALL: u64 = CF | PF | AF | ZF | SF | OF;

/// Operands that like the edges.
fn value(random: &mut Seeded) -> u64 {
    let raw = random.next();
    match random.next() % 6 {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << (raw % 64),
        3 => (1 << (raw % 64)) - 1,
        4 => raw & 0xff,
        _ => raw,
    }
}

/// Runs one instruction given as bytes; returns RAX, RDX and the flags.
fn run(rig: &mut Rig, bytes: &[u8], rax: u64, rcx: u64, rdx: u64, flags: u64) -> (u64, u64, u64) {
    rig.memory.write(HostPhysical(CODE), bytes);
    let cpu = rig.cpu();
    cpu.rip = CODE;
    (cpu.gpr[0], cpu.gpr[1], cpu.gpr[2]) = (rax, rcx, rdx);
    cpu.set_rflags(RFlags(flags));
    assert_eq!(rig.run(1), RunEnd::Budget);
    let cpu = rig.cpu();
    assert_eq!(cpu.rip, CODE + bytes.len() as u64, "{bytes:x?} did not complete");
    (cpu.gpr[0], cpu.gpr[2], cpu.rflags().0)
}

/// Opcode bytes for an operand of `size` bytes: the prefix, and the low bit of the opcode.
fn encode(size: u32, opcode: &[u8], modrm: u8) -> Vec<u8> {
    let mut bytes = match size {
        2 => vec![0x66],
        8 => vec![0x48],
        _ => vec![],
    };
    bytes.extend(opcode);
    if size != 1 {
        *bytes.last_mut().expect("an opcode has bytes") |= 1;
    }
    bytes.push(modrm);
    bytes
}

fn merge(old: u64, new: u64, size: u32) -> u64 {
    match size {
        1 => old & !0xff | new & 0xff,
        2 => old & !0xffff | new & 0xffff,
        4 => new & 0xffff_ffff,
        _ => new,
    }
}

fn common(result: u64, bits: u32) -> u64 {
    let mut flags = 0;
    if (result & 0xff).count_ones().is_multiple_of(2) {
        flags |= PF;
    }
    if result == 0 {
        flags |= ZF;
    }
    if result >> (bits - 1) & 1 == 1 {
        flags |= SF;
    }
    flags
}

fn signed(value: u64, bits: u32) -> i128 {
    let value = i128::from(value);
    if value >> (bits - 1) & 1 == 1 { value - (1 << bits) } else { value }
}

/// The result and flags of an addition or subtraction, from its meaning: unsigned and signed ranges.
fn arithmetic(a: u64, b: u64, carry: u64, bits: u32, subtract: bool) -> (u64, u64) {
    let mask = (1_i128 << bits) - 1;
    let sign = if subtract { -1 } else { 1 };
    let exact = i128::from(a) + sign * (i128::from(b) + i128::from(carry));
    let exact_signed = signed(a, bits) + sign * (signed(b, bits) + i128::from(carry));
    let nibble = i128::from(a & 15) + sign * (i128::from(b & 15) + i128::from(carry));
    let result = (exact & mask) as u64;
    let mut flags = common(result, bits);
    if exact < 0 || exact > mask {
        flags |= CF;
    }
    if !(0..16).contains(&nibble) {
        flags |= AF;
    }
    if exact_signed < -(1 << (bits - 1)) || exact_signed >= 1 << (bits - 1) {
        flags |= OF;
    }
    (result, flags)
}

#[test]
fn two_operand_arithmetic_and_logic() {
    let mut rig = Rig::new();
    let mut random = Seeded::new(1);
    for round in 0..4000 {
        let size = 1 << (round % 4);
        let bits = 8 * size;
        let mask = u64::MAX >> (64 - bits);
        let (rax, rcx, old) = (value(&mut random), value(&mut random), random.next() & ALL);
        let (a, b, carry) = (rax & mask, rcx & mask, old & CF);
        let logic = |result: u64| (result, common(result, bits));
        // opcode, expected result and flags, defined flags, whether the result is written
        let table = [
            (0x00, arithmetic(a, b, 0, bits, false), ALL, true),
            (0x08, logic(a | b), ALL & !AF, true),
            (0x10, arithmetic(a, b, carry, bits, false), ALL, true),
            (0x18, arithmetic(a, b, carry, bits, true), ALL, true),
            (0x20, logic(a & b), ALL & !AF, true),
            (0x28, arithmetic(a, b, 0, bits, true), ALL, true),
            (0x30, logic(a ^ b), ALL & !AF, true),
            (0x38, arithmetic(a, b, 0, bits, true), ALL, false),
            (0x84, logic(a & b), ALL & !AF, false),
        ];
        for (opcode, (result, flags), defined, writes) in table {
            let bytes = encode(size, &[opcode], 0xc8);
            let (got, _, got_flags) = run(&mut rig, &bytes, rax, rcx, 0, old);
            let expected = if writes { merge(rax, result, size) } else { rax };
            assert_eq!(got, expected, "{bytes:x?} {a:#x} {b:#x}");
            assert_eq!(got_flags & defined, flags & defined, "flags of {bytes:x?} {a:#x} {b:#x}");
        }
        // INC, DEC keep CF; NEG is 0 - a.
        let unary = [
            (0xfe, 0xc0, arithmetic(a, 1, 0, bits, false), true),
            (0xfe, 0xc8, arithmetic(a, 1, 0, bits, true), true),
            (0xf6, 0xd8, arithmetic(0, a, 0, bits, true), false),
        ];
        for (opcode, modrm, (result, flags), keeps_cf) in unary {
            let bytes = encode(size, &[opcode], modrm);
            let (got, _, got_flags) = run(&mut rig, &bytes, rax, rcx, 0, old);
            assert_eq!(got, merge(rax, result, size), "{bytes:x?}");
            let flags = if keeps_cf { flags & !CF | carry } else { flags };
            assert_eq!(got_flags & ALL, flags, "flags of {bytes:x?} {a:#x}");
        }
    }
}

#[test]
fn multiplication_and_division() {
    let mut rig = Rig::new();
    let mut random = Seeded::new(2);
    for round in 0..4000 {
        let size = 1 << (round % 4);
        let bits = 8 * size;
        let mask = u64::MAX >> (64 - bits);
        let (rax, rcx, rdx) = (value(&mut random), value(&mut random), value(&mut random));
        let (a, b) = (rax & mask, rcx & mask);
        let halves = |low: u64, high: u64| {
            if size == 1 {
                (merge(rax, low & 0xff | (high & 0xff) << 8, 2), rdx)
            } else {
                (merge(rax, low, size), merge(rdx, high, size))
            }
        };
        let product = u128::from(a) * u128::from(b);
        let (got_a, got_d, flags) = run(&mut rig, &encode(size, &[0xf6], 0xe1), rax, rcx, rdx, 0);
        assert_eq!((got_a, got_d), halves(product as u64, (product >> bits) as u64), "mul {a:#x} {b:#x}");
        assert_eq!(flags & (CF | OF), if product >> bits != 0 { CF | OF } else { 0 });

        let product = signed(a, bits) * signed(b, bits);
        let (got_a, got_d, flags) = run(&mut rig, &encode(size, &[0xf6], 0xe9), rax, rcx, rdx, 0);
        assert_eq!((got_a, got_d), halves(product as u64, (product >> bits) as u64), "imul {a:#x} {b:#x}");
        let fits = product == signed(product as u64 & mask, bits);
        assert_eq!(flags & (CF | OF), if fits { 0 } else { CF | OF });

        let wide =
            if size == 1 { u128::from(rax & 0xffff) } else { u128::from(rdx & mask) << bits | u128::from(a) };
        let overflow = b == 0 || wide / u128::from(b) > u128::from(mask);
        if !overflow {
            let (got_a, got_d, _) = run(&mut rig, &encode(size, &[0xf6], 0xf1), rax, rcx, rdx, 0);
            let (q, r) = (wide / u128::from(b), wide % u128::from(b));
            assert_eq!((got_a, got_d), halves(q as u64, r as u64), "div");
        }
        // A signed dividend that fits: the sign extension of RAX.
        let dividend = signed(a, bits);
        let divisor = signed(b, bits);
        if divisor != 0 && dividend / divisor < 1 << (bits - 1) {
            let extended = (dividend >> bits) as u64;
            let (start_a, start_d) = if size == 1 {
                (merge(rax, a | extended << 8, 2), rdx)
            } else {
                (rax, merge(rdx, extended, size))
            };
            let (got_a, got_d, _) = run(&mut rig, &encode(size, &[0xf6], 0xf9), start_a, rcx, start_d, 0);
            let (q, r) = ((dividend / divisor) as u64, (dividend % divisor) as u64);
            let expected = if size == 1 {
                (merge(rax, q & 0xff | (r & 0xff) << 8, 2), rdx)
            } else {
                (merge(rax, q, size), merge(start_d, r, size))
            };
            assert_eq!((got_a, got_d), expected, "idiv {dividend} {divisor}");
        }
    }
}

#[test]
fn shifts_and_rotates_are_repetitions_of_one_step() {
    let mut rig = Rig::new();
    let mut random = Seeded::new(3);
    for round in 0..4000 {
        let size = 1 << (round % 4);
        let bits = 8 * size;
        let mask = u64::MAX >> (64 - bits);
        let (rax, old) = (value(&mut random), random.next() & ALL);
        let count = random.next() & 0x7f;
        let n = count & if size == 8 { 63 } else { 31 };
        for operation in 0..8 {
            if operation == 6 {
                continue;
            }
            let (mut a, mut carry) = (rax & mask, old & CF);
            let first_top = a >> (bits - 1);
            for _ in 0..n {
                let (low, top) = (a & 1, a >> (bits - 1));
                (a, carry) = match operation {
                    0 => (a << 1 & mask | top, top),
                    1 => (a >> 1 | low << (bits - 1), low),
                    2 => (a << 1 & mask | carry, top),
                    3 => (a >> 1 | carry << (bits - 1), low),
                    4 => (a << 1 & mask, top),
                    5 => (a >> 1, low),
                    _ => (a >> 1 | top << (bits - 1), low),
                };
            }
            let bytes = encode(size, &[0xd2], 0xc0 | operation << 3);
            let (got, _, flags) = run(&mut rig, &bytes, rax, count, 0, old);
            assert_eq!(got, merge(rax, a, size), "operation {operation} size {size} count {n}");
            if n == 0 {
                assert_eq!(flags & ALL, old, "a count of 0 changes no flag");
                continue;
            }
            let rotates = operation < 4;
            // SHL and SHR by more than the width leave CF undefined.
            if rotates || operation == 7 || n <= u64::from(bits) {
                assert_eq!(flags & CF, carry, "carry of operation {operation} size {size} count {n}");
            }
            if rotates {
                assert_eq!(flags & (PF | AF | ZF | SF), old & (PF | AF | ZF | SF));
            } else {
                assert_eq!(flags & (PF | ZF | SF), common(a, bits));
            }
            if n == 1 {
                let changed = (a >> (bits - 1)) != first_top;
                let expected = match operation {
                    7 => false,
                    _ => changed,
                };
                assert_eq!(flags & OF != 0, expected, "overflow of operation {operation}");
            }
        }
    }
}

#[test]
fn bit_scans_conditions_and_exchanges() {
    let mut rig = Rig::new();
    let mut random = Seeded::new(4);
    for _ in 0..2000 {
        let (rax, rcx, old) = (value(&mut random), value(&mut random), random.next() & ALL);
        // bsf rax, rcx; bsr rax, rcx; popcnt rax, rcx
        let (got, _, flags) = run(&mut rig, &[0x48, 0x0f, 0xbc, 0xc1], rax, rcx, 0, old);
        let expected = (0..64).find(|n| rcx >> n & 1 == 1).unwrap_or(rax);
        assert_eq!((got, flags & ZF != 0), (expected, rcx == 0));
        let (got, _, _) = run(&mut rig, &[0x48, 0x0f, 0xbd, 0xc1], rax, rcx, 0, old);
        assert_eq!(got, (0..64).rev().find(|n| rcx >> n & 1 == 1).unwrap_or(rax));
        let (got, _, _) = run(&mut rig, &[0xf3, 0x48, 0x0f, 0xb8, 0xc1], rax, rcx, 0, old);
        assert_eq!(got, (0..64).filter(|n| rcx >> n & 1 == 1).count() as u64);
        // Jcc, SETcc and CMOVcc know the same sixteen conditions.
        let f = |bit: u64| old & bit != 0;
        let less = f(SF) != f(OF);
        let table = [
            f(OF),
            !f(OF),
            f(CF),
            !f(CF),
            f(ZF),
            !f(ZF),
            f(CF) || f(ZF),
            !(f(CF) || f(ZF)),
            f(SF),
            !f(SF),
            f(PF),
            !f(PF),
            less,
            !less,
            f(ZF) || less,
            !(f(ZF) || less),
        ];
        for (code, expected) in table.into_iter().enumerate() {
            let (got, _, _) = run(&mut rig, &[0x0f, 0x90 + code as u8, 0xc0], rax, rcx, 0, old);
            assert_eq!(got, rax & !0xff | u64::from(expected), "setcc {code}");
            let (got, _, _) = run(&mut rig, &[0x0f, 0x40 + code as u8, 0xc1], rax, rcx, 0, old);
            assert_eq!(got, if expected { rcx } else { rax } & 0xffff_ffff, "cmov32 {code}");
        }
        // cmpxchg rcx, rdx with RAX
        let rdx = value(&mut random);
        let equal = random.next().is_multiple_of(2);
        let accumulator = if equal { rcx } else { rax };
        let (got, _, flags) = run(&mut rig, &[0x48, 0x0f, 0xb1, 0xd1], accumulator, rcx, rdx, old);
        assert_eq!(flags & ZF != 0, accumulator == rcx);
        assert_eq!((got, rig.cpu().gpr[1]), (rcx, if accumulator == rcx { rdx } else { rcx }));
    }
}

#[test]
fn string_instructions_count_ticks_by_iteration_and_survive_a_fault_in_the_middle() {
    let mut rig = Rig::new();
    rig.gate(14, 0x1_8000, 0xe, 0, 0);
    rig.code_at(0x1_8000, |a| a.hlt().unwrap());
    rig.memory.write(HostPhysical(CODE), &[0xf3, 0x48, 0xab, 0xf4]); // rep stosq; hlt
    // The 2-MiB page above DATA is missing.
    rig.memory.write_u64(HostPhysical(0x3000 + 8), 0);
    let cpu = rig.cpu();
    (cpu.gpr[0], cpu.gpr[1], cpu.gpr[7]) = (0x1122, 10, 0x20_0000 - 4 * 8);
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!((rig.cpu().gpr[1], rig.cpu().gpr[7]), (6, 0x20_0000), "four iterations are done");
    assert_eq!(rig.cpu().cr2, 0x20_0000);
    assert_eq!(rig.cpu().tick, 4 + 1 + 1);
    assert_eq!(rig.read(0x20_0000 - 8), 0x1122);
}

#[test]
fn a_store_across_a_missing_page_leaves_no_trace() {
    let mut rig = Rig::new();
    rig.gate(14, 0x1_8000, 0xe, 0, 0);
    rig.code_at(0x1_8000, |a| a.hlt().unwrap());
    rig.memory.write_u64(HostPhysical(0x3000 + 8), 0);
    rig.memory.write(HostPhysical(CODE), &[0x48, 0x01, 0x07]); // add [rdi], rax
    let cpu = rig.cpu();
    (cpu.gpr[0], cpu.gpr[7]) = (u64::MAX, 0x20_0000 - 3);
    cpu.set_rflags(RFlags(ALL));
    rig.memory.write_u64(HostPhysical(0x20_0000 - 8), 0x0505_0505_0505_0505);
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.read(0x20_0000 - 8), 0x0505_0505_0505_0505);
    assert_eq!(rig.cpu().cr2, 0x20_0000, "the second page faults");
    assert_eq!(rig.cpu().rflags().0 & ALL, ALL);
}
