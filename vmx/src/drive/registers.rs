//! Control registers under VMX: fixed bits, guest/host masks and read shadows
//! (SDM Vol. 3C (326019-083, Mar 2024) "Guest/Host Masks and Read Shadows for CR0 and CR4", "Changes to Instruction Behavior
//! in VMX Non-Root Operation").

use super::Vmx;
use crate::decide::Controls;
use crate::{PrimaryControls, SecondaryControls};
use rootmode_arch::{Cr0, Cr4, Event, Feature, Gpr, RFlags, Reaction, msr};
use rootmode_cpu::{Cpu, Fault, Result};

/// What the guest reads or writes when its access to a control register does not exit.
pub(super) fn virtualize(controls: &Controls, cpu: &Cpu, event: &Event) -> Reaction {
    let cr0 = cpu.cr0.0;
    let cr0_mask = controls.cr0_mask;
    let seen = |value: u64, mask: u64, shadow: u64| value & !mask | shadow & mask;
    let kept = |old: u64, mask: u64, new: u64| old & mask | new & !mask;
    match *event {
        Event::CrRead { cr: 0, .. } | Event::Smsw { .. } => {
            Reaction::Done(seen(cr0, cr0_mask, controls.cr0_shadow))
        }
        Event::CrRead { cr: 4, .. } => {
            Reaction::Done(seen(cpu.cr4.0, controls.cr4_mask, controls.cr4_shadow))
        }
        Event::CrWrite { cr: 0, value, .. } => Reaction::Done(kept(cr0, cr0_mask, value)),
        Event::CrWrite { cr: 4, value, .. } => Reaction::Done(kept(cpu.cr4.0, controls.cr4_mask, value)),
        Event::Clts => Reaction::Done(kept(cr0, cr0_mask, cr0 & !Cr0::TS.0)),
        // LMSW cannot clear PE.
        Event::Lmsw { source, .. } => {
            let new = cr0 & !0xe | u64::from(source & 0xf);
            Reaction::Done(kept(cr0, cr0_mask, new))
        }
        // A clear enable makes the instruction undefined in the guest: the core asks CPUID only.
        _ => Reaction::Proceed,
    }
}

impl Vmx {
    /// MWAIT that masked interrupts would end does not wait where interrupts are masked and a virtual one is pending, or an
    /// interrupt window is asked for ("Changes to Instruction Behavior in VMX Non-Root Operation").
    pub(super) fn virtualize_mwait(&self, cpu: &Cpu) -> Reaction {
        let masked = cpu.register(Gpr::Rcx) & 1 != 0 && !cpu.rflags().contains(RFlags::IF);
        let window = self.controls.primary.contains(PrimaryControls::INTERRUPT_WINDOW_EXITING);
        if masked && (window || self.apic.recognized) { Reaction::Done(0) } else { Reaction::Proceed }
    }

    /// Bits of CR0 and CR4 that VMX operation fixes (SDM Vol. 3D "VMX-Fixed Bits in CR0", "VMX-Fixed Bits in CR4").
    pub(super) fn check_fixed(&self, cpu: &Cpu, cr: u8, value: u64) -> Result {
        if cpu.smm {
            // SMM hides VMX operation, and lets nobody set CR4.VMXE ("Default Treatment of SMI Delivery").
            let sets_vmxe = cr == 4 && Cr4(value).contains(Cr4::VMXE);
            return if sets_vmxe { Err(Fault::GP0) } else { Ok(()) };
        }
        if self.vmxon.is_none() {
            return Ok(());
        }
        let (zero, one) = match cr {
            0 => (msr::IA32_VMX_CR0_FIXED0, msr::IA32_VMX_CR0_FIXED1),
            4 => (msr::IA32_VMX_CR4_FIXED0, msr::IA32_VMX_CR4_FIXED1),
            _ => return Ok(()),
        };
        let mut required = self.capabilities.value(zero);
        if cr == 0 && self.guest && self.controls.has_secondary(SecondaryControls::UNRESTRICTED_GUEST) {
            required &= !(Cr0::PE | Cr0::PG).0;
        }
        if value & required != required || value & !self.capabilities.value(one) != 0 {
            return Err(Fault::GP0);
        }
        Ok(())
    }

    /// VMXON's exceptions besides those that all VMX instructions share.
    pub(super) fn permit_vmxon(&self, cpu: &Cpu) -> Result {
        if !cpu.model.has(Feature::Vmx) || !cpu.cr4.contains(Cr4::VMXE) {
            return Err(Fault::UD);
        }
        if cpu.cpl != 0 {
            return Err(Fault::GP0);
        }
        if self.vmxon.is_some() {
            return Ok(());
        }
        // IA32_FEATURE_CONTROL: locked, and VMX allowed outside SMX.
        let locked_and_allowed = cpu.msrs.feature_control & 5 == 5;
        let fixed = |index| self.capabilities.value(index);
        let legal =
            |value: u64, zero: u32, one: u32| value & fixed(zero) == fixed(zero) && value & !fixed(one) == 0;
        if !locked_and_allowed
            || !legal(cpu.cr0.0, msr::IA32_VMX_CR0_FIXED0, msr::IA32_VMX_CR0_FIXED1)
            || !legal(cpu.cr4.0, msr::IA32_VMX_CR4_FIXED0, msr::IA32_VMX_CR4_FIXED1)
        {
            return Err(Fault::GP0);
        }
        Ok(())
    }
}
