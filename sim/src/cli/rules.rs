//! `rootmode rules`: the table of entry rules.

use clap::Args;
use miette::{Result, miette};
use rootmode::explain::{RuleRow, rule_rows};

use super::{Finding, Format, print_json, table};

/// Arguments of `rootmode rules`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show one rule, or every rule whose identifier starts so, such as `vmx.guest.cs`.
    id: Option<String>,
    /// How the table is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> Result<Finding> {
    let prefix = arguments.id.as_deref().unwrap_or("");
    let mut rows: Vec<RuleRow> = rule_rows().into_iter().filter(|row| row.id.starts_with(prefix)).collect();
    if let Some(exact) = rows.iter().find(|row| row.id == prefix) {
        rows = vec![exact.clone()];
    }
    if rows.is_empty() {
        return Err(miette!("no rule is called `{prefix}` or starts so; `rootmode rules` lists all"));
    }
    match (arguments.format, rows.as_slice()) {
        (Format::Json, rows) => print_json(&rows)?,
        (Format::Text, [row]) => print_one(row),
        (Format::Text, rows) => {
            let cells: Vec<_> = rows
                .iter()
                .map(|row| vec![row.id.to_owned(), row.report.clone(), row.demand.clone()])
                .collect();
            table::print(&["rule", "reported as", "demand"], &cells);
        }
    }
    Ok(Finding::Nothing)
}

fn print_one(row: &RuleRow) {
    let bold = anstyle::Style::new().bold();
    anstream::println!("{bold}{}{bold:#}", row.id);
    anstream::println!("  demand:      {}", row.demand);
    anstream::println!("  source:      {} \"{}\"", row.manual, row.section);
    anstream::println!("  fields:      {}", row.fields.join(", "));
    anstream::println!("  reported as: {}", row.report);
}
