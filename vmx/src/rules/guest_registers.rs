//! "Checks on Guest Control Registers, Debug Registers, and MSRs": control and debug registers. The MSRs are beside it.

use super::host_registers::{CACHE_BITS, HIGH};
use super::rules;
use crate::definitions::controls::EntryControls as Entry;
use crate::definitions::field::Field;
use rootmode_arch::{Cr0, Cr4, msr};

pub(in crate::rules) mod fred;
pub(in crate::rules) mod fred_mode;
pub(in crate::rules) mod msrs;

rules! {
    group GuestRegisters;

    "vmx.guest.cr0.required", [GuestCr0]
    "Bits of the guest's CR0 that are 1 in IA32_VMX_CR0_FIXED0 must be 1 (CD and NW excepted; PE and PG excepted if \"unrestricted guest\" is 1).",
    |v| {
        let free = if v.is_unrestricted()? { (Cr0::PE | Cr0::PG).0 } else { 0 };
        !v.get(Field::GuestCr0)? & v.capability(msr::IA32_VMX_CR0_FIXED0)? & !CACHE_BITS & !free == 0
    };

    "vmx.guest.cr0.permitted", [GuestCr0]
    "Bits of the guest's CR0 that are 0 in IA32_VMX_CR0_FIXED1 must be 0 (CD and NW excepted).",
    |v| v.get(Field::GuestCr0)? & !v.capability(msr::IA32_VMX_CR0_FIXED1)? & !CACHE_BITS == 0;

    "vmx.guest.cr0.paging", [GuestCr0]
    "If bit 31 (PG) of the guest's CR0 is 1, bit 0 (PE) must be 1.",
    |v| !v.is_unrestricted()? || !v.cr0()?.contains(Cr0::PG) || v.cr0()?.contains(Cr0::PE);

    "vmx.guest.cr4.required", [GuestCr4]
    "Bits of the guest's CR4 that are 1 in IA32_VMX_CR4_FIXED0 must be 1.",
    |v| !v.get(Field::GuestCr4)? & v.capability(msr::IA32_VMX_CR4_FIXED0)? == 0;

    "vmx.guest.cr4.permitted", [GuestCr4]
    "Bits of the guest's CR4 that are 0 in IA32_VMX_CR4_FIXED1 must be 0.",
    |v| v.get(Field::GuestCr4)? & !v.capability(msr::IA32_VMX_CR4_FIXED1)? == 0;

    "vmx.guest.cr4.cet", [GuestCr0, GuestCr4]
    "If bit 23 (CET) of the guest's CR4 is 1, bit 16 (WP) of its CR0 must be 1.",
    |v| !v.cr4()?.contains(Cr4::CET) || v.cr0()?.contains(Cr0::WP);

    "vmx.guest.cr4.fred", [GuestCr4]
    "If \"IA-32e mode guest\" is 0, bit 32 (FRED) of the guest's CR4 must be 0.",
    |v| v.is_ia32e_guest()? || !v.cr4()?.contains(Cr4::FRED);

    "vmx.guest.debugctl", [GuestDebugCtl]
    "If \"load debug controls\" is 1, reserved bits of the guest's IA32_DEBUGCTL must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_DEBUG_CONTROLS)
        || v.get(Field::GuestDebugCtl)? & v.debugctl_reserved()? == 0;

    "vmx.guest.cr0.long-mode", [GuestCr0]
    "If \"IA-32e mode guest\" is 1, bit 31 (PG) of the guest's CR0 must be 1.",
    |v| !v.is_ia32e_guest()? || !v.is_unrestricted()? || v.cr0()?.contains(Cr0::PG);

    "vmx.guest.cr4.pae", [GuestCr4]
    "If \"IA-32e mode guest\" is 1, bit 5 (PAE) of the guest's CR4 must be 1.",
    |v| !v.is_ia32e_guest()? || v.cr4()?.contains(Cr4::PAE);

    "vmx.guest.cr4.pcide", [GuestCr4]
    "If \"IA-32e mode guest\" is 0, bit 17 (PCIDE) of the guest's CR4 must be 0.",
    |v| v.is_ia32e_guest()? || !v.cr4()?.contains(Cr4::PCIDE);

    "vmx.guest.cr3.reserved", [GuestCr3]
    "Bits 63:52 of the guest's CR3 and those beyond the physical-address width must be 0 (LAM bits excepted where there is LAM, if \"IA-32e mode guest\" is 1).",
    // The manual does not tie LAM's bits to the mode; kvm-unit-tests' `vmx_pae_test` and `vmx_pse_test` expect it.
    |v| v.cr3_valid(Field::GuestCr3, v.is_ia32e_guest()?)?;

    "vmx.guest.dr7", [GuestDr7]
    "If \"load debug controls\" is 1, bits 63:32 of the guest's DR7 must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_DEBUG_CONTROLS) || v.zero(Field::GuestDr7, HIGH)?;

    "vmx.guest.sysenter-esp", [GuestSysenterEsp]
    "The guest's IA32_SYSENTER_ESP must be a canonical address.",
    |v| v.canonical(Field::GuestSysenterEsp)?;

    "vmx.guest.sysenter-eip", [GuestSysenterEip]
    "The guest's IA32_SYSENTER_EIP must be a canonical address.",
    |v| v.canonical(Field::GuestSysenterEip)?;
}
