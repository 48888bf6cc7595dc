//! Puts together what one text says in several ways: KVM's dumps, lists, QEMU's registers, failure codes.

use rootmode_vmx::Field;

use super::list::Item;
use super::parse::Reader;
use super::qemu::Registers;
use super::store::{bits, put};
use super::types::{
    Dump, DumpState, DumpedVmcb, DumpedVmcs, Parsed, Reason, Settings, Sourced, Unreadable, Vendor, VmcbKey,
};

/// Makes the outcome of what was read. Lists win over KVM's dumps, these over QEMU's registers.
pub(super) fn merge(reader: Reader, lines: u32) -> Parsed {
    let Reader { mut dumps, registers, items, failures, refused_msrs, mut unreadable, .. } = reader;
    // A heading alone is no dump.
    dumps.retain(says_something);
    let settings = settings(&items, &mut unreadable);
    add_registers(&mut dumps, &registers, &failures, &settings);
    dumps.retain(says_something);
    add_lists(&mut dumps, &items, &mut unreadable);
    add_failures(&mut dumps, &failures);
    for refused in refused_msrs {
        if let Some(DumpState::Vmcs(v)) = nearest(&mut dumps, refused.line).map(|d| &mut d.state) {
            v.entry_load.push(refused);
        }
    }
    dumps.sort_by_key(|d| d.lines);
    unreadable.sort_by_key(|u| u.line);
    Parsed { dumps, settings, failures, unreadable, lines }
}

fn says_something(dump: &Dump) -> bool {
    match &dump.state {
        DumpState::Vmcs(v) => !v.fields.is_empty() || v.effective_efer.is_some(),
        DumpState::Vmcb(v) => !v.fields.is_empty(),
    }
}

fn settings(items: &[Item], unreadable: &mut Vec<Unreadable>) -> Settings {
    let mut out = Settings::default();
    for item in items {
        match item {
            Item::Cpu(v) => _ = out.cpu.get_or_insert_with(|| v.clone()),
            Item::MaxPhysAddr(v) => _ = out.max_phys_addr.get_or_insert_with(|| v.clone()),
            Item::Vendor(v) => _ = out.vendor.get_or_insert_with(|| v.clone()),
            Item::Msr(index, v) => {
                let line = v.line;
                if let Err(reason) = put(&mut out.msrs, *index, v.clone(), 64) {
                    unreadable.push(Unreadable { line, what: format!("MSR {index:#x}"), reason });
                }
            }
            Item::Vmcs(..) | Item::Vmcb(..) => {}
        }
    }
    out
}

/// QEMU prints its registers for one failed entry: the dump with the same RIP, else the only dump, else none.
fn add_registers(dumps: &mut Vec<Dump>, all: &[Registers], failures: &[Sourced<u64>], settings: &Settings) {
    let from_kernel = dumps.len();
    for registers in all.iter().filter(|r| !r.is_empty()) {
        let rip = |d: &Dump| match &d.state {
            DumpState::Vmcs(v) => v.value(Field::GuestRip),
            DumpState::Vmcb(v) => v.value(0x578, 8),
        };
        let same = dumps[..from_kernel].iter().position(|d| rip(d).is_some() && rip(d) == registers.rip());
        let index = same.or((from_kernel == 1).then_some(0)).unwrap_or_else(|| {
            let amd = match &settings.vendor {
                Some(v) => v.value == Vendor::Amd,
                None => failures.iter().any(|f| f.value == 0xffff_ffff || f.value == u64::MAX),
            };
            let state = if amd {
                DumpState::Vmcb(DumpedVmcb::default())
            } else {
                DumpState::Vmcs(DumpedVmcs::default())
            };
            dumps.push(Dump { lines: registers.lines, state, failure: None, host_cpu: None });
            dumps.len() - 1
        });
        match &mut dumps[index].state {
            DumpState::Vmcs(v) => registers.fill_vmcs(v),
            DumpState::Vmcb(v) => registers.fill_vmcb(v),
        }
    }
}

/// Fields of a list go to every dump of their vendor; without one they are a dump of their own.
fn add_lists(dumps: &mut Vec<Dump>, items: &[Item], unreadable: &mut Vec<Unreadable>) {
    let mut vmcs = DumpedVmcs::default();
    let mut vmcb = DumpedVmcb::default();
    for item in items {
        let (line, what, stored) = match item {
            Item::Vmcs(field, v) => {
                (v.line, field.name().to_owned(), put(&mut vmcs.fields, *field, v.clone(), bits(*field)))
            }
            Item::Vmcb(key, v) => {
                let name = format!("VMCB offset {:#x}", key.offset);
                (v.line, name, put(&mut vmcb.fields, *key, v.clone(), key.size * 8))
            }
            Item::Cpu(_) | Item::MaxPhysAddr(_) | Item::Vendor(_) | Item::Msr(..) => continue,
        };
        if let Err(reason @ Reason::Conflict { .. }) = stored {
            unreadable.push(Unreadable { line, what, reason });
        }
    }
    let span = |lines: &mut dyn Iterator<Item = u32>| {
        lines.fold(None, |span: Option<(u32, u32)>, line| {
            Some(span.map_or((line, line), |(first, last)| (first.min(line), last.max(line))))
        })
    };
    if let Some(lines) = span(&mut vmcs.fields.values().map(|v| v.line)) {
        let mut taken = false;
        for dump in dumps.iter_mut() {
            if let DumpState::Vmcs(v) = &mut dump.state {
                v.fields.extend(vmcs.fields.clone());
                taken = true;
            }
        }
        if !taken {
            dumps.push(Dump { lines, state: DumpState::Vmcs(vmcs), failure: None, host_cpu: None });
        }
    }
    if let Some(lines) = span(&mut vmcb.fields.values().map(|v| v.line)) {
        let mut taken = false;
        for dump in dumps.iter_mut() {
            if let DumpState::Vmcb(v) = &mut dump.state {
                override_vmcb(&mut v.fields, &vmcb.fields);
                taken = true;
            }
        }
        if !taken {
            dumps.push(Dump { lines, state: DumpState::Vmcb(vmcb), failure: None, host_cpu: None });
        }
    }
}

type VmcbFields = std::collections::BTreeMap<VmcbKey, Sourced<u64>>;

/// A listed field replaces every printed one that shares a byte with it.
fn override_vmcb(fields: &mut VmcbFields, listed: &VmcbFields) {
    for (key, value) in listed {
        let end = key.offset + u16::from(key.size);
        fields.retain(|k, _| k.offset + u16::from(k.size) <= key.offset || k.offset >= end);
        fields.insert(*key, value.clone());
    }
}

/// A failure code belongs to the dump nearest to it, by lines between.
fn add_failures(dumps: &mut [Dump], failures: &[Sourced<u64>]) {
    for failure in failures {
        if let Some(dump) = nearest(dumps, failure.line) {
            dump.failure.get_or_insert_with(|| failure.clone());
        }
    }
}

/// The dump with the fewest lines between it and this one.
fn nearest(dumps: &mut [Dump], line: u32) -> Option<&mut Dump> {
    dumps.iter_mut().min_by_key(|d| {
        let (first, last) = d.lines;
        if line < first { first - line } else { line.saturating_sub(last) }
    })
}
