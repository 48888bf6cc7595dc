//! A broken invariant of one VM: the VM is refused service, whoever runs leaves the guest, and nobody else notices.

use rootmode_arch::choices::Seeded;
use rootmode_arch::{Choices, Site, Vendor};
use rootmode_models::kvm::abi::{UserspaceMemoryRegion, request};
use rootmode_models::kvm::ioctl::Instance;
use rootmode_models::kvm::vm::{
    ClientMemory, Failure, HostFault, HostKernel, Invariant, Progress, Vm, VmConfig,
};
use rootmode_models::kvm::{Errno, Regressions};

use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[Property {
    name: "broken-invariant",
    about: "When L0 finds an invariant of a VM broken, no vCPU of it executes the guest's code from then on, every call answers EIO, everything is freed in the end, and other VMs go on.",
    source: "catalogue 11.2; P-11.1 to P-11.6",
    cost: 200,
    check,
}];

const CODE: u64 = 0x1000;
const COUNTERS: u64 = 0x2000;
/// Ticks of one look.
const LOOK: u64 = 1500;

/// A client whose memory cannot be read: no call may look at it.
struct NoMemory;

impl ClientMemory for NoMemory {
    fn read(&mut self, address: u64, _: &mut [u8]) -> Result<(), HostFault> {
        Err(HostFault { address })
    }

    fn write(&mut self, address: u64, _: &[u8]) -> Result<(), HostFault> {
        Err(HostFault { address })
    }
}

struct Setup {
    vendor: Vendor,
    kernel: HostKernel,
    bugs: Regressions,
}

impl Setup {
    /// A VM whose vCPUs count, with an exit in each round or without.
    fn vm(&self, exits: &[bool], seed: u64) -> Result<Vm, Failure> {
        let mut vm = Vm::new(VmConfig {
            choices: Box::new(Seeded::new(seed)),
            kernel: self.kernel.clone(),
            regressions: self.bugs,
            ..VmConfig::plain(self.vendor)
        })?;
        let region = UserspaceMemoryRegion { memory_size: 0x4000, ..UserspaceMemoryRegion::default() };
        vm.set_memory_region(&region)?;
        for (number, exits) in exits.iter().enumerate() {
            let entry = CODE + 0x100 * number as u64;
            let [low, high] = (COUNTERS as u16 + 4 * number as u16).to_le_bytes();
            // inc word [counter]; cpuid or two NOPs; jmp to the first
            let middle = if *exits { [0x0f, 0xa2] } else { [0x90, 0x90] };
            vm.write_memory(entry, &[0xff, 0x06, low, high, middle[0], middle[1], 0xeb, 0xf8]);
            vm.create_vcpu(number as u32)?;
            super::start_at(&mut vm, number, entry)?;
        }
        Ok(vm)
    }
}

fn counter(vm: &mut Vm, vcpu: u64) -> u16 {
    let mut bytes = [0; 2];
    vm.read_memory(COUNTERS + 4 * vcpu, &mut bytes);
    u16::from_le_bytes(bytes)
}

/// How KVM_RUN ends within a bounded time; `None`: it does not.
fn end(vm: &mut Vm, vcpu: usize) -> Option<Result<(), Errno>> {
    (0..8).find_map(|_| match vm.advance(vcpu, LOOK) {
        Ok(Progress::Budget | Progress::Idle) => None,
        Ok(Progress::Exit) => Some(Ok(())),
        Ok(Progress::Failed(failure)) | Err(failure) => Some(Err(failure.errno())),
    })
}

fn check(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let vendor = [Vendor::Intel, Vendor::Amd][c.choose(Site::Swarm, 2) as usize];
    let invariant = Invariant::ALL[c.choose(Site::State, Invariant::ALL.len() as u64) as usize];
    let condition = [1, 1 << 32, 0x8000_0000, 0xdead_0000_0000, u64::MAX][c.choose(Site::State, 5) as usize];
    let other_exits = c.flip(Site::Program);
    let setup = Setup { vendor, kernel: HostKernel::default(), bugs };
    let (seed, ticks) = (c.choose(Site::Task, 1 << 32), c.choose(Site::Sequence, 200));
    match scenario(&setup, invariant, condition, other_exits, seed, ticks) {
        Ok(None) => Verdict::Holds,
        Ok(Some(message)) => Counterexample::new(message)
            .with("extension", format!("{vendor:?}"))
            .with("invariant", format!("{invariant:?}"))
            .with("condition", format!("{condition:#x}"))
            .with("the other vCPU exits", other_exits)
            .with("ticks before", ticks)
            .into(),
        Err(failure) => Counterexample::new(format!("a call fails that should not: {failure}")).into(),
    }
}

fn scenario(
    setup: &Setup,
    invariant: Invariant,
    condition: u64,
    other_exits: bool,
    seed: u64,
    ticks: u64,
) -> Result<Option<String>, Failure> {
    let wrong = |message: &str| Ok(Some(message.to_owned()));
    let mut broken = setup.vm(&[true, other_exits], seed)?;
    let mut other = setup.vm(&[true], seed)?;
    broken.start(0)?;
    broken.start(1)?;
    other.start(0)?;
    broken.advance(0, 1 + ticks)?;
    broken.break_invariant(0, invariant, condition);
    if end(&mut broken, 0) != Some(Err(Errno::Eio)) {
        return wrong("KVM_RUN of the vCPU on which it was found does not end with EIO");
    }
    if broken.is_in_guest(1) {
        return wrong("the other vCPU is in the guest after the VM was marked");
    }
    let counted = counter(&mut broken, 1);
    if end(&mut broken, 1) != Some(Err(Errno::Eio)) {
        return wrong("KVM_RUN of the other vCPU does not end with EIO");
    }
    if counter(&mut broken, 1) != counted {
        return wrong("the other vCPU executes the guest's code after the VM was marked");
    }
    if !broken.is_bugged() || !broken.is_dead() {
        return wrong("the VM is not both bugged and dead");
    }
    if broken.start(0).is_ok() || broken.regs(1).is_ok() {
        return wrong("a call is served after the VM was marked");
    }
    let mut instance = Instance::new(broken);
    let answers = [
        instance.vm_ioctl(request::CHECK_EXTENSION, 0, &mut NoMemory),
        instance.vm_compat_ioctl(request::CHECK_EXTENSION, 0, &mut NoMemory),
        instance.vm_ioctl(request::SET_USER_MEMORY_REGION, 0, &mut NoMemory),
        instance.vcpu_ioctl(0, request::GET_REGS, 0, &mut NoMemory),
        instance.vcpu_compat_ioctl(0, request::GET_REGS, 0, &mut NoMemory),
        instance.device_ioctl(request::HAS_DEVICE_ATTR, 0, &mut NoMemory),
    ];
    if answers.iter().any(|answer| *answer != Err(Errno::Eio)) {
        return wrong("a descriptor answers something else than EIO");
    }
    if instance.vm.close()?.frames != 0 {
        return wrong("memory of the VM is lost when it is closed");
    }
    let before = counter(&mut other, 0);
    if end(&mut other, 0).is_some() || counter(&mut other, 0) == before {
        return wrong("another VM does not go on");
    }
    let mut third = setup.vm(&[true], seed)?;
    third.start(0)?;
    third.break_invariant(0, invariant, condition);
    if end(&mut third, 0) != Some(Err(Errno::Eio)) || !third.is_dead() {
        return wrong("a second VM in which the same is found is not marked");
    }
    if setup.kernel.warnings() != [invariant] {
        return wrong("one place does not warn exactly once");
    }
    other.retire();
    if end(&mut other, 0) != Some(Err(Errno::Eio)) || other.is_bugged() || !other.is_dead() {
        return wrong("a VM that moved to another host is not dead, or counts as bugged");
    }
    Ok(None)
}
