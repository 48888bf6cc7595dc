//! MMX, SSE to SSE4.2 and x87 against the host processor: every form, from states at the edges, under every rounding mode
//! and mask. Results, flags, MXCSR, x87 state and faults must agree.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

#[path = "native/forms.rs"]
mod forms;
mod native;
mod support;

use forms::{Form, forms};
use iced_x86::{Code, CpuidFeature, Mnemonic};
use native::{Host, MEMORY, State};
use rootmode_arch::choices::Seeded;
use rootmode_arch::{Cr4, HostPhysical, RFlags};
use rootmode_cpu::{F80, Model};
use std::collections::BTreeMap;
use std::sync::Mutex;
use support::*;

/// Cases a form in the test command; `ROOTMODE_NATIVE_CASES` asks for more.
const CASES: u64 = 60;
const HANDLERS: u64 = 0x8000;
const STATUS: u64 = 0x8d5;

fn single(r: &mut Seeded) -> u32 {
    const EDGES: [u32; 24] = [
        0,
        1,
        2,
        0x7f_ffff,
        0x80_0000,
        0x80_0001,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7f80_0001,
        0x7fa0_1234,
        0x7fc0_0000,
        0x7fff_ffff,
        0x3f80_0000,
        0x3f00_0000,
        0x3f7f_ffff,
        0x3f80_0001,
        0x4f00_0000,
        0x4eff_ffff,
        0x5f00_0000,
        0x4b00_0001,
        0x3fc0_0000,
        0x4020_0000,
        0x40_0000,
        0x7fd5_5555,
    ];
    let raw = r.next();
    let value = match raw >> 32 & 7 {
        0..=3 => EDGES[(raw >> 40) as usize % EDGES.len()],
        4 => (raw as u32 & 0x8000_0000) | (((raw >> 40) as u32 % 10 + 122) << 23) | (raw as u32 & 0x70_0000),
        5 => (raw as u32 & 0x807f_ffff) | (((raw >> 40) as u32 % 30 + 112) << 23),
        6 => ((raw as i32 >> 20) as f32).to_bits(),
        _ => raw as u32,
    };
    value | (raw >> 31 & 1) as u32 * 0x8000_0000 * ((raw >> 60 & 1) as u32)
}

fn double(r: &mut Seeded) -> u64 {
    const EDGES: [u64; 26] = [
        0,
        1,
        2,
        0xf_ffff_ffff_ffff,
        0x10_0000_0000_0000,
        0x10_0000_0000_0001,
        0x7fef_ffff_ffff_ffff,
        0x7ff0_0000_0000_0000,
        0x7ff0_0000_0000_0001,
        0x7ff4_0000_1234_5678,
        0x7ff8_0000_0000_0000,
        0x7fff_ffff_ffff_ffff,
        0x3ff0_0000_0000_0000,
        0x3fe0_0000_0000_0000,
        0x3fef_ffff_ffff_ffff,
        0x3ff0_0000_0000_0001,
        0x41df_ffff_ffc0_0000,
        0x41e0_0000_0000_0000,
        0x43e0_0000_0000_0000,
        0x43df_ffff_ffff_ffff,
        0x47ef_ffff_e000_0000,
        0x3810_0000_0000_0000,
        0x380f_ffff_ffff_ffff,
        0x36a0_0000_0000_0000,
        0x4004_0000_0000_0000,
        0x7ff5_5555_5555_5555,
    ];
    let raw = r.next();
    let more = r.next();
    let value = match raw >> 32 & 7 {
        0..=3 => EDGES[(raw >> 40) as usize % EDGES.len()],
        4 => (more & 0x8000_0000_0000_0000) | ((raw >> 40) % 10 + 1018) << 52 | (more & 0xf_0000_0000_0000),
        5 => (more & 0x800f_ffff_ffff_ffff) | ((raw >> 40) % 60 + 993) << 52,
        6 => ((more as i64 >> 40) as f64).to_bits(),
        _ => more,
    };
    value | (raw >> 31 & 1) << 63
}

fn extended(r: &mut Seeded) -> u128 {
    let raw = r.next();
    let more = r.next();
    let sign = u128::from(raw & 1) << 79;
    let exponent = match raw >> 8 & 7 {
        0 => 0,
        1 => 0x7fff,
        2 => 1 + (raw >> 16 & 0x3f),
        3 => 0x7ffe - (raw >> 16 & 0x3f),
        _ => 0x3fff - 70 + (raw >> 16) % 140,
    };
    let significand = match more & 15 {
        0 => 0,
        1 => 1 << 63,
        2 => u64::MAX,
        3 => 1 << 63 | 1,
        4 => 3 << 62,
        5 => 3 << 62 | more >> 20,
        6 => 1 << 63 | more >> 20,
        7 => more,
        8 => 1 << (more >> 4 & 63),
        9 => 1 << 63 | more & 0xff00_0000_0000_0000,
        10 => 1 << 63 | more >> 11 << 11,
        11 => 1 << 63 | more >> 40 << 40 | 1 << 39,
        _ => 1 << 63 | more,
    };
    sign | u128::from(exponent) << 64 | u128::from(significand)
}

fn wide(r: &mut Seeded) -> u128 {
    match r.next() % 6 {
        0 | 1 => (0..4).fold(0, |all, _| all << 32 | u128::from(single(r))),
        2 | 3 => u128::from(double(r)) << 64 | u128::from(double(r)),
        4 => {
            const BYTES: [u8; 8] = [0, 1, 0x7f, 0x80, 0x81, 0xff, 0x41, 0x5a];
            (0..16).fold(0, |all, _| all << 8 | u128::from(BYTES[r.next() as usize % 8]))
        }
        _ => u128::from(r.next()) << 64 | u128::from(r.next()),
    }
}

fn draw(r: &mut Seeded, form: &Form) -> State {
    let mut state = State::new();
    for n in 0..16 {
        let value = wide(r);
        state.set_xmm(n, value);
    }
    if r.next().is_multiple_of(4) {
        state.set_xmm(2, state.xmm(1));
    }
    let raw = r.next();
    let masks = if raw & 3 == 0 { raw >> 8 & 0x3f } else { 0x3f };
    let flags = if raw & 4 == 0 { raw >> 16 & 0x3f } else { 0 };
    let modes = if raw & 8 == 0 { raw >> 24 & 0x8040 } else { 0 };
    let rounding = if raw & 16 == 0 { raw >> 40 & 3 } else { 0 };
    state.set_mxcsr((masks << 7 | flags | modes | rounding << 13) as u32);
    let raw = r.next();
    let masks = if raw & 3 == 0 { raw >> 8 & 0x3f } else { 0x3f };
    let precision = [3, 3, 2, 0][(raw >> 16 & 3) as usize];
    let control = masks | 0x40 | precision << 8 | (raw >> 20 & 3) << 10;
    state.set_u16(0, control as u16);
    let pending = if raw >> 24 & 15 == 0 { raw >> 28 & 0x7f } else { raw >> 28 & 0x7f & masks };
    let summary = if pending & !masks & 0x3f != 0 { 0x8080 } else { 0 };
    state.set_u16(2, (pending | raw >> 36 & 0x7f00 | summary) as u16);
    state.fx[4] = match raw >> 56 & 3 {
        0 => (raw >> 48) as u8,
        1 => 0,
        _ => 0xff,
    };
    for n in 0..8 {
        let value = extended(r);
        state.set_st(n, value);
    }
    if r.next().is_multiple_of(4) {
        let top = state.st(0);
        state.set_st(1, top);
    }
    for n in (0..256).step_by(16) {
        let value = match r.next() & 1 {
            0 => wide(r),
            _ => extended(r),
        };
        state.memory[n..n + 16].copy_from_slice(&value.to_le_bytes());
    }
    if form.code == Code::Ldmxcsr_m32 && !r.next().is_multiple_of(8) {
        state.memory[2..4].fill(0);
    }
    for n in 0..4 {
        state.gpr[n] = match r.next() % 4 {
            0 => r.next() % 20,
            1 => u64::from(single(r)),
            2 => double(r),
            _ => r.next(),
        };
    }
    state.flags = 0x202 | r.next() & STATUS;
    if is_save(form) {
        draw_area(r, &mut state);
    }
    // Mostly aligned, sometimes not.
    state.offset = if r.next().is_multiple_of(8) { r.next() % 64 } else { 64 };
    state
}

/// FXSAVE and the XSAVE family.
fn is_save(form: &Form) -> bool {
    let name = format!("{:?}", form.code);
    name.starts_with("Fxsave")
        || name.starts_with("Fxrstor")
        || name.starts_with("Xsave")
        || name.starts_with("Xrstor")
}

/// A save area at offset 64, mostly valid; x87 and SSE components are asked for; states that are initial.
fn draw_area(r: &mut Seeded, state: &mut State) {
    for n in (64..640).step_by(16) {
        let value = if r.next() & 1 == 0 { wide(r) } else { extended(r) };
        state.memory[n..n + 16].copy_from_slice(&value.to_le_bytes());
    }
    let raw = r.next();
    let mxcsr = (raw as u32 & 0xffff) | if raw >> 16 & 15 == 0 { 0x1_0000 } else { 0 };
    state.memory[88..92].copy_from_slice(&mxcsr.to_le_bytes());
    // The header: XSTATE_BV, XCOMP_BV and zeros.
    state.memory[576..640].fill(0);
    state.memory[576] = (raw >> 20 & 3) as u8;
    if raw >> 22 & 1 == 0 {
        state.memory[584] = (raw >> 24 & 3) as u8 | state.memory[576];
        state.memory[591] = 0x80;
    }
    if raw >> 32 & 7 == 0 {
        // Not AVX or PKRU, which the host may have enabled.
        let bit = (raw >> 40) as usize % 512;
        if ![2, 9, 66, 73].contains(&bit) {
            state.memory[576 + bit / 8] ^= 1 << (bit % 8);
        }
    }
    state.gpr[0] = raw >> 52 & 3;
    state.gpr[2] = 0;
    if raw >> 56 & 3 == 0 {
        (0..16).for_each(|n| state.set_xmm(n, 0));
    }
    if raw >> 58 & 1 == 0 {
        state.set_mxcsr(0x1f80);
    }
    if raw >> 59 & 3 == 0 {
        (0..8).for_each(|n| state.set_st(n, 0));
        state.set_u16(0, 0x37f);
        state.set_u16(2, 0);
        state.fx[4] = 0;
    }
}

/// Copies `state` into the rig, runs `bytes`, copies the outcome back.
fn simulate(rig: &mut Rig, bytes: &[u8], state: &mut State) {
    rig.memory.write(HostPhysical(CODE), bytes);
    rig.memory.write(HostPhysical(DATA), &state.memory);
    let cpu = rig.cpu();
    cpu.rip = CODE;
    for n in 0..16 {
        cpu.vectors.set_xmm(n as u8, state.xmm(n));
    }
    cpu.vectors.mxcsr = state.mxcsr();
    let x87 = &mut cpu.vectors.x87;
    (x87.opcode, x87.instruction, x87.operand) = (0, 0, 0);
    (x87.instruction_selector, x87.operand_selector) = (0, 0);
    (x87.control, x87.status, x87.used) = (state.u16(0), state.u16(2), state.fx[4]);
    let top = usize::from(x87.top());
    for n in 0..8 {
        let bits = state.st(n);
        x87.registers[(top + n) & 7] = F80 { significand: bits as u64, exponent: (bits >> 64) as u16 };
    }
    cpu.gpr[..4].copy_from_slice(&state.gpr);
    cpu.gpr[6] = DATA + state.offset;
    cpu.gpr[7] = DATA + state.offset;
    cpu.gpr[4] = STACK;
    cpu.set_rflags(RFlags(state.flags));
    let end = rig.run(1);
    assert_eq!(end, rootmode_cpu::RunEnd::Budget, "{bytes:02x?}");
    let mut memory = [0; MEMORY];
    rig.memory.read(HostPhysical(DATA), &mut memory);
    state.memory = memory;
    let cpu = rig.cpu();
    state.signal = match cpu.rip {
        rip if rip >= CODE => 0,
        rip => match (rip - HANDLERS) / 16 {
            6 => libc::SIGILL as u64,
            16 | 19 => libc::SIGFPE as u64,
            13 | 14 => libc::SIGSEGV as u64,
            other => 1000 + other,
        },
    };
    for n in 0..16 {
        state.set_xmm(n, cpu.vectors.xmm(n as u8));
    }
    state.set_mxcsr(cpu.vectors.mxcsr);
    let x87 = cpu.vectors.x87.clone();
    state.set_u16(0, x87.control);
    state.set_u16(2, x87.status);
    state.fx[4] = x87.used;
    for n in 0..8 {
        let register = x87.registers[(usize::from(x87.top()) + n) & 7];
        state.set_st(n, u128::from(register.exponent) << 64 | u128::from(register.significand));
    }
    state.gpr.copy_from_slice(&cpu.gpr[..4]);
    if state.signal == 0 {
        state.flags = cpu.rflags().0;
    }
}

/// What differs, in words.
fn differences(host: &State, ours: &State, form: &Form, flags: u64) -> Vec<String> {
    let mut all = Vec::new();
    let mut check = |name: &str, a: u128, b: u128| {
        if a != b {
            all.push(format!("{name}: host {a:x}, here {b:x}"));
        }
    };
    check("signal", u128::from(host.signal), u128::from(ours.signal));
    for n in 0..16 {
        check(&format!("xmm{n}"), host.xmm(n), ours.xmm(n));
    }
    check("mxcsr", u128::from(host.mxcsr()), u128::from(ours.mxcsr()));
    check("fcw", u128::from(host.u16(0)), u128::from(ours.u16(0)));
    let transcendental = is_transcendental(form);
    // C1 tells how the last place was rounded; C0 and C3 are undefined.
    let codes = if transcendental { !0x4300 } else { !0 };
    check("fsw", u128::from(host.u16(2) & codes), u128::from(ours.u16(2) & codes));
    check("ftw", u128::from(host.fx[4]), u128::from(ours.fx[4]));
    for n in 0..8 {
        let near = transcendental && is_near(host.st(n), ours.st(n));
        check(&format!("st{n}"), host.st(n), if near { host.st(n) } else { ours.st(n) });
    }
    for (n, name) in ["rax", "rcx", "rdx", "rbx"].iter().enumerate() {
        check(name, u128::from(host.gpr[n]), u128::from(ours.gpr[n]));
    }
    if host.signal == 0 {
        check("flags", u128::from(host.flags & flags), u128::from(ours.flags & flags));
    }
    if form.memory && host.memory != ours.memory {
        let at = (0..MEMORY - 16).find(|n| host.memory[*n] != ours.memory[*n]).unwrap_or(0) / 8 * 8;
        all.push(format!(
            "memory at {at}: host {:02x?}, here {:02x?}",
            &host.memory[at..at + 16],
            &ours.memory[at..at + 16]
        ));
    }
    all
}

/// The estimate instructions: within the manual's bound of the host's.
fn is_estimate(form: &Form) -> bool {
    matches!(form.code.mnemonic(), Mnemonic::Rcpps | Mnemonic::Rcpss | Mnemonic::Rsqrtps | Mnemonic::Rsqrtss)
}

fn is_transcendental(form: &Form) -> bool {
    use Mnemonic as M;
    matches!(
        form.code.mnemonic(),
        M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fptan | M::Fpatan | M::Fsin | M::Fcos | M::Fsincos
    )
}

/// Whether two results of a transcendental function are at most one unit in the last place apart: ours are correctly rounded,
/// those of processors are off by less than one (SDM Vol. 1 "Transcendental Instruction Accuracy").
fn is_near(a: u128, b: u128) -> bool {
    // Exponents and significands count on from one binade to the next but for the integer bit.
    let place = |x: u128| (x >> 64 & 0x7fff) << 63 | x & (1 << 63) - 1;
    let number = |x: u128| x >> 64 & 0x7fff != 0x7fff;
    a >> 79 == b >> 79 && number(a) && number(b) && place(a).abs_diff(place(b)) <= 1
}

/// Saves in `ours` what the host saved although it is initial, which it may (SDM Vol. 1 "Processor Tracking of XSAVE-Managed
/// State": XINUSE may be 1 then). What is saved is known.
fn save_initial(before: &State, host: &State, ours: &mut State) {
    let area = before.offset as usize;
    let in_use = area + 512;
    let more = host.memory[in_use] & !ours.memory[in_use];
    let x87 =
        (before.u16(0), before.u16(2), before.fx[4]) == (0x37f, 0, 0) && (0..8).all(|n| before.st(n) == 0);
    if more & 1 != 0 && x87 {
        ours.memory[in_use] |= 1;
        ours.memory[area..area + 24].fill(0);
        ours.memory[area..area + 2].copy_from_slice(&0x37f_u16.to_le_bytes());
        ours.memory[area + 32..area + 160].fill(0);
    }
    if more & 2 != 0 && (0..16).all(|n| before.xmm(n) == 0) {
        ours.memory[in_use] |= 2;
        ours.memory[area + 24..area + 28].copy_from_slice(&before.mxcsr().to_le_bytes());
        ours.memory[area + 160..area + 416].fill(0);
    }
}

/// Takes the host's NaN where both results are one and the host's is an operand's or the default one: which of several goes to
/// which place is implementation dependent (SDM Vol. 2A "DPPS").
fn take_nans(before: &State, host: &State, ours: &mut State) {
    const QUIET: u32 = 0x40_0000;
    const DEFAULT: u32 = 0xffc0_0000;
    let parts = |value: u128| (0..4).map(move |n| (value >> (32 * n)) as u32);
    let is_nan = |part: u32| part & 0x7fff_ffff > 0x7f80_0000;
    let memory: [u8; 16] = core::array::from_fn(|n| before.memory[before.offset as usize + n]);
    let operands: Vec<u32> = (0..16)
        .map(|n| before.xmm(n))
        .chain([u128::from_le_bytes(memory)])
        .flat_map(parts)
        .filter(|part| is_nan(*part))
        .map(|part| part | QUIET)
        .chain([DEFAULT])
        .collect();
    for register in 0..16 {
        let pairs = parts(host.xmm(register)).zip(parts(ours.xmm(register)));
        let taken =
            pairs.map(
                |(theirs, own)| {
                    if is_nan(theirs) && is_nan(own) && operands.contains(&theirs) { theirs } else { own }
                },
            );
        let value = taken.enumerate().fold(0, |all, (n, part)| all | u128::from(part) << (32 * n));
        ours.set_xmm(register, value);
    }
}

/// Compares every form; answers mismatches by code, and prints the first of each.
fn compare(forms: &[Form], cases: u64) -> BTreeMap<String, u64> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let mut host = Host::new();
    let mut rig = Rig::with_model(Model::max_amd());
    rig.cpu().cr4 = rig.cpu().cr4 | Cr4::OSXMMEXCPT | Cr4::OSXSAVE;
    rig.cpu().xcr0 = 3;
    for vector in 0..32 {
        rig.gate(vector, HANDLERS + u64::from(vector) * 16, 0xe, 0, 0);
    }
    let mut mismatches = BTreeMap::new();
    for form in forms {
        let mut r = Seeded::new(form.code as u64);
        let info = iced_x86::Decoder::new(64, &form.bytes, 0).decode();
        let flags = STATUS & !rflags(info.rflags_undefined());
        for _ in 0..cases {
            let mut bytes = form.bytes.clone();
            if form.immediate {
                *bytes.last_mut().expect("an encoding has bytes") = r.next() as u8;
            }
            let before = draw(&mut r, form);
            let (mut native, mut ours) = (before, before);
            host.load(&bytes);
            host.run(&mut native);
            for _ in 0..3 {
                if !is_save(form) {
                    break;
                }
                // A context switch can make initial state count as in use: the run that saves least is undisturbed.
                let mut again = before;
                host.run(&mut again);
                if again.memory[576] < native.memory[576] {
                    native = again;
                }
            }
            simulate(&mut rig, &bytes, &mut ours);
            if is_save(form) {
                // MXCSR_MASK: the host's parts have misaligned-SSE mode.
                let at = before.offset as usize + 28;
                native.memory.copy_within(at..at + 4, 0);
                ours.memory[at..at + 4].copy_from_slice(&native.memory[at..at + 4]);
                ours.memory[..4].copy_from_slice(&native.memory[at..at + 4]);
                if native.signal == 0 {
                    save_initial(&before, &native, &mut ours);
                }
            }
            if form.code.mnemonic() == Mnemonic::Dpps {
                take_nans(&before, &native, &mut ours);
            }
            let found = differences(&native, &ours, form, flags);
            if !found.is_empty() {
                let count = mismatches.entry(format!("{:?}", form.code)).or_insert(0);
                *count += 1;
                if *count <= 2 {
                    println!(
                        "{:?} {:02x?}: {}\n    from xmm1 {:x} xmm2 {:x} mxcsr {:x} | fcw {:x} fsw {:x} ftw {:x} st0 {:x} st1 {:x} st2 {:x} st3 {:x} | memory {:02x?} at {} rax {:x} rcx {:x}",
                        form.code,
                        bytes,
                        found.join("; "),
                        before.xmm(1),
                        before.xmm(2),
                        before.mxcsr(),
                        before.u16(0),
                        before.u16(2),
                        before.fx[4],
                        before.st(0),
                        before.st(1),
                        before.st(2),
                        before.st(3),
                        &before.memory[before.offset as usize..before.offset as usize + 16],
                        before.offset,
                        before.gpr[0],
                        before.gpr[1],
                    );
                }
            }
        }
    }
    mismatches
}

/// iced's flag bits as those of RFLAGS.
fn rflags(bits: u32) -> u64 {
    use iced_x86::RflagsBits as R;
    [(R::CF, 1), (R::PF, 4), (R::AF, 0x10), (R::ZF, 0x40), (R::SF, 0x80), (R::OF, 0x800)]
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .fold(0, |all, (_, flag)| all | flag)
}

fn cases() -> u64 {
    std::env::var("ROOTMODE_NATIVE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES)
}

fn check(wanted: &[CpuidFeature], left_out: impl Fn(&Form) -> bool) {
    let filter = std::env::var("ROOTMODE_NATIVE_FILTER").unwrap_or_default();
    let all: Vec<Form> = forms(|features| features.iter().all(|f| wanted.contains(f)))
        .into_iter()
        .filter(|form| !left_out(form) && format!("{:?}", form.code).contains(&filter))
        .collect();
    let mismatches = compare(&all, cases());
    println!("{} forms, {} cases each; mismatches: {mismatches:?}", all.len(), cases());
    assert!(mismatches.is_empty());
}

#[test]
fn vector_instructions_do_what_the_host_does() {
    use CpuidFeature as C;
    let wanted = [C::MMX, C::SSE, C::SSE2, C::SSE3, C::SSSE3, C::SSE4_1, C::SSE4_2];
    check(&wanted, |form| is_estimate(form) || format!("{:?}", form.code).starts_with("Fisttp"));
}

#[test]
fn the_x87_does_what_the_host_does() {
    use CpuidFeature as C;
    use Mnemonic as M;
    let wanted = [C::INTEL8086, C::FPU, C::FPU287, C::FPU387, C::CMOV, C::SSE3];
    check(&wanted, |form| {
        let name = format!("{:?}", form.code);
        // AMD's processors keep the pointers of FNSTENV only for exceptions.
        let environment = matches!(form.code.mnemonic(), M::Fnstenv | M::Fnsave | M::Fldenv | M::Frstor);
        let two = form.bytes.first() == Some(&0x9b) && form.bytes.len() > 1;
        two || !(name.starts_with('F') || name == "Wait") || is_transcendental(form) || environment
    });
}

#[test]
fn transcendental_functions_are_within_one_unit_of_the_last_place_of_the_hosts() {
    use CpuidFeature as C;
    check(&[C::INTEL8086, C::FPU, C::FPU287, C::FPU387], |form| !is_transcendental(form));
}

#[test]
fn state_is_saved_and_restored_as_by_the_host() {
    use CpuidFeature as C;
    let has = |leaf, bit: u32| core::arch::x86_64::__cpuid_count(leaf, 1).eax >> bit & 1 != 0;
    let wanted = [C::INTEL386, C::X64, C::FXSR, C::XSAVE, C::XSAVEOPT, C::XSAVEC];
    check(&wanted, |form| {
        let name = format!("{:?}", form.code);
        let supervisor = name.starts_with("Xsaves") || name.starts_with("Xrstors");
        let lacking =
            name.starts_with("Xsaveopt") && !has(0xd, 0) || name.starts_with("Xsavec") && !has(0xd, 1);
        !is_save(form) || supervisor || lacking
    });
}
