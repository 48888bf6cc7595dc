//! [`Watcher`]: whoever wants to know why VMRUN is refused, and how often guests are left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::rules::{EntryContext, Rule};
use rootmode_cpu::Cpu;

/// What is told about a refused VMRUN: what the rules saw, and the first that is broken.
type Refused = dyn Fn(&Cpu, &EntryContext<'_>, &'static Rule) + Send + Sync;

/// Sees every refused VMRUN with everything that the rules saw, and counts exits. Like an observer it changes nothing, and
/// is no part of the processor's state; copies share it.
#[derive(Clone)]
pub struct Watcher {
    refused: Arc<Refused>,
    exits: Arc<AtomicU64>,
}

impl Watcher {
    /// A watcher that tells `refused`, and adds to `exits`.
    pub fn new(
        refused: impl Fn(&Cpu, &EntryContext<'_>, &'static Rule) + Send + Sync + 'static,
        exits: Arc<AtomicU64>,
    ) -> Self {
        Self { refused: Arc::new(refused), exits }
    }

    /// VMRUN was refused.
    pub(super) fn refused(&self, cpu: &Cpu, context: &EntryContext<'_>, rule: &'static Rule) {
        (self.refused)(cpu, context, rule);
    }

    /// A guest was left.
    pub(super) fn left(&self) {
        self.exits.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}
