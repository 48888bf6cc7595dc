//! "VM-Execution Control Fields": TPR shadow, APIC virtualization, posted interrupts.

use super::PAGE;
use crate::definitions::controls::{
    ExitControls as Exit, PinControls as Pin, PrimaryControls as Primary, SecondaryControls as Secondary,
};
use crate::definitions::field::Field;
use crate::rules::rules;
use rootmode_arch::HostPhysical;

/// Offset of the virtual TPR (VTPR) in the virtual-APIC page.
const VTPR: u64 = 0x80;

rules! {
    group ExecutionControls;

    "vmx.control.virtual-apic.alignment", [VirtualApicAddress]
    "If \"use TPR shadow\" is 1, bits 11:0 of the virtual-APIC address must be 0.",
    |v| !v.primary()?.contains(Primary::USE_TPR_SHADOW) || v.zero(Field::VirtualApicAddress, PAGE)?;

    "vmx.control.virtual-apic.width", [VirtualApicAddress]
    "If \"use TPR shadow\" is 1, the virtual-APIC address must not exceed the physical-address width.",
    |v| !v.primary()?.contains(Primary::USE_TPR_SHADOW) || v.in_width(Field::VirtualApicAddress)?;

    "vmx.control.tpr-threshold.reserved", [TprThreshold]
    "If \"use TPR shadow\" is 1 and \"virtual-interrupt delivery\" is 0, bits 31:4 of the TPR threshold must be 0.",
    |v| !v.primary()?.contains(Primary::USE_TPR_SHADOW)
        || v.secondary()?.contains(Secondary::VIRTUAL_INTERRUPT_DELIVERY)
        || v.zero(Field::TprThreshold, !0xf)?;

    "vmx.control.tpr-threshold.vtpr", [TprThreshold]
    "If \"use TPR shadow\" is 1, \"virtualize APIC accesses\" is 0 and \"virtual-interrupt delivery\" is 0, bits 3:0 of the TPR threshold must not be greater than bits 7:4 of VTPR.",
    // A misplaced page or reserved threshold bits are other rules' business.
    |v| !v.primary()?.contains(Primary::USE_TPR_SHADOW)
        || v.secondary()?.intersects(Secondary::VIRTUAL_INTERRUPT_DELIVERY | Secondary::VIRTUALIZE_APIC_ACCESSES)
        || v.get(Field::TprThreshold)? == 0
        || !v.zero(Field::TprThreshold, !0xf)?
        || !v.zero(Field::VirtualApicAddress, PAGE)?
        || !v.in_width(Field::VirtualApicAddress)?
        || v.get(Field::TprThreshold)? <= v.memory(HostPhysical(v.get(Field::VirtualApicAddress)? + VTPR))? >> 4 & 0xf;

    "vmx.control.apic-access.alignment", [ApicAccessAddress]
    "If \"virtualize APIC accesses\" is 1, bits 11:0 of the APIC-access address must be 0.",
    |v| !v.secondary()?.contains(Secondary::VIRTUALIZE_APIC_ACCESSES) || v.zero(Field::ApicAccessAddress, PAGE)?;

    "vmx.control.apic-access.width", [ApicAccessAddress]
    "If \"virtualize APIC accesses\" is 1, the APIC-access address must not exceed the physical-address width.",
    |v| !v.secondary()?.contains(Secondary::VIRTUALIZE_APIC_ACCESSES) || v.in_width(Field::ApicAccessAddress)?;

    "vmx.control.x2apic.tpr-shadow", [SecondaryControls, PrimaryControls]
    "If \"use TPR shadow\" is 0, \"virtualize x2APIC mode\" must be 0.",
    |v| v.primary()?.contains(Primary::USE_TPR_SHADOW) || !v.secondary()?.contains(Secondary::VIRTUALIZE_X2APIC);

    "vmx.control.apic-register.tpr-shadow", [SecondaryControls, PrimaryControls]
    "If \"use TPR shadow\" is 0, \"APIC-register virtualization\" must be 0.",
    |v| v.primary()?.contains(Primary::USE_TPR_SHADOW)
        || !v.secondary()?.contains(Secondary::APIC_REGISTER_VIRTUALIZATION);

    "vmx.control.virtual-interrupt.tpr-shadow", [SecondaryControls, PrimaryControls]
    "If \"use TPR shadow\" is 0, \"virtual-interrupt delivery\" must be 0.",
    |v| v.primary()?.contains(Primary::USE_TPR_SHADOW)
        || !v.secondary()?.contains(Secondary::VIRTUAL_INTERRUPT_DELIVERY);

    "vmx.control.x2apic.apic-accesses", [SecondaryControls]
    "If \"virtualize x2APIC mode\" is 1, \"virtualize APIC accesses\" must be 0.",
    |v| !v.secondary()?.contains(Secondary::VIRTUALIZE_X2APIC | Secondary::VIRTUALIZE_APIC_ACCESSES);

    "vmx.control.virtual-interrupt.external", [PinControls, SecondaryControls]
    "If \"virtual-interrupt delivery\" is 1, \"external-interrupt exiting\" must be 1.",
    |v| v.pin()?.contains(Pin::EXTERNAL_INTERRUPT_EXITING)
        || !v.secondary()?.contains(Secondary::VIRTUAL_INTERRUPT_DELIVERY);

    "vmx.control.posted.virtual-interrupt", [PinControls, SecondaryControls]
    "If \"process posted interrupts\" is 1, \"virtual-interrupt delivery\" must be 1.",
    |v| !v.pin()?.contains(Pin::POSTED_INTERRUPTS) || v.secondary()?.contains(Secondary::VIRTUAL_INTERRUPT_DELIVERY);

    "vmx.control.posted.acknowledge", [ExitControls, PinControls]
    "If \"process posted interrupts\" is 1, the VM-exit control \"acknowledge interrupt on exit\" must be 1.",
    |v| !v.pin()?.contains(Pin::POSTED_INTERRUPTS) || v.exit()?.contains(Exit::ACKNOWLEDGE_INTERRUPT);

    "vmx.control.posted.vector", [PostedInterruptVector]
    "If \"process posted interrupts\" is 1, the posted-interrupt notification vector must be at most 255 (bits 15:8 are 0).",
    |v| !v.pin()?.contains(Pin::POSTED_INTERRUPTS) || v.zero(Field::PostedInterruptVector, 0xff00)?;

    "vmx.control.posted.alignment", [PostedInterruptDescriptor]
    "If \"process posted interrupts\" is 1, bits 5:0 of the posted-interrupt descriptor address must be 0.",
    |v| !v.pin()?.contains(Pin::POSTED_INTERRUPTS) || v.zero(Field::PostedInterruptDescriptor, 0x3f)?;

    "vmx.control.posted.width", [PostedInterruptDescriptor]
    "If \"process posted interrupts\" is 1, the posted-interrupt descriptor address must not exceed the physical-address width.",
    |v| !v.pin()?.contains(Pin::POSTED_INTERRUPTS) || v.in_width(Field::PostedInterruptDescriptor)?;
}
