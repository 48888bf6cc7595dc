//! KVM's paravirtual interfaces: what guests find by CPUID 0x40000001 (Linux 6.12, Documentation/virt/kvm/x86/cpuid.rst,
//! msr.rst, hypercalls.rst; arch/x86/kvm/x86.c, `kvm_set_msr_common`). There are the clock, asynchronous page faults, steal
//! time, the end of interrupts, interprocessor interrupts, kicks, yielding and the control of polling.

mod clock;
mod eoi;
mod faults;
mod steal;

use super::Shared;
use super::vcpu::Vcpu;
use crate::kvm::filter::Failure as Refusal;
use crate::kvm::host::HostBug;

/// `MSR_KVM_WALL_CLOCK`, `MSR_KVM_SYSTEM_TIME` and their `_NEW`.
const WALL_CLOCK_OLD: u32 = 0x11;
const SYSTEM_TIME_OLD: u32 = 0x12;
const WALL_CLOCK: u32 = 0x4b56_4d00;
const SYSTEM_TIME: u32 = 0x4b56_4d01;
/// `MSR_KVM_ASYNC_PF_EN`, `MSR_KVM_ASYNC_PF_INT`, `MSR_KVM_ASYNC_PF_ACK`.
const ASYNC_PF_EN: u32 = 0x4b56_4d02;
const ASYNC_PF_INT: u32 = 0x4b56_4d06;
const ASYNC_PF_ACK: u32 = 0x4b56_4d07;
/// `MSR_KVM_STEAL_TIME`, `MSR_KVM_PV_EOI_EN`, `MSR_KVM_POLL_CONTROL`.
const STEAL_TIME: u32 = 0x4b56_4d03;
const PV_EOI_EN: u32 = 0x4b56_4d04;
const POLL_CONTROL: u32 = 0x4b56_4d05;
/// Bit 0 of those that have an address: KVM writes there.
const ENABLED: u64 = 1;

/// The MSRs, all of which are saved.
pub(super) const MSRS: &[u32] = &[
    WALL_CLOCK_OLD,
    SYSTEM_TIME_OLD,
    WALL_CLOCK,
    SYSTEM_TIME,
    ASYNC_PF_EN,
    ASYNC_PF_INT,
    ASYNC_PF_ACK,
    STEAL_TIME,
    PV_EOI_EN,
    POLL_CONTROL,
];

/// `KVM_FEATURE_CLOCKSOURCE`, `_CLOCKSOURCE2`, `_ASYNC_PF`, `_STEAL_TIME`, `_PV_EOI`, `_PV_UNHALT`, `_ASYNC_PF_VMEXIT`,
/// `_PV_SEND_IPI`, `_POLL_CONTROL`, `_PV_SCHED_YIELD`, `_ASYNC_PF_INT` and `_CLOCKSOURCE_STABLE_BIT`, in EAX.
pub(super) const FEATURES: u32 = 1 << 0
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 10
    | 1 << 11
    | 1 << 12
    | 1 << 13
    | 1 << 14
    | 1 << 24;

/// A vCPU's share in them.
#[derive(Clone, Debug, Default)]
pub(super) struct Paravirtual {
    system_time: u64,
    steal_time: steal::StealTime,
    eoi: eoi::EndOfInterrupt,
    faults: faults::Faults,
    /// The guest polls before it halts, and asks the host not to.
    polls_itself: bool,
    /// Somebody kicked it (`KVM_HC_KICK_CPU`): it does not stay halted.
    pub(super) kicked: bool,
}

impl Vcpu {
    /// RDMSR of one of [`MSRS`].
    pub(super) fn read_pv(&self, shared: &Shared, index: u32) -> u64 {
        match index {
            WALL_CLOCK_OLD | WALL_CLOCK => shared.rooms().wall_clock,
            SYSTEM_TIME_OLD | SYSTEM_TIME => self.pv.system_time,
            ASYNC_PF_EN => self.pv.faults.enabled,
            ASYNC_PF_INT => self.pv.faults.vector.into(),
            STEAL_TIME => self.pv.steal_time.msr,
            PV_EOI_EN => self.pv.eoi.msr,
            POLL_CONTROL => (!self.pv.polls_itself).into(),
            _ => 0,
        }
    }

    /// WRMSR of one of [`MSRS`].
    pub(super) fn write_pv(
        &mut self,
        shared: &Shared,
        index: u32,
        value: u64,
    ) -> Result<Result<(), Refusal>, HostBug> {
        let valid = match index {
            WALL_CLOCK_OLD | WALL_CLOCK => {
                self.write_wall_clock(shared, value);
                true
            }
            SYSTEM_TIME_OLD | SYSTEM_TIME => {
                self.pv.system_time = value;
                self.update_clock(shared)?;
                true
            }
            ASYNC_PF_EN => self.enable_faults(shared, value),
            ASYNC_PF_INT => self.set_fault_vector(shared, value),
            ASYNC_PF_ACK => {
                self.pv.faults.acknowledge(value);
                true
            }
            STEAL_TIME => self.pv.steal_time.set(value),
            PV_EOI_EN => self.set_pv_eoi(shared, value),
            _ if value > 1 => false,
            _ => {
                self.pv.polls_itself = value == 0;
                true
            }
        };
        Ok(if valid { Ok(()) } else { Err(Refusal::Invalid) })
    }

    /// Whether the guest has memory for `size` bytes at `address`.
    fn has_memory(&self, shared: &Shared, address: u64, size: usize) -> bool {
        let mut bytes = vec![0; size];
        shared.memory(self.processor, |memory, below| memory.read(below, address, &mut bytes))
    }
}
