//! The MSRs of a vCPU as KVM emulates them, for the guest and for the client.

use rootmode_arch::{Feature, Linear, Vendor, msr};
use rootmode_cpu::Model;
use rootmode_cpu::apic::{Clock, LocalApic};

use super::Shared;
use super::pv;
use super::vcpu::Vcpu;
use crate::kvm::abi::MsrEntry;
use crate::kvm::filter::{Failure as Refusal, MsrFile};
use crate::kvm::host::{Backend, HostBug, nested_capabilities};

/// The capability MSRs of VMX that are saved; the others follow from them. VM functions are not offered.
const VMX: &[u32] = &[
    msr::IA32_VMX_BASIC,
    msr::IA32_VMX_TRUE_PINBASED_CTLS,
    msr::IA32_VMX_TRUE_PROCBASED_CTLS,
    msr::IA32_VMX_TRUE_EXIT_CTLS,
    msr::IA32_VMX_TRUE_ENTRY_CTLS,
    msr::IA32_VMX_MISC,
    msr::IA32_VMX_CR0_FIXED0,
    msr::IA32_VMX_CR4_FIXED0,
    msr::IA32_VMX_VMCS_ENUM,
    msr::IA32_VMX_PROCBASED_CTLS2,
    msr::IA32_VMX_EPT_VPID_CAP,
];

/// What `KVM_GET_MSR_INDEX_LIST` lists on a host of `vendor`'s.
pub fn saved(vendor: Vendor) -> Vec<u32> {
    let nesting: &[&[u32]] = match vendor {
        Vendor::Intel => &[&[msr::IA32_FEATURE_CONTROL], VMX],
        Vendor::Amd => &[&[msr::VM_CR, msr::VM_HSAVE_PA]],
    };
    [&[SAVED, pv::MSRS], nesting].concat().concat()
}

/// What is saved of either vendor's.
const SAVED: &[u32] = &[
    msr::IA32_SYSENTER_CS,
    msr::IA32_SYSENTER_ESP,
    msr::IA32_SYSENTER_EIP,
    msr::IA32_STAR,
    msr::IA32_CSTAR,
    msr::IA32_KERNEL_GS_BASE,
    msr::IA32_FMASK,
    msr::IA32_LSTAR,
    msr::IA32_TSC,
    msr::IA32_PAT,
    msr::IA32_TSC_AUX,
    msr::IA32_MISC_ENABLE,
    msr::IA32_TSC_ADJUST,
    msr::IA32_EFER,
    msr::IA32_APIC_BASE,
    msr::IA32_FS_BASE,
    msr::IA32_GS_BASE,
    msr::IA32_XSS,
];

/// What `KVM_GET_MSR_FEATURE_INDEX_LIST` lists on a host of `vendor`'s: MSRs that say what guests' processors can be like.
pub fn features(vendor: Vendor) -> Vec<u32> {
    let common = [msr::IA32_BIOS_SIGN_ID, msr::IA32_ARCH_CAPABILITIES, PERF_CAPABILITIES];
    let vmx = match vendor {
        Vendor::Intel => msr::IA32_VMX_BASIC..msr::IA32_VMX_TRUE_ENTRY_CTLS + 1,
        Vendor::Amd => 0..0,
    };
    common.into_iter().chain(vmx).collect()
}

/// IA32_PERF_CAPABILITIES.
const PERF_CAPABILITIES: u32 = 0x345;

/// The value of a feature MSR for a guest with the processor `guest`.
pub fn feature(guest: &Model, index: u32) -> Option<u64> {
    Some(match index {
        msr::IA32_BIOS_SIGN_ID => 1 << 32,
        msr::IA32_ARCH_CAPABILITIES | PERF_CAPABILITIES => 0,
        msr::IA32_VMX_BASIC..=msr::IA32_VMX_TRUE_ENTRY_CTLS if guest.has(Feature::Vmx) => {
            nested_capabilities(guest).get(index)?
        }
        _ => return None,
    })
}

/// The registers of a local APIC in x2APIC mode.
const X2APIC: u32 = 0x800;
const X2APIC_END: u32 = 0x8ff;

/// Whether the guest's processor has IA32_TSC_DEADLINE.
const fn has_deadline(apic: &LocalApic) -> bool {
    apic.abilities().tsc_deadline
}

/// A vCPU's MSRs, as guest or client reach them.
struct View<'a> {
    vcpu: &'a mut Vcpu,
    shared: &'a Shared,
    client: bool,
    bug: Option<HostBug>,
}

impl View<'_> {
    fn settle<T>(&mut self, result: Result<Option<T>, HostBug>) -> Option<T> {
        result.unwrap_or_else(|bug| {
            self.bug = Some(bug);
            None
        })
    }

    fn backend(&mut self) -> &mut dyn Backend {
        &mut *self.vcpu.backend
    }

    fn exists(&mut self, index: u32) -> bool {
        let value = self.backend().read_msr(index);
        self.settle(value).is_some()
    }

    /// Calls `f` with the local APIC in the kernel and its time.
    fn apic<T>(&self, f: impl FnOnce(&mut LocalApic, Clock) -> Option<T>) -> Option<T> {
        let vcpu = usize::from(self.vcpu.processor);
        self.shared
            .with(self.vcpu.processor, |machine, rooms| rooms.irqchip.with_apic(machine, vcpu, f))
            .flatten()
    }

    fn hidden(&self, index: u32) -> bool {
        !self.client
            && !self.vcpu.model.has(Feature::Vmx)
            && matches!(index, msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2)
    }
}

impl MsrFile for View<'_> {
    fn read(&mut self, index: u32) -> Result<u64, Refusal> {
        match index {
            msr::IA32_APIC_BASE => Ok(self.vcpu.apic_base),
            msr::IA32_TSC if self.client => {
                let value = self.vcpu.tsc(self.shared);
                self.settle(value.map(Some)).ok_or(Refusal::Unknown)
            }
            _ if pv::MSRS.contains(&index) => Ok(self.vcpu.read_pv(self.shared, index)),
            msr::IA32_ARCH_CAPABILITIES | PERF_CAPABILITIES if self.client => Ok(0),
            X2APIC..=X2APIC_END => {
                self.apic(|apic, clock| apic.read_msr(index, clock).ok()).ok_or(Refusal::Unknown)
            }
            msr::IA32_TSC_DEADLINE => self
                .apic(|apic, clock| (self.client || has_deadline(apic)).then(|| apic.tsc_deadline(clock)))
                .ok_or(Refusal::Unknown),
            _ if self.hidden(index) => Err(Refusal::Unknown),
            _ => {
                let value = self.backend().read_msr(index);
                self.settle(value).ok_or(Refusal::Unknown)
            }
        }
    }

    fn write(&mut self, index: u32, value: u64) -> Result<(), Refusal> {
        match index {
            msr::IA32_APIC_BASE => {
                let width = self.vcpu.model.physical_width();
                if value >> width != 0 || value & 0x2ff != 0 || value & 0xc00 == 0x400 {
                    return Err(Refusal::Invalid);
                }
                self.vcpu.set_apic_base(self.shared, value, self.client).map_err(|_| Refusal::Invalid)
            }
            X2APIC..=X2APIC_END => {
                self.apic(|apic, clock| apic.write_msr(index, value, clock).ok()).ok_or(Refusal::Invalid)
            }
            msr::IA32_TSC_DEADLINE => self
                .apic(|apic, clock| {
                    (self.client || has_deadline(apic)).then(|| apic.set_tsc_deadline(value, clock))
                })
                .ok_or(Refusal::Unknown),
            _ if pv::MSRS.contains(&index) => {
                let written = self.vcpu.write_pv(self.shared, index, value);
                self.settle(written.map(Some)).ok_or(Refusal::Invalid)?
            }
            msr::IA32_BIOS_SIGN_ID if self.client => Ok(()),
            msr::IA32_ARCH_CAPABILITIES | PERF_CAPABILITIES if self.client && value == 0 => Ok(()),
            msr::IA32_TSC => {
                let written = self.vcpu.write_tsc(self.shared, value);
                self.settle(written.map(Some)).ok_or(Refusal::Invalid)
            }
            _ if self.hidden(index) => Err(Refusal::Unknown),
            // What CPUID and the host's processor make of them: a client may only write what they are.
            msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 if self.client => {
                let current = self.read(index)?;
                if value == current { Ok(()) } else { Err(Refusal::Invalid) }
            }
            msr::IA32_FEATURE_CONTROL if self.client && value & !7 == 0 => {
                self.backend().unlock();
                let written = self.backend().write_msr(index, value);
                self.settle(written).ok_or(Refusal::Unknown)
            }
            msr::IA32_LSTAR | msr::IA32_CSTAR | msr::IA32_KERNEL_GS_BASE
                if !Linear(value).is_canonical(self.vcpu.model_width()) =>
            {
                Err(Refusal::Invalid)
            }
            _ => {
                let written = self.backend().write_msr(index, value);
                match self.settle(written) {
                    Some(()) => Ok(()),
                    None if self.exists(index) => Err(Refusal::Invalid),
                    None => Err(Refusal::Unknown),
                }
            }
        }
    }
}

/// Calls `f` with the MSRs of `vcpu`.
fn with<T>(
    vcpu: &mut Vcpu,
    shared: &Shared,
    client: bool,
    f: impl FnOnce(&mut dyn MsrFile) -> T,
) -> Result<T, HostBug> {
    let mut view = View { vcpu, shared, client, bug: None };
    let result = f(&mut view);
    view.bug.map_or(Ok(result), Err)
}

impl Vcpu {
    /// The guest's access to its MSRs.
    pub(super) fn guest_msrs<T>(
        &mut self,
        shared: &Shared,
        f: impl FnOnce(&mut dyn MsrFile) -> T,
    ) -> Result<T, HostBug> {
        with(self, shared, false, f)
    }

    /// `KVM_GET_MSRS`: how many of `entries` were read; it stops at the first that cannot be.
    pub(super) fn get_msrs(&mut self, shared: &Shared, entries: &mut [MsrEntry]) -> Result<usize, HostBug> {
        with(self, shared, true, |file| {
            let read = |entry: &mut MsrEntry| file.read(entry.index).map(|value| entry.data = value);
            entries.iter_mut().map(read).take_while(Result::is_ok).count()
        })
    }

    /// `KVM_SET_MSRS`: how many of `entries` were written; it stops at the first that cannot be.
    pub(super) fn set_msrs(&mut self, shared: &Shared, entries: &[MsrEntry]) -> Result<usize, HostBug> {
        with(self, shared, true, |file| {
            entries.iter().take_while(|entry| file.write(entry.index, entry.data).is_ok()).count()
        })
    }
}
