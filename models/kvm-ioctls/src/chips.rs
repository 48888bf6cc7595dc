//! [`VmFd`]: interrupt controllers, interrupts, counters of events.

use std::os::fd::AsRawFd;
use std::os::raw::c_int;

use kvm_bindings::{
    KVM_IRQFD_FLAG_DEASSIGN, KVM_IRQFD_FLAG_RESAMPLE, KvmIrqRouting, kvm_ioeventfd, kvm_irq_level,
    kvm_irqchip, kvm_irqfd, kvm_msi, kvm_pit_config, kvm_pit_state2,
};
use rootmode_models::kvm::abi::request as r;
use vmm_sys_util::eventfd::EventFd;

use crate::call::Result;
use crate::vm::{IoEventAddress, VmFd};

/// `KVM_IOEVENTFD_FLAG_DATAMATCH`, `KVM_IOEVENTFD_FLAG_PIO`, `KVM_IOEVENTFD_FLAG_DEASSIGN`.
const DATA_MATCH: u32 = 1;
const PORT: u32 = 2;
const DEASSIGN: u32 = 4;

/// Any value, of any size.
#[derive(Clone, Copy, Debug)]
pub struct NoDatamatch;

impl From<NoDatamatch> for u64 {
    fn from(_: NoDatamatch) -> Self {
        0
    }
}

impl VmFd {
    /// `KVM_CREATE_IRQCHIP`.
    ///
    /// # Errors
    /// `EEXIST` the second time, `EINVAL` behind the first vCPU.
    pub fn create_irq_chip(&self) -> Result<()> {
        self.vm.value(r::CREATE_IRQCHIP, 0).map(drop)
    }

    /// `KVM_GET_IRQCHIP`: of the chip that `irqchip` names.
    ///
    /// # Errors
    /// `ENXIO` if it is not in the kernel.
    pub fn get_irqchip(&self, irqchip: &mut kvm_irqchip) -> Result<()> {
        self.vm.fill(r::GET_IRQCHIP, irqchip).map(drop)
    }

    /// `KVM_SET_IRQCHIP`.
    ///
    /// # Errors
    /// `ENXIO` if it is not in the kernel.
    pub fn set_irqchip(&self, irqchip: &kvm_irqchip) -> Result<()> {
        self.vm.put(r::SET_IRQCHIP, irqchip).map(drop)
    }

    /// `KVM_CREATE_PIT2`.
    ///
    /// # Errors
    /// `ENOENT` without the other chips, `EEXIST` the second time.
    pub fn create_pit2(&self, pit_config: kvm_pit_config) -> Result<()> {
        self.vm.put(r::CREATE_PIT2, &pit_config).map(drop)
    }

    /// `KVM_GET_PIT2`.
    ///
    /// # Errors
    /// `ENXIO` without one.
    pub fn get_pit2(&self) -> Result<kvm_pit_state2> {
        self.vm.get(r::GET_PIT2)
    }

    /// `KVM_SET_PIT2`.
    ///
    /// # Errors
    /// `ENXIO` without one.
    pub fn set_pit2(&self, pitstate: &kvm_pit_state2) -> Result<()> {
        self.vm.put(r::SET_PIT2, pitstate).map(drop)
    }

    /// `KVM_IRQ_LINE`.
    ///
    /// # Errors
    /// `ENXIO` without a controller in the kernel.
    pub fn set_irq_line(&self, irq: u32, active: bool) -> Result<()> {
        let mut level = kvm_irq_level { level: active.into(), ..Default::default() };
        level.__bindgen_anon_1.irq = irq;
        self.vm.put(r::IRQ_LINE, &level).map(drop)
    }

    /// `KVM_SIGNAL_MSI`: to how many it was news.
    ///
    /// # Errors
    /// `EINVAL` without a local APIC in the kernel.
    pub fn signal_msi(&self, msi: kvm_msi) -> Result<c_int> {
        self.vm.put(r::SIGNAL_MSI, &msi)
    }

    /// `KVM_SET_GSI_ROUTING`.
    ///
    /// # Errors
    /// `EINVAL` for what cannot be.
    pub fn set_gsi_routing(&self, irq_routing: &KvmIrqRouting) -> Result<()> {
        self.vm.put(r::SET_GSI_ROUTING, irq_routing.as_fam_struct_ref()).map(drop)
    }

    fn irqfd(&self, fd: &EventFd, resample: Option<&EventFd>, gsi: u32, flags: u32) -> Result<()> {
        let resamplefd = resample.map_or(0, |fd| fd.as_raw_fd() as u32);
        let irqfd = kvm_irqfd { fd: fd.as_raw_fd() as u32, gsi, flags, resamplefd, ..Default::default() };
        self.vm.put(r::IRQFD, &irqfd).map(drop)
    }

    /// `KVM_IRQFD`: counting `fd` up interrupts.
    ///
    /// # Errors
    /// `EBUSY` if it does already.
    pub fn register_irqfd(&self, fd: &EventFd, gsi: u32) -> Result<()> {
        self.irqfd(fd, None, gsi, 0)
    }

    /// `KVM_IRQFD`: counting `fd` up interrupts until the guest ends it, which `resamplefd` is told.
    ///
    /// # Errors
    /// `EBUSY` if it does already, `EINVAL` without all controllers in the kernel.
    pub fn register_irqfd_with_resample(&self, fd: &EventFd, resamplefd: &EventFd, gsi: u32) -> Result<()> {
        self.irqfd(fd, Some(resamplefd), gsi, KVM_IRQFD_FLAG_RESAMPLE)
    }

    /// `KVM_IRQFD`: counting `fd` up no longer interrupts.
    ///
    /// # Errors
    /// `EINVAL` if it is no event counter.
    pub fn unregister_irqfd(&self, fd: &EventFd, gsi: u32) -> Result<()> {
        self.irqfd(fd, None, gsi, KVM_IRQFD_FLAG_DEASSIGN)
    }

    fn ioevent<T: Into<u64>>(
        &self,
        fd: &EventFd,
        addr: &IoEventAddress,
        datamatch: T,
        flags: u32,
    ) -> Result<()> {
        let len = size_of::<T>() as u32;
        let (addr, port) = match *addr {
            IoEventAddress::Pio(addr) => (addr, PORT),
            IoEventAddress::Mmio(addr) => (addr, 0),
        };
        let flags = flags | port | if len > 0 { DATA_MATCH } else { 0 };
        let (datamatch, fd) = (datamatch.into(), fd.as_raw_fd());
        self.vm
            .put(r::IOEVENTFD, &kvm_ioeventfd { datamatch, addr, len, fd, flags, ..Default::default() })
            .map(drop)
    }

    /// `KVM_IOEVENTFD`: the guest's writes to `addr` count `fd` up.
    ///
    /// # Errors
    /// `EEXIST` if they count already.
    pub fn register_ioevent<T: Into<u64>>(
        &self,
        fd: &EventFd,
        addr: &IoEventAddress,
        datamatch: T,
    ) -> Result<()> {
        self.ioevent(fd, addr, datamatch, 0)
    }

    /// `KVM_IOEVENTFD`: the guest's writes to `addr` no longer count `fd` up.
    ///
    /// # Errors
    /// `ENOENT` if they did not.
    pub fn unregister_ioevent<T: Into<u64>>(
        &self,
        fd: &EventFd,
        addr: &IoEventAddress,
        datamatch: T,
    ) -> Result<()> {
        self.ioevent(fd, addr, datamatch, DEASSIGN)
    }
}
