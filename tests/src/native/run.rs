//! Runs forms, on several workers; a form's result depends on the seed alone.

use super::compare::{Difference, differences};
use super::draw::{Draw, Drawn};
use super::here::Here;
use super::host::{self, BATCH, Host};
use super::scope::Form;
use super::shrink::shrink;
use super::state::*;
use super::undefined::is_undefined;
use rootmode_arch::Vendor;
use rootmode_arch::choices::Seeded;
use rootmode_cpu::Model;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The host and a processor of ours, side by side.
#[derive(Debug)]
pub struct Pair {
    host: Host,
    here: Here,
    model: Model,
    read_only: [u8; PAGE as usize],
}

/// A case on which the two differ.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The case and its instruction.
    pub drawn: Drawn,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// What became of a form.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its name, with the mode.
    pub name: String,
    /// Cases run.
    pub cases: u64,
    /// Cases that faulted on the host.
    pub faults: u64,
    /// Cases that are left open.
    pub open: u64,
    /// Cases whose outcomes differ.
    pub mismatches: u64,
    /// The first of them, simplified.
    pub first: Option<Mismatch>,
    /// Why fewer cases were run than were asked for.
    pub trouble: Option<String>,
}

/// The model that is compared: the maximal one of the host's vendor.
pub fn model() -> Model {
    if host::is_amd() { Model::max_amd() } else { Model::max_intel() }
}

impl Pair {
    /// A child process, and a processor of `model`.
    ///
    /// # Errors
    /// What the system refused.
    pub fn new(model: &Model) -> Result<Self, String> {
        let mut random = Seeded::new(0);
        let mut read_only = [0; PAGE as usize];
        read_only.fill_with(|| random.next() as u8);
        let host = Host::start(&read_only)?;
        Ok(Self {
            host,
            here: Here::new(model.clone(), &read_only, host::protection_keys()),
            model: model.clone(),
            read_only,
        })
    }

    /// What differs on one case.
    ///
    /// # Errors
    /// The host's child was lost; it is replaced.
    pub fn judge(&mut self, drawn: &Drawn) -> Result<Vec<Difference>, String> {
        let ours = self.here.run(drawn);
        let mut all = Vec::new();
        self.on_host(&[&drawn.case], |_, theirs| {
            if !is_undefined(&drawn.case, &drawn.instruction, theirs) {
                all = differences(&drawn.instruction, &drawn.case, theirs, &ours);
            }
        })?;
        Ok(all)
    }

    fn on_host(&mut self, cases: &[&Case], each: impl FnMut(usize, &Outcome)) -> Result<(), String> {
        let result = self.host.run(cases, each);
        if result.is_err() {
            self.host = Host::start(&self.read_only)?;
        }
        result
    }

    /// Runs `count` cases of `form`.
    pub fn form(&mut self, form: &Form, count: u64, seed: u64) -> Report {
        let mut report = Report {
            name: format!("{:?}/{}", form.code, form.bits),
            cases: 0,
            faults: 0,
            open: 0,
            mismatches: 0,
            first: None,
            trouble: None,
        };
        let amd = self.model.vendor() == Vendor::Amd;
        let own_seed = Seeded::new(seed ^ (form.code as u64) << 8 ^ u64::from(form.bits)).next();
        let mut draw = Draw::new(own_seed, amd);
        while report.cases < count {
            let memory = draw.memory();
            let wanted = (count - report.cases).min(BATCH as u64);
            let batch: Vec<Drawn> = (0..wanted).filter_map(|_| draw.case(form, &memory)).collect();
            if batch.is_empty() {
                report.trouble = Some("no encoding was met".to_owned());
                break;
            }
            if let Err(trouble) = self.batch(&batch, &mut report) {
                report.trouble = Some(trouble);
                break;
            }
            report.cases += batch.len() as u64;
        }
        if let Some(first) = report.first.take() {
            report.first = Some(shrink(self, first));
        }
        report
    }

    fn batch(&mut self, batch: &[Drawn], report: &mut Report) -> Result<(), String> {
        let ours: Vec<Box<Outcome>> = batch.iter().map(|drawn| self.here.run(drawn)).collect();
        let cases: Vec<&Case> = batch.iter().map(|drawn| &*drawn.case).collect();
        self.on_host(&cases, |n, theirs| {
            report.faults += u64::from(theirs.vector != COMPLETED);
            if is_undefined(&batch[n].case, &batch[n].instruction, theirs) {
                report.open += 1;
                return;
            }
            let differences = differences(&batch[n].instruction, &batch[n].case, theirs, &ours[n]);
            if !differences.is_empty() {
                report.mismatches += 1;
                if report.first.is_none() {
                    let drawn = batch[n].clone();
                    report.first = Some(Mismatch { drawn, differences });
                }
            }
        })
    }
}

/// Runs `count` cases of every form on `jobs` workers. Reports come in the order of the forms.
///
/// # Errors
/// A child process that could not be started.
pub fn run_all(forms: &[Form], count: u64, seed: u64, jobs: usize) -> Result<Vec<Report>, String> {
    let model = model();
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(vec![None; forms.len()]);
    let work = || -> Result<(), String> {
        let mut pair = Pair::new(&model)?;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(form) = forms.get(at) else { return Ok(()) };
            let report = pair.form(form, count, seed);
            reports.lock().expect("no worker panics while it holds the lock")[at] = Some(report);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())?)
    })?;
    let reports = reports.into_inner().expect("no worker panicked");
    Ok(reports.into_iter().flatten().collect())
}
