//! [`Vm`]: a virtual machine as KVM's clients see it, on either vendor's extension.
//!
//! The core is non-blocking and `Send`. [`Vm::start`] begins `KVM_RUN`, [`Vm::advance`] lets time pass until the vCPU needs
//! its client, and [`Vm::exit`] is what `struct kvm_run` shows. Everything else corresponds to one ioctl each. Whether it is
//! the processor's state or guest memory, L0 reaches it the way the hardware lets it: through VMX or SVM instructions on a
//! control structure in simulated memory.
//!
//! `run` is the run loop, `emulate` the instruction emulator (the processor itself, under a `guard`), `memory` the slots,
//! `events` what waits for injection, `msrs` the MSRs, `registers` and `xsave` the formats.

mod apic;
mod calls;
mod chips;
mod coalesced;
mod containment;
mod cpuid;
mod debug;
mod emulate;
mod events;
mod exit;
mod guard;
mod hypercall;
mod irqchip;
mod msrs;
mod nesting;
mod pv;
mod registers;
mod run;
mod signals;
mod statistics;
mod vcpu;
mod xsave;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use rootmode_arch::choices::{Choices, Tame};
use rootmode_arch::record::{Level, Observer, Stop};
use rootmode_arch::{HostPhysical, Site, Vendor};
use rootmode_cpu::apic::register;
use rootmode_cpu::board::Board;
use rootmode_cpu::{Cpu, Model, Virtualization};
use rootmode_svm::Processor;
use rootmode_svm::drive::Svm;
use rootmode_vmx::drive::Vmx;

use crate::kvm::filter::ExitMask;
use crate::kvm::host::{Executor, HostBug, Lock, Machine, Start, Step, backend, lock};
use crate::kvm::interception::Configuration;
use crate::kvm::slots::{Below, Memory};
use crate::kvm::{Errno, Filter, Regressions};
use coalesced::Coalesced;
use containment::Containment;
use emulate::Emulator;
use irqchip::{ALARM, HostTimers, Irqchip, TIMERS};
use signals::IoEvents;
use statistics::{Statistic, Statistics};
use vcpu::Vcpu;

pub use crate::kvm::slots::{ClientMemory, HostFault, SLOTS};
pub use coalesced::RING_ENTRIES;
pub use containment::{EntryPoint, HostKernel, Invariant, Remains};
pub use cpuid::{MOST_ENTRIES, guest_model, host_model, host_of, supported};
pub use exit::{ClientExit, ERROR_DELIVERY, ERROR_EMULATION, ERROR_UNEXPECTED};
pub use irqchip::MOST_ROUTES;
pub use msrs::{feature as feature_msr, features as feature_msrs, saved as saved_msrs};
pub use signals::EventCounter;

/// Where slots' windows lie in host-physical memory: above everything that the board has a meaning for.
const FIRST_WINDOW: HostPhysical = HostPhysical(1 << 32);
/// Steps of L0 between two runs of the processors, at most.
const STEPS_WITHOUT_GUEST: u32 = 1_000_000;
/// Ticks that a thread lags behind its processor, at most.
const LAG: u64 = 1000;
/// `KVM_CAP_MAX_VCPUS` here: a board's processors.
pub const MOST_VCPUS: u32 = 255;

/// `KVM_EXIT_HYPERCALL_VALID_MASK`: `KVM_HC_MAP_GPA_RANGE`.
pub const HYPERCALL_EXITS: u64 = 1 << 12;

/// Why a call did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Linux's answer.
    #[error("{0:?}")]
    Errno(Errno),
    /// L0 has a bug; the VM is bugged.
    #[error(transparent)]
    Bug(#[from] HostBug),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl Failure {
    /// What an ioctl returns: a bugged VM answers -EIO.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Errno(errno) => errno,
            Self::Bug(_) => Errno::Eio,
        }
    }
}

/// What a VM is made of.
pub struct VmConfig {
    /// The host's processors.
    pub host: Arc<Model>,
    /// The client's memory, if slots are that; without, slots are memory of the simulation.
    pub client: Option<Box<dyn ClientMemory>>,
    /// Scheduling of L0's tasks, and the processor's latitude.
    pub choices: Box<dyn Choices + Send>,
    /// The kernel that it shares with other VMs of its host.
    pub kernel: HostKernel,
    /// Known bugs that L0 has.
    pub regressions: Regressions,
}

impl VmConfig {
    /// A VM on `vendor`'s processors whose slots are memory of the simulation.
    pub fn plain(vendor: Vendor) -> Self {
        Self {
            host: Arc::new(host_model(vendor)),
            client: None,
            choices: Box::new(Tame),
            kernel: HostKernel::default(),
            regressions: Regressions::NONE,
        }
    }
}

/// How far [`Vm::advance`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// `KVM_RUN` returned: [`Vm::exit`] says why.
    Exit,
    /// `KVM_RUN` returned with this error.
    Failed(Failure),
    /// The ticks are used up; the vCPU is still in the guest.
    Budget,
    /// Every vCPU sleeps, and only the client can wake one.
    Idle,
}

/// How far [`Vm::pass`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// `KVM_RUN` of this vCPU returned.
    Out(usize, Result<(), Failure>),
    /// The time of [`Vm::set_alarm`], or an earlier one, has come.
    Alarm,
    /// The limit is reached.
    Limit,
    /// Every vCPU sleeps, and only the client can wake one.
    Idle,
}

/// What the vCPUs of a VM share beside the machine.
struct Rooms {
    emulator: Option<Emulator>,
    configuration: Configuration,
    filter: Filter,
    exit_mask: ExitMask,
    /// Hypercalls that exit to the client, a bit each.
    hypercall_exits: u64,
    /// vCPUs that must return to their clients, by processor.
    kicked: Vec<bool>,
    coalesced: Coalesced,
    irqchip: Irqchip,
    io_events: IoEvents,
    /// By processor.
    statistics: Vec<Statistics>,
    /// The wall clock's MSR, which the vCPUs share.
    wall_clock: u64,
    /// `KVM_SET_BOOT_CPU_ID`.
    bootstrap: u32,
    containment: Containment,
    kernel: HostKernel,
}

impl Rooms {
    /// The emulator, made when it is first needed.
    fn emulator(&mut self, machine: &mut Machine, model: &Arc<Model>) -> Result<&mut Emulator, HostBug> {
        if self.emulator.is_none() {
            self.emulator = Some(Emulator::new(machine, model.clone())?);
        }
        self.emulator.as_mut().ok_or(HostBug::OutOfFrames)
    }
}

/// Both, behind their locks.
#[derive(Clone)]
struct Shared {
    machine: Arc<Mutex<Machine>>,
    rooms: Arc<Mutex<Rooms>>,
}

impl Shared {
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().expect("nobody panics while he holds a VM's rooms")
    }

    fn count(&self, processor: u8, statistic: Statistic) {
        self.rooms().statistics[usize::from(processor)].count(statistic);
    }

    /// Calls `f` with both, on physical processor `processor`.
    fn with<T>(&self, processor: u8, f: impl FnOnce(&mut Machine, &mut Rooms) -> T) -> T {
        let mut machine = lock(&self.machine);
        machine.current = processor;
        f(&mut machine, &mut self.rooms())
    }

    /// Calls `f` with the VM's memory, on behalf of physical processor `processor`.
    fn memory<T>(&self, processor: u8, f: impl FnOnce(&mut Memory, &mut Below<'_>) -> T) -> T {
        let mut machine = lock(&self.machine);
        machine.current = processor;
        machine.with_memory(f)
    }
}

/// Where a vCPU and what came of its `KVM_RUN` are put when that is over.
type Over = Arc<Mutex<Option<(Box<Vcpu>, Result<(), Failure>)>>>;

/// Where a vCPU is.
enum Place {
    /// With its client.
    Home(Box<Vcpu>),
    /// In `KVM_RUN`.
    Running(Over),
}

/// A virtual machine.
pub struct Vm {
    shared: Shared,
    executor: Executor,
    mmu: Lock,
    vcpus: Vec<Place>,
    ids: Vec<u32>,
    /// L0's page frames that belong to each vCPU.
    frames: Vec<Vec<HostPhysical>>,
    host: Arc<Model>,
    guest: Arc<Model>,
}

impl Vm {
    /// A VM without memory and vCPUs.
    ///
    /// # Errors
    /// [`HostBug`] if L0 cannot set itself up.
    pub fn new(config: VmConfig) -> Result<Self, HostBug> {
        let vendor = config.host.vendor();
        let mut board = Board::new();
        board.set_choices(config.choices);
        board.set_bus(Box::new(HostTimers));
        let memory = Memory::new(config.client, FIRST_WINDOW);
        let machine = Machine::new(board, vendor, None, memory)?;
        let executor = Executor::new();
        let rooms = Rooms {
            emulator: None,
            configuration: Configuration { regressions: config.regressions, ..Configuration::plain(vendor) },
            filter: Filter::off(),
            exit_mask: ExitMask::default(),
            hypercall_exits: 0,
            kicked: Vec::new(),
            coalesced: Coalesced::default(),
            irqchip: Irqchip::new(executor.tasks()),
            io_events: IoEvents::default(),
            statistics: Vec::new(),
            wall_clock: 0,
            bootstrap: 0,
            containment: Containment::default(),
            kernel: config.kernel,
        };
        let mmu = executor.tasks().new_lock();
        let guest = Arc::new(guest_model(&config.host));
        Ok(Self {
            shared: Shared { machine: Arc::new(Mutex::new(machine)), rooms: Arc::new(Mutex::new(rooms)) },
            executor,
            mmu,
            vcpus: Vec::new(),
            ids: Vec::new(),
            frames: Vec::new(),
            host: config.host,
            guest,
        })
    }

    /// The host's processors.
    pub fn host(&self) -> &Arc<Model> {
        &self.host
    }

    /// Shows everything that the processors do to `observer` from now on, with the levels of guests and guests' guests.
    pub fn set_observer(&mut self, observer: Box<dyn Observer + Send>) {
        lock(&self.shared.machine).set_observer(observer);
    }

    /// `KVM_CREATE_VCPU`: how the vCPU with this ID is called from now on, counted from 0.
    ///
    /// # Errors
    /// [`Errno::Einval`] for an ID that is too large, [`Errno::Eexist`] if it is taken.
    pub fn create_vcpu(&mut self, id: u32) -> Result<usize, Failure> {
        self.alive(EntryPoint::Native)?;
        if id >= MOST_VCPUS {
            return Err(Errno::Einval.into());
        }
        if self.ids.contains(&id) {
            return Err(Errno::Eexist.into());
        }
        let processor = self.ids.len() as u8;
        let vendor = self.host.vendor();
        let extension: Box<dyn Virtualization> = match vendor {
            Vendor::Intel => Box::new(Vmx::new(&self.host, Level::L0)),
            Vendor::Amd => {
                let (features, width) = (*self.host.features(), self.host.physical_width());
                Box::new(Svm::new(Processor::new("host", features, width), Level::L0))
            }
        };
        let mut cpu = Cpu::new(processor, self.host.clone());
        // The host's kernel listens to its local APIC.
        let clock = cpu.clock();
        cpu.apic.write(register::SVR, 4, 0x1ff, clock);
        let start = Start::from(&cpu);
        let held = {
            let mut machine = lock(&self.shared.machine);
            machine.board.add_processor(cpu, Some(extension));
            machine.frames.held().clone()
        };
        let mut back = {
            let rooms = self.shared.rooms();
            backend(
                self.shared.machine.clone(),
                processor,
                self.executor.tasks(),
                self.mmu.clone(),
                &start,
                rooms.configuration,
                rooms.filter.clone(),
            )?
        };
        back.set_model(self.guest.clone())?;
        let bootstrap = self.shared.with(processor, |machine, rooms| {
            machine.idle();
            rooms.kicked.push(false);
            rooms.statistics.push(Statistics::default());
            machine.memory.add_vcpu();
            let bootstrap = rooms.bootstrap == id;
            rooms.irqchip.add_vcpu(id, bootstrap, &self.guest);
            rooms.containment.add(&self.executor.tasks());
            self.frames.push(machine.frames.held().difference(&held).copied().map(HostPhysical).collect());
            bootstrap
        });
        let waits = !bootstrap && self.shared.rooms().irqchip.in_kernel();
        let vcpu = Vcpu::new(back, (id, processor), (bootstrap, waits), self.guest.clone())?;
        self.vcpus.push(Place::Home(Box::new(vcpu)));
        self.ids.push(id);
        Ok(usize::from(processor))
    }

    /// The vCPU, if it is not in `KVM_RUN` and the VM is not dead.
    fn vcpu(&mut self, vcpu: usize) -> Result<(&mut Vcpu, &Shared), Failure> {
        self.alive(EntryPoint::Native)?;
        self.mapping(vcpu)
    }

    /// The same of a dead VM: what the client has mapped of a vCPU stays.
    fn mapping(&mut self, vcpu: usize) -> Result<(&mut Vcpu, &Shared), Failure> {
        match self.vcpus.get_mut(vcpu) {
            Some(Place::Home(vcpu)) => Ok((vcpu, &self.shared)),
            Some(Place::Running(_)) => Err(Errno::Ebusy.into()),
            None => Err(Errno::Einval.into()),
        }
    }

    /// What `struct kvm_run` shows; the client answers in it before the next `KVM_RUN`.
    ///
    /// # Errors
    /// [`Errno::Ebusy`] while the vCPU is in `KVM_RUN`.
    pub fn exit(&mut self, vcpu: usize) -> Result<&mut ClientExit, Failure> {
        Ok(&mut self.mapping(vcpu)?.0.exit)
    }

    /// `kvm_run.request_interrupt_window` and `kvm_run.immediate_exit`.
    ///
    /// # Errors
    /// [`Errno::Ebusy`] while the vCPU is in `KVM_RUN`.
    pub fn request(
        &mut self,
        vcpu: usize,
        interrupt_window: bool,
        immediate_exit: bool,
    ) -> Result<(), Failure> {
        let vcpu = self.mapping(vcpu)?.0;
        (vcpu.request_interrupt_window, vcpu.immediate_exit) = (interrupt_window, immediate_exit);
        Ok(())
    }

    /// Begins `KVM_RUN`.
    ///
    /// # Errors
    /// [`Errno::Ebusy`] if it has begun already, [`Errno::Eio`] if the VM is bugged.
    pub fn start(&mut self, vcpu: usize) -> Result<(), Failure> {
        self.vcpu(vcpu)?;
        let over = Arc::new(Mutex::new(None));
        let place = &mut self.vcpus[vcpu];
        let Place::Home(mut inner) = std::mem::replace(place, Place::Running(over.clone())) else {
            return Err(Errno::Ebusy.into());
        };
        let (shared, tasks) = (self.shared.clone(), self.executor.tasks());
        self.executor.spawn(async move {
            let result = inner.run(&shared, &tasks).await;
            *over.lock().expect("nobody panics while he holds a result") = Some((inner, result));
        });
        Ok(())
    }

    /// Whether the vCPU is in `KVM_RUN`.
    pub fn is_running(&self, vcpu: usize) -> bool {
        matches!(self.vcpus.get(vcpu), Some(Place::Running(_)))
    }

    /// Lets at most `budget` ticks pass, or fewer if `vcpu` comes back to its client first. Every vCPU that is in
    /// `KVM_RUN` runs meanwhile.
    ///
    /// # Errors
    /// [`Errno::Einval`] if the vCPU is not in `KVM_RUN`.
    pub fn advance(&mut self, vcpu: usize, budget: u64) -> Result<Progress, Failure> {
        if !self.is_running(vcpu) {
            return Err(Errno::Einval.into());
        }
        let limit = {
            let machine = lock(&self.shared.machine);
            // Inside a slice, the board's time is the slice's beginning, and processors are ahead of it.
            let ticks = machine.board.processors().iter().map(|processor| processor.cpu.tick);
            ticks.fold(machine.board.now(), u64::max).saturating_add(budget)
        };
        self.poll_events();
        loop {
            return Ok(match self.go(limit, vcpu..vcpu + 1)? {
                Passed::Out(_, result) => result.map_or_else(Progress::Failed, |()| Progress::Exit),
                Passed::Alarm => continue,
                Passed::Limit => Progress::Budget,
                Passed::Idle => Progress::Idle,
            });
        }
    }

    /// Lets time pass until machine time reaches `limit`, a vCPU comes back to its client, or the client's alarm goes. Every
    /// vCPU that is in `KVM_RUN` runs meanwhile.
    ///
    /// # Errors
    /// [`Failure`] of L0's own.
    pub fn pass(&mut self, limit: u64) -> Result<Passed, Failure> {
        self.go(limit, 0..self.vcpus.len())
    }

    /// [`Vm::pass`] ends at `tick` at the latest: a timer of the client's. It may end earlier, for a time that was said
    /// before.
    pub fn set_alarm(&mut self, tick: u64) {
        self.shared.with(0, |machine, rooms| rooms.irqchip.set_alarm(machine, tick));
    }

    /// Lets time pass until `limit`, until one of these vCPUs comes back, or the alarm goes.
    fn go(&mut self, limit: u64, vcpus: Range<usize>) -> Result<Passed, Failure> {
        let mut lags = false;
        loop {
            if !lags {
                self.run_tasks()?;
                for vcpu in vcpus.clone() {
                    if let Some(result) = self.collect(vcpu)? {
                        return Ok(Passed::Out(vcpu, result));
                    }
                }
            }
            let stopped = {
                let mut machine = lock(&self.shared.machine);
                let until = if lags { machine.board.now().saturating_add(LAG).min(limit) } else { limit };
                machine.board.run(until)
            };
            match stopped.stop {
                Stop::Gate(number) if number == TIMERS + ALARM => {
                    self.shared.with(0, |machine, rooms| rooms.irqchip.timer(machine, ALARM));
                    return Ok(Passed::Alarm);
                }
                Stop::Gate(number) if number >= TIMERS => {
                    self.shared.with(0, |machine, rooms| rooms.irqchip.timer(machine, number - TIMERS));
                }
                Stop::Gate(number) => {
                    self.executor.tasks().open_gate(number as u8);
                    lags = !lags && self.lags(number as u8);
                }
                _ if lags => lags = false,
                Stop::Idle => return Ok(Passed::Idle),
                _ => return Ok(Passed::Limit),
            }
        }
    }

    /// Looks at the counters that interrupt the guest (`KVM_IRQFD`): the client may have counted one up.
    pub fn poll_events(&mut self) {
        self.shared.with(0, |machine, rooms| rooms.irqchip.poll(machine));
    }

    /// Whether the thread of a vCPU that has just left the guest does not go on at once, so that others leave it too.
    fn lags(&self, processor: u8) -> bool {
        self.vcpus.len() > 1
            && self.shared.with(processor, |machine, _| {
                let lags = machine.board.choose(Site::Task, 2) == 1;
                if lags {
                    machine.idle();
                }
                lags
            })
    }

    /// `KVM_RUN` as a whole. A vCPU that nothing can wake returns as if a signal had come.
    ///
    /// # Errors
    /// What it returns.
    pub fn run(&mut self, vcpu: usize) -> Result<&mut ClientExit, Failure> {
        self.start(vcpu)?;
        loop {
            match self.advance(vcpu, 1 << 20)? {
                Progress::Exit => return self.exit(vcpu),
                Progress::Failed(failure) => return Err(failure),
                Progress::Budget => {}
                Progress::Idle => self.kick(vcpu)?,
            }
        }
    }

    /// Makes a vCPU that is in `KVM_RUN` return to its client, as a signal does.
    ///
    /// # Errors
    /// [`Errno::Einval`] if there is no such vCPU.
    pub fn kick(&mut self, vcpu: usize) -> Result<(), Failure> {
        if vcpu >= self.vcpus.len() {
            return Err(Errno::Einval.into());
        }
        if self.is_running(vcpu) {
            self.shared.with(vcpu as u8, |machine, rooms| {
                rooms.kicked[vcpu] = true;
                rooms.irqchip.nudge(machine, vcpu);
            });
        }
        Ok(())
    }

    /// Lets L0's tasks run until all of them wait for processors.
    fn run_tasks(&mut self) -> Result<(), Failure> {
        let mut choices = Drawer { machine: self.shared.machine.clone() };
        for _ in 0..STEPS_WITHOUT_GUEST {
            match self.executor.step(&mut choices) {
                Step::Blocked | Step::Finished => return Ok(()),
                Step::Waits(..) | Step::Ended(_) => {}
            }
        }
        Err(Errno::Eio.into())
    }

    /// Takes a vCPU home whose `KVM_RUN` is over.
    fn collect(&mut self, vcpu: usize) -> Result<Option<Result<(), Failure>>, Failure> {
        let place = &mut self.vcpus[vcpu];
        let Place::Running(over) = place else { return Ok(None) };
        let done = over.lock().expect("nobody panics while he holds a result").take();
        let Some((inner, result)) = done else { return Ok(None) };
        let processor = inner.processor;
        *place = Place::Home(inner);
        let result = result.map_err(|failure| self.note(failure));
        // The client may look at its memory now.
        self.shared.memory(processor, |memory, below| memory.copy_out(below))?;
        Ok(Some(result))
    }
}

/// Draws from the board's choices, between the tasks' steps.
struct Drawer {
    machine: Arc<Mutex<Machine>>,
}

impl Choices for Drawer {
    fn choose(&mut self, site: Site, n: u64) -> u64 {
        lock(&self.machine).board.choose(site, n)
    }
}
