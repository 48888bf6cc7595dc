//! [`Outcome`]: what came of a case; the console's lines and the exit status as kvm-unit-tests gives them a meaning.

use serde::Serialize;

use crate::processor::Processor;

/// PASS, FAIL or SKIP. A skip is never a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Everything was as expected.
    Pass,
    /// Something was not.
    Fail,
    /// Nothing was tested; the reason is in [`Outcome::reason`].
    Skip,
}

/// Kinds of lines that the guest library prints (lib/report.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// As it should be.
    Pass,
    /// Not as it should be.
    Fail,
    /// A pass that was expected to fail: a failure.
    Xpass,
    /// A failure that was expected.
    Xfail,
    /// A failure that is known.
    Kfail,
    /// Not tested.
    Skip,
}

impl From<Verdict> for Kind {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Fail => Self::Fail,
            Verdict::Skip => Self::Skip,
        }
    }
}

/// A result line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Which.
    pub kind: Kind,
    /// The text behind the kind, without its end.
    pub text: String,
}

impl Line {
    /// Reads one line of the console.
    pub fn parse(line: &str) -> Option<Self> {
        let (kind, text) = line.trim_end().split_once(": ")?;
        let kind = match kind {
            "PASS" => Kind::Pass,
            "FAIL" => Kind::Fail,
            "XPASS" => Kind::Xpass,
            "XFAIL" => Kind::Xfail,
            "KFAIL" => Kind::Kfail,
            "SKIP" => Kind::Skip,
            _ => return None,
        };
        Some(Self { kind, text: text.to_owned() })
    }
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with the exit status that QEMU would have.
    Status(u8),
    /// After so many seconds it was still running.
    Timeout(u64),
    /// At this tick it was still running.
    Limit(u64),
    /// The machine stopped for a reason that no guest asks for.
    Stuck(String),
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The case's name.
    pub name: String,
    /// The processor that it was asked to run on.
    pub cpu: Processor,
    /// PASS, FAIL or SKIP.
    pub verdict: Verdict,
    /// Why it was skipped or failed, if the console does not say so.
    pub reason: Option<String>,
    /// The console's last summary.
    pub summary: Option<String>,
    /// What was asked for and ignored.
    pub notes: Vec<String>,
    /// Result lines of the console, in order.
    pub lines: Vec<Line>,
    /// The whole console.
    #[serde(skip)]
    pub console: String,
    /// Seconds that it took.
    pub seconds: f64,
    /// Ticks that the machine ran.
    pub ticks: u64,
}

impl Outcome {
    /// How many lines are of `kind`.
    pub fn count(&self, kind: Kind) -> usize {
        self.lines.iter().filter(|line| line.kind == kind).count()
    }
}

/// The verdict and its reason.
pub(super) fn judge(end: End, lines: &[Line]) -> (Verdict, Option<String>) {
    let failed = |reason: String| (Verdict::Fail, Some(reason));
    match end {
        End::Status(1) if lines.iter().any(|line| matches!(line.kind, Kind::Fail | Kind::Xpass)) => {
            failed("the exit status says success, the console does not".into())
        }
        // The guest library answers 77 if all was skipped; a guest that does not is held to the same.
        End::Status(1) if !lines.is_empty() && lines.iter().all(|line| line.kind == Kind::Skip) => {
            (Verdict::Skip, Some(lines[0].text.clone()))
        }
        End::Status(1) => (Verdict::Pass, None),
        End::Status(77) => {
            let first = lines.iter().find(|line| line.kind == Kind::Skip);
            (Verdict::Skip, Some(first.map_or_else(|| "all tests skipped".into(), |line| line.text.clone())))
        }
        End::Status(127) => failed("aborted".into()),
        End::Status(0) => failed("powered off without an exit status".into()),
        End::Status(3) if lines.iter().any(|line| line.kind == Kind::Fail) => (Verdict::Fail, None),
        End::Status(status) => failed(format!("exit status {status}")),
        End::Timeout(seconds) => failed(format!("timeout; duration={seconds}s")),
        End::Limit(ticks) => failed(format!("still running at tick {ticks}")),
        End::Stuck(stop) => failed(format!("the machine stopped: {stop}")),
    }
}
