//! `rootmode` without a command: the mission in five steps, every number from this run.

use std::path::PathBuf;
use std::time::Instant;

use anstyle::{AnsiColor, Color, Style};
use clap::Args;
use miette::{Result, miette};
use rootmode::campaign::{self, Plan, Regression, Regressions, Shard, Shrunk};
use rootmode::demo::ExitCount;
use rootmode::explain::{Explanation, explain};
use rootmode::transparency::Comparison;
use rootmode_arch::Vendor;
use rootmode_arch::choices::{Choices, Recorded, Recorder, Seeded, format_choices, parse_choices};
use rootmode_traces::dump::{Kernel, VmcsSurroundings, print_vmcs};
use rootmode_vmx::Field;
use serde_json::{Value, json};

use super::explain::print as print_explanation;
use super::{Finding, Format, print_json, read_text, table, write_text};

/// Arguments of `rootmode` without a command.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show only step N (1 to 5), in detail.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    step: Option<u8>,
    /// Seed of programs and schedules; the digest of seed 0 is the same on every machine.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Replay the choices in FILE (one `site n k` a line) instead of drawing them from the seed.
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    choices: Option<PathBuf>,
    /// Write every choice that was made to FILE.
    #[arg(long, value_name = "FILE")]
    record_choices: Option<PathBuf>,
    /// Print the digest alone.
    #[arg(long)]
    digest_only: bool,
    /// How the steps are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const BOLD: Style = Style::new().bold();
const GREEN: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));
const RED: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Red)));
const DIM: Style = Style::new().dimmed();

pub(super) fn run(arguments: &Arguments) -> Result<Finding> {
    let start = Instant::now();
    let runs = machines(arguments)?;
    let digest = rootmode::demo::digest(&runs);
    if arguments.digest_only {
        anstream::println!("{digest}");
        return Ok(Finding::Nothing);
    }
    let timed = |vendor| rootmode::demo::nanoseconds_per_exit(vendor).map_err(|e| miette!("{e}"));
    let nanoseconds = [timed(Vendor::Intel)?, timed(Vendor::Amd)?];
    let found = old_bug()?;
    let refused = refused_entry()?;
    let holds = runs.iter().all(Comparison::holds) && found.gone_with_the_fix;
    if arguments.format == Format::Json {
        print_json(&as_json(&runs, nanoseconds, &found, &refused, &digest))?;
    } else {
        let wanted = |step| arguments.step.is_none_or(|only| only == step);
        let detail = arguments.step.is_some();
        if wanted(1) {
            print_runs(&runs, nanoseconds, detail);
        }
        if wanted(2) {
            print_transparency(&runs, detail);
        }
        if wanted(3) {
            print_bug(&found, detail);
        }
        if wanted(4) {
            head(4, "a refused entry, with every broken rule", "vmx/src/rules.rs, sim/src/explain/");
            print_explanation(&refused, detail);
        }
        if wanted(5) {
            head(5, "the digest of steps 1 and 2: equal on every machine", "sim/src/demo.rs");
            anstream::println!("  digest (seed {}): {BOLD}{digest}{BOLD:#}", arguments.seed);
        }
        anstream::eprintln!("{:.2} s; --step N shows one step in detail", start.elapsed().as_secs_f64());
    }
    Ok(if holds { Finding::Nothing } else { Finding::Something })
}

/// Runs the embedded hypervisors with the choices that the arguments name.
fn machines(arguments: &Arguments) -> Result<[Comparison; 2]> {
    let list = match &arguments.choices {
        None => None,
        Some(path) => {
            let parsed = parse_choices(&read_text(path)?).map_err(|e| miette!("{}: {e}", path.display()))?;
            Some((path, Recorded::new(parsed)))
        }
    };
    let go = |choices: &mut dyn Choices| {
        rootmode::demo::run(choices, rootmode::demo::OPERATIONS).map_err(|e| miette!("{e}"))
    };
    let (runs, made) = match list {
        None => {
            let mut recorder = Recorder::new(Seeded::new(arguments.seed));
            (go(&mut recorder)?, recorder.list)
        }
        Some((path, mut recorded)) => {
            let mut recorder = Recorder::new(&mut recorded);
            let runs = go(&mut recorder)?;
            let made = recorder.list;
            if let Some(mismatch) = recorded.mismatch() {
                return Err(miette!("{}: {mismatch}", path.display()));
            }
            (runs, made)
        }
    };
    if let Some(path) = &arguments.record_choices {
        write_text(path, &format_choices(&made))?;
    }
    Ok(runs)
}

fn head(step: u8, what: &str, source: &str) {
    anstream::println!("{BOLD}{step}. {what}{BOLD:#}  {DIM}{source}{DIM:#}");
}

const fn vendor(index: usize) -> &'static str {
    ["VMX", "SVM"][index]
}

fn print_runs(runs: &[Comparison; 2], nanoseconds: [f64; 2], detail: bool) {
    head(1, "L0 runs a small L1 hypervisor, which runs an L2", "models/src/kvm/host/, sim/src/guests/");
    for (index, comparison) in runs.iter().enumerate() {
        let run = &comparison.hosted;
        let counts = rootmode::demo::exits(run);
        anstream::println!(
            "  {}: {} ticks, {} exits to L0, {} of L2 to L1, {:.0} ns per exit; L1 printed {:?}",
            vendor(index),
            run.ticks,
            counts.iter().map(|count| count.to_l0).sum::<u64>(),
            counts.iter().map(|count| count.to_l1).sum::<u64>(),
            nanoseconds[index],
            run.output().trim_end()
        );
        if detail {
            let cells = |count: &ExitCount| {
                vec![count.to_l0.to_string(), count.to_l1.to_string(), count.name.clone()]
            };
            table::print(&["to L0", "to L1", "exit"], &counts.iter().map(cells).collect::<Vec<_>>());
        } else {
            let shown = counts.iter().take(6).map(|count| format!("{} {}", count.name, count.to_l0));
            anstream::println!("    {DIM}{}, ...{DIM:#}", shown.collect::<Vec<_>>().join(", "));
        }
    }
}

fn print_transparency(runs: &[Comparison; 2], detail: bool) {
    head(2, "the same L1 without L0 sees the same", "sim/src/transparency/");
    for (index, comparison) in runs.iter().enumerate() {
        let verdict = if comparison.holds() {
            format!("{GREEN}identical{GREEN:#}")
        } else {
            format!("{RED}DIFFERENT{RED:#}")
        };
        anstream::println!(
            "  {}: {} facts {verdict} (exits with their fields, ports, deliveries, ticks, registers, memory), {} allowed differences",
            vendor(index),
            comparison.facts,
            comparison.allowed.len()
        );
        for (kind, bytes) in &comparison.allowed {
            anstream::println!("    {DIM}allowed: {kind:?}, {bytes} bytes{DIM:#}");
        }
        for difference in &comparison.differences {
            anstream::println!("    {RED}{difference:x?}{RED:#}");
        }
        if detail {
            for record in rootmode::transparency::facts(&comparison.bare).take(40) {
                anstream::println!("    {DIM}{record:x?}{DIM:#}");
            }
        }
    }
}

/// An old bug, found again.
struct Found {
    property: &'static str,
    case: u64,
    drawn: usize,
    shrunk: Shrunk,
    gone_with_the_fix: bool,
}

/// MSR-M03, a bug of a posted patch, is switched on and looked for; then its smallest case is run with the fix.
fn old_bug() -> Result<Found> {
    let bug = Regression::from_id("MSR-M03").ok_or_else(|| miette!("MSR-M03 is not among the known bugs"))?;
    let plan = Plan { cases: 4096, seed: 0, shard: Shard::WHOLE, regressions: Regressions::NONE.with(bug) };
    for property in campaign::properties() {
        let seeds = (0..plan.cases).map(|case| (case, campaign::case_seed(plan.seed, property.name, case)));
        let first = seeds
            .filter_map(|(case, seed)| Some((case, campaign::record(&property, seed, plan.regressions)?)))
            .next();
        let Some((case, start)) = first else { continue };
        let drawn = start.choices.len();
        let shrunk = campaign::shrink(&property, start, plan.regressions);
        let mut again = Recorded::new(shrunk.choices.clone());
        let verdict = campaign::judge(&property, &mut again, Regressions::NONE);
        let gone_with_the_fix = verdict == campaign::Verdict::Holds;
        return Ok(Found { property: property.name, case, drawn, shrunk, gone_with_the_fix });
    }
    Err(miette!("no property finds MSR-M03"))
}

fn print_bug(found: &Found, detail: bool) {
    head(3, "an old KVM bug, switched on", "models/src/kvm/regression/table.rs, sim/src/campaign/");
    if let Some(row) = Regression::from_id("MSR-M03").map(Regression::row) {
        anstream::println!("  MSR-M03: {}", row.about);
        if detail {
            anstream::println!("    {DIM}{}; {}; right: {}{DIM:#}", row.precondition, row.wrong, row.right);
        }
    }
    anstream::println!(
        "  {RED}{}{RED:#} fails in case {}; {} choices shrunk to {} in {} tries: {}",
        found.property,
        found.case,
        found.drawn,
        found.shrunk.choices.len(),
        found.shrunk.tried,
        found.shrunk.counterexample.message
    );
    for (name, value) in &found.shrunk.counterexample.details {
        anstream::println!("    {name}: {value}");
    }
    let gone = if found.gone_with_the_fix { "gone with the fix" } else { "STILL THERE with the fix" };
    anstream::println!("  the same case: {GREEN}{gone}{GREEN:#}");
}

/// A valid 64-bit guest with three mistakes, printed as Linux 6.12 prints a refused entry, explained.
fn refused_entry() -> Result<Explanation> {
    let mut state = (rootmode_vmx::boundary::bases::BASES[0].build)();
    let vmcs = &mut state.vmcs;
    vmcs.set(Field::GuestCsRights, vmcs.value(Field::GuestCsRights) | 1 << 14);
    vmcs.set(Field::GuestRflags, 0);
    vmcs.set(Field::GuestCr3, vmcs.value(Field::GuestCr3) | 1 << 63);
    let value = |encoding| Field::from_encoding(encoding).map_or(0, |(field, _)| state.vmcs.value(field));
    let text = print_vmcs(Kernel::V6_12, &VmcsSurroundings::default(), &value);
    explain(&text, Some("intel-spr".parse().map_err(|e| miette!("{e}"))?)).map_err(|e| miette!("{e}"))
}

fn as_json(
    runs: &[Comparison; 2],
    nanoseconds: [f64; 2],
    found: &Found,
    refused: &Explanation,
    digest: &str,
) -> Value {
    let machine = |(index, comparison): (usize, &Comparison)| {
        let exits: Vec<Value> = rootmode::demo::exits(&comparison.hosted)
            .into_iter()
            .map(|count| json!({"kind": count.name, "code": count.code, "to_l0": count.to_l0, "to_l1": count.to_l1}))
            .collect();
        json!({
            "extension": vendor(index),
            "ticks": comparison.hosted.ticks,
            "exits": exits,
            "nanoseconds_per_exit": nanoseconds[index],
            "facts": comparison.facts,
            "identical": comparison.holds(),
            "allowed_differences": comparison.allowed.len(),
        })
    };
    json!({
        "machines": runs.iter().enumerate().map(machine).collect::<Vec<_>>(),
        "old_bug": {
            "regression": "MSR-M03",
            "property": found.property,
            "case": found.case,
            "counterexample": found.shrunk.counterexample,
            "gone_with_the_fix": found.gone_with_the_fix,
        },
        "refused_entry": refused,
        "digest": digest,
    })
}
