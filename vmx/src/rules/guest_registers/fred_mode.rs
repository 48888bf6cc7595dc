//! "Checks on Guest Control Registers, Debug Registers, and MSRs": a guest that runs with FRED
//! (Flexible Return and Event Delivery specification (346446), "FRED and VMX Transitions").

use crate::definitions::field::Field;
use crate::rules::rules;
use rootmode_arch::{AccessRights, Cr4};

rules! {
    group GuestRegisters;
    @applies |v| v.cr4()?.contains(Cr4::FRED) && v.is_ia32e_guest()?;

    "vmx.guest.fred.ring", [GuestSsRights]
    "If bit 32 (FRED) of the guest's CR4 is 1, DPL of SS must be 0 or 3.",
    |v| matches!(v.rights(Field::GuestSsRights)?.dpl(), 0 | 3);

    "vmx.guest.fred.compatibility", [GuestCsRights]
    "If bit 32 (FRED) of the guest's CR4 is 1 and DPL of SS is 0, L of CS must be 1.",
    |v| v.rights(Field::GuestSsRights)?.dpl() != 0
        || v.rights(Field::GuestCsRights)?.contains(AccessRights::L);

    "vmx.guest.fred.iopl", [GuestRflags]
    "If bit 32 (FRED) of the guest's CR4 is 1 and DPL of SS is 3, IOPL must be 0.",
    |v| v.rights(Field::GuestSsRights)?.dpl() != 3
        || v.rflags()?.iopl() == 0;

    "vmx.guest.fred.sti", [GuestInterruptibility]
    "If bit 32 (FRED) of the guest's CR4 is 1 and DPL of SS is 3, there must be no blocking by STI.",
    |v| v.rights(Field::GuestSsRights)?.dpl() != 3
        || v.zero(Field::GuestInterruptibility, 1)?;
}
