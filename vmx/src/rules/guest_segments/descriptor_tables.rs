//! "Checks on Guest Descriptor-Table Registers": GDTR and IDTR.

use crate::definitions::field::Field;
use crate::rules::rules;

rules! {
    group GuestDescriptorTables;

    "vmx.guest.gdtr.base", [GuestGdtrBase]
    "The base of GDTR must be canonical.",
    |v| v.canonical(Field::GuestGdtrBase)?;

    "vmx.guest.idtr.base", [GuestIdtrBase]
    "The base of IDTR must be canonical.",
    |v| v.canonical(Field::GuestIdtrBase)?;

    "vmx.guest.gdtr.limit", [GuestGdtrLimit]
    "Bits 31:16 of the limit of GDTR must be 0.",
    |v| v.zero(Field::GuestGdtrLimit, 0xffff_0000)?;

    "vmx.guest.idtr.limit", [GuestIdtrLimit]
    "Bits 31:16 of the limit of IDTR must be 0.",
    |v| v.zero(Field::GuestIdtrLimit, 0xffff_0000)?;
}
