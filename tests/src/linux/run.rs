//! Runs a machine or QEMU as a process of its own, and measures its processor time.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde::Deserialize;

/// What `rootmode run --format json` says at its end.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Summary {
    pub(super) ticks: u64,
    pub(super) exits: u64,
    pub(super) refused_entries: u64,
    #[serde(default)]
    pub(super) digest: Option<String>,
}

/// What a process left behind.
#[derive(Debug)]
pub(super) struct Ended {
    /// The exit status, if it ended by itself.
    pub(super) status: Option<i32>,
    /// Of the processor, user and system.
    pub(super) seconds: f64,
    pub(super) output: String,
    pub(super) errors: String,
}

impl Ended {
    pub(super) fn summary(&self) -> Result<Summary, String> {
        let last = self.errors.lines().last().unwrap_or_default();
        serde_json::from_str(last).map_err(|error| format!("no summary ({error}): {}", self.errors.trim()))
    }
}

/// Runs `command` to its end. What it prints goes to the file `log`, where it can be read meanwhile.
pub(super) fn run(command: &mut Command, log: &Path) -> Result<Ended, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |what: &dyn std::fmt::Display| format!("{name}: {what}");
    let unwritten = |error| format!("{}: {error}", log.display());
    let file = File::create(log).map_err(unwritten)?;
    let spawned = command.stdin(Stdio::null()).stdout(file).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("cannot run {name}: {error}"))?;
    let mut errors = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut errors).map_err(|error| failed(&error))?;
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|error| failed(&error))?);
    // The process's clock is there until somebody has taken its status.
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).map_err(|error| failed(&error))?;
    let time = clock_getcpuclockid(pid).and_then(nix::time::ClockId::now).map_err(|error| failed(&error))?;
    let status = child.wait().map_err(|error| failed(&error))?;
    let seconds = time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9;
    let output = std::fs::read(log).map_err(unwritten)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { status: status.code(), seconds, output: text(&output), errors: text(&errors) })
}
