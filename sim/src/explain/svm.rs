//! A dumped VMCB against the rules of VMRUN.

use rootmode_arch::FeatureSet;
use rootmode_svm::capabilities::MAX_AMD;
use rootmode_svm::rules::{Correction, EntryContext, Host, Judgement, Place, Rule, judge_all, nearest};
use rootmode_svm::vmcb::NestedControl;
use rootmode_svm::{Field, Vmcb};
use rootmode_traces::dump::{Dump, DumpedVmcb, Settings};

use super::{Broken, Change, Cpu, Entry, Unjudged, Value, hex, rank};

/// Judges one VMCB.
pub(super) fn entry(dump: &Dump, dumped: &DumpedVmcb, settings: &Settings, cpu: Option<Cpu>) -> Entry {
    let named = match cpu {
        Some(Cpu::Amd(processor)) => Some(processor),
        Some(Cpu::Intel(_)) | None => None,
    };
    let mut processor = *named.unwrap_or(&MAX_AMD);
    if let Some(bits) = settings.max_phys_addr.as_ref().and_then(|bits| u8::try_from(bits.value).ok()) {
        processor.physical_address_bits = bits;
    }
    let mut generous = MAX_AMD.with_features(FeatureSet::all());
    generous.physical_address_bits = 52;
    let vmcb = dumped.to_vmcb();
    // A VMCB that asks for SEV comes from a host that encrypts, on a processor that can.
    let nested = vmcb.get(Field::NestedControl).map(NestedControl);
    let host = if nested.is_some_and(|nested| nested.contains(NestedControl::SEV_ENABLE)) {
        if named.is_none() {
            processor = generous;
        }
        Host::ENCRYPTING
    } else {
        Host::LONG_MODE
    };
    let vmsa = dumped.to_vmsa();
    let on = |processor| EntryContext {
        vmsa: vmsa.as_ref(),
        ..EntryContext::new(processor, &vmcb).with_host(host)
    };
    let (cx, any) = (on(&processor), on(&generous));

    let recorded = dump.failure.as_ref().map(|failure| failure.value).or_else(|| exit_code(&vmcb));
    let mut broken = Vec::new();
    let mut unjudged = Vec::new();
    let mut satisfied = 0;
    for (rule, judgement) in judge_all(&cx) {
        match judgement {
            Judgement::Satisfied => satisfied += 1,
            Judgement::Unknown(missing) => {
                unjudged.push(Unjudged { rule: rule.id, missing: missing.to_string() });
            }
            Judgement::Violated => {
                let assumed = named.is_none() && rule.judge(&any) != Judgement::Violated;
                broken.push((recorded == Some(rule.report.0), broken_rule(rule, &cx, dumped, assumed)));
            }
        }
    }
    rank(&mut broken);
    let broken: Vec<Broken> = broken.into_iter().map(|(_, rule)| rule).collect();
    Entry {
        extension: "SVM",
        lines: dump.lines,
        processor: processor.name.to_owned(),
        assumed_processor: named.is_none(),
        recorded: recorded.map(|code| format!("exit code {code:#x}")),
        would_report: broken.first().map(|rule| rule.report.clone()),
        broken,
        unjudged,
        satisfied,
    }
}

fn exit_code(vmcb: &Vmcb) -> Option<u64> {
    vmcb.get(Field::ExitCode).filter(|code| *code as u32 == u32::MAX).map(|_| u64::MAX)
}

fn broken_rule(rule: &Rule, cx: &EntryContext<'_>, dumped: &DumpedVmcb, assumed: bool) -> Broken {
    let known = |field: Field| match field.vmcb_offset() {
        Some(_) => cx.vmcb.get(field),
        None => cx.vmsa.and_then(|vmsa| vmsa.get(field)),
    };
    let value = |field: &Field| Value {
        name: field.name().to_owned(),
        value: known(*field).map(hex),
        line: dumped.line(*field),
    };
    let change = |correction: Correction| match correction.place {
        Place::Vmcb(field) | Place::Vmsa(field) => {
            Change { name: field.name().to_owned(), from: known(field).map(hex), to: hex(correction.value) }
        }
        Place::Memory(address) => Change {
            name: format!("memory at {address:#x}"),
            from: cx.memory.read_u64(address).map(hex),
            to: hex(correction.value),
        },
    };
    Broken {
        rule: rule.id,
        demand: rule.demand.to_owned(),
        source: format!("{} \"{}\"", rule.citation.manual, rule.citation.section),
        values: rule.fields.iter().map(value).filter(|value| value.value.is_some()).collect(),
        nearest: nearest(cx, rule).iter().map(change).collect(),
        report: format!("{} ({:#x})", rule.report, rule.report.0),
        assumed,
    }
}
