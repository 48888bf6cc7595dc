//! `rootmode explain`: the report of [`rootmode::explain`], for people and for programs.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use clap::Args;
use miette::{Result, miette};
use rootmode::explain::{Broken, Cpu, Entry, Explanation, explain};

use super::{Finding, Format, print_json, read_text};

/// Arguments of `rootmode explain`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What Linux printed when an entry failed (a whole dmesg will do), or a list of `FIELD = value`; `-` reads standard input.
    file: PathBuf,
    /// Processor whose capabilities decide about reserved and allowed bits; without it such judgements are marked `assumed`.
    #[arg(long, value_name = "MODEL")]
    cpu: Option<Cpu>,
    /// Name every rule that could not be judged, and why.
    #[arg(long)]
    all: bool,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> Result<Finding> {
    let text = if arguments.file.as_os_str() == "-" {
        let bytes = std::io::read_to_string(std::io::stdin());
        bytes.map_err(|e| miette!("cannot read standard input: {e}"))?
    } else {
        read_text(&arguments.file)?
    };
    let explanation =
        explain(&text, arguments.cpu).map_err(|e| miette!("{}: {e}", arguments.file.display()))?;
    if explanation.entries.is_empty() {
        for line in &explanation.unreadable {
            anstream::eprintln!("{line}");
        }
        return Err(miette!(
            "{}: no VMCS or VMCB in its {} lines; expected what KVM's dump_vmcs or dump_vmcb prints, or lines `FIELD = value`",
            arguments.file.display(),
            explanation.lines
        ));
    }
    if arguments.format == Format::Json {
        print_json(&explanation)?;
    } else {
        print(&explanation, arguments.all);
    }
    let clean = explanation.entries.iter().all(|entry| entry.broken.is_empty());
    Ok(if clean { Finding::Nothing } else { Finding::Something })
}

const BOLD: Style = Style::new().bold();
const RED: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
const GREEN: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
const DIM: Style = Style::new().dimmed();

/// Prints a report for people.
pub(super) fn print(explanation: &Explanation, all: bool) {
    for entry in &explanation.entries {
        for (position, rule) in entry.broken.iter().enumerate() {
            anstream::println!("{}", broken(position + 1, rule));
        }
        print_summary(entry, all);
    }
    for line in &explanation.unreadable {
        anstream::println!("{DIM}not read: {line}{DIM:#}");
    }
}

/// A broken rule, with a number in front: several lines.
pub(super) fn broken(position: usize, rule: &Broken) -> String {
    let assumed = if rule.assumed { " (assumed processor)" } else { "" };
    let mut lines = vec![format!("{RED}{position}. {}{RED:#}{assumed}: {}", rule.rule, rule.demand)];
    for value in &rule.values {
        let line = value.line.map(|line| format!("  {DIM}line {line}{DIM:#}")).unwrap_or_default();
        lines.push(format!("   {} = {}{line}", value.name, value.value.as_deref().unwrap_or("?")));
    }
    for (nth, change) in rule.nearest.iter().enumerate() {
        let word = if nth == 0 { "nearest valid" } else { "or" };
        lines.push(format!("   {GREEN}{word}: {} = {}{GREEN:#}", change.name, change.to));
    }
    lines.push(format!("   {DIM}{}; reported as {}{DIM:#}", rule.source, rule.report));
    lines.join("\n")
}

fn print_summary(entry: &Entry, all: bool) {
    let assumed = if entry.assumed_processor { ", assumed; --cpu names another" } else { "" };
    anstream::println!(
        "{BOLD}{} entry, lines {} to {}{BOLD:#}: {} of {} rules broken, {} satisfied, {} cannot be judged (processor {}{assumed})",
        entry.extension,
        entry.lines.0,
        entry.lines.1,
        entry.broken.len(),
        entry.broken.len() + entry.satisfied + entry.unjudged.len(),
        entry.satisfied,
        entry.unjudged.len(),
        entry.processor,
    );
    if let Some(recorded) = &entry.recorded {
        anstream::println!("  the text says: {recorded}");
    }
    match &entry.would_report {
        Some(report) => anstream::println!("  the processor would report: {report}"),
        None => anstream::println!("  {GREEN}no rule that can be judged is broken{GREEN:#}"),
    }
    if all {
        for rule in &entry.unjudged {
            anstream::println!("  {DIM}cannot judge {}: {} is not there{DIM:#}", rule.rule, rule.missing);
        }
        return;
    }
    if entry.broken.is_empty() {
        for rule in entry.unjudged.iter().take(3) {
            anstream::println!("  possible: {}, but {} is not there", rule.rule, rule.missing);
        }
    }
    if let Some(rule) = entry.unjudged.first() {
        let count = entry.unjudged.len();
        anstream::println!(
            "  {DIM}{count} rules lack something, such as {}; --all names them{DIM:#}",
            rule.missing
        );
    }
}
