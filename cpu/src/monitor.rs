//! The address-range monitor of a processor, and what a processor that waits wakes for
//! (SDM Vol. 3A "MONITOR/MWAIT Instruction", Vol. 2B "UMWAIT", "TPAUSE").

use crate::Cpu;
use crate::state::Activity;
use rootmode_arch::{HostPhysical, RFlags};
use rootmode_mmu::{Digest, PhysicalMemory};

/// Which instruction armed the monitor: MWAIT and UMWAIT look only for their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum By {
    /// MONITOR.
    Monitor = 1,
    /// UMONITOR.
    UserMonitor = 2,
}

/// An armed monitor, and the wait in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Monitor {
    /// Who armed it, and how many monitored lines had been hit by then: one more, of any processor, ends it. That is more
    /// often than needed, which the manual allows.
    armed: Option<(By, u64)>,
    wait: Wait,
}

/// What ends a wait beside what reaches an active processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Wait {
    /// A hit of the monitor.
    pub(crate) monitored: bool,
    /// A maskable interrupt, also one that RFLAGS.IF holds back.
    pub(crate) masked: bool,
    /// The time: a tick.
    pub(crate) until: Option<u64>,
    /// That time is the system's limit, of which RFLAGS.CF tells.
    pub(crate) limited: bool,
}

impl Monitor {
    /// Arms it for the line of `address`; not if stores there would go unnoticed.
    pub(crate) fn arm(&mut self, memory: &mut PhysicalMemory, address: HostPhysical, by: By) {
        self.armed = memory.monitor(address).then(|| (by, memory.monitor_hits()));
    }

    /// Whether `by` armed it and nothing was stored since.
    pub(crate) fn is_armed(&self, memory: &PhysicalMemory, by: By) -> bool {
        self.armed == Some((by, memory.monitor_hits()))
    }

    /// Clears it, as VM entries and VM exits do (SDM Vol. 3C "Clearing Address-Range Monitoring").
    pub const fn clear(&mut self) {
        self.armed = None;
    }

    /// Adds the state to `digest`.
    pub(crate) fn digest(&self, digest: &mut Digest) {
        if *self != Self::default() {
            let Wait { monitored, masked, until, limited } = self.wait;
            let (by, hits) = self.armed.map_or((0, 0), |(by, hits)| (by as u64, hits));
            let flags = [monitored, masked, limited, until.is_some()];
            let flags = flags.iter().fold(0, |all, flag| all << 1 | u64::from(*flag));
            digest.all(&[by, hits, flags, until.unwrap_or(0)]);
        }
    }
}

impl Cpu {
    /// Goes to wait.
    pub(crate) fn wait(&mut self, wait: Wait) {
        self.monitor.wait = wait;
        self.activity = Activity::Waiting;
        self.update_attention();
    }

    /// The wait in progress.
    const fn waits(&self) -> Option<Wait> {
        if matches!(self.activity, Activity::Waiting) { Some(self.monitor.wait) } else { None }
    }

    /// The tick at which the wait in progress ends by itself.
    pub(crate) fn wakes_at(&self) -> Option<u64> {
        self.waits()?.until
    }

    /// The wait in progress ends for a maskable interrupt that is held back.
    pub(crate) fn wakes_for_masked(&self) -> bool {
        self.waits().is_some_and(|wait| wait.masked)
    }

    /// Whether a store or the time ended the wait in progress.
    pub(crate) fn is_woken(&self, memory: &PhysicalMemory) -> bool {
        self.waits().is_some_and(|wait| {
            let hit = self.monitor.armed.is_none_or(|(_, hits)| hits != memory.monitor_hits());
            wait.monitored && hit || wait.until.is_some_and(|tick| self.tick >= tick)
        })
    }

    /// Ends the wait in progress if something happened that ends it without being delivered.
    pub(crate) fn try_waking(&mut self, memory: &PhysicalMemory) -> bool {
        let interrupted = self.wakes_for_masked() && self.pending_interrupt().is_some();
        if !interrupted && !self.is_woken(memory) {
            return false;
        }
        let wait = self.monitor.wait;
        if wait.limited && wait.until.is_some_and(|tick| self.tick >= tick) {
            self.set_status(RFlags::CF.0, RFlags::CF.0);
        }
        self.monitor = Monitor::default();
        self.activity = Activity::Active;
        self.update_attention();
        true
    }
}
