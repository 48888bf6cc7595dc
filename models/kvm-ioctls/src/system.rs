//! [`Kvm`]: what `/dev/kvm` answers.

use std::os::fd::{AsRawFd, RawFd};
use std::os::raw::c_ulong;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MAX_MSR_ENTRIES, MsrList, Msrs};
use rootmode_models::kvm::abi::request as r;
use vmm_sys_util::errno::Error;

use crate::Cap;
use crate::call::{Descriptor, Result};
use crate::vm::VmFd;

/// `ENOMEM`.
const NO_MEMORY: i32 = 12;

/// KVM as a whole.
#[derive(Debug)]
pub struct Kvm {
    kvm: Descriptor,
}

impl Kvm {
    /// Opens it.
    ///
    /// # Errors
    /// If there is no room for a descriptor.
    pub fn new() -> Result<Self> {
        let fd = rootmode_kvm_process::open(true).map_err(|errno| Error::new(-errno.code()))?;
        Ok(Self { kvm: Descriptor::new(fd) })
    }

    /// `KVM_GET_API_VERSION`: 12.
    pub fn get_api_version(&self) -> i32 {
        self.kvm.value(r::GET_API_VERSION, 0).unwrap_or(-1)
    }

    /// `KVM_CHECK_EXTENSION`, of any number.
    pub fn check_extension_raw(&self, c: c_ulong) -> i32 {
        self.kvm.value(r::CHECK_EXTENSION, c).unwrap_or(0)
    }

    /// `KVM_CHECK_EXTENSION`.
    pub fn check_extension_int(&self, c: Cap) -> i32 {
        self.check_extension_raw(c as c_ulong)
    }

    /// Whether the capability is there.
    pub fn check_extension(&self, c: Cap) -> bool {
        self.check_extension_int(c) > 0
    }

    /// `KVM_GET_VCPU_MMAP_SIZE`.
    ///
    /// # Errors
    /// None, as long as the descriptor is open.
    pub fn get_vcpu_mmap_size(&self) -> Result<usize> {
        self.kvm.value(r::GET_VCPU_MMAP_SIZE, 0).map(|size| size as usize)
    }

    fn count(&self, cap: Cap, otherwise: usize) -> usize {
        match self.check_extension_int(cap) {
            0 => otherwise,
            count => count as usize,
        }
    }

    /// How many vCPUs a VM should have at most.
    pub fn get_nr_vcpus(&self) -> usize {
        self.count(Cap::NrVcpus, 4)
    }

    /// How many memory slots a VM can have.
    pub fn get_nr_memslots(&self) -> usize {
        self.count(Cap::NrMemslots, 32)
    }

    /// How many vCPUs a VM can have.
    pub fn get_max_vcpus(&self) -> usize {
        self.count(Cap::MaxVcpus, self.get_nr_vcpus())
    }

    /// The bound of vCPU IDs.
    pub fn get_max_vcpu_id(&self) -> usize {
        self.count(Cap::MaxVcpuId, self.get_max_vcpus())
    }

    fn cpuid(&self, number: u32, entries: usize) -> Result<CpuId> {
        if entries > KVM_MAX_CPUID_ENTRIES {
            return Err(Error::new(NO_MEMORY));
        }
        let mut cpuid = CpuId::new(entries).map_err(|_| Error::new(NO_MEMORY))?;
        self.kvm.value(number, cpuid.as_mut_fam_struct_ptr().expose_provenance() as u64)?;
        Ok(cpuid)
    }

    /// `KVM_GET_SUPPORTED_CPUID`.
    ///
    /// # Errors
    /// `E2BIG` if there are more entries, `ENOMEM` if so many are never needed.
    pub fn get_supported_cpuid(&self, num_entries: usize) -> Result<CpuId> {
        self.cpuid(r::GET_SUPPORTED_CPUID, num_entries)
    }

    /// `KVM_GET_EMULATED_CPUID`.
    ///
    /// # Errors
    /// `E2BIG` if there are more entries, `ENOMEM` if so many are never needed.
    pub fn get_emulated_cpuid(&self, num_entries: usize) -> Result<CpuId> {
        self.cpuid(r::GET_EMULATED_CPUID, num_entries)
    }

    fn msrs(&self, number: u32) -> Result<MsrList> {
        let mut list = MsrList::new(KVM_MAX_MSR_ENTRIES).map_err(|_| Error::new(NO_MEMORY))?;
        self.kvm.value(number, list.as_mut_fam_struct_ptr().expose_provenance() as u64)?;
        Ok(list)
    }

    /// `KVM_GET_MSR_INDEX_LIST`.
    ///
    /// # Errors
    /// None.
    pub fn get_msr_index_list(&self) -> Result<MsrList> {
        self.msrs(r::GET_MSR_INDEX_LIST)
    }

    /// `KVM_GET_MSR_FEATURE_INDEX_LIST`.
    ///
    /// # Errors
    /// None.
    pub fn get_msr_feature_index_list(&self) -> Result<MsrList> {
        self.msrs(r::GET_MSR_FEATURE_INDEX_LIST)
    }

    /// `KVM_GET_MSRS` of feature MSRs: how many were read.
    ///
    /// # Errors
    /// `E2BIG` for too many.
    pub fn get_msrs(&self, msrs: &mut Msrs) -> Result<usize> {
        let argument = msrs.as_mut_fam_struct_ptr().expose_provenance() as u64;
        self.kvm.value(r::GET_MSRS, argument).map(|count| count as usize)
    }

    /// `KVM_CREATE_VM` of the default type.
    ///
    /// # Errors
    /// If there is no room.
    pub fn create_vm(&self) -> Result<VmFd> {
        self.create_vm_with_type(0)
    }

    /// `KVM_CREATE_VM`.
    ///
    /// # Errors
    /// `EINVAL` for another type than 0.
    pub fn create_vm_with_type(&self, vm_type: u64) -> Result<VmFd> {
        Ok(VmFd::new(self.kvm.make(r::CREATE_VM, vm_type)?, self.get_vcpu_mmap_size()?))
    }
}

impl AsRawFd for Kvm {
    fn as_raw_fd(&self) -> RawFd {
        self.kvm.raw()
    }
}
