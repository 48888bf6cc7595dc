//! What a machine with hostile hardware found: uses of stale translations, told to people.

use rootmode_arch::record::{
    HeldRegion, HeldUse, Observer, Payload, Place, Record, StaleUse, StaleWhy, TrustedField,
};
use rootmode_svm::vmcb::{Clean, TABLE};

use crate::transparency::Recorder;

/// An observer that keeps the findings. Clones share them: one observes, another takes.
#[derive(Clone, Debug, Default)]
pub struct Findings(Recorder);

impl Findings {
    /// The findings since the last call, in the order in which they happened.
    pub fn take(&self) -> Vec<Record> {
        self.0.take()
    }
}

impl Observer for Findings {
    fn observe(&mut self, record: &Record) {
        if matches!(record.payload, Payload::Stale(_) | Payload::Trusted(_) | Payload::Held(_)) {
            self.0.observe(record);
        }
    }
}

fn at(place: &Place) -> String {
    format!("vCPU {} at rip {:#x}, tick {}", place.vcpu, place.rip, place.tick)
}

/// `held`, found in `record`, in a line.
pub fn describe_held(record: &Record, held: &HeldRegion) -> String {
    let what = match held.how {
        HeldUse::Read => "load from",
        HeldUse::Written => "store to",
        HeldUse::Loaded => "VMPTRLD of",
        HeldUse::Cleared => "VMCLEAR of",
    };
    let by = at(&Place { tick: record.tick, vcpu: record.vcpu, rip: held.rip });
    let since = at(&held.since);
    format!(
        "held: {by}: {what} the VMCS region at {:#x}, which is active since VMPTRLD by {since}; VMCLEAR is missing there",
        held.region.0
    )
}

/// `stale`, found in `record`, in two lines: what was used, and since when it was stale.
pub fn describe(record: &Record, stale: &StaleUse) -> String {
    let what = match (stale.fetch, stale.write) {
        (true, _) => "fetch from",
        (_, true) => "store to",
        (_, false) => "load from",
    };
    let walked = match stale.walked {
        Some(page) => format!("a walk leads to {:#x}", page.0),
        None => "a walk refuses it".into(),
    };
    let why = match stale.why {
        StaleWhy::Entry { address, old, new } => {
            format!("the entry at {:#x} changed from {old:#x} to {new:#x}", address.0)
        }
        StaleWhy::Root => "the tag was given to other tables (CR3 or the second stage's root)".into(),
        StaleWhy::Registers => "a register that governs translation changed".into(),
    };
    let by = stale
        .changed
        .as_ref()
        .map_or_else(|| "by no instruction that is known".into(), |p| format!("by {}", at(p)));
    format!(
        "stale: vCPU {} at rip {:#x}, tick {}: {what} {:#x} went to the page {:#x}, {walked}; a required invalidation is missing\n       \
         cached by {}; {why} {by}",
        record.vcpu,
        stale.rip,
        record.tick,
        stale.linear.0,
        stale.used.0,
        at(&stale.cached),
    )
}

/// `trusted`, found in `record`, in a line.
pub fn describe_trusted(record: &Record, trusted: &TrustedField) -> String {
    let TrustedField { vmcb, bits, field, kept, written } = *trusted;
    let names: Vec<_> =
        Clean::TABLE.iter().filter(|bit| bits >> bit.bit & 1 != 0).map(|bit| bit.name).collect();
    let names = names.join(", ");
    let at = format!("vCPU {}, tick {}: VMRUN of the VMCB at {:#x}", record.vcpu, record.tick, vmcb.0);
    match field {
        Some(offset) if bits == 0 => {
            let name = TABLE.iter().find(|row| row.offset == offset).map_or("?", |row| row.name);
            format!(
                "host: vCPU {}, tick {}: {name} of the host save area at {:#x} was written while a guest ran ({kept:#x}, now {written:#x})",
                record.vcpu, record.tick, vmcb.0,
            )
        }
        Some(offset) => {
            let name = TABLE.iter().find(|row| row.offset == offset).map_or("?", |row| row.name);
            format!(
                "clean: {at} used {name} as it was ({kept:#x}, now {written:#x}): its clean bit {names} is set"
            )
        }
        None => format!("clean: {at}, which the processor does not keep, has clean bits set: {names}"),
    }
}
