//! Random VMCBs and random guest bytes: whatever the guest is, the machine goes on or stops for a reason, and nothing of it
//! depends on anything but the seed. `ROOTMODE_FUZZ_SECONDS` runs longer than one round.

use super::bench::*;
use rootmode_arch::HostPhysical;
use rootmode_arch::choices::{Choices, Seeded, Site};
use rootmode_cpu::{Instruction, Message};
use rootmode_svm::vmcb::TABLE;
use rootmode_svm::{Field, Intercept};
use std::time::{Duration, Instant};

/// Guests of a round.
const ROUND: u64 = 3000;
/// VMRUNs of each guest.
const ENTRIES: usize = 4;

/// Beginnings of system instructions, which random bytes rarely are.
const SYSTEM: &[&[u8]] = &[
    &[0x0f, 0x00],
    &[0x0f, 0x01],
    &[0x0f, 0x08],
    &[0x0f, 0x09],
    &[0x0f, 0x20],
    &[0x0f, 0x21],
    &[0x0f, 0x22],
    &[0x0f, 0x23],
    &[0x0f, 0x30],
    &[0x0f, 0x31],
    &[0x0f, 0x32],
    &[0x0f, 0x33],
    &[0x0f, 0xa2],
    &[0x0f, 0xaa],
    &[0x0f, 0xc7],
    &[0x66, 0x0f, 0x38, 0x82],
    &[0xf3, 0x90],
    &[0xf0, 0x87],
    &[0x6c],
    &[0x6f],
    &[0x9c],
    &[0x9d],
    &[0xcc],
    &[0xcd],
    &[0xcf],
    &[0xe5],
    &[0xef],
    &[0xf1],
    &[0xf4],
    &[0xfa],
    &[0xfb],
];

struct Draw(Seeded);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0.choose(Site::State, n)
    }
    fn bits(&mut self) -> u64 {
        (0..4).fold(0, |bits, _| bits << 16 | self.below(1 << 16))
    }
    fn code(&mut self) -> Vec<u8> {
        let mut code = Vec::new();
        while code.len() < 256 {
            if self.below(2) == 0 {
                code.extend_from_slice(SYSTEM[self.below(SYSTEM.len() as u64) as usize]);
            }
            code.push(self.below(256) as u8);
        }
        code
    }
    fn message(&mut self) -> Message {
        match self.below(4) {
            0 => Message::Nmi,
            1 => Message::Smi,
            2 => Message::Init,
            _ => Message::Interrupt(self.below(256) as u8),
        }
    }
    /// A value near what fields hold, or anything.
    fn value(&mut self, now: u64) -> u64 {
        match self.below(5) {
            0 | 1 => now ^ 1 << self.below(64),
            2 => [0, 1, u64::MAX, CODE, STACK, NPT, 0xfff, 1 << 47][self.below(8) as usize],
            3 => now ^ 3 << self.below(63),
            _ => self.bits(),
        }
    }
}

/// Builds the guest of `seed`, runs it, and answers what is left of the machine.
fn run(seed: u64) -> (Vec<End>, u128) {
    let mut draw = Draw(Seeded::new(seed));
    let mut bench = Bench::new();
    if draw.below(2) == 0 {
        bench.nested_paging();
    }
    match draw.below(4) {
        0 => bench.legacy(),
        1 => bench.user(),
        _ => {}
    }
    bench.code(&draw.code());
    for gpr in 0..16 {
        bench.cpu().gpr[gpr] = if draw.below(2) == 0 { DATA + draw.below(64) } else { draw.bits() };
    }
    for _ in 0..draw.below(6) {
        let row = &TABLE[draw.below(TABLE.len() as u64) as usize];
        if row.field.vmcb_offset().is_some() && row.size <= 8 {
            let value = draw.value(bench.field(row.field));
            bench.set(row.field, value);
        }
    }
    for _ in 0..draw.below(12) {
        bench.intercept(Intercept(draw.below(167) as u8));
    }
    if draw.below(16) == 0 {
        let page: Vec<u8> = (0..4096).map(|_| draw.below(256) as u8).collect();
        bench.vmcb = rootmode_svm::Vmcb::from_bytes(page.try_into().unwrap());
        bench.intercept(Intercept::VMRUN);
    }
    let mut ends = vec![bench.run()];
    while ends.len() < ENTRIES && matches!(ends.last(), Some(End::Exit(_))) {
        // Past the instruction, as a hypervisor does, or again.
        let next = bench.field(Field::NextRip);
        if next != 0 && draw.below(4) != 0 {
            bench.set(Field::Rip, next);
        }
        let at = HostPhysical(CODE + draw.below(256));
        bench.board.memory.write(at, &[draw.below(256) as u8]);
        if draw.below(3) == 0 {
            bench.execute(Instruction::Stgi).unwrap();
        }
        if draw.below(3) == 0 {
            let message = draw.message();
            bench.cpu().post(message);
        }
        ends.push(bench.run());
    }
    (ends, bench.board.digest())
}

#[test]
fn random_vmcbs_and_random_guests_never_harm_the_machine_and_end_alike() {
    let seconds = std::env::var("ROOTMODE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (start, limit) = (Instant::now(), Duration::from_secs(seconds));
    let mut seed = 0;
    let mut exits = std::collections::BTreeSet::new();
    while seed < ROUND || start.elapsed() < limit {
        let (ends, digest) = run(seed);
        if seed % 16 == 0 {
            assert_eq!(run(seed), (ends.clone(), digest), "seed {seed}");
        }
        exits.extend(ends.iter().filter_map(|end| match end {
            End::Exit(exit) => Some(exit.code),
            End::Stopped(_) => None,
        }));
        seed += 1;
    }
    assert!(exits.len() > 25, "the guests reach little: {exits:x?}");
}
