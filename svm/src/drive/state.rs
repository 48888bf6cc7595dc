//! State on its way between VMCB, host save area and processor
//! (APM Vol. 2 (24593 rev. 3.43) "VMRUN Instruction", "#VMEXIT", "VMSAVE and VMLOAD Instructions").

use super::page::{Fields, Page};
use crate::vmcb::Field;
use rootmode_arch::{
    Cr0, Cr3, Cr4, DebugCtl, DescriptorTable, Dr6, Efer, Feature, Gpr, RFlags, Segment, SegmentName,
};
use rootmode_cpu::{BranchRecords, Cpu};

/// What VMRUN and #VMEXIT switch; FS, GS, LDTR and TR are VMLOAD's.
const SWITCHED: [SegmentName; 4] = [SegmentName::Es, SegmentName::Cs, SegmentName::Ss, SegmentName::Ds];
/// The supervisor's shadow-stack registers, switched with CR4.CET
/// (APM Vol. 2 "Shadow Stack Support in SVM", of processors that have shadow stacks).
const SHADOW_STACK: [Field; 3] = [Field::SCet, Field::Ssp, Field::IsstAddr];
/// What VMSAVE and VMLOAD move.
const MOVED: [SegmentName; 4] = [SegmentName::Fs, SegmentName::Gs, SegmentName::Ldtr, SegmentName::Tr];

/// Saves what both the host save area and the guest's VMCB hold.
fn save_common<const START: usize>(cpu: &Cpu, vmcb: &mut Page<'_, START>) {
    for name in SWITCHED {
        vmcb.set_segment(name, cpu.segment(name));
    }
    vmcb.set(Field::GdtrBase, cpu.gdtr.base);
    vmcb.set(Field::GdtrLimit, cpu.gdtr.limit.into());
    vmcb.set(Field::IdtrBase, cpu.idtr.base);
    vmcb.set(Field::IdtrLimit, cpu.idtr.limit.into());
    vmcb.set(Field::Efer, cpu.efer.0);
    vmcb.set(Field::Cr0, cpu.cr0.0);
    vmcb.set(Field::Cr3, cpu.cr3.0);
    vmcb.set(Field::Cr4, cpu.cr4.0);
    vmcb.set(Field::Rflags, cpu.rflags().0);
    vmcb.set(Field::Rip, cpu.rip);
    vmcb.set(Field::Rsp, cpu.register(Gpr::Rsp));
    vmcb.set(Field::Rax, cpu.register(Gpr::Rax));
    if cpu.model.has(Feature::Shstk) {
        let flow = &cpu.control_flow;
        for (field, value) in SHADOW_STACK.into_iter().zip([flow.supervisor, flow.ssp, flow.table]) {
            vmcb.set(field, value);
        }
    }
}

fn load_common(cpu: &mut Cpu, vmcb: &impl Fields) {
    for name in SWITCHED {
        *cpu.segment_mut(name) = vmcb.segment(name);
    }
    let table = |base, limit| DescriptorTable { base: vmcb.value(base), limit: vmcb.value(limit) as u16 };
    cpu.gdtr = table(Field::GdtrBase, Field::GdtrLimit);
    cpu.idtr = table(Field::IdtrBase, Field::IdtrLimit);
    cpu.efer = Efer(vmcb.value(Field::Efer));
    cpu.cr0 = Cr0(vmcb.value(Field::Cr0)).with(Cr0::ET);
    cpu.cr3 = Cr3(vmcb.value(Field::Cr3));
    cpu.cr4 = Cr4(vmcb.value(Field::Cr4));
    cpu.load_rflags(RFlags(vmcb.value(Field::Rflags)));
    cpu.rip = vmcb.value(Field::Rip);
    cpu.gpr[Gpr::Rsp as usize] = vmcb.value(Field::Rsp);
    cpu.gpr[Gpr::Rax as usize] = vmcb.value(Field::Rax);
    if cpu.model.has(Feature::Shstk) {
        let flow = &mut cpu.control_flow;
        [flow.supervisor, flow.ssp, flow.table] = SHADOW_STACK.map(|field| vmcb.value(field));
    }
}

/// Fills the host save area; RIP is that of the instruction behind VMRUN, which clears RF.
pub(super) fn save_host(cpu: &Cpu, area: &mut Page<'_>) {
    save_common(cpu, area);
    area.set(Field::Rflags, cpu.rflags().without(RFlags::RF).0);
    save_branches(cpu, area);
    area.set(Field::Rip, cpu.rip.wrapping_add(cpu.current.length.into()));
}

/// Loads the host save area: CPL 0, breakpoints off, virtual-8086 mode off.
pub(super) fn load_host(cpu: &mut Cpu, area: &impl Fields) {
    load_common(cpu, area);
    cpu.cr0 = cpu.cr0.with(Cr0::PE);
    cpu.load_rflags(cpu.rflags().without(RFlags::VM));
    cpu.set_level(0);
    cpu.dr7 = 0x400;
    cpu.sti_shadow = false;
    cpu.mov_ss_shadow = false;
    // A trap of the host's VMRUN comes when it is complete: now
    // (APM Vol. 2 "Interaction with the RFLAGS.TF", "VMRUN and TF/RF Bits in EFLAGS").
    let traps = cpu.rflags().contains(RFlags::TF) && cpu.msrs.debugctl & DebugCtl::BTF.0 == 0;
    cpu.pending_debug = if traps { Dr6::BS.0 } else { 0 };
}

/// The fields of branch records, in the order of their MSR numbers.
const BRANCHES: [Field; 4] = [Field::BrFrom, Field::BrTo, Field::LastExcpFrom, Field::LastExcpTo];

/// Saves DEBUGCTL and the branch records.
pub(super) fn save_branches<const START: usize>(cpu: &Cpu, vmcb: &mut Page<'_, START>) {
    vmcb.set(Field::Dbgctl, cpu.msrs.debugctl);
    for (field, value) in BRANCHES.into_iter().zip(cpu.branches.values()) {
        vmcb.set(field, value);
    }
}

/// Loads them, if the guest has branch records of its own.
pub(super) fn load_branches(cpu: &mut Cpu, vmcb: &impl Fields) {
    cpu.msrs.debugctl = vmcb.value(Field::Dbgctl) & (DebugCtl::LBR | DebugCtl::BTF).0;
    let [from, to, interrupt_from, interrupt_to] = BRANCHES.map(|field| vmcb.value(field));
    cpu.branches = BranchRecords { from, to, interrupt_from, interrupt_to };
}

/// Loads the guest. `vmcb` is as the rules' canonicalization leaves it.
pub(super) fn load_guest(cpu: &mut Cpu, vmcb: &impl Fields) {
    load_common(cpu, vmcb);
    cpu.cr2 = vmcb.value(Field::Cr2);
    cpu.dr6 = vmcb.value(Field::Dr6);
    cpu.dr7 = vmcb.value(Field::Dr7);
    cpu.set_level(vmcb.value(Field::Cpl) as u8);
    // One bit for both kinds of shadow.
    cpu.sti_shadow = vmcb.value(Field::InterruptState) & 1 != 0;
    cpu.mov_ss_shadow = false;
    cpu.pending_debug = 0;
}

/// Saves the guest's state into its VMCB or VMSA.
pub(super) fn save_guest<const START: usize>(cpu: &Cpu, vmcb: &mut Page<'_, START>) {
    save_common(cpu, vmcb);
    vmcb.set(Field::Cr2, cpu.cr2);
    vmcb.set(Field::Dr6, cpu.dr6);
    vmcb.set(Field::Dr7, cpu.dr7);
    vmcb.set(Field::Cpl, cpu.cpl.into());
    vmcb.set(Field::InterruptState, (cpu.sti_shadow || cpu.mov_ss_shadow).into());
}

/// VMSAVE: the fields, each with its value.
pub(super) fn vmsave<const START: usize>(cpu: &Cpu, vmcb: &mut Page<'_, START>) {
    for name in MOVED {
        vmcb.set_segment(name, cpu.segment(name));
    }
    vmcb.set(Field::KernelGsBase, cpu.msrs.kernel_gs_base);
    vmcb.set(Field::Star, cpu.msrs.star);
    vmcb.set(Field::Lstar, cpu.msrs.lstar);
    vmcb.set(Field::Cstar, cpu.msrs.cstar);
    vmcb.set(Field::Sfmask, cpu.msrs.fmask);
    vmcb.set(Field::SysenterCs, cpu.msrs.sysenter_cs);
    vmcb.set(Field::SysenterEsp, cpu.msrs.sysenter_esp);
    vmcb.set(Field::SysenterEip, cpu.msrs.sysenter_eip);
}

/// VMLOAD. Bases are sign-extended from the widest linear address of the processor
/// (APM Vol. 2 "Segment State", "Canonicalization and Consistency Checks").
pub(super) fn vmload(cpu: &mut Cpu, vmcb: &impl Fields) {
    let unused = 64 - cpu.register_width();
    let canonical = |base: u64| ((base << unused) as i64 >> unused) as u64;
    for name in MOVED {
        let segment = vmcb.segment(name);
        *cpu.segment_mut(name) = Segment { base: canonical(segment.base), ..segment };
    }
    let msrs = &mut cpu.msrs;
    msrs.kernel_gs_base = canonical(vmcb.value(Field::KernelGsBase));
    msrs.star = vmcb.value(Field::Star);
    msrs.lstar = vmcb.value(Field::Lstar);
    msrs.cstar = vmcb.value(Field::Cstar);
    msrs.fmask = vmcb.value(Field::Sfmask);
    msrs.sysenter_cs = vmcb.value(Field::SysenterCs);
    msrs.sysenter_esp = vmcb.value(Field::SysenterEsp);
    msrs.sysenter_eip = vmcb.value(Field::SysenterEip);
    cpu.refresh();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_arch::HostPhysical;
    use rootmode_cpu::Model;
    use rootmode_mmu::PhysicalMemory;
    use std::sync::Arc;

    #[test]
    fn shadow_stacks_are_switched_on_processors_that_have_them() {
        for has in [true, false] {
            let amd = Model::max_amd();
            let features = if has {
                amd.features().with(Feature::Shstk)
            } else {
                amd.features().without(Feature::Shstk)
            };
            let mut cpu = Cpu::new(0, Arc::new(Model::new(amd.vendor(), features)));
            let registers = |cpu: &Cpu| {
                let flow = &cpu.control_flow;
                [flow.supervisor, flow.ssp, flow.table]
            };
            let flow = &mut cpu.control_flow;
            [flow.supervisor, flow.ssp, flow.table] = [1, 0x10, 0x20];
            let mut memory = PhysicalMemory::new();
            memory.add_ram(HostPhysical(0), 0x1000).unwrap();
            let mut vmcb = Page::new(&mut memory, HostPhysical(0));
            save_guest(&cpu, &mut vmcb);
            let saved = SHADOW_STACK.map(|field| vmcb.value(field));
            assert_eq!(saved, if has { [1, 0x10, 0x20] } else { [0; 3] });
            for (field, value) in SHADOW_STACK.into_iter().zip([2, 0x30, 0x40]) {
                vmcb.set(field, value);
            }
            load_common(&mut cpu, &vmcb);
            assert_eq!(registers(&cpu), if has { [2, 0x30, 0x40] } else { [1, 0x10, 0x20] });
        }
    }
}
