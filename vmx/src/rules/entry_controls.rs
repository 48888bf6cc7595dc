//! "VM-Entry Control Fields": allowed settings, the MSR-load area, SMM. Event injection is beside it.

use super::rules;
use crate::context::Item;
use crate::definitions::controls::{EntryControls as Entry, Word};
use crate::definitions::field::Field;

pub(in crate::rules) mod injection;

rules! {
    group EntryControls;

    "vmx.control.entry.required", [EntryControls]
    "VM-entry controls whose allowed-0 setting is 1 must be 1.",
    |v| v.required(Word::Entry, Field::EntryControls)?;

    "vmx.control.entry.permitted", [EntryControls]
    "VM-entry controls whose allowed-1 setting is 0 must be 0.",
    |v| v.permitted(Word::Entry, Field::EntryControls)?;

    "vmx.control.entry-load.alignment", [EntryMsrLoadAddress]
    "If the VM-entry MSR-load count is not 0, bits 3:0 of the VM-entry MSR-load address must be 0.",
    |v| v.get(Field::EntryMsrLoadCount)? == 0 || v.zero(Field::EntryMsrLoadAddress, 0xf)?;

    "vmx.control.entry-load.width", [EntryMsrLoadAddress]
    "If the VM-entry MSR-load count is not 0, the VM-entry MSR-load address must not exceed the physical-address width.",
    |v| v.get(Field::EntryMsrLoadCount)? == 0 || v.in_width(Field::EntryMsrLoadAddress)?;

    "vmx.control.entry-load.end", [EntryMsrLoadCount, EntryMsrLoadAddress]
    "If the VM-entry MSR-load count is not 0, the last byte of the MSR-load area (address + 16 * count - 1) must not exceed the physical-address width.",
    |v| v.get(Field::EntryMsrLoadCount)? == 0
        || !v.in_width(Field::EntryMsrLoadAddress)?
        || v.fits(v.get(Field::EntryMsrLoadAddress)? + 16 * v.get(Field::EntryMsrLoadCount)? - 1)?;

    "vmx.control.entry.to-smm", [EntryControls] @items [InSmm]
    "If the processor is not in SMM, \"entry to SMM\" must be 0.",
    |v| v.is(Item::InSmm)? || !v.entry()?.contains(Entry::ENTRY_TO_SMM);

    "vmx.control.entry.deactivate-dual-monitor", [EntryControls] @items [InSmm]
    "If the processor is not in SMM, \"deactivate dual-monitor treatment\" must be 0.",
    |v| v.is(Item::InSmm)? || !v.entry()?.contains(Entry::DEACTIVATE_DUAL_MONITOR);

    "vmx.control.entry.smm-exclusive", [EntryControls]
    "\"entry to SMM\" and \"deactivate dual-monitor treatment\" cannot both be 1.",
    |v| !v.is(Item::InSmm)? || !v.entry()?.contains(Entry::ENTRY_TO_SMM | Entry::DEACTIVATE_DUAL_MONITOR);

    "vmx.control.entry.tracing", [EntryControls] @items [TraceEnabled]
    "If the processor operates with Intel PT enabled (IA32_RTIT_CTL.TraceEn = 1), \"load IA32_RTIT_CTL\" must be 0.",
    |v| !v.is(Item::TraceEnabled)? || !v.entry()?.contains(Entry::LOAD_RTIT_CTL);
}
