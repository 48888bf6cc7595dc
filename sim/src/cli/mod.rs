//! The command line: arguments, dispatch, exit status (0 fine, 1 something was found, 2 bad input).

mod bugs;
mod campaign;
mod cpu;
mod demo;
mod explain;
mod rules;
mod run;
mod suite;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document on standard output.
    Json,
}

/// A deterministic x86 machine for people who write, test and teach hypervisors.
///
/// Without a command, an embedded hypervisor runs on both vendors and the five steps of the mission are shown.
#[derive(Debug, Parser)]
#[command(name = "rootmode", version, max_term_width = 110, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    demo: demo::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List KVM's known bugs: what each leads to, which kernels have it, the command that shows it.
    Bugs(bugs::Arguments),
    /// Check properties over generated cases; hunt known bugs; run a counterexample again.
    Campaign(campaign::Arguments),
    /// Show processor models: what CPUID and the MSRs of each say, and what its real part has beyond it.
    Cpu(cpu::Arguments),
    /// Say why a VM entry or VMRUN was refused: every broken rule, with the nearest valid values.
    Explain(explain::Arguments),
    /// Run an image on a PC.
    Run(run::Arguments),
    /// Show the entry rules of both vendors.
    Rules(rules::Arguments),
    /// Run a suite of tests, such as kvm-unit-tests.
    Suite(suite::Arguments),
}

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// All is well.
    Nothing,
    /// A property failed, a rule is violated, an expectation was not met.
    Something,
}

/// Parses the arguments, runs the command, and answers with the process's exit status.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let result = match cli.command {
        Some(Command::Run(arguments)) => {
            return run::run(&arguments).unwrap_or_else(|report| {
                anstream::eprintln!("{report:?}");
                ExitCode::from(2)
            });
        }
        Some(Command::Bugs(arguments)) => bugs::run(&arguments),
        Some(Command::Campaign(arguments)) => campaign::run(&arguments),
        Some(Command::Cpu(arguments)) => cpu::run(&arguments),
        Some(Command::Explain(arguments)) => explain::run(&arguments),
        Some(Command::Rules(arguments)) => rules::run(&arguments),
        Some(Command::Suite(arguments)) => suite::run(&arguments),
        None => demo::run(&cli.demo),
    };
    match result {
        Ok(Finding::Nothing) => ExitCode::SUCCESS,
        Ok(Finding::Something) => ExitCode::from(1),
        Err(report) => {
            anstream::eprintln!("{report:?}");
            ExitCode::from(2)
        }
    }
}

/// Reads a text file named on the command line.
fn read_text(path: &std::path::Path) -> miette::Result<String> {
    let bytes = std::fs::read(path).map_err(|e| miette::miette!("cannot read {}: {e}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes a text file named on the command line.
fn write_text(path: &std::path::Path, text: &str) -> miette::Result<()> {
    std::fs::write(path, text).map_err(|e| miette::miette!("cannot write {}: {e}", path.display()))
}

/// A number with an optional suffix K, M or G: `kilo`, its square or its cube.
fn suffixed(text: &str, kilo: u64) -> Result<u64, String> {
    let power = match text.chars().last() {
        Some('k' | 'K') => 1,
        Some('m' | 'M') => 2,
        Some('g' | 'G') => 3,
        _ => 0,
    };
    let digits = if power == 0 { text } else { &text[..text.len() - 1] };
    let number: u64 = digits.parse().map_err(|_| "a number with an optional suffix K, M or G")?;
    number.checked_mul(kilo.pow(power)).ok_or_else(|| "too large".to_owned())
}

/// Ticks with an optional decimal suffix.
fn ticks(text: &str) -> Result<u64, String> {
    suffixed(text, 1000)
}

/// Prints one JSON document.
fn print_json(value: &impl serde::Serialize) -> miette::Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| miette::miette!("cannot encode JSON: {e}"))?;
    anstream::println!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn ticks_take_decimal_suffixes() {
        assert_eq!(super::ticks("123"), Ok(123));
        assert_eq!(super::ticks("7k"), Ok(7000));
        assert_eq!(super::ticks("20M"), Ok(20_000_000));
        assert_eq!(super::ticks("3G"), Ok(3_000_000_000));
        for wrong in ["", "G", "1T", "-1", "1.5M", "18446744073709551615K"] {
            assert!(super::ticks(wrong).is_err(), "{wrong}");
        }
    }
}
