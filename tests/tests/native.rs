//! A sample of the native differential: every instruction form, a few cases each. The oracle is the host's processor.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use rootmode_tests::native::command::{judge, processors};
use rootmode_tests::native::shrink::text;

#[test]
fn every_instruction_form_does_here_what_it_does_on_the_host() {
    let summary = judge(16, 0, processors(), true, |_| true).unwrap();
    assert!(summary.scope.judged_codes() > 1000, "{} Codes are judged", summary.scope.judged_codes());
    let failures: Vec<String> = summary
        .failures()
        .map(|report| {
            let first = report.first.as_ref().map(text).or(report.trouble.clone());
            format!("{}\n{}", report.name, first.unwrap_or_default())
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
