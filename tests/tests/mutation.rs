//! Mutants of the rules, judged by recorded answers, and of the intercepts, judged by second opinions; and the recorded verdicts of Bochs and QEMU, judged again.
//!
//! The oracle of the replay is what the machines said when `rootmode-tests judge --record` ran them.

use rootmode_tests::judges::recorded::FILES;
use rootmode_tests::mutation::peers::replay;
use rootmode_tests::mutation::proofs::CASES;
use rootmode_tests::mutation::rules::run;
use rootmode_tests::mutation::{Report, rules_svm::Svm, rules_vmx::Vmx};
use rootmode_tests::mutation::{bitmaps, decisions, interception};

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
fn every_mechanical_mutation_of_the_layouts_of_the_bitmaps_is_noticed() {
    keeps_the_promise(&bitmaps::run_msr_bitmap());
    keeps_the_promise(&bitmaps::run_io_bitmaps());
    keeps_the_promise(&bitmaps::run_small());
    keeps_the_promise(&bitmaps::run_msrpm());
    keeps_the_promise(&bitmaps::run_iopm());
}

#[test]
fn every_mechanical_mutation_of_kvms_arithmetic_on_the_maps_is_noticed() {
    keeps_the_promise(&interception::run_vmx_arithmetic(CASES));
    keeps_the_promise(&interception::run_svm_arithmetic(CASES));
}

#[test]
fn every_mechanical_mutation_of_the_pass_through_tables_is_noticed() {
    keeps_the_promise(&interception::run_vmx(CASES));
    keeps_the_promise(&interception::run_svm(CASES));
}

#[test]
fn every_mechanical_mutation_of_the_nested_merges_is_noticed() {
    keeps_the_promise(&interception::run_vmx_merge(CASES));
    keeps_the_promise(&interception::run_svm_merge(CASES));
}

#[test]
fn every_mechanical_mutation_of_the_filter_look_up_is_noticed() {
    keeps_the_promise(&interception::run_filter(CASES));
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
