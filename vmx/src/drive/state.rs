//! Guest and host state on its way between the VMCS and the processor
//! (SDM Vol. 3C (326019-083, Mar 2024) "Loading Guest State", "Saving Guest State", "Loading Host State").

use crate::information::Interruptibility;
use crate::{EntryControls, ExitControls, Field, Vmcs};
use rootmode_arch::{
    AccessRights, Cr0, Cr3, Cr4, DescriptorTable, Efer, Feature, Gpr, RFlags, Segment, SegmentName, Selector,
};
use rootmode_cpu::{Activity, Cpu};

/// Bits of CR0 that entries and exits leave as they are: 63:32, CD, NW, 28:19, 17, 15:6, ET.
const CR0_KEPT: u64 = !0xffff_ffff | 0x6000_0000 | 0x1ff8_0000 | 1 << 17 | 0xffc0 | 1 << 4;
/// Bits of DR7 that are always 0 (15:14, 12, 11) and always 1 (10).
const DR7_ZERO: u64 = 0xd800;
const DR7_ONE: u64 = 0x400;

/// Selector, limit, access rights and base of a guest segment register.
pub const fn segment_fields(name: SegmentName) -> [Field; 4] {
    use Field as F;
    match name {
        SegmentName::Es => [F::GuestEsSelector, F::GuestEsLimit, F::GuestEsRights, F::GuestEsBase],
        SegmentName::Cs => [F::GuestCsSelector, F::GuestCsLimit, F::GuestCsRights, F::GuestCsBase],
        SegmentName::Ss => [F::GuestSsSelector, F::GuestSsLimit, F::GuestSsRights, F::GuestSsBase],
        SegmentName::Ds => [F::GuestDsSelector, F::GuestDsLimit, F::GuestDsRights, F::GuestDsBase],
        SegmentName::Fs => [F::GuestFsSelector, F::GuestFsLimit, F::GuestFsRights, F::GuestFsBase],
        SegmentName::Gs => [F::GuestGsSelector, F::GuestGsLimit, F::GuestGsRights, F::GuestGsBase],
        SegmentName::Ldtr => [F::GuestLdtrSelector, F::GuestLdtrLimit, F::GuestLdtrRights, F::GuestLdtrBase],
        SegmentName::Tr => [F::GuestTrSelector, F::GuestTrLimit, F::GuestTrRights, F::GuestTrBase],
    }
}

/// The fields of the PDPTE registers.
pub(super) const PDPTES: [Field; 4] =
    [Field::GuestPdpte0, Field::GuestPdpte1, Field::GuestPdpte2, Field::GuestPdpte3];

/// IA32_S_CET, SSP and IA32_INTERRUPT_SSP_TABLE_ADDR.
const GUEST_CET: [Field; 3] = [Field::GuestSCet, Field::GuestSsp, Field::GuestSspTable];
const HOST_CET: [Field; 3] = [Field::HostSCet, Field::HostSsp, Field::HostSspTable];

fn load_cr0(cpu: &mut Cpu, value: u64) {
    cpu.cr0 = Cr0(cpu.cr0.0 & CR0_KEPT | value & !CR0_KEPT);
}

/// Loads the guest-state area. What it holds was checked.
pub(super) fn load_guest(cpu: &mut Cpu, vmcs: &Vmcs) {
    cpu.monitor.clear();
    let entry = EntryControls(vmcs.value(Field::EntryControls) as u32);
    load_cr0(cpu, vmcs.value(Field::GuestCr0));
    cpu.cr3 = Cr3(vmcs.value(Field::GuestCr3));
    cpu.cr4 = Cr4(vmcs.value(Field::GuestCr4));
    if entry.contains(EntryControls::LOAD_DEBUG_CONTROLS) {
        cpu.dr7 = vmcs.value(Field::GuestDr7) & !DR7_ZERO & 0xffff_ffff | DR7_ONE;
        cpu.msrs.debugctl = vmcs.value(Field::GuestDebugCtl);
    }
    cpu.efer = if entry.contains(EntryControls::LOAD_EFER) {
        Efer(vmcs.value(Field::GuestEfer))
    } else {
        let long = entry.contains(EntryControls::IA32E_MODE_GUEST);
        let lme = if cpu.cr0.contains(Cr0::PG) { long } else { cpu.efer.contains(Efer::LME) };
        cpu.efer.set(Efer::LMA, long).set(Efer::LME, lme)
    };
    if entry.contains(EntryControls::LOAD_PAT) {
        cpu.msrs.pat = vmcs.value(Field::GuestPat);
    }
    if entry.contains(EntryControls::LOAD_PERF_GLOBAL_CTRL) {
        cpu.set_perf_global_ctrl(vmcs.value(Field::GuestPerfGlobalCtrl));
    }
    if entry.contains(EntryControls::LOAD_PKRS) {
        cpu.pkrs = vmcs.value(Field::GuestPkrs) as u32;
    }
    if entry.contains(EntryControls::LOAD_CET) {
        let flow = &mut cpu.control_flow;
        [flow.supervisor, flow.ssp, flow.table] = GUEST_CET.map(|field| vmcs.value(field));
    }
    cpu.msrs.sysenter_cs = vmcs.value(Field::GuestSysenterCs);
    cpu.msrs.sysenter_esp = vmcs.value(Field::GuestSysenterEsp);
    cpu.msrs.sysenter_eip = vmcs.value(Field::GuestSysenterEip);
    for name in SegmentName::ALL {
        let [selector, limit, rights, base] = segment_fields(name).map(|field| vmcs.value(field));
        *cpu.segment_mut(name) = Segment {
            selector: Selector(selector as u16),
            rights: AccessRights(rights as u32),
            limit: limit as u32,
            base,
        };
    }
    cpu.cpl = cpu.segment(SegmentName::Ss).rights.dpl();
    let table = |base, limit| DescriptorTable { base: vmcs.value(base), limit: vmcs.value(limit) as u16 };
    cpu.gdtr = table(Field::GuestGdtrBase, Field::GuestGdtrLimit);
    cpu.idtr = table(Field::GuestIdtrBase, Field::GuestIdtrLimit);
    cpu.gpr[Gpr::Rsp as usize] = vmcs.value(Field::GuestRsp);
    cpu.rip = vmcs.value(Field::GuestRip);
    cpu.load_rflags(RFlags(vmcs.value(Field::GuestRflags)));
    let blocking = Interruptibility(vmcs.value(Field::GuestInterruptibility) as u32);
    cpu.sti_shadow = blocking.contains(Interruptibility::STI);
    cpu.mov_ss_shadow = blocking.contains(Interruptibility::MOV_SS);
    cpu.nmi_blocked = blocking.contains(Interruptibility::NMI);
    cpu.activity = match vmcs.value(Field::GuestActivity) {
        1 => Activity::Halted,
        2 => Activity::Shutdown,
        3 => Activity::WaitForSipi,
        _ => Activity::Active,
    };
    // Shutdown and wait-for-SIPI make pending debug exceptions invalid ("Delivery of Pending Debug Exceptions after VM
    // Entry").
    let awake = cpu.activity.is_awake();
    cpu.pending_debug = if awake { vmcs.value(Field::GuestPendingDebug) } else { 0 };
}

/// The interruptibility state as the guest-state area and decisions have it.
pub(super) fn interruptibility(cpu: &Cpu) -> Interruptibility {
    let pick = |on, bit: Interruptibility| if on { bit } else { Interruptibility(0) };
    pick(cpu.sti_shadow, Interruptibility::STI)
        .with(pick(cpu.mov_ss_shadow, Interruptibility::MOV_SS))
        .with(pick(cpu.nmi_blocked, Interruptibility::NMI))
}

/// The guest-state area that an exit saves, but for RFLAGS, given to `write` field by field. `exit` and `entry` are the VMCS's controls.
pub(super) fn save_guest(
    cpu: &Cpu,
    exit: ExitControls,
    entry: EntryControls,
    mut write: impl FnMut(Field, u64),
) {
    write(Field::GuestCr0, cpu.cr0.0);
    write(Field::GuestCr3, cpu.cr3.0);
    write(Field::GuestCr4, cpu.cr4.0);
    if exit.contains(ExitControls::SAVE_DEBUG_CONTROLS) {
        write(Field::GuestDr7, cpu.dr7);
        write(Field::GuestDebugCtl, cpu.msrs.debugctl);
    }
    if exit.contains(ExitControls::SAVE_EFER) {
        write(Field::GuestEfer, cpu.efer.0);
    }
    if exit.contains(ExitControls::SAVE_PAT) {
        write(Field::GuestPat, cpu.msrs.pat);
    }
    if exit.contains(ExitControls::SAVE_PERF_GLOBAL_CTRL) {
        write(Field::GuestPerfGlobalCtrl, cpu.counters.global_control());
    }
    // These are saved whatever the controls say, by processors that have the fields.
    if cpu.model.has(Feature::Pks) {
        write(Field::GuestPkrs, cpu.pkrs.into());
    }
    if cpu.model.has(Feature::Shstk) || cpu.model.has(Feature::Ibt) {
        let flow = &cpu.control_flow;
        GUEST_CET.into_iter().zip([flow.supervisor, flow.ssp, flow.table]).for_each(|(f, v)| write(f, v));
    }
    write(Field::GuestSysenterCs, cpu.msrs.sysenter_cs);
    write(Field::GuestSysenterEsp, cpu.msrs.sysenter_esp);
    write(Field::GuestSysenterEip, cpu.msrs.sysenter_eip);
    for name in SegmentName::ALL {
        let [selector, limit, rights, base] = segment_fields(name);
        let segment = cpu.segment(name);
        write(selector, segment.selector.0.into());
        write(limit, segment.limit.into());
        write(rights, (segment.rights.0 & !AccessRights::RESERVED).into());
        write(base, segment.base);
    }
    write(Field::GuestGdtrBase, cpu.gdtr.base);
    write(Field::GuestGdtrLimit, cpu.gdtr.limit.into());
    write(Field::GuestIdtrBase, cpu.idtr.base);
    write(Field::GuestIdtrLimit, cpu.idtr.limit.into());
    write(Field::GuestRsp, cpu.register(Gpr::Rsp));
    write(Field::GuestRip, cpu.rip);
    write(Field::GuestInterruptibility, interruptibility(cpu).0.into());
    // MWAIT's wait is no activity state ("Guest Non-Register State").
    let activity = if cpu.activity == Activity::Waiting { Activity::Active } else { cpu.activity };
    write(Field::GuestActivity, activity as u64);
    write(Field::GuestPendingDebug, cpu.pending_debug);
    // IA32_VMX_MISC bit 5: EFER.LMA goes into "IA-32e mode guest".
    write(
        Field::EntryControls,
        entry.set(EntryControls::IA32E_MODE_GUEST, cpu.efer.contains(Efer::LMA)).0.into(),
    );
}

/// Loads the host-state area.
pub(super) fn load_host(cpu: &mut Cpu, vmcs: &Vmcs) {
    cpu.monitor.clear();
    let exit = ExitControls(vmcs.value(Field::ExitControls) as u32);
    let long = exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE);
    load_cr0(cpu, vmcs.value(Field::HostCr0));
    cpu.cr3 = Cr3(vmcs.value(Field::HostCr3));
    let cr4 = Cr4(vmcs.value(Field::HostCr4));
    cpu.cr4 = if long { cr4.with(Cr4::PAE) } else { cr4.without(Cr4::PCIDE) };
    cpu.dr7 = DR7_ONE;
    cpu.msrs.debugctl = 0;
    cpu.efer = if exit.contains(ExitControls::LOAD_EFER) {
        Efer(vmcs.value(Field::HostEfer))
    } else {
        cpu.efer.set(Efer::LMA, long).set(Efer::LME, long)
    };
    if exit.contains(ExitControls::LOAD_PAT) {
        cpu.msrs.pat = vmcs.value(Field::HostPat);
    }
    if exit.contains(ExitControls::LOAD_PERF_GLOBAL_CTRL) {
        cpu.set_perf_global_ctrl(vmcs.value(Field::HostPerfGlobalCtrl));
    }
    if exit.contains(ExitControls::LOAD_PKRS) {
        cpu.pkrs = vmcs.value(Field::HostPkrs) as u32;
    }
    if exit.contains(ExitControls::LOAD_CET) {
        let flow = &mut cpu.control_flow;
        [flow.supervisor, flow.ssp, flow.table] = HOST_CET.map(|field| vmcs.value(field));
    }
    cpu.msrs.sysenter_cs = vmcs.value(Field::HostSysenterCs);
    cpu.msrs.sysenter_esp = vmcs.value(Field::HostSysenterEsp);
    cpu.msrs.sysenter_eip = vmcs.value(Field::HostSysenterEip);
    load_host_segments(cpu, vmcs, long);
    cpu.gdtr = DescriptorTable { base: vmcs.value(Field::HostGdtrBase), limit: 0xffff };
    cpu.idtr = DescriptorTable { base: vmcs.value(Field::HostIdtrBase), limit: 0xffff };
    cpu.gpr[Gpr::Rsp as usize] = vmcs.value(Field::HostRsp);
    cpu.rip = vmcs.value(Field::HostRip);
    cpu.load_rflags(RFlags::ONE);
    cpu.sti_shadow = false;
    cpu.mov_ss_shadow = false;
    cpu.pending_debug = 0;
    cpu.activity = Activity::Active;
    cpu.cpl = 0;
}

/// SDM Vol. 3C "Loading Host Segment and Descriptor-Table Registers".
fn load_host_segments(cpu: &mut Cpu, vmcs: &Vmcs, long: bool) {
    let selector = |field| Selector(vmcs.value(field) as u16);
    let code = AccessRights(0x809b).set(AccessRights::L, long).set(AccessRights::DB, !long);
    *cpu.segment_mut(SegmentName::Cs) =
        Segment { selector: selector(Field::HostCsSelector), rights: code, limit: u32::MAX, base: 0 };
    let data = [
        (SegmentName::Ss, Field::HostSsSelector, 0),
        (SegmentName::Ds, Field::HostDsSelector, 0),
        (SegmentName::Es, Field::HostEsSelector, 0),
        (SegmentName::Fs, Field::HostFsSelector, vmcs.value(Field::HostFsBase)),
        (SegmentName::Gs, Field::HostGsSelector, vmcs.value(Field::HostGsBase)),
    ];
    for (name, field, base) in data {
        let selector = selector(field);
        // In 64-bit mode SS stays usable even with a null selector.
        let usable = selector.0 != 0 || name == SegmentName::Ss && long;
        let rights = AccessRights(0xc093).set(AccessRights::UNUSABLE, !usable);
        *cpu.segment_mut(name) = Segment { selector, rights, limit: u32::MAX, base };
    }
    *cpu.segment_mut(SegmentName::Tr) = Segment {
        selector: selector(Field::HostTrSelector),
        rights: AccessRights(0x8b),
        limit: 0x67,
        base: vmcs.value(Field::HostTrBase),
    };
    *cpu.segment_mut(SegmentName::Ldtr) =
        Segment { rights: AccessRights(0x82).with(AccessRights::UNUSABLE), ..Segment::default() };
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_cpu::Model;
    use std::sync::Arc;
    use std::vec::Vec;

    const ENTRY: EntryControls = EntryControls(EntryControls::LOAD_PKRS.0 | EntryControls::LOAD_CET.0);
    const EXIT: ExitControls = ExitControls(ExitControls::LOAD_PKRS.0 | ExitControls::LOAD_CET.0);

    /// IA32_PKRS, IA32_S_CET, SSP and IA32_INTERRUPT_SSP_TABLE_ADDR.
    fn guarded(cpu: &Cpu) -> [u64; 4] {
        let flow = &cpu.control_flow;
        [cpu.pkrs.into(), flow.supervisor, flow.ssp, flow.table]
    }

    fn processor() -> Cpu {
        let intel = Model::max_intel();
        let features = intel.features().with(Feature::Pks).with(Feature::Shstk);
        let mut cpu = Cpu::new(0, Arc::new(Model::new(intel.vendor(), features)));
        cpu.pkrs = 1;
        (cpu.control_flow.supervisor, cpu.control_flow.ssp, cpu.control_flow.table) = (2, 8, 0x10);
        cpu
    }

    #[test]
    fn supervisor_keys_and_shadow_stacks_are_loaded_under_their_controls_only() {
        for on in [false, true] {
            let mut vmcs = Vmcs::zeroed();
            vmcs.set(Field::EntryControls, if on { ENTRY.0.into() } else { 0 });
            vmcs.set(Field::ExitControls, if on { EXIT.0.into() } else { 0 });
            let guest = [Field::GuestPkrs, Field::GuestSCet, Field::GuestSsp, Field::GuestSspTable];
            let host = [Field::HostPkrs, Field::HostSCet, Field::HostSsp, Field::HostSspTable];
            for (index, (guest, host)) in guest.into_iter().zip(host).enumerate() {
                vmcs.set(guest, 0x100 + index as u64);
                vmcs.set(host, 0x200 + index as u64);
            }
            let mut cpu = processor();
            let before = guarded(&cpu);
            load_guest(&mut cpu, &vmcs);
            assert_eq!(guarded(&cpu), if on { [0x100, 0x101, 0x102, 0x103] } else { before });
            load_host(&mut cpu, &vmcs);
            assert_eq!(guarded(&cpu), if on { [0x200, 0x201, 0x202, 0x203] } else { before });
        }
    }

    #[test]
    fn the_counters_enables_are_switched_under_their_controls_only() {
        for on in [false, true] {
            let mut vmcs = Vmcs::zeroed();
            let pick = |control: u32| if on { control.into() } else { 0 };
            vmcs.set(Field::EntryControls, pick(EntryControls::LOAD_PERF_GLOBAL_CTRL.0));
            vmcs.set(Field::ExitControls, pick(ExitControls::LOAD_PERF_GLOBAL_CTRL.0));
            vmcs.set(Field::GuestPerfGlobalCtrl, 1 << 32 | 0x55);
            vmcs.set(Field::HostPerfGlobalCtrl, 0x0f);
            let mut cpu = processor();
            let before = cpu.counters.global_control();
            load_guest(&mut cpu, &vmcs);
            let guest = if on { 1 << 32 | 0x55 } else { before };
            assert_eq!(cpu.counters.global_control(), guest);
            let exit = if on { ExitControls::SAVE_PERF_GLOBAL_CTRL } else { ExitControls(0) };
            let mut saved = None;
            save_guest(&cpu, exit, EntryControls(0), |field, value| {
                if field == Field::GuestPerfGlobalCtrl {
                    saved = Some(value);
                }
            });
            assert_eq!(saved, on.then_some(guest));
            load_host(&mut cpu, &vmcs);
            assert_eq!(cpu.counters.global_control(), if on { 0x0f } else { before });
        }
    }

    #[test]
    fn an_exit_saves_supervisor_keys_and_shadow_stacks_whatever_the_controls_say() {
        let mut saved = Vec::new();
        save_guest(&processor(), ExitControls(0), EntryControls(0), |field, value| {
            saved.push((field, value));
        });
        for expected in
            [(Field::GuestPkrs, 1), (Field::GuestSCet, 2), (Field::GuestSsp, 8), (Field::GuestSspTable, 0x10)]
        {
            assert!(saved.contains(&expected), "{expected:?}");
        }
        let mut plain = processor();
        plain.model = Arc::new(Model::new(plain.model.vendor(), rootmode_arch::FeatureSet::none()));
        save_guest(&plain, ExitControls(0), EntryControls(0), |field, _| {
            assert!(!matches!(field, Field::GuestPkrs | Field::GuestSsp), "{field:?}");
        });
    }
}
