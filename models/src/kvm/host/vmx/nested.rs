//! L1's VMX instructions, as KVM emulates them.

use rootmode_arch::{
    AccessRights, Cr0, Cr4, Efer, Gpr, GuestPhysical, HostPhysical, Linear, RFlags, SegmentName, vector,
};

use rootmode_cpu::{DeliveryKind, Instruction};
use rootmode_vmx::definitions::capabilities::EptVpid;
use rootmode_vmx::definitions::field::{Access, Kind};
use rootmode_vmx::drive::offered::REVISION;
use rootmode_vmx::drive::{region, segment_fields};
use rootmode_vmx::information::{Format, InstructionOperand};
use rootmode_vmx::{ExitReason, Field, InstructionError};

use super::super::backend::{Injection, Nested};
use super::super::machine::HostBug;
use super::operands::OperandFault;
use super::{EPTP_BITS, VPID02, VmxVcpu};

const STATUS: u64 = RFlags::CF.0 | RFlags::PF.0 | RFlags::AF.0 | RFlags::ZF.0 | RFlags::SF.0 | RFlags::OF.0;

/// How an emulated VMX instruction ends.
pub(super) enum End {
    Succeed,
    /// VMfailInvalid.
    Invalid,
    /// VMfailValid, or VMfailInvalid without a current VMCS.
    Fail(InstructionError),
    /// An exception instead.
    Fault(OperandFault),
    /// L2 was entered, or the entry failed with an exit: nothing of the instruction is left to do.
    Over(Nested),
}

impl From<InstructionError> for End {
    fn from(error: InstructionError) -> Self {
        Self::Fail(error)
    }
}

/// What CR0 has in VMX operation (SDM Vol. 3C "Restrictions on VMX Operation"; IA32_VMX_CR0_FIXED0).
pub(super) const FIXED_CR0: Cr0 = Cr0(Cr0::PE.0 | Cr0::NE.0 | Cr0::PG.0);

const GENERAL_PROTECTION: End = End::Fault(OperandFault { vector: vector::GP, code: 0, address: Linear(0) });

/// The operand, or the fault as the instruction's end.
macro_rules! fetched {
    ($read:expr) => {
        match $read? {
            Ok(value) => value,
            Err(fault) => return Ok(End::Fault(fault)),
        }
    };
}

impl VmxVcpu {
    pub(super) async fn nested_instruction(&mut self, reason: ExitReason) -> Result<Nested, HostBug> {
        let end = match self.permitted(reason)? {
            Some(fault) => fault,
            None => match reason {
                ExitReason::VMLAUNCH => self.nested_entry(false).await?,
                ExitReason::VMRESUME => self.nested_entry(true).await?,
                ExitReason::VMXOFF => {
                    self.flush_vmcs12();
                    self.end(End::Succeed)?;
                    self.free_nested().await?;
                    End::Over(Nested::Resumes)
                }
                _ => {
                    self.before_guest_memory().await;
                    self.nested_plain(reason)?
                }
            },
        };
        self.end(end)
    }

    fn end(&mut self, end: End) -> Result<Nested, HostBug> {
        let flags = match end {
            End::Over(nested) => return Ok(nested),
            End::Fault(OperandFault { vector, code, address }) => {
                if vector == vector::PF {
                    self.m().cpu_mut().cr2 = address.0;
                }
                let error_code = (vector != vector::UD).then_some(code);
                let kind = DeliveryKind::Hardware;
                return Ok(Nested::Raises(Injection { kind, vector, error_code, length: 0 }));
            }
            End::Succeed => 0,
            End::Fail(error) if self.nested.current.is_some() => {
                self.nested.vmcs12.set(Field::InstructionError, error.0.into());
                RFlags::ZF.0
            }
            End::Invalid | End::Fail(_) => RFlags::CF.0,
        };
        self.vmwrite(Field::GuestRflags, self.vmread(Field::GuestRflags)? & !STATUS | flags)?;
        self.skip()?;
        Ok(Nested::Resumes)
    }

    /// The exceptions that the processor leaves to L0.
    fn permitted(&self, reason: ExitReason) -> Result<Option<End>, HostBug> {
        let undefined = OperandFault { vector: vector::UD, code: 0, address: Linear(0) };
        let long_mode = Efer(self.vmread(Field::GuestEfer)?).contains(Efer::LMA);
        let code = AccessRights(self.vmread(segment_fields(SegmentName::Cs)[2])? as u32);
        let off = match reason {
            ExitReason::VMXON => !self.cr4_of_l1()?.contains(Cr4::VMXE),
            _ => self.nested.vmxon.is_none(),
        };
        if off || long_mode && !code.contains(AccessRights::L) {
            return Ok(Some(End::Fault(undefined)));
        }
        let cpl = AccessRights(self.vmread(Field::GuestSsRights)? as u32).dpl();
        let starts = reason == ExitReason::VMXON && self.nested.vmxon.is_none();
        let cr0 = Cr0(self.behind_mask(Field::GuestCr0, Field::Cr0Mask, Field::Cr0Shadow)?);
        let refused = starts && (self.feature_control & 5 != 5 || !cr0.contains(FIXED_CR0));
        Ok((cpl != 0 || refused).then_some(GENERAL_PROTECTION))
    }

    fn nested_plain(&mut self, reason: ExitReason) -> Result<End, HostBug> {
        match reason {
            ExitReason::VMXON => {
                let pointer = fetched!(self.pointer_operand());
                self.nested_vmxon(pointer)
            }
            ExitReason::VMCLEAR => {
                let pointer = fetched!(self.pointer_operand());
                Ok(self.nested_vmclear(pointer))
            }
            ExitReason::VMPTRLD => {
                let pointer = fetched!(self.pointer_operand());
                Ok(self.nested_vmptrld(pointer))
            }
            ExitReason::VMPTRST => {
                let Some(address) = self.memory_operand(Format::Memory)? else {
                    return Ok(GENERAL_PROTECTION);
                };
                let value = self.nested.current.map_or(u64::MAX, |current| current.0);
                fetched!(self.write_linear(address, value));
                Ok(End::Succeed)
            }
            ExitReason::VMREAD => self.nested_vmread(),
            ExitReason::VMWRITE => self.nested_vmwrite(),
            ExitReason::INVEPT => self.nested_invept(),
            _ => self.nested_invvpid(),
        }
    }

    fn memory_operand(&self, format: Format) -> Result<Option<Linear>, HostBug> {
        match self.information(format)? {
            Some(information) => self.operand_address(information.operand),
            None => Ok(None),
        }
    }

    /// The 64-bit pointer that VMXON, VMCLEAR and VMPTRLD take.
    fn pointer_operand(&self) -> Result<Result<u64, OperandFault>, HostBug> {
        match self.memory_operand(Format::Memory)? {
            Some(address) => self.read_linear(address),
            None => Ok(Err(OperandFault { vector: vector::GP, code: 0, address: Linear(0) })),
        }
    }

    /// Where a VMCS region of L1 is, if the pointer is legal.
    fn region12(&self, pointer: u64) -> Option<HostPhysical> {
        if !self.is_page(pointer) {
            return None;
        }
        self.m().place(GuestPhysical(pointer), true)
    }

    /// Whether a pointer of L1's is a page's address that its processor could have.
    pub(super) fn is_page(&self, pointer: u64) -> bool {
        pointer & 0xfff == 0 && pointer >> self.model.physical_width() == 0
    }

    fn nested_vmxon(&mut self, pointer: u64) -> Result<End, HostBug> {
        if self.nested.vmxon.is_some() {
            return Ok(InstructionError::VMXON_IN_ROOT.into());
        }
        let revision = self.region12(pointer).map(|at| region::revision(&self.m().board.memory, at));
        if revision != Some(REVISION) {
            return Ok(End::Invalid);
        }
        self.nested.vmxon = Some(pointer);
        self.nested.current = None;
        Ok(End::Succeed)
    }

    /// Writes the cached data of L1's current VMCS to L1's memory, and forgets which it was.
    pub(super) fn flush_vmcs12(&mut self) {
        let Some(current) = self.nested.current.take() else { return };
        let Some(at) = self.region12(current.0) else { return };
        let mut m = self.m();
        let memory = &mut m.board.memory;
        for field in Field::ALL {
            region::store(memory, at, field, self.nested.vmcs12.value(field));
        }
        region::set_launched(memory, at, self.nested.launched);
    }

    fn nested_vmclear(&mut self, pointer: u64) -> End {
        let Some(at) = self.region12(pointer) else { return InstructionError::VMCLEAR_ADDRESS.into() };
        if self.nested.vmxon == Some(pointer) {
            return InstructionError::VMCLEAR_VMXON_POINTER.into();
        }
        if self.nested.current == Some(GuestPhysical(pointer)) {
            self.flush_vmcs12();
        }
        region::set_launched(&mut self.m().board.memory, at, false);
        End::Succeed
    }

    fn nested_vmptrld(&mut self, pointer: u64) -> End {
        let Some(at) = self.region12(pointer) else { return InstructionError::VMPTRLD_ADDRESS.into() };
        if self.nested.vmxon == Some(pointer) {
            return InstructionError::VMPTRLD_VMXON_POINTER.into();
        }
        if region::revision(&self.m().board.memory, at) != REVISION {
            return InstructionError::VMPTRLD_REVISION.into();
        }
        if self.nested.current != Some(GuestPhysical(pointer)) {
            self.flush_vmcs12();
            let (vmcs12, launched) = {
                let m = self.m();
                (region::load(&m.board.memory, at), region::is_launched(&m.board.memory, at))
            };
            *self.nested.vmcs12 = vmcs12;
            self.nested.launched = launched;
            self.nested.current = Some(GuestPhysical(pointer));
        }
        End::Succeed
    }

    /// The field behind an encoding, if L1's processor has it.
    fn field12(&self, encoding: u64) -> Option<(Field, Access)> {
        let known = u32::try_from(encoding).ok().and_then(Field::from_encoding)?;
        self.fields12.has(known.0).then_some(known)
    }

    fn nested_vmread(&mut self) -> Result<End, HostBug> {
        if self.nested.current.is_none() {
            return Ok(End::Invalid);
        }
        let Some(information) = self.information(Format::VmcsField)? else { return Ok(GENERAL_PROTECTION) };
        let encoding = self.register(information.register.unwrap_or(Gpr::Rax))?;
        let Some((field, access)) = self.field12(encoding) else {
            return Ok(InstructionError::UNSUPPORTED_FIELD.into());
        };
        let value = self.nested.vmcs12.value(field);
        let value = if access == Access::High { value >> 32 } else { value };
        match information.operand {
            InstructionOperand::Register(gpr) => self.set_register(gpr, value)?,
            operand => {
                let Some(address) = self.operand_address(operand)? else { return Ok(GENERAL_PROTECTION) };
                fetched!(self.write_linear(address, value));
            }
        }
        Ok(End::Succeed)
    }

    fn nested_vmwrite(&mut self) -> Result<End, HostBug> {
        if self.nested.current.is_none() {
            return Ok(End::Invalid);
        }
        let Some(information) = self.information(Format::VmcsField)? else { return Ok(GENERAL_PROTECTION) };
        let encoding = self.register(information.register.unwrap_or(Gpr::Rax))?;
        let value = match information.operand {
            InstructionOperand::Register(gpr) => self.register(gpr)?,
            operand => {
                let Some(address) = self.operand_address(operand)? else { return Ok(GENERAL_PROTECTION) };
                fetched!(self.read_linear(address))
            }
        };
        let Some((field, access)) = self.field12(encoding) else {
            return Ok(InstructionError::UNSUPPORTED_FIELD.into());
        };
        let any = self.offered.misc().is_some_and(|misc| misc.0 >> 29 & 1 != 0);
        if field.kind() == Kind::ReadOnly && !any {
            return Ok(InstructionError::VMWRITE_READ_ONLY.into());
        }
        let old = self.nested.vmcs12.value(field);
        let value = if access == Access::High { old & 0xffff_ffff | value << 32 } else { value };
        self.nested.vmcs12.set(field, value);
        Ok(End::Succeed)
    }

    /// Type and descriptor of INVEPT or INVVPID.
    fn invalidation(&self) -> Result<Result<(u64, [u64; 2]), End>, HostBug> {
        let Some(information) = self.information(Format::Invalidate)? else {
            return Ok(Err(GENERAL_PROTECTION));
        };
        let kind = self.register(information.register.unwrap_or(Gpr::Rax))?;
        let Some(address) = self.operand_address(information.operand)? else {
            return Ok(Err(GENERAL_PROTECTION));
        };
        let mut descriptor = [0; 2];
        for (index, half) in descriptor.iter_mut().enumerate() {
            match self.read_linear(address.offset(8 * index as u64))? {
                Ok(value) => *half = value,
                Err(fault) => return Ok(Err(End::Fault(fault))),
            }
        }
        Ok(Ok((kind, descriptor)))
    }

    fn ept_vpid(&self) -> EptVpid {
        self.offered.ept_vpid().unwrap_or_default()
    }

    fn nested_invept(&mut self) -> Result<End, HostBug> {
        let (kind, descriptor) = match self.invalidation()? {
            Ok(operands) => operands,
            Err(end) => return Ok(end),
        };
        let eptp = descriptor[0];
        let legal = match kind {
            1 => {
                let reserved = 0xf80 | !0_u64 << self.model.physical_width();
                matches!(eptp & 7, 0 | 6) && eptp >> 3 & 7 == 3 && eptp & reserved == 0
            }
            2 => true,
            _ => false,
        };
        if !legal || descriptor[1] != 0 {
            return Ok(InstructionError::INVEPT_INVVPID_OPERAND.into());
        }
        let same = |of: u64| (of ^ eptp) & 0x000f_ffff_ffff_f000 == 0;
        if kind == 2 || self.nested.shadow_of.is_some_and(same) {
            self.drop_shadow()?;
        }
        Ok(End::Succeed)
    }

    /// Everything that was derived from L1's tables is invalid.
    pub(super) fn drop_shadow(&mut self) -> Result<(), HostBug> {
        self.nested.shadow_of = None;
        let mut m = self.m();
        if let Some(root) = m.take_shadow() {
            m.vmx(Instruction::Invept { kind: 1, descriptor: [root.0 | EPTP_BITS, 0] })?;
        }
        Ok(())
    }

    fn nested_invvpid(&mut self) -> Result<End, HostBug> {
        let (kind, descriptor) = match self.invalidation()? {
            Ok(operands) => operands,
            Err(end) => return Ok(end),
        };
        let needed = match kind {
            0 => EptVpid::INVVPID_ADDRESS,
            1 => EptVpid::INVVPID_SINGLE,
            2 => EptVpid::INVVPID_ALL,
            3 => EptVpid::INVVPID_SINGLE_GLOBALS,
            _ => return Ok(InstructionError::INVEPT_INVVPID_OPERAND.into()),
        };
        let linear = Linear(descriptor[1]);
        let legal = self.ept_vpid().contains(needed)
            && descriptor[0] >> 16 == 0
            && (kind == 2 || descriptor[0] != 0)
            && (kind != 0 || linear.is_canonical(48));
        if !legal {
            return Ok(InstructionError::INVEPT_INVVPID_OPERAND.into());
        }
        self.flush_vpid02()?;
        Ok(End::Succeed)
    }

    /// All linear and combined mappings of L2 go.
    pub(super) fn flush_vpid02(&self) -> Result<(), HostBug> {
        self.m().vmx(Instruction::Invvpid { kind: 1, descriptor: [VPID02, 0] })?;
        Ok(())
    }
}
