//! The table's own consistency; witnesses and edges are tested with the boundary generator.

use super::*;

#[test]
fn identifiers_are_unique_and_every_row_says_what_and_where() {
    for (index, rule) in RULES.iter().enumerate() {
        assert!(rule.id.starts_with("svm.") && rule.id.split('.').count() == 3, "{}", rule.id);
        assert!(RULES[..index].iter().all(|other| other.id != rule.id), "{}", rule.id);
        assert!(rule.demand.ends_with('.') && !rule.citation.section.is_empty(), "{}", rule.id);
        assert!(!rule.fields.is_empty() && rule.report.is_entry_failure(), "{}", rule.id);
        assert_eq!(Rule::from_id(rule.id), Some(rule));
    }
}
