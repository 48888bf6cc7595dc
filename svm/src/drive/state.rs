//! State on its way between VMCB, host save area and processor
//! (APM Vol. 2 (24593 rev. 3.43) "VMRUN Instruction", "#VMEXIT", "VMSAVE and VMLOAD Instructions").

use crate::vmcb::Field;
use crate::{Processor, Vmcb};
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

fn value(vmcb: &Vmcb, field: Field) -> u64 {
    vmcb.get(field).unwrap_or(0)
}

/// Saves what both the host save area and the guest's VMCB hold.
fn save_common(cpu: &Cpu, vmcb: &mut Vmcb) {
    for name in SWITCHED {
        vmcb.set_segment(name, cpu.segment(name));
    }
    for (field, value) in [
        (Field::GdtrBase, cpu.gdtr.base),
        (Field::GdtrLimit, cpu.gdtr.limit.into()),
        (Field::IdtrBase, cpu.idtr.base),
        (Field::IdtrLimit, cpu.idtr.limit.into()),
        (Field::Efer, cpu.efer.0),
        (Field::Cr0, cpu.cr0.0),
        (Field::Cr3, cpu.cr3.0),
        (Field::Cr4, cpu.cr4.0),
        (Field::Rflags, cpu.rflags().0),
        (Field::Rip, cpu.rip),
        (Field::Rsp, cpu.register(Gpr::Rsp)),
        (Field::Rax, cpu.register(Gpr::Rax)),
    ] {
        vmcb.set(field, value);
    }
    if cpu.model.has(Feature::Shstk) {
        let flow = &cpu.control_flow;
        for (field, value) in SHADOW_STACK.into_iter().zip([flow.supervisor, flow.ssp, flow.table]) {
            vmcb.set(field, value);
        }
    }
}

fn load_common(cpu: &mut Cpu, vmcb: &Vmcb) {
    for name in SWITCHED {
        if let Some(segment) = vmcb.segment(name) {
            *cpu.segment_mut(name) = segment;
        }
    }
    let table = |base, limit| DescriptorTable { base: value(vmcb, base), limit: value(vmcb, limit) as u16 };
    cpu.gdtr = table(Field::GdtrBase, Field::GdtrLimit);
    cpu.idtr = table(Field::IdtrBase, Field::IdtrLimit);
    cpu.efer = Efer(value(vmcb, Field::Efer));
    cpu.cr0 = Cr0(value(vmcb, Field::Cr0)).with(Cr0::ET);
    cpu.cr3 = Cr3(value(vmcb, Field::Cr3));
    cpu.cr4 = Cr4(value(vmcb, Field::Cr4));
    cpu.load_rflags(RFlags(value(vmcb, Field::Rflags)));
    cpu.rip = value(vmcb, Field::Rip);
    cpu.gpr[Gpr::Rsp as usize] = value(vmcb, Field::Rsp);
    cpu.gpr[Gpr::Rax as usize] = value(vmcb, Field::Rax);
    if cpu.model.has(Feature::Shstk) {
        let flow = &mut cpu.control_flow;
        [flow.supervisor, flow.ssp, flow.table] = SHADOW_STACK.map(|field| value(vmcb, field));
    }
}

/// Fills the host save area; RIP is that of the instruction behind VMRUN, which clears RF.
pub(super) fn save_host(cpu: &Cpu, area: &mut Vmcb) {
    save_common(cpu, area);
    area.set(Field::Rflags, cpu.rflags().without(RFlags::RF).0);
    save_branches(cpu, area);
    area.set(Field::Rip, cpu.rip.wrapping_add(cpu.current.length.into()));
}

/// Loads the host save area: CPL 0, breakpoints off, virtual-8086 mode off.
pub(super) fn load_host(cpu: &mut Cpu, area: &Vmcb) {
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
pub(super) fn save_branches(cpu: &Cpu, vmcb: &mut Vmcb) {
    vmcb.set(Field::Dbgctl, cpu.msrs.debugctl);
    for (field, value) in BRANCHES.into_iter().zip(cpu.branches.values()) {
        vmcb.set(field, value);
    }
}

/// Loads them, if the guest has branch records of its own.
pub(super) fn load_branches(cpu: &mut Cpu, vmcb: &Vmcb) {
    cpu.msrs.debugctl = value(vmcb, Field::Dbgctl) & (DebugCtl::LBR | DebugCtl::BTF).0;
    let [from, to, interrupt_from, interrupt_to] = BRANCHES.map(|field| value(vmcb, field));
    cpu.branches = BranchRecords { from, to, interrupt_from, interrupt_to };
}

/// Loads the guest, as the rules' canonicalization has it.
pub(super) fn load_guest(cpu: &mut Cpu, vmcb: &Vmcb, processor: &Processor) {
    let mut vmcb = vmcb.clone();
    crate::rules::canonicalize(&mut vmcb, processor);
    load_common(cpu, &vmcb);
    cpu.cr2 = value(&vmcb, Field::Cr2);
    cpu.dr6 = value(&vmcb, Field::Dr6);
    cpu.dr7 = value(&vmcb, Field::Dr7);
    cpu.set_level(value(&vmcb, Field::Cpl) as u8);
    // One bit for both kinds of shadow.
    cpu.sti_shadow = value(&vmcb, Field::InterruptState) & 1 != 0;
    cpu.mov_ss_shadow = false;
    cpu.pending_debug = 0;
}

/// Saves the guest's state into its VMCB.
pub(super) fn save_guest(cpu: &Cpu, vmcb: &mut Vmcb) {
    save_common(cpu, vmcb);
    vmcb.set(Field::Cr2, cpu.cr2);
    vmcb.set(Field::Dr6, cpu.dr6);
    vmcb.set(Field::Dr7, cpu.dr7);
    vmcb.set(Field::Cpl, cpu.cpl.into());
    vmcb.set(Field::InterruptState, (cpu.sti_shadow || cpu.mov_ss_shadow).into());
}

/// VMSAVE: the fields, each with its value.
pub(super) fn vmsave(cpu: &Cpu, vmcb: &mut Vmcb) {
    for name in MOVED {
        vmcb.set_segment(name, cpu.segment(name));
    }
    for (field, value) in [
        (Field::KernelGsBase, cpu.msrs.kernel_gs_base),
        (Field::Star, cpu.msrs.star),
        (Field::Lstar, cpu.msrs.lstar),
        (Field::Cstar, cpu.msrs.cstar),
        (Field::Sfmask, cpu.msrs.fmask),
        (Field::SysenterCs, cpu.msrs.sysenter_cs),
        (Field::SysenterEsp, cpu.msrs.sysenter_esp),
        (Field::SysenterEip, cpu.msrs.sysenter_eip),
    ] {
        vmcb.set(field, value);
    }
}

/// VMLOAD. Bases are sign-extended from the widest linear address of the processor
/// (APM Vol. 2 "Segment State", "Canonicalization and Consistency Checks").
pub(super) fn vmload(cpu: &mut Cpu, vmcb: &Vmcb) {
    let unused = 64 - cpu.register_width();
    let canonical = |base: u64| ((base << unused) as i64 >> unused) as u64;
    for name in MOVED {
        if let Some(segment) = vmcb.segment(name) {
            *cpu.segment_mut(name) = Segment { base: canonical(segment.base), ..segment };
        }
    }
    let msrs = &mut cpu.msrs;
    msrs.kernel_gs_base = canonical(value(vmcb, Field::KernelGsBase));
    msrs.star = value(vmcb, Field::Star);
    msrs.lstar = value(vmcb, Field::Lstar);
    msrs.cstar = value(vmcb, Field::Cstar);
    msrs.fmask = value(vmcb, Field::Sfmask);
    msrs.sysenter_cs = value(vmcb, Field::SysenterCs);
    msrs.sysenter_esp = value(vmcb, Field::SysenterEsp);
    msrs.sysenter_eip = value(vmcb, Field::SysenterEip);
    cpu.refresh();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_cpu::Model;
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
            let mut vmcb = Vmcb::zeroed();
            save_guest(&cpu, &mut vmcb);
            let saved = SHADOW_STACK.map(|field| vmcb.get(field));
            assert_eq!(saved, if has { [1, 0x10, 0x20] } else { [0; 3] }.map(Some));
            for (field, value) in SHADOW_STACK.into_iter().zip([2, 0x30, 0x40]) {
                vmcb.set(field, value);
            }
            load_common(&mut cpu, &vmcb);
            assert_eq!(registers(&cpu), if has { [2, 0x30, 0x40] } else { [1, 0x10, 0x20] });
        }
    }
}
