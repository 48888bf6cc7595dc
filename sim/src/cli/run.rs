//! `rootmode run`: a machine with an image, its serial port on standard output, its exit status as QEMU's.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rootmode::machine::{Findings, Machine, Parts, describe, exit_status};
use rootmode::processor::Processor;
use rootmode_arch::choices::{Choices, Recorded, Recorder, Seeded, Tame, format_choices, parse_choices};
use rootmode_arch::record::{Payload, Stop};
use rootmode_arch::{Hardware, Site};
use rootmode_models::devices::pc::Configuration;

use super::{read_text, write_text};

/// Ticks between looks at the serial port. Where a run is cut never changes what happens.
const CHUNK: u64 = 200_000;

/// Run an image: a Multiboot kernel, an ELF64 executable, a flat binary, or firmware.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The image.
    image: Option<PathBuf>,
    /// Processor: a model (`rootmode cpu list`), then changes by commas: +FLAG, -FLAG, FLAG=on, FLAG=off, phys-bits=N.
    #[arg(long, default_value = "max-intel", value_name = "MODEL[,CHANGE...]")]
    cpu: String,
    /// Processors, 1 to 8.
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
    /// Where the serial port goes: `stdio`, or a file.
    #[arg(long, default_value = "stdio", value_name = "FILE")]
    serial: String,
    /// How the processor uses the latitude that the manuals leave. `hostile` also reports, on standard error, uses of
    /// translations that are stale where the manuals require an invalidation.
    #[arg(long, value_enum, default_value_t = HardwareArgument::Tame)]
    hardware: HardwareArgument,
    /// How the findings of hostile hardware are printed: two lines each, or a line of JSON.
    #[arg(long, value_enum, default_value_t)]
    format: super::Format,
    /// Stop at this tick.
    #[arg(long, value_name = "TICKS")]
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

/// Prints what hostile hardware found.
fn report(findings: &Findings, format: super::Format) -> miette::Result<()> {
    for record in findings.take() {
        if let Payload::Stale(stale) = &record.payload {
            match format {
                super::Format::Text => anstream::eprintln!("{}", describe(&record, stale)),
                super::Format::Json => {
                    let line = serde_json::to_string(&record);
                    anstream::eprintln!("{}", line.map_err(|e| miette::miette!("cannot encode JSON: {e}"))?);
                }
            }
        }
    }
    Ok(())
}

/// A size with an optional suffix.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim_end_matches(['b', 'B', 'i']) {
        t if t.ends_with(['k', 'K']) => (&t[..t.len() - 1], 10),
        t if t.ends_with(['m', 'M']) => (&t[..t.len() - 1], 20),
        t if t.ends_with(['g', 'G']) => (&t[..t.len() - 1], 30),
        t => (t, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "a number with an optional suffix K, M or G".to_string())?;
    let bytes = number.checked_mul(1 << shift).ok_or("too large")?;
    if bytes == 0 || bytes % 4096 != 0 { Err("must be a multiple of 4096, not 0".into()) } else { Ok(bytes) }
}

fn read(path: &PathBuf) -> miette::Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| miette::miette!("cannot read {}: {e}", path.display()))
}

pub(super) fn run(arguments: &Arguments) -> miette::Result<ExitCode> {
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
        name: arguments.image.as_ref().map_or_else(String::new, |path| path.display().to_string()),
    };
    let mut choices = source(arguments)?;
    let mut recording = None;
    if let Some(path) = &arguments.record_choices {
        let made = Made(Arc::new(Mutex::new(Recorder::new(choices))));
        choices = Box::new(made.clone());
        recording = Some((path, made));
    }
    let mut machine = Machine::new(&parts, choices).map_err(|e| miette::miette!("{e}"))?;
    let findings = Findings::default();
    if arguments.hardware == HardwareArgument::Hostile {
        machine.board.set_observer(Some(Box::new(findings.clone())));
    }
    let mut serial: Box<dyn std::io::Write> = if arguments.serial == "stdio" {
        Box::new(std::io::stdout())
    } else {
        let file = std::fs::File::create(&arguments.serial);
        Box::new(file.map_err(|e| miette::miette!("cannot create {}: {e}", arguments.serial))?)
    };
    let begin = Instant::now();
    let end = arguments.limit.unwrap_or(u64::MAX);
    let stopped = loop {
        let until = machine.board.now().saturating_add(CHUNK).min(end);
        let stopped = machine.run(until);
        let (text, console) = machine.take_output();
        if !text.is_empty() || !console.is_empty() {
            let written = serial.write_all(&text).and_then(|()| serial.write_all(&console));
            written.and_then(|()| serial.flush()).map_err(|e| miette::miette!("serial port: {e}"))?;
        }
        report(&findings, arguments.format)?;
        if stopped.stop != Stop::Limit || until == end {
            break stopped;
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    let ticks = stopped.tick;
    let rate = ticks as f64 / seconds / 1e6;
    anstream::eprintln!("rootmode: {:?} after {ticks} ticks, {seconds:.2} s, {rate:.1} MIPS", stopped.stop);
    if arguments.digest {
        anstream::eprintln!("digest {:032x}", machine.board.digest());
    }
    if let Some((path, made)) = recording {
        write_text(path, &format_choices(&made.recorder().list))?;
    }
    Ok(ExitCode::from(exit_status(stopped.stop)))
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
