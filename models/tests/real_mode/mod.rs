//! VMs whose guest is a few instructions in real mode.

use rootmode_arch::Vendor;
use rootmode_models::kvm::abi::UserspaceMemoryRegion;
use rootmode_models::kvm::vm::{Vm, VmConfig};

/// Both.
pub(crate) const VENDORS: [Vendor; 2] = [Vendor::Intel, Vendor::Amd];
/// Where code is put.
pub(crate) const CODE: u64 = 0x1000;

/// A VM with 64 KiB at address 0 and one vCPU about to run `code` in real mode.
pub(crate) fn vm(vendor: Vendor, code: &[u8]) -> Vm {
    let mut vm = Vm::new(VmConfig::plain(vendor)).unwrap();
    vm.set_memory_region(&UserspaceMemoryRegion { memory_size: 0x1_0000, ..Default::default() }).unwrap();
    assert!(vm.write_memory(CODE, code));
    vm.create_vcpu(0).unwrap();
    let mut sregs = vm.sregs(0).unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vm.set_sregs(0, &sregs).unwrap();
    let mut regs = vm.regs(0).unwrap();
    (regs.rip, regs.rsp, regs.rflags) = (CODE, 0x8000, 2);
    vm.set_regs(0, &regs).unwrap();
    vm
}
