//! A dumped VMCS against the rules of VM entry.

use rootmode_traces::dump::{Dump, DumpedVmcs, Settings};
use rootmode_vmx::context::NoMemory;
use rootmode_vmx::definitions::models::{self, Model};
use rootmode_vmx::rules::{Correction, MANUAL, Place, corrections};
use rootmode_vmx::{
    Capabilities, EntryContext, Field, Item, Judgement, Missing, Processor, Report, Rule, Vmcs, judge_all,
};

use super::findings::{Findings, Situation};
use super::{Broken, Cpu, Entry};

/// Judges one VMCS. If a refusal is recorded that no rule explains on the assumed processor, which has everything, the
/// lesser models are asked too: what they lack is the likeliest cause that is left.
pub(super) fn entry(dump: &Dump, dumped: &DumpedVmcs, settings: &Settings, cpu: Option<Cpu>) -> Entry {
    let named = match cpu {
        Some(Cpu::Intel(model)) => Some(model),
        Some(Cpu::Amd(_)) | None => None,
    };
    let first = judge(dump, dumped, settings, named, named.unwrap_or(models::MAX));
    if named.is_some() || first.recorded.is_none() || first.explains_record {
        return first.entry;
    }
    let lesser =
        [models::SAPPHIRE_RAPIDS, models::SKYLAKE].map(|model| judge(dump, dumped, settings, None, model));
    lesser.into_iter().find(|judged| judged.explains_record).map_or(first.entry, |judged| judged.entry)
}

/// An entry judged on one processor model.
struct Judged {
    entry: Entry,
    recorded: Option<u64>,
    /// Whether a broken rule would be reported as the text says.
    explains_record: bool,
}

fn judge(
    dump: &Dump,
    dumped: &DumpedVmcs,
    settings: &Settings,
    named: Option<Model>,
    model: Model,
) -> Judged {
    let vmcs = dumped.to_vmcs();
    // What is known for certain, and the same with the rest taken from the model.
    let known = Facts::known(settings, named);
    let assumed = Facts::completed(settings, model);
    let firm = known.context(&vmcs);
    let full = assumed.context(&vmcs);

    let recorded = dump.failure.as_ref().map(|failure| failure.value).or_else(|| failure_in(&vmcs));
    let is_recorded = |report| recorded.is_some_and(|code| fits(report, code));
    let completed = with_zeros(&vmcs);
    let zeros = EntryContext { vmcs: &completed, ..full };
    let mut findings = Findings::default();
    judge_all(&full, |rule, judgement| match judgement {
        Judgement::Satisfied => findings.satisfied(),
        Judgement::Unknown(missing) => {
            let likelihood = likelihood(rule, missing, &full, &zeros);
            findings.unjudged(rule.id, describe(missing), is_recorded(rule.report), likelihood);
        }
        Judgement::Violated { .. } => {
            let report = rule.report_for(judgement);
            let assumed = !rule.judge(&firm).is_violated();
            findings.broken(
                is_recorded(report),
                broken_rule(rule, report, &full, &|field| dumped.line(field), assumed),
            );
        }
    });
    let explains_record = findings.explain_record();
    let entry = findings.into_entry(Situation {
        extension: "VMX",
        dump,
        processor: model.name,
        assumed_processor: named.is_none(),
        recorded: recorded.map(describe_failure),
    });
    Judged { entry, recorded, explains_record }
}

/// Every rule that an entry on a running machine broke; those that are reported as the entry was come first.
pub(super) fn broken_now(context: &EntryContext<'_>, reported: Report) -> Vec<Broken> {
    let mut all = Vec::new();
    judge_all(context, |rule, judgement| {
        if judgement.is_violated() {
            let report = rule.report_for(judgement);
            all.push((report != reported, broken_rule(rule, report, context, &|_| None, false)));
        }
    });
    all.sort_by_key(|(other, _)| *other);
    all.into_iter().map(|(_, broken)| broken).collect()
}

/// The same VMCS with every missing field at 0, its value after reset.
fn with_zeros(vmcs: &Vmcs) -> Vmcs {
    let mut completed = vmcs.clone();
    for field in Field::ALL {
        if vmcs.get(field).is_none() {
            completed.set(field, 0);
        }
    }
    completed
}

/// How likely a rule that cannot be judged is the cause. If it would be broken with every missing field at 0, as in
/// `zeros`: the more of what it reads is known, the likelier. 1 if the dump lacks a field; 0 if it lacks something that
/// no dump shows.
fn likelihood(rule: &Rule, missing: Missing, known: &EntryContext<'_>, zeros: &EntryContext<'_>) -> usize {
    let Missing::Field(_) = missing else { return 0 };
    if !rule.judge(zeros).is_violated() {
        return 1;
    }
    let reads = rule.reads(zeros).fields;
    1 + reads.iter().filter(|read| known.vmcs.get(*read).is_some()).count()
}

/// Capabilities and processor, as far as they are known.
struct Facts {
    capabilities: Capabilities,
    processor: Processor,
}

impl Facts {
    /// What the text and a named model say. Whoever dumped a VMCS was in VMX root operation with a current VMCS.
    fn known(settings: &Settings, named: Option<Model>) -> Self {
        if let Some(model) = named {
            return Self::completed(settings, model);
        }
        let mut processor = Processor::unknown();
        set_situation(&mut processor);
        let mut facts = Self { capabilities: Capabilities::unknown(), processor };
        facts.read(settings);
        facts
    }

    /// The same with everything else from `model`. Whether this was a VMLAUNCH stays unknown.
    fn completed(settings: &Settings, model: Model) -> Self {
        let mut processor = Processor::new(&model, rootmode_arch::HostPhysical(0));
        for item in [Item::CurrentVmcs, Item::MovSsBlocking, Item::IsResume, Item::Launched] {
            processor.forget(item);
        }
        let mut facts = Self { capabilities: model.capabilities(), processor };
        facts.read(settings);
        facts
    }

    fn read(&mut self, settings: &Settings) {
        for (index, value) in &settings.msrs {
            self.capabilities.set(*index, value.value);
        }
        if let Some(bits) = &settings.max_phys_addr {
            self.processor.set(Item::PhysicalWidth, bits.value);
        }
    }

    const fn context<'a>(&'a self, vmcs: &'a Vmcs) -> EntryContext<'a> {
        EntryContext { vmcs, capabilities: &self.capabilities, processor: &self.processor, memory: &NoMemory }
    }
}

fn set_situation(processor: &mut Processor) {
    processor.set(Item::InVmxRoot, 1);
    processor.set(Item::CompatibilityOrVirtual, 0);
    processor.set(Item::Cpl, 0);
    processor.set(Item::CurrentIsShadow, 0);
    processor.set(Item::InSmm, 0);
    processor.set(Item::LongModeActive, 1);
}

/// A failed entry that the VMCS itself records: an exit reason with bit 31 set.
fn failure_in(vmcs: &Vmcs) -> Option<u64> {
    vmcs.get(Field::ExitReason).filter(|reason| reason >> 31 & 1 != 0)
}

fn fits(report: Report, code: u64) -> bool {
    report.exit_reason().map(u64::from) == Some(code)
        || report.instruction_error().map(u64::from) == Some(code)
}

fn describe_failure(code: u64) -> String {
    if code >> 31 & 1 != 0 {
        format!("exit reason {code:#x}")
    } else {
        format!("VM-instruction error {code}")
    }
}

/// What the processor reports, in the manual's words.
pub(super) fn describe_report(report: Report) -> String {
    match report {
        Report::Exception(vector) => {
            rootmode_arch::vector::row(vector).map_or(format!("vector {vector}"), |row| row.name.to_owned())
        }
        Report::FailInvalid => "VMfailInvalid".to_owned(),
        Report::Fail(error) => format!("VMfailValid, VM-instruction error {}", error.0),
        Report::Exit { qualification, .. } => format!(
            "VM exit with reason {:#x}, exit qualification {qualification}",
            report.exit_reason().unwrap_or_default()
        ),
    }
}

fn describe(missing: Missing) -> String {
    match missing {
        Missing::Field(field) => field.name().to_owned(),
        Missing::Capability(index) => {
            format!("capability MSR {}", rootmode_arch::msr::name(index).unwrap_or("unnamed"))
        }
        Missing::Processor(item) => item.text().to_owned(),
        Missing::Features => "the processor's CPUID features".to_owned(),
        Missing::Memory(address) => format!("memory at {address:#x}"),
        Missing::Msr(index) => format!("what the processor allows in MSR {index:#x}"),
    }
}

/// A rule that `context` breaks. `line` says where a text has a field.
fn broken_rule(
    rule: &'static Rule,
    report: Report,
    context: &EntryContext<'_>,
    line: &dyn Fn(Field) -> Option<u32>,
    assumed: bool,
) -> Broken {
    let mut broken = Broken::new(
        rule.id,
        rule.demand,
        format!("{MANUAL} \"{}\"", rule.group.title()),
        describe_report(report),
        assumed,
    );
    let also_read = rule.reads(context).fields;
    let also_read = also_read.iter().filter(|field| !rule.fields.contains(field));
    for field in rule.fields.iter().copied().chain(also_read) {
        broken.add_value(field.name(), context.vmcs.get(field), line(field));
    }
    let mut changes = Vec::new();
    corrections(rule, context, |correction| changes.push(correction));
    // A change that repairs more comes first; the rule's own order decides among equals.
    changes.sort_by_key(|correction| correction.still_broken);
    for Correction { place, value, .. } in changes {
        let (name, from) = match place {
            Place::Field(field) => (field.name().to_owned(), context.vmcs.get(field)),
            Place::Processor(item) => (item.text().to_owned(), context.processor.get(item)),
            Place::Memory(address) => (format!("memory at {address:#x}"), context.memory.read_u64(address)),
        };
        broken.add_nearest(name, from, value);
    }
    broken
}
