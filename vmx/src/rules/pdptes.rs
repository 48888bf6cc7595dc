//! "Checks on Guest Page-Directory-Pointer-Table Entries": with EPT from the VMCS, without it from memory at CR3.

use super::rules;
use super::view::{Missing, View};
use crate::definitions::controls::SecondaryControls as Secondary;
use crate::definitions::field::Field;
use rootmode_arch::HostPhysical;

/// Bits 8:5, 2 and 1 of a PDPTE.
const RESERVED: u64 = 0x1e6;
/// Bits 31:5 of CR3: where the table lies.
const TABLE: u64 = 0xffff_ffe0;

impl<const PARTIAL: bool> View<'_, PARTIAL> {
    /// Whether an entry is absent or has no reserved bit.
    #[inline(always)]
    fn pdpte_valid(&self, entry: u64) -> Result<bool, Missing> {
        Ok(entry & 1 == 0 || (entry & RESERVED == 0 && self.fits(entry & !RESERVED)?))
    }
    /// Whether a PDPTE field is valid, or does not matter.
    #[inline(always)]
    fn pdpte_field_valid(&self, field: Field) -> Result<bool, Missing> {
        Ok(!self.secondary()?.contains(Secondary::ENABLE_EPT) || self.pdpte_valid(self.get(field)?)?)
    }
    /// Whether entry `index` of the table at CR3 is valid, or does not matter.
    #[inline(always)]
    fn pdpte_in_memory_valid(&self, index: u64) -> Result<bool, Missing> {
        if self.secondary()?.contains(Secondary::ENABLE_EPT) {
            return Ok(true);
        }
        let table = self.get(Field::GuestCr3)? & TABLE;
        self.pdpte_valid(self.memory(HostPhysical(table + 8 * index))?)
    }
}

rules! {
    group Pdptes;
    @applies |v| v.is_pae_guest()?;

    "vmx.guest.pdpte0", [GuestPdpte0]
    "If the guest uses PAE paging and \"enable EPT\" is 1, reserved bits of a present PDPTE0 must be 0.",
    |v| v.pdpte_field_valid(Field::GuestPdpte0)?;

    "vmx.guest.pdpte1", [GuestPdpte1]
    "If the guest uses PAE paging and \"enable EPT\" is 1, reserved bits of a present PDPTE1 must be 0.",
    |v| v.pdpte_field_valid(Field::GuestPdpte1)?;

    "vmx.guest.pdpte2", [GuestPdpte2]
    "If the guest uses PAE paging and \"enable EPT\" is 1, reserved bits of a present PDPTE2 must be 0.",
    |v| v.pdpte_field_valid(Field::GuestPdpte2)?;

    "vmx.guest.pdpte3", [GuestPdpte3]
    "If the guest uses PAE paging and \"enable EPT\" is 1, reserved bits of a present PDPTE3 must be 0.",
    |v| v.pdpte_field_valid(Field::GuestPdpte3)?;

    "vmx.guest.pdpte0.memory", [GuestCr3]
    "If the guest uses PAE paging and \"enable EPT\" is 0, reserved bits of a present entry 0 of the table at CR3 must be 0.",
    |v| v.pdpte_in_memory_valid(0)?;

    "vmx.guest.pdpte1.memory", [GuestCr3]
    "If the guest uses PAE paging and \"enable EPT\" is 0, reserved bits of a present entry 1 of the table at CR3 must be 0.",
    |v| v.pdpte_in_memory_valid(1)?;

    "vmx.guest.pdpte2.memory", [GuestCr3]
    "If the guest uses PAE paging and \"enable EPT\" is 0, reserved bits of a present entry 2 of the table at CR3 must be 0.",
    |v| v.pdpte_in_memory_valid(2)?;

    "vmx.guest.pdpte3.memory", [GuestCr3]
    "If the guest uses PAE paging and \"enable EPT\" is 0, reserved bits of a present entry 3 of the table at CR3 must be 0.",
    |v| v.pdpte_in_memory_valid(3)?;
}
