//! `rootmode bugs`: KVM's known bugs as a table.

use clap::Args;
use miette::{Result, miette};
use rootmode_models::kvm::{KernelVersion, Origin, REGRESSIONS_LEFT_OUT, Regression, RegressionRow};
use serde::Serialize;

use super::{Finding, Format, print_json, table};

/// Arguments of `rootmode bugs`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show one bug, or every bug whose identifier starts so, such as `MSR-M03`.
    id: Option<String>,
    /// Only bugs of this released kernel, such as 6.1.
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// How the list is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A bug as JSON.
#[derive(Debug, Serialize)]
struct Bug {
    id: &'static str,
    about: &'static str,
    origin: &'static str,
    upstream: &'static str,
    precondition: &'static str,
    consequence: &'static str,
    right: &'static str,
    introduced: Option<&'static str>,
    fixed_in: Option<&'static str>,
    still_upstream: bool,
    command: String,
}

impl Bug {
    fn of(row: &RegressionRow) -> Self {
        let origin = match row.origin {
            Origin::Released => "released",
            Origin::Posted => "posted",
            Origin::Imagined => "imagined",
        };
        Self {
            id: row.id,
            about: row.about,
            origin,
            upstream: row.upstream,
            precondition: row.precondition,
            consequence: row.wrong,
            right: row.right,
            introduced: row.introduced,
            fixed_in: row.fixed_in,
            still_upstream: row.still_upstream,
            command: format!("rootmode campaign --regression {}", row.id),
        }
    }

    fn kernels(&self) -> String {
        match (self.introduced, self.fixed_in) {
            _ if self.origin != "released" => self.origin.to_owned(),
            (since, Some(fixed)) => format!("{} to {fixed}", since.unwrap_or("unknown")),
            (since, None) => format!("{}, still there", since.unwrap_or("unknown")),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Finding> {
    let kernel = match &arguments.kernel {
        Some(text) => Some(KernelVersion::parse(text).ok_or_else(|| {
            miette!("`{text}` is no kernel version; expected two numbers with a dot, such as 6.1")
        })?),
        None => None,
    };
    let prefix = arguments.id.as_deref().unwrap_or("").to_ascii_uppercase();
    let rows = Regression::ALL.iter().map(|bug| bug.row()).filter(|row| {
        row.id.to_ascii_uppercase().starts_with(&prefix) && kernel.is_none_or(|kernel| row.is_in(kernel))
    });
    let mut bugs: Vec<Bug> = rows.map(Bug::of).collect();
    if let Some(exact) = bugs.iter().position(|bug| bug.id.eq_ignore_ascii_case(&prefix)) {
        bugs = vec![bugs.swap_remove(exact)];
    }
    match (arguments.format, bugs.as_slice(), kernel) {
        (_, [], None) => {
            return Err(miette!("no known bug is called `{prefix}` or starts so; `rootmode bugs` lists all"));
        }
        (Format::Json, bugs, _) => print_json(&bugs)?,
        (Format::Text, [], Some(kernel)) => anstream::println!("Linux {kernel} has none of the known bugs."),
        (Format::Text, [bug], _) => print_one(bug),
        (Format::Text, bugs, _) => {
            let cells: Vec<_> = bugs
                .iter()
                .map(|bug| vec![bug.id.to_owned(), bug.kernels(), bug.consequence.to_owned()])
                .collect();
            table::print(&["bug", "kernels", "consequence"], &cells);
            anstream::println!("\n`rootmode campaign --regression BUG` shows one at work.");
            if prefix.is_empty() && kernel.is_none() {
                for (id, reason) in REGRESSIONS_LEFT_OUT {
                    anstream::println!("{id} is not there: {reason}.");
                }
            }
        }
    }
    Ok(Finding::Nothing)
}

fn print_one(bug: &Bug) {
    let bold = anstyle::Style::new().bold();
    anstream::println!("{bold}{}{bold:#} {}", bug.id, bug.about);
    anstream::println!("  upstream:    {}", bug.upstream);
    anstream::println!("  kernels:     {}", bug.kernels());
    anstream::println!("  when:        {}", bug.precondition);
    anstream::println!("  consequence: {}", bug.consequence);
    anstream::println!("  right:       {}", bug.right);
    anstream::println!("  shown by:    {}", bug.command);
}
