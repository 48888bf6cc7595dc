//! [`VcpuFd`]: a virtual processor.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_debugregs, kvm_enable_cap, kvm_fpu, kvm_guest_debug,
    kvm_interrupt, kvm_lapic_state, kvm_mp_state, kvm_regs, kvm_sregs, kvm_sregs2, kvm_translation,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use rootmode_models::kvm::abi::{PAGE, PIO_PAGE_OFFSET, Plain, Run, request as r};
use vmm_sys_util::errno::Error;

use crate::call::{Descriptor, Result};
use crate::exit::{Answers, VcpuExit};

/// Where port data lies in the mapping.
const PORT_DATA: u64 = PIO_PAGE_OFFSET * PAGE;
/// `ENOMEM`, `EFAULT`.
const NO_MEMORY: i32 = 12;
const FAULT: i32 = 14;

/// A virtual processor.
#[derive(Debug)]
pub struct VcpuFd {
    vcpu: Descriptor,
    /// The mapping that is shared with the kernel.
    mapping: File,
    answers: Answers,
    /// `kvm_run.immediate_exit` and `kvm_run.request_interrupt_window` of the next `run`.
    immediate_exit: u8,
    interrupt_window: u8,
}

/// Accessors that are one ioctl each: the getter, the setter, their numbers, the structure.
macro_rules! pairs {
    ($($get:ident, $set:ident($value:ident: $type:ty) = $get_number:ident, $set_number:ident;)*) => {
        impl VcpuFd {
            $(
                #[doc = concat!("`KVM_", stringify!($get_number), "`.")]
                ///
                /// # Errors
                /// `EIO` if the VM is bugged.
                pub fn $get(&self) -> Result<$type> {
                    self.vcpu.get(r::$get_number)
                }

                #[doc = concat!("`KVM_", stringify!($set_number), "`.")]
                ///
                /// # Errors
                /// `EINVAL` for what cannot be.
                pub fn $set(&self, $value: &$type) -> Result<()> {
                    self.vcpu.put(r::$set_number, $value).map(drop)
                }
            )*
        }
    };
}

pairs! {
    get_regs, set_regs(regs: kvm_regs) = GET_REGS, SET_REGS;
    get_sregs, set_sregs(sregs: kvm_sregs) = GET_SREGS, SET_SREGS;
    get_sregs2, set_sregs2(sregs: kvm_sregs2) = GET_SREGS2, SET_SREGS2;
    get_fpu, set_fpu(fpu: kvm_fpu) = GET_FPU, SET_FPU;
    get_xcrs, set_xcrs(xcrs: kvm_xcrs) = GET_XCRS, SET_XCRS;
    get_debug_regs, set_debug_regs(regs: kvm_debugregs) = GET_DEBUGREGS, SET_DEBUGREGS;
    get_lapic, set_lapic(lapic: kvm_lapic_state) = GET_LAPIC, SET_LAPIC;
    get_vcpu_events, set_vcpu_events(events: kvm_vcpu_events) = GET_VCPU_EVENTS, SET_VCPU_EVENTS;
}

impl VcpuFd {
    pub(crate) fn new(vcpu: Descriptor) -> Result<Self> {
        let path = format!("/proc/self/fd/{}", vcpu.raw());
        let mapping = File::options().read(true).write(true).open(path).map_err(|_| Error::new(NO_MEMORY))?;
        Ok(Self { vcpu, mapping, answers: Answers::default(), immediate_exit: 0, interrupt_window: 0 })
    }

    fn page(&self) -> Result<Run> {
        let mut bytes = vec![0; Run::SIZE];
        self.mapping.read_exact_at(&mut bytes, 0).map_err(|_| Error::new(FAULT))?;
        Ok(Run::from_bytes(&bytes))
    }

    /// `KVM_RUN`. Answers in the buffers of the last exit are taken over first.
    ///
    /// # Errors
    /// `EINTR` with `immediate_exit`; `EFAULT` if guest memory is not there.
    pub fn run(&mut self) -> Result<VcpuExit<'_>> {
        let mut run = self.page()?;
        run.immediate_exit = self.immediate_exit;
        run.request_interrupt_window = self.interrupt_window;
        let fault = |_| Error::new(FAULT);
        if let Some(data) = self.answers.put_back(&mut run) {
            self.mapping.write_all_at(data, PORT_DATA).map_err(fault)?;
        }
        self.mapping.write_all_at(&run.to_bytes(), 0).map_err(fault)?;
        self.answers = Answers::default();
        self.vcpu.value(r::RUN, 0)?;
        let run = self.page()?;
        let mapping = &self.mapping;
        Ok(self.answers.lend(&run, |length| {
            let mut data = vec![0; length];
            // What cannot be read stays zero: the file is as long as the kernel made it.
            let _ = mapping.read_exact_at(&mut data, PORT_DATA);
            data
        }))
    }

    /// The next `run` only completes what is open, and returns `EINTR`.
    pub fn set_kvm_immediate_exit(&mut self, val: u8) {
        self.immediate_exit = val;
    }

    /// The next `run` returns as soon as an interrupt can be injected.
    pub fn set_kvm_request_interrupt_window(&mut self, val: u8) {
        self.interrupt_window = val;
    }

    /// `KVM_SET_CPUID2`.
    ///
    /// # Errors
    /// `E2BIG`.
    pub fn set_cpuid2(&self, cpuid: &CpuId) -> Result<()> {
        self.vcpu.value(r::SET_CPUID2, cpuid.as_fam_struct_ptr().expose_provenance() as u64).map(drop)
    }

    /// `KVM_GET_CPUID2`.
    ///
    /// # Errors
    /// `E2BIG` if there are more entries.
    pub fn get_cpuid2(&self, num_entries: usize) -> Result<CpuId> {
        if num_entries > KVM_MAX_CPUID_ENTRIES {
            return Err(Error::new(NO_MEMORY));
        }
        let mut cpuid = CpuId::new(num_entries).map_err(|_| Error::new(NO_MEMORY))?;
        self.vcpu.value(r::GET_CPUID2, cpuid.as_mut_fam_struct_ptr().expose_provenance() as u64)?;
        Ok(cpuid)
    }

    /// `KVM_GET_MSRS`: how many were read.
    ///
    /// # Errors
    /// `E2BIG` for too many.
    pub fn get_msrs(&self, msrs: &mut Msrs) -> Result<usize> {
        let argument = msrs.as_mut_fam_struct_ptr().expose_provenance() as u64;
        self.vcpu.value(r::GET_MSRS, argument).map(|count| count as usize)
    }

    /// `KVM_SET_MSRS`: how many were written.
    ///
    /// # Errors
    /// `E2BIG` for too many.
    pub fn set_msrs(&self, msrs: &Msrs) -> Result<usize> {
        let argument = msrs.as_fam_struct_ptr().expose_provenance() as u64;
        self.vcpu.value(r::SET_MSRS, argument).map(|count| count as usize)
    }

    /// `KVM_GET_MP_STATE`.
    ///
    /// # Errors
    /// `EIO` if the VM is bugged.
    pub fn get_mp_state(&self) -> Result<kvm_mp_state> {
        self.vcpu.get(r::GET_MP_STATE)
    }

    /// `KVM_SET_MP_STATE`.
    ///
    /// # Errors
    /// `EINVAL` for a state that needs an interrupt controller in the kernel.
    pub fn set_mp_state(&self, mp_state: kvm_mp_state) -> Result<()> {
        self.vcpu.put(r::SET_MP_STATE, &mp_state).map(drop)
    }

    /// `KVM_GET_XSAVE`.
    ///
    /// # Errors
    /// `EIO` if the VM is bugged.
    pub fn get_xsave(&self) -> Result<kvm_xsave> {
        self.vcpu.get(r::GET_XSAVE)
    }

    /// `KVM_SET_XSAVE`.
    ///
    /// # Safety
    /// `xsave` must be as long as the enabled features need.
    ///
    /// # Errors
    /// `EINVAL` for state that does not exist.
    #[allow(unsafe_code, reason = "the signature is kvm-ioctls'; nothing here is unsafe by itself")]
    pub unsafe fn set_xsave(&self, xsave: &kvm_xsave) -> Result<()> {
        self.vcpu.put(r::SET_XSAVE, xsave).map(drop)
    }

    /// `KVM_SET_GUEST_DEBUG`.
    ///
    /// # Errors
    /// `EBUSY` if an exception is to be injected and one waits already.
    pub fn set_guest_debug(&self, debug_struct: &kvm_guest_debug) -> Result<()> {
        self.vcpu.put(r::SET_GUEST_DEBUG, debug_struct).map(drop)
    }

    /// `KVM_TRANSLATE`.
    ///
    /// # Errors
    /// `EIO` if the VM is bugged.
    pub fn translate_gva(&self, gva: u64) -> Result<kvm_translation> {
        let mut translation = kvm_translation { linear_address: gva, ..Default::default() };
        self.vcpu.fill(r::TRANSLATE, &mut translation)?;
        Ok(translation)
    }

    /// `KVM_INTERRUPT`: a vector from the client's interrupt controller.
    ///
    /// # Errors
    /// `ENXIO` with the controllers in the kernel; `EEXIST` with the local APIC there, if one waits already.
    pub fn interrupt(&self, irq: u32) -> Result<()> {
        self.vcpu.put(r::INTERRUPT, &kvm_interrupt { irq }).map(drop)
    }

    /// `KVM_NMI`.
    ///
    /// # Errors
    /// `EIO` if the VM is bugged.
    pub fn nmi(&self) -> Result<()> {
        self.vcpu.value(r::NMI, 0).map(drop)
    }

    /// `KVM_GET_TSC_KHZ`.
    ///
    /// # Errors
    /// None.
    pub fn get_tsc_khz(&self) -> Result<u32> {
        self.vcpu.value(r::GET_TSC_KHZ, 0).map(|khz| khz as u32)
    }

    /// `KVM_SET_TSC_KHZ`.
    ///
    /// # Errors
    /// `EINVAL` for any frequency but the host's: there is no scaling.
    pub fn set_tsc_khz(&self, freq: u32) -> Result<()> {
        self.vcpu.value(r::SET_TSC_KHZ, freq.into()).map(drop)
    }

    /// `KVM_ENABLE_CAP`.
    ///
    /// # Errors
    /// `EINVAL` for what cannot be enabled.
    pub fn enable_cap(&self, cap: &kvm_enable_cap) -> Result<()> {
        self.vcpu.put(r::ENABLE_CAP, cap).map(drop)
    }
}

impl AsRawFd for VcpuFd {
    fn as_raw_fd(&self) -> RawFd {
        self.vcpu.raw()
    }
}
