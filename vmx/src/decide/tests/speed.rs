//! A measurement of `decide`: `cargo test --release -p rootmode-vmx --lib -- --ignored --nocapture decide_takes`.

use super::causes::causes;
use super::*;
use core::hint::black_box;
use std::time::Instant;

/// Nanoseconds a decision: the best of many short runs, because others use the machine too.
fn measure(view: &View<'_, UniformBitmaps>, event: &Event) -> f64 {
    let run = |_| {
        let start = Instant::now();
        for _ in 0..500 {
            black_box(&decide(black_box(view), black_box(event)));
        }
        start.elapsed().as_nanos() as f64 / 500.0
    };
    (0..400).map(run).fold(f64::MAX, f64::min)
}

#[test]
#[ignore = "a measurement; meaningful in release builds on a quiet machine"]
fn decide_takes_less_than_10_ns_without_and_25_ns_with_an_exit() {
    let causes = causes();
    let nothing = Controls::default();
    let (mut passing, mut exiting) = (vec![], vec![]);
    for cause in &causes {
        let bitmaps = UniformBitmaps(cause.ones);
        let view = View { controls: &cause.controls, processor: &cause.processor, bitmaps: &bitmaps };
        let exit = measure(&view, &cause.event);
        let view = View { controls: &nothing, ..view };
        print!("{:28} exits: {exit:6.2} ns", cause.id);
        exiting.push(exit);
        if decide(&view, &cause.event).is_none() {
            let pass = measure(&view, &cause.event);
            print!("  passes: {pass:6.2} ns");
            passing.push(pass);
        }
        println!();
    }
    let average = |times: &[f64]| times.iter().sum::<f64>() / times.len() as f64;
    let (passing, exiting) = (average(&passing), average(&exiting));
    println!("average: {exiting:.2} ns for an exit, {passing:.2} ns for none");
    assert!(passing < 10.0 && exiting < 25.0);
}
