//! Starts a judging machine (Debian's Bochs or QEMU) on a ROM and a batch, without a screen, and brings back its log.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::layout::{IMAGE, MEMORY_MIB};

/// A machine that judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulator {
    /// Debian's Bochs 2.7 with the named CPU model.
    Bochs(&'static str),
    /// Debian's QEMU 7.2 with TCG.
    Qemu,
}

/// Why a machine could not be run.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The program is not installed.
    #[error("{program} is not installed; install Debian's package {package}")]
    Missing {
        /// Name of the program.
        program: &'static str,
        /// Debian's package that brings it.
        package: &'static str,
    },
    /// A file could not be written or read, or the program could not be started.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The ROM never reached the first case.
    #[error("{emulator:?} stopped before the first case; the end of its log:\n{log_tail}")]
    DidNotStart {
        /// The machine.
        emulator: Emulator,
        /// The last lines that it wrote.
        log_tail: String,
    },
}

/// How long the log may stay as it is before the machine counts as stuck.
const STALL: Duration = Duration::from_secs(4);

/// The same after a panic, which Bochs is told to survive and usually does.
const STALL_AFTER_PANIC: Duration = Duration::from_millis(300);

const LOG: &str = "log.txt";

/// Runs a ROM `image` in the folder `scratch` and returns the machine's log.
///
/// The machine ends by itself after the last case, or when a case made it give up, or it is ended after its log has
/// not grown for some seconds.
///
/// # Errors
///
/// [`EmulatorError`] when the machine cannot be started or its log cannot be read.
pub fn run(emulator: Emulator, image: &[u8], scratch: &Path) -> Result<String, EmulatorError> {
    let mut command = match emulator {
        Emulator::Bochs(model) => bochs(model, scratch)?,
        Emulator::Qemu => qemu(),
    };
    write(scratch, "rom.bin", image)?;
    write(scratch, LOG, b"")?;
    let child = command
        .current_dir(scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => missing(emulator),
            _ => io_error("start the emulator", source),
        })?;
    wait(child, &scratch.join(LOG))?;
    let log = fs::read(scratch.join(LOG)).map_err(|source| io_error("read the emulator's log", source))?;
    Ok(String::from_utf8_lossy(&log).into_owned())
}

fn missing(emulator: Emulator) -> EmulatorError {
    match emulator {
        Emulator::Bochs(_) => EmulatorError::Missing { program: "bochs", package: "bochs" },
        Emulator::Qemu => {
            EmulatorError::Missing { program: "qemu-system-x86_64", package: "qemu-system-x86" }
        }
    }
}

fn io_error(what: &str, source: io::Error) -> EmulatorError {
    EmulatorError::Io { what: what.to_owned(), source }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), EmulatorError> {
    fs::write(folder.join(name), bytes).map_err(|source| io_error(&format!("write {name}"), source))
}

fn bochs(model: &str, scratch: &Path) -> Result<Command, EmulatorError> {
    let configuration = format!(
        "display_library: rfb, options=\"timeout=0\"\n\
         megs: {MEMORY_MIB}\n\
         cpu: model={model}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1\n\
         romimage: file=rom.bin, address={IMAGE:#x}\n\
         vgaromimage: file=vga.bin\n\
         log: {LOG}\n\
         panic: action=fatal, cpu0=report\n\
         error: action=report\n\
         info: action=report\n\
         debug: action=ignore\n\
         speaker: enabled=0\n\
         sound: waveoutdrv=dummy\n"
    );
    write(scratch, "bochsrc", configuration.as_bytes())?;
    write(scratch, "vga.bin", &video_rom())?;
    // Debian's build has the debugger, which waits for this command.
    write(scratch, "go", b"c\n")?;
    let mut command = Command::new("bochs");
    command.args(["-q", "-f", "bochsrc", "-rc", "go"]);
    Ok(command)
}

/// A video ROM that does nothing, with the signature and the checksum that Bochs insists on.
fn video_rom() -> Vec<u8> {
    let mut rom = vec![0u8; 512];
    rom[..4].copy_from_slice(&[0x55, 0xAA, 1, 0xCB]);
    let sum = rom.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    rom[511] = sum.wrapping_neg();
    rom
}

fn qemu() -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-cpu", "max,+svm", "-bios", "rom.bin", "-display", "none", "-no-reboot"]);
    command.args(["-nodefaults", "-m", &MEMORY_MIB.to_string()]);
    command.args([
        "-chardev",
        "file,id=log,path=log.txt",
        "-device",
        "isa-debugcon,iobase=0x402,chardev=log",
    ]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    command
}

/// Whether the last lines of `log` hold a panic of Bochs.
fn ends_with_panic(log: &Path) -> Result<bool, EmulatorError> {
    let text = fs::read(log).map_err(|source| io_error("read the emulator's log", source))?;
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(400)..]);
    Ok(tail.contains(">>PANIC<<"))
}

/// Waits until the machine ends by itself, or ends it when `log` has not grown for [`STALL`].
fn wait(mut child: Child, log: &Path) -> Result<(), EmulatorError> {
    let mut size = 0;
    let mut grown = Instant::now();
    loop {
        if child.try_wait().map_err(|source| io_error("wait for the emulator", source))?.is_some() {
            return Ok(());
        }
        let now = fs::metadata(log).map_or(0, |metadata| metadata.len());
        if now != size {
            size = now;
            grown = Instant::now();
        } else if grown.elapsed() > STALL || grown.elapsed() > STALL_AFTER_PANIC && ends_with_panic(log)? {
            child.kill().map_err(|source| io_error("end the emulator", source))?;
            child.wait().map_err(|source| io_error("wait for the emulator", source))?;
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
}
