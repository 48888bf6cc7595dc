//! `rootmode-tests fuzz`: whatever a guest runs, the simulator neither panics nor hangs.
//!
//! A case is a whole machine with random registers in one of the processor's modes. Every step puts a valid encoding of a
//! random form, or random bytes, where the processor is about to execute, and runs one tick. What is counted as reached is
//! a form that was executed and did not raise #UD.

mod case;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use iced_x86::Code;
use rootmode_arch::Vendor;

use crate::table::Row;
use case::Rig;

/// A case that takes longer hangs. Usual ones take a millisecond.
const HANG: Duration = Duration::from_secs(30);
/// Share of the forms that must be reached.
const REQUIRED: f64 = 0.95;

/// Arguments of `rootmode-tests fuzz`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// How long to run.
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u64,
    /// Seed: case N of a seed is the same case on every machine.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Run this case alone.
    #[arg(long, value_name = "N")]
    case: Option<u64>,
    /// Workers; by default one a processor.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// List the forms that were not reached.
    #[arg(long)]
    list: bool,
}

/// What a run showed.
#[derive(Debug)]
struct Report {
    cases: u64,
    steps: u64,
    panics: Vec<(u64, String)>,
    known: usize,
    missed: Vec<(Vendor, Code)>,
}

impl Report {
    fn reached(&self) -> f64 {
        (self.known - self.missed.len()) as f64 / self.known as f64
    }

    fn holds(&self) -> bool {
        self.panics.is_empty() && self.reached() >= REQUIRED
    }
}

/// Case `number` is of this vendor's processor.
const fn vendor(number: u64) -> Vendor {
    if number.is_multiple_of(2) { Vendor::Intel } else { Vendor::Amd }
}

/// Runs cases until time is up. A case that hangs ends the program, because nothing else can end the case.
fn fuzz(arguments: &Arguments) -> Result<Report, String> {
    let workers =
        arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let workers = if arguments.case.is_some() { 1 } else { workers.max(1) };
    let next = AtomicU64::new(arguments.case.unwrap_or(0));
    let steps = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let covered = Mutex::new([BTreeSet::new(), BTreeSet::new()]);
    let panics = Mutex::new(Vec::new());
    let running: Vec<Mutex<Option<(u64, Instant)>>> = (0..workers).map(|_| Mutex::new(None)).collect();
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    // Finding the forms decodes all of the opcode space: once a vendor.
    let forms = [Rig::new(Vendor::Intel, None)?.forms(), Rig::new(Vendor::Amd, None)?.forms()];
    let rig = |vendor: Vendor| Rig::new(vendor, Some(Arc::clone(&forms[usize::from(vendor == Vendor::Amd)])));
    // Panics are reported with their case, once.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let worker = |slot: &Mutex<Option<(u64, Instant)>>| -> Result<(), String> {
        let mut rigs = [rig(Vendor::Intel)?, rig(Vendor::Amd)?];
        let mut reached = [BTreeSet::new(), BTreeSet::new()];
        let only = arguments.case.is_some();
        let mut first = true;
        while first || !only && Instant::now() < end {
            first = false;
            let number = next.fetch_add(1, Ordering::Relaxed);
            *lock(slot) = Some((number, Instant::now()));
            let index = usize::from(vendor(number) == Vendor::Amd);
            let run = || rigs[index].run(arguments.seed, number, &mut reached[index]);
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(count) => {
                    steps.fetch_add(count, Ordering::Relaxed);
                }
                Err(payload) => {
                    let text = payload.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    lock(&panics).push((number, text.unwrap_or_else(|| "a panic without a text".to_owned())));
                    rigs[index] = rig(vendor(number))?;
                }
            }
            *lock(slot) = None;
        }
        for (all, of_worker) in lock(&covered).iter_mut().zip(reached) {
            all.extend(of_worker);
        }
        Ok(())
    };
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                for slot in &running {
                    if let Some((number, since)) = *lock(slot)
                        && since.elapsed() > HANG
                    {
                        eprintln!(
                            "rootmode-tests: case {number} hangs: fuzz --seed {} --case {number}",
                            arguments.seed
                        );
                        std::process::exit(1);
                    }
                }
            }
        });
        let threads: Vec<_> = running.iter().map(|slot| scope.spawn(|| worker(slot))).collect();
        let results = threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a worker ended".into())));
        let result = results.collect::<Result<Vec<()>, String>>();
        done.store(true, Ordering::Relaxed);
        result
    });
    std::panic::set_hook(hook);
    result?;
    let covered = lock(&covered).clone();
    let known: [BTreeSet<Code>; 2] =
        forms.each_ref().map(|forms| forms.iter().flatten().map(|(code, _)| *code).collect());
    let missed = |vendor, index: usize| {
        known[index].difference(&covered[index]).map(move |code| (vendor, *code)).collect::<Vec<_>>()
    };
    let panics = lock(&panics).clone();
    Ok(Report {
        cases: next.load(Ordering::Relaxed) - arguments.case.unwrap_or(0),
        steps: steps.load(Ordering::Relaxed),
        panics,
        known: known[0].len() + known[1].len(),
        missed: [missed(Vendor::Intel, 0), missed(Vendor::Amd, 1)].concat(),
    })
}

/// What a worker that panicked left in a mutex is whole: nothing is left half done under a lock.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Fuzzes and prints what was reached; true if nothing panicked and enough was reached.
///
/// # Errors
/// A machine that cannot be built.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let report = fuzz(arguments)?;
    for (number, text) in &report.panics {
        println!("case {number} panics: {text}\n  fuzz --seed {} --case {number}", arguments.seed);
    }
    if arguments.list {
        for (vendor, code) in &report.missed {
            println!("not reached: {vendor:?} {code:?}");
        }
    }
    println!(
        "{} cases, {} instructions; {} of {} forms of both vendors reached without #UD ({:.1} %); {} panics",
        report.cases,
        report.steps,
        report.known - report.missed.len(),
        report.known,
        100.0 * report.reached(),
        report.panics.len()
    );
    Ok(if arguments.case.is_some() { report.panics.is_empty() } else { report.holds() })
}

/// The row of `rootmode-tests full`: ten minutes.
///
/// # Errors
/// A machine that cannot be built.
pub fn rows() -> Result<Vec<Row>, String> {
    let arguments = Arguments { seconds: 600, seed: 1, case: None, jobs: None, list: false };
    let report = fuzz(&arguments)?;
    let reached = report.known - report.missed.len();
    Ok(vec![Row::new(
        "fuzz",
        "random machines in every mode, valid encodings and random bytes, for 600 s",
        format!(
            "{} cases, {} instructions, {reached} of {} forms reached, {} panics",
            report.cases,
            report.steps,
            report.known,
            report.panics.len()
        ),
        "95 % of the forms, no panic, no hang",
        report.holds(),
    )])
}
