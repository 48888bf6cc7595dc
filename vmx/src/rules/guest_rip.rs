//! "Checks on Guest RIP, RFLAGS, and SSP".

use super::host_registers::HIGH;
use super::rules;
use super::view::Injection;
use crate::definitions::controls::EntryControls as Entry;
use crate::definitions::field::Field;
use rootmode_arch::{Cr0, RFlags};

rules! {
    group GuestRip;

    "vmx.guest.rip.high", [GuestRip]
    "If \"IA-32e mode guest\" is 0 or L of CS is 0, bits 63:32 of RIP must be 0.",
    |v| v.is_64_bit_guest()? || v.zero(Field::GuestRip, HIGH)?;

    "vmx.guest.rip.width", [GuestRip]
    "If \"IA-32e mode guest\" is 1 and L of CS is 1, bits of RIP from the processor's linear-address width upward must be identical. (RIP need not be canonical: the bit below may differ.)",
    |v| !v.is_64_bit_guest()? || v.nearly_canonical(Field::GuestRip)?;

    "vmx.guest.rflags.reserved", [GuestRflags]
    "Bits 63:22, 15, 5 and 3 of RFLAGS must be 0.",
    |v| v.zero(Field::GuestRflags, RFlags::RESERVED_ZERO)?;

    "vmx.guest.rflags.one", [GuestRflags]
    "Bit 1 of RFLAGS must be 1.",
    |v| v.rflags()?.contains(RFlags::ONE);

    "vmx.guest.rflags.vm.long", [GuestRflags]
    "If \"IA-32e mode guest\" is 1, VM of RFLAGS must be 0.",
    |v| !v.is_ia32e_guest()? || !v.rflags()?.contains(RFlags::VM);

    "vmx.guest.rflags.vm.real", [GuestRflags]
    "If bit 0 (PE) of the guest's CR0 is 0, VM of RFLAGS must be 0.",
    |v| v.is_ia32e_guest()?
        || v.cr0()?.contains(Cr0::PE)
        || !v.is_unrestricted()?
        || !v.rflags()?.contains(RFlags::VM);

    "vmx.guest.rflags.if", [GuestRflags]
    "If an external interrupt is injected, IF of RFLAGS must be 1.",
    |v| !v.injects(Injection::EXTERNAL)? || v.rflags()?.contains(RFlags::IF);

    "vmx.guest.ssp.alignment", [GuestSsp]
    "If \"load CET state\" is 1, bits 1:0 of SSP must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_CET) || v.zero(Field::GuestSsp, 3)?;

    "vmx.guest.ssp.width", [GuestSsp]
    "If \"load CET state\" is 1, bits of SSP from the processor's linear-address width upward must be identical. (SSP need not be canonical: the bit below may differ.)",
    |v| !v.entry()?.contains(Entry::LOAD_CET) || v.nearly_canonical(Field::GuestSsp)?;
}
