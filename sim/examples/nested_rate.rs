//! How many exits of L2 a second L1 handles, when L1 is the guest of a VM of the model of KVM.
//! `cargo run --release -p rootmode --example nested_rate`

use std::time::Instant;

use rootmode::guests::{Operation, Workload, assemble};
use rootmode::transparency::{Client, LIMIT, facts, vm_of};
use rootmode_arch::Vendor;
use rootmode_arch::choices::Tame;
use rootmode_arch::record::{Level, Payload};
use rootmode_models::kvm::Regressions;

/// CPUIDs of L2 in one run.
const EXITS: usize = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let mut workload = Workload::draw(vendor, 0, &mut Tame);
        workload.operations = vec![Operation::Cpuid { leaf: 0 }; EXITS];
        let image = assemble(&workload)?;
        let run = |watched: bool| -> Result<(usize, f64), Box<dyn std::error::Error>> {
            let mut vm = vm_of(&image, Box::new(Tame), Regressions::NONE)?;
            let mut client = Client::default();
            if watched {
                client.attach(&mut vm);
            }
            let start = Instant::now();
            let stop = client.run(&mut vm, LIMIT)?;
            let seconds = start.elapsed().as_secs_f64();
            let run = client.finish(&mut vm, &image, stop)?;
            let exits = facts(&run)
                .filter(|record| record.level == Level::L2 && matches!(record.payload, Payload::Exit { .. }));
            Ok((exits.count(), seconds))
        };
        let (exits, _) = run(true)?;
        let (mut best, mut count) = (f64::MAX, 0);
        let start = Instant::now();
        while start.elapsed().as_secs() < 2 {
            best = best.min(run(false)?.1);
            count += 1;
        }
        println!(
            "{vendor:?}: {exits} exits of L2 to L1, {:.0} a second in the best of {count} runs",
            exits as f64 / best
        );
    }
    Ok(())
}
