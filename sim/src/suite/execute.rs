//! Runs cases on threads, and answers in the list's order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rootmode_arch::Hardware;
use rootmode_arch::choices::Tame;
use rootmode_arch::record::Stop;
use rootmode_models::devices::pc::Configuration;

use super::Case;
use super::case::Launch;
use super::outcome::{End, Line, Outcome, Verdict, judge};
use crate::hosted::Hosted;
use crate::machine::{Machine, Parts, System, exit_status};

/// Ticks between looks at the clock on the wall.
const CHUNK: u64 = 1_000_000;

/// Runs `cases` on `jobs` threads, each until `limit` ticks at most. `done` gets every outcome in the cases' order, as soon
/// as all before it are there; `started` hears of each case that begins, from any thread.
pub fn execute(
    cases: &[Case],
    jobs: usize,
    limit: u64,
    started: impl Fn(&Case) + Sync,
    mut done: impl FnMut(Outcome),
) {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, cases.len().max(1)) {
            let (sender, next, started) = (sender.clone(), &next, &started);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { break };
                    started(case);
                    // The receiver lives as long as this scope.
                    let _ = sender.send((index, run(case, limit)));
                }
            });
        }
        drop(sender);
        let (mut waiting, mut turn) = (BTreeMap::new(), 0);
        for (index, outcome) in receiver {
            waiting.insert(index, outcome);
            while let Some(outcome) = waiting.remove(&turn) {
                done(outcome);
                turn += 1;
            }
        }
    });
}

fn run(case: &Case, limit: u64) -> Outcome {
    let mut outcome = Outcome {
        name: case.name.clone(),
        cpu: case.cpu.clone(),
        verdict: Verdict::Skip,
        reason: case.skipped.clone(),
        summary: None,
        notes: Vec::new(),
        lines: Vec::new(),
        console: String::new(),
        seconds: 0.0,
        ticks: 0,
    };
    let Some(launch) = &case.setup else { return outcome };
    outcome.notes.clone_from(&launch.qemu.notes);
    let mut machine = match build(launch) {
        Ok(machine) => machine,
        // What upstream calls a premature failure.
        Err(reason) => {
            outcome.reason = Some(reason);
            return outcome;
        }
    };
    let begin = Instant::now();
    let mut console = Vec::new();
    let end = watch(&mut *machine, launch, limit, begin, &mut console);
    outcome.seconds = begin.elapsed().as_secs_f64();
    outcome.ticks = machine.now();
    outcome.console = String::from_utf8_lossy(&console).into_owned();
    outcome.lines = outcome.console.lines().filter_map(Line::parse).collect();
    // Upstream looks at the last five lines.
    let last = outcome.console.lines().rev().take(5).find_map(|line| line.strip_prefix("SUMMARY: "));
    outcome.summary = last.map(|text| text.trim_end().to_owned());
    (outcome.verdict, outcome.reason) = judge(end, &outcome.lines);
    outcome
}

fn build(launch: &Launch) -> Result<Box<dyn System>, String> {
    let name = launch.image.display().to_string();
    let parts = Parts {
        cpu: launch.qemu.cpu.clone(),
        configuration: Configuration {
            processors: launch.processors,
            memory: launch.qemu.memory,
            command_line: launch.command_line.clone(),
            initrd: launch.environment.clone().into_bytes(),
            ..Configuration::default()
        },
        hardware: Hardware::default(),
        firmware: None,
        watch: None,
        image: Some(std::fs::read(&launch.image).map_err(|e| format!("cannot read {name}: {e}"))?),
        name,
    };
    if launch.hosted {
        return Ok(Box::new(Hosted::new(&parts, Box::new(Tame)).map_err(|e| e.to_string())?));
    }
    Ok(Box::new(Machine::new(&parts, Box::new(Tame)).map_err(|e| e.to_string())?))
}

/// Runs to an end and collects what is printed.
fn watch(
    machine: &mut dyn System,
    launch: &Launch,
    limit: u64,
    begin: Instant,
    console: &mut Vec<u8>,
) -> End {
    loop {
        let until = machine.now().saturating_add(CHUNK).min(limit);
        let stop = machine.run(until).stop;
        let (serial, debug) = machine.take_output();
        console.extend(serial);
        console.extend(debug);
        match stop {
            Stop::Requested(_) | Stop::PowerOff => return End::Status(exit_status(stop)),
            Stop::Limit if until == limit => return End::Limit(limit),
            Stop::Limit => {}
            stop => {
                let trouble = machine.trouble().map(str::to_owned);
                return End::Stuck(trouble.unwrap_or_else(|| format!("{stop:?}")));
            }
        }
        if launch.timeout > 0 && begin.elapsed() >= Duration::from_secs(launch.timeout) {
            return End::Timeout(launch.timeout);
        }
    }
}
