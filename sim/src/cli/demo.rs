//! `rootmode` without a command: the mission in five steps, every number from this run.

use std::path::PathBuf;
use std::time::Instant;

use anstyle::{AnsiColor, Color, Style};
use clap::Args;
use miette::{Result, miette};
use rootmode::campaign::{self, Regression, Regressions, Shrunk};
use rootmode::demo::ExitCount;
use rootmode::explain::{Explanation, explain};
use rootmode::transparency::Comparison;
use rootmode_arch::Vendor;
use rootmode_arch::choices::{Choices, Recorded, Recorder, Seeded, format_choices, parse_choices};
use rootmode_traces::dump::{Kernel, VmcsSurroundings, print_vmcs};
use rootmode_vmx::Field;
use serde_json::{Map, Value, json};

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
    if arguments.digest_only {
        anstream::println!("{}", rootmode::demo::digest(&machines(arguments)?));
        return Ok(Finding::Nothing);
    }
    let shown = Shown::compute(arguments)?;
    if arguments.format == Format::Json {
        print_json(&shown.to_json())?;
    } else {
        shown.print(arguments);
        anstream::eprintln!("{:.2} s; --step N shows one step in detail", start.elapsed().as_secs_f64());
    }
    Ok(if shown.holds() { Finding::Nothing } else { Finding::Something })
}

/// What the wanted steps show, and nothing that they do not need.
struct Shown {
    /// Steps 1, 2 and 5.
    runs: Option<[Comparison; 2]>,
    /// Step 1: host time for each exit.
    nanoseconds: Option<[f64; 2]>,
    /// Step 2 shows what the runs say of transparency.
    transparency: bool,
    /// Step 3.
    found: Option<Found>,
    /// Step 4.
    refused: Option<Explanation>,
    /// Step 5.
    digest: Option<String>,
}

impl Shown {
    fn compute(arguments: &Arguments) -> Result<Self> {
        let wanted = |step| arguments.step.is_none_or(|only| only == step);
        let timed = |vendor| rootmode::demo::nanoseconds_per_exit(vendor).map_err(|e| miette!("{e}"));
        // Whoever records choices wants the runs made, whatever is shown.
        let running = wanted(1) || wanted(2) || wanted(5) || arguments.record_choices.is_some();
        let runs = if running { Some(machines(arguments)?) } else { None };
        Ok(Self {
            nanoseconds: if wanted(1) { Some([timed(Vendor::Intel)?, timed(Vendor::Amd)?]) } else { None },
            transparency: wanted(2),
            found: if wanted(3) { Some(old_bug()?) } else { None },
            refused: if wanted(4) { Some(refused_entry()?) } else { None },
            digest: runs.as_ref().filter(|_| wanted(5)).map(|runs| rootmode::demo::digest(runs)),
            runs,
        })
    }

    fn holds(&self) -> bool {
        self.runs.iter().flatten().all(Comparison::holds)
            && self.found.as_ref().is_none_or(|found| found.gone_with_the_fix)
    }

    fn print(&self, arguments: &Arguments) {
        let detail = arguments.step.is_some();
        if let (Some(runs), Some(nanoseconds)) = (&self.runs, self.nanoseconds) {
            print_runs(runs, nanoseconds, detail);
        }
        if let (Some(runs), true) = (&self.runs, self.transparency) {
            print_transparency(runs, detail);
        }
        if let Some(found) = &self.found {
            print_bug(found, detail);
        }
        if let Some(refused) = &self.refused {
            head(4, "a refused entry, with every broken rule", "vmx/src/rules.rs, sim/src/explain/");
            print_explanation(refused, detail);
        }
        if let Some(digest) = &self.digest {
            head(5, "the digest of steps 1 and 2: equal on every machine", "sim/src/demo.rs");
            anstream::println!("  digest (seed {}): {BOLD}{digest}{BOLD:#}", arguments.seed);
        }
    }

    /// An object with a key for each thing that was computed.
    fn to_json(&self) -> Value {
        let mut document = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            document.extend(value.map(|value| (key.to_owned(), value)));
        };
        put("machines", self.runs.as_ref().map(|runs| machines_json(runs, self.nanoseconds)));
        put("old_bug", self.found.as_ref().map(Found::to_json));
        put("refused_entry", self.refused.as_ref().map(|refused| json!(refused)));
        put("digest", self.digest.as_ref().map(|digest| json!(digest)));
        Value::Object(document)
    }
}

/// `nanoseconds`: host time for each exit, where it was measured.
fn machines_json(runs: &[Comparison; 2], nanoseconds: Option<[f64; 2]>) -> Value {
    let machine = |(index, comparison): (usize, &Comparison)| {
        let exits: Vec<Value> = rootmode::demo::exits(&comparison.hosted)
            .into_iter()
            .map(|count| json!({"kind": count.name, "code": count.code, "to_l0": count.to_l0, "to_l1": count.to_l1}))
            .collect();
        json!({
            "extension": vendor(index),
            "ticks": comparison.hosted.ticks,
            "exits": exits,
            "nanoseconds_per_exit": nanoseconds.map(|each| each[index]),
            "facts": comparison.facts,
            "identical": comparison.holds(),
            "allowed_differences": comparison.allowed.len(),
        })
    };
    runs.iter().enumerate().map(machine).collect()
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

impl Found {
    fn to_json(&self) -> Value {
        json!({
            "regression": OLD_BUG,
            "property": self.property,
            "case": self.case,
            "counterexample": self.shrunk.counterexample,
            "gone_with_the_fix": self.gone_with_the_fix,
        })
    }
}

/// A bug of a posted patch.
const OLD_BUG: &str = "MSR-M03";

/// The campaign's seed and cases for each property in the search for the old bug.
const SEARCH: (u64, u64) = (0, 4096);

/// The old bug is switched on and looked for; then its smallest case is run with the fix.
fn old_bug() -> Result<Found> {
    let bug = Regression::from_id(OLD_BUG).ok_or_else(|| miette!("{OLD_BUG} is not among the known bugs"))?;
    let (seed, bound) = SEARCH;
    let kill = campaign::hunt(&campaign::properties(), bug, seed, bound);
    let found = kill.killers.first().and_then(|(name, case)| {
        let property = campaign::property(name)?;
        let start =
            campaign::record(&property, campaign::case_seed(seed, name, *case), Regressions::NONE.with(bug))?;
        Some((property, *case, start))
    });
    let (property, case, start) = found.ok_or_else(|| miette!("no property finds {OLD_BUG}"))?;
    let drawn = start.choices.len();
    let shrunk = campaign::shrink(&property, start, Regressions::NONE.with(bug));
    let mut again = Recorded::new(shrunk.choices.clone());
    let verdict = campaign::judge(&property, &mut again, Regressions::NONE);
    let gone_with_the_fix = verdict == campaign::Verdict::Holds;
    Ok(Found { property: property.name, case, drawn, shrunk, gone_with_the_fix })
}

fn print_bug(found: &Found, detail: bool) {
    head(3, "an old KVM bug, switched on", "models/src/kvm/regression/table.rs, sim/src/campaign/");
    if let Some(row) = Regression::from_id(OLD_BUG).map(Regression::row) {
        anstream::println!("  {OLD_BUG}: {}", row.about);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of_step(step: u8) -> Shown {
        let arguments = Arguments {
            step: Some(step),
            seed: 0,
            choices: None,
            record_choices: None,
            digest_only: false,
            format: Format::Json,
        };
        Shown::compute(&arguments).unwrap()
    }

    #[test]
    fn a_step_computes_what_it_shows_and_no_more() {
        let keys = |step| {
            let document = of_step(step).to_json();
            document.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(
            [2, 3, 4].map(keys),
            [["machines"], ["old_bug"], ["refused_entry"]].map(|k| k.map(str::to_owned).to_vec())
        );
        let last = of_step(5);
        assert!(last.digest.is_some() && last.nanoseconds.is_none() && last.found.is_none());
    }

    #[test]
    fn the_old_bug_is_found_and_gone_with_its_fix() {
        let found = of_step(3).found.unwrap();
        assert!(found.gone_with_the_fix && found.shrunk.choices.len() <= found.drawn, "{}", found.property);
    }
}
