//! "Checks on Host Control Registers, MSRs, and SSP": the FRED MSRs
//! (Flexible Return and Event Delivery specification (346446), "FRED and VMX Transitions").

use crate::definitions::controls::SecondaryExitControls as SecondaryExit;
use crate::definitions::field::Field;
use crate::rules::rules;

rules! {
    group HostRegisters;
    @applies |v| v.secondary_exit()?.contains(SecondaryExit::LOAD_FRED);

    "vmx.host.fred.config.reserved", [HostFredConfig]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, reserved bits (11, 5:4 and 2) of the host's IA32_FRED_CONFIG must be 0.",
    |v| v.zero(Field::HostFredConfig, 0x834)?;

    "vmx.host.fred.config.canonical", [HostFredConfig]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, the address in the host's IA32_FRED_CONFIG must be canonical.",
    |v| v.canonical(Field::HostFredConfig)?;

    "vmx.host.fred.rsp1.alignment", [HostFredRsp1]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, bits 5:0 of the host's IA32_FRED_RSP1 must be 0.",
    |v| v.zero(Field::HostFredRsp1, 0x3f)?;

    "vmx.host.fred.rsp1.canonical", [HostFredRsp1]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, the host's IA32_FRED_RSP1 must be canonical.",
    |v| v.canonical(Field::HostFredRsp1)?;

    "vmx.host.fred.rsp2.alignment", [HostFredRsp2]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, bits 5:0 of the host's IA32_FRED_RSP2 must be 0.",
    |v| v.zero(Field::HostFredRsp2, 0x3f)?;

    "vmx.host.fred.rsp2.canonical", [HostFredRsp2]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, the host's IA32_FRED_RSP2 must be canonical.",
    |v| v.canonical(Field::HostFredRsp2)?;

    "vmx.host.fred.rsp3.alignment", [HostFredRsp3]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, bits 5:0 of the host's IA32_FRED_RSP3 must be 0.",
    |v| v.zero(Field::HostFredRsp3, 0x3f)?;

    "vmx.host.fred.rsp3.canonical", [HostFredRsp3]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, the host's IA32_FRED_RSP3 must be canonical.",
    |v| v.canonical(Field::HostFredRsp3)?;

    "vmx.host.fred.ssp1.alignment", [HostFredSsp1]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, bits 2:0 of the host's IA32_FRED_SSP1 must be 0.",
    |v| v.zero(Field::HostFredSsp1, 7)?;

    "vmx.host.fred.ssp1.canonical", [HostFredSsp1]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, the host's IA32_FRED_SSP1 must be canonical.",
    |v| v.canonical(Field::HostFredSsp1)?;

    "vmx.host.fred.ssp2.alignment", [HostFredSsp2]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, bits 2:0 of the host's IA32_FRED_SSP2 must be 0.",
    |v| v.zero(Field::HostFredSsp2, 7)?;

    "vmx.host.fred.ssp2.canonical", [HostFredSsp2]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, the host's IA32_FRED_SSP2 must be canonical.",
    |v| v.canonical(Field::HostFredSsp2)?;

    "vmx.host.fred.ssp3.alignment", [HostFredSsp3]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, bits 2:0 of the host's IA32_FRED_SSP3 must be 0.",
    |v| v.zero(Field::HostFredSsp3, 7)?;

    "vmx.host.fred.ssp3.canonical", [HostFredSsp3]
    "If the secondary VM-exit control \"load IA32_FRED\" is 1, the host's IA32_FRED_SSP3 must be canonical.",
    |v| v.canonical(Field::HostFredSsp3)?;
}
