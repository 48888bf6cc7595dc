//! Calls with arbitrary arguments: each answers, none panics, and one that fails leaves the VM as it was.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use rootmode_arch::choices::Seeded;
use rootmode_arch::{Choices, Site, Vendor};
use rootmode_models::kvm::Errno;
use rootmode_models::kvm::abi::{
    Cpuid2Head, Irqchip, MsrEntry, MsrsHead, Object, Plain, REQUESTS, Request, Run, UserspaceMemoryRegion,
    VCPU_MMAP_SIZE, request as r,
};
use rootmode_models::kvm::ioctl::{Answer, Instance, system};
use rootmode_models::kvm::vm::{
    ClientMemory, EventCounter, Failure, HostFault, Progress, Vm, VmConfig, host_model, saved_msrs,
};

/// The client's memory: an argument, the mapping of a vCPU, what observers read into, guest memory.
const BASE: u64 = 0x7f00_0000_0000;
const ARGUMENT: u64 = BASE;
const MAPPING: u64 = BASE + 0x4000;
const OBSERVED: u64 = BASE + 0x8000;
const RAM: u64 = BASE + 0x1_0000;
const BYTES: usize = 0x3_0000;
/// Calls on one VM.
const CALLS_A_VM: u64 = 40;

#[derive(Clone)]
struct Client(Arc<Mutex<Vec<u8>>>);

impl Client {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        let at = (address - BASE) as usize;
        self.bytes()[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn range(address: u64, length: usize) -> Result<std::ops::Range<usize>, HostFault> {
    let start = usize::try_from(address.wrapping_sub(BASE)).map_err(|_| HostFault { address })?;
    let end = start.checked_add(length).filter(|end| *end <= BYTES).ok_or(HostFault { address })?;
    Ok(start..end)
}

impl ClientMemory for Client {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), HostFault> {
        bytes.copy_from_slice(&self.bytes()[range(address, bytes.len())?]);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), HostFault> {
        self.bytes()[range(address, bytes.len())?].copy_from_slice(bytes);
        Ok(())
    }

    fn event(&mut self, descriptor: i32) -> Result<Box<dyn EventCounter>, Errno> {
        match descriptor {
            0..4 => Ok(Box::new(Counter(descriptor as u64))),
            4..8 => Err(Errno::Einval),
            _ => Err(Errno::Ebadf),
        }
    }
}

/// A counter that nobody counts up.
struct Counter(u64);

impl EventCounter for Counter {
    fn id(&self) -> u64 {
        self.0
    }
    fn signal(&self) {}
    fn take(&self) -> bool {
        false
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    calls: u64,
    refused: u64,
    runs: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, refused, runs } = self;
        write!(
            f,
            "{calls} calls, {refused} refused, {runs} times in the guest: 0 changed anything that failed"
        )
    }
}

/// One VM and its client.
struct Case {
    vendor: Vendor,
    client: Client,
    vm: Instance,
    choices: Seeded,
}

/// Structures that one call fills and another takes.
const PAIRS: &[(u32, u32)] = &[
    (r::SET_REGS, r::GET_REGS),
    (r::SET_SREGS, r::GET_SREGS),
    (r::SET_SREGS2, r::GET_SREGS2),
    (r::SET_FPU, r::GET_FPU),
    (r::SET_XSAVE, r::GET_XSAVE),
    (r::SET_XCRS, r::GET_XCRS),
    (r::SET_DEBUGREGS, r::GET_DEBUGREGS),
    (r::SET_VCPU_EVENTS, r::GET_VCPU_EVENTS),
    (r::SET_MP_STATE, r::GET_MP_STATE),
    (r::SET_LAPIC, r::GET_LAPIC),
    (r::SET_NESTED_STATE, r::GET_NESTED_STATE),
    (r::SET_PIT2, r::GET_PIT2),
    (r::SET_CLOCK, r::GET_CLOCK),
];

impl Case {
    fn new(seed: u64) -> Result<Self, Failure> {
        let mut choices = Seeded::new(seed);
        let vendor = if choices.choose(Site::Program, 2) == 0 { Vendor::Intel } else { Vendor::Amd };
        let client = Client(Arc::new(Mutex::new(vec![0; BYTES])));
        let config = VmConfig { client: Some(Box::new(client.clone())), ..VmConfig::plain(vendor) };
        let mut vm = Instance::new(Vm::new(config).map_err(Failure::Bug)?);
        if choices.choose(Site::Program, 2) == 0 {
            vm.vm.create_irqchip()?;
            vm.vm.create_pit2(&rootmode_models::kvm::abi::PitConfig::default())?;
        }
        let region =
            UserspaceMemoryRegion { memory_size: 0x1_0000, userspace_addr: RAM, ..Default::default() };
        vm.vm.set_memory_region(&region)?;
        vm.vm.create_vcpu(0)?;
        Ok(Self { vendor, client, vm, choices })
    }

    fn pick(&mut self, n: u64) -> u64 {
        self.choices.choose(Site::Program, n)
    }

    fn any(&mut self) -> u64 {
        self.choices.next()
    }

    fn call(&mut self, object: Object, number: u32, argument: u64) -> Result<Answer, Errno> {
        let client = &mut self.client;
        match object {
            Object::System => system(&host_model(self.vendor), number, argument, client),
            Object::Vm => self.vm.vm_ioctl(number, argument, client),
            Object::Vcpu | Object::Device => self.vm.vcpu_ioctl(0, number, argument, client),
        }
    }

    /// Everything that a client can read of the VM.
    fn observe(&mut self) -> Vec<u8> {
        let saved = self.client.bytes().clone();
        let mut seen = Vec::new();
        let cpuid = Cpuid2Head { nent: 200, padding: 0 }.to_bytes();
        let heads = [(r::GET_CPUID2, cpuid), (r::GET_MSRS, msrs(self.vendor))];
        let plain = PAIRS.iter().filter(|(_, get)| !matches!(*get, r::GET_PIT2 | r::GET_CLOCK));
        let plain = plain.map(|(_, get)| (*get, nested_head()));
        for (get, head) in plain.chain(heads) {
            self.client.put(OBSERVED, &[0; 0x2000]);
            self.client.put(OBSERVED, &head);
            let answer = self.call(Object::Vcpu, get, OBSERVED);
            seen.extend(format!("{get:x} {answer:?} ").into_bytes());
            let at = (OBSERVED - BASE) as usize;
            seen.extend_from_slice(&self.client.bytes()[at..at + 0x2000]);
        }
        for chip_id in 0..3 {
            seen.extend(
                format!("{:?}", self.vm.vm.irqchip(&Irqchip { chip_id, ..Default::default() })).into_bytes(),
            );
        }
        seen.extend(format!("{:?} {}", self.vm.vm.pit2(), self.vm.vm.has_vcpus()).into_bytes());
        *self.client.bytes() = saved;
        seen
    }

    /// Fills the argument's memory with something, sensible or not.
    fn fill(&mut self, row: &Request) {
        let noise: Vec<u8> = (0..0x1000).map(|_| self.any() as u8).collect();
        match self.pick(4) {
            0 => self.client.put(ARGUMENT, &noise),
            1 => self.client.put(ARGUMENT, &[0; 0x1000]),
            _ => {
                self.client.put(ARGUMENT, &[0; 0x2000]);
                if let Some((_, get)) = PAIRS.iter().find(|(set, _)| *set == row.number) {
                    self.client.put(ARGUMENT, &nested_head());
                    // What cannot be read is no template.
                    let _ = self.call(row.object, *get, ARGUMENT);
                }
                for _ in 0..self.pick(6) {
                    let at = self.pick(u64::from(row.number >> 16 & 0x3fff).max(16));
                    let value = if self.pick(2) == 0 { self.any() as u8 } else { self.pick(4) as u8 };
                    self.client.put(ARGUMENT + at, &[value]);
                }
            }
        }
        if matches!(row.number, r::SET_USER_MEMORY_REGION | r::SET_USER_MEMORY_REGION2) {
            // A slot of at most a few MiB, or one that does not fit anywhere.
            let bytes = if self.pick(4) == 0 {
                u64::MAX << self.pick(63)
            } else {
                self.pick(1 << 9) << self.pick(14)
            };
            self.client.put(ARGUMENT + 16, &bytes.to_le_bytes());
        }
    }

    fn argument(&mut self) -> u64 {
        match self.pick(8) {
            0 => self.pick(256),
            1 => self.any(),
            2 => BASE + BYTES as u64 - self.pick(64),
            3 => ARGUMENT + self.pick(16),
            _ => ARGUMENT,
        }
    }

    /// One call; whether it was refused.
    fn step(&mut self) -> Result<bool, String> {
        let row = REQUESTS[self.pick(REQUESTS.len() as u64) as usize];
        let number = if self.pick(16) == 0 { self.any() as u32 } else { row.number };
        self.fill(&row);
        let argument = self.argument();
        let before = self.observe();
        let answer = self.call(row.object, number, argument);
        let after = self.observe();
        match answer {
            Ok(_) => Ok(false),
            Err(_) if before == after => Ok(true),
            Err(errno) => {
                let at = before.iter().zip(&after).position(|(old, new)| old != new);
                Err(format!(
                    "{} ({number:#x}) failed with {errno:?} and changed byte {at:?} of the VM",
                    row.name
                ))
            }
        }
    }

    /// `KVM_RUN` with anything in the mapping, for a while.
    fn run(&mut self) -> Result<(), Errno> {
        let mut mapping: Vec<u8> = vec![0; VCPU_MMAP_SIZE as usize];
        for _ in 0..self.pick(8) {
            let at = self.pick(Run::SIZE as u64) as usize;
            mapping[at] = self.any() as u8;
        }
        self.client.put(MAPPING, &mapping);
        let client = &mut self.client;
        self.vm.take_page(0, MAPPING, client).map_err(Failure::errno)?;
        self.vm.vm.start(0).map_err(Failure::errno)?;
        for _ in 0..3 {
            let progress = self.vm.vm.advance(0, 1000).map_err(Failure::errno)?;
            if matches!(progress, Progress::Exit | Progress::Failed(_)) {
                return self.vm.show_page(0, MAPPING, client).map_err(Failure::errno);
            }
            self.vm.vm.kick(0).map_err(Failure::errno)?;
        }
        Err(Errno::Eintr)
    }
}

/// The saved MSRs, to read.
fn msrs(vendor: Vendor) -> Vec<u8> {
    let saved = saved_msrs(vendor);
    let mut bytes = MsrsHead { nmsrs: saved.len() as u32, pad: 0 }.to_bytes();
    for index in saved {
        MsrEntry { index, ..Default::default() }.put(&mut bytes);
    }
    bytes
}

/// A head with room for any nested state, which others overwrite.
fn nested_head() -> Vec<u8> {
    [0_u32, 0x1000].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Makes so many calls.
///
/// # Errors
/// A call that failed and changed something, a vCPU that does not come back when it is kicked.
pub(super) fn run(calls: u64, seed: u64) -> Result<Report, String> {
    let mut report = Report::default();
    let mut seeds = Seeded::new(seed);
    while report.calls < calls {
        let seed = seeds.next();
        let place = |error: String| format!("seed {seed:#x}: {error}");
        let mut case = Case::new(seed).map_err(|failure| place(format!("no VM: {failure}")))?;
        for _ in 0..CALLS_A_VM {
            report.calls += 1;
            report.refused += u64::from(case.step().map_err(place)?);
            if case.pick(8) == 0 {
                report.runs += u64::from(case.run().is_ok());
                if case.vm.vm.is_running(0) {
                    return Err(place("a vCPU that was kicked does not come back".to_owned()));
                }
            }
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn arbitrary_arguments_are_answered_and_what_fails_changes_nothing(seed: u64) {
            let report = run(CALLS_A_VM, seed);
            prop_assert!(report.is_ok(), "{:?}", report);
        }
    }
}
