//! SVM's MSRs: VM_CR, VM_HSAVE_PA, the TSC ratio, SEV's; and EFER.SVME
//! (APM Vol. 2 (24593 rev. 3.43) "SVM Related MSRs").

use super::Svm;
use rootmode_arch::{Efer, Feature, msr};
use rootmode_cpu::{Cpu, Fault, Result};

/// VM_CR.LOCK: SVMDIS is read-only.
pub(super) const LOCK: u64 = 1 << 3;
/// VM_CR.SVMDIS: EFER.SVME cannot be set.
pub(super) const SVMDIS: u64 = 1 << 4;
/// VM_CR.R_INIT: INIT becomes #SX.
pub(super) const R_INIT: u64 = 1 << 1;
/// VM_CR bits that exist: DPD, R_INIT, DIS_A20M, LOCK, SVMDIS.
const DEFINED: u64 = 0x1f;

impl Svm {
    pub(super) fn read_own_msr(&mut self, index: u32) -> Option<Result<u64>> {
        Some(Ok(match index {
            msr::VM_CR => self.vm_cr,
            msr::VM_HSAVE_PA => self.hsave,
            msr::TSC_RATIO if self.processor.has(Feature::TscRateMsr) => self.tsc_ratio,
            msr::AVIC_DOORBELL if self.processor.has(Feature::Avic) => return Some(Err(Fault::GP0)),
            msr::SEV_STATUS if self.processor.has(Feature::Sev) => self.sev_status(),
            msr::SEV_ES_GHCB => *self.ghcb()?,
            _ => return None,
        }))
    }

    pub(super) fn write_own_msr(&mut self, cpu: &mut Cpu, index: u32, value: u64) -> Option<Result> {
        match index {
            msr::VM_CR => {
                // SVMDIS cannot be set while EFER.SVME is, whether it is locked or not.
                let disables = value & SVMDIS != 0 && cpu.efer.contains(Efer::SVME);
                if value & !DEFINED != 0 || disables {
                    return Some(Err(Fault::GP0));
                }
                let kept = if self.vm_cr & LOCK != 0 { LOCK | SVMDIS } else { 0 };
                self.vm_cr = self.vm_cr & kept | value & !kept;
            }
            msr::VM_HSAVE_PA => {
                let address = value & !cpu.host_c_bit();
                if address & 0xfff != 0 || address >= self.processor.physical_limit() {
                    return Some(Err(Fault::GP0));
                }
                self.hsave = value;
            }
            msr::TSC_RATIO if self.processor.has(Feature::TscRateMsr) => {
                // Bits 63:40 are reserved.
                if value >> 40 != 0 {
                    return Some(Err(Fault::GP0));
                }
                self.tsc_ratio = value;
            }
            msr::SEV_STATUS if self.processor.has(Feature::Sev) => return Some(Err(Fault::GP0)),
            msr::SEV_ES_GHCB => *self.ghcb()? = value,
            // Write-only: bits 7:0 are a physical APIC ID ("Doorbell Mechanism").
            msr::AVIC_DOORBELL if self.processor.has(Feature::Avic) => {
                if value >> 8 != 0 {
                    return Some(Err(Fault::GP0));
                }
                cpu.ring_doorbell(value as u32);
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    pub(super) const fn allowed_efer_bits(&self) -> u64 {
        if self.vm_cr & SVMDIS == 0 && self.processor.has(Feature::Svm) { Efer::SVME.0 } else { 0 }
    }
}
