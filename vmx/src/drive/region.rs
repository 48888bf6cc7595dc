//! The VMCS region in simulated physical memory: the layout of this processor model.
//!
//! The manual leaves the layout to the processor (SDM Vol. 3C (326019-083, Mar 2024) "Format of the VMCS Region").
//! Ours, all little-endian:
//!
//! | offset | bytes | content |
//! | --- | --- | --- |
//! | 0 | 4 | VMCS revision identifier; bit 31: shadow-VMCS indicator |
//! | 4 | 4 | VMX-abort indicator |
//! | 8 | 4 | launch state: 0 clear, 1 launched |
//! | 0x40 + 8·i | 8 | the field with dense index i ([`Field::index`]), zero-extended |
//!
//! VMPTRLD reads the fields into the processor; every later change goes through to memory at once, so VMCLEAR has
//! nothing left to write but the launch state; only hostile hardware keeps them to itself until then. A store by software to the region of a current VMCS is not seen before
//! the next VMPTRLD (the manual leaves it undefined).

use crate::{Field, Vmcs};
use rootmode_arch::HostPhysical;
use rootmode_mmu::PhysicalMemory;

const ABORT: u64 = 4;
const LAUNCH_STATE: u64 = 8;
const FIELDS: u64 = 0x40;

const _: () = assert!(FIELDS as usize + 8 * Field::COUNT <= 4096, "all fields fit into the region");

/// Where `field` lies in `region`.
pub const fn field_address(region: HostPhysical, field: Field) -> HostPhysical {
    region.offset(FIELDS + 8 * field.index() as u64)
}

/// Bits 31:0: revision identifier and shadow-VMCS indicator.
pub fn revision(memory: &PhysicalMemory, region: HostPhysical) -> u32 {
    memory.read_u32(region)
}

/// Whether the launch state is "launched".
pub fn is_launched(memory: &PhysicalMemory, region: HostPhysical) -> bool {
    memory.read_u32(region.offset(LAUNCH_STATE)) == 1
}

/// Sets the launch state.
pub fn set_launched(memory: &mut PhysicalMemory, region: HostPhysical, launched: bool) {
    memory.write_u32(region.offset(LAUNCH_STATE), launched.into());
}

/// Sets the VMX-abort indicator.
pub fn set_abort(memory: &mut PhysicalMemory, region: HostPhysical, indicator: u32) {
    memory.write_u32(region.offset(ABORT), indicator);
}

/// All fields.
pub fn load(memory: &PhysicalMemory, region: HostPhysical) -> Vmcs {
    Vmcs::read(|field| Some(memory.read_u64(field_address(region, field))))
}

/// One field.
pub fn store(memory: &mut PhysicalMemory, region: HostPhysical, field: Field, value: u64) {
    memory.write_u64(field_address(region, field), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmcs_survives_the_way_through_memory() {
        let mut memory = PhysicalMemory::new();
        let region = HostPhysical(0x3000);
        memory.add_ram(HostPhysical(0), 0x10000).unwrap();
        for field in Field::ALL {
            store(
                &mut memory,
                region,
                field,
                field.width().mask() & (0x0101_0101_0101_0101 * field.index() as u64),
            );
        }
        let vmcs = load(&memory, region);
        for field in Field::ALL {
            let expected = field.width().mask() & (0x0101_0101_0101_0101 * field.index() as u64);
            assert_eq!(vmcs.get(field), Some(expected), "{field:?}");
        }
        set_launched(&mut memory, region, true);
        assert!(is_launched(&memory, region) && memory.read_u32(region) == 0);
    }
}
