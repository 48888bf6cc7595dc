//! Instructions of VMX and SVM: operands are fetched here, everything else is the extension's.
//! Also [`Instruction`] values, for a Rust host.

use super::{Exec, Flow};
use crate::decode::{Decoded, Operand};
use crate::fault::{Fault, Result};
use crate::instruction::{Instruction, Outcome};
use crate::virtualization::Opcode;
use rootmode_arch::event::{Operand as EventOperand, VmxInstruction};
use rootmode_arch::{Event, EventClass, Feature, Gpr, Linear, Stage};

impl Exec<'_, '_> {
    /// Executes an instruction whose operands were fetched.
    pub(crate) fn execute(&mut self, instruction: &Instruction) -> Result<Outcome> {
        Ok(match *instruction {
            Instruction::Rdmsr { index } => Outcome::Value(self.read_msr(index)?),
            Instruction::Wrmsr { index, value } => {
                self.write_msr(index, value)?;
                Outcome::Done
            }
            Instruction::ReadCr { cr } => Outcome::Value(self.read_cr(cr)?),
            Instruction::WriteCr { cr, value } => {
                self.write_cr(cr, value)?;
                Outcome::Done
            }
            Instruction::ReadDr { dr } => Outcome::Value(self.read_dr(dr)?),
            Instruction::WriteDr { dr, value } => {
                self.write_dr(dr, value)?;
                Outcome::Done
            }
            Instruction::Invlpg { linear } => {
                self.invalidate_page(linear);
                Outcome::Done
            }
            Instruction::Invpcid { kind, descriptor } => {
                self.invalidate_pcid(kind, descriptor)?;
                Outcome::Done
            }
            Instruction::Xsetbv { index, value } => {
                self.write_xcr(index, value)?;
                Outcome::Done
            }
            Instruction::Cpuid { leaf, subleaf } => Outcome::Registers(self.cpuid_leaf(leaf, subleaf)),
            _ => {
                let extension = self.extension.as_deref_mut().ok_or(Fault::UD)?;
                extension.execute(self.cpu, self.ctx, instruction)?
            }
        })
    }

    fn permit(&self, opcode: Opcode) -> Result {
        self.extension.as_deref().ok_or(Fault::UD)?.permit(self.cpu, opcode)
    }

    /// Has the extension execute its own instruction, and continues: a result, if there is one, goes to operand `result`.
    fn finish(&mut self, op: &Decoded, instruction: &Instruction) -> Result<Flow> {
        let extension = self.extension.as_deref_mut().ok_or(Fault::UD)?;
        match extension.execute(self.cpu, self.ctx, instruction)? {
            Outcome::Entered => Ok(Flow::Entered),
            Outcome::Value(value) => {
                self.put(op, 0, 8, value)?;
                Ok(Flow::Next)
            }
            Outcome::Done | Outcome::Registers(_) => Ok(Flow::Next),
        }
    }
}

fn opcode(op: &Decoded) -> Opcode {
    op.extension.expect("the decoder gives every instruction of an extension its opcode")
}

/// The event of a VMX instruction.
fn vmx_event(x: &Exec<'_, '_>, op: &Decoded, which: VmxInstruction, register: Option<Gpr>) -> Event {
    let operand = op.operands.iter().enumerate().find_map(|(n, operand)| match *operand {
        Operand::Memory => Some(EventOperand::Memory(x.memory_operand(op))),
        // The second register of VMREAD and VMWRITE is the encoding, reported apart.
        Operand::Register(r) if register.is_none() || field_operand(which) == Some(n) => {
            Some(EventOperand::Register(Gpr::from_number(r)))
        }
        _ => None,
    });
    let value = match which {
        VmxInstruction::Vmfunc => {
            x.cpu.gpr[Gpr::Rax as usize] & 0xffff_ffff | x.cpu.gpr[Gpr::Rcx as usize] << 32
        }
        _ => register.map_or(0, |gpr| x.cpu.register(gpr)),
    };
    Event::Vmx { instruction: which, operand, register, value }
}

/// Which operand holds the field's value, if it can be a register: INVEPT and INVVPID have their type there.
const fn field_operand(which: VmxInstruction) -> Option<usize> {
    match which {
        VmxInstruction::Vmread => Some(0),
        VmxInstruction::Vmwrite => Some(1),
        _ => None,
    }
}

/// Offers the event of a VMX instruction, if somebody wants to see it.
#[inline]
fn offer_vmx(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
    which: VmxInstruction,
    register: Option<Gpr>,
    stage: Stage,
) -> Result<Option<u64>> {
    x.offer(EventClass::Vmx, stage, |x| vmx_event(x, op, which, register))
}

/// VMXOFF, VMLAUNCH, VMRESUME, VMCALL, VMFUNC.
pub(crate) fn vmx_plain(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let (which, instruction) = match opcode(op) {
        Opcode::Vmlaunch => (VmxInstruction::Vmlaunch, Instruction::Vmlaunch),
        Opcode::Vmresume => (VmxInstruction::Vmresume, Instruction::Vmresume),
        Opcode::Vmcall => (VmxInstruction::Vmcall, Instruction::Vmcall),
        Opcode::Vmfunc => {
            let function = x.cpu.gpr[Gpr::Rax as usize] as u32;
            let index = x.cpu.gpr[Gpr::Rcx as usize] as u32;
            (VmxInstruction::Vmfunc, Instruction::Vmfunc { function, index })
        }
        _ => (VmxInstruction::Vmxoff, Instruction::Vmxoff),
    };
    let offer = |x: &mut Exec<'_, '_>, stage| offer_vmx(x, op, which, None, stage);
    if offer(x, Stage::BeforeExceptions)?.is_some() {
        return Ok(Flow::Next);
    }
    x.permit(opcode(op))?;
    if offer(x, Stage::AfterPrivilege)?.is_some() || offer(x, Stage::AfterOperands)?.is_some() {
        return Ok(Flow::Next);
    }
    x.finish(op, &instruction)
}

/// VMXON, VMCLEAR, VMPTRLD, VMPTRST: a 64-bit memory operand.
pub(crate) fn vmx_pointer(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let which = match opcode(op) {
        Opcode::Vmxon => VmxInstruction::Vmxon,
        Opcode::Vmclear => VmxInstruction::Vmclear,
        Opcode::Vmptrld => VmxInstruction::Vmptrld,
        _ => VmxInstruction::Vmptrst,
    };
    let offer = |x: &mut Exec<'_, '_>, stage| offer_vmx(x, op, which, None, stage);
    offer(x, Stage::BeforeExceptions)?;
    x.permit(opcode(op))?;
    offer(x, Stage::AfterPrivilege)?;
    if which == VmxInstruction::Vmptrst {
        offer(x, Stage::AfterOperands)?;
        return x.finish(op, &Instruction::Vmptrst);
    }
    let region = x.get(op, 0, 8)?;
    offer(x, Stage::AfterOperands)?;
    x.finish(
        op,
        &match which {
            VmxInstruction::Vmxon => Instruction::Vmxon { region },
            VmxInstruction::Vmclear => Instruction::Vmclear { region },
            _ => Instruction::Vmptrld { region },
        },
    )
}

fn register(operand: Operand) -> Result<Gpr> {
    if let Operand::Register(number) = operand { Ok(Gpr::from_number(number)) } else { Err(Fault::UD) }
}

/// VMREAD r/m64, r64.
pub(crate) fn vmread(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let encoding = register(op.operands[1])?;
    let offer = |x: &mut Exec<'_, '_>, stage| offer_vmx(x, op, VmxInstruction::Vmread, Some(encoding), stage);
    let mut done = offer(x, Stage::BeforeExceptions)?;
    if done.is_none() {
        x.permit(Opcode::Vmread)?;
        done = offer(x, Stage::AfterPrivilege)?;
    }
    if done.is_none() {
        done = offer(x, Stage::AfterOperands)?;
    }
    if let Some(value) = done {
        x.put(op, 0, 8, value)?;
        return Ok(Flow::Next);
    }
    if op.is_memory() {
        // The destination must be writable before the field is read.
        x.get_for_write(op, 8)?;
    }
    let encoding = x.cpu.register(encoding);
    x.finish(op, &Instruction::Vmread { encoding })
}

/// VMWRITE r64, r/m64.
pub(crate) fn vmwrite(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let encoding = register(op.operands[0])?;
    let offer =
        |x: &mut Exec<'_, '_>, stage| offer_vmx(x, op, VmxInstruction::Vmwrite, Some(encoding), stage);
    if offer(x, Stage::BeforeExceptions)?.is_some() {
        return Ok(Flow::Next);
    }
    x.permit(Opcode::Vmwrite)?;
    if offer(x, Stage::AfterPrivilege)?.is_some() {
        return Ok(Flow::Next);
    }
    let value = x.get(op, 1, 8)?;
    if offer(x, Stage::AfterOperands)?.is_some() {
        return Ok(Flow::Next);
    }
    let encoding = x.cpu.register(encoding);
    x.finish(op, &Instruction::Vmwrite { encoding, value })
}

/// INVEPT and INVVPID r64, m128.
pub(crate) fn invalidate(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let kind = register(op.operands[0])?;
    let ept = opcode(op) == Opcode::Invept;
    let which = if ept { VmxInstruction::Invept } else { VmxInstruction::Invvpid };
    let offer = |x: &mut Exec<'_, '_>, stage| offer_vmx(x, op, which, Some(kind), stage);
    offer(x, Stage::BeforeExceptions)?;
    x.permit(opcode(op))?;
    offer(x, Stage::AfterPrivilege)?;
    let descriptor = x.descriptor_operand(op)?;
    offer(x, Stage::AfterOperands)?;
    let kind = x.cpu.register(kind);
    let instruction = if ept {
        Instruction::Invept { kind, descriptor }
    } else {
        Instruction::Invvpid { kind, descriptor }
    };
    x.finish(op, &instruction)
}

/// The instructions of SVM.
pub(crate) fn svm(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let rax = x.cpu.gpr[Gpr::Rax as usize];
    let vmcb = if x.cpu.is_64_bit() { rax } else { rax & 0xffff_ffff };
    let (event, instruction) = match opcode(op) {
        Opcode::Vmrun => (Event::Vmrun { vmcb }, Instruction::Vmrun { vmcb }),
        Opcode::Vmload => (Event::Vmload { vmcb }, Instruction::Vmload { vmcb }),
        Opcode::Vmsave => (Event::Vmsave { vmcb }, Instruction::Vmsave { vmcb }),
        Opcode::Stgi => (Event::Stgi, Instruction::Stgi),
        Opcode::Clgi => (Event::Clgi, Instruction::Clgi),
        Opcode::Skinit => (Event::Skinit { block: vmcb as u32 }, Instruction::Skinit { block: vmcb as u32 }),
        Opcode::Invlpga => {
            let asid = x.cpu.gpr[Gpr::Rcx as usize] as u32;
            let linear = Linear(vmcb);
            (Event::Invlpga { linear, asid }, Instruction::Invlpga { linear, asid })
        }
        // Where VMGEXIT means nothing its prefix counts for nothing: it is VMMCALL (APM Vol. 3 "VMGEXIT").
        Opcode::Vmgexit if x.cpu.model.has(Feature::SevEs) => (Event::Vmgexit, Instruction::Vmmcall),
        _ => (Event::Vmmcall, Instruction::Vmmcall),
    };
    if x.offer(event.class(), Stage::BeforeExceptions, |_| event)?.is_some() {
        return Ok(Flow::Next);
    }
    x.permit(opcode(op))?;
    if x.offer_rest(event)?.is_some() {
        return Ok(Flow::Next);
    }
    x.finish(op, &instruction)
}
