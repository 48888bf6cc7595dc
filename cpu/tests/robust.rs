//! Whatever bytes a guest runs, the simulator neither panics nor hangs, and does the same every time.

mod support;

use proptest::prelude::*;
use rootmode_arch::choices::Seeded;
use rootmode_arch::{HostPhysical, RFlags};
use rootmode_cpu::{Activity, Model, RunEnd};
use rootmode_mmu::Digest;
use support::*;

fn run(bytes: &[u8], seed: u64, user: bool, amd: bool) -> (u128, u64) {
    let mut rig = Rig::with_model(if amd { Model::max_amd() } else { Model::max_intel() });
    let mut random = Seeded::new(seed);
    rig.choices = Box::new(Seeded::new(seed));
    for vector in 0..=255 {
        rig.gate(vector, CODE + u64::from(vector) * 3, 0xe, u64::from(vector) & 3, u64::from(vector) % 3);
    }
    rig.memory.write_u64(HostPhysical(TSS + 0x24), 0x3_a000);
    rig.memory.write_u64(HostPhysical(TSS + 0x2c), 0x3_b000);
    rig.memory.write(HostPhysical(CODE), bytes);
    for n in 0..16 {
        let near = DATA + random.next() % 0x2_0000;
        rig.cpu().gpr[n] = if random.next().is_multiple_of(3) { random.next() } else { near };
    }
    rig.cpu().gpr[4] = STACK;
    rig.cpu().set_rflags(RFlags(random.next() & 0x244dd5));
    if user {
        rig.cpu().cpl = 3;
        rig.cpu().refresh();
    }
    for _ in 0..8 {
        let end = rig.run(100);
        if end != RunEnd::Budget {
            // Wherever it stopped, set it going again somewhere else.
            rig.cpu().rip = CODE + random.next() % 0x400;
            rig.cpu().activity = Activity::Active;
            rig.cpu().delivering = None;
            rig.cpu().refresh();
        }
    }
    let mut digest = Digest::new();
    rig.memory.digest(&mut digest);
    rig.cpu().digest(&mut digest);
    (digest.finish(), rig.cpu().tick)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_run_to_the_same_end(
        bytes in proptest::collection::vec(any::<u8>(), 1024),
        seed: u64,
        user: bool,
        amd: bool,
    ) {
        prop_assert_eq!(run(&bytes, seed, user, amd), run(&bytes, seed, user, amd));
    }

    #[test]
    fn two_byte_opcodes_are_no_exception(
        tail in proptest::collection::vec(any::<[u8; 6]>(), 160),
        seed: u64,
        user: bool,
    ) {
        let bytes: Vec<u8> = tail.iter().flat_map(|t| [0x0f, t[0], t[1], t[2], t[3], t[4]]).collect();
        prop_assert_eq!(run(&bytes, seed, user, false), run(&bytes, seed, user, false));
    }
}
