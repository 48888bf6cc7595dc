//! A VM that L0 finds broken gets no service any more; the host and all other VMs go on.
//!
//! An [`Invariant`] that does not hold makes L0 warn, once a place, and mark the VM bugged, which makes it dead. Every vCPU
//! is asked to give up, those in the guest are interrupted, and whoever marks waits until they have left it. From then on
//! every call answers -EIO before it looks at anything.

use std::sync::{Arc, Mutex, MutexGuard};

use rootmode_cpu::Message;

use super::vcpu::Vcpu;
use super::{Failure, Shared, Vm};
use crate::kvm::host::{Flag, HostBug, Machine, Point, Tasks, lock};
use crate::kvm::trace::Tracepoint;
use crate::kvm::{Errno, Regression, Regressions};

/// What L0 takes for granted, and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// A lazily cached register is one that exists.
    KnownRegister,
    /// A guest that owns CR0.TS does not exit for it.
    TsIsTheGuests,
    /// NMI windows exit only with virtual NMIs.
    VirtualNmis,
    /// No nested entry is pending when an exit is handled.
    NoNestedRunPending,
    /// Posted requests are moved only while APICv is active.
    ApicvActive,
    /// An exit for an external interrupt says that it was one.
    InterruptIsExternal,
    /// A page fault has a verdict.
    FaultHasVerdict,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::KnownRegister,
        Self::TsIsTheGuests,
        Self::VirtualNmis,
        Self::NoNestedRunPending,
        Self::ApicvActive,
        Self::InterruptIsExternal,
        Self::FaultHasVerdict,
    ];
}

/// What the VMs of a host have in common.
#[derive(Clone, Debug, Default)]
pub struct HostKernel(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    warnings: Vec<Invariant>,
    refuses_all: bool,
}

impl HostKernel {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().expect("nobody panics while he holds the log")
    }

    /// What it printed, in order.
    pub fn warnings(&self) -> Vec<Invariant> {
        self.log().warnings.clone()
    }

    /// Whether the warning is the first from its place, and is printed.
    fn warn(&self, about: Invariant) -> bool {
        let mut log = self.log();
        let first = !log.warnings.contains(&about);
        if first {
            log.warnings.push(about);
        }
        first
    }
}

/// What a VM knows of its own state of health.
#[derive(Debug, Default)]
pub(super) struct Containment {
    bugged: bool,
    dead: bool,
    vcpus: Vec<Health>,
}

/// The same of a vCPU.
#[derive(Debug)]
struct Health {
    /// KVM_REQ_VM_DEAD.
    requested: bool,
    /// It is not in the guest.
    outside: Flag,
    in_guest: bool,
    /// What L0 will find at the next exit.
    broken: Option<(Invariant, u64)>,
}

impl Containment {
    /// A vCPU was created.
    pub(super) fn add(&mut self, tasks: &Tasks) {
        let outside = tasks.new_flag();
        outside.set(true);
        self.vcpus.push(Health { requested: self.dead, outside, in_guest: false, broken: None });
    }

    fn set_in_guest(&mut self, vcpu: usize, inside: bool) {
        let health = &mut self.vcpus[vcpu];
        health.in_guest = inside;
        health.outside.set(!inside);
    }

    /// The VM is found broken, and gets no service from now on. The flags of vCPUs that are in the guest still.
    fn mark(&mut self, machine: &mut Machine, bugs: Regressions) -> Vec<Flag> {
        self.bugged = true;
        if !bugs.has(Regression::OnlyOneCallFails) && !bugs.has(Regression::BuggedButNotDead) {
            self.dead = true;
        }
        if bugs.has(Regression::OthersNotKicked) {
            return Vec::new();
        }
        self.request(machine)
    }

    /// Asks all vCPUs to give up, and interrupts those in the guest.
    fn request(&mut self, machine: &mut Machine) -> Vec<Flag> {
        let marker = machine.current;
        let mut inside = Vec::new();
        for (number, health) in self.vcpus.iter_mut().enumerate() {
            health.requested = true;
            if health.in_guest {
                machine.current = number as u8;
                machine.cpu_mut().post(Message::ExtInt);
                inside.push(health.outside.clone());
            }
        }
        machine.current = marker;
        inside
    }
}

impl Vcpu {
    /// Whether KVM_RUN ends because the VM is dead. `Ok(true)`: without an error. Asked before an entry, and once more
    /// after an exit.
    pub(super) fn gives_up(&self, shared: &Shared, after_exit: bool) -> Result<bool, Failure> {
        let (requested, bugs) = shared.with(self.processor, |_, rooms| {
            let bugs = rooms.configuration.regressions;
            let health = &mut rooms.containment.vcpus[usize::from(self.processor)];
            let asked = after_exit == bugs.has(Regression::RequestTestedAfterExit);
            (asked && std::mem::take(&mut health.requested), bugs)
        });
        if !requested {
            return Ok(false);
        }
        if bugs.has(Regression::DeadRunReturnsZero) { Ok(true) } else { Err(Errno::Eio.into()) }
    }

    /// The last look before the entry: false, and the vCPU counts as in the guest, unless it must give up first.
    pub(super) fn must_stay(&self, shared: &Shared) -> bool {
        let number = usize::from(self.processor);
        shared.with(self.processor, |_, rooms| {
            let late = rooms.configuration.regressions.has(Regression::RequestTestedAfterExit);
            let stays = rooms.containment.vcpus[number].requested && !late;
            rooms.containment.set_in_guest(number, !stays);
            stays
        })
    }

    /// The vCPU has left the guest.
    pub(super) fn is_out(&self, shared: &Shared) {
        shared.with(self.processor, |_, rooms| {
            rooms.containment.set_in_guest(usize::from(self.processor), false);
        });
    }

    /// Tests what L0 takes for granted after an exit.
    pub(super) async fn check_invariants(&mut self, shared: &Shared, tasks: &Tasks) -> Result<(), Failure> {
        let number = usize::from(self.processor);
        let found = shared.with(self.processor, |_, rooms| rooms.containment.vcpus[number].broken.take());
        match found {
            Some((invariant, condition)) => self.bug_on(invariant, condition, shared, tasks).await,
            None => Ok(()),
        }
    }

    /// Marks the VM if `condition` is not 0, and waits until nobody runs its code any more.
    async fn bug_on(
        &mut self,
        invariant: Invariant,
        condition: u64,
        shared: &Shared,
        tasks: &Tasks,
    ) -> Result<(), Failure> {
        let bugs = shared.rooms().configuration.regressions;
        // The result is an int in the kernel's macro.
        let condition =
            if bugs.has(Regression::ConditionTruncated) { u64::from(condition as u32) } else { condition };
        if condition == 0 {
            return Ok(());
        }
        let first = shared.rooms().kernel.warn(invariant);
        if bugs.has(Regression::WarnsAndContinues) {
            return Ok(());
        }
        if first || !bugs.has(Regression::MarkedWithWarning) {
            self.mark(shared, tasks, bugs).await;
        }
        Err(Errno::Eio.into())
    }

    async fn mark(&mut self, shared: &Shared, tasks: &Tasks, bugs: Regressions) {
        if bugs.has(Regression::DeadIsGlobal) {
            shared.rooms().kernel.log().refuses_all = true;
        }
        let inside = shared.with(self.processor, |machine, rooms| rooms.containment.mark(machine, bugs));
        tasks.point(Point::Marked).await;
        if bugs.has(Regression::MarkerDoesNotWait) {
            return;
        }
        for outside in inside {
            outside.up().await;
        }
    }
}

/// Where a call comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryPoint {
    /// A descriptor of a VM or of a vCPU.
    Native,
    /// The same, of a 32-bit client.
    Compat,
    /// A descriptor of a device.
    Device,
}

/// What is left of a VM after its last descriptor was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Page frames of L0's that nobody will ever free.
    pub frames: usize,
}

impl Vm {
    /// Whether an internal error was found.
    pub fn is_bugged(&self) -> bool {
        self.shared.rooms().containment.bugged
    }

    /// Whether it gets no service any more.
    pub fn is_dead(&self) -> bool {
        let rooms = self.shared.rooms();
        rooms.containment.dead || rooms.kernel.log().refuses_all
    }

    /// Lets L0's tracepoints record from now on, or no longer; what they recorded until now.
    pub fn set_tracing(&mut self, on: bool) -> Vec<Tracepoint> {
        std::mem::replace(&mut lock(&self.shared.machine).trace, on.then(Vec::new)).unwrap_or_default()
    }

    /// Whether the vCPU is executing the guest's code.
    pub fn is_in_guest(&self, vcpu: usize) -> bool {
        self.shared.rooms().containment.vcpus.get(vcpu).is_some_and(|health| health.in_guest)
    }

    /// The test at the top of every ioctl, before its argument is looked at.
    ///
    /// # Errors
    /// [`Errno::Eio`] if the VM is dead.
    pub fn alive(&self, entry: EntryPoint) -> Result<(), Errno> {
        let covered = entry == EntryPoint::Native
            || !self.shared.rooms().configuration.regressions.has(Regression::DeviceAndCompatNotRefused);
        if covered && self.is_dead() { Err(Errno::Eio) } else { Ok(()) }
    }

    /// The VM's state has moved to another host: it is dead, though nothing is wrong with it.
    pub fn retire(&mut self) {
        self.shared.with(0, |machine, rooms| {
            let bugs = rooms.configuration.regressions;
            rooms.containment.bugged |= bugs.has(Regression::DeadCountsAsBugged);
            rooms.containment.dead = true;
            rooms.containment.request(machine);
        });
    }

    /// At its next exit, L0 will find `condition` on this vCPU where `invariant` says 0.
    pub fn break_invariant(&mut self, vcpu: usize, invariant: Invariant, condition: u64) {
        if let Some(health) = self.shared.rooms().containment.vcpus.get_mut(vcpu) {
            health.broken = Some((invariant, condition));
        }
    }

    /// L0 found that it did something wrong: the same as a broken invariant.
    pub(super) fn note(&mut self, failure: Failure) -> Failure {
        if let Failure::Bug(_) = failure {
            self.shared
                .with(0, |machine, rooms| rooms.containment.mark(machine, rooms.configuration.regressions));
        }
        failure
    }

    /// The last descriptor was closed. vCPUs that are in `KVM_RUN` do not exist any more then.
    ///
    /// # Errors
    /// [`HostBug`] if L0 cannot take itself apart.
    pub fn close(mut self) -> Result<Remains, HostBug> {
        let refused = self.is_dead()
            && self.shared.rooms().configuration.regressions.has(Regression::DeadVmNotDestroyed);
        for (place, frames) in self.vcpus.iter_mut().zip(&self.frames) {
            let super::Place::Home(vcpu) = place else { continue };
            if refused {
                continue;
            }
            vcpu.backend.release()?;
            let mut machine = lock(&self.shared.machine);
            for frame in frames {
                machine.frames.give_back(*frame);
            }
        }
        let emulator = self.shared.rooms().emulator.take();
        let mut machine = lock(&self.shared.machine);
        let Machine { board, frames, tables01, .. } = &mut *machine;
        if let Some(emulator) = emulator {
            emulator.release(frames);
        }
        tables01.clear(&mut board.memory, frames);
        frames.give_back(tables01.root());
        Ok(Remains { frames: frames.held().len() })
    }
}
