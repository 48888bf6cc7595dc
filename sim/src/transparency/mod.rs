//! The law of transparency: the same L1 with the same L2, bare and hosted, sees the same.

mod bare;
mod run;

pub use bare::{extension, model, run_bare, start_state};
pub use run::{Recorder, Run};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::{Workload, assemble};
    use rootmode_arch::Vendor;
    use rootmode_arch::choices::{Seeded, Tame};
    use rootmode_arch::record::Stop;

    #[test]
    fn the_tame_program_runs_bare_to_its_end_on_both_vendors() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            let image = assemble(&Workload::draw(vendor, 30, &mut Tame)).unwrap();
            let run = run_bare(&image, Box::new(Tame), 1_000_000);
            if run.stop != Stop::Requested(0) {
                for record in run.records.iter().rev().take(12).rev() {
                    println!("{record:x?}");
                }
            }
            assert_eq!(run.stop, Stop::Requested(0), "{vendor:?}: {:x?} {}", run.registers, run.ticks);
            assert_eq!(run.output().len(), 17, "{:?}", run.output());
        }
    }

    #[test]
    fn drawn_programs_run_bare_to_their_end() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            for seed in 0..60 {
                let image = assemble(&Workload::draw(vendor, 40, &mut Seeded::new(seed))).unwrap();
                let run = run_bare(&image, Box::new(Tame), 1_000_000);
                let last: Vec<_> = run.records.iter().rev().take(6).rev().collect();
                assert_eq!(run.stop, Stop::Requested(0), "{vendor:?} seed {seed}: {last:x?}");
            }
        }
    }
}
