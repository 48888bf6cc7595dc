//! The data of the independent judges names what exists. The judges themselves need Debian's Bochs and QEMU:
//! `rootmode-tests judge` runs them (CI does, on a sample), and their recorded verdicts are replayed without them.

use std::collections::BTreeSet;

use rootmode_tests::judges::Judge;
use rootmode_tests::judges::disagreements::{Kind, known};
use rootmode_tests::judges::reasons::Reasons;

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
