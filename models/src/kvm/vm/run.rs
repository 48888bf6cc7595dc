//! `KVM_RUN`: completes what the client was asked for, then enters the guest until the client is needed again.
//!
//! It is an `async fn` that can be preempted at L0's points; between two calls nothing of it is left but the [`Vcpu`].

use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{Cr0, Cr4, Gpr, GuestPhysical, Linear, RFlags, vector};
use rootmode_cpu::apic::Mode;
use rootmode_cpu::model::CpuidInputs;
use rootmode_cpu::{DeliveryKind, Instruction};

use super::apic::Attention;
use super::emulate::{Device, Emulated, outside};
use super::events::exception;
use super::exit::{ClientExit, ERROR_DELIVERY, ERROR_UNEXPECTED};
use super::guard::{Need, Sent};
use super::nesting::Before;
use super::vcpu::{RunState, Vcpu};
use super::{Failure, Shared, Statistic};
use crate::kvm::Errno;
use crate::kvm::abi::Translation;
use crate::kvm::filter::{self, MsrExit, Outcome, Path, Resumed};
use crate::kvm::host::{Arrival, Cause, Entry, Exit, Injection, Point, Shadowed, Tasks, Touched, Wait};
use crate::kvm::interception::Access;
use crate::kvm::slots::Touch;

/// What the next `KVM_RUN` completes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Pending {
    /// Nothing.
    #[default]
    None,
    /// IN.
    PortIn {
        /// Bytes.
        size: u8,
    },
    /// OUT at this RIP.
    PortOut {
        /// Where.
        rip: u64,
    },
    /// An instruction that waits for an answer.
    Emulation(Waiting),
    /// Writes of a completed instruction that the client has not seen yet.
    Sends(Vec<Sent>),
    /// RDMSR or WRMSR.
    Msr(MsrExit),
    /// A hypercall.
    Hypercall,
}

/// An emulated instruction, up to what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    devices: Vec<Device>,
    answers: Vec<u64>,
    need: Need,
}

/// Whether the guest goes on or the client is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Guest,
    Client,
}

/// Attempts at one instruction: every page and every answer costs one.
const ATTEMPTS: u32 = 64;
/// Bytes of a page for port data.
const PORT_DATA: u64 = 4096;

impl Vcpu {
    /// Runs until the client is needed: [`Vcpu::exit`] then says why.
    pub(super) async fn run(&mut self, shared: &Shared, tasks: &Tasks) -> Result<(), Failure> {
        self.is_scheduled();
        let result = self.run_until_asked(shared, tasks).await;
        self.is_descheduled(shared);
        result
    }

    async fn run_until_asked(&mut self, shared: &Shared, tasks: &Tasks) -> Result<(), Failure> {
        if self.run_state == RunState::Uninitialized {
            return self.wait_for_init(shared, tasks).await;
        }
        self.stepped = false;
        if self.complete(shared, tasks).await? == Flow::Client || self.has_stepped()? {
            return Ok(());
        }
        if self.immediate_exit {
            return Err(Errno::Eintr.into());
        }
        loop {
            tasks.point(Point::Reschedule).await;
            if self.gives_up(shared, false)? {
                return Ok(());
            }
            let processor = usize::from(self.processor);
            if shared.with(self.processor, |_, rooms| std::mem::take(&mut rooms.kicked[processor])) {
                shared.count(self.processor, Statistic::SignalExits);
                self.exit = ClientExit::Intr;
                return Err(Errno::Eintr.into());
            }
            if self.request_interrupt_window && self.events.interrupt.is_none() && self.backend.accepts()?.0 {
                self.exit = ClientExit::IrqWindowOpen;
                return Ok(());
            }
            match self.attend(shared)? {
                Attention::Runs => {}
                Attention::Asks => return Ok(()),
                Attention::Sleeps => {
                    self.sleep(shared, tasks).await;
                    continue;
                }
            }
            match self.take_to_l1(shared, tasks).await? {
                Before::Enters => {}
                Before::Looks => continue,
                Before::Asks => return Ok(()),
            }
            self.record_steal_time(shared);
            let entry = self.entry(shared)?;
            self.offer_eoi(shared);
            shared.rooms().irqchip.set_inside(processor, true);
            if std::mem::take(&mut self.hurries) {
                shared.with(self.processor, |machine, rooms| rooms.irqchip.nudge(machine, processor));
            }
            tasks.point(Point::BeforeEntry).await;
            if self.must_stay(shared) {
                shared.rooms().irqchip.set_inside(processor, false);
                self.settle_eoi(shared);
                self.events.injected = entry.injection;
                continue;
            }
            self.backend.enter(&entry)?;
            tasks.wait(Wait::Gate(self.processor)).await;
            shared.rooms().irqchip.set_inside(processor, false);
            self.settle_eoi(shared);
            self.is_out(shared);
            if self.gives_up(shared, true)? {
                return Ok(());
            }
            let exit = self.backend.leave()?;
            tasks.point(Point::AfterExit).await;
            self.check_invariants(shared, tasks).await?;
            if self.handle(&exit, shared, tasks).await? == Flow::Client || self.has_stepped()? {
                return Ok(());
            }
        }
    }

    /// `KVM_RUN` of a vCPU that waits for INIT: it returns when that has come, and has to be called again.
    async fn wait_for_init(&mut self, shared: &Shared, tasks: &Tasks) -> Result<(), Failure> {
        if self.immediate_exit {
            return Err(Errno::Eintr.into());
        }
        let number = usize::from(self.processor);
        loop {
            if std::mem::take(&mut shared.rooms().kicked[number]) {
                self.exit = ClientExit::Intr;
                return Err(Errno::Eintr.into());
            }
            self.take_inputs(shared)?;
            if self.run_state != RunState::Uninitialized {
                return Err(Errno::Eagain.into());
            }
            self.sleep(shared, tasks).await;
        }
    }

    fn entry(&mut self, shared: &Shared) -> Result<Entry, Failure> {
        let mut accepts = self.backend.accepts()?;
        accepts.0 &= !self.debugger.blocks_interrupts();
        // What L1 lets an entry inject comes before everything else.
        let pending = self.backend.entry_pending();
        if !pending && self.events.raises_fault() {
            self.backend.raises_fault()?;
        }
        let mut injection = if pending { None } else { self.events.take(accepts) };
        if injection.is_none() && accepts.0 && !pending {
            injection = self.acknowledge(shared);
        }
        let generation = shared.memory(self.processor, |memory, _| memory.generation);
        let flush = generation != self.generation;
        self.count_entry(injection, flush, shared);
        self.generation = generation;
        Ok(Entry {
            injection,
            interrupt_window: !self.debugger.blocks_interrupts() && self.has_interrupt(shared)
                || self.request_interrupt_window,
            nmi_window: self.events.nmi,
            flush,
            debug: self.debugger.asks(),
        })
    }

    async fn handle(&mut self, exit: &Exit, shared: &Shared, tasks: &Tasks) -> Result<Flow, Failure> {
        // An event whose delivery was interrupted is delivered again, whatever comes of the exit.
        self.events.injected = exit.interrupted;
        count_exit(exit.cause, self.processor, shared);
        match exit.cause {
            Cause::SecondStage(touched) => {
                tasks.point(Point::GuestMemory).await;
                if self.fault_in(shared, touched)? == Touch::Mapped {
                    shared.count(self.processor, Statistic::PfFixed);
                    return Ok(Flow::Guest);
                }
                if exit.interrupted.is_some() {
                    let data = vec![u64::from(touched.write), touched.address.0];
                    return Ok(self.ask(ClientExit::InternalError { suberror: ERROR_DELIVERY, data }));
                }
                let devices = vec![Device::own(touched.address)];
                return self.emulate(devices, Vec::new(), shared, tasks).await;
            }
            Cause::WriteCr | Cause::Port { string: true, .. } => {
                return self.emulate(Vec::new(), Vec::new(), shared, tasks).await;
            }
            Cause::Port { port, size, input, .. } => return self.port(port, size, input, shared),
            Cause::Rdmsr => return self.msr(Access::Read, shared),
            Cause::Wrmsr => return self.msr(Access::Write, shared),
            Cause::Hypercall => return self.hypercall(shared),
            Cause::Cpuid => self.emulate_cpuid(shared)?,
            Cause::Hlt => {
                self.skip()?;
                if !self.has_apic(shared) {
                    return Ok(self.ask(ClientExit::Hlt));
                }
                if !self.backend.halts()? {
                    self.run_state = RunState::Halted;
                }
            }
            Cause::Nested => {
                let nested = self.backend.nest().await?;
                return self.settle(nested, exit.interrupted, shared, tasks).await;
            }
            Cause::Shutdown => return Ok(self.ask(ClientExit::Shutdown)),
            Cause::HostInterrupt | Cause::HostNmi | Cause::InterruptWindow | Cause::NmiWindow => {}
            Cause::WriteCr8 { value } => {
                if value > 15 {
                    self.events.exception = Some(exception(vector::GP, Some(0)));
                    return Ok(Flow::Guest);
                }
                let lowered = value < self.cr8;
                self.set_cr8(shared, value);
                self.skip()?;
                if lowered && !self.has_apic(shared) {
                    return Ok(self.ask(ClientExit::SetTpr));
                }
            }
            Cause::ReadCr8 { gpr } => {
                self.backend.set_gpr(gpr, self.cr8(shared))?;
                self.skip()?;
            }
            Cause::Xsetbv => {
                let [rax, rcx, rdx] = self.gprs([Gpr::Rax, Gpr::Rcx, Gpr::Rdx])?;
                let (index, value) = (rcx as u32, rax & 0xffff_ffff | rdx << 32);
                let privileged = self.backend.save()?.cpl == 0;
                let xsetbv = Instruction::Xsetbv { index, value };
                let done =
                    privileged && shared.with(self.processor, |machine, _| machine.execute(xsetbv).is_ok());
                if done {
                    self.skip()?;
                } else {
                    self.events.exception = Some(exception(vector::GP, Some(0)));
                }
            }
            Cause::CacheFlush | Cause::Idle => self.skip()?,
            Cause::Undefined => self.events.exception = Some(exception(vector::UD, None)),
            Cause::Debug { causes } => {
                let exit = self.debug_exit(vector::DB, causes)?;
                return Ok(self.ask(exit));
            }
            Cause::Exception { vector: vector::BP, .. } => {
                let exit = self.debug_exit(vector::BP, 0)?;
                return Ok(self.ask(exit));
            }
            Cause::ReadDr { dr, gpr } => {
                if let Some(value) = self.move_dr(shared, dr, None)? {
                    self.backend.set_gpr(gpr, value)?;
                    self.skip()?;
                }
            }
            Cause::WriteDr { dr, value } => {
                if self.move_dr(shared, dr, Some(value))?.is_some() {
                    self.skip()?;
                }
            }
            Cause::Exception { vector, code } => self.events.exception = Some(exception(vector, code)),
            Cause::Refused { reason } => {
                let cpu = self.processor.into();
                return Ok(self.ask(ClientExit::FailEntry { reason, cpu }));
            }
            Cause::Unmodelled { reason } => {
                let data = vec![reason, self.processor.into()];
                return Ok(self.ask(ClientExit::InternalError { suberror: ERROR_UNEXPECTED, data }));
            }
        }
        Ok(Flow::Guest)
    }

    fn count_entry(&self, injection: Option<Injection>, flush: bool, shared: &Shared) {
        let mut rooms = shared.rooms();
        let statistics = &mut rooms.statistics[usize::from(self.processor)];
        if flush {
            statistics.count(Statistic::TlbFlush);
        }
        if self.backend.entry_pending() {
            statistics.count(Statistic::NestedRun);
        }
        match injection.map(|event| event.kind) {
            Some(DeliveryKind::External) => statistics.count(Statistic::IrqInjections),
            Some(DeliveryKind::Nmi) => statistics.count(Statistic::NmiInjections),
            _ => {}
        }
    }

    pub(super) fn ask(&mut self, exit: ClientExit) -> Flow {
        self.exit = exit;
        Flow::Client
    }

    pub(super) fn gprs<const N: usize>(&self, gprs: [Gpr; N]) -> Result<[u64; N], Failure> {
        let mut values = [0; N];
        for (value, gpr) in values.iter_mut().zip(gprs) {
            *value = self.backend.gpr(gpr)?;
        }
        Ok(values)
    }

    fn fault_in(&self, shared: &Shared, touched: Touched) -> Result<Touch, Failure> {
        let Touched { address, write } = touched;
        shared.memory(self.processor, |memory, below| memory.fault_in(below, address, write))
    }

    /// CPUID, whose leaves 1 and 0xD follow the registers (Linux 6.12, `kvm_update_cpuid_runtime`).
    fn emulate_cpuid(&mut self, shared: &Shared) -> Result<(), Failure> {
        let [rax, rcx] = self.gprs([Gpr::Rax, Gpr::Rcx])?;
        let cr4 = Cr4(self.backend.save()?.cr4);
        let apic = Mode::of(self.apic_base) != Some(Mode::Disabled);
        let physical = shared.with(self.processor, |machine, _| machine.cpu().cpuid_inputs());
        let inputs = CpuidInputs { cr4, apic, index: self.id as u8, ..physical };
        let values = self.model.cpuid_with(rax as u32, rcx as u32, &inputs);
        for (gpr, value) in [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx].into_iter().zip(values) {
            self.backend.set_gpr(gpr, value.into())?;
        }
        Ok(self.skip()?)
    }

    fn port(&mut self, port: u16, size: u8, input: bool, shared: &Shared) -> Result<Flow, Failure> {
        if input {
            if let Some(value) = self.chip_read(Need::Port { port, size }, shared) {
                self.finish_in(size, value)?;
                return Ok(Flow::Guest);
            }
            self.pending = Pending::PortIn { size };
            let data = vec![0; size.into()];
            return Ok(self.ask(ClientExit::Io { input, port, size, data }));
        }
        let value = self.backend.gpr(Gpr::Rax)? as u32;
        if self.takes(&Sent::Port { port, size, value }, shared) {
            self.skip()?;
            return Ok(Flow::Guest);
        }
        self.pending = Pending::PortOut { rip: self.backend.save()?.rip };
        let data = value.to_le_bytes()[..usize::from(size)].to_vec();
        Ok(self.ask(ClientExit::Io { input, port, size, data }))
    }

    /// Completes IN.
    fn finish_in(&mut self, size: u8, value: u64) -> Result<(), Failure> {
        let rax = self.backend.gpr(Gpr::Rax)?;
        let rax = match size {
            1 => rax & !0xff | value & 0xff,
            2 => rax & !0xffff | value & 0xffff,
            _ => value & 0xffff_ffff,
        };
        self.backend.set_gpr(Gpr::Rax, rax)?;
        Ok(self.skip()?)
    }

    fn msr(&mut self, access: Access, shared: &Shared) -> Result<Flow, Failure> {
        let [rax, rcx, rdx] = self.gprs([Gpr::Rax, Gpr::Rcx, Gpr::Rdx])?;
        let (index, value) = (rcx as u32, rax & 0xffff_ffff | rdx << 32);
        let (filter, mask, bugs) = shared.with(self.processor, |_, rooms| {
            (rooms.filter.clone(), rooms.exit_mask, rooms.configuration.regressions)
        });
        let outcome = self.guest_msrs(shared, |file| {
            filter::handle(access, index, value, Path::Normal, &filter, mask, false, file, bugs)
        })?;
        match outcome {
            Outcome::Done(value) => self.finish_msr((access == Access::Read).then_some(value))?,
            Outcome::Fault => self.events.exception = Some(exception(vector::GP, Some(0))),
            Outcome::Exit(exit) => {
                self.pending = Pending::Msr(exit);
                let (error, reason, index, data) = (0, exit.reason as u32, exit.index, exit.data);
                return Ok(self.ask(match access {
                    Access::Read => ClientExit::Rdmsr { error, reason, index, data },
                    Access::Write => ClientExit::Wrmsr { error, reason, index, data },
                }));
            }
        }
        Ok(Flow::Guest)
    }

    fn finish_msr(&mut self, read: Option<u64>) -> Result<(), Failure> {
        if let Some(value) = read {
            self.backend.set_gpr(Gpr::Rax, value & 0xffff_ffff)?;
            self.backend.set_gpr(Gpr::Rdx, value >> 32)?;
        }
        Ok(self.skip()?)
    }

    /// Emulates the instruction at RIP. `devices` are pages that it is known to touch and that no slot backs.
    pub(super) async fn emulate(
        &mut self,
        mut devices: Vec<Device>,
        mut answers: Vec<u64>,
        shared: &Shared,
        tasks: &Tasks,
    ) -> Result<Flow, Failure> {
        for _ in 0..ATTEMPTS {
            tasks.point(Point::GuestMemory).await;
            let state = self.backend.save()?;
            let stage = self.backend.second_stage();
            let emulated = shared.with(self.processor, |machine, rooms| {
                rooms.emulator(machine, &self.model)?.attempt(
                    machine,
                    &state,
                    &self.model,
                    stage,
                    &devices,
                    &answers,
                )
            })?;
            match emulated {
                Emulated::Done(done, _) if self.backend.fixes(done.cr0, done.cr4) => {
                    // VMX operation keeps bits of CR0 and CR4 as they are: the instruction was not completed.
                    shared.with(self.processor, |machine, _| machine.cpu_mut().tick -= 1);
                    self.events.exception = Some(exception(vector::GP, Some(0)));
                    return Ok(Flow::Guest);
                }
                Emulated::Done(done, sent) => {
                    shared.count(self.processor, Statistic::InsnEmulation);
                    self.backend.load(&done)?;
                    self.backend.completes();
                    self.stepped = true;
                    if done.rflags & RFlags::TF.0 != 0 {
                        self.trap()?;
                    }
                    let sent = sent.into_iter().map(|sent| match sent {
                        Sent::Mmio { address, size, value } => {
                            Sent::Mmio { address: outside(&devices, address), size, value }
                        }
                        port => port,
                    });
                    return Ok(self.send(sent.collect(), shared));
                }
                Emulated::Page(access) if stage.1 => match self.backend.shadow_page(&access)? {
                    Shadowed::Mapped(_) => {}
                    Shadowed::Device(at) => {
                        let (page, at) = (access.address.page_base(), at.page_base());
                        devices.push(Device { page, at });
                    }
                    Shadowed::Refused(refused) => {
                        let nested = self.backend.refuse(access, refused).await?;
                        return Ok(self.conclude(nested));
                    }
                },
                Emulated::Page(access) => {
                    let touched = Touched { address: access.address, write: access.write };
                    if self.fault_in(shared, touched)? == Touch::Device {
                        devices.push(Device::own(touched.address));
                    }
                }
                Emulated::Needs(need) => {
                    let need = match need {
                        Need::Mmio { address, size } => {
                            Need::Mmio { address: outside(&devices, address), size }
                        }
                        port => port,
                    };
                    if let Some(answer) = self.chip_read(need, shared) {
                        answers.push(answer);
                        continue;
                    }
                    let exit = self.question(need, &state)?;
                    if matches!(exit, ClientExit::Mmio { .. }) {
                        shared.count(self.processor, Statistic::MmioExits);
                    }
                    self.pending = Pending::Emulation(Waiting { devices, answers, need });
                    return Ok(self.ask(exit));
                }
                Emulated::Raised(raised) => {
                    let event = exception(raised.vector, raised.error_code);
                    let arrival = Arrival::Exception(event, raised.detail);
                    self.detail = raised.detail;
                    let l1s = self.backend.in_l2() && self.backend.reaches_l1(arrival)?;
                    if raised.vector == vector::PF && !l1s {
                        let mut state = state;
                        state.cr2 = raised.detail;
                        self.backend.load(&state)?;
                    }
                    self.events.exception = Some(event);
                    return Ok(Flow::Guest);
                }
                Emulated::Failed(bytes, length) => {
                    shared.count(self.processor, Statistic::InsnEmulationFail);
                    return Ok(self.ask(ClientExit::emulation(bytes, length)));
                }
            }
        }
        Ok(self.ask(ClientExit::emulation([0; 15], 0)))
    }

    /// `KVM_TRANSLATE`.
    pub(super) fn translate(&mut self, shared: &Shared, linear: u64) -> Result<Translation, Failure> {
        let found = self.translated(shared, linear)?.filter(|address| address.0 != u64::MAX);
        Ok(Translation {
            linear_address: linear,
            physical_address: found.map_or(u64::MAX, |address| address.0),
            valid: found.is_some().into(),
            writeable: 1,
            ..Translation::default()
        })
    }

    fn translated(&mut self, shared: &Shared, linear: u64) -> Result<Option<GuestPhysical>, Failure> {
        let state = self.backend.save()?;
        let (root, shadowed) = self.backend.second_stage();
        for _ in 0..ATTEMPTS {
            let led = if state.cr0 & Cr0::PG.0 == 0 {
                Ok(GuestPhysical(linear))
            } else {
                shared.with(self.processor, |machine, rooms| {
                    let emulator = rooms.emulator(machine, &self.model)?;
                    let linear = Linear(linear);
                    Ok::<_, Failure>(emulator.translate(machine, &state, &self.model, root, linear))
                })?
            };
            match led {
                Ok(guest) if !shadowed => return Ok(Some(guest)),
                Ok(address) => {
                    let access = GuestPhysicalAccess { address, read: true, ..Default::default() };
                    return Ok(match self.backend.shadow_page(&access)? {
                        Shadowed::Mapped(at) | Shadowed::Device(at) => Some(at),
                        Shadowed::Refused(_) => None,
                    });
                }
                Err(Some(access)) if shadowed => match self.backend.shadow_page(&access)? {
                    Shadowed::Mapped(_) => {}
                    Shadowed::Device(_) | Shadowed::Refused(_) => return Ok(None),
                },
                Err(Some(access)) => {
                    let touched = Touched { address: access.address, write: access.write };
                    if self.fault_in(shared, touched)? != Touch::Mapped {
                        return Ok(None);
                    }
                }
                Err(None) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// How the client is asked for `need`. Repeated INS ask for as many items as fit into the page of their destination.
    fn question(&self, need: Need, state: &crate::kvm::host::State) -> Result<ClientExit, Failure> {
        Ok(match need {
            Need::Mmio { address, size } => {
                ClientExit::Mmio { address: address.0, data: [0; 8], len: size, write: false }
            }
            Need::Port { port, size } => {
                let repeats = self.backend.repeats()?;
                let rdi = state.gpr[Gpr::Rdi as usize];
                let down = state.rflags & RFlags::DF.0 != 0;
                let room = if down { 1 } else { (PORT_DATA - rdi % PORT_DATA) / u64::from(size) };
                let wanted = if repeats { state.gpr[Gpr::Rcx as usize] & 0xffff_ffff } else { 1 };
                let count = wanted.min(room).max(1) as usize;
                ClientExit::Io { input: true, port, size, data: vec![0; count * usize::from(size)] }
            }
        })
    }

    /// Whether a write needs no client now: a chip, a counter or a zone in which writes are collected has it.
    fn takes(&self, sent: &Sent, shared: &Shared) -> bool {
        self.chip_write(sent, shared)
            || shared
                .with(self.processor, |_, rooms| rooms.io_events.takes(sent) || rooms.coalesced.takes(sent))
    }

    /// Shows the client the first write that it has to see.
    fn send(&mut self, sent: Vec<Sent>, shared: &Shared) -> Flow {
        let mut rest = sent.into_iter();
        while let Some(first) = rest.next() {
            if self.takes(&first, shared) {
                continue;
            }
            self.pending = Pending::Sends(rest.collect());
            if matches!(first, Sent::Mmio { .. }) {
                shared.count(self.processor, Statistic::MmioExits);
            }
            return self.ask(match first {
                Sent::Mmio { address, size, value } => {
                    ClientExit::Mmio { address: address.0, data: value.to_le_bytes(), len: size, write: true }
                }
                Sent::Port { port, size, value } => {
                    let data = value.to_le_bytes()[..usize::from(size)].to_vec();
                    ClientExit::Io { input: false, port, size, data }
                }
            });
        }
        Flow::Guest
    }

    /// Completes what the last exit left open, with what the client left in [`Vcpu::exit`].
    async fn complete(&mut self, shared: &Shared, tasks: &Tasks) -> Result<Flow, Failure> {
        let pending = std::mem::take(&mut self.pending);
        let exit = std::mem::take(&mut self.exit);
        match (pending, exit) {
            (Pending::PortIn { size }, ClientExit::Io { data, .. }) => {
                self.finish_in(size, number(&data))?;
            }
            (Pending::PortOut { rip }, _) => self.skip_at(rip)?,
            (Pending::Emulation(waiting), exit) => return self.answer(waiting, exit, shared, tasks).await,
            (Pending::Sends(rest), _) => return Ok(self.send(rest, shared)),
            (
                Pending::Msr(asked),
                ClientExit::Rdmsr { error, data, .. } | ClientExit::Wrmsr { error, data, .. },
            ) => {
                let mut record = asked.record();
                record[0] = error;
                record[16..].copy_from_slice(&data.to_le_bytes());
                match filter::resume(&asked, &record) {
                    Resumed::Advanced(read) => self.finish_msr(read)?,
                    Resumed::Fault => self.events.exception = Some(exception(vector::GP, Some(0))),
                }
            }
            (Pending::Hypercall, ClientExit::Hypercall { ret, flags, .. }) => {
                self.backend.set_gpr(Gpr::Rax, if flags & 1 != 0 { ret } else { ret & 0xffff_ffff })?;
                self.skip()?;
            }
            _ => {}
        }
        Ok(Flow::Guest)
    }

    /// Completes the instruction at `rip`, unless the client has moved the guest elsewhere.
    fn skip_at(&mut self, rip: u64) -> Result<(), Failure> {
        if self.backend.save()?.rip == rip {
            self.skip()?;
        }
        Ok(())
    }

    async fn answer(
        &mut self,
        waiting: Waiting,
        exit: ClientExit,
        shared: &Shared,
        tasks: &Tasks,
    ) -> Result<Flow, Failure> {
        let Waiting { devices, answers, need } = waiting;
        match (need, exit) {
            (Need::Mmio { size, .. }, ClientExit::Mmio { data, .. }) => {
                let mut answers = answers;
                answers.push(number(&data[..usize::from(size).min(8)]));
                self.emulate(devices, answers, shared, tasks).await
            }
            (Need::Port { size, .. }, ClientExit::Io { data, .. }) => {
                for item in data.chunks_exact(size.into()) {
                    let flow = self.emulate(devices.clone(), vec![number(item)], shared, tasks).await?;
                    if flow == Flow::Client || self.events.exception.is_some() {
                        return Ok(flow);
                    }
                }
                Ok(Flow::Guest)
            }
            _ => Ok(Flow::Guest),
        }
    }
}

/// Counts an exit of the guest by its cause.
fn count_exit(cause: Cause, processor: u8, shared: &Shared) {
    let mut rooms = shared.rooms();
    let statistics = &mut rooms.statistics[usize::from(processor)];
    statistics.count(Statistic::Exits);
    statistics.count(match cause {
        Cause::Port { .. } => Statistic::IoExits,
        Cause::Hlt => Statistic::HaltExits,
        Cause::HostInterrupt => Statistic::IrqExits,
        Cause::InterruptWindow => Statistic::IrqWindowExits,
        Cause::NmiWindow => Statistic::NmiWindowExits,
        Cause::Hypercall => Statistic::Hypercalls,
        Cause::SecondStage(_) => Statistic::PfTaken,
        _ => return,
    });
}

/// The little-endian number that `bytes` are.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
