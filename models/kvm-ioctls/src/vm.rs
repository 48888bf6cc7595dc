//! [`VmFd`]: a virtual machine.

use std::os::fd::{AsRawFd, RawFd};
use std::os::raw::c_ulong;

use kvm_bindings::{
    kvm_clock_data, kvm_coalesced_mmio_zone, kvm_enable_cap, kvm_msr_filter, kvm_userspace_memory_region,
    kvm_userspace_memory_region2,
};
use rootmode_models::kvm::abi::{DirtyLog, request as r};

use crate::Cap;
use crate::call::{Descriptor, Result};
use crate::vcpu::VcpuFd;

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoEventAddress {
    /// To a port.
    Pio(u64),
    /// To a guest-physical address.
    Mmio(u64),
}

/// A virtual machine.
#[derive(Debug)]
pub struct VmFd {
    pub(crate) vm: Descriptor,
    run_size: usize,
}

impl VmFd {
    pub(crate) const fn new(vm: Descriptor, run_size: usize) -> Self {
        Self { vm, run_size }
    }

    /// `KVM_SET_USER_MEMORY_REGION`.
    ///
    /// # Safety
    /// The guest reads and writes the memory at `userspace_addr` while the slot exists.
    ///
    /// # Errors
    /// `EINVAL` for what no slot can be, `EEXIST` if another one is there.
    #[allow(unsafe_code, reason = "the signature is kvm-ioctls'; nothing here is unsafe by itself")]
    pub unsafe fn set_user_memory_region(
        &self,
        user_memory_region: kvm_userspace_memory_region,
    ) -> Result<()> {
        self.vm.put(r::SET_USER_MEMORY_REGION, &user_memory_region).map(drop)
    }

    /// `KVM_SET_USER_MEMORY_REGION2`.
    ///
    /// # Safety
    /// As [`Self::set_user_memory_region`].
    ///
    /// # Errors
    /// As [`Self::set_user_memory_region`].
    #[allow(unsafe_code, reason = "the signature is kvm-ioctls'; nothing here is unsafe by itself")]
    pub unsafe fn set_user_memory_region2(
        &self,
        user_memory_region2: kvm_userspace_memory_region2,
    ) -> Result<()> {
        self.vm.put(r::SET_USER_MEMORY_REGION2, &user_memory_region2).map(drop)
    }

    /// `KVM_GET_DIRTY_LOG` of a slot of `memory_size` bytes.
    ///
    /// # Errors
    /// `ENOENT` if the slot is not logged.
    pub fn get_dirty_log(&self, slot: u32, memory_size: usize) -> Result<Vec<u64>> {
        let mut bitmap = vec![0_u64; memory_size.div_ceil(4096).div_ceil(64)];
        let dirty_bitmap = bitmap.as_mut_ptr().expose_provenance() as u64;
        self.vm.put(r::GET_DIRTY_LOG, &DirtyLog { slot, padding1: 0, dirty_bitmap })?;
        Ok(bitmap)
    }

    /// `KVM_SET_TSS_ADDR`.
    ///
    /// # Errors
    /// `EINVAL` if the pages would not end below 4 GBytes.
    pub fn set_tss_address(&self, offset: usize) -> Result<()> {
        self.vm.value(r::SET_TSS_ADDR, offset as u64).map(drop)
    }

    /// `KVM_SET_IDENTITY_MAP_ADDR`.
    ///
    /// # Errors
    /// `EINVAL` behind the first vCPU.
    pub fn set_identity_map_address(&self, address: u64) -> Result<()> {
        self.vm.put(r::SET_IDENTITY_MAP_ADDR, &address).map(drop)
    }

    /// `KVM_GET_CLOCK`.
    ///
    /// # Errors
    /// None.
    pub fn get_clock(&self) -> Result<kvm_clock_data> {
        self.vm.get(r::GET_CLOCK)
    }

    /// `KVM_SET_CLOCK`.
    ///
    /// # Errors
    /// `EINVAL` for flags that are not known.
    pub fn set_clock(&self, clock: &kvm_clock_data) -> Result<()> {
        self.vm.put(r::SET_CLOCK, clock).map(drop)
    }

    /// `KVM_ENABLE_CAP`.
    ///
    /// # Errors
    /// `EINVAL` for what cannot be enabled.
    pub fn enable_cap(&self, cap: &kvm_enable_cap) -> Result<()> {
        self.vm.put(r::ENABLE_CAP, cap).map(drop)
    }

    /// `KVM_X86_SET_MSR_FILTER`.
    ///
    /// # Safety
    /// The bitmaps that `filter` points to must be as long as it says.
    ///
    /// # Errors
    /// `EINVAL`, `EFAULT`.
    #[allow(unsafe_code, reason = "the signature is kvm-ioctls'; nothing here is unsafe by itself")]
    pub unsafe fn set_msr_filter_unchecked(&self, filter: &kvm_msr_filter) -> Result<()> {
        self.vm.put(r::X86_SET_MSR_FILTER, filter).map(drop)
    }

    fn coalesced(&self, number: u32, addr: IoEventAddress, size: u32) -> Result<()> {
        let (addr, pio) = match addr {
            IoEventAddress::Pio(addr) => (addr, 1),
            IoEventAddress::Mmio(addr) => (addr, 0),
        };
        let mut zone = kvm_coalesced_mmio_zone { addr, size, ..Default::default() };
        zone.__bindgen_anon_1.pio = pio;
        self.vm.put(number, &zone).map(drop)
    }

    /// `KVM_REGISTER_COALESCED_MMIO`.
    ///
    /// # Errors
    /// None.
    pub fn register_coalesced_mmio(&self, addr: IoEventAddress, size: u32) -> Result<()> {
        self.coalesced(r::REGISTER_COALESCED_MMIO, addr, size)
    }

    /// `KVM_UNREGISTER_COALESCED_MMIO`.
    ///
    /// # Errors
    /// None.
    pub fn unregister_coalesced_mmio(&self, addr: IoEventAddress, size: u32) -> Result<()> {
        self.coalesced(r::UNREGISTER_COALESCED_MMIO, addr, size)
    }

    /// `KVM_CREATE_VCPU`.
    ///
    /// # Errors
    /// `EEXIST` if the ID is taken, `EINVAL` if it is too large.
    pub fn create_vcpu(&self, id: u64) -> Result<VcpuFd> {
        VcpuFd::new(self.vm.make(r::CREATE_VCPU, id)?)
    }

    /// `KVM_CHECK_EXTENSION`, of any number.
    pub fn check_extension_raw(&self, c: c_ulong) -> i32 {
        self.vm.value(r::CHECK_EXTENSION, c).unwrap_or(0)
    }

    /// `KVM_CHECK_EXTENSION`.
    pub fn check_extension_int(&self, c: Cap) -> i32 {
        self.check_extension_raw(c as c_ulong)
    }

    /// Whether the capability is there.
    pub fn check_extension(&self, c: Cap) -> bool {
        self.check_extension_int(c) > 0
    }

    /// Bytes of a vCPU's mapping.
    pub const fn run_size(&self) -> usize {
        self.run_size
    }
}

impl AsRawFd for VmFd {
    fn as_raw_fd(&self) -> RawFd {
        self.vm.raw()
    }
}
