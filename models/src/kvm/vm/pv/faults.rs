//! Asynchronous page faults (Linux 6.12, Documentation/virt/kvm/x86/msr.rst, "MSR_KVM_ASYNC_PF_EN"; arch/x86/kvm/x86.c,
//! `kvm_pv_enable_async_pf`, `kvm_arch_async_page_present`; virt/kvm/async_pf.c, `kvm_async_pf_wakeup_all`).
//!
//! The model's host never takes pages of its guests out to a disk, so no page is ever missing for long; what is left is the
//! interrupt by which KVM wakes every waiting task of a guest that enables them.

use crate::kvm::vm::Shared;
use crate::kvm::vm::vcpu::Vcpu;

/// Bit 0, and `KVM_ASYNC_PF_DELIVERY_AS_INT`: both are needed.
const WANTED: u64 = 1 | 1 << 3;
/// Bits 5:4 of `MSR_KVM_ASYNC_PF_EN` are reserved; the address begins behind them.
const RESERVED: u64 = 0x30;
const ADDRESS: u64 = !0x3f;
/// `token` of `struct kvm_vcpu_pv_apf_data`, of which KVM uses 8 bytes; and the one that means all tasks.
const TOKEN: u64 = 4;
const SIZE: usize = 8;
const EVERYBODY: u32 = u32::MAX;

/// The MSRs of a vCPU, and what waits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) enabled: u64,
    pub(super) vector: u8,
    /// All tasks shall be woken.
    wakes: bool,
    /// The guest has not acknowledged the last interrupt.
    unacknowledged: bool,
}

impl Faults {
    /// WRMSR of `MSR_KVM_ASYNC_PF_ACK`.
    pub(super) const fn acknowledge(&mut self, value: u64) {
        if value & 1 != 0 {
            self.unacknowledged = false;
        }
    }
}

impl Vcpu {
    /// WRMSR of `MSR_KVM_ASYNC_PF_EN`: whether the value is valid.
    pub(super) fn enable_faults(&mut self, shared: &Shared, value: u64) -> bool {
        if value & RESERVED != 0 {
            return false;
        }
        if !self.has_apic(shared) {
            return value == 0;
        }
        self.pv.faults.enabled = value;
        self.pv.faults.wakes = value & WANTED == WANTED;
        !self.pv.faults.wakes || self.has_memory(shared, value & ADDRESS, SIZE)
    }

    /// WRMSR of `MSR_KVM_ASYNC_PF_INT`: whether the value is valid.
    pub(super) fn set_fault_vector(&mut self, shared: &Shared, value: u64) -> bool {
        let vector = u8::try_from(value).ok().filter(|_| self.has_apic(shared));
        self.pv.faults.vector = vector.unwrap_or(self.pv.faults.vector);
        vector.is_some()
    }

    /// Before an entry: wakes the guest's tasks, once the guest can be told.
    pub(in crate::kvm::vm) fn wake_tasks(&mut self, shared: &Shared) {
        let Faults { enabled, vector, wakes, unacknowledged } = self.pv.faults;
        let vcpu = usize::from(self.processor);
        let apic_is_enabled = || shared.rooms().irqchip.apic(vcpu).is_some_and(|apic| apic.is_enabled());
        if !wakes || unacknowledged || !apic_is_enabled() {
            return;
        }
        let (at, mut token) = ((enabled & ADDRESS) + TOKEN, [0; 4]);
        let told = shared.memory(self.processor, |memory, below| {
            memory.read(below, at, &mut token)
                && token == [0; 4]
                && memory.write(below, at, &EVERYBODY.to_le_bytes())
        });
        if told {
            (self.pv.faults.wakes, self.pv.faults.unacknowledged) = (false, true);
            shared.with(self.processor, |machine, rooms| {
                rooms.irqchip.with_apic(machine, vcpu, |apic, _| apic.receive(vector, false));
            });
        }
    }
}
