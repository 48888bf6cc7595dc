//! Both vendors' rule tables as one list, and as a page of the documentation.

use std::fmt::Write as _;

use serde::Serialize;

use super::vmx::describe_report;

/// A rule of VM entry or VMRUN, as the command line and the documentation show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRow {
    /// Stable identifier.
    pub id: &'static str,
    /// What is demanded, in one sentence.
    pub demand: String,
    /// Manual and edition.
    pub manual: &'static str,
    /// Section title.
    pub section: &'static str,
    /// The fields that the demand is about.
    pub fields: Vec<&'static str>,
    /// What the processor reports.
    pub report: String,
}

/// Every rule, VMX first, each table in hardware's order.
pub fn rule_rows() -> Vec<RuleRow> {
    let vmx = rootmode_vmx::rules::RULES.iter().map(|rule| RuleRow {
        id: rule.id,
        demand: rule.demand.to_owned(),
        manual: rootmode_vmx::rules::MANUAL,
        section: rule.group.title(),
        fields: rule.fields.iter().map(|field| field.name()).collect(),
        report: describe_report(rule.report),
    });
    let svm = rootmode_svm::rules::RULES.iter().map(|rule| RuleRow {
        id: rule.id,
        demand: rule.demand.to_owned(),
        manual: rule.citation.manual,
        section: rule.citation.section,
        fields: rule.fields.iter().map(|field| field.name()).collect(),
        report: rule.report.to_string(),
    });
    vmx.chain(svm).collect()
}

/// The page of the documentation that lists every rule whose identifier starts with `prefix`.
pub fn rules_page(title: &str, prefix: &str) -> String {
    let rows: Vec<RuleRow> = rule_rows().into_iter().filter(|row| row.id.starts_with(prefix)).collect();
    let mut page = format!(
        "# {title}\n\nGenerated from the rule table by `rootmode-tests documents`; {} rules in the order in which they are checked.\n",
        rows.len()
    );
    let mut section = "";
    for row in &rows {
        if row.section != section {
            section = row.section;
            let _ = write!(
                page,
                "\n## {section}\n\n{}.\n\n| rule | demand | fields | reported as |\n| --- | --- | --- | --- |\n",
                row.manual
            );
        }
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            row.id,
            cell(&row.demand),
            cell(&row.fields.join(", ")),
            cell(&row.report)
        );
    }
    page
}
