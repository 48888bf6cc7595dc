//! MSR areas: loaded at entries and exits, stored at exits
//! (SDM Vol. 3C (326019-083, Mar 2024) "Loading MSRs", "Saving MSRs").

use super::Vmx;
use crate::Field;
use crate::definitions::capabilities::Misc;
use rootmode_arch::{HostPhysical, msr};
use rootmode_cpu::{Context, Cpu};

/// MSRs that no area may load or store by number: the bases that the VMCS has fields for, and x2APIC registers.
const fn forbidden(index: u32) -> bool {
    matches!(index, msr::IA32_FS_BASE | msr::IA32_GS_BASE) || index >> 8 == 8
}

impl Vmx {
    /// Entries that a list may have: what IA32_VMX_MISC recommends is the limit of this processor.
    fn list_limit(&self) -> u64 {
        Misc(self.capabilities.value(msr::IA32_VMX_MISC)).msr_list_limit().into()
    }

    /// Loads the area that two fields describe.
    ///
    /// # Errors
    /// The 1-based number of the first entry that cannot be loaded.
    pub(super) fn load_msrs(
        &mut self,
        cpu: &mut Cpu,
        ctx: &Context<'_>,
        address: Field,
        count: Field,
    ) -> Result<(), u64> {
        let area = HostPhysical(self.vmcs.value(address));
        let limit = self.list_limit();
        for number in 0..self.vmcs.value(count) {
            if number >= limit {
                return Err(number + 1);
            }
            let entry = area.offset(16 * number);
            let (index, value) = (ctx.memory.read_u64(entry), ctx.memory.read_u64(entry.offset(8)));
            let legal = index >> 32 == 0 && !forbidden(index as u32);
            if !legal || rootmode_cpu::msr::write(cpu, index as u32, value, 0).is_err() {
                return Err(number + 1);
            }
        }
        Ok(())
    }

    /// Stores the VM-exit MSR-store area.
    ///
    /// # Errors
    /// The 1-based number of the first entry that cannot be stored.
    pub(super) fn store_msrs(&mut self, cpu: &Cpu, ctx: &mut Context<'_>) -> Result<(), u64> {
        let area = HostPhysical(self.vmcs.value(Field::ExitMsrStoreAddress));
        let limit = self.list_limit();
        for number in 0..self.vmcs.value(Field::ExitMsrStoreCount) {
            if number >= limit {
                return Err(number + 1);
            }
            let entry = area.offset(16 * number);
            let index = ctx.memory.read_u64(entry);
            let legal = index >> 32 == 0 && !forbidden(index as u32);
            let value = match index as u32 {
                _ if !legal => None,
                // What is stored is neither scaled nor offset.
                msr::IA32_TSC => Some(cpu.host_tsc()),
                index => rootmode_cpu::msr::read(cpu, index).ok(),
            };
            ctx.memory.write_u64(entry.offset(8), value.ok_or(number + 1)?);
        }
        Ok(())
    }
}
