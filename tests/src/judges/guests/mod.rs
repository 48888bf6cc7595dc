//! Generated guests on two machines: Debian's Bochs 2.7 (VMX, SVM) or QEMU 7.2 TCG (SVM), and this simulator.
//!
//! The same ROM boots on each and runs one guest after the other: random controls, events, registers and instructions
//! ([`code`], [`vmx`], [`svm`]). What comes back (exit reason and information, the guest's state, its memory) must be the same
//! here as there; what differs is settled in `tests/judges/guests.txt` by a section of the manual, or is open.

pub mod code;
pub mod command;
pub mod here;
pub mod layout;
pub mod rom;
pub mod settled;
pub mod svm;
pub mod vmx;

use std::collections::BTreeMap;

use iced_x86::IcedError;

use self::code::Guest;
use self::command::Peer;
use self::settled::Settled;
use super::batch::{encode, frame_bytes};
use super::emulator::{EmulatorError, run};
use super::judge::{Extension, JudgeError};
use super::layout::BATCH_SIZE;
use super::rom::Rom;
use super::transcript::{Processor, read as read_transcript};

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
    /// Guests by the number of the exit that they ended with here.
    pub exits: BTreeMap<u64, u64>,
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

/// The processors of both machines, which have the same features.
pub struct Peers {
    /// Ours.
    pub ours: Processor,
    /// The judging machine's.
    pub theirs: Processor,
}

impl Extension {
    /// The names of what is printed of a guest, in order: its exit's number first.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        match self {
            Self::Vmx => vmx::names(),
            Self::Svm => svm::names(),
        }
    }

    /// The bits of each value that the architecture defines after an exit with `report`.
    fn defined(self, report: &[u64]) -> Vec<u64> {
        match self {
            Self::Vmx => vmx::defined(report),
            Self::Svm => svm::defined(report),
        }
    }

    /// Makes guest `number` of the run with `seed`.
    ///
    /// # Errors
    ///
    /// When iced-x86 cannot encode an instruction, which would be a fault of this module.
    pub fn guest(self, peers: &Peers, seed: u64, number: u64) -> Result<Guest, IcedError> {
        match self {
            Self::Vmx => vmx::generate(peers, seed, number),
            Self::Svm => svm::generate(seed, number),
        }
    }
}

/// RFLAGS.RF, above which a report's RFLAGS have nothing.
const RF: u64 = 1 << 16;

/// What differs between our report and theirs.
#[must_use]
pub fn differences(extension: Extension, ours: &Report, theirs: &Report) -> Vec<String> {
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        let side = |report: &Report| if report.is_some() { "goes-on" } else { "stops" };
        return vec![format!("end:{}/{}", side(ours), side(theirs))];
    };
    let (ours_mask, theirs_mask) = (extension.defined(ours), extension.defined(theirs));
    let names = extension.names();
    let code = |report: &[u64]| report[0] & 0xffff_ffff;
    if code(ours) != code(theirs) {
        // The rest follows.
        return vec![format!("{}:{:x}/{:x}", names[0], code(ours), code(theirs))];
    }
    let differs = |n: usize| (ours[n] ^ theirs[n]) & (ours_mask[n] | theirs_mask[n]) != 0;
    let last = names.len() - 1;
    names
        .into_iter()
        .enumerate()
        .filter(|(n, _)| differs(*n))
        // The whole stack says more only if the rest of it is the same.
        .filter(|(_, name)| *name != "stack" || !differs(last))
        .map(|(n, name)| {
            let (ours, theirs) = (ours[n] & ours_mask[n], theirs[n] & theirs_mask[n]);
            if name == "RFLAGS" && ours ^ theirs == RF {
                // That flag is a matter of its own.
                return format!("RF:{:x}/{:x}", ours / RF, theirs / RF);
            }
            format!("{name}:{ours:x}/{theirs:x}")
        })
        .collect()
}

/// What a log says of each guest, `count` values, in order of their identifiers from `first`.
fn read(log: &str, first: u32, count: usize) -> Vec<Report> {
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
    reports.into_iter().map(|values| (values.len() == count).then_some(values)).collect()
}

/// Runs `guests` on `machine`, which prints a log for a batch, `count` values a guest; a guest that ends a machine is run once more
/// on a fresh one.
fn reports<E>(
    guests: &[Guest],
    count: usize,
    rom: &Rom,
    mut machine: impl FnMut(&[u8]) -> Result<String, E>,
) -> Result<Vec<Report>, E> {
    let mut all: Vec<Report> = Vec::with_capacity(guests.len());
    while all.len() < guests.len() {
        let first = all.len();
        let mut room = BATCH_SIZE - frame_bytes(0);
        let fitting = guests[first..].iter().take_while(|guest| {
            let fits = guest.case.encoded_bytes() <= room;
            room = if guest.is_last { 0 } else { room.saturating_sub(guest.case.encoded_bytes()) };
            fits
        });
        let batch = encode(&[], fitting.enumerate().map(|(n, guest)| ((first + n) as u32, &guest.case)));
        let mut seen = read(&machine(&rom.image(&batch))?, first as u32, count);
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

/// A guest that ran on both machines.
pub struct Ran {
    /// The guest.
    pub guest: Guest,
    /// What it left here.
    pub ours: Report,
    /// What it left there.
    pub theirs: Report,
}

/// Runs guests `numbers` of `seed` on `peer`'s machine and here.
///
/// # Errors
///
/// [`JudgeError`] when the machine cannot be run.
pub fn ran(peer: Peer, seed: u64, numbers: std::ops::Range<u64>) -> Result<Vec<Ran>, JudgeError> {
    let extension = peer.extension();
    let scratch = tempfile::tempdir()?;
    let rom = rom::rom(extension)?;
    let empty = rom.image(&encode(&[], []));
    let theirs = read_transcript(&run(peer.emulator(), &empty, scratch.path())?).processor;
    let features = here::common(extension, &theirs.features());
    let ours = read_transcript(&here::run(extension, &empty, features)).processor;
    let peers = Peers { ours, theirs };
    let guests: Vec<Guest> = numbers.map(|n| extension.guest(&peers, seed, n)).collect::<Result<_, _>>()?;
    let count = extension.names().len();
    let theirs = reports(&guests, count, &rom, |image| run(peer.emulator(), image, scratch.path()))?;
    let ours =
        reports(&guests, count, &rom, |image| Ok::<_, EmulatorError>(here::run(extension, image, features)))?;
    let both = ours.into_iter().zip(theirs);
    Ok(guests.into_iter().zip(both).map(|(guest, (ours, theirs))| Ran { guest, ours, theirs }).collect())
}

/// Runs guests `numbers` of `seed` on `peer`'s machine and here, and compares.
///
/// # Errors
///
/// [`JudgeError`] when the machine cannot be run.
pub fn compare(peer: Peer, seed: u64, numbers: std::ops::Range<u64>) -> Result<Tally, JudgeError> {
    let known = settled::settled()?;
    let mut tally = Tally::default();
    for (number, ran) in numbers.clone().zip(ran(peer, seed, numbers)?) {
        tally.count(peer, &known, number, &ran);
    }
    Ok(tally)
}

impl Tally {
    fn count(&mut self, peer: Peer, known: &[Settled], number: u64, ran: &Ran) {
        let Ran { guest, ours, theirs } = ran;
        self.cases += 1;
        if let Some(report) = ours {
            *self.exits.entry(report[0] & 0xffff_ffff).or_default() += 1;
        }
        let differences = differences(peer.extension(), ours, theirs);
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
                let stanza = known.iter().find(|stanza| stanza.explains(peer.name(), &facts, difference));
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
                    Some((name, _)) if !matches!(name, "EXITCODE" | "REASON" | "end") => name.to_owned(),
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
        let exits: Vec<String> =
            self.exits.iter().map(|(code, count)| format!("{code:x}: {count}")).collect();
        write!(f, "\n  {} different exits ({})", exits.len(), exits.join(", "))?;
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
