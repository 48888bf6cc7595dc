//! `decide` against the oracles that were written from the manuals alone.

use rootmode_arch::{EventClass, Vendor};
use rootmode_tests::oracles::{Report, compare};

fn judge(report: &Report) {
    for class in EventClass::ALL {
        let count = report.classes[class];
        assert!(count.compared + count.open > 100, "{} came up {} times", class.name(), count.compared);
    }
    let examples: Vec<String> =
        report.examples.iter().map(|(kind, text)| format!("{kind}\n  {text}")).collect();
    let kinds: Vec<_> = report.examples.keys().collect();
    assert!(
        examples.is_empty(),
        "{} disagreements of kinds {kinds:#?}, such as\n{}",
        report.disagreements,
        examples.join("\n")
    );
}

#[test]
fn decisions_of_vmx_are_those_of_the_manual() {
    judge(&compare(Vendor::Intel, 1, 100_000));
}

#[test]
fn decisions_of_svm_are_those_of_the_manual() {
    judge(&compare(Vendor::Amd, 1, 100_000));
}
