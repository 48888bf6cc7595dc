//! MSRs of whoever runs, L1 or L2: in the loaded VMCS, virtual, or the processor's own.

use rootmode_arch::{Cr0, Efer, Linear, msr};
use rootmode_cpu::{Instruction, Outcome};
use rootmode_vmx::Field;
use rootmode_vmx::drive::offered;

use super::super::machine::HostBug;
use super::VmxVcpu;

/// MSRs with a field in the guest-state area.
const fn field_of(index: u32) -> Option<Field> {
    Some(match index {
        msr::IA32_FS_BASE => Field::GuestFsBase,
        msr::IA32_GS_BASE => Field::GuestGsBase,
        msr::IA32_SYSENTER_CS => Field::GuestSysenterCs,
        msr::IA32_SYSENTER_ESP => Field::GuestSysenterEsp,
        msr::IA32_SYSENTER_EIP => Field::GuestSysenterEip,
        msr::IA32_PAT => Field::GuestPat,
        _ => return None,
    })
}

impl VmxVcpu {
    /// RDMSR. `None`: #GP.
    pub(super) fn read_msr(&self, index: u32) -> Result<Option<u64>, HostBug> {
        if let Some(field) = field_of(index) {
            return self.vmread(field).map(Some);
        }
        Ok(match index {
            msr::IA32_EFER => Some(self.vmread(Field::GuestEfer)?),
            msr::IA32_TSC => {
                let offset = self.vmread(Field::TscOffset)?;
                Some(self.m().cpu().host_tsc().wrapping_add(offset))
            }
            msr::IA32_FEATURE_CONTROL => Some(self.feature_control),
            msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 => offered::read(&self.offered, index),
            _ => self.processor_msr(Instruction::Rdmsr { index }).and_then(|outcome| match outcome {
                Outcome::Value(value) => Some(value),
                _ => None,
            }),
        })
    }

    /// WRMSR. `None`: #GP.
    pub(super) fn write_msr(&mut self, index: u32, value: u64) -> Result<Option<()>, HostBug> {
        if let Some(field) = field_of(index) {
            let legal = match index {
                msr::IA32_SYSENTER_CS => true,
                msr::IA32_PAT => value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7)),
                _ => Linear(value).is_canonical(self.linear_width()?),
            };
            if !legal {
                return Ok(None);
            }
            return self.vmwrite(field, value).map(Some);
        }
        match index {
            msr::IA32_EFER => self.write_efer(value),
            msr::IA32_FEATURE_CONTROL => {
                if self.feature_control & 1 != 0 || value & !7 != 0 {
                    return Ok(None);
                }
                self.feature_control = value;
                Ok(Some(()))
            }
            msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 => Ok(None),
            _ => Ok(self.processor_msr(Instruction::Wrmsr { index, value }).map(|_| ())),
        }
    }

    /// An MSR that guests share with the processor; `None` if the processor refuses.
    fn processor_msr(&self, instruction: Instruction) -> Option<Outcome> {
        self.m().execute(instruction).ok()
    }

    fn linear_width(&self) -> Result<u32, HostBug> {
        let la57 = self.vmread(Field::GuestCr4)? & rootmode_arch::Cr4::LA57.0 != 0;
        Ok(if la57 { 57 } else { 48 })
    }

    fn write_efer(&self, value: u64) -> Result<Option<()>, HostBug> {
        let old = Efer(self.vmread(Field::GuestEfer)?);
        let allowed = Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE;
        let paging = self.vmread(Field::GuestCr0)? & Cr0::PG.0 != 0;
        if value & !allowed.0 != 0 || paging && (value ^ old.0) & Efer::LME.0 != 0 {
            return Ok(None);
        }
        self.vmwrite(Field::GuestEfer, Efer(value).set(Efer::LMA, old.contains(Efer::LMA)).0)?;
        Ok(Some(()))
    }
}
