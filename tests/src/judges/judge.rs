//! A run of one judge: generates the cases, has the machine and our rules judge them, compares, and counts.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::batch::Case;
use super::disagreements::{Comparison, Disagreement, Judged, compare, known};
use super::emulator::{Emulator, EmulatorError};
use super::reasons::Reasons;
use super::rom::Rom;
use super::rom_vmx::ExitHandlers;
use super::runner::{describe, run_cases};
use super::stanzas::StanzaError;
use super::transcript::{Outcome, Processor};
use super::verdict::{Verdict, Violation, of_svm, of_vmx, ours};
use super::vmx_bases::Bases;
use super::{rom_svm, rom_vmx, svm_cases, svm_rules, vmcb, vmcs, vmx_cases, vmx_rules};

/// Cases that a worker takes at a time.
const SLICE: u64 = 5000;

/// Unexplained disagreements of one kind that a run keeps as examples.
const EXAMPLES: usize = 3;

/// Which judge to run, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judge {
    /// Name in tables and in the file of disagreements.
    pub name: &'static str,
    /// Its machine.
    pub emulator: Emulator,
    /// Whose entries it judges.
    pub extension: Extension,
}

/// Whose entries are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Intel VMX.
    Vmx,
    /// AMD SVM.
    Svm,
}

/// Every judge.
pub const JUDGES: [Judge; 4] = [
    Judge { name: "bochs-skylake", emulator: Emulator::Bochs("corei7_skylake_x"), extension: Extension::Vmx },
    Judge { name: "bochs-tigerlake", emulator: Emulator::Bochs("tigerlake"), extension: Extension::Vmx },
    Judge { name: "bochs-ryzen", emulator: Emulator::Bochs("ryzen"), extension: Extension::Svm },
    Judge { name: "qemu-svm", emulator: Emulator::Qemu, extension: Extension::Svm },
];

/// A line of the summary: how a judge and our rules compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// The judge.
    pub name: &'static str,
    /// Cases that both judged.
    pub cases: u64,
    /// Cases that we could not judge, for lack of memory whose content is known.
    pub unjudged: u64,
    /// Of these, entries that the machine refused.
    pub refused: u64,
    /// Same verdict, and the machine's reason among our broken rules.
    pub agreed: u64,
    /// Known disagreements: how often each was met.
    pub explained: BTreeMap<String, u64>,
    /// Disagreements that nothing explains.
    pub unexplained: u64,
    /// How many there are of each kind, with the first few of it.
    pub examples: BTreeMap<String, (u64, Vec<Example>)>,
    /// In how many agreeing cases each rule decided: without it our verdict would have been another than the machine's.
    pub decisive: BTreeMap<String, u64>,
    /// Wall-clock time.
    pub seconds: f64,
}

/// An unexplained disagreement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Number of the case: with the run's seed, all that is needed to make it again.
    pub number: u64,
    /// The rules that we found broken.
    pub violations: Vec<Violation>,
    /// What the machine said.
    pub outcome: Outcome,
}

/// Why a judge could not be run.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The machine could not be run.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// The ROM could not be assembled.
    #[error("the ROM could not be assembled: {0}")]
    Rom(#[from] iced_x86::IcedError),
    /// The file of disagreements is malformed.
    #[error("tests/judges/disagreements.txt: {0}")]
    Disagreements(#[from] StanzaError),
    /// No folder for the machine's files.
    #[error("no temporary folder: {0}")]
    Scratch(#[from] std::io::Error),
}

/// One case of either extension: what the machine gets, and what our rules say.
struct Prepared {
    case: Case,
    /// `None` where our rules cannot judge, because nobody decided the memory that they ask for.
    violations: Option<Vec<Violation>>,
    facts: Vec<&'static str>,
}

/// What is the same for all cases of a run.
struct Setting {
    judge: Judge,
    rom: Rom,
    exits: ExitHandlers,
    processor: Processor,
    vmx: vmx_rules::Described,
    svm: rootmode_svm::Processor,
    zeroed: Vec<u32>,
    reasons: Reasons,
    known: Vec<Disagreement>,
    seed: u64,
}

impl Judge {
    /// Identifiers of the rules that the judge is asked about.
    #[must_use]
    pub fn rules(self) -> Vec<&'static str> {
        match self.extension {
            Extension::Vmx => rootmode_vmx::rules::RULES.iter().map(|rule| rule.id).collect(),
            Extension::Svm => rootmode_svm::rules::RULES.iter().map(|rule| rule.id).collect(),
        }
    }

    /// The judge called `name`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Judge> {
        JUDGES.into_iter().find(|judge| judge.name == name)
    }

    /// Whether the machine is Bochs, which gives reasons.
    #[must_use]
    pub fn is_bochs(self) -> bool {
        matches!(self.emulator, Emulator::Bochs(_))
    }

    /// The state of case `number` of `seed`, a line for each field that is not zero, and what our rules say.
    ///
    /// # Errors
    ///
    /// [`JudgeError`] when the machine cannot describe its processor.
    pub fn show(self, seed: u64, number: u64) -> Result<String, JudgeError> {
        let setting = Setting::new(self, seed)?;
        let mut lines: Vec<String> = Vec::new();
        match self.extension {
            Extension::Vmx => {
                let bases = Bases::new(&setting.processor, setting.exits);
                let launch = vmx_cases::generate(&bases, seed, number);
                for (encoding, value) in launch.vmcs.fields().into_iter().filter(|(_, value)| *value != 0) {
                    lines.push(format!("{} = {value:#x}", vmcs::name(encoding)));
                }
                lines.push(format!("{:?}", launch.way));
                lines.push(format!("PDPTEs {:x?}, MSRs {:x?}", launch.pdptes, launch.entry_msrs));
                lines
                    .push(format!("link revision {:x}, VTPR {:x}", launch.link_revision, launch.virtual_tpr));
            }
            Extension::Svm => {
                let run = svm_cases::generate(&setting.processor, seed, number);
                for (field, name) in vmcb::FIELDS {
                    lines.push(format!("{name} = {:#x}", run.vmcb.get(*field)));
                }
                lines.push(format!("PDPTEs {:x?}", run.pdptes));
            }
        }
        for violation in setting.prepare(number).violations.into_iter().flatten() {
            lines.push(format!("breaks {}", violation.rule));
        }
        Ok(lines.join("\n"))
    }

    /// Judges `cases` cases of `seed` with `jobs` machines at a time; `progress` gets the number of cases done.
    ///
    /// # Errors
    ///
    /// [`JudgeError`] when the machine cannot be run at all.
    pub fn run(
        self,
        cases: u64,
        seed: u64,
        jobs: usize,
        progress: impl Fn(u64) + Sync,
    ) -> Result<Tally, JudgeError> {
        let begin = Instant::now();
        let setting = Setting::new(self, seed)?;
        let next = AtomicU64::new(0);
        let done = AtomicU64::new(0);
        let tally = Mutex::new(Tally::new(self.name));
        let worker = || -> Result<(), JudgeError> {
            let scratch = tempfile::tempdir()?;
            loop {
                let first = next.fetch_add(SLICE, Ordering::Relaxed);
                if first >= cases {
                    return Ok(());
                }
                let numbers = first..cases.min(first + SLICE);
                let prepared: Vec<Prepared> = numbers.map(|number| setting.prepare(number)).collect();
                let plain: Vec<Case> = prepared.iter().map(|prepared| prepared.case.clone()).collect();
                let mut seen = 0;
                let outcomes =
                    run_cases(self.emulator, &setting.rom, &setting.zeroed, &plain, scratch.path(), |now| {
                        let now = now as u64;
                        progress(done.fetch_add(now - seen, Ordering::Relaxed) + now - seen);
                        seen = now;
                    })?;
                let mut tally = tally.lock().expect("no worker panics while it holds the tally");
                for (n, (prepared, outcome)) in prepared.into_iter().zip(outcomes).enumerate() {
                    tally.count(&setting, first + n as u64, prepared, outcome);
                }
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|handle| handle.join().expect("a worker does not panic"))
        })?;
        let mut tally = tally.into_inner().expect("all workers have ended");
        for (_, examples) in tally.examples.values_mut() {
            examples.sort_by_key(|example| example.number);
            examples.truncate(EXAMPLES);
        }
        tally.seconds = begin.elapsed().as_secs_f64();
        Ok(tally)
    }
}

impl Setting {
    fn new(judge: Judge, seed: u64) -> Result<Setting, JudgeError> {
        let (rom, exits) = match judge.extension {
            Extension::Vmx => rom_vmx::rom()?,
            Extension::Svm => (rom_svm::rom()?, ExitHandlers::default()),
        };
        let fields: Vec<u32> = match judge.extension {
            Extension::Vmx => vmcs::FIELDS.iter().map(|&(encoding, _)| encoding).collect(),
            Extension::Svm => Vec::new(),
        };
        let scratch = tempfile::tempdir()?;
        let processor = describe(judge.emulator, &rom, &fields, scratch.path())?;
        let zeroed = fields.into_iter().filter(|field| !processor.missing_fields.contains(field)).collect();
        let (vmx, svm) = (vmx_rules::describe(&processor), svm_rules::processor(&processor));
        let (reasons, known) = (Reasons::bochs(), known()?);
        Ok(Setting { judge, rom, exits, processor, vmx, svm, zeroed, reasons, known, seed })
    }

    fn prepare(&self, number: u64) -> Prepared {
        match self.judge.extension {
            Extension::Vmx => {
                let bases = Bases::new(&self.processor, self.exits);
                let launch = vmx_cases::generate(&bases, self.seed, number);
                let case = vmx_cases::case(&launch, &bases);
                let violations = vmx_rules::violations(&self.vmx, &launch, &case);
                Prepared { case, violations, facts: vmx_cases::facts(&launch) }
            }
            Extension::Svm => {
                let run = svm_cases::generate(&self.processor, self.seed, number);
                let violations = svm_rules::violations(&self.svm, &run);
                Prepared {
                    case: svm_cases::case(&run),
                    violations,
                    facts: svm_cases::facts(&self.processor, &run),
                }
            }
        }
    }
}

impl Tally {
    fn new(name: &'static str) -> Tally {
        Tally {
            name,
            cases: 0,
            unjudged: 0,
            refused: 0,
            agreed: 0,
            explained: BTreeMap::new(),
            unexplained: 0,
            examples: BTreeMap::new(),
            decisive: BTreeMap::new(),
            seconds: 0.0,
        }
    }

    fn count(&mut self, setting: &Setting, number: u64, prepared: Prepared, outcome: Outcome) {
        let judge = setting.judge;
        let verdict = match judge.extension {
            Extension::Vmx => of_vmx(&outcome),
            Extension::Svm => of_svm(&outcome),
        };
        let Some(violations) = prepared.violations else {
            self.unjudged += 1;
            return;
        };
        self.cases += 1;
        self.refused += u64::from(verdict != Verdict::Enters);
        let gives_reasons = matches!(judge.emulator, Emulator::Bochs(_));
        let rules_of = |line: &str| if gives_reasons { setting.reasons.rules_of(line) } else { None };
        let judged = Judged { violations: &violations, facts: &prepared.facts };
        match compare(&setting.known, judge.name, judged, verdict, &outcome, rules_of) {
            Comparison::Agrees => {
                self.agreed += 1;
                for violation in &violations {
                    if ours(violations.iter().filter(|other| *other != violation)) != verdict {
                        *self.decisive.entry(violation.rule.clone()).or_default() += 1;
                    }
                }
            }
            Comparison::Explained(name) => *self.explained.entry(name).or_default() += 1,
            Comparison::Unexplained(what) => {
                self.unexplained += 1;
                let rules: Vec<&str> = violations.iter().map(|v| v.rule.as_str()).collect();
                let reason = outcome.logged.iter().find(|line| rules_of(line).is_some());
                let reason = reason.map_or("", String::as_str);
                let kind = format!("{what}; broken: {}; its reason: {reason}", rules.join(" "));
                let (count, examples) = self.examples.entry(kind).or_default();
                *count += 1;
                examples.push(Example { number, violations, outcome });
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let explained: u64 = self.explained.values().sum();
        write!(
            f,
            "{:16} {:>8} cases {:>4} unjudged {:>8} refused {:>8} agreed {:>7} explained {:>5} unexplained {:>7.1} s",
            self.name,
            self.cases,
            self.unjudged,
            self.refused,
            self.agreed,
            explained,
            self.unexplained,
            self.seconds
        )
    }
}

impl std::fmt::Display for Example {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "case {}: {:x?}, logged {:?}", self.number, self.outcome.end, self.outcome.logged)
    }
}
