//! "Checks on Host Control Registers, MSRs, and SSP".

use super::rules;
use crate::context::Item;
use crate::definitions::controls::ExitControls as Exit;
use crate::definitions::field::Field;
use rootmode_arch::{Cr0, Cr4, Efer, msr};

pub(in crate::rules) mod fred;

/// CR0.NW and CR0.CD: VM entry and exit do not change them and never check them.
pub(in crate::rules) const CACHE_BITS: u64 = Cr0::NW.0 | Cr0::CD.0;
/// IA32_S_CET: SUPPRESS and TRACKER.
pub(in crate::rules) const SUPPRESS_AND_TRACKER: u64 = 3 << 10;
/// Bits 63:32.
pub(in crate::rules) const HIGH: u64 = 0xffff_ffff_0000_0000;

rules! {
    group HostRegisters;

    "vmx.host.cr0.required", [HostCr0]
    "Bits of the host's CR0 that are 1 in IA32_VMX_CR0_FIXED0 must be 1 (CD and NW excepted).",
    |v| !v.get(Field::HostCr0)? & v.capability(msr::IA32_VMX_CR0_FIXED0)? & !CACHE_BITS == 0;

    "vmx.host.cr0.permitted", [HostCr0]
    "Bits of the host's CR0 that are 0 in IA32_VMX_CR0_FIXED1 must be 0 (CD and NW excepted).",
    |v| v.get(Field::HostCr0)? & !v.capability(msr::IA32_VMX_CR0_FIXED1)? & !CACHE_BITS == 0;

    "vmx.host.cr4.required", [HostCr4]
    "Bits of the host's CR4 that are 1 in IA32_VMX_CR4_FIXED0 must be 1.",
    |v| !v.get(Field::HostCr4)? & v.capability(msr::IA32_VMX_CR4_FIXED0)? == 0;

    "vmx.host.cr4.permitted", [HostCr4]
    "Bits of the host's CR4 that are 0 in IA32_VMX_CR4_FIXED1 must be 0.",
    |v| v.get(Field::HostCr4)? & !v.capability(msr::IA32_VMX_CR4_FIXED1)? == 0;

    "vmx.host.cr4.cet", [HostCr0, HostCr4]
    "If bit 23 (CET) of the host's CR4 is 1, bit 16 (WP) of its CR0 must be 1.",
    |v| v.zero(Field::HostCr4, Cr4::CET.0)? || !v.zero(Field::HostCr0, Cr0::WP.0)?;

    "vmx.host.cr3.reserved", [HostCr3]
    "Bits 63:52 of the host's CR3 and those beyond the physical-address width must be 0 (LAM bits excepted where there is LAM).",
    |v| v.cr3_valid(Field::HostCr3, true)?;

    "vmx.host.sysenter-esp", [HostSysenterEsp]
    "The host's IA32_SYSENTER_ESP must be a canonical address.",
    |v| v.canonical(Field::HostSysenterEsp)?;

    "vmx.host.sysenter-eip", [HostSysenterEip]
    "The host's IA32_SYSENTER_EIP must be a canonical address.",
    |v| v.canonical(Field::HostSysenterEip)?;

    "vmx.host.perf-global-ctrl", [HostPerfGlobalCtrl]
    "If \"load IA32_PERF_GLOBAL_CTRL\" is 1, reserved bits of the host's IA32_PERF_GLOBAL_CTRL must be 0.",
    |v| !v.exit()?.contains(Exit::LOAD_PERF_GLOBAL_CTRL)
        || v.get(Field::HostPerfGlobalCtrl)? & !v.item(Item::PerfGlobalMask)? == 0;

    "vmx.host.pat", [HostPat]
    "If \"load IA32_PAT\" is 1, each byte of the host's IA32_PAT must be 0, 1, 4, 5, 6 or 7.",
    |v| !v.exit()?.contains(Exit::LOAD_PAT) || v.pat_valid(Field::HostPat)?;

    "vmx.host.efer.reserved", [HostEfer]
    "If \"load IA32_EFER\" is 1, reserved bits of the host's IA32_EFER must be 0.",
    |v| !v.exit()?.contains(Exit::LOAD_EFER) || v.get(Field::HostEfer)? & v.efer_reserved()? == 0;

    "vmx.host.efer.lma", [HostEfer, ExitControls]
    "If \"load IA32_EFER\" is 1, LMA of the host's IA32_EFER must equal \"host address-space size\".",
    |v| {
        let exit = v.exit()?;
        !exit.contains(Exit::LOAD_EFER)
            || v.zero(Field::HostEfer, Efer::LMA.0)? != exit.contains(Exit::HOST_ADDRESS_SPACE_SIZE)
    };

    "vmx.host.efer.lme", [HostEfer, ExitControls]
    "If \"load IA32_EFER\" is 1, LME of the host's IA32_EFER must equal \"host address-space size\".",
    |v| {
        let exit = v.exit()?;
        !exit.contains(Exit::LOAD_EFER)
            || v.zero(Field::HostEfer, Efer::LME.0)? != exit.contains(Exit::HOST_ADDRESS_SPACE_SIZE)
    };

    "vmx.host.s-cet.reserved", [HostSCet]
    "If \"load CET state\" is 1, reserved bits of the host's IA32_S_CET must be 0.",
    |v| !v.exit()?.contains(Exit::LOAD_CET) || v.get(Field::HostSCet)? & v.cet_reserved()? == 0;

    "vmx.host.s-cet.tracker", [HostSCet]
    "If \"load CET state\" is 1, bits 10 (SUPPRESS) and 11 (TRACKER) of the host's IA32_S_CET cannot both be 1.",
    |v| !v.exit()?.contains(Exit::LOAD_CET)
        || v.get(Field::HostSCet)? & SUPPRESS_AND_TRACKER != SUPPRESS_AND_TRACKER;

    "vmx.host.ssp.alignment", [HostSsp]
    "If \"load CET state\" is 1, bits 1:0 of the host's SSP must be 0.",
    |v| !v.exit()?.contains(Exit::LOAD_CET) || v.zero(Field::HostSsp, 3)?;

    "vmx.host.ssp-table", [HostSspTable]
    "If \"load CET state\" is 1, the host's IA32_INTERRUPT_SSP_TABLE_ADDR must be canonical.",
    |v| !v.exit()?.contains(Exit::LOAD_CET) || v.canonical(Field::HostSspTable)?;

    "vmx.host.pkrs", [HostPkrs]
    "If \"load PKRS\" is 1, bits 63:32 of the host's IA32_PKRS must be 0.",
    |v| !v.exit()?.contains(Exit::LOAD_PKRS) || v.zero(Field::HostPkrs, HIGH)?;
}
