//! "VM-Exit Control Fields".

use super::rules;
use crate::definitions::controls::{ExitControls as Exit, PinControls as Pin, Word};
use crate::definitions::field::Field;

rules! {
    group ExitControls;

    "vmx.control.exit.required", [ExitControls]
    "VM-exit controls whose allowed-0 setting is 1 must be 1.",
    |v| v.required(Word::Exit, Field::ExitControls)?;

    "vmx.control.exit.permitted", [ExitControls]
    "VM-exit controls whose allowed-1 setting is 0 must be 0.",
    |v| v.permitted(Word::Exit, Field::ExitControls)?;

    "vmx.control.exit-secondary.permitted", [SecondaryExitControls]
    "If the VM-exit control \"activate secondary controls\" is 1, secondary VM-exit controls whose allowed-1 setting is 0 must be 0.",
    |v| !v.exit()?.contains(Exit::ACTIVATE_SECONDARY)
        || v.permitted(Word::SecondaryExit, Field::SecondaryExitControls)?;

    "vmx.control.exit.save-timer", [ExitControls, PinControls]
    "If \"activate VMX-preemption timer\" is 0, \"save VMX-preemption timer value\" must be 0.",
    |v| v.pin()?.contains(Pin::PREEMPTION_TIMER) || !v.exit()?.contains(Exit::SAVE_PREEMPTION_TIMER);

    "vmx.control.exit-store.alignment", [ExitMsrStoreAddress]
    "If the VM-exit MSR-store count is not 0, bits 3:0 of the VM-exit MSR-store address must be 0.",
    |v| v.get(Field::ExitMsrStoreCount)? == 0 || v.zero(Field::ExitMsrStoreAddress, 0xf)?;

    "vmx.control.exit-store.width", [ExitMsrStoreAddress]
    "If the VM-exit MSR-store count is not 0, the VM-exit MSR-store address must not exceed the physical-address width.",
    |v| v.get(Field::ExitMsrStoreCount)? == 0 || v.in_width(Field::ExitMsrStoreAddress)?;

    "vmx.control.exit-store.end", [ExitMsrStoreCount, ExitMsrStoreAddress]
    "If the VM-exit MSR-store count is not 0, the last byte of the MSR-store area (address + 16 * count - 1) must not exceed the physical-address width.",
    |v| v.get(Field::ExitMsrStoreCount)? == 0
        || !v.in_width(Field::ExitMsrStoreAddress)?
        || v.fits(v.get(Field::ExitMsrStoreAddress)? + 16 * v.get(Field::ExitMsrStoreCount)? - 1)?;

    "vmx.control.exit-load.alignment", [ExitMsrLoadAddress]
    "If the VM-exit MSR-load count is not 0, bits 3:0 of the VM-exit MSR-load address must be 0.",
    |v| v.get(Field::ExitMsrLoadCount)? == 0 || v.zero(Field::ExitMsrLoadAddress, 0xf)?;

    "vmx.control.exit-load.width", [ExitMsrLoadAddress]
    "If the VM-exit MSR-load count is not 0, the VM-exit MSR-load address must not exceed the physical-address width.",
    |v| v.get(Field::ExitMsrLoadCount)? == 0 || v.in_width(Field::ExitMsrLoadAddress)?;

    "vmx.control.exit-load.end", [ExitMsrLoadCount, ExitMsrLoadAddress]
    "If the VM-exit MSR-load count is not 0, the last byte of the MSR-load area (address + 16 * count - 1) must not exceed the physical-address width.",
    |v| v.get(Field::ExitMsrLoadCount)? == 0
        || !v.in_width(Field::ExitMsrLoadAddress)?
        || v.fits(v.get(Field::ExitMsrLoadAddress)? + 16 * v.get(Field::ExitMsrLoadCount)? - 1)?;
}
