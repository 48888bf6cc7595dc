//! MSRs of whoever runs, L1 or L2: in a VMCB, virtual, or the processor's own.

use rootmode_arch::{Cr0, Cr4, Efer, Feature, HostPhysical, Linear, msr};
use rootmode_cpu::{Instruction, Outcome};
use rootmode_svm::vmcb::Field;

use super::SvmVcpu;

/// Bits of VM_CR that exist, and the two that its lock bit freezes.
const VM_CR_DEFINED: u64 = 0x1f;
const VM_CR_LOCKED: u64 = 0x18;
const VM_CR_LOCK: u64 = 0x08;
/// A TSC ratio of 1.
const RATIO_ONE: u64 = 1 << 32;

impl SvmVcpu {
    /// MSRs with a field: in vmcb01, whoever runs, or in the VMCB that runs.
    fn field_of(&self, index: u32) -> Option<(HostPhysical, Field)> {
        let moved = |field| Some((self.vmcb01, field));
        match index {
            msr::IA32_FS_BASE => moved(Field::FsBase),
            msr::IA32_GS_BASE => moved(Field::GsBase),
            msr::IA32_KERNEL_GS_BASE => moved(Field::KernelGsBase),
            msr::IA32_STAR => moved(Field::Star),
            msr::IA32_LSTAR => moved(Field::Lstar),
            msr::IA32_CSTAR => moved(Field::Cstar),
            msr::IA32_FMASK => moved(Field::Sfmask),
            msr::IA32_SYSENTER_CS => moved(Field::SysenterCs),
            msr::IA32_SYSENTER_ESP => moved(Field::SysenterEsp),
            msr::IA32_SYSENTER_EIP => moved(Field::SysenterEip),
            msr::IA32_PAT => Some((self.vmcb(), Field::GPat)),
            _ => None,
        }
    }

    /// RDMSR. `None`: #GP.
    pub(super) fn read_msr(&self, index: u32) -> Option<u64> {
        if let Some((vmcb, field)) = self.field_of(index) {
            return Some(self.get(vmcb, field));
        }
        match index {
            msr::IA32_EFER => {
                let efer = Efer(self.get(self.vmcb(), Field::Efer));
                let shown = self.nested.running.is_some() || self.nested.enabled;
                Some(efer.set(Efer::SVME, efer.contains(Efer::SVME) && shown).0)
            }
            msr::IA32_TSC => {
                let offset = self.get(self.vmcb(), Field::TscOffset);
                Some(self.m().cpu().host_tsc().wrapping_add(offset))
            }
            msr::VM_CR => Some(self.nested.vm_cr),
            msr::VM_HSAVE_PA => Some(self.nested.hsave),
            msr::TSC_RATIO => Some(RATIO_ONE),
            _ => match self.m().execute(Instruction::Rdmsr { index }) {
                Ok(Outcome::Value(value)) => Some(value),
                _ => None,
            },
        }
    }

    /// WRMSR. `None`: #GP.
    pub(super) fn write_msr(&mut self, index: u32, value: u64) -> Option<()> {
        if let Some((vmcb, field)) = self.field_of(index) {
            let width = if self.get(self.vmcb(), Field::Cr4) & Cr4::LA57.0 != 0 { 57 } else { 48 };
            let value = match index {
                msr::IA32_STAR => value,
                msr::IA32_FMASK | msr::IA32_SYSENTER_CS => value & 0xffff_ffff,
                msr::IA32_PAT => {
                    value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7)).then_some(value)?
                }
                _ => Linear(value).is_canonical(width).then_some(value)?,
            };
            self.set(vmcb, field, value);
            return Some(());
        }
        match index {
            msr::IA32_EFER => self.write_efer(value),
            msr::VM_CR => {
                if value & !VM_CR_DEFINED != 0 {
                    return None;
                }
                let kept = if self.nested.vm_cr & VM_CR_LOCK != 0 { VM_CR_LOCKED } else { 0 };
                self.nested.vm_cr = self.nested.vm_cr & kept | value & !kept;
                Some(())
            }
            msr::VM_HSAVE_PA => {
                if value & 0xfff != 0 || value >= self.processor.physical_limit() {
                    return None;
                }
                self.nested.hsave = value;
                Some(())
            }
            // Nested TSC scaling is not modelled: only the ratio that is in effect can be written.
            msr::TSC_RATIO if !self.model.has(Feature::TscRateMsr) => None,
            msr::TSC_RATIO => {
                if value != RATIO_ONE {
                    self.unmodelled();
                }
                Some(())
            }
            _ => self.m().execute(Instruction::Wrmsr { index, value }).ok().map(|_| ()),
        }
    }

    fn write_efer(&mut self, value: u64) -> Option<()> {
        let vmcb = self.vmcb();
        let old = Efer(self.get(vmcb, Field::Efer));
        let mut allowed = Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE;
        // SVMDIS.
        if self.model.has(Feature::Svm) && self.nested.vm_cr & 0x10 == 0 {
            allowed = allowed | Efer::SVME;
        }
        let paging = self.get(vmcb, Field::Cr0) & Cr0::PG.0 != 0;
        if value & !allowed.0 != 0 || paging && (value ^ old.0) & Efer::LME.0 != 0 {
            return None;
        }
        let new = Efer(value).set(Efer::LMA, old.contains(Efer::LMA));
        if self.nested.running.is_none() {
            self.set_enabled(new.contains(Efer::SVME));
        }
        // The processor insists on SVME in every VMCB.
        self.set(vmcb, Field::Efer, new.with(Efer::SVME).0);
        Some(())
    }
}
