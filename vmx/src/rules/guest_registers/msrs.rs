//! "Checks on Guest Control Registers, Debug Registers, and MSRs": the MSRs that VM-entry controls load.

use crate::context::Item;
use crate::definitions::controls::EntryControls as Entry;
use crate::definitions::field::Field;
use crate::rules::host_registers::{HIGH, SUPPRESS_AND_TRACKER};
use crate::rules::rules;
use rootmode_arch::{Cr0, Efer};

/// Bits of IA32_LBR_CTL that exist: LBREn, OS, USR, CALL_STACK and the branch-type filters.
const LBR_CTL: u64 = 0x7f_000f;

rules! {
    group GuestRegisters;

    "vmx.guest.s-cet.reserved", [GuestSCet]
    "If \"load CET state\" is 1, reserved bits of the guest's IA32_S_CET must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_CET) || v.get(Field::GuestSCet)? & v.cet_reserved()? == 0;

    "vmx.guest.s-cet.tracker", [GuestSCet]
    "If \"load CET state\" is 1, bits 10 (SUPPRESS) and 11 (TRACKER) of the guest's IA32_S_CET cannot both be 1.",
    |v| !v.entry()?.contains(Entry::LOAD_CET)
        || v.get(Field::GuestSCet)? & SUPPRESS_AND_TRACKER != SUPPRESS_AND_TRACKER;

    "vmx.guest.s-cet.canonical", [GuestSCet]
    "If \"load CET state\" is 1, the guest's IA32_S_CET must be canonical.",
    |v| !v.entry()?.contains(Entry::LOAD_CET)
        || v.get(Field::GuestSCet)? & v.cet_reserved()? != 0
        || v.canonical(Field::GuestSCet)?;

    "vmx.guest.ssp-table", [GuestSspTable]
    "If \"load CET state\" is 1, the guest's IA32_INTERRUPT_SSP_TABLE_ADDR must be canonical.",
    |v| !v.entry()?.contains(Entry::LOAD_CET) || v.canonical(Field::GuestSspTable)?;

    "vmx.guest.perf-global-ctrl", [GuestPerfGlobalCtrl]
    "If \"load IA32_PERF_GLOBAL_CTRL\" is 1, reserved bits of the guest's IA32_PERF_GLOBAL_CTRL must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_PERF_GLOBAL_CTRL)
        || v.get(Field::GuestPerfGlobalCtrl)? & !v.item(Item::PerfGlobalMask)? == 0;

    "vmx.guest.pat", [GuestPat]
    "If \"load IA32_PAT\" is 1, each byte of the guest's IA32_PAT must be 0, 1, 4, 5, 6 or 7.",
    |v| !v.entry()?.contains(Entry::LOAD_PAT) || v.pat_valid(Field::GuestPat)?;

    "vmx.guest.efer.reserved", [GuestEfer]
    "If \"load IA32_EFER\" is 1, reserved bits of the guest's IA32_EFER must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_EFER) || v.get(Field::GuestEfer)? & v.efer_reserved()? == 0;

    "vmx.guest.efer.lma", [GuestEfer, EntryControls]
    "If \"load IA32_EFER\" is 1, LMA of the guest's IA32_EFER must equal \"IA-32e mode guest\".",
    |v| !v.entry()?.contains(Entry::LOAD_EFER)
        || v.zero(Field::GuestEfer, Efer::LMA.0)? != v.is_ia32e_guest()?;

    "vmx.guest.efer.lme", [GuestEfer]
    "If \"load IA32_EFER\" is 1 and bit 31 (PG) of the guest's CR0 is 1, LMA and LME of the guest's IA32_EFER must be equal.",
    |v| !v.entry()?.contains(Entry::LOAD_EFER)
        || !v.cr0()?.contains(Cr0::PG)
        || v.zero(Field::GuestEfer, Efer::LMA.0)? == v.zero(Field::GuestEfer, Efer::LME.0)?;

    "vmx.guest.bndcfgs.reserved", [GuestBndcfgs]
    "If \"load IA32_BNDCFGS\" is 1, bits 11:2 of the guest's IA32_BNDCFGS must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_BNDCFGS) || v.zero(Field::GuestBndcfgs, 0xffc)?;

    "vmx.guest.bndcfgs.canonical", [GuestBndcfgs]
    "If \"load IA32_BNDCFGS\" is 1, the linear address in bits 63:12 of the guest's IA32_BNDCFGS must be canonical.",
    |v| !v.entry()?.contains(Entry::LOAD_BNDCFGS) || v.canonical(Field::GuestBndcfgs)?;

    "vmx.guest.rtit-ctl", [GuestRtitCtl]
    "If \"load IA32_RTIT_CTL\" is 1, reserved bits of the guest's IA32_RTIT_CTL must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_RTIT_CTL)
        || v.get(Field::GuestRtitCtl)? & !v.item(Item::RtitCtlMask)? == 0;

    "vmx.guest.lbr-ctl", [GuestLbrCtl]
    "If \"load guest IA32_LBR_CTL\" is 1, reserved bits of the guest's IA32_LBR_CTL must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_LBR_CTL) || v.zero(Field::GuestLbrCtl, !LBR_CTL)?;

    "vmx.guest.pkrs", [GuestPkrs]
    "If \"load PKRS\" is 1, bits 63:32 of the guest's IA32_PKRS must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_PKRS) || v.zero(Field::GuestPkrs, HIGH)?;

    "vmx.guest.uinv", [GuestUinv]
    "If \"load UINV\" is 1, bits 15:8 of the guest's UINV must be 0.",
    |v| !v.entry()?.contains(Entry::LOAD_UINV) || v.zero(Field::GuestUinv, 0xff00)?;
}
