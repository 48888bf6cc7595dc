//! How long the checks of VM entry take: `cargo bench -p rootmode-vmx --no-default-features --bench entry`.
//! Prints ns per call, best of many short rounds, for a valid VMCS of each kind and for the full table.

use rootmode_vmx::boundary::bases::BASES;
use rootmode_vmx::{check_entry, judge_all};
use std::hint::black_box;
use std::time::Instant;

/// ns per call of `f`: the best of 2,000 rounds of 50 calls, short enough to fall between two interruptions.
fn measure(mut f: impl FnMut()) -> f64 {
    const CALLS: u32 = 50;
    (0..2_000)
        .map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(|_| f());
            start.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() {
    let mut worst: f64 = 0.0;
    for base in BASES {
        let state = (base.build)();
        let context = state.context();
        let fast = measure(|| {
            let _ = black_box(check_entry(black_box(&context)));
        });
        println!("check_entry {fast:8.1} ns  {}", base.name);
        worst = worst.max(fast);
    }
    let state = (BASES[0].build)();
    let context = state.context();
    let table = measure(|| judge_all(black_box(&context), |_, judgement| _ = black_box(judgement)));
    println!("judge_all   {table:8.1} ns  {}", BASES[0].name);
    println!("worst check_entry: {worst:.1} ns");
}
