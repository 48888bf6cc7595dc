//! The SVM instructions (APM Vol. 3 (24594 rev. 3.36) "System Instruction Reference").

use super::page::Page;
use super::{Svm, state};
use rootmode_arch::record::Payload;
use rootmode_arch::{EventClass, GuestPhysical, HostPhysical};
use rootmode_cpu::{Context, Cpu, Fault, Instruction, Outcome, Result};
use rootmode_mmu::{AccessKind, WalkFault, translate_guest_physical};

impl Svm {
    pub(super) fn execute_instruction(
        &mut self,
        cpu: &mut Cpu,
        ctx: &mut Context<'_>,
        instruction: &Instruction,
    ) -> Result<Outcome> {
        match *instruction {
            Instruction::Vmrun { vmcb } => return self.vmrun(cpu, ctx, vmcb),
            Instruction::Vmload { vmcb } => {
                let at = self.vmcb_operand(cpu, ctx, vmcb, AccessKind::Read)?;
                state::vmload(cpu, &Page::new(ctx.memory, at));
            }
            Instruction::Vmsave { vmcb } => self.vmsave(cpu, ctx, vmcb)?,
            Instruction::Stgi => self.set_gif(cpu, true),
            Instruction::Clgi => self.set_gif(cpu, false),
            Instruction::Invlpga { linear, asid } => {
                cpu.tlb.flush_page_of_space(asid, linear);
                ctx.emit(cpu, Payload::Flush { cause: EventClass::Invlpga, linear: Some(linear) });
            }
            _ => return Err(Fault::UD),
        }
        Ok(Outcome::Done)
    }

    /// Where the VMCB of VMLOAD or VMSAVE lies. In a guest with virtualized VMLOAD and VMSAVE the address is guest-physical
    /// (APM Vol. 2 (24593 rev. 3.43) "VMSAVE and VMLOAD Virtualization").
    fn vmcb_operand(
        &self,
        cpu: &Cpu,
        ctx: &mut Context<'_>,
        address: u64,
        kind: AccessKind,
    ) -> Result<HostPhysical> {
        let at = self.check_vmcb_address(cpu, address)?;
        if !self.running.as_ref().is_some_and(|running| running.controls.virtualizes_vmload()) {
            return Ok(at);
        }
        let guest = GuestPhysical(at.0);
        translate_guest_physical(ctx.memory, &cpu.published.second_stage, guest, kind).map_err(|fault| {
            match fault {
                WalkFault::SecondStage(access) => Fault::SecondStage(access),
                // Without a linear address there is no page fault, and nested paging keeps no log.
                WalkFault::Page(_) | WalkFault::LogFull => Fault::GP0,
            }
        })
    }

    fn vmsave(&self, cpu: &Cpu, ctx: &mut Context<'_>, address: u64) -> Result {
        let at = self.vmcb_operand(cpu, ctx, address, AccessKind::Write)?;
        state::vmsave(cpu, &mut Page::new(ctx.memory, at));
        Ok(())
    }
}
