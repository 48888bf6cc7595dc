//! Segmentation in every mode against a naive oracle: random descriptors, selectors, levels, offsets and sizes.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod draw;
mod oracle;
#[path = "../support/mod.rs"]
mod support;

use draw::{Case, Draw, LDT, PATTERN};
use oracle::{Descriptor, Mode, Raised, Register, SS};
use rootmode_arch::choices::Seeded;
use rootmode_arch::{AccessRights, HostPhysical, Segment, SegmentName, Selector, Vendor};
use rootmode_cpu::{Model, Processor};
use support::{CODE, CR3, GDT, Rig, witness::Witness};

const MEMORY: u64 = 0x20_0000;
/// What the rig's page tables map.
const MAPPED: u64 = 1 << 30;

/// A processor to begin every case with, and its memory.
struct Bench {
    rig: Rig,
    fresh: Processor,
}

impl Bench {
    fn new(model: Model) -> Self {
        let mut rig = Rig::with_model(model);
        // Accessed and dirty already: no walk writes.
        rig.memory.write_u64(HostPhysical(CR3), 0x2000 | 0x27);
        rig.memory.write_u64(HostPhysical(0x2000), 0x3000 | 0x27);
        for n in 0..512 {
            rig.memory.write_u64(HostPhysical(0x3000 + n * 8), n << 21 | 0xe7);
        }
        let pattern: Vec<u8> = (PATTERN..MEMORY).map(|at| (at * 37 + (at >> 8) * 11 + 5) as u8).collect();
        rig.memory.write(HostPhysical(PATTERN), &pattern);
        let fresh = rig.processor.clone();
        Self { rig, fresh }
    }

    fn begin(&mut self, case: &Case) {
        self.rig.processor = self.fresh.clone();
        case.prepare(&mut self.rig.memory, &mut self.rig.processor.cpu);
    }

    /// Executes one instruction: what it raises.
    fn step(&mut self, bytes: &[u8]) -> Result<(), Raised> {
        let (extension, seen) = Witness::attach(&mut self.rig.processor.cpu, 0);
        self.rig.processor.extension = Some(extension);
        self.rig.memory.write(HostPhysical(CODE), bytes);
        self.rig.run(1);
        let seen = seen.lock().unwrap().first().copied();
        match seen {
            None => Ok(()),
            Some(e) => Err((e.vector, e.error_code, if e.vector == 14 { e.detail } else { 0 })),
        }
    }

    fn bytes(&self, addresses: &[u64]) -> Vec<u8> {
        addresses.iter().map(|at| self.rig.memory.read_u8(HostPhysical(*at))).collect()
    }
}

/// Real mode pushes no error codes.
fn as_raised(mode: Mode, expected: Raised) -> Raised {
    if mode == Mode::Real { (expected.0, None, expected.2) } else { expected }
}

/// The override prefix of each register.
const PREFIXES: [u8; 6] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];

fn loads_and_accesses(model: Model, seed: u64, cases: usize) -> [usize; 4] {
    let amd = model.vendor() == Vendor::Amd;
    let mut bench = Bench::new(model);
    let mut draw = Draw(Seeded::new(seed));
    let mut counts = [0; 4];
    for number in 0..cases {
        let case = draw.case();
        bench.begin(&case);
        let Case { mode, cpl, target, selector, old_limit, .. } = case;
        let what = format!("case {number}: {mode:?} CPL {cpl}, register {target} = {selector:#x}");
        let expected = oracle::load(mode, cpl, target, selector, old_limit, &case.tables());
        bench.rig.cpu().gpr[0] = u64::from(selector);
        let modrm = 0xc0 | (target as u8) << 3;
        let got = bench.step(&[0x8e, modrm]);
        let register = match expected {
            Err(raised) => {
                assert_eq!(got, Err(as_raised(mode, raised)), "{what}");
                counts[0] += 1;
                continue;
            }
            Ok(register) => register,
        };
        assert_eq!(got, Ok(()), "{what}: {register:x?}");
        check_hidden(&bench, &case, &register, &what);
        counts[1] += 1;
        // Accesses through what was loaded; in 64-bit mode only FS and GS have a base.
        for _ in 0..4 {
            let size = draw.of(&[1, 2, 4, if mode == Mode::Long { 8 } else { 4 }]);
            let form = draw.below(3);
            let (read_only, write) = (form == 0, form != 0);
            let offset = draw.offset(mode, &register);
            let number = if mode == Mode::Long && target < 4 { 3 } else { target };
            let last = offset.wrapping_add(size - 1);
            let limit_is_all = matches!(register, Register::Plain(_, 0xffff_ffff))
                || matches!(register, Register::Loaded(d) if d.limit == 0xffff_ffff && !d.expands_down());
            if mode != Mode::Long && limit_is_all && last > 0xffff_ffff {
                // "These accesses may or may not cause the indicated exceptions" ("Limit Checking").
                continue;
            }
            let expected = oracle::access(mode, amd, number, register, offset, size, write);
            // The write of a read-modify-write decides.
            let expected = expected.and_then(|bytes| {
                if mode.is_ia32e() {
                    oracle::page(&bytes, MAPPED, cpl, write)?;
                }
                Ok(bytes)
            });
            let mut code = Vec::new();
            if mode != Mode::Long || number >= 4 {
                code.push(PREFIXES[number]);
            }
            if mode.is_16_bit() {
                code.push(0x67);
            }
            if (size == 2) != mode.is_16_bit() && size != 1 && size != 8 {
                code.push(0x66);
            }
            if size == 8 {
                code.push(0x48);
            }
            let opcode = [[0x8a, 0x8b], [0x88, 0x89], [0x00, 0x01]][form as usize][usize::from(size != 1)];
            // [EBX], ECX.
            code.extend([opcode, 0x0b]);
            let cpu = bench.rig.cpu();
            cpu.rip = if mode == Mode::Long { CODE } else { 0 };
            (cpu.gpr[3], cpu.gpr[1]) = (offset, 0x1122_3344_5566_7788);
            bench.rig.memory.write(HostPhysical(CODE), &[0; 16]);
            let addresses = expected.clone().unwrap_or_default();
            // The instruction itself would be what is read or written.
            let code_lines = CODE & !0xfff..CODE + 0x1000;
            if addresses.iter().any(|at| code_lines.contains(at)) {
                continue;
            }
            let before = bench.bytes(&addresses);
            let got = bench.step(&code);
            let what = format!("{what}; {code:02x?} at {offset:#x}, {register:x?}");
            assert_eq!(got, expected.clone().map(|_| ()).map_err(|e| as_raised(mode, e)), "{what}");
            if expected.is_err() {
                counts[2] += 1;
                break;
            }
            counts[3] += 1;
            let value = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
            let mask = u64::MAX >> (64 - 8 * size);
            if read_only {
                assert_eq!(bench.rig.cpu().gpr[1] & mask, value(&before), "{what}");
            } else {
                let there = if form == 1 { 0 } else { value(&before) };
                let result = there.wrapping_add(0x1122_3344_5566_7788) & mask;
                let stored: Vec<u8> = result.to_le_bytes()[..size as usize].to_vec();
                let present =
                    addresses.iter().zip(stored).map(|(at, byte)| if *at < MEMORY { byte } else { 0xff });
                assert_eq!(bench.bytes(&addresses), present.collect::<Vec<u8>>(), "{what}");
                for (at, byte) in addresses.iter().zip(&before) {
                    bench.rig.memory.write_u8(HostPhysical(*at), *byte);
                }
            }
        }
    }
    counts
}

/// The register's hidden part, and the accessed flag in the table.
fn check_hidden(bench: &Bench, case: &Case, register: &Register, what: &str) {
    let held = bench.rig.processor.cpu.segment(SegmentName::ALL[case.target]);
    assert_eq!(held.selector.0, case.selector, "{what}");
    match register {
        Register::Null => assert!(!held.rights.is_usable(), "{what}"),
        Register::Plain(base, limit) => {
            assert_eq!((held.base, u64::from(held.limit)), (*base, *limit), "{what}");
        }
        Register::Loaded(descriptor) => {
            let rights = descriptor.rights | 1;
            assert_eq!((held.base, u64::from(held.limit)), (descriptor.base, descriptor.limit), "{what}");
            assert_eq!(held.rights.0, rights, "{what}");
            let table = if case.selector & 4 == 0 { GDT } else { LDT };
            let at = HostPhysical(table + u64::from(case.selector & !7) + 5);
            assert_eq!(u32::from(bench.rig.memory.read_u8(at)), rights & 0xff, "{what}: in memory");
        }
    }
}

#[test]
fn loads_of_segment_registers_and_accesses_through_them_do_what_the_manual_says() {
    for (model, seed) in [(Model::max_intel(), 1), (Model::max_amd(), 2)] {
        let counts = loads_and_accesses(model, seed, 5000);
        assert!(
            counts.iter().all(|n| *n > 600),
            "refused and made loads, refused and made accesses: {counts:?}"
        );
    }
}

#[test]
fn far_jumps_to_code_segments_do_what_the_manual_says() {
    let mut bench = Bench::new(Model::max_intel());
    let mut draw = Draw(Seeded::new(3));
    let mut counts = [0; 2];
    for number in 0..6000 {
        let case = draw.case();
        let (mode, selector) = (case.mode, case.selector);
        let tables = case.tables();
        let found = tables.find(selector).ok();
        if !mode.has_descriptors() || selector >= 4 && found.is_some_and(|d| !d.ordinary) {
            continue;
        }
        bench.begin(&case);
        let limit = found.map_or(0, |d: Descriptor| d.limit);
        let near = limit.wrapping_add(draw.below(8)).wrapping_sub(4);
        let offset = if draw.below(2) == 0 { near } else { draw.bits(32) } & 0xffff_ffff;
        // JMP m16:32 at [CODE + 0x800].
        let pointer: Vec<u8> = [&(offset as u32).to_le_bytes()[..], &selector.to_le_bytes()].concat();
        bench.rig.memory.write(HostPhysical(CODE + 0x800), &pointer);
        bench.rig.cpu().gpr[3] = if mode == Mode::Long { CODE + 0x800 } else { 0x800 };
        let mut code = if mode == Mode::Long { vec![] } else { vec![0x2e] };
        if mode.is_16_bit() {
            code.extend([0x66, 0x67]);
        }
        code.extend([0xff, 0x2b]);
        let got = bench.step(&code);
        let what =
            format!("case {number}: {mode:?} CPL {}, to {selector:#x}:{offset:#x}, {found:x?}", case.cpl);
        match oracle::jump(mode, case.cpl, selector, offset, &tables) {
            Err(raised) => {
                assert_eq!(got, Err(raised), "{what}");
                counts[0] += 1;
            }
            Ok(descriptor) => {
                assert_eq!(got, Ok(()), "{what}");
                let cpu = bench.rig.cpu();
                let cs = *cpu.segment(SegmentName::Cs);
                assert_eq!(cs.selector.0, selector & !3 | u16::from(case.cpl), "{what}");
                assert_eq!(
                    (cs.base, u64::from(cs.limit), cpu.rip),
                    (descriptor.base, descriptor.limit, offset),
                    "{what}"
                );
                assert_eq!(cs.rights.0, descriptor.rights | 1, "{what}");
                counts[1] += 1;
            }
        }
    }
    assert!(counts.iter().all(|n| *n > 80), "refused and made: {counts:?}");
}

#[test]
fn pushes_stay_within_the_stack_segment() {
    let mut bench = Bench::new(Model::max_intel());
    let mut draw = Draw(Seeded::new(4));
    let mut counts = [0; 2];
    for number in 0..3000 {
        let mut case = draw.case();
        case.mode = draw.of(&[Mode::Protected16, Mode::Protected32]);
        bench.begin(&case);
        // A writable data segment as SS, in the hidden part alone.
        let mut bytes = draw.descriptor();
        bytes[5] = bytes[5] & 0x64 | 0x92 | case.cpl << 5;
        let stack = Descriptor::of(bytes);
        let register = Register::Loaded(stack);
        *bench.rig.cpu().segment_mut(SegmentName::Ss) = Segment {
            selector: Selector(0x10),
            rights: AccessRights(stack.rights),
            limit: stack.limit as u32,
            base: stack.base,
        };
        let size = draw.of(&[2, 4]);
        let wide = if stack.big { 0xffff_ffff } else { 0xffff };
        let top = draw.offset(case.mode, &register);
        let below = (top & wide).wrapping_sub(size) & wide;
        if below + size - 1 > wide {
            // Where one push runs over the end of the stack, the manual leaves open what happens.
            continue;
        }
        bench.rig.cpu().gpr[4] = top;
        bench.rig.cpu().gpr[1] = 0x5566_7788;
        let mut code = if (size == 2) == case.mode.is_16_bit() { vec![] } else { vec![0x66] };
        code.push(0x51);
        let expected = oracle::access(case.mode, false, SS, register, below, size, true);
        let addresses = expected.clone().unwrap_or_default();
        if addresses.iter().any(|at| *at < PATTERN) {
            continue;
        }
        let got = bench.step(&code);
        let what = format!("case {number}: {:?}, push of {size} at {top:#x}, {stack:x?}", case.mode);
        assert_eq!(got, expected.clone().map(|_| ()), "{what}");
        let pointer = if expected.is_ok() { top & !wide | below } else { top };
        assert_eq!(bench.rig.cpu().gpr[4], pointer, "{what}");
        counts[usize::from(expected.is_ok())] += 1;
        if expected.is_ok() {
            let value = 0x5566_7788_u32.to_le_bytes();
            let present =
                addresses.iter().zip(value).map(|(at, byte)| if *at < MEMORY { byte } else { 0xff });
            assert_eq!(bench.bytes(&addresses), present.collect::<Vec<u8>>(), "{what}");
        }
    }
    assert!(counts.iter().all(|n| *n > 200), "refused and made: {counts:?}");
}
