//! `rootmode suite`: arguments, progress, colours, files, exit status.

use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use regex::Regex;
use rootmode::processor::Processor;
use rootmode::suite::{
    Case, Definition, Kind, Outcome, Request, Verdict, execute, expect, on_processors, plan, processors,
    report,
};

use super::{Finding, print_json, read_text, table, ticks, write_text};

/// Where tests run if `--cpu` does not say.
const BOTH: &str = "max-intel,max-amd";

/// How outcomes are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// kvm-unit-tests' own result lines, with seconds and ticks.
    #[default]
    Text,
    /// TAP version 13.
    Tap,
    /// JUnit's XML.
    Junit,
    /// A JSON array.
    Json,
}

/// Run a suite: a unittests.cfg, or a folder with one (the folder of a kvm-unit-tests build also does).
///
/// Exit status: 0 if nothing failed and the golden list is as expected, 1 if not, 2 for bad input (no list, no tests left).
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A list, or a folder with a `unittests.cfg` in it or in its `x86`.
    list: PathBuf,
    /// Where the list's files are, if not beside it.
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Processors, by commas: models, each followed by its changes (`max-intel,-pcid,max-amd`). They run every test, also
    /// those for which the list names another vendor; without this, both vendors' models run what is theirs. The list's
    /// own flags apply behind these.
    #[arg(long, value_name = "MODEL[,CHANGE...],...")]
    cpu: Option<String>,
    /// Run tests as guests of the model of KVM, on hosts with these processors.
    #[arg(long)]
    hosted: bool,
    /// Also with these numbers of processors.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    also_cpus: Vec<u8>,
    /// Only tests in whose name this regular expression matches somewhere.
    #[arg(long, value_name = "RE")]
    filter: Option<Regex>,
    /// Only tests of this group, manual ones too.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Also tests that are marked as manual.
    #[arg(long)]
    all: bool,
    /// What the images were built for; without it, what the build's config.mak says, or x86_64.
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Claim to be this accelerator: tests for others are skipped.
    #[arg(long, value_name = "ACCEL")]
    accel: Option<String>,
    /// Check these `path=value` words instead of the list's.
    #[arg(long, value_name = "WORDS")]
    check: Option<String>,
    /// A variable of every test's environment, such as `TEST_DEVICE=0`, with which kvm-unit-tests leave out what only a
    /// hypervisor answers. May be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// Seconds that every test may take, instead of its own; 0 is no limit.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Ticks that every test may take; also with a suffix K, M or G, of 1000.
    #[arg(long, value_name = "TICKS", value_parser = ticks)]
    limit: Option<u64>,
    /// Tests at a time.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// How outcomes are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print every result line too (text only).
    #[arg(long)]
    lines: bool,
    /// Save every test's console in this folder.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
    /// Compare what passed and what was skipped with this golden list; with --filter, --group or --cpu only what ran.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Write the golden list instead of comparing; with --filter, --group or --cpu the lines of other tests stay.
    #[arg(long, requires = "expect")]
    write_expect: bool,
    /// Name the tests and why some would be skipped, and end.
    #[arg(long)]
    names: bool,
}

/// A variable and its value, in one line.
fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() && !text.contains('\n') => Ok(text.to_owned()),
        _ => Err("expected NAME=VALUE".into()),
    }
}

/// Finds the list.
fn find(path: &Path) -> miette::Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let candidates = [path.join("unittests.cfg"), path.join("x86/unittests.cfg")];
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.ok_or_else(|| miette::miette!("{}: neither it nor its x86 has a unittests.cfg", path.display()))
}

/// What a kvm-unit-tests build says it is for, in config.mak beside the list's folder.
fn built_for(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.parent()?.join("config.mak")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("ARCH=")).map(|arch| arch.trim().to_owned())
}

pub(super) fn run(arguments: &Arguments) -> miette::Result<Finding> {
    let path = find(&arguments.list)?;
    let beside = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
    let beside = beside.ok_or_else(|| miette::miette!("cannot read {}: no such list", path.display()))?;
    let folder = match &arguments.images {
        Some(images) => images
            .canonicalize()
            .map_err(|e| miette::miette!("cannot look into {}: {e}", images.display()))?,
        None => beside,
    };
    let definitions = Definition::parse_all(&read_text(&path)?);
    let cpus = arguments.cpu.as_deref().unwrap_or(BOTH);
    let cpus = Processor::parse_all(cpus).map_err(|e| miette::miette!("--cpu {cpus}: {e}"))?;
    let mut generators = vec![processors(cpus)];
    if !arguments.also_cpus.is_empty() {
        generators.push(on_processors(arguments.also_cpus.clone()));
    }
    let request = Request {
        filter: arguments.filter.clone(),
        group: arguments.group.clone(),
        all: arguments.all,
        arch: arguments.arch.clone().or_else(|| built_for(&folder)).unwrap_or_else(|| "x86_64".into()),
        accel: arguments.accel.clone(),
        timeout: arguments.timeout,
        check: arguments.check.clone(),
        environment: arguments.env.clone(),
        fixed: arguments.cpu.is_some(),
        hosted: arguments.hosted,
        generators,
    };
    let cases = plan(&definitions, &folder, &request);
    if cases.is_empty() {
        let count = definitions.len();
        return Err(miette::miette!("{}: of its {count} tests none is asked for", path.display()));
    }
    if arguments.names {
        let reason = |case: &Case| case.skipped.clone().unwrap_or_default();
        let rows = cases.iter().map(|c| vec![c.name.clone(), c.cpu.text().into(), reason(c)]);
        table::print(&["test", "cpu", "skipped because"], &rows.collect::<Vec<_>>());
        return Ok(Finding::Nothing);
    }
    let golden = match &arguments.expect {
        Some(path) if !arguments.write_expect => Some(read_text(path)?),
        _ => None,
    };
    if let Some(logs) = &arguments.logs {
        std::fs::create_dir_all(logs)
            .map_err(|e| miette::miette!("cannot create {}: {e}", logs.display()))?;
    }
    let outcomes = run_all(arguments, &cases);
    if let Some(logs) = &arguments.logs {
        for outcome in &outcomes {
            let file = format!("{}@{}.log", outcome.name.replace('/', "_"), outcome.cpu.text());
            write_text(&logs.join(file), &outcome.console)?;
        }
    }
    match arguments.format {
        Format::Text => totals(&outcomes),
        Format::Tap => anstream::print!("{}", report::tap(&outcomes)),
        Format::Junit => anstream::print!("{}", report::junit(&outcomes)),
        Format::Json => print_json(&outcomes)?,
    }
    let part = arguments.filter.is_some() || arguments.group.is_some() || arguments.cpu.is_some();
    let mut finding = Finding::Nothing;
    if outcomes.iter().any(|outcome| outcome.verdict == Verdict::Fail) {
        finding = Finding::Something;
    }
    if let (Some(path), true) = (&arguments.expect, arguments.write_expect) {
        let old = if path.exists() { read_text(path)? } else { String::new() };
        write_text(path, &expect::list(&old, &outcomes, part))?;
    }
    for difference in golden.iter().flat_map(|golden| expect::differences(golden, &outcomes, part)) {
        anstream::eprintln!("{difference}");
        finding = Finding::Something;
    }
    Ok(finding)
}

/// Runs the cases with a progress line on a terminal; text is printed as it comes.
fn run_all(arguments: &Arguments, cases: &[Case]) -> Vec<Outcome> {
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    // Draws nothing unless standard error is a terminal.
    let bar = ProgressBar::new(cases.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    let mut outcomes = Vec::with_capacity(cases.len());
    let started = |case: &Case| bar.set_message(format!("{} on {}", case.name, case.cpu.text()));
    execute(cases, jobs, arguments.limit.unwrap_or(u64::MAX), started, |outcome| {
        bar.inc(1);
        if arguments.format == Format::Text {
            bar.suspend(|| print(&outcome, arguments.lines));
        }
        outcomes.push(outcome);
    });
    bar.finish_and_clear();
    outcomes
}

fn color(verdict: Verdict) -> Style {
    let color = match verdict {
        Verdict::Pass => AnsiColor::Green,
        Verdict::Fail => AnsiColor::Red,
        Verdict::Skip => AnsiColor::Yellow,
    };
    color.on_default()
}

fn print(outcome: &Outcome, lines: bool) {
    let text = report::text(outcome);
    let (word, rest) = text.split_at(4);
    let style = color(outcome.verdict);
    let cost = if outcome.ticks > 0 {
        format!("  {:.1} s, {:.1} M ticks", outcome.seconds, outcome.ticks as f64 / 1e6)
    } else {
        String::new()
    };
    anstream::println!("{style}{word}{style:#} {:9}{rest}{cost}", outcome.cpu.text());
    let shown = |kind| lines || matches!(kind, Kind::Fail | Kind::Xpass);
    for line in outcome.lines.iter().filter(|line| shown(line.kind)) {
        anstream::println!("     {}: {}", format!("{:?}", line.kind).to_uppercase(), line.text);
    }
    if lines {
        for note in &outcome.notes {
            anstream::println!("     note: {note}");
        }
    }
}

fn totals(outcomes: &[Outcome]) {
    let count = |verdict| outcomes.iter().filter(|outcome| outcome.verdict == verdict).count();
    let lines: usize = outcomes.iter().map(|outcome| outcome.lines.len()).sum();
    anstream::println!(
        "{} tests: {} PASS, {} FAIL, {} SKIP; {lines} result lines",
        outcomes.len(),
        count(Verdict::Pass),
        count(Verdict::Fail),
        count(Verdict::Skip)
    );
}
