//! Prints the digest of the embedded demonstration for seed 0: the same on every machine.

use rootmode::demo;
use rootmode_arch::choices::Seeded;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", demo::digest(&demo::run(&mut Seeded::new(0), demo::OPERATIONS)?));
    Ok(())
}
