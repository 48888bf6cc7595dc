//! The work of `load` under the deterministic driver: the same choices give the same history, whatever threads would do.

use rootmode_arch::choices::Seeded;
use rootmode_arch::{Choices, Site, Vendor};
use rootmode_mmu::Digest;
use rootmode_models::kvm::abi::{MpState, Msi, UserspaceMemoryRegion};
use rootmode_models::kvm::vm::{Failure, Progress, Vm, VmConfig};

use super::load::{BUSY, CODE, COUNT_NMI, COUNTERS, HANDLER, RAM, SECOND, SLEEPY, VCPUS};

/// Steps of the client.
const STEPS: u32 = 400;
/// Ticks between two of them, at most.
const TICKS: u64 = 3000;

fn prepare(vendor: Vendor, seed: u64) -> Result<Vm, Failure> {
    let mut vm = Vm::new(VmConfig { choices: Box::new(Seeded::new(seed)), ..VmConfig::plain(vendor) })?;
    vm.create_irqchip()?;
    vm.set_memory_region(&UserspaceMemoryRegion { flags: 1, memory_size: RAM, ..Default::default() })?;
    for (at, bytes) in [
        (CODE, &BUSY[..]),
        (CODE + 0x100, &SLEEPY),
        (HANDLER, &COUNT_NMI),
        (8, &(HANDLER as u32).to_le_bytes()),
    ] {
        vm.write_memory(at, bytes);
    }
    for number in 0..VCPUS {
        vm.create_vcpu(number as u32)?;
        let mut sregs = vm.sregs(number)?;
        (sregs.cs.base, sregs.cs.selector, sregs.es.base) = (0, 0, RAM);
        vm.set_sregs(number, &sregs)?;
        let mut regs = vm.regs(number)?;
        regs.rip = if number < VCPUS / 2 { CODE } else { CODE + 0x100 };
        (regs.rsp, regs.rsi) = (0x8000 + 0x1000 * number as u64, COUNTERS + 64 * number as u64);
        vm.set_regs(number, &regs)?;
        vm.set_mp_state(number, &MpState { mp_state: 0 })?;
    }
    Ok(vm)
}

/// What all of it comes to: exits, their order, memory, logs, time.
fn history(vendor: Vendor, seed: u64) -> Result<u128, Failure> {
    let mut vm = prepare(vendor, seed)?;
    let (mut client, mut digest) = (Seeded::new(seed), Digest::new());
    let mut pick = |n: u64| client.choose(Site::Program, n);
    let mut there = false;
    for _ in 0..STEPS {
        let vcpu = pick(VCPUS as u64) as usize;
        if !vm.is_running(vcpu) {
            vm.start(vcpu)?;
        }
        match pick(5) {
            0 => vm.kick(vcpu)?,
            1 => {
                there = !there;
                let memory_size = if there { SECOND } else { 0 };
                let region = UserspaceMemoryRegion {
                    slot: 1,
                    guest_phys_addr: RAM,
                    memory_size,
                    ..Default::default()
                };
                vm.set_memory_region(&region)?;
            }
            2 => vm.dirty_log(0)?.iter().for_each(|word| digest.u64(*word)),
            3 => {
                let address_lo = 0xfee0_0000 | (vcpu as u32) << 12;
                vm.signal_msi(&Msi { address_lo, data: 0x400, ..Default::default() })?;
            }
            _ => {}
        }
        match vm.advance(vcpu, pick(TICKS))? {
            Progress::Exit => digest.u64(u64::from(vm.exit(vcpu)?.reason())),
            Progress::Failed(failure) => digest.u64(failure.errno().code() as u64),
            Progress::Budget | Progress::Idle => {}
        }
        digest.u64(vm.ticks());
    }
    let mut memory = vec![0; RAM as usize];
    vm.read_memory(0, &mut memory);
    digest.bytes(&memory);
    Ok(digest.finish())
}

/// Runs every history twice.
///
/// # Errors
/// A call that fails, two histories of one seed that differ.
pub(super) fn run(seeds: u64) -> Result<String, String> {
    let mut distinct = std::collections::BTreeSet::new();
    for seed in 0..seeds {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            let once =
                || history(vendor, seed).map_err(|failure| format!("seed {seed}, {vendor:?}: {failure}"));
            let (first, second) = (once()?, once()?);
            if first != second {
                return Err(format!("seed {seed}, {vendor:?}: {first:x} and {second:x}"));
            }
            distinct.insert(first);
        }
    }
    Ok(format!("{} histories, each twice the same, {} distinct", 2 * seeds, distinct.len()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_same_choices_give_the_same_history() {
        let report = super::run(3).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report, "6 histories, each twice the same, 6 distinct");
    }
}
