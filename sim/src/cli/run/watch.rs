//! What a run says on standard error: refused entries, findings of hostile hardware, and the summary.

use std::time::Duration;

use rootmode::explain::{Refusals, Refused};
use rootmode::machine::{Findings, System, describe, describe_held, describe_trusted, exit_status};
use rootmode_arch::record::{Payload, Stop};
use rootmode_cpu::board::Stopped;
use serde::Serialize;

use super::progress::Progress;
use crate::cli::Format;
use crate::cli::explain::broken;

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// By itself.
    Stopped(Stopped),
    /// Somebody typed Ctrl-A x.
    Console,
    /// A signal asked the process to end.
    Signal(u8),
}

/// What is watched, and how it is told.
pub(super) struct Watched {
    pub(super) findings: Findings,
    pub(super) refusals: Refusals,
    pub(super) format: Format,
    pub(super) explain: bool,
}

impl Watched {
    /// Tells what is new.
    pub(super) fn report(&self, progress: &mut Progress) -> miette::Result<()> {
        for refused in self.refusals.take() {
            progress.clear();
            match self.format {
                Format::Json => line(&refused)?,
                Format::Text => tell(&refused, self.explain),
            }
        }
        for record in self.findings.take() {
            progress.clear();
            match (&record.payload, self.format) {
                (Payload::Stale(stale), Format::Text) => anstream::eprintln!("{}", describe(&record, stale)),
                (Payload::Trusted(trusted), Format::Text) => {
                    anstream::eprintln!("{}", describe_trusted(&record, trusted));
                }
                (Payload::Held(held), Format::Text) => {
                    anstream::eprintln!("{}", describe_held(&record, held));
                }
                (Payload::Stale(_) | Payload::Trusted(_) | Payload::Held(_), Format::Json) => line(&record)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn tell(refused: &Refused, explain: bool) {
    if !explain {
        return anstream::eprintln!("{}", refused.line());
    }
    anstream::eprintln!("{}", refused.place());
    for (position, rule) in refused.broken.iter().enumerate() {
        anstream::eprintln!("{}", broken(position + 1, rule));
    }
}

/// A line of JSON.
fn line(value: &impl Serialize) -> miette::Result<()> {
    let text = serde_json::to_string(value).map_err(|e| miette::miette!("cannot encode JSON: {e}"))?;
    anstream::eprintln!("{text}");
    Ok(())
}

/// What came of a run.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Why it ended.
    stop: Option<Stop>,
    /// The process's exit status.
    pub(super) status: u8,
    ticks: u64,
    seconds: f64,
    /// Millions of ticks a second.
    mips: f64,
    /// How often guests of a hypervisor were left: the image's own guests, or those of the host that it runs on.
    exits: u64,
    /// How many entries to them were refused.
    refused_entries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip)]
    why: String,
}

impl Summary {
    pub(super) fn new(
        end: End,
        machine: &dyn System,
        watched: &Watched,
        elapsed: Duration,
        digest: bool,
    ) -> Self {
        let (stop, status, why) = match end {
            End::Stopped(stopped) => (
                Some(stopped.stop),
                exit_status(stopped.stop),
                match machine.trouble() {
                    Some(trouble) => trouble.to_owned(),
                    None => format!("{:?}", stopped.stop),
                },
            ),
            End::Console => (None, 0, "ended at the console".into()),
            // As a shell reports it.
            End::Signal(signal) => (None, 128_u8.saturating_add(signal), format!("ended by signal {signal}")),
        };
        let (ticks, seconds) = (machine.now(), elapsed.as_secs_f64());
        Self {
            stop,
            status,
            ticks,
            seconds,
            mips: ticks as f64 / seconds / 1e6,
            exits: machine.exits().unwrap_or_else(|| watched.refusals.exits()),
            refused_entries: watched.refusals.count(),
            digest: digest.then(|| format!("{:032x}", machine.digest())),
            why,
        }
    }

    pub(super) fn print(&self, format: Format) -> miette::Result<()> {
        if format == Format::Json {
            return line(self);
        }
        let Self { why, ticks, seconds, mips, exits, refused_entries, .. } = self;
        let refused = if *refused_entries == 0 {
            String::new()
        } else {
            format!(", {refused_entries} entries refused")
        };
        anstream::eprintln!(
            "rootmode: {why} after {ticks} ticks, {seconds:.2} s, {mips:.1} MIPS, {exits} exits{refused}"
        );
        if let Some(digest) = &self.digest {
            anstream::eprintln!("digest {digest}");
        }
        Ok(())
    }
}
