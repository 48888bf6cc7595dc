//! Operands of L1's VMX instructions: addresses from the instruction information, and L1's linear memory.

use rootmode_arch::{AccessRights, Cr0, Cr3, Cr4, Efer, Feature, Gpr, Linear, SegmentName, vector};
use rootmode_mmu::{Access, AccessKind, Ept, Paging, PagingMode, SecondStage, WalkFault, translate};
use rootmode_vmx::Field;
use rootmode_vmx::drive::segment_fields;
use rootmode_vmx::information::{Format, InstructionInformation, InstructionOperand};

use super::super::machine::HostBug;
use super::VmxVcpu;

/// Why an operand could not be used: the exception that L1 gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct OperandFault {
    pub(super) vector: u8,
    pub(super) code: u32,
    /// CR2, for #PF.
    pub(super) address: Linear,
}

impl VmxVcpu {
    pub(super) fn register(&self, gpr: Gpr) -> Result<u64, HostBug> {
        if gpr == Gpr::Rsp { self.vmread(Field::GuestRsp) } else { Ok(self.m().gpr(gpr)) }
    }

    pub(super) fn set_register(&self, gpr: Gpr, value: u64) -> Result<(), HostBug> {
        if gpr == Gpr::Rsp {
            return self.vmwrite(Field::GuestRsp, value);
        }
        self.m().set_gpr(gpr, value);
        Ok(())
    }

    /// The instruction information of the current exit.
    pub(super) fn information(&self, format: Format) -> Result<Option<InstructionInformation>, HostBug> {
        Ok(InstructionInformation::decode(format, self.vmread(Field::ExitInstructionInfo)? as u32))
    }

    /// The linear address of a memory operand: the displacement is in the exit qualification.
    pub(super) fn operand_address(&self, operand: InstructionOperand) -> Result<Option<Linear>, HostBug> {
        let InstructionOperand::Memory(address) = operand else { return Ok(None) };
        let mut offset = self.vmread(Field::ExitQualification)?;
        if let Some(base) = address.base {
            offset = offset.wrapping_add(self.register(base)?);
        }
        if let Some((index, scale)) = address.index {
            offset = offset.wrapping_add(self.register(index)? << scale);
        }
        if address.size == 4 {
            offset &= 0xffff_ffff;
        }
        let base = match address.segment {
            SegmentName::Fs | SegmentName::Gs => self.vmread(segment_fields(address.segment)[3])?,
            _ => 0,
        };
        Ok(Some(Linear(base.wrapping_add(offset))))
    }

    fn paging_of_l1(&self) -> Result<Paging, HostBug> {
        let cr4 = Cr4(self.vmread(Field::GuestCr4)?);
        let cr0 = Cr0(self.vmread(Field::GuestCr0)?);
        let efer = Efer(self.vmread(Field::GuestEfer)?);
        let mut pdptes = [0; 4];
        let fields = [Field::GuestPdpte0, Field::GuestPdpte1, Field::GuestPdpte2, Field::GuestPdpte3];
        for (entry, field) in pdptes.iter_mut().zip(fields) {
            *entry = self.vmread(field)?;
        }
        let (pkru, pkrs) = {
            let machine = self.m();
            (machine.cpu().pkru, machine.cpu().pkrs)
        };
        Ok(Paging {
            cr3: Cr3(self.vmread(Field::GuestCr3)?),
            pdptes,
            mode: PagingMode::of(cr0, cr4, efer),
            write_protect: cr0.contains(Cr0::WP),
            no_execute: efer.contains(Efer::NXE),
            smep: cr4.contains(Cr4::SMEP),
            smap: cr4.contains(Cr4::SMAP),
            pcide: cr4.contains(Cr4::PCIDE),
            global: cr4.contains(Cr4::PGE),
            huge_pages: self.model.has(Feature::Page1Gb),
            protection_keys: cr4.contains(Cr4::PKE),
            supervisor_keys: cr4.contains(Cr4::PKS),
            lam_supervisor: cr4.contains(Cr4::LAM_SUP),
            top_global_reserved: false,
            pkru,
            pkrs,
            physical_width: self.model.physical_width(),
            c_bit: 0,
        })
    }

    /// Where a byte of L1's linear memory is; pages of the slot are faulted in.
    fn translate_linear(
        &self,
        linear: Linear,
        kind: AccessKind,
    ) -> Result<Result<rootmode_arch::HostPhysical, OperandFault>, HostBug> {
        let paging = self.paging_of_l1()?;
        let general = OperandFault { vector: vector::GP, code: 0, address: Linear(0) };
        if !linear.is_canonical(if paging.mode == PagingMode::Level5 { 57 } else { 48 }) {
            return Ok(Err(general));
        }
        let cpl = AccessRights(self.vmread(Field::GuestSsRights)? as u32).dpl();
        let access = Access::data(kind, cpl, self.vmread(Field::GuestRflags)? >> 18 & 1 != 0);
        loop {
            let mut m = self.m();
            let second = SecondStage::Ept(Ept {
                root: m.tables01.root(),
                five_level: false,
                accessed_dirty: false,
                mode_based_execute: false,
                execute_only: true,
                huge_pages: true,
                physical_width: self.model.physical_width(),
            });
            match translate(&mut m.board.memory, &paging, &second, linear, access) {
                Ok(translation) => return Ok(Ok(translation.host)),
                Err(WalkFault::Page(code)) => {
                    return Ok(Err(OperandFault { vector: vector::PF, code, address: linear }));
                }
                Err(WalkFault::SecondStage(access)) => {
                    if !m.map01(access.address, access.write)? {
                        return Ok(Err(general));
                    }
                }
                // These tables have no log.
                Err(WalkFault::LogFull) => return Ok(Err(general)),
            }
        }
    }

    /// Reads 8 bytes of L1's linear memory.
    pub(super) fn read_linear(&self, linear: Linear) -> Result<Result<u64, OperandFault>, HostBug> {
        let mut bytes = [0; 8];
        for (index, byte) in bytes.iter_mut().enumerate() {
            match self.translate_linear(linear.offset(index as u64), AccessKind::Read)? {
                Ok(host) => *byte = self.m().board.memory.read_u8(host),
                Err(fault) => return Ok(Err(fault)),
            }
        }
        Ok(Ok(u64::from_le_bytes(bytes)))
    }

    /// Writes 8 bytes of L1's linear memory, all or none.
    pub(super) fn write_linear(
        &self,
        linear: Linear,
        value: u64,
    ) -> Result<Result<(), OperandFault>, HostBug> {
        let mut places = Vec::with_capacity(8);
        for index in 0..8 {
            match self.translate_linear(linear.offset(index), AccessKind::Write)? {
                Ok(host) => places.push(host),
                Err(fault) => return Ok(Err(fault)),
            }
        }
        let mut m = self.m();
        for (host, byte) in places.into_iter().zip(value.to_le_bytes()) {
            m.board.memory.write_u8(host, byte);
        }
        Ok(Ok(()))
    }
}
