//! The SVM instructions (APM Vol. 3 (24594 rev. 3.36) "System Instruction Reference").

use super::{Svm, state};
use rootmode_arch::record::Payload;
use rootmode_arch::{EventClass, HostPhysical};
use rootmode_cpu::{Context, Cpu, Fault, Instruction, Outcome, Result};

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
                let at = self.check_vmcb_address(vmcb)?;
                state::vmload(cpu, &Self::read_vmcb(ctx, at));
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

    fn vmsave(&self, cpu: &Cpu, ctx: &mut Context<'_>, address: u64) -> Result {
        let at: HostPhysical = self.check_vmcb_address(address)?;
        let mut vmcb = Self::read_vmcb(ctx, at);
        state::vmsave(cpu, &mut vmcb);
        ctx.memory.write(at, vmcb.as_bytes());
        Ok(())
    }

    /// In a guest whose hypervisor does not intercept it, the one GIF is the guest's to change.
    fn set_gif(&mut self, cpu: &mut Cpu, gif: bool) {
        self.gif = gif;
        if self.running.is_none() {
            self.publish_host(cpu);
        }
    }
}
