//! The VMX instructions with their VMsucceed, VMfailInvalid and VMfailValid
//! (SDM Vol. 3C (326019-083, Mar 2024) "VMX Instruction Reference").

use super::{Vmx, region};
use crate::definitions::capabilities::{EptVpid, Misc};
use crate::definitions::controls::Word;
use crate::definitions::field::{Access, Kind};
use crate::rules::Passed;
use crate::{Control, Field, InstructionError};
use rootmode_arch::record::Payload;
use rootmode_arch::{EventClass, HostPhysical, Linear, RFlags, msr};
use rootmode_cpu::{Context, Cpu, Fault, Instruction, Outcome, Result};
use rootmode_mmu::PhysicalMemory;

const STATUS: u64 = RFlags::CF.0 | RFlags::PF.0 | RFlags::AF.0 | RFlags::ZF.0 | RFlags::SF.0 | RFlags::OF.0;

/// VMsucceed: all status flags clear.
fn succeed(cpu: &mut Cpu) {
    cpu.set_status(STATUS, 0);
}

/// VMfailInvalid: CF set.
pub(super) fn fail_invalid(cpu: &mut Cpu) {
    cpu.set_status(STATUS, RFlags::CF.0);
}

/// What an instruction that cannot fault ends with.
type End = core::result::Result<Outcome, Failure>;

enum Failure {
    Invalid,
    Valid(InstructionError),
    Fault(Fault),
}

impl From<InstructionError> for Failure {
    fn from(error: InstructionError) -> Self {
        Self::Valid(error)
    }
}

impl Vmx {
    /// VMfailValid with `error`; VMfailInvalid if there is no current VMCS.
    pub(super) fn fail_valid(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, error: InstructionError) {
        // In a guest, too, the number goes into the current VMCS, not into the shadow.
        if self.current.is_some() {
            self.write(ctx, Field::InstructionError, error.0.into());
            cpu.set_status(STATUS, RFlags::ZF.0);
        } else {
            fail_invalid(cpu);
        }
    }

    pub(super) fn execute_instruction(
        &mut self,
        cpu: &mut Cpu,
        ctx: &mut Context<'_>,
        instruction: &Instruction,
    ) -> Result<Outcome> {
        use Instruction as I;
        let end = match *instruction {
            I::Vmlaunch => return self.enter(cpu, ctx, false),
            I::Vmresume => return self.enter(cpu, ctx, true),
            I::Vmxon { region } => self.vmxon(cpu, ctx, HostPhysical(region)),
            I::Vmxoff => {
                self.vmxon = None;
                self.put_aside(cpu, ctx);
                Ok(Outcome::Done)
            }
            I::Vmclear { region } => self.vmclear(cpu, ctx, HostPhysical(region)),
            I::Vmptrld { region } => self.vmptrld(cpu, ctx, HostPhysical(region)),
            I::Vmptrst => Ok(Outcome::Value(self.current.map_or(u64::MAX, |current| current.0))),
            I::Vmread { encoding } => self.vmread(ctx.memory, encoding),
            I::Vmwrite { encoding, value } => self.vmwrite(ctx, encoding, value),
            I::Vmfunc { function, index } => return self.vm_function(cpu, ctx, function, index),
            I::Vmcall => Err(InstructionError::VMCALL_IN_ROOT.into()),
            I::Invept { kind, descriptor } => self.invept(cpu, ctx, kind, descriptor),
            I::Invvpid { kind, descriptor } => self.invvpid(cpu, ctx, kind, descriptor),
            _ => Err(Failure::Fault(Fault::UD)),
        };
        match end {
            Ok(outcome) => {
                succeed(cpu);
                Ok(outcome)
            }
            Err(Failure::Invalid) => {
                fail_invalid(cpu);
                Ok(Outcome::Done)
            }
            Err(Failure::Valid(error)) => {
                self.fail_valid(cpu, ctx, error);
                Ok(Outcome::Done)
            }
            Err(Failure::Fault(fault)) => Err(fault),
        }
    }

    /// A page-aligned address within the physical-address width.
    fn is_region(&self, cpu: &Cpu, region: HostPhysical) -> bool {
        region.is_aligned(4096) && region.0 >> cpu.model.physical_width() == 0
    }

    fn revision(&self) -> u32 {
        self.capabilities.value(msr::IA32_VMX_BASIC) as u32 & 0x7fff_ffff
    }

    fn vmxon(&mut self, cpu: &Cpu, ctx: &Context<'_>, region: HostPhysical) -> End {
        if self.vmxon.is_some() {
            return Err(InstructionError::VMXON_IN_ROOT.into());
        }
        if !self.is_region(cpu, region) || region::revision(ctx.memory, region) != self.revision() {
            return Err(Failure::Invalid);
        }
        self.vmxon = Some(region);
        self.current = None;
        Ok(Outcome::Done)
    }

    fn vmclear(&mut self, cpu: &Cpu, ctx: &mut Context<'_>, region: HostPhysical) -> End {
        if !self.is_region(cpu, region) {
            return Err(InstructionError::VMCLEAR_ADDRESS.into());
        }
        if self.vmxon == Some(region) {
            return Err(InstructionError::VMCLEAR_VMXON_POINTER.into());
        }
        self.clear(cpu, ctx, region);
        Ok(Outcome::Done)
    }

    fn vmptrld(&mut self, cpu: &Cpu, ctx: &mut Context<'_>, region: HostPhysical) -> End {
        if !self.is_region(cpu, region) {
            return Err(InstructionError::VMPTRLD_ADDRESS.into());
        }
        if self.vmxon == Some(region) {
            return Err(InstructionError::VMPTRLD_VMXON_POINTER.into());
        }
        // Bit 31, the shadow-VMCS indicator, needs VMCS shadowing.
        let shadowing = Control { word: Word::Secondary, bit: 14 };
        let shadows = self.capabilities.supports(shadowing) == Some(true);
        let legal = if shadows { 0x7fff_ffff } else { u32::MAX };
        if region::revision(ctx.memory, region) & legal != self.revision() {
            return Err(InstructionError::VMPTRLD_REVISION.into());
        }
        if self.current != Some(region) {
            self.put_aside(cpu, ctx);
            self.take_up(cpu, ctx, region);
            self.passed = Passed::default();
        }
        Ok(Outcome::Done)
    }

    /// The field behind an encoding, if this processor has it.
    fn field(&self, encoding: u64) -> core::result::Result<(Field, Access), Failure> {
        if self.accessed().is_none() {
            return Err(Failure::Invalid);
        }
        u32::try_from(encoding)
            .ok()
            .and_then(Field::from_encoding)
            .filter(|(field, _)| self.fields.has(*field))
            .ok_or(Failure::Valid(InstructionError::UNSUPPORTED_FIELD))
    }

    fn vmread(&self, memory: &PhysicalMemory, encoding: u64) -> End {
        let (field, access) = self.field(encoding)?;
        let value = self.accessed_field(memory, field);
        Ok(Outcome::Value(if access == Access::High { value >> 32 } else { value }))
    }

    fn vmwrite(&mut self, ctx: &mut Context<'_>, encoding: u64, value: u64) -> End {
        let (field, access) = self.field(encoding)?;
        let any = Misc(self.capabilities.value(msr::IA32_VMX_MISC)).contains(Misc::WRITE_ANY);
        if field.kind() == Kind::ReadOnly && !any {
            return Err(InstructionError::VMWRITE_READ_ONLY.into());
        }
        let value = match access {
            Access::Full => value,
            Access::High => self.accessed_field(ctx.memory, field) & 0xffff_ffff | value << 32,
        };
        self.write_accessed(ctx, field, value);
        Ok(Outcome::Done)
    }

    pub(super) fn ept_vpid(&self) -> EptVpid {
        EptVpid(self.capabilities.value(msr::IA32_VMX_EPT_VPID_CAP))
    }

    fn invept(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, kind: u64, descriptor: [u64; 2]) -> End {
        let supported = match kind {
            1 => self.ept_vpid().contains(EptVpid::INVEPT_SINGLE),
            2 => self.ept_vpid().contains(EptVpid::INVEPT_ALL),
            _ => false,
        };
        if !supported || descriptor[1] != 0 {
            return Err(InstructionError::INVEPT_INVVPID_OPERAND.into());
        }
        if kind == 1 {
            let eptp = descriptor[0];
            if !self.is_eptp(cpu, eptp) {
                return Err(InstructionError::INVEPT_INVVPID_OPERAND.into());
            }
            cpu.tlb.flush_root(HostPhysical(eptp & 0x000f_ffff_ffff_f000));
        } else {
            cpu.tlb.flush_all_roots();
        }
        ctx.emit(cpu, Payload::Flush { cause: EventClass::Vmx, linear: None });
        Ok(Outcome::Done)
    }

    fn invvpid(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, kind: u64, descriptor: [u64; 2]) -> End {
        let needed = match kind {
            0 => EptVpid::INVVPID_ADDRESS,
            1 => EptVpid::INVVPID_SINGLE,
            2 => EptVpid::INVVPID_ALL,
            3 => EptVpid::INVVPID_SINGLE_GLOBALS,
            _ => return Err(InstructionError::INVEPT_INVVPID_OPERAND.into()),
        };
        let vpid = descriptor[0] as u32 & 0xffff;
        let linear = Linear(descriptor[1]);
        let legal = self.ept_vpid().contains(needed)
            && descriptor[0] >> 16 == 0
            && (kind == 2 || vpid != 0)
            && (kind != 0 || linear.is_canonical(cpu.linear_width()));
        if !legal {
            return Err(InstructionError::INVEPT_INVVPID_OPERAND.into());
        }
        match kind {
            0 => cpu.tlb.flush_page_of_space(vpid, linear),
            1 => cpu.tlb.flush_space(vpid),
            2 => cpu.tlb.flush_all_but_host(),
            _ => cpu.tlb.flush_space_but_global(vpid),
        }
        ctx.emit(cpu, Payload::Flush { cause: EventClass::Vmx, linear: (kind == 0).then_some(linear) });
        Ok(Outcome::Done)
    }
}
