//! The time of the chips: deadlines of the host's board that stand for the timers of local APICs and the 8254's output.

use rootmode_arch::HostPhysical;
use rootmode_arch::record::Stop;
use rootmode_cpu::apic::Clock;
use rootmode_cpu::{Bus, Effects};
use rootmode_mmu::PhysicalMemory;

use super::{Irqchip, TIMER};
use crate::devices::pit::Pit;
use crate::kvm::Errno;
use crate::kvm::abi::{PIT_SPEAKER_DUMMY, PitConfig, PitState2};
use crate::kvm::host::Machine;
use crate::kvm::vm::irqchip::formats;

/// Gates from this one on are timers: those of the vCPUs by number, then the 8254's and the client's.
pub(crate) const TIMERS: u32 = 0x100;
const PIT: u32 = 0xff;
/// The client's.
pub(crate) const ALARM: u32 = 0x100;
/// The global system interrupt of the 8254.
const PIT_GSI: u32 = 0;
/// The most edges of the 8254 that are looked at one by one.
const EDGES: u32 = 16;

/// The host's bus: nothing but deadlines, which stop the board so that L0 looks at the timer.
pub(crate) struct HostTimers;

impl Bus for HostTimers {
    fn read_port(&mut self, _: u16, size: u8, _: u64, _: &mut Effects) -> u32 {
        u32::MAX >> (32 - 8 * u32::from(size))
    }
    fn write_port(&mut self, _: u16, _: u8, _: u32, _: u64, _: &mut Effects) {}
    fn read_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: &mut Effects) -> u64 {
        u64::MAX
    }
    fn write_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: u64, _: &mut Effects) {}
    fn deadline(&mut self, source: u32, _: u64, _: &mut PhysicalMemory, effects: &mut Effects) {
        effects.stop = Some(Stop::Gate(TIMERS + source));
    }
}

/// The deadlines that were asked for and have not come, by timer.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers(Vec<Option<u64>>);

impl Timers {
    /// Asks for a deadline, unless an earlier one comes anyway: who is called too early asks again.
    fn arm(&mut self, machine: &mut Machine, timer: u32, at: Option<u64>) {
        let place = timer as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        let Some(at) = at else { return };
        if self.0[place].is_none_or(|earlier| earlier > at) {
            self.0[place] = Some(at);
            machine.board.add_deadline(at, timer);
        }
    }

    /// A deadline has come. One that an earlier one replaced is as good as any.
    fn come(&mut self, timer: u32) {
        if let Some(place) = self.0.get_mut(timer as usize) {
            *place = None;
        }
    }
}

impl Irqchip {
    /// What time it is for the local APIC of a vCPU.
    pub(super) fn clock(&self, machine: &Machine, vcpu: usize) -> Clock {
        let cpu = &machine.board.processors()[vcpu].cpu;
        let clock = cpu.clock_at(cpu.tick.max(machine.board.now()));
        Clock { tsc: clock.tsc.wrapping_add(self.seats[vcpu].tsc_offset), ..clock }
    }

    /// What is added to the host's time-stamp counter for a vCPU has changed.
    pub(crate) fn set_tsc_offset(&mut self, machine: &mut Machine, vcpu: usize, offset: u64) {
        self.seats[vcpu].tsc_offset = offset;
        self.with_apic(machine, vcpu, |apic, clock| apic.expire(clock));
    }

    /// Asks the board for the next deadline of every timer.
    pub(super) fn arm(&mut self, machine: &mut Machine) {
        for vcpu in 0..self.seats.len() {
            let clock = self.clock(machine, vcpu);
            let next = self.seats[vcpu].apic.as_ref().and_then(|apic| apic.next_expiry(clock));
            self.timers.arm(machine, vcpu as u32, next);
        }
        if let Some(event) = self.pit_event {
            self.timers.arm(machine, PIT, Some(event));
        }
    }

    /// The client wants to be called at `tick`, or earlier if it said so before.
    pub(crate) fn set_alarm(&mut self, machine: &mut Machine, tick: u64) {
        self.timers.arm(machine, ALARM, Some(tick));
    }

    /// The deadline of a timer has come.
    pub(crate) fn timer(&mut self, machine: &mut Machine, timer: u32) {
        self.timers.come(timer);
        let vcpu = timer as usize;
        if timer == PIT {
            self.settle_pit(machine.board.now());
            self.settle(machine, None);
        } else if vcpu < self.seats.len() {
            let clock = self.clock(machine, vcpu);
            if let Some(apic) = &mut self.seats[vcpu].apic {
                apic.expire(clock);
                self.touched.push(vcpu);
            }
            self.settle(machine, None);
        }
    }

    /// `KVM_CREATE_PIT2`.
    ///
    /// # Errors
    /// [`Errno::Enoent`] without the other chips, [`Errno::Eexist`] the second time.
    pub(crate) fn create_pit(&mut self, config: &PitConfig) -> Result<(), Errno> {
        if self.pit.is_some() {
            return Err(Errno::Eexist);
        }
        if !self.is_full() {
            return Err(Errno::Enoent);
        }
        self.pit = Some(Pit::new());
        self.speaker = config.flags & PIT_SPEAKER_DUMMY != 0;
        Ok(())
    }

    /// `KVM_GET_PIT2`.
    ///
    /// # Errors
    /// [`Errno::Enxio`] without one.
    pub(crate) fn pit_state(&self, machine: &Machine) -> Result<PitState2, Errno> {
        let pit = self.pit.as_ref().ok_or(Errno::Enxio)?;
        let channels = pit.save(machine.board.now()).map(|saved| (&saved).into());
        Ok(PitState2 { channels, ..PitState2::default() })
    }

    /// `KVM_SET_PIT2`.
    ///
    /// # Errors
    /// [`Errno::Enxio`] without one.
    pub(crate) fn set_pit(&mut self, machine: &mut Machine, state: &PitState2) -> Result<(), Errno> {
        let now = machine.board.now();
        let pit = self.pit.as_mut().ok_or(Errno::Enxio)?;
        pit.restore(&state.channels.map(|channel| formats::saved_channel(&channel)), now);
        self.follow_pit(now);
        self.settle(machine, None);
        Ok(())
    }

    /// Brings its interrupt to where the output of counter 0 is, through every edge on the way.
    pub(super) fn settle_pit(&mut self, now: u64) {
        for _ in 0..EDGES {
            let (Some(pit), Some(event)) = (&self.pit, self.pit_event.filter(|event| *event <= now)) else {
                return;
            };
            let high = pit.out0(event);
            self.pit_event = pit.next_event(event);
            self.set_gsi(PIT_GSI, TIMER, high);
        }
        self.follow_pit(now);
    }

    /// Brings its interrupt to where the output of counter 0 is after a write.
    pub(super) fn follow_pit(&mut self, now: u64) {
        let Some(pit) = &self.pit else { return };
        let high = pit.out0(now);
        self.pit_event = pit.next_event(now);
        self.set_gsi(PIT_GSI, TIMER, high);
    }
}
