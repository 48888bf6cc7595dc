//! The end of an interrupt without an exit: KVM sets a bit in the guest's memory while the end would do nothing else, and the
//! guest ends the interrupt by clearing it (Linux 6.12, Documentation/virt/kvm/x86/msr.rst, "MSR_KVM_EOI_EN";
//! arch/x86/kvm/lapic.c, `apic_sync_pv_eoi_to_guest`, `apic_sync_pv_eoi_from_guest`).

use rootmode_cpu::apic::{ApicPage, register};

use super::ENABLED;
use crate::kvm::vm::Shared;
use crate::kvm::vm::vcpu::Vcpu;

/// `MSR_KVM_PV_EOI_EN` of a vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EndOfInterrupt {
    pub(super) msr: u64,
    /// The bit was set at the last entry.
    offered: bool,
}

impl EndOfInterrupt {
    /// Where the bit is.
    const fn address(self) -> u64 {
        self.msr & !ENABLED
    }
}

impl Vcpu {
    /// WRMSR: whether the value is valid.
    pub(super) fn set_pv_eoi(&mut self, shared: &Shared, value: u64) -> bool {
        let eoi = EndOfInterrupt { msr: value, offered: false };
        if !eoi.address().is_multiple_of(4)
            || value & ENABLED != 0 && !self.has_memory(shared, eoi.address(), 1)
        {
            return false;
        }
        self.pv.eoi = eoi;
        true
    }

    /// Before an entry: offers the guest to end its interrupt so, if no other waits for that and no I/O APIC.
    pub(in crate::kvm::vm) fn offer_eoi(&mut self, shared: &Shared) {
        let eoi = self.pv.eoi;
        if eoi.msr & ENABLED == 0 {
            return;
        }
        let nothing_waits = shared.rooms().irqchip.apic(self.processor.into()).is_some_and(|apic| {
            let serviced = apic.page().highest(register::ISR);
            apic.highest_requested().is_none() && serviced.is_some_and(|vector| !apic.is_level(vector))
        });
        if nothing_waits {
            let address = eoi.address();
            self.pv.eoi.offered =
                shared.memory(self.processor, |memory, below| memory.write(below, address, &[1]));
        }
    }

    /// Behind an exit: takes the offer back, and ends the interrupt if the guest took it.
    pub(in crate::kvm::vm) fn settle_eoi(&mut self, shared: &Shared) {
        if !std::mem::take(&mut self.pv.eoi.offered) {
            return;
        }
        let (address, mut byte) = (self.pv.eoi.address(), [0]);
        let open = shared.memory(self.processor, |memory, below| {
            let open = memory.read(below, address, &mut byte) && byte[0] & 1 != 0;
            if open {
                memory.write(below, address, &[byte[0] & !1]);
            }
            open
        });
        if !open {
            shared.with(self.processor, |machine, rooms| {
                let vcpu = self.processor.into();
                rooms.irqchip.with_apic(machine, vcpu, |apic, _| apic.end_of_interrupt());
            });
        }
    }
}
