//! Who types, and signals to the process: inputs of a run that come from outside.

use std::time::Instant;

use rootmode::machine::System;
use rootmode_cpu::board::Stopped;

use super::watch::End;

/// The keyboard: open on a terminal.
pub(super) struct Keyboard {
    #[cfg(unix)]
    console: Option<super::console::Console>,
}

#[cfg(unix)]
impl Keyboard {
    /// Opens the console if the serial port is `stdio` and that is a terminal in both directions.
    pub(super) fn open(stdio: bool) -> miette::Result<Self> {
        use std::io::IsTerminal as _;
        if !stdio || !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return Ok(Self { console: None });
        }
        let console = super::console::Console::open();
        Ok(Self { console: Some(console.map_err(|e| miette::miette!("cannot set up the terminal: {e}"))?) })
    }

    /// Whether somebody may type.
    pub(super) const fn is_open(&self) -> bool {
        self.console.is_some()
    }

    /// Hands over what was typed while the machine ran to where it `stopped`. A guest that waits is not ahead of time.
    pub(super) fn serve(
        &mut self,
        machine: &mut dyn System,
        stopped: Stopped,
        begin: Instant,
    ) -> Option<End> {
        use rootmode_arch::record::Stop;
        use std::time::Duration;
        /// How often a waiting console looks for signals.
        const LOOK: Duration = Duration::from_millis(50);
        let console = self.console.as_mut()?;
        loop {
            if let Some(signal) = console.signal() {
                return Some(End::Signal(signal));
            }
            // A tick is a nanosecond; only what waits for time can be ahead of the clock on the wall.
            let ahead = Duration::from_nanos(stopped.tick).saturating_sub(begin.elapsed());
            let wait = match stopped.stop {
                Stop::Idle => LOOK,
                Stop::Limit => ahead.min(LOOK),
                _ => return None,
            };
            let typed = console.take(wait);
            if typed.help {
                eprint!("{}", super::keys::HELP);
            }
            if typed.quit {
                return Some(End::Console);
            }
            if !typed.bytes.is_empty() {
                machine.serial_input(&typed.bytes);
                return None;
            }
            if wait.is_zero() || stopped.stop == Stop::Limit && wait == ahead {
                return None;
            }
        }
    }
}

#[cfg(not(unix))]
impl Keyboard {
    /// There is no console on this system.
    pub(super) const fn open(_: bool) -> miette::Result<Self> {
        Ok(Self {})
    }
    /// Nobody types.
    pub(super) const fn is_open(&self) -> bool {
        false
    }
    /// Nothing was typed.
    pub(super) fn serve(&mut self, _: &mut dyn System, _: Stopped, _: Instant) -> Option<End> {
        None
    }
}
