//! Transparency: an L1 with its L2 sees the same hosted by L0 as on the bare machine, whatever L0 does meanwhile.

use rootmode_arch::{Choices, Site, Vendor};
use rootmode_models::kvm::Regressions;

use crate::campaign::{Counterexample, Property, Verdict};
use crate::transparency::{Case, Comparison, TransparencyError};

pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "transparency",
        about: "A drawn L1 with its L2 sees the same hosted by L0, under any schedule, as on the bare machine.",
        source: SOURCE,
        cost: 500,
        check,
    },
    Property {
        name: "transparency-in-a-vm",
        about: "A drawn L1 with its L2 sees the same in the VM of a client, under any schedule, as on the bare machine.",
        source: SOURCE,
        cost: 500,
        check: check_vm,
    },
];

const SOURCE: &str =
    "SDM Vol. 3C and APM Vol. 2: what they say of a processor, they say of one that a guest sees";

/// The most that L2 does in one case.
const OPERATIONS: u64 = 40;

fn check(choices: &mut dyn Choices, regressions: Regressions) -> Verdict {
    let case = draw(choices);
    judge(&case, case.compare(regressions))
}

fn check_vm(choices: &mut dyn Choices, regressions: Regressions) -> Verdict {
    let case = draw(choices);
    judge(&case, case.compare_vm(regressions))
}

fn draw(choices: &mut dyn Choices) -> Case {
    let vendor = [Vendor::Intel, Vendor::Amd][usize::from(choices.flip(Site::Program))];
    let operations = choices.choose(Site::Program, OPERATIONS + 1);
    Case::draw(vendor, operations, choices)
}

fn judge(case: &Case, compared: Result<Comparison, TransparencyError>) -> Verdict {
    let vendor = case.workload.vendor;
    let example = match compared {
        Ok(comparison) if comparison.holds() => return Verdict::Holds,
        Ok(comparison) => describe(&comparison),
        Err(error) => Counterexample::new(format!("the hosted run ended early: {error}")),
    };
    let schedule = if case.schedule == 0 { "tame".to_owned() } else { format!("seed {}", case.schedule) };
    let operations = &case.workload.operations;
    operations
        .iter()
        .enumerate()
        .fold(example, |example, (n, operation)| {
            example.with(format!("L2's step {}", n + 1), format!("{operation:x?}"))
        })
        .with("extension", if vendor == Vendor::Intel { "VMX" } else { "SVM" })
        .with("L1 intercepts", format!("{:x?}", case.workload.controls))
        .with("L0's schedule", schedule)
        .with("L0 reclaims pages", case.reclaim)
        .into()
}

fn describe(comparison: &Comparison) -> Counterexample {
    let first = comparison.differences.first().map(|difference| format!("{difference:x?}"));
    let example = Counterexample::new(format!(
        "L1 or L2 can tell that L0 is there; first difference, bare and hosted: {}",
        first.unwrap_or_default()
    ));
    let rest = comparison.differences.iter().skip(1);
    rest.fold(example, |example, difference| example.with("also different", format!("{difference:x?}")))
        .with("facts before", comparison.facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::{Regression, Reproducer, case_seed, record};

    #[test]
    fn a_guest_notices_a_known_bug_of_l0_and_its_case_holds_with_the_fix() {
        let property = &PROPERTIES[0];
        let bug = Regression::from_id("MSR-M12").unwrap();
        let regressions = Regressions::NONE.with(bug);
        let seeds = (0..8).map(|case| case_seed(0, property.name, case));
        let found = seeds.filter_map(|seed| record(property, seed, regressions)).next().unwrap();
        let reproducer = Reproducer {
            property: property.name.to_owned(),
            regressions,
            expect_failure: true,
            message: found.counterexample.message.clone(),
            choices: found.choices,
        };
        let again = Reproducer::parse(&reproducer.to_text()).unwrap();
        assert_eq!(again.run(property), Verdict::Fails(found.counterexample));
        assert_eq!(Reproducer { regressions: Regressions::NONE, ..again }.run(property), Verdict::Holds);
    }
}
