//! [`Host`]: a board whose supervisor is L0, with one vCPU that runs L1.

use std::sync::{Arc, Mutex};

use rootmode_arch::choices::Choices;
use rootmode_arch::record::{Level, Observer, Payload, Stop};
use rootmode_arch::{GuestPhysical, HostPhysical, Vendor};
use rootmode_cpu::apic::register;
use rootmode_cpu::board::Board;
use rootmode_cpu::{Bus, Cpu, Message, Virtualization};

use super::executor::{Executor, Step};
use super::machine::{Ended, HostBug, Machine, Request};
use super::point::Wait;
use super::state::Start;
use super::svm::SvmVcpu;
use super::vmx::{VmxVcpu, lock};
use super::worker::zap_worker;
use crate::kvm::Filter;
use crate::kvm::abi::UserspaceMemoryRegion;
use crate::kvm::interception::Configuration;
use crate::kvm::slots::Memory;
use crate::kvm::trace::Tracepoint;

/// Where L1's memory starts in host-physical memory: any place but 0, so that mixing up address spaces shows.
pub const SLOT_BASE: HostPhysical = HostPhysical(0x1000_0000);

/// Bound on steps of L0 between two runs of the processor.
const STEPS_WITHOUT_GUEST: u32 = 1_000_000;

/// What a host is made of.
pub struct HostConfig {
    /// The physical processor's extension, with L0 as its host level.
    pub extension: Box<dyn Virtualization>,
    /// The state in which L1 starts; its model is the physical processor's and L1's.
    pub start: Cpu,
    /// Bytes of L1's memory.
    pub memory: u64,
    /// L1's devices.
    pub bus: Box<dyn Bus>,
    /// Scheduling of L0's tasks, and the processor's latitude.
    pub choices: Box<dyn Choices + Send>,
    /// Who watches.
    pub observer: Option<Box<dyn Observer + Send>>,
    /// What decides which MSR accesses exit.
    pub configuration: Configuration,
    /// Userspace's MSR filter.
    pub filter: Filter,
    /// A second task that now and then takes pages out of L2's shadow tables, as page reclaim does.
    pub reclaim: bool,
    /// Module parameter `emulate_invalid_guest_state` (VMX).
    pub emulate_invalid: bool,
}

/// L0 with one VM of one vCPU.
pub struct Host {
    machine: Arc<Mutex<Machine>>,
    executor: Executor,
    /// Bytes of L1's memory.
    memory: u64,
    points: u64,
}

impl Host {
    /// A host that is about to enter L1 for the first time.
    ///
    /// # Errors
    /// [`HostBug`] if L0 cannot set itself up.
    pub fn new(config: HostConfig) -> Result<Self, HostBug> {
        let vendor = config.extension.vendor();
        let mut board = Board::new();
        board.set_bus(config.bus);
        board.set_choices(config.choices);
        let start = Start::from(&config.start);
        let mut physical = config.start;
        physical.gpr = [0; 16];
        board.add_processor(physical, Some(config.extension));
        let memory = Memory::new(None, SLOT_BASE);
        let mut machine = Machine::new(board, vendor, config.observer, memory)?;
        add_slot(&mut machine, 0, GuestPhysical(0), config.memory)?;
        let machine = Arc::new(Mutex::new(machine));
        let mut executor = Executor::new();
        let tasks = executor.tasks();
        let mmu = tasks.new_lock();
        let (shared, lock) = (machine.clone(), mmu.clone());
        match vendor {
            Vendor::Intel => {
                let mut vcpu = VmxVcpu::new(
                    shared,
                    0,
                    tasks.clone(),
                    lock,
                    &start,
                    config.configuration,
                    config.filter,
                )?;
                vcpu.set_emulate_invalid(config.emulate_invalid);
                executor.spawn(vcpu.run());
            }
            Vendor::Amd => {
                let vcpu = SvmVcpu::new(
                    shared,
                    0,
                    tasks.clone(),
                    lock,
                    &start,
                    config.configuration,
                    config.filter,
                )?;
                executor.spawn(vcpu.run());
            }
        }
        if config.reclaim {
            executor.spawn_worker(zap_worker(machine.clone(), tasks, mmu));
        }
        Ok(Self { machine, executor, memory: config.memory, points: 0 })
    }

    /// Writes L1's memory from outside, as a loader does. Bytes beyond it are dropped.
    pub fn write_memory(&mut self, address: GuestPhysical, bytes: &[u8]) {
        let room = self.memory.saturating_sub(address.0).min(bytes.len() as u64) as usize;
        lock(&self.machine).with_memory(|memory, below| memory.write(below, address.0, &bytes[..room]));
    }

    /// Bytes of L1's memory.
    pub const fn memory(&self) -> u64 {
        self.memory
    }

    /// Reads L1's memory; bytes beyond it are 0xff.
    pub fn read_memory(&self, address: GuestPhysical, bytes: &mut [u8]) {
        let room = self.memory.saturating_sub(address.0).min(bytes.len() as u64) as usize;
        let (inside, beyond) = bytes.split_at_mut(room);
        beyond.fill(0xff);
        if room != 0 {
            lock(&self.machine).board.memory.read(HostPhysical(SLOT_BASE.0 + address.0), inside);
        }
    }

    /// L1's general-purpose registers and RIP, when L1 was the last to run.
    pub fn registers(&self) -> [u64; 17] {
        lock(&self.machine).last_registers
    }

    /// Lets L0's tracepoints record from now on, or no longer.
    pub fn set_tracing(&mut self, on: bool) {
        lock(&self.machine).trace = on.then(Vec::new);
    }

    /// What the tracepoints recorded so far.
    pub fn take_trace(&mut self) -> Vec<Tracepoint> {
        lock(&self.machine).trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How often L0 read the error code of an exit from its VMCS.
    pub fn error_code_reads(&self) -> u64 {
        lock(&self.machine).error_code_reads
    }

    /// L1's time.
    pub fn ticks(&self) -> u64 {
        lock(&self.machine).cpu().tick
    }

    /// How often a task of L0 stood at a point.
    pub const fn points(&self) -> u64 {
        self.points
    }

    /// The fingerprint of everything: the board with L0's structures.
    pub fn digest(&self) -> u128 {
        lock(&self.machine).board.digest()
    }

    /// Runs until the machine stops or L1's time reaches `limit`.
    ///
    /// # Errors
    /// [`HostBug`] if L0 did something that cannot be right.
    pub fn run(&mut self, limit: u64) -> Result<Stop, HostBug> {
        loop {
            if let Some(stop) = self.run_tasks()? {
                lock(&self.machine).emit(Level::L0, Payload::Stopped(stop));
                return Ok(stop);
            }
            let stopped = lock(&self.machine).board.run(limit);
            match stopped.stop {
                Stop::Gate(number) => self.executor.tasks().open_gate(number as u8),
                stop => {
                    lock(&self.machine).emit(Level::L0, Payload::Stopped(stop));
                    return Ok(stop);
                }
            }
        }
    }

    /// More memory for L1: a slot of zeroed bytes at `guest`, which the machine has no other use for.
    ///
    /// # Errors
    /// [`HostBug`] if there is no room for it.
    pub fn add_slot(&mut self, guest: GuestPhysical, bytes: u64) -> Result<(), HostBug> {
        add_slot(&mut lock(&self.machine), 1, guest, bytes)
    }

    /// A vCPU that stopped goes on with the next [`Host::run`], at the instruction where it stopped.
    pub fn resume(&mut self) {
        let mut m = lock(&self.machine);
        m.stop = None;
        if let Some(resumed) = m.resumed.take() {
            resumed.set(true);
        }
    }

    /// INIT, or the end of the vCPU, at whatever it is doing. `None`: it is over already, or is one of SVM's, which keep
    /// no state that would have to be taken apart.
    ///
    /// # Errors
    /// [`HostBug`] if L0 did something that cannot be right.
    pub fn request(&mut self, request: Request) -> Result<Option<Ended>, HostBug> {
        {
            let mut m = lock(&self.machine);
            m.request = Some(request);
            // The host's kernel listens to its local APIC.
            let cpu = m.cpu_mut();
            let clock = cpu.clock();
            cpu.apic.write(register::SVR, 4, 0x1ff, clock);
            cpu.post(Message::ExtInt);
        }
        self.resume();
        loop {
            let stop = self.run_tasks()?;
            if stop.is_some() || lock(&self.machine).ended.is_some() {
                return Ok(lock(&self.machine).ended.take());
            }
            match lock(&self.machine).board.run(u64::MAX).stop {
                Stop::Gate(number) => self.executor.tasks().open_gate(number as u8),
                _ => return Ok(None),
            }
        }
    }

    /// Lets L0's tasks run until one of them waits for the processor. `Some`: the machine stops.
    fn run_tasks(&mut self) -> Result<Option<Stop>, HostBug> {
        let mut choices = Drawer { machine: self.machine.clone() };
        for _ in 0..STEPS_WITHOUT_GUEST {
            let step = self.executor.step(&mut choices);
            let mut m = lock(&self.machine);
            if let Some(bug) = m.bug {
                return Err(bug);
            }
            match step {
                Step::Waits(task, Wait::Point(point)) => {
                    self.points += 1;
                    m.emit(Level::L0, Payload::Point { point: point as u16, task });
                }
                Step::Waits(_, Wait::Flag(_)) if m.stop.is_some() => return Ok(m.stop),
                Step::Waits(..) => {}
                Step::Blocked => return Ok(None),
                Step::Ended(_) | Step::Finished => return Ok(Some(m.stop.unwrap_or(Stop::Idle))),
            }
        }
        Ok(Some(Stop::NoProgress))
    }
}

fn add_slot(machine: &mut Machine, slot: u32, guest: GuestPhysical, bytes: u64) -> Result<(), HostBug> {
    let region = UserspaceMemoryRegion {
        slot,
        guest_phys_addr: guest.0,
        memory_size: bytes,
        ..UserspaceMemoryRegion::default()
    };
    machine.with_memory(|memory, below| memory.set_region(below, &region)).map_err(|_| HostBug::OutOfFrames)
}

/// Draws from the board's choices, between the tasks' steps.
struct Drawer {
    machine: Arc<Mutex<Machine>>,
}

impl Choices for Drawer {
    fn choose(&mut self, site: rootmode_arch::Site, n: u64) -> u64 {
        lock(&self.machine).board.choose(site, n)
    }
}
