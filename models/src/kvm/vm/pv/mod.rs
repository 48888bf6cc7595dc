//! KVM's paravirtual interfaces: what guests find by CPUID 0x40000001 (Linux 6.12, Documentation/virt/kvm/x86/cpuid.rst,
//! msr.rst, hypercalls.rst). There are the clock, interprocessor interrupts and yielding.

mod clock;

pub(super) use clock::{SYSTEM_TIMES, WALL_CLOCKS};

/// `KVM_FEATURE_CLOCKSOURCE`, `KVM_FEATURE_CLOCKSOURCE2`, `KVM_FEATURE_PV_SEND_IPI`, `KVM_FEATURE_PV_SCHED_YIELD` and
/// `KVM_FEATURE_CLOCKSOURCE_STABLE_BIT`, in EAX.
pub(super) const FEATURES: u32 = 1 << 0 | 1 << 3 | 1 << 11 | 1 << 13 | 1 << 24;
