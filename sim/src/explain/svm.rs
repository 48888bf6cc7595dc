//! A dumped VMCB against the rules of VMRUN.

use rootmode_arch::FeatureSet;
use rootmode_svm::capabilities::MAX_AMD;
use rootmode_svm::rules::{Correction, EntryContext, Host, Judgement, Place, Rule, judge_all, nearest};
use rootmode_svm::vmcb::NestedControl;
use rootmode_svm::{Field, Vmcb};
use rootmode_traces::dump::{Dump, DumpedVmcb, Settings};

use super::findings::{Findings, Situation};
use super::{Broken, Cpu, Entry};

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
    let is_recorded = |rule: &Rule| recorded == Some(rule.report.0);
    let mut findings = Findings::default();
    for (rule, judgement) in judge_all(&cx) {
        match judgement {
            Judgement::Satisfied => findings.satisfied(),
            Judgement::Unknown(missing) => {
                findings.unjudged(rule.id, missing.to_string(), is_recorded(rule), 0);
            }
            Judgement::Violated => {
                let assumed = named.is_none() && rule.judge(&any) != Judgement::Violated;
                findings
                    .broken(is_recorded(rule), broken_rule(rule, &cx, &|field| dumped.line(field), assumed));
            }
        }
    }
    findings.into_entry(Situation {
        extension: "SVM",
        dump,
        processor: processor.name,
        assumed_processor: named.is_none(),
        recorded: recorded.map(|code| format!("exit code {code:#x}")),
    })
}

fn exit_code(vmcb: &Vmcb) -> Option<u64> {
    vmcb.get(Field::ExitCode).filter(|code| *code as u32 == u32::MAX).map(|_| u64::MAX)
}

/// Every rule that a VMRUN on a running machine broke, in the order in which they are checked.
pub(super) fn broken_now(cx: &EntryContext<'_>) -> Vec<Broken> {
    let violated = judge_all(cx).filter(|(_, judgement)| *judgement == Judgement::Violated);
    violated.map(|(rule, _)| broken_rule(rule, cx, &|_| None, false)).collect()
}

/// A rule that `cx` breaks. `line` says where a text has a field.
fn broken_rule(
    rule: &'static Rule,
    cx: &EntryContext<'_>,
    line: &dyn Fn(Field) -> Option<u32>,
    assumed: bool,
) -> Broken {
    let known = |field: Field| match field.vmcb_offset() {
        Some(_) => cx.vmcb.get(field),
        None => cx.vmsa.and_then(|vmsa| vmsa.get(field)),
    };
    let mut broken = Broken::new(
        rule.id,
        rule.demand,
        format!("{} \"{}\"", rule.citation.manual, rule.citation.section),
        format!("{} ({:#x})", rule.report, rule.report.0),
        assumed,
    );
    for field in rule.fields {
        broken.add_value(field.name(), known(*field), line(*field));
    }
    for Correction { place, value } in nearest(cx, rule).iter() {
        let (name, from) = match place {
            Place::Vmcb(field) | Place::Vmsa(field) => (field.name().to_owned(), known(field)),
            Place::Memory(address) => (format!("memory at {address:#x}"), cx.memory.read_u64(address)),
        };
        broken.add_nearest(name, from, value);
    }
    broken
}
