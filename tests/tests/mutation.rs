//! Mutants of the rules, judged by recorded answers, and of the intercepts, judged by second opinions; and the recorded verdicts of Bochs and QEMU, judged again.
//!
//! The oracle of the replay is what the machines said when `rootmode-tests judge --record` ran them.

use rootmode_tests::judges::recorded::FILES;
use rootmode_tests::mutation::decisions;
use rootmode_tests::mutation::peers::replay;
use rootmode_tests::mutation::proofs::CASES;
use rootmode_tests::mutation::rules::run;
use rootmode_tests::mutation::{Report, rules_svm::Svm, rules_vmx::Vmx};

fn keeps_the_promise(report: &Report) {
    let (unlisted, stale) = report.unlisted();
    assert!(unlisted.is_empty(), "survive without an argument: {unlisted:#?}");
    assert!(stale.is_empty(), "have an argument, but do not survive: {stale:#?}");
    assert!(report.kept(), "{} killed of {}", report.killed, report.mutants);
}

#[test]
fn every_mechanical_mutation_of_the_vm_entry_rules_is_noticed_or_argued_away() {
    keeps_the_promise(&run::<Vmx>(false).unwrap());
}

#[test]
fn every_mechanical_mutation_of_the_vmrun_rules_is_noticed_or_argued_away() {
    keeps_the_promise(&run::<Svm>(false).unwrap());
}

#[test]
fn every_mechanical_mutation_of_the_intercepts_of_vmx_is_noticed_or_argued_away() {
    keeps_the_promise(&decisions::run_vmx(CASES));
}

#[test]
fn every_mechanical_mutation_of_the_intercepts_of_svm_is_noticed_or_argued_away() {
    keeps_the_promise(&decisions::run_svm(CASES));
}

#[test]
fn our_rules_come_to_the_recorded_verdicts_of_other_machines() {
    for (name, _) in FILES {
        let replay = replay(name);
        assert!(replay.cases >= 400, "{name}: {} cases", replay.cases);
        assert!(replay.unexplained.is_empty(), "{name}: {:#?}", replay.unexplained);
        assert_eq!(replay.agreed + replay.explained, replay.cases);
        assert!(
            replay.agreed * 10 >= replay.cases * 6,
            "{name}: {} of {} agree",
            replay.agreed,
            replay.cases
        );
    }
}
