//! "Checks Related to Address-Space Size".

use crate::context::Item;
use crate::definitions::controls::{EntryControls as Entry, ExitControls as Exit};
use crate::definitions::field::Field;
use crate::rules::host_registers::HIGH;
use crate::rules::rules;
use rootmode_arch::{Cr4, Linear};

rules! {
    group AddressSpace;

    "vmx.host.address-space.legacy", [ExitControls] @items [LongModeActive]
    "If the processor is outside IA-32e mode (IA32_EFER.LMA = 0), \"host address-space size\" must be 0.",
    |v| v.is(Item::LongModeActive)? || !v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE);

    "vmx.host.address-space.long", [ExitControls] @items [LongModeActive]
    "If the processor is in IA-32e mode (IA32_EFER.LMA = 1), \"host address-space size\" must be 1.",
    |v| !v.is(Item::LongModeActive)? || v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE);

    "vmx.host.address-space.guest", [EntryControls, ExitControls]
    "If \"host address-space size\" is 0 (as it must be outside IA-32e mode), \"IA-32e mode guest\" must be 0.",
    |v| v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE) || !v.entry()?.contains(Entry::IA32E_MODE_GUEST);

    "vmx.host.cr4.pcide", [HostCr4]
    "If \"host address-space size\" is 0, bit 17 (PCIDE) of the host's CR4 must be 0.",
    |v| v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE) || v.zero(Field::HostCr4, Cr4::PCIDE.0)?;

    "vmx.host.cr4.fred", [HostCr4]
    "If \"host address-space size\" is 0, bit 32 (FRED) of the host's CR4 must be 0.",
    |v| v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE) || v.zero(Field::HostCr4, Cr4::FRED.0)?;

    "vmx.host.rip.high", [HostRip]
    "If \"host address-space size\" is 0, bits 63:32 of the host's RIP must be 0.",
    |v| v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE) || v.zero(Field::HostRip, HIGH)?;

    "vmx.host.s-cet.high", [HostSCet]
    "If \"host address-space size\" is 0 and \"load CET state\" is 1, bits 63:32 of the host's IA32_S_CET must be 0.",
    |v| v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE)
        || !v.exit()?.contains(Exit::LOAD_CET)
        || v.get(Field::HostSCet)? & v.cet_reserved()? != 0
        || v.zero(Field::HostSCet, HIGH)?;

    "vmx.host.ssp.high", [HostSsp]
    "If \"host address-space size\" is 0 and \"load CET state\" is 1, bits 63:32 of the host's SSP must be 0.",
    |v| v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE)
        || !v.exit()?.contains(Exit::LOAD_CET)
        || v.zero(Field::HostSsp, HIGH)?;

    "vmx.host.cr4.pae", [HostCr4]
    "If \"host address-space size\" is 1, bit 5 (PAE) of the host's CR4 must be 1.",
    |v| !v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE) || !v.zero(Field::HostCr4, Cr4::PAE.0)?;

    "vmx.host.rip.canonical", [HostRip]
    "If \"host address-space size\" is 1, the host's RIP must be canonical for the paging that the host's CR4 selects.",
    |v| !v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE)
        || Linear(v.get(Field::HostRip)?).is_canonical(if v.zero(Field::HostCr4, Cr4::LA57.0)? { 48 } else { 57 });

    "vmx.host.s-cet.canonical", [HostSCet]
    "If \"host address-space size\" is 1 and \"load CET state\" is 1, the host's IA32_S_CET must be canonical.",
    |v| !v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE | Exit::LOAD_CET)
        || v.get(Field::HostSCet)? & v.cet_reserved()? != 0
        || v.canonical(Field::HostSCet)?;

    "vmx.host.ssp.canonical", [HostSsp]
    "If \"host address-space size\" is 1 and \"load CET state\" is 1, the host's SSP must be canonical.",
    |v| !v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE | Exit::LOAD_CET) || v.canonical(Field::HostSsp)?;
}
