//! The parts of which base states consist: processor and host, controls with the fields that they bring, guests by mode.

use super::State;
use crate::Vmcs;
use crate::context::{Item, Processor, Words};
use crate::definitions::controls::{Control, Word};
use crate::definitions::field::Field::*;
use crate::definitions::models::Model;
use rootmode_arch::{Cr4, HostPhysical, msr};

/// Where the current VMCS lies.
pub(super) const CURRENT: HostPhysical = HostPhysical(0x1000);
/// Where another VMCS lies, for the link pointer.
pub(super) const LINKED: HostPhysical = HostPhysical(0x2000);
/// The virtual-APIC page.
const VIRTUAL_APIC: HostPhysical = HostPhysical(0x3000);
/// The VM-entry MSR-load area.
pub(super) const MSR_AREA: HostPhysical = HostPhysical(0x4000);
/// Page tables of the guest.
const GUEST_CR3: HostPhysical = HostPhysical(0x5000);
/// A canonical kernel address.
const KERNEL: u64 = 0xffff_ffff_8100_0000;
/// The PAT value after reset.
const PAT: u64 = 0x0007_0406_0007_0406;
/// Access rights of flat segments.
const CODE_64: u64 = 0xa09b;
const CODE_32: u64 = 0xc09b;
const DATA: u64 = 0xc093;
const UNUSABLE: u64 = 0x1_0000;

pub(super) const fn pin(bit: u8) -> Control {
    Control { word: Word::Pin, bit }
}
pub(super) const fn primary(bit: u8) -> Control {
    Control { word: Word::Primary, bit }
}
pub(super) const fn secondary(bit: u8) -> Control {
    Control { word: Word::Secondary, bit }
}
pub(super) const fn tertiary(bit: u8) -> Control {
    Control { word: Word::Tertiary, bit }
}
pub(super) const fn exit(bit: u8) -> Control {
    Control { word: Word::Exit, bit }
}
pub(super) const fn entry(bit: u8) -> Control {
    Control { word: Word::Entry, bit }
}

/// A 64-bit host on `model`, with a 64-bit guest at CPL 0 and as few controls as the processor allows.
pub(super) fn long_mode(model: &Model) -> State {
    let capabilities = model.capabilities();
    let mut memory = Words::new();
    let revision = u64::from(model.basic.revision());
    // The words are fewer than fit.
    let _ = memory.set(CURRENT, revision) && memory.set(LINKED, revision);
    let mut state =
        State { vmcs: Vmcs::zeroed(), capabilities, processor: Processor::new(model, CURRENT), memory };
    for word in [Word::Pin, Word::Primary, Word::Secondary, Word::Exit, Word::Entry] {
        if let (Some(field), Some(allowed)) = (word.field(), capabilities.allowed(word)) {
            state.vmcs.set(field, allowed.required);
        }
    }
    state.enable(exit(9));
    state.enable(entry(9));
    state.enable(entry(2));
    state.enable(exit(2));
    host_64(&mut state);
    guest_64(&mut state);
    state
}

fn host_64(state: &mut State) {
    state.set(&[
        (HostCr0, 0x8005_0033),
        (HostCr3, 0x1_0000),
        (HostCr4, (Cr4::PAE | Cr4::VMXE | Cr4::OSFXSR).0),
        (HostCsSelector, 0x10),
        (HostSsSelector, 0x18),
        (HostTrSelector, 0x40),
        (HostGsBase, KERNEL),
        (HostTrBase, KERNEL),
        (HostGdtrBase, KERNEL),
        (HostIdtrBase, KERNEL),
        (HostSysenterEsp, KERNEL),
        (HostSysenterEip, KERNEL),
        (HostRip, KERNEL),
        (HostRsp, KERNEL),
        (HostPat, PAT),
        (HostEfer, 0xd01),
    ]);
}

/// A host outside IA-32e mode.
pub(super) fn host_32(state: &mut State) {
    state.processor.set(Item::LongModeActive, 0);
    state.disable(exit(9));
    state.disable(entry(9));
    state.set(&[(HostRip, 0x10_0000), (HostRsp, 0x20_0000), (HostEfer, 0x801), (HostSCet, 0), (HostSsp, 0)]);
}

fn guest_64(state: &mut State) {
    state.set(&[
        (GuestCr0, 0x8005_0033),
        (GuestCr3, GUEST_CR3.0),
        (GuestCr4, (Cr4::PAE | Cr4::VMXE | Cr4::OSFXSR).0),
        (GuestDr7, 0x400),
        (GuestCsSelector, 0x10),
        (GuestCsLimit, 0xffff_ffff),
        (GuestCsRights, CODE_64),
        (GuestSsSelector, 0x18),
        (GuestSsLimit, 0xffff_ffff),
        (GuestSsRights, DATA),
        (GuestDsLimit, 0xffff_ffff),
        (GuestDsRights, DATA),
        (GuestEsLimit, 0xffff_ffff),
        (GuestEsRights, DATA),
        (GuestFsRights, UNUSABLE),
        (GuestGsRights, UNUSABLE),
        (GuestGsBase, KERNEL),
        (GuestLdtrRights, UNUSABLE),
        (GuestTrSelector, 0x40),
        (GuestTrBase, KERNEL),
        (GuestTrLimit, 0x67),
        (GuestTrRights, 0x8b),
        (GuestGdtrBase, KERNEL),
        (GuestGdtrLimit, 0x7f),
        (GuestIdtrBase, KERNEL),
        (GuestIdtrLimit, 0xfff),
        (GuestRip, KERNEL),
        (GuestRsp, KERNEL),
        (GuestRflags, 0x202),
        (GuestSysenterEsp, KERNEL),
        (GuestSysenterEip, KERNEL),
        (GuestPat, PAT),
        (GuestEfer, 0xd01),
        (LinkPointer, !0),
    ]);
}

/// A 32-bit guest with PAE paging.
pub(super) fn guest_pae(state: &mut State) {
    state.disable(entry(9));
    state.set(&[
        (GuestCsRights, CODE_32),
        (GuestRip, 0x10_0000),
        (GuestEfer, 0x801),
        (GuestSCet, 0),
        (GuestSsp, 0),
        (GuestPdpte0, 0x6001),
        (GuestPdpte1, 0x7001),
        (GuestPdpte2, 0x8001),
        (GuestPdpte3, 0),
    ]);
    for (index, entry) in [0x6001, 0x7001, 0x8001, 0].into_iter().enumerate() {
        state.memory.set(GUEST_CR3.offset(8 * index as u64), entry);
    }
}

/// Compatibility mode.
pub(super) fn guest_compatibility(state: &mut State) {
    state.set(&[(GuestCsRights, CODE_32), (GuestRip, 0x10_0000)]);
}

/// A user-mode guest: CPL 3.
pub(super) fn guest_ring_3(state: &mut State) {
    let code = state.vmcs.value(GuestCsRights) | 3 << 5;
    state.set(&[
        (GuestCsSelector, 0x33),
        (GuestCsRights, code),
        (GuestSsSelector, 0x2b),
        (GuestSsRights, DATA | 3 << 5),
        (GuestDsSelector, 0x2b),
        (GuestDsRights, DATA | 3 << 5),
        (GuestEsSelector, 0x2b),
        (GuestEsRights, DATA | 3 << 5),
    ]);
}

/// Every data segment and LDTR usable, with byte and page granularity.
pub(super) fn all_segments(state: &mut State) {
    state.set(&[
        (GuestDsLimit, 0xf_ffff),
        (GuestDsRights, 0x4093),
        (GuestEsLimit, 0xffff),
        (GuestEsRights, 0x4091),
        (GuestFsLimit, 0xffff_ffff),
        (GuestFsRights, 0xc09b),
        (GuestGsLimit, 0xfff),
        (GuestGsRights, DATA),
        (GuestLdtrSelector, 0x48),
        (GuestLdtrBase, KERNEL),
        (GuestLdtrLimit, 0xffff),
        (GuestLdtrRights, 0x82),
        (GuestTrLimit, 0xfff),
    ]);
}

/// An unrestricted guest in real-address mode.
pub(super) fn guest_real(state: &mut State) {
    unrestricted(state);
    state.disable(entry(9));
    state.set(&[
        (GuestCr0, 0x30),
        (GuestCr4, Cr4::VMXE.0),
        (GuestEfer, 0),
        (GuestSCet, 0),
        (GuestSsp, 0),
        (GuestRip, 0x7c00),
        (GuestCsSelector, 0),
        (GuestCsLimit, 0xffff),
        (GuestCsRights, 0x93),
    ]);
    for (selector, base, limit, rights) in [
        (GuestSsSelector, GuestSsBase, GuestSsLimit, GuestSsRights),
        (GuestDsSelector, GuestDsBase, GuestDsLimit, GuestDsRights),
        (GuestEsSelector, GuestEsBase, GuestEsLimit, GuestEsRights),
        (GuestFsSelector, GuestFsBase, GuestFsLimit, GuestFsRights),
        (GuestGsSelector, GuestGsBase, GuestGsLimit, GuestGsRights),
    ] {
        state.set(&[(selector, 0x100), (base, 0x1000), (limit, 0xffff), (rights, 0x93)]);
    }
}

/// An unrestricted guest in protected mode without paging.
pub(super) fn guest_unpaged(state: &mut State) {
    guest_pae(state);
    unrestricted(state);
    state.set(&[(GuestCr0, 0x31), (GuestCr4, Cr4::VMXE.0), (GuestEfer, 0)]);
}

/// Virtual-8086 mode under 32-bit paging.
pub(super) fn guest_v8086(state: &mut State) {
    guest_pae(state);
    state.set(&[(GuestCr4, Cr4::VMXE.0), (GuestRflags, 0x2_3202), (GuestRip, 0x100)]);
    for (selector, base, limit, rights) in [
        (GuestCsSelector, GuestCsBase, GuestCsLimit, GuestCsRights),
        (GuestSsSelector, GuestSsBase, GuestSsLimit, GuestSsRights),
        (GuestDsSelector, GuestDsBase, GuestDsLimit, GuestDsRights),
        (GuestEsSelector, GuestEsBase, GuestEsLimit, GuestEsRights),
        (GuestFsSelector, GuestFsBase, GuestFsLimit, GuestFsRights),
        (GuestGsSelector, GuestGsBase, GuestGsLimit, GuestGsRights),
    ] {
        state.set(&[(selector, 0x1234), (base, 0x1_2340), (limit, 0xffff), (rights, 0xf3)]);
    }
}

/// EPT with a write-back, 4-level EPTP.
pub(super) fn ept(state: &mut State) {
    if state.enable(secondary(1)) {
        state.set(&[(Eptp, 0x2_0000 | 3 << 3 | 6)]);
    }
}

/// "Unrestricted guest", and the EPT that it needs.
pub(super) fn unrestricted(state: &mut State) {
    ept(state);
    state.enable(secondary(7));
}

/// TPR shadow with a threshold that just does not exceed VTPR.
pub(super) fn tpr_shadow(state: &mut State) {
    state.enable(primary(21));
    state.set(&[(VirtualApicAddress, VIRTUAL_APIC.0), (TprThreshold, 5)]);
    state.memory.set(VIRTUAL_APIC.offset(0x80), 0x50);
}

/// Virtual-interrupt delivery, and posted interrupts.
pub(super) fn virtual_interrupts(state: &mut State) {
    tpr_shadow(state);
    for control in [pin(0), pin(7), secondary(8), secondary(9), exit(15), tertiary(4)] {
        state.enable(control);
    }
    state.set(&[
        (PostedInterruptVector, 0xf2),
        (PostedInterruptDescriptor, 0x3_0040),
        (PidPointerTable, 0x3_1008),
        (LastPidPointerIndex, 3),
        (TprThreshold, 0x123),
    ]);
}

/// The VMX-preemption timer, NMI controls, bitmaps, and all that needs no second stage.
pub(super) fn plain_controls(state: &mut State) {
    for bit in [0, 3, 5, 6] {
        state.enable(pin(bit));
    }
    for bit in [2, 3, 7, 9, 10, 11, 12, 19, 20, 22, 23, 24, 25, 28, 29, 30] {
        state.enable(primary(bit));
    }
    for bit in [2, 3, 5, 6, 10, 11, 12, 14, 15, 16, 20, 21, 25, 26, 27, 28, 30, 31] {
        state.enable(secondary(bit));
    }
    for bit in [0, 6, 7] {
        state.enable(tertiary(bit));
    }
    state.enable(exit(22));
    state.set(&[
        (Cr3TargetCount, 4),
        (IoBitmapA, 0x4_0000),
        (IoBitmapB, 0x4_1000),
        (MsrBitmap, 0x4_2000),
        (VmreadBitmap, 0x4_3000),
        (VmwriteBitmap, 0x4_4000),
        (Vpid, 1),
        (TscMultiplier, 1 << 48),
        (LowPasidDirectory, 0x4_5000),
        (HighPasidDirectory, 0x4_6000),
    ]);
}

/// EPT and all that needs it.
pub(super) fn second_stage(state: &mut State) {
    ept(state);
    for bit in [7, 13, 17, 18, 22, 23] {
        state.enable(secondary(bit));
    }
    for bit in [1, 2, 3] {
        state.enable(tertiary(bit));
    }
    state.enable(Control { word: Word::VmFunction, bit: 0 });
    state.set(&[
        (PmlAddress, 0x5_0000),
        (EptpListAddress, 0x5_1000),
        (VirtualizationExceptionAddress, 0x5_2000),
        (SubPagePermissionTable, 0x5_3000),
        (Hlatp, 0x5_4018),
    ]);
}

/// Every MSR that entry and exit can load, save or clear.
pub(super) fn loaded_state(state: &mut State) {
    for bit in [12, 18, 19, 20, 21, 23, 25, 26, 27, 28, 29, 30] {
        state.enable(exit(bit));
    }
    for bit in [13, 14, 15, 16, 18, 19, 20, 21, 22, 23] {
        state.enable(entry(bit));
    }
    for bit in [0, 1, 3] {
        state.enable(Control { word: Word::SecondaryExit, bit });
    }
    let long =
        state.capabilities.supports(entry(9)) == Some(true) && state.vmcs.value(EntryControls) >> 9 & 1 != 0;
    let high = if long { KERNEL } else { 0x10_0000 };
    let host_high = if state.vmcs.value(ExitControls) >> 9 & 1 != 0 { KERNEL } else { 0x10_0000 };
    state.set(&[
        (HostSCet, host_high & !0xfff | 0x405),
        (GuestSCet, high & !0xfff | 0x805),
        (HostSsp, host_high),
        (GuestSsp, high),
        (HostSspTable, KERNEL),
        (GuestSspTable, KERNEL),
        (HostPkrs, 0xffff_ffff),
        (GuestPkrs, 0x5555_5555),
        (HostPerfGlobalCtrl, 0xf),
        (GuestPerfGlobalCtrl, 0x7_0000_00ff),
        (GuestBndcfgs, KERNEL & !0xfff | 3),
        (GuestRtitCtl, 0),
        (GuestLbrCtl, 0xf),
        (GuestUinv, 0xec),
        (GuestDebugCtl, 1),
        (HostFredConfig, KERNEL & !0xfff | 0x40),
        (GuestFredConfig, KERNEL & !0xfff | 0x40),
    ]);
    for (rsp, ssp) in [
        (HostFredRsp1, HostFredSsp1),
        (HostFredRsp2, HostFredSsp2),
        (HostFredRsp3, HostFredSsp3),
        (GuestFredRsp1, GuestFredSsp1),
        (GuestFredRsp2, GuestFredSsp2),
        (GuestFredRsp3, GuestFredSsp3),
    ] {
        state.set(&[(rsp, KERNEL + 0x40), (ssp, KERNEL + 8)]);
    }
}

/// MSR areas: three entries to load on entry, and one each for exits.
pub(super) fn msr_areas(state: &mut State) {
    let entries = [(msr::IA32_LSTAR, KERNEL), (msr::IA32_PAT, PAT), (msr::IA32_STAR, 0x0023_0010_0000_0000)];
    for (i, (index, value)) in entries.into_iter().enumerate() {
        state.memory.set(MSR_AREA.offset(16 * i as u64), u64::from(index));
        state.memory.set(MSR_AREA.offset(16 * i as u64 + 8), value);
    }
    state.set(&[
        (EntryMsrLoadCount, entries.len() as u64),
        (EntryMsrLoadAddress, MSR_AREA.0),
        (ExitMsrStoreCount, 1),
        (ExitMsrStoreAddress, 0x6_0010),
        (ExitMsrLoadCount, 2),
        (ExitMsrLoadAddress, 0x6_0020),
    ]);
}

/// An event to inject: vector, type, error code.
pub(super) fn inject(state: &mut State, vector: u64, kind: u64, error_code: Option<u64>) {
    let deliver = u64::from(error_code.is_some()) << 11;
    state.set(&[
        (EntryInterruptionInfo, 1 << 31 | deliver | kind << 8 | vector),
        (EntryErrorCode, error_code.unwrap_or(0)),
        (EntryInstructionLength, 1),
    ]);
}

/// A VMCS linked through the link pointer, shadow if "VMCS shadowing" is on.
pub(super) fn linked(state: &mut State, shadow: bool) {
    let revision = state.capabilities.value(msr::IA32_VMX_BASIC) & 0x7fff_ffff;
    if shadow {
        state.enable(secondary(14));
        state.set(&[(VmreadBitmap, 0x4_3000), (VmwriteBitmap, 0x4_4000)]);
    } else {
        state.disable(secondary(14));
    }
    state.memory.set(LINKED, revision | u64::from(shadow) << 31);
    state.memory.set(CURRENT, revision | u64::from(shadow) << 31);
    state.set(&[(LinkPointer, LINKED.0)]);
}
