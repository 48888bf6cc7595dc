//! A sample of the independent judges: what `rootmode-tests judge` runs in full.
//!
//! The oracle is the machine (Debian's Bochs or QEMU); without it these tests fail and name the package.

use std::collections::BTreeSet;

use rootmode_tests::judges::disagreements::{Kind, known};
use rootmode_tests::judges::reasons::Reasons;
use rootmode_tests::judges::{Judge, Tally};

const CASES: u64 = 1000;

fn sample(name: &str) -> Tally {
    let judge = Judge::by_name(name).expect("the tests name judges that exist");
    judge.run(CASES, 0x5eed, 1, |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

fn agrees(tally: &Tally) {
    assert_eq!(tally.unexplained, 0, "{tally}\n{:#?}", tally.examples);
    assert_eq!(tally.cases + tally.unjudged, CASES);
    assert!(tally.unjudged < CASES / 100, "{tally}");
    // A machine that enters everything, or refuses everything, judges nothing.
    assert!(tally.refused > CASES / 8 && tally.cases - tally.refused > CASES / 8, "{tally}");
    assert!(tally.agreed > CASES * 8 / 10, "{tally}");
}

#[test]
fn bochs_as_a_skylake_and_our_entry_rules_come_to_the_same_verdicts() {
    agrees(&sample("bochs-skylake"));
}

#[test]
fn bochs_as_a_tigerlake_and_our_entry_rules_come_to_the_same_verdicts() {
    agrees(&sample("bochs-tigerlake"));
}

#[test]
fn bochs_as_a_ryzen_and_our_vmrun_rules_come_to_the_same_verdicts() {
    agrees(&sample("bochs-ryzen"));
}

#[test]
fn qemu_and_our_vmrun_rules_come_to_the_same_verdicts() {
    agrees(&sample("qemu-svm"));
}

#[test]
fn every_rule_that_the_data_files_name_is_a_rule() {
    let vmx = rootmode_vmx::rules::RULES.iter().map(|rule| rule.id);
    let rules: BTreeSet<&str> = rootmode_svm::rules::RULES.iter().map(|rule| rule.id).chain(vmx).collect();
    let reasons = Reasons::bochs();
    for rule in reasons.rules() {
        assert!(rules.contains(rule), "bochs-reasons.txt names {rule}");
    }
    for disagreement in known().unwrap() {
        if let Kind::Lacks(lacking) = &disagreement.kind {
            for rule in lacking {
                assert!(rules.contains(rule.as_str()), "[{}] names {rule}", disagreement.name);
            }
        }
        for peer in &disagreement.peers {
            assert!(Judge::by_name(peer).is_some(), "[{}] names {peer}", disagreement.name);
        }
    }
}
