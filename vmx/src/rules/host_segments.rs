//! "Checks on Host Segment and Descriptor-Table Registers".

use super::rules;
use crate::definitions::controls::ExitControls as Exit;
use crate::definitions::field::Field;

pub(in crate::rules) mod address_space;

/// TI and RPL of a selector.
const TI_RPL: u64 = 7;

rules! {
    group HostSegments;

    "vmx.host.cs.selector", [HostCsSelector]
    "RPL and TI of the host's CS selector must be 0.",
    |v| v.zero(Field::HostCsSelector, TI_RPL)?;

    "vmx.host.ss.selector", [HostSsSelector]
    "RPL and TI of the host's SS selector must be 0.",
    |v| v.zero(Field::HostSsSelector, TI_RPL)?;

    "vmx.host.ds.selector", [HostDsSelector]
    "RPL and TI of the host's DS selector must be 0.",
    |v| v.zero(Field::HostDsSelector, TI_RPL)?;

    "vmx.host.es.selector", [HostEsSelector]
    "RPL and TI of the host's ES selector must be 0.",
    |v| v.zero(Field::HostEsSelector, TI_RPL)?;

    "vmx.host.fs.selector", [HostFsSelector]
    "RPL and TI of the host's FS selector must be 0.",
    |v| v.zero(Field::HostFsSelector, TI_RPL)?;

    "vmx.host.gs.selector", [HostGsSelector]
    "RPL and TI of the host's GS selector must be 0.",
    |v| v.zero(Field::HostGsSelector, TI_RPL)?;

    "vmx.host.tr.selector", [HostTrSelector]
    "RPL and TI of the host's TR selector must be 0.",
    |v| v.zero(Field::HostTrSelector, TI_RPL)?;

    "vmx.host.cs.null", [HostCsSelector]
    "The host's CS selector cannot be 0.",
    |v| v.get(Field::HostCsSelector)? != 0;

    "vmx.host.tr.null", [HostTrSelector]
    "The host's TR selector cannot be 0.",
    |v| v.get(Field::HostTrSelector)? != 0;

    "vmx.host.ss.null", [HostSsSelector]
    "The host's SS selector cannot be 0 if \"host address-space size\" is 0.",
    |v| v.get(Field::HostSsSelector)? != 0 || v.exit()?.contains(Exit::HOST_ADDRESS_SPACE_SIZE);

    "vmx.host.fs.base", [HostFsBase]
    "The host's FS base must be canonical.",
    |v| v.canonical(Field::HostFsBase)?;

    "vmx.host.gs.base", [HostGsBase]
    "The host's GS base must be canonical.",
    |v| v.canonical(Field::HostGsBase)?;

    "vmx.host.gdtr.base", [HostGdtrBase]
    "The host's GDTR base must be canonical.",
    |v| v.canonical(Field::HostGdtrBase)?;

    "vmx.host.idtr.base", [HostIdtrBase]
    "The host's IDTR base must be canonical.",
    |v| v.canonical(Field::HostIdtrBase)?;

    "vmx.host.tr.base", [HostTrBase]
    "The host's TR base must be canonical.",
    |v| v.canonical(Field::HostTrBase)?;
}
