//! What a machine with hostile hardware found: uses of stale translations, told to people.

use rootmode_arch::record::{Observer, Payload, Place, Record, StaleUse, StaleWhy};

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
        if matches!(record.payload, Payload::Stale(_)) {
            self.0.observe(record);
        }
    }
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
    let at = |place: &Place| format!("vCPU {} at rip {:#x}, tick {}", place.vcpu, place.rip, place.tick);
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
