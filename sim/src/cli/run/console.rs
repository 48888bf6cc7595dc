//! The terminal as the guest's serial port: keys come one by one, and the terminal is as before when the run ends.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register;

use super::keys::{Key, Keys};

/// An interactive console on standard input. Dropping it restores the terminal, also when something panics.
pub(super) struct Console {
    before: Termios,
    keys: Keys,
    typed: Receiver<u8>,
    signals: Vec<(u8, Arc<AtomicBool>)>,
}

/// What was typed since the last call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// For the guest.
    pub(super) bytes: Vec<u8>,
    /// The machine is to end.
    pub(super) quit: bool,
    /// Show the commands.
    pub(super) help: bool,
}

impl Console {
    /// Takes over the terminal.
    ///
    /// # Errors
    /// The system's, if it is none.
    pub(super) fn open() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // What the guest prints goes on as before: a line feed begins a line.
        raw.output_modes = before.output_modes;
        debug_assert!(!raw.local_modes.contains(LocalModes::ISIG), "Ctrl-C is the guest's");
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        let (sender, typed) = channel();
        // Ends with the process: nothing can interrupt the read.
        std::thread::spawn(move || {
            let mut byte = [0];
            while let Ok(1) = std::io::stdin().read(&mut byte) {
                if sender.send(byte[0]).is_err() {
                    break;
                }
            }
        });
        let mut console = Self { before, keys: Keys::default(), typed, signals: Vec::new() };
        for signal in [SIGTERM, SIGHUP, SIGINT] {
            let flag = Arc::new(AtomicBool::new(false));
            register(signal, flag.clone())?;
            console.signals.push((signal as u8, flag));
        }
        Ok(console)
    }

    /// A signal that asked the process to end.
    pub(super) fn signal(&self) -> Option<u8> {
        self.signals.iter().find(|(_, flag)| flag.load(Ordering::Relaxed)).map(|(signal, _)| *signal)
    }

    /// What was typed, after waiting for it up to `wait`.
    pub(super) fn take(&mut self, wait: Duration) -> Typed {
        let mut typed = Typed::default();
        let mut next = if wait.is_zero() {
            self.typed.try_recv().map_err(|e| e == TryRecvError::Disconnected)
        } else {
            self.typed.recv_timeout(wait).map_err(|e| e == RecvTimeoutError::Disconnected)
        };
        loop {
            match next {
                Ok(byte) => match self.keys.press(byte) {
                    Some(Key::Byte(byte)) => typed.bytes.push(byte),
                    Some(Key::Quit) => typed.quit = true,
                    Some(Key::Help) => typed.help = true,
                    None => {}
                },
                // Nobody is left who could type.
                Err(true) => {
                    typed.quit = true;
                    return typed;
                }
                Err(false) => return typed,
            }
            next = self.typed.try_recv().map_err(|e| e == TryRecvError::Disconnected);
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
