//! "VM-Execution Control Fields": EPT and what needs it, VM functions, Intel PT with guest-physical addresses.

use super::PAGE;
use crate::definitions::capabilities::EptVpid;
use crate::definitions::controls::{
    EntryControls as Entry, ExitControls as Exit, SecondaryControls as Secondary, VmFunctions, Word,
};
use crate::definitions::field::Field;
use crate::rules::rules;

rules! {
    group ExecutionControls;

    "vmx.control.eptp.memory-type", [Eptp]
    "If \"enable EPT\" is 1, bits 2:0 of the EPTP must be a memory type that IA32_VMX_EPT_VPID_CAP reports: 0 (uncacheable) or 6 (write-back).",
    |v| !v.secondary()?.contains(Secondary::ENABLE_EPT) || match v.get(Field::Eptp)? & 7 {
        0 => v.ept_vpid()?.contains(EptVpid::MEMORY_UC),
        6 => v.ept_vpid()?.contains(EptVpid::MEMORY_WB),
        _ => false,
    };

    "vmx.control.eptp.walk-length", [Eptp]
    "If \"enable EPT\" is 1, bits 5:3 of the EPTP must be 1 less than a page-walk length that IA32_VMX_EPT_VPID_CAP reports: 3 or 4.",
    |v| !v.secondary()?.contains(Secondary::ENABLE_EPT) || match v.get(Field::Eptp)? >> 3 & 7 {
        3 => v.ept_vpid()?.contains(EptVpid::WALK_4),
        4 => v.ept_vpid()?.contains(EptVpid::WALK_5),
        _ => false,
    };

    "vmx.control.eptp.accessed-dirty", [Eptp]
    "If \"enable EPT\" is 1, bit 6 of the EPTP (accessed and dirty flags) must be 0 unless IA32_VMX_EPT_VPID_CAP reports them.",
    |v| !v.secondary()?.contains(Secondary::ENABLE_EPT)
        || v.zero(Field::Eptp, 1 << 6)?
        || v.ept_vpid()?.contains(EptVpid::ACCESSED_DIRTY);

    "vmx.control.eptp.shadow-stack", [Eptp]
    "If \"enable EPT\" is 1, bit 7 of the EPTP (supervisor shadow-stack pages) must be 0 unless IA32_VMX_EPT_VPID_CAP reports them.",
    |v| !v.secondary()?.contains(Secondary::ENABLE_EPT)
        || v.zero(Field::Eptp, 1 << 7)?
        || v.ept_vpid()?.contains(EptVpid::SUPERVISOR_SHADOW_STACK);

    "vmx.control.eptp.reserved", [Eptp]
    "If \"enable EPT\" is 1, bits 11:8 of the EPTP must be 0.",
    |v| !v.secondary()?.contains(Secondary::ENABLE_EPT) || v.zero(Field::Eptp, 0xf00)?;

    "vmx.control.eptp.width", [Eptp]
    "If \"enable EPT\" is 1, the EPTP must not exceed the physical-address width.",
    |v| !v.secondary()?.contains(Secondary::ENABLE_EPT) || v.in_width(Field::Eptp)?;

    "vmx.control.pml.ept", [SecondaryControls]
    "If \"enable PML\" is 1, \"enable EPT\" must be 1.",
    |v| !v.secondary()?.contains(Secondary::ENABLE_PML) || v.secondary()?.contains(Secondary::ENABLE_EPT);

    "vmx.control.pml.alignment", [PmlAddress]
    "If \"enable PML\" is 1, bits 11:0 of the PML address must be 0.",
    |v| !v.secondary()?.contains(Secondary::ENABLE_PML) || v.zero(Field::PmlAddress, PAGE)?;

    "vmx.control.pml.width", [PmlAddress]
    "If \"enable PML\" is 1, the PML address must not exceed the physical-address width.",
    |v| !v.secondary()?.contains(Secondary::ENABLE_PML) || v.in_width(Field::PmlAddress)?;

    "vmx.control.unrestricted.ept", [SecondaryControls]
    "If \"unrestricted guest\" is 1, \"enable EPT\" must be 1.",
    |v| !v.secondary()?.contains(Secondary::UNRESTRICTED_GUEST) || v.secondary()?.contains(Secondary::ENABLE_EPT);

    "vmx.control.mode-based-execute.ept", [SecondaryControls]
    "If \"mode-based execute control for EPT\" is 1, \"enable EPT\" must be 1.",
    |v| !v.secondary()?.contains(Secondary::MODE_BASED_EXECUTE) || v.secondary()?.contains(Secondary::ENABLE_EPT);

    "vmx.control.sub-page.ept", [SecondaryControls]
    "If \"sub-page write permissions for EPT\" is 1, \"enable EPT\" must be 1.",
    |v| !v.secondary()?.contains(Secondary::SUB_PAGE_WRITE) || v.secondary()?.contains(Secondary::ENABLE_EPT);

    "vmx.control.sub-page.alignment", [SubPagePermissionTable]
    "If \"sub-page write permissions for EPT\" is 1, bits 11:0 of the SPPTP must be 0.",
    |v| !v.secondary()?.contains(Secondary::SUB_PAGE_WRITE) || v.zero(Field::SubPagePermissionTable, PAGE)?;

    "vmx.control.sub-page.width", [SubPagePermissionTable]
    "If \"sub-page write permissions for EPT\" is 1, the SPPTP must not exceed the physical-address width.",
    |v| !v.secondary()?.contains(Secondary::SUB_PAGE_WRITE) || v.in_width(Field::SubPagePermissionTable)?;

    "vmx.control.vm-functions.permitted", [VmFunctionControls]
    "If \"enable VM functions\" is 1, VM-function controls that IA32_VMX_VMFUNC does not report must be 0.",
    |v| !v.secondary()?.contains(Secondary::ENABLE_VM_FUNCTIONS)
        || v.permitted(Word::VmFunction, Field::VmFunctionControls)?;

    "vmx.control.eptp-switching.ept", [VmFunctionControls, SecondaryControls]
    "If \"EPTP switching\" is 1, \"enable EPT\" must be 1.",
    |v| !v.vm_functions()?.contains(VmFunctions::EPTP_SWITCHING) || v.secondary()?.contains(Secondary::ENABLE_EPT);

    "vmx.control.eptp-switching.alignment", [EptpListAddress]
    "If \"EPTP switching\" is 1, bits 11:0 of the EPTP-list address must be 0.",
    |v| !v.vm_functions()?.contains(VmFunctions::EPTP_SWITCHING) || v.zero(Field::EptpListAddress, PAGE)?;

    "vmx.control.eptp-switching.width", [EptpListAddress]
    "If \"EPTP switching\" is 1, the EPTP-list address must not exceed the physical-address width.",
    |v| !v.vm_functions()?.contains(VmFunctions::EPTP_SWITCHING) || v.in_width(Field::EptpListAddress)?;

    "vmx.control.virtualization-exception.alignment", [VirtualizationExceptionAddress]
    "If \"EPT-violation #VE\" is 1, bits 11:0 of the virtualization-exception information address must be 0.",
    |v| !v.secondary()?.contains(Secondary::EPT_VIOLATION_VE)
        || v.zero(Field::VirtualizationExceptionAddress, PAGE)?;

    "vmx.control.virtualization-exception.width", [VirtualizationExceptionAddress]
    "If \"EPT-violation #VE\" is 1, the virtualization-exception information address must not exceed the physical-address width.",
    |v| !v.secondary()?.contains(Secondary::EPT_VIOLATION_VE) || v.in_width(Field::VirtualizationExceptionAddress)?;

    "vmx.control.pt-guest-physical.ept", [SecondaryControls]
    "If \"Intel PT uses guest physical addresses\" is 1, \"enable EPT\" must be 1.",
    |v| !v.secondary()?.contains(Secondary::PT_GUEST_PHYSICAL) || v.secondary()?.contains(Secondary::ENABLE_EPT);

    "vmx.control.pt-guest-physical.load", [EntryControls, SecondaryControls]
    "If \"Intel PT uses guest physical addresses\" is 1, the VM-entry control \"load IA32_RTIT_CTL\" must be 1.",
    |v| !v.secondary()?.contains(Secondary::PT_GUEST_PHYSICAL) || v.entry()?.contains(Entry::LOAD_RTIT_CTL);

    "vmx.control.pt-guest-physical.clear", [ExitControls, SecondaryControls]
    "If \"Intel PT uses guest physical addresses\" is 1, the VM-exit control \"clear IA32_RTIT_CTL\" must be 1.",
    |v| !v.secondary()?.contains(Secondary::PT_GUEST_PHYSICAL) || v.exit()?.contains(Exit::CLEAR_RTIT_CTL);
}
