//! A vCPU and the interrupt controllers in the kernel: what it takes from them, and how it sleeps and starts.

use rootmode_arch::{SegmentName, Selector};
use rootmode_cpu::DeliveryKind;
use rootmode_cpu::apic::Mode;

use super::events::Events;
use super::exit::ClientExit;
use super::guard::{Need, Sent};
use super::vcpu::{RunState, Vcpu};
use super::{Failure, Shared, Statistic};
use crate::kvm::Errno;
use crate::kvm::abi::{LapicState, MpState};
use crate::kvm::host::{Arrival, HostBug, Injection, State, Tasks, Wait, finish};
use crate::kvm::slots::ring::Ring;

/// IA32_APIC_BASE: the bootstrap processor.
const BOOTSTRAP: u64 = 1 << 8;

/// What a vCPU does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attention {
    /// It enters the guest.
    Runs,
    /// It sleeps.
    Sleeps,
    /// It asks its client.
    Asks,
}

impl Vcpu {
    fn number(&self) -> usize {
        self.processor.into()
    }

    const fn is_bootstrap(&self) -> bool {
        self.apic_base & BOOTSTRAP != 0
    }

    /// Whether its local APIC is in the kernel.
    pub(super) fn has_apic(&self, shared: &Shared) -> bool {
        shared.rooms().irqchip.in_kernel()
    }

    /// CR8.
    pub(super) fn cr8(&self, shared: &Shared) -> u64 {
        let rooms = shared.rooms();
        rooms.irqchip.apic(self.number()).map_or(self.cr8, |apic| u64::from(apic.task_priority() >> 4))
    }

    /// Writes CR8 (0 to 15).
    pub(super) fn set_cr8(&mut self, shared: &Shared, value: u64) {
        self.cr8 = value;
        shared.with(self.processor, |machine, rooms| {
            let priority = (value << 4) as u8;
            rooms.irqchip.with_apic(machine, self.number(), |apic, _| apic.set_task_priority(priority));
        });
    }

    /// Writes IA32_APIC_BASE. Software can go only where the architecture lets it; clients anywhere.
    pub(super) fn set_apic_base(&mut self, shared: &Shared, value: u64, client: bool) -> Result<(), Errno> {
        let mode = Mode::of(value).ok_or(Errno::Einval)?;
        shared.with(self.processor, |machine, rooms| {
            let Some(apic) = rooms.irqchip.apic(self.number()) else { return Ok(()) };
            if mode == Mode::X2Apic && !apic.abilities().x2apic || !client && !apic.mode().may_become(mode) {
                return Err(Errno::Einval);
            }
            rooms.irqchip.with_apic(machine, self.number(), |apic, _| apic.force_mode(mode));
            Ok(())
        })?;
        self.apic_base = value;
        Ok(())
    }

    /// `KVM_GET_LAPIC`.
    pub(super) fn lapic(&self, shared: &Shared) -> Result<LapicState, Errno> {
        shared.with(self.processor, |machine, rooms| rooms.irqchip.lapic(machine, self.number()))
    }

    /// `KVM_SET_LAPIC`.
    pub(super) fn set_lapic(&self, shared: &Shared, state: &LapicState) -> Result<(), Errno> {
        shared.with(self.processor, |machine, rooms| rooms.irqchip.set_lapic(machine, self.number(), state))
    }

    /// `KVM_GET_MP_STATE`.
    pub(super) fn mp_state(&mut self, shared: &Shared) -> Result<MpState, Failure> {
        self.take_inputs(shared)?;
        let wakes = self.run_state == RunState::Halted && self.pv.kicked;
        let state = if wakes { RunState::Runnable } else { self.run_state };
        Ok(MpState { mp_state: state as u32 })
    }

    /// `KVM_SET_MP_STATE`: without an interrupt controller in the kernel a vCPU is always runnable.
    pub(super) fn set_mp_state(&mut self, shared: &Shared, asked: &MpState) -> Result<(), Errno> {
        let state = match asked.mp_state {
            0 => RunState::Runnable,
            1 => RunState::Uninitialized,
            2 | 4 => RunState::InitReceived,
            3 | RESET_HOLD => RunState::Halted,
            _ => return Err(Errno::Einval),
        };
        if state != RunState::Runnable && !self.has_apic(shared) {
            return Err(Errno::Einval);
        }
        if asked.mp_state == SIPI_RECEIVED {
            shared.rooms().irqchip.put_sipi(self.number(), self.events.sipi as u8);
        }
        self.run_state = state;
        Ok(())
    }

    /// Takes over what came for it beside the local APIC: NMIs, INIT, start-up IPIs.
    pub(super) fn take_inputs(&mut self, shared: &Shared) -> Result<(), Failure> {
        let inputs = shared.rooms().irqchip.take_inputs(self.number());
        self.events.nmi |= inputs.nmi;
        self.pv.kicked |= inputs.kicked;
        self.ended = self.ended.or(inputs.ended);
        if inputs.init && self.backend.blocks_init() {
            shared.rooms().irqchip.put_init(self.number());
        } else if inputs.init && self.backend.in_l2() && self.backend.reaches_l1(Arrival::Init)? {
            self.init_waits = true;
        } else if inputs.init {
            finish(self.backend.leave_nested())?;
            self.reset_by_init(shared)?;
        }
        if let Some(vector) = inputs.sipi
            && self.run_state == RunState::InitReceived
        {
            self.start_up(vector)?;
        }
        Ok(())
    }

    /// INIT (SDM Vol. 3A "Processor State After Reset"): the bootstrap processor starts at its reset vector, others wait.
    fn reset_by_init(&mut self, shared: &Shared) -> Result<(), HostBug> {
        let old = self.backend.save()?;
        let cache = old.cr0 & 0x6000_0000;
        let state = State { cr0: 0x10 | cache, pat: old.pat, ..State::reset(self.model.signature()) };
        self.backend.load(&state)?;
        self.events = Events::default();
        self.cr8 = 0;
        self.generation = 0;
        shared.rooms().irqchip.init_apic(self.number(), self.is_bootstrap());
        self.run_state = if self.is_bootstrap() { RunState::Runnable } else { RunState::InitReceived };
        Ok(())
    }

    /// A start-up IPI.
    fn start_up(&mut self, vector: u8) -> Result<(), HostBug> {
        let mut state = self.backend.save()?;
        let cs = &mut state.segments[SegmentName::Cs as usize];
        (cs.selector, cs.base) = (Selector(u16::from(vector) << 8), u64::from(vector) << 12);
        state.rip = 0;
        self.backend.load(&state)?;
        self.events.sipi = vector.into();
        self.run_state = RunState::Runnable;
        Ok(())
    }

    /// What it does next.
    pub(super) fn attend(&mut self, shared: &Shared) -> Result<Attention, Failure> {
        self.take_inputs(shared)?;
        if let Some(vector) = self.ended.take() {
            self.exit = ClientExit::IoapicEoi { vector };
            return Ok(Attention::Asks);
        }
        let full = |ring: &mut Ring| ring.is_full();
        if shared.memory(self.processor, |memory, _| memory.ring(self.number()).is_some_and(full)) {
            self.exit = ClientExit::DirtyRingFull;
            return Ok(Attention::Asks);
        }
        self.wake_tasks(shared);
        if self.run_state == RunState::Halted {
            let accepts = self.backend.accepts()?;
            let pending = self.has_interrupt(shared);
            if self.events.waits(accepts) || pending && accepts.0 || self.wakes_l1(shared)? || self.pv.kicked
            {
                self.pv.kicked = false;
                self.run_state = RunState::Runnable;
            }
        }
        Ok(if self.run_state == RunState::Runnable { Attention::Runs } else { Attention::Sleeps })
    }

    /// Sleeps until something comes, unless it has.
    pub(super) async fn sleep(&mut self, shared: &Shared, tasks: &Tasks) {
        self.is_descheduled(shared);
        self.set_asleep(shared, true);
        tasks.wait(Wait::Asleep(self.processor)).await;
        self.set_asleep(shared, false);
        self.is_scheduled();
        shared.count(self.processor, Statistic::HaltWakeup);
    }

    fn set_asleep(&self, shared: &Shared, asleep: bool) {
        let mut rooms = shared.rooms();
        rooms.irqchip.set_asleep(self.number(), asleep);
        rooms.statistics[self.number()].set(Statistic::Blocking, asleep);
    }

    /// Whether an interrupt waits that it has not taken.
    pub(super) fn has_interrupt(&self, shared: &Shared) -> bool {
        self.events.interrupt.is_some() || shared.rooms().irqchip.pending(self.number())
    }

    /// Takes an interrupt from the controllers in the kernel.
    pub(super) fn acknowledge(&self, shared: &Shared) -> Option<Injection> {
        let vector = shared
            .with(self.processor, |machine, rooms| rooms.irqchip.acknowledge(machine, self.number()))?;
        Some(Injection { kind: DeliveryKind::External, vector, error_code: None, length: 0 })
    }

    /// What a chip in the kernel answers to a read.
    pub(super) fn chip_read(&self, need: Need, shared: &Shared) -> Option<u64> {
        shared.with(self.processor, |machine, rooms| {
            rooms.irqchip.read(machine, self.number(), self.apic_base, need)
        })
    }

    /// Whether a chip in the kernel takes a write.
    pub(super) fn chip_write(&self, sent: &Sent, shared: &Shared) -> bool {
        shared.with(self.processor, |machine, rooms| {
            rooms.irqchip.write(machine, self.number(), self.apic_base, sent)
        })
    }
}

/// `KVM_MP_STATE_SIPI_RECEIVED`, `KVM_MP_STATE_AP_RESET_HOLD`.
const SIPI_RECEIVED: u32 = 4;
const RESET_HOLD: u32 = 9;
