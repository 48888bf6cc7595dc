//! Guests of random bytes under random VMCSs: whatever they are, the processor answers, and the same every time. CI runs more
//! of them: as many as ROOTMODE_FUZZ_SECONDS allow.

use super::bench::*;
use rootmode_arch::Gpr;
use rootmode_arch::Site;
use rootmode_arch::choices::{Choices, Seeded};
use rootmode_cpu::Message;
use rootmode_vmx::definitions::controls::Word;
use rootmode_vmx::definitions::field::Kind;
use rootmode_vmx::{EntryControls, Field};
use std::time::{Duration, Instant};

/// Guests of the shortest run.
const ROUND: u64 = 2000;
/// Entries that each guest gets.
const ENTRIES: u64 = 6;

/// Instructions that may exit, or that change what others do: CPUID, RDTSC, HLT, RDMSR, WRMSR, PAUSE, WBINVD, INVD, RDTSCP,
/// VMXOFF, XSETBV, VMFUNC, VMREAD, MOV to and from CR0, CR3, CR4 and CR8, MOV DR7, INVLPG, SGDT, STR, IN, OUTSB, RDRAND,
/// CLTS, LMSW, SMSW, STI, CLI, IRET, INT, UD2, loads, stores, REP STOSB, MOV SS, MONITOR, MWAIT, UMWAIT, TPAUSE, a locked
/// INC, VMREAD, VMWRITE, INVEPT.
const SENSITIVE: &[&[u8]] = &[
    &[0x0f, 0xa2],
    &[0x0f, 0x31],
    &[0xf4],
    &[0x0f, 0x32],
    &[0x0f, 0x30],
    &[0xf3, 0x90],
    &[0x0f, 0x09],
    &[0x0f, 0x08],
    &[0x0f, 0x01, 0xf9],
    &[0x0f, 0x01, 0xc4],
    &[0x0f, 0x01, 0xd1],
    &[0x0f, 0x01, 0xd4],
    &[0x0f, 0x78, 0xc8],
    &[0x0f, 0x20, 0xc0],
    &[0x0f, 0x22, 0xc0],
    &[0x0f, 0x20, 0xd8],
    &[0x0f, 0x22, 0xd8],
    &[0x0f, 0x20, 0xe0],
    &[0x0f, 0x22, 0xe0],
    &[0x44, 0x0f, 0x20, 0xc0],
    &[0x44, 0x0f, 0x22, 0xc0],
    &[0x0f, 0x21, 0xf8],
    &[0x0f, 0x23, 0xf8],
    &[0x0f, 0x01, 0x3b],
    &[0x0f, 0x01, 0x03],
    &[0x0f, 0x00, 0xc8],
    &[0xec],
    &[0x6e],
    &[0x0f, 0xc7, 0xf0],
    &[0x0f, 0x06],
    &[0x0f, 0x01, 0xf0],
    &[0x0f, 0x01, 0xe0],
    &[0xfb],
    &[0xfa],
    &[0x48, 0xcf],
    &[0xcd, 0x80],
    &[0x0f, 0x0b],
    &[0x48, 0x8b, 0x03],
    &[0x48, 0x89, 0x03],
    &[0xf3, 0xaa],
    &[0x8e, 0xd0],
    &[0x0f, 0x01, 0xc8],
    &[0x0f, 0x01, 0xc9],
    &[0xf2, 0x0f, 0xae, 0xf1],
    &[0x66, 0x0f, 0xae, 0xf1],
    &[0xf0, 0x48, 0xff, 0x03],
    &[0x0f, 0x78, 0x03],
    &[0x0f, 0x79, 0xc8],
    &[0x66, 0x0f, 0x38, 0x80, 0x0b],
];

struct Draw(Seeded);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0.choose(Site::State, n)
    }
    fn bits(&mut self) -> u64 {
        (0..4).fold(0, |all, _| all << 16 | self.below(1 << 16))
    }
    /// One time in `n`.
    fn rarely(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    /// A value near what fields hold: few bits, all ones, an address of the bench's memory, or anything.
    fn value(&mut self) -> u64 {
        match self.below(5) {
            0 => self.below(16),
            1 => 1 << self.below(64),
            2 => self.below(0x200) << 12,
            3 => u64::MAX,
            _ => self.bits(),
        }
    }
}

/// Runs a guest, and answers what became of it.
fn run(seed: u64) -> (Vec<End>, u128) {
    let mut draw = Draw(Seeded::new(seed));
    let mut bench = Bench::new();
    let offered = offered();
    bench.set(Field::EntryMsrLoadCount, 0);
    bench.set(Field::ExitMsrLoadCount, 0);
    bench.set(Field::ExitMsrStoreCount, 0);
    bench.set(Field::Eptp, EPT | EPTP);
    for word in Word::ALL {
        let (Some(field), Some(allowed)) = (word.field(), offered.allowed(word)) else { continue };
        // Few bits at a time leave guests that are entered.
        let noise = if draw.rarely(2) { draw.bits() & draw.bits() & draw.bits() & draw.bits() } else { 0 };
        bench.set(field, allowed.nearest(bench.field(field) ^ noise & allowed.permitted));
    }
    if draw.rarely(4) {
        bench.clear(Field::EntryControls, EntryControls::IA32E_MODE_GUEST.0.into());
    }
    // One guest in 16 has a VMCS of which nothing is known.
    let changes = if draw.rarely(16) { 2 * Field::COUNT as u64 } else { draw.below(3) };
    for _ in 0..changes {
        let field = Field::ALL[draw.below(Field::COUNT as u64) as usize];
        // The host must be able to look at the exit.
        if field.kind() != Kind::Host {
            let value = draw.value();
            bench.set(field, value);
        }
    }
    for _ in 0..draw.below(4) {
        let entry = [EPT, EPT + 0x1000, EPT + 0x3000, CR3, 0x2000, 0x3000][draw.below(6) as usize];
        let (at, bits) = (entry + 8 * draw.below(64), draw.bits() & draw.bits());
        bench.put(at, bench.get(at) ^ bits);
    }
    let mut code = Vec::new();
    let noise = if draw.rarely(4) { 1 } else { 8 };
    while code.len() < 64 {
        if draw.rarely(noise) {
            code.push(draw.below(256) as u8);
        } else {
            code.extend(SENSITIVE[draw.below(SENSITIVE.len() as u64) as usize]);
        }
    }
    bench.code(&code);
    for gpr in 0..16 {
        let value = draw.value();
        bench.register(Gpr::from_number(gpr), value);
    }
    let mut ends = Vec::new();
    for _ in 0..ENTRIES {
        match draw.below(8) {
            0 => bench.post(Message::Interrupt(0x20 + draw.below(0xe0) as u8)),
            1 => bench.post(Message::Nmi),
            2 => bench.post(Message::Sipi(draw.below(256) as u8)),
            _ => {}
        }
        let end = bench.run();
        let goes_on = matches!(end, End::Exit(_));
        ends.push(end);
        if !goes_on {
            break;
        }
        let rip = bench.field(Field::GuestRip).wrapping_add(draw.below(4));
        bench.set(Field::GuestRip, rip);
    }
    (ends, bench.board.digest())
}

#[test]
fn random_guests_under_random_vmcss_end_somehow_and_the_same_every_time() {
    let seconds = std::env::var("ROOTMODE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (start, limit) = (Instant::now(), Duration::from_secs(seconds));
    let (mut exits, mut refused, mut lost) = (std::collections::BTreeSet::new(), 0, 0);
    let mut seed = 0;
    while seed < ROUND || start.elapsed() < limit {
        let (ends, digest) = run(seed);
        for end in &ends {
            match end {
                End::Exit(exit) => drop(exits.insert(exit.reason)),
                End::Fail(_) => refused += 1,
                End::Stopped(_) => lost += 1,
            }
        }
        if seed % 16 == 0 {
            assert_eq!(run(seed), (ends, digest), "seed {seed}");
        }
        seed += 1;
    }
    // The draw is worth something: many kinds of exits, and some entries of each other kind.
    assert!(exits.len() >= 20 && refused > 100 && lost > 10, "{} {refused} {lost}", exits.len());
}
