//! `rootmode run`: a machine with an image, its serial port on standard output, its exit status as QEMU's.

#[cfg(unix)]
mod console;
mod keyboard;
#[cfg(unix)]
mod keys;
mod progress;
mod watch;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use progress::Progress;
use rootmode::explain::Refusals;
use rootmode::hosted::Hosted;
use rootmode::machine::{Findings, Machine, Parts, System};
use rootmode::processor::Processor;
use rootmode_arch::choices::{Choices, Recorded, Recorder, Seeded, Tame, format_choices, parse_choices};
use rootmode_arch::record::Stop;
use rootmode_arch::{Hardware, Site};
use rootmode_models::devices::pc::Configuration;

use keyboard::Keyboard;
use watch::{End, Summary, Watched};

use super::{read_text, write_text};

/// Ticks between looks at the serial port. Where a run is cut never changes what happens.
const CHUNK: u64 = 200_000;

/// Run an image: a Multiboot, Linux or PVH kernel, an ELF64 executable, a flat binary, or firmware.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The image.
    image: Option<PathBuf>,
    /// Processor: a model (`rootmode cpu list`), then changes by commas: +FLAG, -FLAG, FLAG=on, FLAG=off, phys-bits=N.
    #[arg(long, default_value = "max-intel", value_name = "MODEL[,CHANGE...]")]
    cpu: String,
    /// Run the image as a guest of the model of KVM on such a processor: what `KVM_GET_SUPPORTED_CPUID` lists is what it
    /// finds, interrupt controllers and timer are in the model's kernel, all else is as without. A hypervisor is nested.
    #[arg(long, conflicts_with = "bios")]
    hosted: bool,
    /// Processors, 1 to 64.
    #[arg(long, default_value_t = 1, value_name = "N")]
    cpus: u8,
    /// RAM: bytes, or with a suffix K, M or G.
    #[arg(long, default_value = "128M", value_parser = size)]
    memory: u64,
    /// The kernel's command line.
    #[arg(long, default_value = "", value_name = "TEXT", allow_hyphen_values = true)]
    append: String,
    /// Initial RAM disk.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Firmware at the reset vector.
    #[arg(long, value_name = "FILE")]
    bios: Option<PathBuf>,
    /// Where the serial port goes: `stdio`, or a file. On a terminal, `stdio` is interactive; Ctrl-A x ends the machine.
    #[arg(long, default_value = "stdio", value_name = "FILE")]
    serial: String,
    /// How the processor uses the latitude that the manuals leave. `hostile` also reports, on standard error, uses of
    /// translations that are stale where the manuals require an invalidation.
    #[arg(long, value_enum, default_value_t = HardwareArgument::Tame)]
    hardware: HardwareArgument,
    /// How the summary, refused entries and the findings of hostile hardware are printed on standard error: for people, or
    /// a line of JSON each, the summary last.
    #[arg(long, value_enum, default_value_t)]
    format: super::Format,
    /// Print every broken rule of a VM entry or VMRUN that the processor refuses, with values and nearest valid ones, instead
    /// of one line.
    #[arg(long)]
    explain: bool,
    /// Stop at this tick; also with a suffix K, M or G, of 1000.
    #[arg(long, value_name = "TICKS", value_parser = super::ticks)]
    limit: Option<u64>,
    /// Draw choices from this seed; without it every choice is the tamest.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Replay the choices in FILE (one `site n k` a line).
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    choices: Option<PathBuf>,
    /// Write every choice that was made to FILE.
    #[arg(long, value_name = "FILE")]
    record_choices: Option<PathBuf>,
    /// Print the digest of the final state.
    #[arg(long)]
    digest: bool,
}

/// `--hardware`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum HardwareArgument {
    Tame,
    Hostile,
}

impl From<HardwareArgument> for Hardware {
    fn from(argument: HardwareArgument) -> Self {
        match argument {
            HardwareArgument::Tame => Self::Tame,
            HardwareArgument::Hostile => Self::Hostile,
        }
    }
}

/// A size with an optional suffix.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let bytes = super::suffixed(text.trim_end_matches(['b', 'B', 'i']), 1024)?;
    if bytes == 0 || bytes % 4096 != 0 { Err("must be a multiple of 4096, not 0".into()) } else { Ok(bytes) }
}

fn read(path: &PathBuf) -> miette::Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| miette::miette!("cannot read {}: {e}", path.display()))
}

pub(super) fn run(arguments: &Arguments) -> miette::Result<ExitCode> {
    let refusals = Refusals::default();
    let parts = Parts {
        cpu: Processor::parse(&arguments.cpu).map_err(|e| miette::miette!("--cpu {}: {e}", arguments.cpu))?,
        configuration: Configuration {
            processors: arguments.cpus,
            memory: arguments.memory,
            command_line: arguments.append.clone(),
            initrd: arguments.initrd.as_ref().map(read).transpose()?.unwrap_or_default(),
            ..Configuration::default()
        },
        firmware: arguments.bios.as_ref().map(read).transpose()?,
        image: arguments.image.as_ref().map(read).transpose()?,
        hardware: arguments.hardware.into(),
        watch: Some(refusals.watch()),
        name: arguments.image.as_ref().map_or_else(String::new, |path| path.display().to_string()),
    };
    let mut choices = source(arguments)?;
    let mut recording = None;
    if let Some(path) = &arguments.record_choices {
        let made = Made(Arc::new(Mutex::new(Recorder::new(choices))));
        choices = Box::new(made.clone());
        recording = Some((path, made));
    }
    let findings = Findings::default();
    let mut machine = system(arguments, &parts, choices, &findings)?;
    let watched = Watched { findings, refusals, format: arguments.format, explain: arguments.explain };
    let begin = Instant::now();
    let end = drive(arguments, &mut *machine, &watched, begin)?;
    let summary = Summary::new(end, &*machine, &watched, begin.elapsed(), arguments.digest);
    summary.print(arguments.format)?;
    if let Some((path, made)) = recording {
        write_text(path, &format_choices(&made.recorder().list))?;
    }
    Ok(ExitCode::from(summary.status))
}

/// What runs the image.
fn system(
    arguments: &Arguments,
    parts: &Parts,
    choices: Box<dyn Choices + Send>,
    findings: &Findings,
) -> miette::Result<Box<dyn System>> {
    if arguments.hosted {
        let hosted = Hosted::new(parts, choices).map_err(|e| miette::miette!("--hosted: {e}"))?;
        return Ok(Box::new(hosted));
    }
    let mut machine = Machine::new(parts, choices).map_err(|e| miette::miette!("{e}"))?;
    if arguments.hardware == HardwareArgument::Hostile {
        machine.board.set_observer(Some(Box::new(findings.clone())));
    }
    Ok(Box::new(machine))
}

/// Runs the machine until it stops or somebody ends it; the terminal is as before when this returns.
fn drive(
    arguments: &Arguments,
    machine: &mut dyn System,
    watched: &Watched,
    begin: Instant,
) -> miette::Result<End> {
    let stdio = arguments.serial == "stdio";
    let mut serial: Box<dyn std::io::Write> = if stdio {
        Box::new(std::io::stdout())
    } else {
        let file = std::fs::File::create(&arguments.serial);
        Box::new(file.map_err(|e| miette::miette!("cannot create {}: {e}", arguments.serial))?)
    };
    let mut progress = Progress::new();
    let mut keyboard = Keyboard::open(stdio)?;
    let limit = arguments.limit.unwrap_or(u64::MAX);
    loop {
        let until = machine.now().saturating_add(CHUNK).min(limit);
        let stopped = machine.run(until);
        let (text, console) = machine.take_output();
        if !text.is_empty() || !console.is_empty() {
            if stdio {
                progress.make_room(&text);
                progress.make_room(&console);
            }
            let written = serial.write_all(&text).and_then(|()| serial.write_all(&console));
            written.and_then(|()| serial.flush()).map_err(|e| miette::miette!("serial port: {e}"))?;
        }
        watched.report(&mut progress)?;
        progress.show(begin.elapsed(), stopped.tick, arguments.limit);
        match keyboard.serve(machine, stopped, begin) {
            Some(end) => {
                progress.clear();
                return Ok(end);
            }
            None if stopped.stop == Stop::Limit && until < limit => {}
            // Whoever types may wake what is halted.
            None if stopped.stop == Stop::Idle && keyboard.is_open() => {}
            None => {
                progress.clear();
                return Ok(End::Stopped(stopped));
            }
        }
    }
}

/// Where choices come from.
fn source(arguments: &Arguments) -> miette::Result<Box<dyn Choices + Send>> {
    Ok(match (&arguments.choices, arguments.seed) {
        (Some(path), _) => {
            let list = parse_choices(&read_text(path)?);
            Box::new(Recorded::new(list.map_err(|e| miette::miette!("{}: {e}", path.display()))?))
        }
        (None, Some(seed)) => Box::new(Seeded::new(seed)),
        (None, None) => Box::new(Tame),
    })
}

/// The choices that a machine made, kept for after its run.
#[derive(Clone)]
struct Made(Arc<Mutex<Recorder<Box<dyn Choices + Send>>>>);

impl Made {
    fn recorder(&self) -> std::sync::MutexGuard<'_, Recorder<Box<dyn Choices + Send>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Choices for Made {
    fn choose(&mut self, site: Site, n: u64) -> u64 {
        self.recorder().choose(site, n)
    }
    /// A copy starts a recording of its own.
    fn copy(&self) -> Option<Box<dyn Choices + Send>> {
        self.recorder().copy()
    }
}
