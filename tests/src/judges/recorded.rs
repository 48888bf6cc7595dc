//! Verdicts of judging machines, recorded: `tests/judges/golden-NAME.txt`, to be judged again without the machine.
//!
//! A file starts with what the ROM printed about the processor (`M`, `P`, `U` as in [`transcript`](super::transcript)),
//! then `L TEXT` names what the machine logged, and each line `C` is a case: the number of the case that it is told from,
//! how it ended (`F flags error`, `X reason qualification`, `?` lost), `W` with the number of the way of launching if it
//! is not the usual one, `L` with the numbers of the logged lines, and the values that differ: `key=value`, keys of memory words with `@`; a value that is gone is zero.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::batch::{Case, Way};
use super::emulator::EmulatorError;
use super::judge::{Extension, Judge, JudgeError};
use super::layout::{CONTROL_REGION, GUEST_PAE_TABLE};
use super::rom_vmx::ExitHandlers;
use super::runner::{describe, run_cases};
use super::svm_cases::Run;
use super::transcript::{End, Outcome, Processor, read};
use super::verdict::Violation;
use super::vmx_bases::{Bases, Launch};
use super::{rom_svm, rom_vmx, svm_cases, svm_rules, vmcb, vmcs, vmx_cases, vmx_rules};

/// The recorded files, by judge.
pub const FILES: [(&str, &str); 4] = [
    ("bochs-skylake", include_str!("../../judges/golden-bochs-skylake.txt")),
    ("bochs-tigerlake", include_str!("../../judges/golden-bochs-tigerlake.txt")),
    ("bochs-ryzen", include_str!("../../judges/golden-bochs-ryzen.txt")),
    ("qemu-svm", include_str!("../../judges/golden-qemu-svm.txt")),
];

/// What a judge said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Its processor.
    pub processor: Processor,
    /// Every case with its end.
    pub cases: Vec<(Case, Outcome)>,
}

/// Values of a case by key: `(false, encoding)` or `(true, address)`.
type Values = BTreeMap<(bool, u32), u64>;

fn values(case: &Case) -> Values {
    let fields = case.fields.iter().map(|&(encoding, value)| ((false, encoding), value));
    let pokes = case.pokes.iter().map(|&(address, value)| ((true, address), value));
    fields.chain(pokes).filter(|(_, value)| *value != 0).collect()
}

/// Ways of launching by their number.
const WAYS: [Way; 5] = [Way::Launch, Way::Resume, Way::AfterMovSs, Way::WithoutVmcs, Way::Legacy];

fn case_of(values: &Values, way: Way) -> Case {
    let of = |memory| {
        values.iter().filter(move |((m, _), _)| *m == memory).map(|((_, key), v)| (*key, *v)).collect()
    };
    Case { pokes: of(true), fields: of(false), way }
}

/// The launch behind a recorded case, as far as our rules and the facts read it.
#[must_use]
pub fn launch(case: &Case) -> Launch {
    let mut vmcs = vmcs::Vmcs::zeroed();
    for &(encoding, value) in &case.fields {
        vmcs.set(encoding, value);
    }
    Launch { vmcs, link_revision: 0, virtual_tpr: 0, pdptes: [0; 4], entry_msrs: [(0, 0); 2], way: case.way }
}

/// The run behind a recorded case.
#[must_use]
pub fn svm_run(case: &Case) -> Run {
    let mut run = Run { vmcb: vmcb::Vmcb::zeroed(), pdptes: [0; 4] };
    for &(address, value) in &case.pokes {
        let address = u64::from(address);
        match address.checked_sub(CONTROL_REGION) {
            Some(offset) if offset < 4096 => {
                run.vmcb.set(vmcb::Field { offset: offset as usize, bits: 64 }, value);
            }
            _ => run.pdptes[((address - GUEST_PAE_TABLE) / 8) as usize] = value,
        }
    }
    run
}

/// Reads a file.
///
/// # Errors
/// The number of the first line that cannot be understood.
pub fn parse(text: &str) -> Result<Recorded, String> {
    let lines = || text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    let about = |line: &&str| matches!(line.split(' ').next(), Some("M" | "P" | "U"));
    let printed: Vec<&str> = text.lines().filter(about).collect();
    let mut recorded = Recorded { processor: read(&printed.join("\n")).processor, cases: Vec::new() };
    let logged: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("L ")).collect();
    let mut known: Vec<Values> = Vec::new();
    for (number, line) in lines().filter(|(_, line)| line.starts_with("C ")) {
        let read = read_case(line, &known, &logged).ok_or_else(|| format!("line {}: {line}", number + 1))?;
        let id = known.len() as u32;
        recorded
            .cases
            .push((case_of(&read.values, read.way), Outcome { id, end: read.end, logged: read.logged }));
        known.push(read.values);
    }
    Ok(recorded)
}

/// A line of a case.
struct CaseLine {
    values: Values,
    way: Way,
    end: End,
    logged: Vec<String>,
}

fn read_case(line: &str, known: &[Values], logged: &[&str]) -> Option<CaseLine> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut words = line.split(' ').skip(1);
    let from = words.next()?;
    let mut values =
        if from == "-" { Values::new() } else { known.get(from.parse::<usize>().ok()?)?.clone() };
    let end = match words.next()? {
        "F" => End::Failed { flags: hex(words.next()?)?, error: hex(words.next()?)? },
        "X" => End::Exit { reason: hex(words.next()?)?, qualification: hex(words.next()?)? },
        "?" => End::Lost,
        _ => return None,
    };
    let mut reasons = Vec::new();
    let mut way = Way::Launch;
    for word in words {
        if let Some(number) = word.strip_prefix('L') {
            reasons.push((*logged.get(number.parse::<usize>().ok()?)?).to_owned());
            continue;
        }
        if let Some(number) = word.strip_prefix('W') {
            way = *WAYS.get(number.parse::<usize>().ok()?)?;
            continue;
        }
        let (key, value) = word.split_once('=')?;
        let key = match key.strip_prefix('@') {
            Some(address) => (true, hex(address)? as u32),
            None => (false, hex(key)? as u32),
        };
        match hex(value)? {
            0 => values.remove(&key),
            value => values.insert(key, value),
        };
    }
    Some(CaseLine { values, way, end, logged: reasons })
}

/// The file of a recording.
#[must_use]
pub fn text(judge: &str, recorded: &Recorded) -> String {
    let mut text = format!(
        "# What {judge} said, recorded by `rootmode-tests judge --record`; see tests/src/judges/recorded.rs.\n"
    );
    let processor = &recorded.processor;
    for (index, value) in &processor.msrs {
        let _ = writeln!(text, "M {index:x} {value:x}");
    }
    for ((leaf, subleaf), [eax, ebx, ecx, edx]) in &processor.cpuid {
        let _ = writeln!(text, "P {leaf:x} {subleaf:x} {eax:x} {ebx:x} {ecx:x} {edx:x}");
    }
    for encoding in &processor.missing_fields {
        let _ = writeln!(text, "U {encoding:x}");
    }
    let mut logged: Vec<&str> = Vec::new();
    let mut cases = String::new();
    let mut known: Vec<Values> = Vec::new();
    for (case, outcome) in &recorded.cases {
        let values = values(case);
        let differing = |other: &Values| {
            let gone = other.keys().filter(|key| !values.contains_key(key)).map(|key| (*key, 0));
            let new = values.iter().filter(|(key, value)| other.get(key) != Some(value));
            new.map(|(key, value)| (*key, *value)).chain(gone).collect::<Values>()
        };
        let nearest = known.iter().map(&differing).enumerate().min_by_key(|(_, differing)| differing.len());
        let (from, differing) =
            nearest.map_or_else(|| ("-".to_owned(), values.clone()), |(from, d)| (from.to_string(), d));
        let _ = write!(cases, "C {from} ");
        let _ = match outcome.end {
            End::Failed { flags, error } => write!(cases, "F {flags:x} {error:x}"),
            End::Exit { reason, qualification } => write!(cases, "X {reason:x} {qualification:x}"),
            End::Lost => write!(cases, "?"),
        };
        if case.way != Way::Launch {
            let _ = write!(cases, " W{}", case.way as u8);
        }
        for line in &outcome.logged {
            let number = logged.iter().position(|known| known == line).unwrap_or_else(|| {
                logged.push(line);
                logged.len() - 1
            });
            let _ = write!(cases, " L{number}");
        }
        for ((memory, key), value) in differing {
            let _ = write!(cases, " {}{key:x}={value:x}", if memory { "@" } else { "" });
        }
        cases.push('\n');
        known.push(values);
    }
    for line in logged {
        let _ = writeln!(text, "L {line}");
    }
    text + &cases
}

/// Cases of one set of broken rules that are kept.
const OF_ONE_RULE: usize = 6;
const OF_SEVERAL: usize = 1;
const OF_NONE: usize = 150;

/// Has the machine judge up to `keep` of the first `candidates` cases of a seed, as different as can be, and records what
/// it said.
///
/// # Errors
/// [`JudgeError`] when the machine cannot be run.
pub fn record(judge: Judge, candidates: u64, keep: usize) -> Result<Recorded, JudgeError> {
    const SEED: u64 = 0x601d;
    let vmx = judge.extension == Extension::Vmx;
    let (rom, exits) = if vmx { rom_vmx::rom()? } else { (rom_svm::rom()?, ExitHandlers::default()) };
    let fields: Vec<u32> = if vmx { vmcs::FIELDS.iter().map(|&(f, _)| f).collect() } else { Vec::new() };
    let scratch = tempfile::tempdir()?;
    let processor = describe(judge.emulator, &rom, &fields, scratch.path())?;
    let (of_vmx, of_svm) = (vmx_rules::describe(&processor), svm_rules::processor(&processor));
    let mut seen: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    let mut cases = Vec::new();
    for number in 0..candidates {
        if cases.len() == keep {
            break;
        }
        let case = if vmx {
            let bases = Bases::new(&processor, exits);
            vmx_cases::case(&vmx_cases::generate(&bases, SEED, number), &bases)
        } else {
            svm_cases::case(&svm_cases::generate(&processor, SEED, number))
        };
        let case = case_of(&values(&case), case.way);
        let violations = if vmx {
            vmx_rules::violations(&of_vmx, &launch(&case), &case)
        } else {
            svm_rules::violations(&of_svm, &svm_run(&case))
        };
        let Some(violations) = violations else { continue };
        let rules: Vec<String> = violations.into_iter().map(|Violation { rule, .. }| rule).collect();
        let most = match rules.len() {
            0 => OF_NONE,
            1 => OF_ONE_RULE,
            _ => OF_SEVERAL,
        };
        let count = seen.entry(rules).or_default();
        *count += 1;
        if *count <= most {
            cases.push(case);
        }
    }
    let missing = |field: &u32| processor.missing_fields.contains(field);
    let zeroed: Vec<u32> = fields.into_iter().filter(|field| !missing(field)).collect();
    let outcomes = ask(judge, &rom, &zeroed, &cases, scratch.path())?;
    Ok(Recorded { processor, cases: cases.into_iter().zip(outcomes).collect() })
}

/// What the machine says of `cases`. Words of memory that a case leaves zero are stored as such.
fn ask(
    judge: Judge,
    rom: &super::rom::Rom,
    zeroed: &[u32],
    cases: &[Case],
    scratch: &std::path::Path,
) -> Result<Vec<Outcome>, EmulatorError> {
    let mut words: Vec<u32> =
        cases.iter().flat_map(|case| case.pokes.iter().map(|(address, _)| *address)).collect();
    words.sort_unstable();
    words.dedup();
    // A word of the control region need not be cleared: the ROM clears the region for each case.
    let region = CONTROL_REGION as u32..CONTROL_REGION as u32 + 4096;
    words.retain(|word| !region.contains(word));
    let full = |case: &Case| {
        let absent = words.iter().filter(|word| !case.pokes.iter().any(|(address, _)| address == *word));
        let mut pokes: Vec<(u32, u64)> = absent.map(|word| (*word, 0)).collect();
        pokes.extend(&case.pokes);
        Case { pokes, fields: case.fields.clone(), way: case.way }
    };
    let full: Vec<Case> = cases.iter().map(full).collect();
    run_cases(judge.emulator, rom, zeroed, &full, scratch, |_| {})
}
