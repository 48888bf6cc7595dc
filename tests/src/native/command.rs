//! `rootmode-tests native`.

use super::host;
use super::run::{Report, model, run_all};
use super::scope::{Form, Scope, scope};
use super::shrink::text;
use clap::Args;
use std::time::Instant;

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Cases of each form.
    #[arg(long, value_name = "N", default_value_t = 500)]
    cases: u64,
    /// Seed.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Only the Codes whose name starts with NAME.
    #[arg(long, value_name = "NAME", default_value = "")]
    code: String,
    /// Workers; by default one a processor.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Judge 32-bit forms also of Codes that 64-bit code has.
    #[arg(long)]
    everywhere: bool,
    /// List what is excluded, what the host lacks, and the cases of every form.
    #[arg(long)]
    list: bool,
}

/// What a run showed.
#[derive(Debug)]
pub struct Summary {
    /// The Codes.
    pub scope: Scope,
    /// One report a form.
    pub reports: Vec<Report>,
}

impl Summary {
    /// Forms with a mismatch, or with fewer cases than asked for.
    pub fn failures(&self) -> impl Iterator<Item = &Report> {
        self.reports.iter().filter(|report| report.mismatches > 0 || report.trouble.is_some())
    }

    /// Cases that were run but left open.
    pub fn open(&self) -> u64 {
        self.reports.iter().map(|report| report.open).sum()
    }

    /// Cases run.
    pub fn cases(&self) -> u64 {
        self.reports.iter().map(|report| report.cases).sum()
    }
}

/// Runs `cases` cases of every form that `chosen` picks.
///
/// # Errors
/// A list of exclusions that does not fit, a child process that could not be started.
pub fn judge(
    cases: u64,
    seed: u64,
    jobs: usize,
    everywhere: bool,
    chosen: impl Fn(&Form) -> bool,
) -> Result<Summary, String> {
    let mut scope = scope(&model(), &host::has, everywhere)?;
    scope.judged.retain(chosen);
    let reports = run_all(&scope.judged, cases, seed, jobs)?;
    Ok(Summary { scope, reports })
}

/// Workers to use when nobody says.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs the command; false when something differs.
///
/// # Errors
/// As [`judge`].
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let jobs = arguments.jobs.unwrap_or_else(processors);
    let start = Instant::now();
    let summary = judge(arguments.cases, arguments.seed, jobs, arguments.everywhere, |form| {
        format!("{:?}", form.code).starts_with(&arguments.code)
    })?;
    if arguments.list {
        for (code, reason) in &summary.scope.excluded {
            println!("excluded {code:?}: {reason}");
        }
        summary.scope.host_lacks.iter().for_each(|code| println!("the host lacks {code:?}"));
        for report in &summary.reports {
            println!(
                "{}: {} cases, {} faults, {} left open",
                report.name, report.cases, report.faults, report.open
            );
        }
    }
    for report in summary.failures() {
        println!("{}: {} of {} cases differ", report.name, report.mismatches, report.cases);
        if let Some(trouble) = &report.trouble {
            println!("    {trouble}");
        }
        if let Some(first) = &report.first {
            print!("{}", text(first));
        }
    }
    let failures = summary.failures().count();
    let scope = &summary.scope;
    println!(
        "{} Codes in scope: {} judged, {} excluded with a reason, {} that the host lacks",
        scope.codes(),
        scope.judged_codes(),
        scope.excluded.len(),
        scope.host_lacks.len()
    );
    println!(
        "{} forms, {} cases, {} of them left open; {failures} forms differ; {:.1} s",
        summary.reports.len(),
        summary.cases(),
        summary.open(),
        start.elapsed().as_secs_f64()
    );
    Ok(failures == 0)
}
