//! VMREAD and VMWRITE in VMX non-root operation: they access the shadow VMCS that the link pointer names
//! (SDM Vol. 3C (325384-083, Mar 2024) "VMREAD", "VMWRITE", "VMCS Shadowing").

use super::{Vmx, region};
use crate::Field;
use rootmode_arch::HostPhysical;
use rootmode_cpu::Context;
use rootmode_mmu::PhysicalMemory;

impl Vmx {
    /// The VMCS that VMREAD and VMWRITE of a guest access.
    pub(super) fn shadow(&self) -> Option<HostPhysical> {
        let pointer = self.vmcs.value(Field::LinkPointer);
        (self.guest && pointer != u64::MAX).then_some(HostPhysical(pointer))
    }

    /// The VMCS that VMREAD and VMWRITE access: in a guest the shadow, else the current one.
    pub(super) fn accessed(&self) -> Option<HostPhysical> {
        if self.guest { self.shadow() } else { self.current }
    }

    /// A field of the VMCS that VMREAD and VMWRITE access.
    pub(super) fn accessed_field(&self, memory: &PhysicalMemory, field: Field) -> u64 {
        match self.shadow() {
            Some(shadow) => match self.held_data(shadow) {
                Some(held) => held.value(field),
                None => memory.read_u64(region::field_address(shadow, field)) & field.width().mask(),
            },
            None => self.vmcs.value(field),
        }
    }

    /// Writes it.
    pub(super) fn write_accessed(&mut self, ctx: &mut Context<'_>, field: Field, value: u64) {
        match self.shadow() {
            Some(shadow) => match self.held_data_mut(shadow) {
                Some(held) => held.set(field, value),
                None => region::store(ctx.memory, shadow, field, value & field.width().mask()),
            },
            None => self.write(ctx, field, value),
        }
    }
}
