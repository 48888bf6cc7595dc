//! Every rule that a kernel's dump shows comes out of it again, alone.

use rootmode_tests::explained::{RoundTrip, as_a_person_would, svm, vmx};

fn assert_clean(result: &RoundTrip) {
    assert!(result.wrong.is_empty(), "{}", result.wrong.join("\n"));
    assert_eq!(
        result.judged.len() + result.not_in_a_dump.len(),
        result.rules,
        "a rule is neither judged nor listed"
    );
}

#[test]
fn a_vmx_rule_broken_alone_comes_out_of_the_dump_alone() {
    let result = vmx();
    assert_clean(&result);
    assert!(result.judged.len() > 250, "only {} of {} rules", result.judged.len(), result.rules);
}

#[test]
fn an_svm_rule_broken_alone_comes_out_of_the_dump_alone() {
    let result = svm();
    assert_clean(&result);
    assert!(result.judged.len() > 25, "only {} of {} rules", result.judged.len(), result.rules);
}

#[test]
fn the_broken_rule_is_among_the_first_three_lines_for_a_person() {
    let (found, missed) = as_a_person_would();
    assert!(missed.len() * 50 <= found, "{found} found, missed: {missed:?}");
}
