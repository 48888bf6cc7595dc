//! Decimal adjustment, stack frames, BMI, ADX, CRC32 and LOCK, against what they are for.

mod support;

use rootmode_arch::choices::Seeded;
use rootmode_arch::{AccessRights, HostPhysical, RFlags, SegmentName};
use rootmode_cpu::RunEnd;
use support::*;

const CF: u64 = 1;
const AF: u64 = 0x10;
const ZF: u64 = 0x40;
const OF: u64 = 0x800;

/// A rig whose code segment is a 32-bit one.
fn compatibility() -> Rig {
    let mut rig = Rig::new();
    rig.cpu().segment_mut(SegmentName::Cs).rights = AccessRights(0xc09b);
    rig.cpu().refresh();
    rig
}

/// Runs one instruction that completes; returns the registers and the flags.
fn run(rig: &mut Rig, bytes: &[u8], gpr: [u64; 8], flags: u64) -> ([u64; 8], u64) {
    rig.memory.write(HostPhysical(CODE), bytes);
    let cpu = rig.cpu();
    cpu.rip = CODE;
    cpu.gpr[..8].copy_from_slice(&gpr);
    cpu.set_rflags(RFlags(flags));
    assert_eq!(rig.run(1), RunEnd::Budget);
    let cpu = rig.cpu();
    assert_eq!(cpu.rip, CODE + bytes.len() as u64, "{bytes:x?} did not complete");
    (cpu.gpr[..8].try_into().expect("eight registers"), cpu.rflags().0)
}

/// Whether `bytes` raise the exception `vector`.
fn raises(rig: &mut Rig, bytes: &[u8], gpr: [u64; 8], vector: u8) -> bool {
    rig.gate(vector, 0x1_8000, 0xe, 0, 0);
    rig.memory.write(HostPhysical(CODE), bytes);
    rig.cpu().rip = CODE;
    rig.cpu().gpr[..8].copy_from_slice(&gpr);
    rig.run(1);
    rig.cpu().rip == 0x1_8000
}

const STACKED: [u64; 8] = [0, 0, 0, 0, STACK, 0, 0, 0];

#[test]
fn decimal_adjustment_makes_binary_sums_and_differences_decimal() {
    let mut rig = compatibility();
    let bcd = |n: u64| n / 10 << 4 | n % 10;
    for a in 0..100 {
        for b in 0..100 {
            let binary = |result: u64, nibble_carry: bool, carry: bool| {
                let flags = if nibble_carry { AF } else { 0 } | if carry { CF } else { 0 };
                ([result & 0xff, 0, 0, 0, STACK, 0, 0, 0], flags)
            };
            let (x, y) = (bcd(a), bcd(b));
            let (gpr, flags) = binary(x + y, (x & 15) + (y & 15) > 15, x + y > 0xff);
            let (got, flags) = run(&mut rig, &[0x27], gpr, flags);
            assert_eq!((got[0], flags & CF), (bcd((a + b) % 100), u64::from(a + b > 99)), "{a} + {b}");
            let (gpr, flags) = binary(x.wrapping_sub(y), x & 15 < y & 15, x < y);
            let (got, flags) = run(&mut rig, &[0x2f], gpr, flags);
            assert_eq!((got[0], flags & CF), (bcd((100 + a - b) % 100), u64::from(a < b)), "{a} - {b}");
        }
    }
    for a in 0..10 {
        for b in 0..10 {
            // One digit in AL, the next in AH.
            let gpr = |al: u64| [0x0500 | al, 0, 0, 0, STACK, 0, 0, 0];
            let (got, flags) = run(&mut rig, &[0x37], gpr(a + b), if a + b > 15 { AF } else { 0 });
            assert_eq!((got[0], flags & CF), (0x0500 + ((a + b) / 10 << 8) + (a + b) % 10, (a + b) / 10));
            let (difference, borrow) = (a.wrapping_sub(b) & 0xff, u64::from(a < b));
            let ax = 0x0500 | difference;
            let (got, flags) = run(&mut rig, &[0x3f], [ax, 0, 0, 0, STACK, 0, 0, 0], borrow * AF);
            assert_eq!((got[0], flags & CF), (0x0500 - (borrow << 8) + (10 + a - b) % 10, borrow));
            let (got, _) = run(&mut rig, &[0xd4, 10], gpr(a * b), 0);
            assert_eq!(got[0], a * b / 10 << 8 | a * b % 10, "AAM of {a} * {b}");
            let (got, _) = run(&mut rig, &[0xd5, 10], [a << 8 | b, 0, 0, 0, STACK, 0, 0, 0], 0);
            assert_eq!(got[0], a * 10 + b, "AAD");
        }
    }
    assert_eq!(run(&mut rig, &[0xd6], STACKED, CF).0[0], 0xff, "SALC");
    assert!(raises(&mut rig, &[0xd4, 0], STACKED, 0), "AAM by 0 is a division by 0");
}

#[test]
fn register_sets_and_frames_return_as_they_went() {
    let mut rig = compatibility();
    let gpr = [1, 2, 3, 4, STACK, 6, 7, 8];
    for (prefix, step) in [(&[][..], 4), (&[0x66], 2)] {
        let (got, _) = run(&mut rig, &[prefix, &[0x60]].concat(), gpr, 0);
        assert_eq!(got[4], STACK - 8 * step);
        assert_eq!(rig.read(STACK - 5 * step) & 0xffff, STACK & 0xffff, "the old stack pointer is saved");
        let (got, _) = run(&mut rig, &[prefix, &[0x61]].concat(), [0, 0, 0, 0, got[4], 0, 0, 0], 0);
        assert_eq!(got, gpr);
    }
    // Nested frames copy the display: each level's frame pointer can be found from the innermost.
    let mut rig = Rig::new();
    let mut state = [0, 0, 0, 0, STACK, 0x9999, 0, 0];
    let mut frames = vec![];
    for level in 0..4_u8 {
        state = run(&mut rig, &[0xc8, 0x20, 0x00, level], state, 0).0;
        frames.push(state[5]);
        assert_eq!(state[4], state[5] - 8 * u64::from(level) - 0x20);
        for (n, frame) in frames.iter().enumerate().skip(1) {
            assert_eq!(rig.read(state[5] - 8 * n as u64), *frame, "display entry {n} at level {level}");
        }
    }
    for frame in frames.iter().rev() {
        assert_eq!(state[5], *frame);
        state = run(&mut rig, &[0xc9], state, 0).0;
    }
    assert_eq!(state, [0, 0, 0, 0, STACK, 0x9999, 0, 0]);
    let table: Vec<u8> = (0..=255_u8).map(|n| n.wrapping_mul(7)).collect();
    rig.memory.write(HostPhysical(DATA), &table);
    let (got, _) = run(&mut rig, &[0xd7], [0xff05, 0, 0, DATA, STACK, 0, 0, 0], 0);
    assert_eq!(got[0], 0xff23, "XLAT");
}

#[test]
fn bit_instructions_do_to_single_bits_what_they_say() {
    let mut rig = Rig::new();
    let mut random = Seeded::new(5);
    let three = |rig: &mut Rig, w: u8, opcode: &[u8], a: u64, b: u64| {
        // The operands are RAX, RCX, RDX as ModRM.reg, VEX.vvvv, ModRM.rm.
        let [map, pp, code] = *opcode else { panic!("map, prefix and opcode") };
        let bytes = [0xc4, 0xe0 | map, w << 7 | 0x70 | pp, code, 0xc2];
        let (got, flags) = run(rig, &bytes, [7, a, b, 0, STACK, 0, 0, 0], 0);
        (got[0], flags)
    };
    for _ in 0..3000 {
        let (a, b) = (random.next(), random.next() >> (random.next() % 64));
        for (w, bits) in [(0, 32), (1, 64)] {
            let mask = u64::MAX >> (64 - bits);
            let (x, y) = (a & mask, b & mask);
            let set = |v: u64| (0..bits).filter(|n| v >> n & 1 == 1).collect::<Vec<u64>>();
            assert_eq!(three(&mut rig, w, &[2, 0, 0xf2], a, b).0, !x & y, "andn");
            let gathered = set(y).iter().enumerate().map(|(to, from)| (x >> from & 1) << to).sum::<u64>();
            assert_eq!(three(&mut rig, w, &[2, 2, 0xf5], a, b).0, gathered, "pext");
            let spread = set(y).iter().enumerate().map(|(from, to)| (x >> from & 1) << to).sum::<u64>();
            assert_eq!(three(&mut rig, w, &[2, 3, 0xf5], a, b).0, spread, "pdep");
            // VEX.vvvv is the second source: RCX.
            let zeroed = set(y).iter().filter(|n| **n < (a & 0xff)).map(|n| 1 << n).sum::<u64>();
            assert_eq!(three(&mut rig, w, &[2, 0, 0xf5], a, b).0, zeroed, "bzhi");
            let (start, length) = (a & 0xff, a >> 8 & 0xff);
            let inside = |n: &u64| (start..start + length).contains(n);
            let field = set(y).into_iter().filter(inside).map(|n| 1 << (n - start)).sum::<u64>();
            assert_eq!(three(&mut rig, w, &[2, 0, 0xf7], a, b).0, field, "bextr");
            let n = a % bits;
            assert_eq!(three(&mut rig, w, &[2, 1, 0xf7], a, b).0, y << n & mask, "shlx");
            assert_eq!(three(&mut rig, w, &[2, 3, 0xf7], a, b).0, y >> n, "shrx");
            let sign = if y >> (bits - 1) == 1 { mask & !(mask >> n) } else { 0 };
            assert_eq!(three(&mut rig, w, &[2, 2, 0xf7], a, b).0, y >> n | sign, "sarx");
            let rex = if w == 1 { 0x48 } else { 0x40 };
            let zeros = set(y).first().copied().unwrap_or(bits);
            let scan = |rig: &mut Rig, code| {
                run(rig, &[0xf3, rex, 0x0f, code, 0xc2], [7, a, b, 0, STACK, 0, 0, 0], 0)
            };
            let (got, flags) = scan(&mut rig, 0xbc);
            assert_eq!((got[0], flags & CF != 0, flags & ZF != 0), (zeros, y == 0, zeros == 0), "tzcnt");
            let zeros = set(y).last().map_or(bits, |n| bits - 1 - n);
            let (got, flags) = scan(&mut rig, 0xbd);
            assert_eq!((got[0], flags & CF != 0, flags & ZF != 0), (zeros, y == 0, zeros == 0), "lzcnt");
            // ADCX and ADOX of RAX and RDX: each minds its own flag.
            for (prefix, mine, other) in [(0x66, CF, OF), (0xf3, OF, CF)] {
                let (got, flags) = run(
                    &mut rig,
                    &[prefix, rex, 0x0f, 0x38, 0xf6, 0xc2],
                    [a, 0, b, 0, STACK, 0, 0, 0],
                    mine | other,
                );
                let sum = u128::from(x) + u128::from(y) + 1;
                assert_eq!(u128::from(got[0]), sum & u128::from(mask));
                assert_eq!((flags & mine != 0, flags & other), (sum >> bits != 0, other));
            }
        }
    }
}

#[test]
fn crc32_is_castagnolis_whatever_the_piece_size() {
    let model = rootmode_cpu::Model::max_intel();
    let features = model.features().with(rootmode_arch::Feature::Sse42);
    let mut rig = Rig::with_model(rootmode_cpu::Model::new(model.vendor(), features));
    // The check value that catalogues of CRCs list for this one.
    rig.memory.write(HostPhysical(DATA), b"123456789");
    let mut gpr = [0xffff_ffff, 0, 0, DATA, STACK, 0, 0, 0];
    for (bytes, size) in
        [(&[0xf2, 0x48, 0x0f, 0x38, 0xf1, 0x03][..], 8), (&[0xf2, 0x0f, 0x38, 0xf0, 0x03], 1)]
    {
        gpr = run(&mut rig, bytes, gpr, 0).0;
        gpr[3] += size;
    }
    assert_eq!(gpr[0] ^ 0xffff_ffff, 0xe306_9283);
}

#[test]
fn vex_prefixes_are_undefined_in_real_mode() {
    let mut rig = Rig::new();
    let mut cpu = rootmode_cpu::Cpu::new(0, rig.cpu().model.clone());
    cpu.segment_mut(SegmentName::Cs).base = 0;
    cpu.rip = CODE >> 4;
    rig.processor = rootmode_cpu::Processor::new(cpu, None);
    // The interrupt vector of #UD.
    rig.memory.write_u64(HostPhysical(6 * 4), 0x4444);
    rig.memory.write(HostPhysical(CODE >> 4), &[0xc4, 0xe2, 0x70, 0xf2, 0xc2]);
    rig.run(1);
    assert_ne!(rig.cpu().rip, (CODE >> 4) + 5, "ANDN did not run");
}

#[test]
fn lock_is_for_memory_destinations_of_some_instructions_only() {
    let mut rig = Rig::new();
    let gpr = [0, 0, 0, DATA, STACK, 0, 0, 0];
    let allowed: [&[u8]; 4] = [
        &[0xf0, 0x01, 0x03],
        &[0xf0, 0x0f, 0xc7, 0x0b],
        &[0xf0, 0x48, 0x0f, 0xab, 0x03],
        &[0xf0, 0xf6, 0x13],
    ];
    for bytes in allowed {
        assert!(!raises(&mut rig, bytes, gpr, 6), "{bytes:x?}");
    }
    let refused: [&[u8]; 5] = [
        &[0xf0, 0x01, 0xc0],
        &[0xf0, 0x8b, 0x03],
        &[0xf0, 0x39, 0x03],
        &[0xf0, 0x0f, 0xa3, 0x03],
        &[0xf0, 0x90],
    ];
    for bytes in refused {
        assert!(raises(&mut rig, bytes, gpr, 6), "{bytes:x?}");
    }
}
