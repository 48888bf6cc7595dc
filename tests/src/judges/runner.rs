//! Runs any number of cases on a judging machine, in batches, and starts it again after a case that ended it.

use std::path::Path;

use super::batch::{Case, encode, frame_bytes};
use super::emulator::{Emulator, EmulatorError, run};
use super::layout::BATCH_SIZE;
use super::rom::Rom;
use super::transcript::{End, Outcome, Processor, read};

/// Boots the machine without a case and returns the processor that it describes.
///
/// `fields` are the encodings of the VMCS fields that the cases may write; an AMD machine gets none.
///
/// # Errors
///
/// [`EmulatorError`] when the machine cannot be run or does not reach the end of the empty batch.
pub fn describe(
    emulator: Emulator,
    rom: &Rom,
    fields: &[u32],
    scratch: &Path,
) -> Result<Processor, EmulatorError> {
    let log = run(emulator, &rom.image(&encode(fields, [])), scratch)?;
    let transcript = read(&log);
    if transcript.finished { Ok(transcript.processor) } else { Err(did_not_start(emulator, &log)) }
}

/// Runs every case and returns one outcome each, in order; `zeroed` fields are zero where a case does not name them.
///
/// `progress` is called with the number of cases done after each machine.
///
/// # Errors
///
/// [`EmulatorError`] when the machine cannot be run.
pub fn run_cases(
    emulator: Emulator,
    rom: &Rom,
    zeroed: &[u32],
    cases: &[Case],
    scratch: &Path,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Outcome>, EmulatorError> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(cases.len());
    while outcomes.len() < cases.len() {
        let first = outcomes.len();
        let mut room = BATCH_SIZE - frame_bytes(zeroed.len());
        let fitting = cases[first..].iter().take_while(|case| {
            let fits = case.encoded_bytes() <= room;
            room = room.saturating_sub(case.encoded_bytes());
            fits
        });
        let batch = encode(zeroed, fitting.enumerate().map(|(n, case)| ((first + n) as u32, case)));
        let log = run(emulator, &rom.image(&batch), scratch)?;
        let seen = read(&log).outcomes;
        // An identifier out of order means that a case damaged the machine: what follows is not its verdict.
        let in_order = seen.into_iter().zip(first as u32..).take_while(|(outcome, id)| outcome.id == *id);
        outcomes.extend(in_order.map(|(outcome, _)| outcome));
        // A case counts as lost only if it loses a fresh machine: earlier cases may have prepared its end.
        if outcomes.len() > first + 1 && outcomes.last().is_some_and(|last| last.end == End::Lost) {
            outcomes.pop();
        }
        if outcomes.len() == first {
            return Err(did_not_start(emulator, &log));
        }
        progress(outcomes.len());
    }
    Ok(outcomes)
}

/// Whether the outcome says that the guest was entered: any exit that is not a failed entry.
#[must_use]
pub fn entered(end: End) -> bool {
    matches!(end, End::Exit { reason, .. } if reason >> 31 & 1 == 0)
}

fn did_not_start(emulator: Emulator, log: &str) -> EmulatorError {
    let lines: Vec<&str> = log.lines().collect();
    let log_tail = lines[lines.len().saturating_sub(30)..].join("\n");
    EmulatorError::DidNotStart { emulator, log_tail }
}
