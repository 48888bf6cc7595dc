//! Steal time: how long a vCPU had to wait for a processor, and whether it is off one (Linux 6.12,
//! Documentation/virt/kvm/x86/msr.rst, "MSR_KVM_STEAL_TIME"; arch/x86/kvm/x86.c, `record_steal_time`,
//! `kvm_steal_time_set_preempted`).
//!
//! Every vCPU has a physical processor of its own, so nothing is stolen from it; it is off that processor while its client has
//! it and while it sleeps.

use super::ENABLED;
use crate::kvm::vm::Shared;
use crate::kvm::vm::vcpu::Vcpu;

/// Bits 5:1 of the MSR are reserved.
const RESERVED: u64 = 0x3e;
/// `version` and `preempted` of `struct kvm_steal_time`: where they begin.
const VERSION: u64 = 8;
const PREEMPTED: u64 = 16;
/// `KVM_VCPU_PREEMPTED`.
const IS_PREEMPTED: u8 = 1;

/// `MSR_KVM_STEAL_TIME` of a vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StealTime {
    pub(super) msr: u64,
    /// The guest is told before it is entered.
    due: bool,
}

impl StealTime {
    /// WRMSR: whether the value is valid.
    pub(super) const fn set(&mut self, value: u64) -> bool {
        if value & RESERVED != 0 {
            return false;
        }
        *self = Self { msr: value, due: true };
        true
    }

    fn address(self) -> Option<u64> {
        (self.msr & ENABLED != 0).then_some(self.msr & !(RESERVED | ENABLED))
    }
}

impl Vcpu {
    /// It is on its processor.
    pub(in crate::kvm::vm) const fn is_scheduled(&mut self) {
        self.pv.steal_time.due = true;
    }

    /// Tells the guest before it is entered, if there is news.
    pub(in crate::kvm::vm) fn record_steal_time(&mut self, shared: &Shared) {
        let news = std::mem::take(&mut self.pv.steal_time.due);
        let Some(address) = self.pv.steal_time.address().filter(|_| news) else { return };
        let told =
            shared.memory(self.processor, |memory, below| memory.write(below, address + PREEMPTED, &[0]));
        if told {
            // What was stolen stays as it is, but the guest sees that it was looked at.
            self.write_versioned(shared, address + VERSION, &[]);
        }
    }

    /// It leaves its processor: those who would wait for it are told.
    pub(in crate::kvm::vm) fn is_descheduled(&self, shared: &Shared) {
        let steal_time = self.pv.steal_time;
        // Without an entry since it came the guest knows of nothing else.
        if let Some(address) = steal_time.address().filter(|_| !steal_time.due) {
            shared.memory(self.processor, |memory, below| {
                memory.write(below, address + PREEMPTED, &[IS_PREEMPTED])
            });
        }
    }
}
