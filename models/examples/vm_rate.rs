//! How many complete VMs a second: create, one vCPU, run to HLT, destroy. `cargo run --release -p rootmode-models --example
//! vm_rate`

use rootmode_arch::Vendor;
use rootmode_models::kvm::abi::UserspaceMemoryRegion;
use rootmode_models::kvm::vm::{ClientExit, Failure, Vm, VmConfig};
use std::time::Instant;

fn one(vendor: Vendor) -> Result<bool, Failure> {
    let mut vm = Vm::new(VmConfig::plain(vendor))?;
    let region = UserspaceMemoryRegion { memory_size: 0x1_0000, ..Default::default() };
    vm.set_memory_region(&region)?;
    vm.write_memory(0x1000, &[0xf4]);
    vm.create_vcpu(0)?;
    let mut sregs = vm.sregs(0)?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vm.set_sregs(0, &sregs)?;
    let mut regs = vm.regs(0)?;
    regs.rip = 0x1000;
    vm.set_regs(0, &regs)?;
    Ok(*vm.run(0)? == ClientExit::Hlt)
}

fn main() -> Result<(), Failure> {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let start = Instant::now();
        let mut count = 0_u32;
        while start.elapsed().as_secs() < 2 {
            if !one(vendor)? {
                println!("{vendor:?}: the guest did not halt");
            }
            count += 1;
        }
        println!("{vendor:?}: {:.0} VMs a second", f64::from(count) / start.elapsed().as_secs_f64());
    }
    Ok(())
}
