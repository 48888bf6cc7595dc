//! Entries that a running machine refused: explained as a dump would be, from what the processor itself saw.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rootmode_cpu::Cpu;
use rootmode_svm::drive::Watcher as SvmWatcher;
use rootmode_vmx::drive::Watcher as VmxWatcher;
use serde::Serialize;

use super::Broken;
use super::vmx::describe_report;
use crate::machine::Watch;

/// A refused entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Machine time in ticks.
    pub tick: u64,
    /// Virtual processor, from 0.
    pub vcpu: u8,
    /// RIP of VMLAUNCH, VMRESUME or VMRUN.
    pub rip: u64,
    /// The instruction's extension: `VMX` or `SVM`.
    pub extension: &'static str,
    /// What the processor reported.
    pub report: String,
    /// The broken rules: the one that was reported, then the others.
    pub broken: Vec<Broken>,
}

impl Refused {
    /// Where and what, in one line.
    pub fn place(&self) -> String {
        let Self { extension, vcpu, rip, tick, report, .. } = self;
        format!("{extension} entry refused: vCPU {vcpu} at rip {rip:#x}, tick {tick}: {report}")
    }

    /// Where, what and why, in one line.
    pub fn line(&self) -> String {
        let place = self.place();
        let Some((first, others)) = self.broken.split_first() else { return place };
        let value =
            |value: &super::Value| format!("{} = {}", value.name, value.value.as_deref().unwrap_or("?"));
        let values: Vec<String> = first.values.iter().map(value).collect();
        let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
        let nearest = first.nearest.first();
        let nearest = nearest.map_or_else(String::new, |n| format!("; nearest valid: {} = {}", n.name, n.to));
        let others = match others.len() {
            0 => String::new(),
            count => format!("; {count} more broken"),
        };
        format!("{place}; {}: {}{values}{nearest}{others}", first.rule, first.demand)
    }
}

/// Collects refused entries of a machine, one a place and rule; copies share it.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    state: Arc<Mutex<State>>,
    exits: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    /// RIP and rule, or report, of those that were told.
    told: BTreeSet<(u64, String)>,
    new: Vec<Refused>,
    count: u64,
}

impl Refusals {
    /// What a machine must be built with.
    pub fn watch(&self) -> Watch {
        let (vmx, svm) = (self.clone(), self.clone());
        Watch {
            vmx: VmxWatcher::new(
                move |cpu, context, report, rule| {
                    let broken = || super::vmx::broken_now(context, report);
                    vmx.add(cpu, "VMX", rule.map(|rule| rule.id), &describe_report(report), &broken);
                },
                self.exits.clone(),
            ),
            svm: SvmWatcher::new(
                move |cpu, context, rule| {
                    let report = rule.report.to_string();
                    svm.add(cpu, "SVM", Some(rule.id), &report, &|| super::svm::broken_now(context));
                },
                self.exits.clone(),
            ),
        }
    }

    fn add(
        &self,
        cpu: &Cpu,
        extension: &'static str,
        rule: Option<&'static str>,
        report: &str,
        broken: &dyn Fn() -> Vec<Broken>,
    ) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        // A guest may try again and again.
        if state.told.insert((cpu.rip, rule.unwrap_or(report).to_owned())) {
            let report = report.to_owned();
            let refused = Refused {
                tick: cpu.tick,
                vcpu: cpu.index,
                rip: cpu.rip,
                extension,
                report,
                broken: broken(),
            };
            state.new.push(refused);
        }
    }

    /// What was refused for a reason or at a place that is new since the last call, in order.
    pub fn take(&self) -> Vec<Refused> {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).new)
    }

    /// How many entries were refused, the same ones too.
    pub fn count(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// How often guests were left.
    pub fn exits(&self) -> u64 {
        self.exits.load(Ordering::Relaxed)
    }
}
