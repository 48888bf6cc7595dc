//! KVM's tracepoints held next to what the hardware did.

use rootmode_arch::record::{Level, Payload, Record};
use rootmode_arch::{Choices, Site, Vendor};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::abi::UserspaceMemoryRegion;
use rootmode_models::kvm::host::HostBug;
use rootmode_models::kvm::trace::{ExitTrace, TraceFormat, Tracepoint};
use rootmode_models::kvm::vm::{Failure, Vm, VmConfig};

use crate::campaign::{Counterexample, Property, Verdict};
use crate::guests::{GuestImage, Workload, assemble};
use crate::transparency::{Hosting, LIMIT, Run, facts, host_of, run_of, schedule};

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "tracepoints",
        about: "kvm_entry, kvm_exit and the events of nested exits show the hardware's fields at that moment, in their order and nothing else; tracing changes nothing and, when it is off, reads nothing.",
        source: "catalogue 8.2, 8.3; P-8.1 to P-8.6",
        cost: 200,
        check,
    },
    Property {
        name: "failed-entry-trace",
        about: "A refused entry is traced as failed, without the fields of earlier exits.",
        source: "catalogue 8.2; SDM Vol. 3C \"VM-Entry Failures During or After Loading Guest State\"",
        cost: 200,
        check: failed_entry,
    },
];

/// Bits 31 and 11 of interruption information: valid, with an error code.
const WITH_CODE: u32 = 0x8000_0800;

struct Traced {
    run: Run,
    trace: Vec<Tracepoint>,
    reads: u64,
}

fn run(image: &GuestImage, seed: u64, bugs: Regressions, tracing: bool) -> Result<Traced, HostBug> {
    let hosting =
        Hosting { choices: schedule(seed), reclaim: seed % 2 == 1, regressions: bugs, emulate_invalid: true };
    let (mut host, recorder) = host_of(image, hosting)?;
    host.set_tracing(tracing);
    let stop = host.run(LIMIT)?;
    let (trace, reads) = (host.take_trace(), host.error_code_reads());
    Ok(Traced { run: run_of(&host, &recorder, stop), trace, reads })
}

fn check(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let operations = c.choose(Site::Program, 20);
    let workload = Workload::draw(Vendor::Intel, operations, c);
    let seed = c.choose(Site::Task, 1 << 32);
    let Ok(image) = assemble(&workload) else { return Verdict::Skipped };
    let wrong = match (run(&image, seed, bugs, true), run(&image, seed, bugs, false)) {
        (Ok(traced), Ok(plain)) => judge(&traced, &plain),
        (Err(bug), _) | (_, Err(bug)) => Some(format!("L0 fails: {bug}")),
    };
    match wrong {
        None => Verdict::Holds,
        Some(message) => {
            Counterexample::new(message).with("L2's steps", operations).with("L0's schedule", seed).into()
        }
    }
}

fn judge(traced: &Traced, plain: &Traced) -> Option<String> {
    if traced.run.memory != plain.run.memory || !facts(&traced.run).eq(facts(&plain.run)) {
        return Some("tracing changes what the guest sees".to_owned());
    }
    let mut expected = traced.run.records.iter();
    let (mut nested, mut last, mut error12, mut needed) = (false, ExitTrace::default(), 0, 0);
    let mut trace = traced.trace.iter().peekable();
    while let Some(tracepoint) = trace.next() {
        for format in [TraceFormat::V5_10, TraceFormat::V6] {
            if Tracepoint::parse(tracepoint.name(), &tracepoint.text(format), format) != Some(*tracepoint) {
                return Some(format!("{tracepoint:x?} is not what its text says"));
            }
        }
        match *tracepoint {
            Tracepoint::Entry { rip, .. } => {
                let entered =
                    next(&mut expected, &mut nested, |payload| matches!(payload, Payload::Entry { .. }));
                let right = matches!(entered, Some(Payload::Entry { rip: at, .. }) if at == rip);
                if !right {
                    return Some(format!("kvm_entry shows {rip:#x} for {entered:x?}"));
                }
            }
            Tracepoint::Exit(exit) => {
                let left =
                    next(&mut expected, &mut nested, |payload| matches!(payload, Payload::Exit { .. }));
                let right = matches!(left, Some(Payload::Exit { code, info1, rip, .. })
                    if code == u64::from(exit.reason) && info1 == exit.info1 && rip == exit.rip);
                if !right {
                    return Some(format!("kvm_exit shows {exit:x?} for {left:x?}"));
                }
                if exit.intr_info & WITH_CODE != WITH_CODE && exit.error_code != 0 {
                    return Some(format!("kvm_exit shows an error code that is not there: {exit:x?}"));
                }
                let follows = match trace.peek() {
                    Some(Tracepoint::NestedVmexit(inner)) => Some(*inner),
                    _ => None,
                };
                if follows != nested.then_some(exit) {
                    return Some(format!("kvm_exit {exit:x?} is followed by kvm_nested_vmexit {follows:x?}"));
                }
                last = exit;
            }
            Tracepoint::NestedVmexit(exit) => {
                if exit != last {
                    return Some("kvm_nested_vmexit differs from its kvm_exit".to_owned());
                }
            }
            Tracepoint::NestedVmexitInject(exit) => {
                // An exception that L0 found in an instruction of L2 is no exit of the hardware's.
                let own = exit.reason == 0 && last.reason != 0;
                if !own && (exit.intr_info, exit.info2) != (last.intr_info, last.info2) {
                    return Some(format!("L1 gets {exit:x?} of {last:x?}"));
                }
                let coded = exit.intr_info & WITH_CODE == WITH_CODE;
                if !coded && exit.error_code != error12 {
                    return Some("an exit without error code changes vmcs12's".to_owned());
                }
                error12 = exit.error_code;
                needed += u64::from(coded && !own);
                // What L1 sees of it, as the record tells it.
                let seen = traced_exit(&mut expected, &mut nested);
                let right = matches!(seen, Some(Payload::Exit { code, info1, .. })
                    if code == u64::from(exit.reason) && info1 == exit.info1);
                if !right {
                    return Some(format!("kvm_nested_vmexit_inject shows {exit:x?} for {seen:x?}"));
                }
            }
        }
    }
    (plain.reads != needed).then(|| {
        format!("without tracing L0 reads the error code {} times and needs it {needed} times", plain.reads)
    })
}

/// The next record of L0's own that is `wanted`; on the way, whether L2 runs.
fn next<'a>(
    records: &mut impl Iterator<Item = &'a Record>,
    nested: &mut bool,
    wanted: fn(&Payload) -> bool,
) -> Option<Payload> {
    for record in records {
        match record.payload {
            payload if record.level == Level::L0 && wanted(&payload) => return Some(payload),
            Payload::Entry { .. } if record.level == Level::L2 => *nested = true,
            _ => {}
        }
    }
    None
}

/// The next exit that L1 sees.
fn traced_exit<'a>(records: &mut impl Iterator<Item = &'a Record>, nested: &mut bool) -> Option<Payload> {
    *nested = false;
    records
        .find(|record| record.level == Level::L2 && matches!(record.payload, Payload::Exit { .. }))
        .map(|record| record.payload)
}

fn failed_entry(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let kicked = c.choose(Site::Sequence, 4) != 3;
    match refused(kicked, bugs) {
        Err(failure) => Counterexample::new(format!("a call fails that should not: {failure}")).into(),
        Ok(trace) => {
            let exits = trace.iter().rev().find_map(|tracepoint| match tracepoint {
                Tracepoint::Exit(exit) => Some(*exit),
                _ => None,
            });
            match exits {
                Some(ExitTrace { reason: 0x8000_0021, info2: 0, intr_info: 0, error_code: 0, .. }) => {
                    Verdict::Holds
                }
                other => Counterexample::new(format!("a refused entry is traced as {other:x?}"))
                    .with("an interrupt before", kicked)
                    .into(),
            }
        }
    }
}

/// A vCPU that spins, is kicked out or not, and then gets a state that no processor takes.
fn refused(kicked: bool, bugs: Regressions) -> Result<Vec<Tracepoint>, Failure> {
    let mut vm = Vm::new(VmConfig { regressions: bugs, ..VmConfig::plain(Vendor::Intel) })?;
    vm.set_tracing(true);
    vm.set_memory_region(&UserspaceMemoryRegion { memory_size: 0x4000, ..Default::default() })?;
    vm.write_memory(0x1000, &[0xeb, 0xfe]);
    vm.create_vcpu(0)?;
    super::start_at(&mut vm, 0, 0x1000)?;
    if kicked {
        vm.start(0)?;
        vm.advance(0, 100)?;
        vm.kick(0)?;
        vm.advance(0, 5000)?;
    }
    // A code segment whose limit and granularity contradict each other.
    let mut sregs = vm.sregs(0)?;
    sregs.cr0 |= 1;
    (sregs.cs.limit, sregs.cs.g) = (0xfff0_0000, 1);
    vm.set_sregs(0, &sregs)?;
    vm.run(0)?;
    Ok(vm.set_tracing(false))
}
