//! "VM-Entry Control Fields": the event to be injected, if there is one.

use crate::definitions::capabilities::{Basic, Misc};
use crate::definitions::controls::{Control, Word};
use crate::definitions::field::Field;
use crate::rules::rules;
use crate::rules::view::Injection;
use rootmode_arch::{Cr0, Cr4};

/// The control that "monitor trap flag" is.
const MONITOR_TRAP_FLAG: Control = Control { word: Word::Primary, bit: 27 };
/// Vectors of exceptions that would normally deliver an error code: 8, 10 to 14, 17.
const WITH_ERROR_CODE: u32 = 1 << 8 | 0x1f << 10 | 1 << 17;
/// Bit 11 of the interruption-information field.
const DELIVER_ERROR_CODE: u64 = 1 << 11;
/// Bit 13: the exception is nested.
const NESTED: u64 = 1 << 13;

rules! {
    group EntryControls;
    @applies |v| v.injection()?.is_some();

    "vmx.control.injection.type", [EntryInterruptionInfo]
    "If an event is injected, its type must not be 1 (reserved).",
    |v| !v.injects(1)?;

    "vmx.control.injection.other-event", [EntryInterruptionInfo]
    "If an event of type 7 (other event) with vector 0 is injected, the processor must support the \"monitor trap flag\" control.",
    |v| !v.injection()?.is_some_and(|event| event.kind == Injection::OTHER && event.vector == 0)
        || v.supports(MONITOR_TRAP_FLAG)?;

    "vmx.control.injection.nmi-vector", [EntryInterruptionInfo]
    "If an NMI is injected, the vector must be 2.",
    |v| !v.injection()?.is_some_and(|event| event.kind == Injection::NMI && event.vector != 2);

    "vmx.control.injection.exception-vector", [EntryInterruptionInfo]
    "If a hardware exception is injected, the vector must be at most 31.",
    |v| !v.injection()?.is_some_and(|event| event.kind == Injection::HARDWARE && event.vector > 31);

    "vmx.control.injection.other-vector", [EntryInterruptionInfo]
    "If an event of type 7 (other event) is injected, the vector must be 0 (pending MTF VM exit), or with CR4.FRED = 1 also 1 (SYSCALL) or 2 (SYSENTER).",
    |v| match v.injection()? {
        Some(event) if event.kind == Injection::OTHER && event.vector != 0 => {
            event.vector <= 2 && v.cr4()?.contains(Cr4::FRED)
        }
        _ => true,
    };

    "vmx.control.injection.error-code.mode", [EntryInterruptionInfo]
    "If an error code is to be delivered, \"unrestricted guest\" must be 0 or bit 0 (PE) of the guest's CR0 must be 1.",
    |v| v.injection()?.is_none()
        || v.zero(Field::EntryInterruptionInfo, DELIVER_ERROR_CODE)?
        || !v.is_unrestricted()?
        || v.cr0()?.contains(Cr0::PE);

    "vmx.control.injection.error-code.type", [EntryInterruptionInfo]
    "If an error code is to be delivered, the event's type must be 3 (hardware exception).",
    |v| v.injection()?.is_none_or(|event| event.kind == Injection::HARDWARE)
        || v.zero(Field::EntryInterruptionInfo, DELIVER_ERROR_CODE)?;

    "vmx.control.injection.error-code.vector", [EntryInterruptionInfo]
    "If an error code is to be delivered and IA32_VMX_BASIC bit 56 is 0, the vector must be one that has an error code (8, 10 to 14, 17).",
    |v| match v.injection()? {
        Some(event) if event.kind == Injection::HARDWARE && event.vector < 32 => {
            v.zero(Field::EntryInterruptionInfo, DELIVER_ERROR_CODE)?
                || WITH_ERROR_CODE >> event.vector & 1 != 0
                || v.basic()?.contains(Basic::ERROR_CODE_OPTIONAL)
        }
        _ => true,
    };

    "vmx.control.injection.error-code.missing", [EntryInterruptionInfo]
    "If a hardware exception that has an error code is injected into protected mode and IA32_VMX_BASIC bit 56 is 0, the error code must be delivered.",
    |v| match v.injection()? {
        Some(event) if event.kind == Injection::HARDWARE && event.vector < 32 => {
            !v.zero(Field::EntryInterruptionInfo, DELIVER_ERROR_CODE)?
                || WITH_ERROR_CODE >> event.vector & 1 == 0
                || v.basic()?.contains(Basic::ERROR_CODE_OPTIONAL)
                || (v.is_unrestricted()? && !v.cr0()?.contains(Cr0::PE))
        }
        _ => true,
    };

    "vmx.control.injection.reserved", [EntryInterruptionInfo]
    "If an event is injected, bits 30:14 and 12 of the interruption-information field must be 0, and bit 13 too on a processor without nested exceptions.",
    |v| v.injection()?.is_none()
        || (v.zero(Field::EntryInterruptionInfo, 0x7fff_f000 & !NESTED)?
            && (v.zero(Field::EntryInterruptionInfo, NESTED)? || v.basic()?.contains(Basic::NESTED_EXCEPTION)));

    "vmx.control.injection.nested", [EntryInterruptionInfo]
    "If a nested exception is injected (bit 13), its type must be 3 (hardware exception).",
    |v| v.injection()?.is_none_or(|event| event.kind == Injection::HARDWARE)
        || v.zero(Field::EntryInterruptionInfo, NESTED)?
        || !v.basic()?.contains(Basic::NESTED_EXCEPTION);

    "vmx.control.injection.error-code.reserved", [EntryErrorCode]
    "If an error code is to be delivered, bits 31:16 of the exception error code must be 0.",
    |v| v.injection()?.is_none()
        || v.zero(Field::EntryInterruptionInfo, DELIVER_ERROR_CODE)?
        || v.zero(Field::EntryErrorCode, 0xffff_0000)?;

    "vmx.control.injection.length", [EntryInstructionLength]
    "If a software interrupt or exception is injected, the instruction length must be at most 15.",
    |v| !has_length(v.injection()?) || v.get(Field::EntryInstructionLength)? <= 15;

    "vmx.control.injection.length-zero", [EntryInstructionLength]
    "If a software interrupt or exception is injected, the instruction length must not be 0 unless IA32_VMX_MISC bit 30 is 1.",
    |v| !has_length(v.injection()?)
        || v.get(Field::EntryInstructionLength)? != 0
        || v.misc()?.contains(Misc::ZERO_LENGTH_INJECTION);
}

/// Whether the instruction length matters for this injection.
const fn has_length(event: Option<Injection>) -> bool {
    match event {
        Some(event) => event.is_software(),
        None => false,
    }
}
