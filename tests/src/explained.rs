//! `explain` against the rules: for every rule, a state that breaks it alone is printed as each kernel prints it, read
//! back and judged again. The rule must come out, and no other; or it must say what the dump lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rootmode::explain::{Cpu, explain};
use rootmode_arch::HostPhysical;
use rootmode_traces::dump::{
    Kernel, MsrEntry, VmcbSurroundings, VmcsSurroundings, parse, print_vmcb, print_vmcs,
};
use rootmode_vmx::definitions::models::MAX;
use rootmode_vmx::rules::Place;
use rootmode_vmx::{Field, Item, Processor};

use crate::table::Row;

/// The kernels whose format is tried.
pub const KERNELS: [Kernel; 3] = [Kernel::V5_10, Kernel::V6_1, Kernel::V6_12];

/// What became of one vendor's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip {
    /// Rules in the table.
    pub rules: usize,
    /// Rules that a dump of some kernel lets judge: they came out alone.
    pub judged: BTreeSet<&'static str>,
    /// Rules that no dump lets judge, and what it lacks.
    pub not_in_a_dump: BTreeMap<&'static str, String>,
    /// Rules that did not come out, or not alone: kernel and what came out.
    pub wrong: Vec<String>,
}

impl RoundTrip {
    fn note(&mut self, rule: &'static str, kernel: Kernel, violated: &[&'static str], lacks: Option<String>) {
        match (violated, lacks) {
            ([only], _) if *only == rule => {
                self.judged.insert(rule);
            }
            ([], Some(lacks)) => {
                self.not_in_a_dump.entry(rule).or_insert(lacks);
            }
            _ => self.wrong.push(format!("{rule} in a dump of {kernel:?}: {violated:?} came out")),
        }
    }

    fn finish(mut self) -> Self {
        self.not_in_a_dump.retain(|rule, _| !self.judged.contains(rule));
        self
    }
}

/// The lists of MSRs that KVM would print for this VMCS: as many entries as the count says, at most the 8 that KVM keeps.
fn surroundings(state: &rootmode_vmx::boundary::State) -> VmcsSurroundings {
    let list = |count: Field, address: Field| -> Vec<MsrEntry> {
        let start = state.vmcs.value(address);
        let word = |offset| state.value(Place::Memory(HostPhysical(start.wrapping_add(offset))));
        let entry = |nth| MsrEntry { index: word(nth * 16) as u32, value: word(nth * 16 + 8) };
        (0..state.vmcs.value(count).min(8)).map(entry).collect()
    };
    VmcsSurroundings {
        entry_load: list(Field::EntryMsrLoadCount, Field::EntryMsrLoadAddress),
        exit_store: list(Field::ExitMsrStoreCount, Field::ExitMsrStoreAddress),
        exit_load: list(Field::ExitMsrLoadCount, Field::ExitMsrLoadAddress),
        ..VmcsSurroundings::default()
    }
}

/// VMX: every rule's witness through every kernel's `dump_vmcs`.
pub fn vmx() -> RoundTrip {
    let rules = &rootmode_vmx::rules::RULES;
    let mut result = RoundTrip { rules: rules.len(), ..RoundTrip::default() };
    for rule in rules {
        let Some(witness) = rootmode_vmx::boundary::witness(rule) else {
            result.wrong.push(format!("{} has no witness", rule.id));
            continue;
        };
        let state = witness.broken();
        let value = |encoding| Field::from_encoding(encoding).map_or(0, |(field, _)| state.vmcs.value(field));
        for kernel in KERNELS {
            let text = print_vmcs(kernel, &surroundings(&state), &value);
            let parsed = parse(&text);
            let Some(vmcs) = parsed.dumps.first().and_then(|dump| dump.vmcs()).map(|dumped| dumped.to_vmcs())
            else {
                result.wrong.push(format!("{}: {kernel:?}'s dump was not read", rule.id));
                continue;
            };
            let context = rootmode_vmx::EntryContext { vmcs: &vmcs, ..state.context() };
            let mut violated = Vec::new();
            let mut lacks = None;
            rootmode_vmx::judge_all(&context, |other, judgement| {
                if judgement.is_violated() {
                    violated.push(other.id);
                } else if let (true, rootmode_vmx::Judgement::Unknown(missing)) = (other == rule, judgement) {
                    lacks = Some(format!("{missing:?}"));
                }
            });
            result.note(rule.id, kernel, &violated, lacks);
        }
    }
    result.finish()
}

/// SVM: every rule's witnesses through every kernel's `dump_vmcb`.
pub fn svm() -> RoundTrip {
    use rootmode_svm::rules::{EntryContext, Judgement, Rule, judge_all};
    let mut result = RoundTrip { rules: rootmode_svm::rules::RULES.len(), ..RoundTrip::default() };
    for witness in rootmode_svm::boundary::WITNESSES {
        let Some(rule) = Rule::from_id(witness.rule) else {
            result.wrong.push(format!("{} is a witness of no rule", witness.rule));
            continue;
        };
        for index in 0..witness.violations() {
            let case = witness.violation(index);
            let bytes = case.vmcb.as_bytes();
            let value = |offset: u16, size: u8| {
                let start = usize::from(offset);
                bytes[start..start + usize::from(size)].iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
            };
            for kernel in KERNELS {
                let parsed = parse(&print_vmcb(kernel, &VmcbSurroundings::default(), &value));
                let Some(vmcb) =
                    parsed.dumps.first().and_then(|dump| dump.vmcb()).map(|dumped| dumped.to_vmcb())
                else {
                    result.wrong.push(format!("{}: {kernel:?}'s dump was not read", rule.id));
                    continue;
                };
                let context = EntryContext { vmcb: &vmcb, vmsa: None, ..case.context() };
                let violated: Vec<_> = judge_all(&context)
                    .filter(|(_, judgement)| *judgement == Judgement::Violated)
                    .map(|(rule, _)| rule.id)
                    .collect();
                let lacks = match rule.judge(&context) {
                    Judgement::Unknown(missing) => Some(missing.to_string()),
                    Judgement::Satisfied | Judgement::Violated => None,
                };
                result.note(rule.id, kernel, &violated, lacks);
            }
        }
    }
    result.finish()
}

/// How often the broken rule is among the first three lines when a person gives the dump to `explain` together with the
/// capability MSRs and the processor's name.
pub fn as_a_person_would() -> (usize, Vec<&'static str>) {
    let mut found = 0;
    let mut missed = Vec::new();
    for rule in &rootmode_vmx::rules::RULES {
        let Some(witness) = rootmode_vmx::boundary::witness(rule) else { continue };
        let state = witness.broken();
        let value = |encoding| Field::from_encoding(encoding).map_or(0, |(field, _)| state.vmcs.value(field));
        let mut text = print_vmcs(Kernel::V6_12, &surroundings(&state), &value);
        for index in 0x480..=0x493 {
            if let Some(value) = state.capabilities.get(index) {
                let _ = writeln!(text, "MSR {index:#x} = {value:#x}");
            }
        }
        let width = state.processor.value(Item::PhysicalWidth);
        let _ = writeln!(text, "maxphyaddr = {width}");
        // What only the situation decides (SMM, the mode of the host ...) is in no dump.
        let usual = Processor::new(&MAX, HostPhysical(0)).with(Item::PhysicalWidth, width);
        let context = rootmode_vmx::EntryContext { processor: &usual, ..state.context() };
        if !rule.judge(&context).is_violated() {
            continue;
        }
        let cpu = Cpu::Intel(MAX);
        let Ok(explanation) = explain(&text, Some(cpu)) else { continue };
        let Some(entry) = explanation.entries.first() else { continue };
        if entry.unjudged.iter().any(|unjudged| unjudged.rule == rule.id) {
            continue;
        }
        if entry.broken.iter().take(3).any(|broken| broken.rule == rule.id) {
            found += 1;
        } else {
            missed.push(rule.id);
        }
    }
    (found, missed)
}

/// The rows of the full table.
///
/// # Errors
/// A rule that does not survive its dump.
pub fn rows() -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for (vendor, result) in [("vmx", vmx()), ("svm", svm())] {
        for wrong in &result.wrong {
            eprintln!("{wrong}");
        }
        let clean = result.wrong.is_empty();
        let listed = result.judged.len() + result.not_in_a_dump.len() == result.rules;
        rows.push(Row::new(
            &format!("{vendor}-rules"),
            "entry rules in the table",
            result.rules,
            "each with a witness",
            listed,
        ));
        rows.push(Row::new(
            &format!("{vendor}-rules-from-dumps"),
            "rules whose witness survives being printed by kernels 5.10, 6.1, 6.12 and read back, alone",
            format!("{} of {}", result.judged.len(), result.rules),
            "all that a dump shows",
            clean,
        ));
        rows.push(Row::new(
            &format!("{vendor}-rules-not-in-dumps"),
            "rules that no dump lets judge (listed in docs/not-in-dumps.md)",
            result.not_in_a_dump.len(),
            "counted",
            true,
        ));
    }
    Ok(rows)
}

/// The page that lists the rules which no kernel's dump lets judge, and what it lacks.
pub fn page() -> String {
    let mut page = String::from(
        "# Rules that a dump does not show\n\nGenerated by `rootmode-tests documents`: rules that cannot be judged from what kernels 5.10, 6.1 and 6.12 print, with the first thing that is missing. `rootmode explain --all` names them for a dump at hand.\n\n| rule | the dump lacks |\n| --- | --- |\n",
    );
    for (rule, lacks) in vmx().not_in_a_dump.into_iter().chain(svm().not_in_a_dump) {
        let _ = writeln!(page, "| `{rule}` | {lacks} |");
    }
    page
}
