//! `rootmode campaign`: arguments, progress, tables, JSON.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use miette::{Result, miette};
use rootmode::campaign::{
    self, Kill, Outcome, Plan, Property, Regression, Regressions, Reproducer, Shard, Shrunk, Verdict,
};
use rootmode_models::kvm::Behaviour;
use serde::{Deserialize, Serialize};

use super::{Finding, Format, print_json, read_text, table, write_text};

/// Arguments of `rootmode campaign`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Properties to check; all without one. `--list` shows them.
    property: Vec<String>,
    /// Cases per property; a property whose cases cost as much as C plain ones runs N/C of them (`--list` shows C).
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    cases: u64,
    /// Seed; the same seed gives the same result with any number of workers.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Workers; as many as processors without it.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Run part I of N, such as 2/4; `--merge` adds the JSON results of all parts.
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<Shard>,
    /// Switch a known bug on in the model (may be repeated).
    #[arg(long, value_name = "NAME")]
    regression: Vec<String>,
    /// Switch on what a released kernel has: contract (nothing), linux-5.10, linux-6.1, linux-6.12 and so on.
    #[arg(long, value_name = "KVM", value_parser = parse_kvm, default_value = "contract")]
    kvm: Behaviour,
    /// Switch every known bug on in turn and show which properties find it, under three seeds from --seed on.
    #[arg(long, conflicts_with_all = ["regression", "shard", "kvm"])]
    regressions: bool,
    /// With --regressions: only what released kernels had, and a third of the others; N says which.
    #[arg(long, value_name = "N", requires = "regressions")]
    sample: Option<u64>,
    /// Run the case in FILE again.
    #[arg(long, value_name = "FILE")]
    reproduce: Option<PathBuf>,
    /// Add up the JSON results of shards.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    merge: Vec<PathBuf>,
    /// List properties and known bugs.
    #[arg(long)]
    list: bool,
    /// Where counterexamples are saved, as reproducer and as Rust test.
    #[arg(long, value_name = "DIR", default_value = "counterexamples")]
    save: PathBuf,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn parse_shard(text: &str) -> std::result::Result<Shard, String> {
    let parts =
        text.split_once('/').and_then(|(i, n)| Some((i.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
    match parts {
        Some((index, count)) if index >= 1 && index <= count => Ok(Shard { index: index - 1, count }),
        _ => Err("expected I/N with 1 <= I <= N, such as 2/4".to_owned()),
    }
}

fn parse_kvm(text: &str) -> std::result::Result<Behaviour, String> {
    Behaviour::parse(text)
        .ok_or_else(|| "expected contract, or linux- and a version such as linux-6.1".to_owned())
}

/// The result as JSON: the same for every number of workers, and for merged shards.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    seed: u64,
    cases: u64,
    shard: Shard,
    regressions: Vec<String>,
    outcomes: Vec<Outcome>,
    counterexamples: Vec<Found>,
}

/// A shrunk counterexample.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    property: String,
    case: u64,
    message: String,
    details: Vec<(String, String)>,
    reproducer: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<Finding> {
    if arguments.list {
        return list(arguments.format);
    }
    if let Some(path) = &arguments.reproduce {
        return reproduce(path, arguments.format);
    }
    let properties = select(&arguments.property)?;
    let mut builder = rayon::ThreadPoolBuilder::new();
    if let Some(jobs) = arguments.jobs {
        builder = builder.num_threads(jobs);
    }
    let pool = builder.build().map_err(|e| miette!("cannot start {:?} workers: {e}", arguments.jobs))?;
    // A failing case may be a panic of the model; it is reported as a counterexample, once, not by every worker.
    std::panic::set_hook(Box::new(|_| ()));
    if arguments.regressions {
        return pool.install(|| table_of_regressions(arguments, &properties));
    }
    let mut regressions = arguments.kvm.regressions();
    for name in &arguments.regression {
        let found = Regression::from_id(name).ok_or_else(|| {
            miette!("no known bug is called `{name}`; `rootmode campaign --list` shows them")
        })?;
        regressions = regressions.with(found);
    }
    let plan = Plan {
        cases: arguments.cases,
        seed: arguments.seed,
        shard: arguments.shard.unwrap_or(Shard::WHOLE),
        regressions,
    };
    pool.install(|| {
        let report =
            if arguments.merge.is_empty() { check(&properties, &plan) } else { merge(&arguments.merge)? };
        conclude(arguments, &report)
    })
}

fn select(names: &[String]) -> Result<Vec<Property>> {
    if names.is_empty() {
        return Ok(campaign::properties());
    }
    let find = |name: &String| {
        campaign::property(name)
            .ok_or_else(|| miette!("no property is called `{name}`; `rootmode campaign --list` shows them"))
    };
    names.iter().map(find).collect()
}

fn bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:<34} {wide_bar} {human_pos}/{human_len} cases, {per_sec}, {eta} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

fn check(properties: &[Property], plan: &Plan) -> Report {
    let bar = bar(properties.iter().map(|property| plan.share(property)).sum());
    let start = Instant::now();
    let mut outcomes = Vec::new();
    let mut rows = Vec::new();
    for property in properties {
        bar.set_message(property.name);
        let began = Instant::now();
        let outcome = campaign::run(property, plan, &|finished| bar.inc(finished));
        let rate = outcome.cases as f64 / began.elapsed().as_secs_f64();
        rows.push((property.name, rate));
        outcomes.push(outcome);
    }
    bar.finish_and_clear();
    let total: u64 = outcomes.iter().map(|o| o.cases).sum();
    let seconds = start.elapsed().as_secs_f64();
    anstream::eprintln!("{total} cases in {seconds:.2} s, {:.0} cases/s", total as f64 / seconds);
    for (name, rate) in rows {
        tracing::info!("{name}: {rate:.0} cases/s");
    }
    report(*plan, outcomes)
}

/// Completes outcomes with their counterexamples, which depend on the outcomes alone.
fn report(plan: Plan, outcomes: Vec<Outcome>) -> Report {
    let found = |outcome: &Outcome| {
        let property = campaign::property(&outcome.property)?;
        let shrunk = campaign::counterexample(&property, &plan, outcome)?;
        Some(Found {
            property: outcome.property.clone(),
            case: outcome.first_failure?,
            message: shrunk.counterexample.message.clone(),
            details: shrunk.counterexample.details.clone(),
            reproducer: reproducer(&property, plan.regressions, shrunk).to_text(),
        })
    };
    let counterexamples = outcomes.iter().filter_map(found).collect();
    Report {
        seed: plan.seed,
        cases: plan.cases,
        shard: plan.shard,
        regressions: plan.regressions.iter().map(|r| r.id().to_owned()).collect(),
        outcomes,
        counterexamples,
    }
}

fn reproducer(property: &Property, regressions: Regressions, shrunk: Shrunk) -> Reproducer {
    Reproducer {
        property: property.name.to_owned(),
        regressions,
        expect_failure: true,
        message: shrunk.counterexample.message,
        choices: shrunk.choices,
    }
}

fn merge(paths: &[PathBuf]) -> Result<Report> {
    let mut merged: Option<(Report, Vec<u64>)> = None;
    for path in paths {
        let part: Report = serde_json::from_str(&read_text(path)?)
            .map_err(|e| miette!("{}: not the JSON result of a shard: {e}", path.display()))?;
        let Some((whole, shards)) = &mut merged else {
            let shard = part.shard.index;
            merged = Some((part, vec![shard]));
            continue;
        };
        let same = (whole.seed, whole.cases, whole.shard.count, &whole.regressions)
            == (part.seed, part.cases, part.shard.count, &part.regressions)
            && whole.outcomes.iter().map(|o| &o.property).eq(part.outcomes.iter().map(|o| &o.property));
        if !same {
            return Err(miette!(
                "{}: a shard of another campaign than {}",
                path.display(),
                paths[0].display()
            ));
        }
        if shards.contains(&part.shard.index) {
            return Err(miette!("{}: shard {} is there twice", path.display(), part.shard.index + 1));
        }
        shards.push(part.shard.index);
        for (sum, outcome) in whole.outcomes.iter_mut().zip(&part.outcomes) {
            *sum = sum.clone().merge(outcome);
        }
    }
    let (whole, shards) = merged.ok_or_else(|| miette!("--merge needs at least one file"))?;
    if shards.len() as u64 != whole.shard.count {
        return Err(miette!(
            "{} of {} shards are missing",
            whole.shard.count - shards.len() as u64,
            whole.shard.count
        ));
    }
    let regressions = whole
        .regressions
        .iter()
        .filter_map(|id| Regression::from_id(id))
        .fold(Regressions::NONE, Regressions::with);
    let plan = Plan { cases: whole.cases, seed: whole.seed, shard: Shard::WHOLE, regressions };
    Ok(report(plan, whole.outcomes))
}

fn conclude(arguments: &Arguments, report: &Report) -> Result<Finding> {
    for found in &report.counterexamples {
        save(&arguments.save, found)?;
    }
    if arguments.format == Format::Json {
        print_json(report)?;
    } else {
        let row = |o: &Outcome| {
            let verdict = if o.failures == 0 { "holds".to_owned() } else { format!("FAILS {}", o.failures) };
            vec![o.property.clone(), o.cases.to_string(), o.skipped.to_string(), verdict]
        };
        let rows: Vec<_> = report.outcomes.iter().map(row).collect();
        table::print(&["property", "cases", "skipped", "verdict"], &rows);
        for found in &report.counterexamples {
            print_counterexample(&arguments.save, found);
        }
    }
    let clean = report.outcomes.iter().all(|o| o.failures == 0);
    Ok(if clean { Finding::Nothing } else { Finding::Something })
}

fn print_counterexample(directory: &Path, found: &Found) {
    let red = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    anstream::println!("\n{red}{} fails{red:#} (case {}): {}", found.property, found.case, found.message);
    for (name, value) in &found.details {
        anstream::println!("  {name}: {value}");
    }
    let path = directory.join(format!("{}.reproducer", found.property));
    anstream::println!("  again: rootmode campaign --reproduce {}", path.display());
}

fn save(directory: &Path, found: &Found) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|e| miette!("cannot create {}: {e}", directory.display()))?;
    write_text(&directory.join(format!("{}.reproducer", found.property)), &found.reproducer)?;
    let parsed = Reproducer::parse(&found.reproducer).map_err(|e| miette!("{e}"))?;
    write_text(&directory.join(format!("{}.rs", found.property)), &parsed.to_rust_test())
}

fn reproduce(path: &Path, format: Format) -> Result<Finding> {
    let reproducer = Reproducer::parse(&read_text(path)?).map_err(|e| miette!("{}: {e}", path.display()))?;
    let verdict = campaign::replay(&reproducer)
        .ok_or_else(|| miette!("{}: no property is called `{}`", path.display(), reproducer.property))?;
    let (word, counterexample) = match &verdict {
        Verdict::Holds => ("holds", None),
        Verdict::Skipped => ("skipped", None),
        Verdict::Fails(c) => ("fails", Some(c)),
    };
    if format == Format::Json {
        print_json(&serde_json::json!({
            "property": reproducer.property, "verdict": word, "counterexample": counterexample,
        }))?;
    } else {
        anstream::println!("{}: {word}", reproducer.property);
        if let Some(c) = counterexample {
            anstream::println!("  {}", c.message);
            for (name, value) in &c.details {
                anstream::println!("  {name}: {value}");
            }
        }
    }
    Ok(if verdict == Verdict::Holds { Finding::Nothing } else { Finding::Something })
}

fn list(format: Format) -> Result<Finding> {
    let properties = campaign::properties();
    if format == Format::Json {
        let rows: Vec<_> = properties
            .iter()
            .map(
                |p| serde_json::json!({"name": p.name, "about": p.about, "source": p.source, "cost": p.cost}),
            )
            .collect();
        let bugs: Vec<_> = Regression::ALL
            .iter()
            .map(|r| serde_json::json!({"id": r.id(), "about": r.row().about, "fixed_in": r.row().fixed_in}))
            .collect();
        print_json(&serde_json::json!({"properties": rows, "regressions": bugs}))?;
        return Ok(Finding::Nothing);
    }
    let rows: Vec<_> =
        properties.iter().map(|p| vec![p.name.to_owned(), p.cost.to_string(), p.about.to_owned()]).collect();
    table::print(&["property", "cost", "claim"], &rows);
    anstream::println!();
    let rows: Vec<_> =
        Regression::ALL.iter().map(|r| vec![r.id().to_owned(), r.row().about.to_owned()]).collect();
    table::print(&["known bug", "what the code did"], &rows);
    Ok(Finding::Nothing)
}

/// Cases per property and seed that a known bug may survive.
const HUNT_BOUND: u64 = 20_000;

#[derive(Serialize)]
struct Hunted {
    regression: String,
    kills: Vec<Kill>,
    killed: bool,
}

fn table_of_regressions(arguments: &Arguments, properties: &[Property]) -> Result<Finding> {
    let chosen: Vec<Regression> = match arguments.sample {
        Some(turn) => campaign::sample(turn).collect(),
        None => Regression::ALL.to_vec(),
    };
    let bar = bar(chosen.len() as u64 * 3);
    let start = Instant::now();
    let mut table = Vec::new();
    for regression in chosen {
        bar.set_message(regression.id());
        let kills: Vec<Kill> = (0..3)
            .map(|nth| {
                bar.inc(1);
                campaign::hunt(properties, regression, arguments.seed + nth, HUNT_BOUND.min(arguments.cases))
            })
            .collect();
        let killed = kills.iter().all(|k| !k.killers.is_empty());
        table.push(Hunted { regression: regression.id().to_owned(), kills, killed });
    }
    bar.finish_and_clear();
    let killed = table.iter().filter(|h| h.killed).count();
    if arguments.format == Format::Json {
        print_json(&table)?;
    } else {
        let rows: Vec<_> = table.iter().map(hunted_row).collect();
        table::print(&["known bug", "verdict", "first failing case", "found by"], &rows);
    }
    anstream::eprintln!(
        "{killed} of {} known bugs found under every seed, {:.1} s",
        table.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(if killed == table.len() { Finding::Nothing } else { Finding::Something })
}

fn hunted_row(hunted: &Hunted) -> Vec<String> {
    let firsts: Vec<_> = hunted
        .kills
        .iter()
        .map(|k| k.killers.iter().map(|(_, index)| *index).min().map_or("-".to_owned(), |i| i.to_string()))
        .collect();
    let mut names: Vec<&str> =
        hunted.kills.iter().flat_map(|k| &k.killers).map(|(name, _)| name.as_str()).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    let verdict = if hunted.killed { "killed" } else { "SURVIVES" };
    vec![hunted.regression.clone(), verdict.to_owned(), firsts.join(" / "), names.join(", ")]
}
