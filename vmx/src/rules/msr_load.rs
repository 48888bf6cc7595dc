//! "Loading MSRs": the VM-entry MSR-load area, entry by entry (16 bytes: index, reserved, value).

use super::host_registers::HIGH;
use super::view::{Missing, View, pat_is_valid};
use super::{Outcome, rules};
use crate::context::Item;
use crate::definitions::field::Field;
use rootmode_arch::{Cr0, Efer, HostPhysical, msr};

/// One entry of an MSR-load area.
#[derive(Clone, Copy)]
struct Loaded {
    index: u32,
    reserved: u32,
    /// Where the value stands.
    value: HostPhysical,
}

impl Loaded {
    const fn is_x2apic(self) -> bool {
        self.index >> 8 == 8
    }
    const fn is_segment_base(self) -> bool {
        self.index == msr::IA32_FS_BASE || self.index == msr::IA32_GS_BASE
    }
    /// Microcode update trigger and signature: no processor loads them on VM entry.
    const fn is_model_specific(self) -> bool {
        self.index == msr::IA32_BIOS_UPDT_TRIG || self.index == msr::IA32_BIOS_SIGN_ID
    }
    /// Whether another rule refuses the entry already.
    const fn is_refused(self) -> bool {
        self.is_x2apic()
            || self.is_segment_base()
            || self.is_model_specific()
            || self.reserved != 0
            || self.index == msr::IA32_SMM_MONITOR_CTL
    }
}

impl<const PARTIAL: bool> View<'_, PARTIAL> {
    /// The first entry for which `holds` is false. Entries beyond the recommended maximum have no defined behaviour and are not
    /// looked at; an area whose address another rule refuses is empty.
    #[inline]
    fn each_loaded(&self, holds: impl Fn(Loaded) -> Result<bool, Missing>) -> Result<Outcome, Missing> {
        let count = self.get(Field::EntryMsrLoadCount)?;
        let address = self.get(Field::EntryMsrLoadAddress)?;
        if address & 0xf != 0 || !self.fits(address)? || !self.fits(address + 16 * count - 1)? {
            return Ok(Outcome::Satisfied);
        }
        for i in 0..count.min(u64::from(self.misc()?.msr_list_limit())) {
            let head = self.memory(HostPhysical(address + 16 * i))?;
            let value = HostPhysical(address + 16 * i + 8);
            if !holds(Loaded { index: head as u32, reserved: (head >> 32) as u32, value })? {
                return Ok(Outcome::ViolatedAt(i as u32 + 1));
            }
        }
        Ok(Outcome::Satisfied)
    }

    /// Whether WRMSR at CPL 0 would take the value. MSRs that are not known here cannot be judged.
    fn writable(&self, entry: Loaded) -> Result<bool, Missing> {
        let value = self.memory(entry.value)?;
        Ok(match entry.index {
            msr::IA32_EFER => {
                // With paging on, LME cannot change; it has the value of "IA-32e mode guest" by then.
                let long = self.is_ia32e_guest()?;
                value & self.efer_reserved()? & !Efer::LMA.0 == 0
                    && (!self.cr0()?.contains(Cr0::PG) || (value & Efer::LME.0 != 0) == long)
            }
            msr::IA32_PAT => pat_is_valid(value),
            msr::IA32_DEBUGCTL => value & self.debugctl_reserved()? == 0,
            msr::IA32_PERF_GLOBAL_CTRL => value & !self.item(Item::PerfGlobalMask)? == 0,
            msr::IA32_SYSENTER_ESP
            | msr::IA32_SYSENTER_EIP
            | msr::IA32_LSTAR
            | msr::IA32_CSTAR
            | msr::IA32_KERNEL_GS_BASE
            | msr::IA32_INTERRUPT_SSP_TABLE_ADDR => self.canonical_value(value)?,
            msr::IA32_PL0_SSP | msr::IA32_PL1_SSP | msr::IA32_PL2_SSP | msr::IA32_PL3_SSP => {
                value & 3 == 0 && self.canonical_value(value)?
            }
            msr::IA32_S_CET | msr::IA32_U_CET => {
                value & self.cet_reserved()? == 0 && self.canonical_value(value)?
            }
            msr::IA32_FMASK | msr::IA32_TSC_AUX | msr::IA32_PKRS => value & HIGH == 0,
            msr::IA32_STAR
            | msr::IA32_SYSENTER_CS
            | msr::IA32_TSC
            | msr::IA32_TSC_ADJUST
            | msr::IA32_TSC_DEADLINE => true,
            msr::IA32_MTRRCAP
            | msr::IA32_ARCH_CAPABILITIES
            | msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 => false,
            unknown => return Err(Missing::Msr(unknown)),
        })
    }
}

rules! {
    group MsrLoading;
    @applies |v| v.get(Field::EntryMsrLoadCount)? != 0;

    "vmx.msr-load.segment-base", [EntryMsrLoadAddress]
    "The area must not load IA32_FS_BASE or IA32_GS_BASE.",
    |v| v.each_loaded(|entry| Ok(!entry.is_segment_base()))?;

    "vmx.msr-load.x2apic", [EntryMsrLoadAddress]
    "The area must not load an MSR whose index has 000008H in bits 31:8 (x2APIC registers).",
    |v| v.each_loaded(|entry| Ok(!entry.is_x2apic()))?;

    "vmx.msr-load.smm", [EntryMsrLoadAddress]
    "The area must not load an MSR that can be written only in SMM (IA32_SMM_MONITOR_CTL) if the processor is not in SMM.",
    |v| v.each_loaded(|entry| Ok(entry.index != msr::IA32_SMM_MONITOR_CTL || v.is(Item::InSmm)?))?;

    "vmx.msr-load.model-specific", [EntryMsrLoadAddress]
    "The area must not load an MSR that cannot be loaded for model-specific reasons (microcode update trigger and signature).",
    |v| v.each_loaded(|entry| Ok(!entry.is_model_specific()))?;

    "vmx.msr-load.reserved", [EntryMsrLoadAddress]
    "Bits 63:32 of each entry of the area must be 0.",
    |v| v.each_loaded(|entry| Ok(entry.reserved == 0))?;

    "vmx.msr-load.value", [EntryMsrLoadAddress]
    "Each value must be one that WRMSR at CPL 0 could write to that MSR without a general-protection exception.",
    |v| v.each_loaded(|entry| Ok(entry.is_refused() || v.writable(entry)?))?;
}
