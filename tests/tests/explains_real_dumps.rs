//! Dumps from public mailing lists and issue trackers: the cause is among the first three lines of the explanation.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its data fails")]

use std::path::Path;

use rootmode::explain::explain;
use rootmode_traces::dump::lookup_vmcs_field;

/// A dump with what its `.expect` file says of it.
struct Real {
    name: String,
    text: String,
    causes: Vec<String>,
}

fn real_dumps() -> Vec<Real> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dumps/real");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "expect"))
        .map(|path| {
            let expect = std::fs::read_to_string(path).unwrap();
            let value = |key: &str| {
                let line = expect.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='));
                line.map(|value| value.trim().to_owned())
            };
            let mut text = std::fs::read_to_string(path.with_extension("txt")).unwrap();
            text.push('\n');
            text.push_str(&value("given").unwrap_or_default());
            text.push('\n');
            let causes = value("cause").unwrap().split(", ").map(str::to_owned).collect();
            Real { name: path.file_stem().unwrap().to_string_lossy().into_owned(), text, causes }
        })
        .collect()
}

#[test]
fn the_cause_is_among_the_first_three_lines() {
    let mut found = Vec::new();
    let mut missed = Vec::new();
    for real in real_dumps() {
        if real.causes == ["none"] {
            continue;
        }
        let explanation = explain(&real.text, None).unwrap();
        let names: Vec<String> = real
            .causes
            .iter()
            .map(|cause| {
                let of_svm = || rootmode_svm::Field::all().find(|field| field.linux() == cause);
                lookup_vmcs_field(cause)
                    .map(|field| field.name())
                    .or_else(|| of_svm().map(|field| field.name()))
                    .map_or_else(|| cause.clone(), str::to_owned)
            })
            .collect();
        let shown = explanation.entries.iter().any(|entry| {
            let broken = entry.broken.iter().take(3);
            let by_value = broken.flat_map(|rule| &rule.values).any(|value| names.contains(&value.name));
            // A cause that the text shows only in part is named by the rules that lack the rest.
            let fields = |id: &str| rootmode_vmx::Rule::from_id(id).map_or(&[][..], |rule| rule.fields);
            let about = |rule: &str| {
                fields(rule).iter().any(|field| names.iter().any(|name| field.name() == name))
                    || names.iter().any(|name| name == "VM_ENTRY_MSR_LOAD")
                        && rule.starts_with("vmx.msr-load")
                    || names.iter().any(|name| name == "VM_ENTRY_MSR_LOAD") && rule.contains("entry-load")
            };
            let unjudged =
                entry.broken.is_empty() && entry.unjudged.iter().take(3).any(|rule| about(rule.rule));
            by_value || unjudged
        });
        if shown { found.push(real.name) } else { missed.push(format!("{}: {:?}", real.name, real.causes)) }
    }
    assert_eq!(missed, [""; 0]);
    assert!(found.len() >= 13, "{} found: {found:?}", found.len());
}

#[test]
fn a_guest_that_was_not_refused_breaks_no_rule() {
    for real in real_dumps().into_iter().filter(|real| real.causes == ["none"]) {
        for entry in explain(&real.text, None).unwrap().entries {
            let firm: Vec<_> =
                entry.broken.iter().filter(|rule| !rule.assumed).map(|rule| rule.rule).collect();
            assert!(firm.is_empty(), "{}: {firm:?}", real.name);
        }
    }
}
