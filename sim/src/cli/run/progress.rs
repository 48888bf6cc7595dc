//! A line about a run that takes longer than a second, on a terminal, never in the middle of what the guest prints.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// How long a run says nothing, and how often it says something afterwards.
const INTERVAL: Duration = Duration::from_secs(1);
/// Back to the line's begin; erase it.
const ERASE: &str = "\r\x1b[K";

/// The line.
pub(super) struct Progress {
    on: bool,
    shown: bool,
    last: Duration,
    /// The guest's last byte on this terminal ended a line.
    at_line_start: bool,
}

impl Progress {
    /// On standard error, if that is a terminal.
    pub(super) fn new() -> Self {
        let on = std::io::stderr().is_terminal();
        Self { on, shown: false, last: Duration::ZERO, at_line_start: true }
    }

    /// Whether the line is to be shown again, `elapsed` after the begin.
    fn is_due(&self, elapsed: Duration) -> bool {
        self.on && self.at_line_start && elapsed >= self.last + INTERVAL
    }

    /// Shows where the run is, if it is time.
    pub(super) fn show(&mut self, elapsed: Duration, tick: u64, limit: Option<u64>) {
        if self.is_due(elapsed) {
            self.last = elapsed;
            self.shown = true;
            eprint!("{ERASE}{}", line(elapsed, tick, limit));
            let _ = std::io::stderr().flush();
        }
    }

    /// Makes room for `text`, which the guest prints on the same terminal.
    pub(super) fn make_room(&mut self, text: &[u8]) {
        self.clear();
        if let Some(last) = text.last() {
            self.at_line_start = *last == b'\n';
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("{ERASE}");
        }
    }
}

fn line(elapsed: Duration, tick: u64, limit: Option<u64>) -> String {
    let seconds = elapsed.as_secs_f64();
    let share = limit.map(|limit| format!(" of {limit}, {:.0} %", tick as f64 * 100.0 / limit.max(1) as f64));
    format!(
        "{seconds:.0} s, {tick} ticks{}, {:.1} MIPS",
        share.unwrap_or_default(),
        tick as f64 / seconds / 1e6
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_waits_a_second_and_never_cuts_a_line_of_the_guest() {
        let mut progress = Progress { on: true, shown: false, last: Duration::ZERO, at_line_start: true };
        let at = |milliseconds| Duration::from_millis(milliseconds);
        assert!(!progress.is_due(at(999)) && progress.is_due(at(1000)));
        progress.last = at(1000);
        assert!(!progress.is_due(at(1999)) && progress.is_due(at(2000)));
        progress.make_room(b"login: ");
        assert!(!progress.is_due(at(9000)));
        progress.make_room(b"x\n");
        assert!(progress.is_due(at(9000)));
        progress.on = false;
        assert!(!progress.is_due(at(9000)), "no terminal, no line");
        assert_eq!(
            line(at(2000), 50_000_000, Some(200_000_000)),
            "2 s, 50000000 ticks of 200000000, 25 %, 25.0 MIPS"
        );
    }
}
