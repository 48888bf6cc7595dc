//! Generated SVM guests on three machines: Debian's Bochs 2.7, QEMU 7.2 TCG, and this simulator.
//!
//! The same ROM boots on each and runs one guest after the other: random intercepts, events, registers and instructions
//! ([`draw`]). What comes back (exit code and information, the guest's state, its memory) must be the same here as there; what
//! differs is settled in `tests/judges/guests.txt` by a section of the manual, or is open.

pub mod command;
pub mod draw;
pub mod here;
pub mod layout;
pub mod rom;
pub mod settled;

use std::collections::BTreeMap;

use self::draw::Guest;
use self::layout::{RESULT_NAMES, VMCB_FIELDS};
use self::settled::Settled;
use super::batch::{Case, encode, frame_bytes};
use super::emulator::{Emulator, EmulatorError, run};
use super::judge::JudgeError;
use super::layout::BATCH_SIZE;
use super::rom::Rom;
use super::transcript::read as read_transcript;

/// What a machine printed of a guest; `None`: it stopped.
pub type Report = Option<Vec<u64>>;

/// Examples that are kept of each open difference.
const EXAMPLES: usize = 3;

/// How a machine and this simulator compared.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Guests that both ran.
    pub cases: u64,
    /// Guests of which everything was the same.
    pub agreed: u64,
    /// Guests all of whose differences are settled, by the first that is.
    pub explained: BTreeMap<String, u64>,
    /// Numbers of the others, by their open differences.
    pub open: BTreeMap<String, Vec<u64>>,
}

impl Tally {
    /// Guests with an open difference.
    #[must_use]
    pub fn unexplained(&self) -> u64 {
        self.open.values().map(|numbers| numbers.len() as u64).sum()
    }
}

/// The names of what is printed, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    VMCB_FIELDS.iter().map(|(_, name)| *name).chain(RESULT_NAMES.iter().copied())
}

/// The bits of each value that the architecture defines after an exit with `report`.
fn defined(report: &[u64]) -> Vec<u64> {
    let code = report[0] & 0xffff_ffff;
    let all = u64::MAX;
    // Exit information without decode assists: error codes, addresses, ports, MSRs.
    let (info1, info2) = match code {
        0x4a..=0x4d | 0x51 => (all, 0),
        0x4e => (all, all),
        0x400 => (0x3_0000_001f, all),
        0x7b => (0xffff_1ffd, all),
        0x7c => (all, 0),
        _ => (0, 0),
    };
    // After a failed VMRUN nothing of the guest is written; after a shutdown its state is undefined.
    let state = if matches!(code, 0xffff_ffff | 0x7f) { 0 } else { all };
    let interrupted = report[3];
    let event = match (interrupted >> 31 & 1, interrupted >> 11 & 1) {
        (0, _) => 1 << 31,
        (_, 0) => 0x8000_0fff,
        _ => 0xffff_ffff_8000_0fff,
    };
    names()
        .map(|name| match name {
            "EXITCODE" => 0xffff_ffff,
            "EXITINFO1" => info1,
            "EXITINFO2" => info2,
            "EXITINTINFO" => event & state,
            // V_TPR and V_IRQ.
            "VINTR" => 0x10f & state,
            "SHADOW" => 1 & state,
            "EVENTINJ" => 1 << 31 & state,
            "CS" | "SS" => 0xffff & state,
            // The limit is in the upper half.
            "GDTR.LIMIT" | "IDTR.LIMIT" => 0xffff << 32 & state,
            // CPL is byte 3 of these eight.
            "CPL" => 0x0300_0000 & state,
            "CR0" => !0x10 & state,
            _ => state,
        })
        .collect()
}

/// What differs between our report and theirs.
#[must_use]
pub fn differences(ours: &Report, theirs: &Report) -> Vec<String> {
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        let side = |report: &Report| if report.is_some() { "goes-on" } else { "stops" };
        return vec![format!("end:{}/{}", side(ours), side(theirs))];
    };
    let (ours_mask, theirs_mask) = (defined(ours), defined(theirs));
    let code = |report: &[u64]| report[0] & 0xffff_ffff;
    if code(ours) != code(theirs) {
        // The rest follows.
        return vec![format!("EXITCODE:{:x}/{:x}", code(ours), code(theirs))];
    }
    let differs = |n: usize| (ours[n] ^ theirs[n]) & (ours_mask[n] | theirs_mask[n]) != 0;
    let last = names().count() - 1;
    names()
        .enumerate()
        .filter(|(n, _)| differs(*n))
        // The whole stack says more only if the rest of it is the same.
        .filter(|(_, name)| *name != "stack" || !differs(last))
        .map(|(n, name)| format!("{name}:{:x}/{:x}", ours[n] & ours_mask[n], theirs[n] & theirs_mask[n]))
        .collect()
}

/// What a log says of each guest, in order of their identifiers from `first`.
fn read(log: &str, first: u32) -> Vec<Report> {
    let mut reports: Vec<Vec<u64>> = Vec::new();
    for line in log.lines() {
        let text = line.split_once("[BIOS  ] ").map_or(line, |(_, text)| text);
        let mut words = text.split_ascii_whitespace();
        let kind = words.next();
        let numbers: Option<Vec<u64>> = words.map(|word| u64::from_str_radix(word, 16).ok()).collect();
        let Some(numbers) = numbers else { continue };
        match kind {
            Some("B") if numbers == [u64::from(first) + reports.len() as u64] => reports.push(Vec::new()),
            Some("V") if numbers.len() == 1 => {
                if let Some(last) = reports.last_mut() {
                    last.extend(numbers);
                }
            }
            _ => {}
        }
    }
    let count = names().count();
    reports.into_iter().map(|values| (values.len() == count).then_some(values)).collect()
}

/// Runs `cases` on `machine`, which prints a log for a batch; a guest that ends a machine is run once more on a fresh one.
fn reports<E>(
    cases: &[Case],
    rom: &Rom,
    mut machine: impl FnMut(&[u8]) -> Result<String, E>,
) -> Result<Vec<Report>, E> {
    let mut all: Vec<Report> = Vec::with_capacity(cases.len());
    while all.len() < cases.len() {
        let first = all.len();
        let mut room = BATCH_SIZE - frame_bytes(0);
        let fitting = cases[first..].iter().take_while(|case| {
            let fits = case.encoded_bytes() <= room;
            room = room.saturating_sub(case.encoded_bytes());
            fits
        });
        let batch = encode(&[], fitting.enumerate().map(|(n, case)| ((first + n) as u32, case)));
        let mut seen = read(&machine(&rom.image(&batch))?, first as u32);
        if seen.len() > 1 && seen.last().is_some_and(Option::is_none) {
            seen.pop();
        }
        if seen.is_empty() {
            seen.push(None);
        }
        all.extend(seen);
    }
    Ok(all)
}

/// Runs guests `numbers` of `seed` on `emulator`, called `peer`, and here.
///
/// # Errors
///
/// [`JudgeError`] when the machine cannot be run.
pub fn compare(
    emulator: Emulator,
    peer: &str,
    seed: u64,
    numbers: std::ops::Range<u64>,
) -> Result<Tally, JudgeError> {
    let scratch = tempfile::tempdir()?;
    let known = settled::settled()?;
    let rom = rom::rom()?;
    let empty = run(emulator, &rom.image(&encode(&[], [])), scratch.path())?;
    let features = here::common(&read_transcript(&empty).processor.features());
    let guests: Vec<Guest> = numbers.clone().map(|n| draw::generate(seed, n)).collect::<Result<_, _>>()?;
    let cases: Vec<Case> = guests.iter().map(|guest| guest.case.clone()).collect();
    let theirs = reports(&cases, &rom, |image| run(emulator, image, scratch.path()))?;
    let ours = reports(&cases, &rom, |image| Ok::<_, EmulatorError>(here::run(image, features)))?;
    let mut tally = Tally::default();
    for (number, ((guest, ours), theirs)) in numbers.zip(guests.iter().zip(&ours).zip(&theirs)) {
        tally.count(peer, &known, number, guest, ours, theirs);
    }
    Ok(tally)
}

impl Tally {
    fn count(
        &mut self,
        peer: &str,
        known: &[Settled],
        number: u64,
        guest: &Guest,
        ours: &Report,
        theirs: &Report,
    ) {
        self.cases += 1;
        let differences = differences(ours, theirs);
        if differences.is_empty() {
            self.agreed += 1;
            return;
        }
        let mut facts: Vec<String> = guest.facts.iter().map(|fact| (*fact).to_owned()).collect();
        for (who, report) in [("ours", ours), ("theirs", theirs)] {
            if let Some(report) = report {
                facts.push(format!("{who}-{:x}", report[0] & 0xffff_ffff));
            }
        }
        let mut first = None;
        let open: Vec<&str> = differences
            .iter()
            .filter(|difference| {
                let stanza = known.iter().find(|stanza| stanza.explains(peer, &facts, difference));
                first = first.take().or(stanza.map(|stanza| stanza.name.clone()));
                stanza.is_none()
            })
            .map(String::as_str)
            .collect();
        match (open.is_empty(), first) {
            (true, Some(name)) => *self.explained.entry(name).or_default() += 1,
            _ => {
                // Values belong to the example, not to the kind.
                let kind = |difference: &&str| match difference.split_once(':') {
                    Some((name, _)) if name != "EXITCODE" && name != "end" => name.to_owned(),
                    _ => (*difference).to_owned(),
                };
                let kinds: Vec<String> = open.iter().map(kind).collect();
                self.open.entry(kinds.join(" ")).or_default().push(number);
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let explained: u64 = self.explained.values().sum();
        let Self { cases, agreed, .. } = self;
        write!(f, "{cases} guests, {agreed} agreed, {explained} settled, {} open", self.unexplained())?;
        for (name, count) in &self.explained {
            write!(f, "\n  {count:>6} settled: {name}")?;
        }
        for (kind, numbers) in &self.open {
            let shown: Vec<String> = numbers.iter().take(EXAMPLES).map(u64::to_string).collect();
            write!(f, "\n  {:>6} open: {kind}; guests {}", numbers.len(), shown.join(" "))?;
        }
        Ok(())
    }
}
