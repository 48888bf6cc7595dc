//! "VM-Execution Control Fields": HLAT, EPT paging-write control, guest-paging verification, IPI virtualization.

use crate::definitions::controls::{
    PrimaryControls as Primary, SecondaryControls as Secondary, TertiaryControls as Tertiary,
};
use crate::definitions::field::Field;
use crate::rules::rules;

rules! {
    group ExecutionControls;
    @applies |v| v.primary()?.contains(Primary::ACTIVATE_TERTIARY);

    "vmx.control.hlat.ept", [TertiaryControls, SecondaryControls]
    "If \"enable HLAT\" is 1, \"enable EPT\" must be 1.",
    |v| !v.tertiary()?.contains(Tertiary::ENABLE_HLAT) || v.secondary()?.contains(Secondary::ENABLE_EPT);

    "vmx.control.hlat.reserved", [Hlatp]
    "If \"enable HLAT\" is 1, bits 2:0 and 11:5 of the HLAT pointer must be 0.",
    |v| !v.tertiary()?.contains(Tertiary::ENABLE_HLAT) || v.zero(Field::Hlatp, 0xfe7)?;

    "vmx.control.hlat.width", [Hlatp]
    "If \"enable HLAT\" is 1, the HLAT pointer must not exceed the physical-address width.",
    |v| !v.tertiary()?.contains(Tertiary::ENABLE_HLAT) || v.in_width(Field::Hlatp)?;

    "vmx.control.paging-write.ept", [TertiaryControls, SecondaryControls]
    "If \"EPT paging-write control\" is 1, \"enable EPT\" must be 1.",
    |v| !v.tertiary()?.contains(Tertiary::EPT_PAGING_WRITE) || v.secondary()?.contains(Secondary::ENABLE_EPT);

    "vmx.control.guest-paging-verification.ept", [TertiaryControls, SecondaryControls]
    "If \"guest-paging verification\" is 1, \"enable EPT\" must be 1.",
    |v| !v.tertiary()?.contains(Tertiary::GUEST_PAGING_VERIFICATION) || v.secondary()?.contains(Secondary::ENABLE_EPT);

    "vmx.control.ipi-virtualization.tpr-shadow", [TertiaryControls, PrimaryControls]
    "If \"use TPR shadow\" is 0, \"IPI virtualization\" must be 0.",
    |v| v.primary()?.contains(Primary::USE_TPR_SHADOW) || !v.tertiary()?.contains(Tertiary::IPI_VIRTUALIZATION);

    "vmx.control.ipi-virtualization.alignment", [PidPointerTable]
    "If \"IPI virtualization\" is 1, bits 2:0 of the PID-pointer table address must be 0.",
    |v| !v.tertiary()?.contains(Tertiary::IPI_VIRTUALIZATION) || v.zero(Field::PidPointerTable, 7)?;

    "vmx.control.ipi-virtualization.width", [PidPointerTable]
    "If \"IPI virtualization\" is 1, the PID-pointer table address must not exceed the physical-address width.",
    |v| !v.tertiary()?.contains(Tertiary::IPI_VIRTUALIZATION) || v.in_width(Field::PidPointerTable)?;

    "vmx.control.ipi-virtualization.last", [PidPointerTable, LastPidPointerIndex]
    "If \"IPI virtualization\" is 1, the address of the last entry of the PID-pointer table (base + 8 * last index) must not exceed the physical-address width.",
    |v| !v.tertiary()?.contains(Tertiary::IPI_VIRTUALIZATION)
        || !v.in_width(Field::PidPointerTable)?
        || v.fits(v.get(Field::PidPointerTable)? + 8 * v.get(Field::LastPidPointerIndex)?)?;
}
