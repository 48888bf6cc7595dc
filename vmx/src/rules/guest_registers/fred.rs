//! "Checks on Guest Control Registers, Debug Registers, and MSRs": the FRED MSRs
//! (Flexible Return and Event Delivery specification (346446), "FRED and VMX Transitions").

use crate::definitions::controls::EntryControls as Entry;
use crate::definitions::field::Field;
use crate::rules::rules;

rules! {
    group GuestRegisters;
    @applies |v| v.entry()?.contains(Entry::LOAD_FRED);

    "vmx.guest.fred.config.reserved", [GuestFredConfig]
    "If the VM-entry control \"load IA32_FRED\" is 1, reserved bits (11, 5:4 and 2) of the guest's IA32_FRED_CONFIG must be 0.",
    |v| v.zero(Field::GuestFredConfig, 0x834)?;

    "vmx.guest.fred.config.canonical", [GuestFredConfig]
    "If the VM-entry control \"load IA32_FRED\" is 1, the address in the guest's IA32_FRED_CONFIG must be canonical.",
    |v| v.canonical(Field::GuestFredConfig)?;

    "vmx.guest.fred.rsp1.alignment", [GuestFredRsp1]
    "If the VM-entry control \"load IA32_FRED\" is 1, bits 5:0 of the guest's IA32_FRED_RSP1 must be 0.",
    |v| v.zero(Field::GuestFredRsp1, 0x3f)?;

    "vmx.guest.fred.rsp1.canonical", [GuestFredRsp1]
    "If the VM-entry control \"load IA32_FRED\" is 1, the guest's IA32_FRED_RSP1 must be canonical.",
    |v| v.canonical(Field::GuestFredRsp1)?;

    "vmx.guest.fred.rsp2.alignment", [GuestFredRsp2]
    "If the VM-entry control \"load IA32_FRED\" is 1, bits 5:0 of the guest's IA32_FRED_RSP2 must be 0.",
    |v| v.zero(Field::GuestFredRsp2, 0x3f)?;

    "vmx.guest.fred.rsp2.canonical", [GuestFredRsp2]
    "If the VM-entry control \"load IA32_FRED\" is 1, the guest's IA32_FRED_RSP2 must be canonical.",
    |v| v.canonical(Field::GuestFredRsp2)?;

    "vmx.guest.fred.rsp3.alignment", [GuestFredRsp3]
    "If the VM-entry control \"load IA32_FRED\" is 1, bits 5:0 of the guest's IA32_FRED_RSP3 must be 0.",
    |v| v.zero(Field::GuestFredRsp3, 0x3f)?;

    "vmx.guest.fred.rsp3.canonical", [GuestFredRsp3]
    "If the VM-entry control \"load IA32_FRED\" is 1, the guest's IA32_FRED_RSP3 must be canonical.",
    |v| v.canonical(Field::GuestFredRsp3)?;

    "vmx.guest.fred.ssp1.alignment", [GuestFredSsp1]
    "If the VM-entry control \"load IA32_FRED\" is 1, bits 2:0 of the guest's IA32_FRED_SSP1 must be 0.",
    |v| v.zero(Field::GuestFredSsp1, 7)?;

    "vmx.guest.fred.ssp1.canonical", [GuestFredSsp1]
    "If the VM-entry control \"load IA32_FRED\" is 1, the guest's IA32_FRED_SSP1 must be canonical.",
    |v| v.canonical(Field::GuestFredSsp1)?;

    "vmx.guest.fred.ssp2.alignment", [GuestFredSsp2]
    "If the VM-entry control \"load IA32_FRED\" is 1, bits 2:0 of the guest's IA32_FRED_SSP2 must be 0.",
    |v| v.zero(Field::GuestFredSsp2, 7)?;

    "vmx.guest.fred.ssp2.canonical", [GuestFredSsp2]
    "If the VM-entry control \"load IA32_FRED\" is 1, the guest's IA32_FRED_SSP2 must be canonical.",
    |v| v.canonical(Field::GuestFredSsp2)?;

    "vmx.guest.fred.ssp3.alignment", [GuestFredSsp3]
    "If the VM-entry control \"load IA32_FRED\" is 1, bits 2:0 of the guest's IA32_FRED_SSP3 must be 0.",
    |v| v.zero(Field::GuestFredSsp3, 7)?;

    "vmx.guest.fred.ssp3.canonical", [GuestFredSsp3]
    "If the VM-entry control \"load IA32_FRED\" is 1, the guest's IA32_FRED_SSP3 must be canonical.",
    |v| v.canonical(Field::GuestFredSsp3)?;
}
