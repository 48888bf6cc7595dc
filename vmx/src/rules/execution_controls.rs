//! "VM-Execution Control Fields": settings that the processor allows, bitmaps, interrupts.
//! The virtual APIC, the second stage and the tertiary controls have files of their own.

use super::rules;
use crate::definitions::controls::{
    PinControls as Pin, PrimaryControls as Primary, SecondaryControls as Secondary, Word,
};
use crate::definitions::field::Field;

pub(in crate::rules) mod second_stage;
pub(in crate::rules) mod tertiary;
pub(in crate::rules) mod virtual_apic;

/// Bits 11:0 of an address.
pub(in crate::rules) const PAGE: u64 = 0xfff;

rules! {
    group ExecutionControls;

    "vmx.control.pin.required", [PinControls]
    "Pin-based controls whose allowed-0 setting is 1 must be 1.",
    |v| v.required(Word::Pin, Field::PinControls)?;

    "vmx.control.pin.permitted", [PinControls]
    "Pin-based controls whose allowed-1 setting is 0 must be 0.",
    |v| v.permitted(Word::Pin, Field::PinControls)?;

    "vmx.control.primary.required", [PrimaryControls]
    "Primary processor-based controls whose allowed-0 setting is 1 must be 1.",
    |v| v.required(Word::Primary, Field::PrimaryControls)?;

    "vmx.control.primary.permitted", [PrimaryControls]
    "Primary processor-based controls whose allowed-1 setting is 0 must be 0.",
    |v| v.permitted(Word::Primary, Field::PrimaryControls)?;

    "vmx.control.secondary.permitted", [SecondaryControls]
    "If \"activate secondary controls\" is 1, secondary processor-based controls whose allowed-1 setting is 0 must be 0.",
    |v| !v.primary()?.contains(Primary::ACTIVATE_SECONDARY) || v.permitted(Word::Secondary, Field::SecondaryControls)?;

    "vmx.control.secondary.required", [SecondaryControls]
    "If \"activate secondary controls\" is 1, secondary processor-based controls whose allowed-0 setting is 1 must be 1.",
    |v| !v.primary()?.contains(Primary::ACTIVATE_SECONDARY) || v.required(Word::Secondary, Field::SecondaryControls)?;

    "vmx.control.tertiary.permitted", [TertiaryControls]
    "If \"activate tertiary controls\" is 1, tertiary processor-based controls whose allowed-1 setting is 0 must be 0.",
    |v| !v.primary()?.contains(Primary::ACTIVATE_TERTIARY) || v.permitted(Word::Tertiary, Field::TertiaryControls)?;

    "vmx.control.cr3-target-count", [Cr3TargetCount]
    "The CR3-target count must not be greater than the number of CR3-target values that IA32_VMX_MISC reports.",
    |v| v.get(Field::Cr3TargetCount)? <= u64::from(v.misc()?.cr3_targets());

    "vmx.control.io-bitmap-a.alignment", [IoBitmapA]
    "If \"use I/O bitmaps\" is 1, bits 11:0 of the address of I/O bitmap A must be 0.",
    |v| !v.primary()?.contains(Primary::USE_IO_BITMAPS) || v.zero(Field::IoBitmapA, PAGE)?;

    "vmx.control.io-bitmap-a.width", [IoBitmapA]
    "If \"use I/O bitmaps\" is 1, the address of I/O bitmap A must not exceed the physical-address width.",
    |v| !v.primary()?.contains(Primary::USE_IO_BITMAPS) || v.in_width(Field::IoBitmapA)?;

    "vmx.control.io-bitmap-b.alignment", [IoBitmapB]
    "If \"use I/O bitmaps\" is 1, bits 11:0 of the address of I/O bitmap B must be 0.",
    |v| !v.primary()?.contains(Primary::USE_IO_BITMAPS) || v.zero(Field::IoBitmapB, PAGE)?;

    "vmx.control.io-bitmap-b.width", [IoBitmapB]
    "If \"use I/O bitmaps\" is 1, the address of I/O bitmap B must not exceed the physical-address width.",
    |v| !v.primary()?.contains(Primary::USE_IO_BITMAPS) || v.in_width(Field::IoBitmapB)?;

    "vmx.control.msr-bitmap.alignment", [MsrBitmap]
    "If \"use MSR bitmaps\" is 1, bits 11:0 of the MSR-bitmap address must be 0.",
    |v| !v.primary()?.contains(Primary::USE_MSR_BITMAPS) || v.zero(Field::MsrBitmap, PAGE)?;

    "vmx.control.msr-bitmap.width", [MsrBitmap]
    "If \"use MSR bitmaps\" is 1, the MSR-bitmap address must not exceed the physical-address width.",
    |v| !v.primary()?.contains(Primary::USE_MSR_BITMAPS) || v.in_width(Field::MsrBitmap)?;

    "vmx.control.virtual-nmis", [PinControls]
    "If \"NMI exiting\" is 0, \"virtual NMIs\" must be 0.",
    |v| v.pin()?.contains(Pin::NMI_EXITING) || !v.pin()?.contains(Pin::VIRTUAL_NMIS);

    "vmx.control.nmi-window", [PrimaryControls, PinControls]
    "If \"virtual NMIs\" is 0, \"NMI-window exiting\" must be 0.",
    |v| v.pin()?.contains(Pin::VIRTUAL_NMIS) || !v.primary()?.contains(Primary::NMI_WINDOW_EXITING);

    "vmx.control.vpid", [Vpid]
    "If \"enable VPID\" is 1, the VPID must not be 0.",
    |v| !v.secondary()?.contains(Secondary::ENABLE_VPID) || v.get(Field::Vpid)? != 0;

    "vmx.control.shadowing.vmread.alignment", [VmreadBitmap]
    "If \"VMCS shadowing\" is 1, bits 11:0 of the VMREAD-bitmap address must be 0.",
    |v| !v.secondary()?.contains(Secondary::VMCS_SHADOWING) || v.zero(Field::VmreadBitmap, PAGE)?;

    "vmx.control.shadowing.vmread.width", [VmreadBitmap]
    "If \"VMCS shadowing\" is 1, the VMREAD-bitmap address must not exceed the physical-address width.",
    |v| !v.secondary()?.contains(Secondary::VMCS_SHADOWING) || v.in_width(Field::VmreadBitmap)?;

    "vmx.control.shadowing.vmwrite.alignment", [VmwriteBitmap]
    "If \"VMCS shadowing\" is 1, bits 11:0 of the VMWRITE-bitmap address must be 0.",
    |v| !v.secondary()?.contains(Secondary::VMCS_SHADOWING) || v.zero(Field::VmwriteBitmap, PAGE)?;

    "vmx.control.shadowing.vmwrite.width", [VmwriteBitmap]
    "If \"VMCS shadowing\" is 1, the VMWRITE-bitmap address must not exceed the physical-address width.",
    |v| !v.secondary()?.contains(Secondary::VMCS_SHADOWING) || v.in_width(Field::VmwriteBitmap)?;

    "vmx.control.tsc-multiplier", [TscMultiplier]
    "If \"use TSC scaling\" is 1, the TSC multiplier must not be 0.",
    |v| !v.secondary()?.contains(Secondary::USE_TSC_SCALING) || v.get(Field::TscMultiplier)? != 0;

    "vmx.control.pasid.low.alignment", [LowPasidDirectory]
    "If \"PASID translation\" is 1, bits 11:0 of the low PASID directory address must be 0.",
    |v| !v.secondary()?.contains(Secondary::PASID_TRANSLATION) || v.zero(Field::LowPasidDirectory, PAGE)?;

    "vmx.control.pasid.low.width", [LowPasidDirectory]
    "If \"PASID translation\" is 1, the low PASID directory address must not exceed the physical-address width.",
    |v| !v.secondary()?.contains(Secondary::PASID_TRANSLATION) || v.in_width(Field::LowPasidDirectory)?;

    "vmx.control.pasid.high.alignment", [HighPasidDirectory]
    "If \"PASID translation\" is 1, bits 11:0 of the high PASID directory address must be 0.",
    |v| !v.secondary()?.contains(Secondary::PASID_TRANSLATION) || v.zero(Field::HighPasidDirectory, PAGE)?;

    "vmx.control.pasid.high.width", [HighPasidDirectory]
    "If \"PASID translation\" is 1, the high PASID directory address must not exceed the physical-address width.",
    |v| !v.secondary()?.contains(Secondary::PASID_TRANSLATION) || v.in_width(Field::HighPasidDirectory)?;
}
