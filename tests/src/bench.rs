//! `rootmode-tests bench`: the speed payload (`tests/payload`) here and on Debian's QEMU, one after the other in the same run.
//!
//! The guest prints `BEGIN phase` and `END phase count=N` on COM1; a rate is N per second of the processor time that the
//! simulator's process had used when the lines came. Machines are shared and noisy: shares of one run mean something,
//! rates of two runs do not.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::Args;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use serde::Serialize;

use crate::table::{Format, Row};

static PAYLOAD: &[u8] = include_bytes!("../payload/payload.flat");

/// What is measured, what it is compared with, and the share that is required and aimed at.
struct Phase {
    name: &'static str,
    /// The phase of QEMU TCG (which has SVM only).
    peer: &'static str,
    required: f64,
    aimed: f64,
}

const fn phase(name: &'static str, required: f64, aimed: f64) -> Phase {
    Phase { name, peer: name, required, aimed }
}

/// A loop of the same kind as the phase above it, for which nothing was tuned: 80 % of that one's share is required.
const fn twin(name: &'static str, required: f64) -> Phase {
    let share = required * 0.8;
    Phase { name, peer: name, required: share, aimed: share }
}

const fn nested(name: &'static str, peer: &'static str, required: f64) -> Phase {
    Phase { name, peer, required, aimed: required }
}

const PHASES: &[Phase] = &[
    phase("int", 0.09, 0.14),
    twin("int_2", 0.09),
    phase("memsweep", 0.10, 0.16),
    twin("memsweep_2", 0.10),
    phase("chase", 1.0, 1.2),
    twin("chase_2", 1.0),
    phase("repmovs_bytes", 0.5, 5.0),
    twin("repmovs_bytes_2", 0.5),
    phase("crcbits", 0.25, 0.35),
    twin("crcbits_2", 0.25),
    phase("sse2", 0.25, 0.35),
    twin("sse2_2", 0.25),
    phase("exc_ud2", 1.2, 2.0),
    twin("exc_2", 1.2),
    phase("out80", 3.0, 5.0),
    twin("out80_2", 3.0),
    phase("cr3reload", 1.5, 3.0),
    twin("cr3reload_2", 1.5),
    phase("callret", 0.5, 0.75),
    twin("callret_2", 0.5),
    nested("vmx_exit_cpuid", "svm_exit_cpuid", 12.0),
    nested("vmx_exit_cpuid_ept", "svm_exit_cpuid", 12.0),
    nested("vmx_exit_io", "svm_exit_io", 12.0 * 0.8),
    nested("vmx_ept_chase", "svm_npt_chase", 2.0),
    nested("svm_exit_cpuid", "svm_exit_cpuid", 12.0),
    nested("svm_exit_cpuid_npt", "svm_exit_cpuid_npt", 12.0),
    nested("svm_exit_io", "svm_exit_io", 12.0 * 0.8),
    nested("svm_npt_chase", "svm_npt_chase", 2.0),
];

/// Arguments of `rootmode-tests bench`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Phases about ten times shorter.
    #[arg(long)]
    quick: bool,
    /// Runs of each simulator, in turn; medians count.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these phases, and QEMU's that they are compared with.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// The simulator to measure; by default the rootmode beside this program.
    #[arg(long, value_name = "FILE")]
    rootmode: Option<PathBuf>,
    /// An earlier build to compare with instead of QEMU: ratios to it, without requirements.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// How to print the table.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Measured {
    phase: &'static str,
    /// Per second of processor time.
    rate: f64,
    peer_phase: &'static str,
    peer_rate: f64,
    /// The median of the shares of the rounds.
    share: f64,
    /// Not there when the peer is an earlier build.
    required: Option<f64>,
    aimed: Option<f64>,
}

impl Measured {
    fn kept(&self) -> bool {
        self.required.is_none_or(|required| self.share >= required)
    }
}

/// Counts per second of processor time, by phase.
type Rates = BTreeMap<String, f64>;

/// Ends the simulator also when reading it fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command`, whose standard output is COM1.
fn watch(command: &mut Command) -> Result<Rates, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut running = Running(spawned.map_err(|error| format!("cannot run {name}: {error}"))?);
    let pid = i32::try_from(running.0.id()).map_err(|error| error.to_string())?;
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).map_err(|error| format!("{name}: {error}"))?;
    let output = running.0.stdout.take().ok_or("no standard output")?;
    let mut rates = Rates::new();
    let mut began = 0.0;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(|error| format!("{name}: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["BEGIN", _] => began = seconds(clock)?,
            ["END", phase, count, ..] => {
                let count = count.strip_prefix("count=").and_then(|count| count.parse::<f64>().ok());
                let count = count.ok_or_else(|| format!("{name}: no count in {line:?}"))?;
                rates.insert(phase.to_owned(), count / (seconds(clock)? - began).max(1e-9));
                if std::io::stderr().is_terminal() {
                    eprint!("\r\x1b[K{name}: {phase}");
                }
            }
            ["FAULT", ..] => return Err(format!("{name}: the payload stopped: {line}")),
            ["BENCH", "DONE"] => {
                if std::io::stderr().is_terminal() {
                    eprint!("\r\x1b[K");
                }
                return Ok(rates);
            }
            _ => {}
        }
    }
    Err(format!("{name} ended before the payload did"))
}

fn seconds(clock: ClockId) -> Result<f64, String> {
    let time = clock.now().map_err(|error| format!("processor time: {error}"))?;
    Ok(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// The simulator: the `given` one, or the rootmode beside this program.
pub(crate) fn simulator(given: Option<&Path>) -> Result<PathBuf, String> {
    let beside = || std::env::current_exe().map(|program| program.with_file_name("rootmode"));
    let simulator = given.map_or_else(beside, |given| Ok(given.to_owned()));
    simulator.map_err(|error| format!("where is this program? {error}"))
}

/// The command line of the payload: `names` of its phases, or all.
fn words(quick: bool, names: &[&str]) -> String {
    let mut words = if quick { "quick" } else { "full" }.to_owned();
    if !names.is_empty() {
        words += &format!(" only={}", names.join(","));
    }
    words
}

/// Both vendors' phases of rootmode.
fn rootmode(program: &Path, payload: &Path, quick: bool, phases: &[&str]) -> Result<Rates, String> {
    let of = |model: &str, names: &[&str]| {
        let mut command = Command::new(program);
        command.arg("run").arg(payload).args(["--cpu", model, "--memory", "512M", "--append"]);
        watch(command.arg(words(quick, names)))
    };
    let (svm, others): (Vec<&str>, Vec<&str>) = phases.iter().partition(|name| name.starts_with("svm_"));
    let mut rates = Rates::new();
    for (model, names) in [("max-intel", others), ("max-amd", svm)] {
        if !names.is_empty() {
            rates.extend(of(model, &names)?);
        }
    }
    Ok(rates)
}

fn qemu(payload: &Path, quick: bool, phases: &[&str]) -> Result<Rates, String> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-cpu", "max", "-machine", "q35", "-m", "512", "-nodefaults"]);
    command.args([
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=0x4",
        "-display",
        "none",
        "-serial",
        "stdio",
    ]);
    command.arg("-kernel").arg(payload).arg("-append").arg(words(quick, phases));
    watch(&mut command).map_err(|error| format!("{error} (Debian's package is qemu-system-x86)"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(arguments: &Arguments) -> Result<Vec<Measured>, String> {
    let unknown = arguments.only.iter().find(|name| !PHASES.iter().any(|phase| phase.name == **name));
    if let Some(name) = unknown {
        let known: Vec<&str> = PHASES.iter().map(|phase| phase.name).collect();
        return Err(format!("no phase {name}: there are {}", known.join(", ")));
    }
    let wanted = |phase: &&Phase| arguments.only.is_empty() || arguments.only.iter().any(|n| n == phase.name);
    let phases: Vec<&Phase> = PHASES.iter().filter(wanted).collect();
    let here: Vec<&str> = phases.iter().map(|phase| phase.name).collect();
    let against = arguments.against.is_some();
    let mut there: Vec<&str> = phases.iter().map(|p| if against { p.name } else { p.peer }).collect();
    there.sort_unstable();
    there.dedup();
    let program = simulator(arguments.rootmode.as_deref())?;
    let scratch = tempfile::tempdir().map_err(|error| format!("no scratch folder: {error}"))?;
    let payload = scratch.path().join("payload.flat");
    std::fs::write(&payload, PAYLOAD).map_err(|error| format!("{}: {error}", payload.display()))?;
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        let ours = rootmode(&program, &payload, arguments.quick, &here)?;
        let theirs = match &arguments.against {
            Some(program) => rootmode(program, &payload, arguments.quick, &there)?,
            None => qemu(&payload, arguments.quick, &there)?,
        };
        rounds.push((ours, theirs));
    }
    let rate = |rates: &Rates, phase: &str| {
        rates.get(phase).copied().ok_or_else(|| format!("phase {phase} did not run"))
    };
    phases
        .into_iter()
        .map(|phase| {
            let peer = if against { phase.name } else { phase.peer };
            let ours =
                rounds.iter().map(|(ours, _)| rate(ours, phase.name)).collect::<Result<Vec<_>, _>>()?;
            let theirs =
                rounds.iter().map(|(_, theirs)| rate(theirs, peer)).collect::<Result<Vec<_>, _>>()?;
            let share = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect());
            Ok(Measured {
                phase: phase.name,
                rate: median(ours),
                peer_phase: peer,
                peer_rate: median(theirs),
                share,
                required: (!against).then_some(phase.required),
                aimed: (!against).then_some(phase.aimed),
            })
        })
        .collect()
}

/// Runs the payload and prints the table; true if every required share is reached.
///
/// # Errors
/// A simulator that is not there or does not end as it should.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let table = measure(arguments)?;
    match arguments.format {
        Format::Json => {
            println!("{}", serde_json::to_string_pretty(&table).map_err(|error| error.to_string())?);
        }
        Format::Text => print_text(&table, arguments.against.is_some()),
    }
    Ok(table.iter().all(Measured::kept))
}

fn print_text(table: &[Measured], against: bool) {
    let peer = if against { "earlier" } else { "QEMU TCG" };
    println!("per second of processor time; M = 10^6");
    println!("{:20} {:>10} {peer:>10} {:>7} {:>9} {:>7}", "phase", "rootmode", "share", "required", "aimed");
    let bound = |bound: Option<f64>| bound.map_or_else(String::new, |bound| format!("{bound:.2}"));
    for row in table {
        println!(
            "{:20} {:>9.2}M {:>9.2}M {:>7.2} {:>9} {:>7}{}",
            row.phase,
            row.rate / 1e6,
            row.peer_rate / 1e6,
            row.share,
            bound(row.required),
            bound(row.aimed),
            if row.kept() { "" } else { "  NOT REACHED" },
        );
    }
}

/// The rows of `rootmode-tests full`.
///
/// # Errors
/// As [`run`].
pub fn rows() -> Result<Vec<Row>, String> {
    let arguments = Arguments {
        quick: false,
        rounds: 3,
        only: Vec::new(),
        rootmode: None,
        against: None,
        format: Format::Text,
    };
    let row = |measured: &Measured| {
        Row::new(
            &format!("bench-{}", measured.phase.replace('_', "-")),
            &format!(
                "{:.2} M/s here, QEMU TCG's {} {:.2} M/s; share",
                measured.rate / 1e6,
                measured.peer_phase,
                measured.peer_rate / 1e6
            ),
            format!("{:.2}", measured.share),
            &format!("at least {:.2}", measured.required.unwrap_or_default()),
            measured.kept(),
        )
    };
    Ok(measure(&arguments)?.iter().map(row).collect())
}
