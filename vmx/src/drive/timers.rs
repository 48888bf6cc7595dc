//! What is due at an instruction boundary: monitor trap flag, preemption timer, windows
//! (SDM Vol. 3C (326019-083, Mar 2024) "VMX-Preemption Timer", "Monitor Trap Flag").

use super::Vmx;
use crate::definitions::capabilities::Misc;
use crate::{Field, PinControls, PrimaryControls};
use rootmode_arch::{Event, RFlags, msr};
use rootmode_cpu::time::TSC;
use rootmode_cpu::{Activity, Cpu, Slot};

/// How often bit `shift` of the time-stamp counter changes on its way from `from` to `to`, also past the counter's end: a guest
/// can write the counter while the timer runs.
const fn periods(from: u64, to: u64, shift: u8) -> u64 {
    let into = from & ((1 << shift) - 1);
    into.saturating_add(to.wrapping_sub(from)) >> shift
}

impl Vmx {
    fn timer_shift(&self) -> u8 {
        Misc(self.capabilities.value(msr::IA32_VMX_MISC)).timer_shift()
    }

    /// The tick at which the preemption timer reaches 0, if it is active. It counts changes of a TSC bit, not ticks since
    /// the entry.
    pub(super) fn timer_deadline(&self, cpu: &Cpu) -> Option<u64> {
        if !self.controls.pin.contains(PinControls::PREEMPTION_TIMER) {
            return None;
        }
        let shift = self.timer_shift();
        let tsc = cpu.host_tsc();
        let expires = (tsc >> shift).wrapping_add(self.vmcs.value(Field::PreemptionTimer)) << shift;
        Some(TSC.after(cpu.tick, expires.saturating_sub(tsc)))
    }

    /// The timer's value now.
    pub(super) fn timer_value(&self, cpu: &Cpu) -> u64 {
        let Some(deadline) = cpu.published.deadline else { return 0 };
        let shift = self.timer_shift();
        let tsc = cpu.host_tsc();
        let expires = cpu.clock_at(deadline.max(cpu.tick)).tsc;
        periods(tsc, expires, shift)
    }

    /// Whether the core must ask at every boundary.
    pub(super) fn wants_boundaries(&self) -> bool {
        let windows = PrimaryControls::INTERRUPT_WINDOW_EXITING
            | PrimaryControls::NMI_WINDOW_EXITING
            | PrimaryControls::MONITOR_TRAP_FLAG;
        let apic = self.apic.recognized || self.apic.written.is_some() || self.apic.trap.is_some();
        self.controls.primary.intersects(windows) || self.pending_mtf || self.bus_locked || apic
    }

    /// What may exit at this place of the boundary. Whether it does is the table's decision.
    pub(super) fn due(&self, cpu: &Cpu, slot: Slot) -> [Option<Event>; 3] {
        let primary = self.controls.primary;
        let pick = |on: bool, event| if on { Some(event) } else { None };
        // Inactive states block some of these exits (SDM Vol. 3C "Special Features of VM Entry").
        let awake = cpu.activity.is_awake();
        let waits_for_sipi = cpu.activity == Activity::WaitForSipi;
        match slot {
            Slot::BeforeDebug => {
                let stepped =
                    primary.contains(PrimaryControls::MONITOR_TRAP_FLAG) && cpu.tick > self.entry_tick;
                let trap = self.apic.trap.filter(|_| awake);
                let trapped = awake && (stepped || self.pending_mtf);
                [pick(self.bus_locked, Event::BusLock), trap, pick(trapped, Event::MonitorTrap)]
            }
            Slot::BeforeNmi => {
                let expired =
                    !waits_for_sipi && cpu.published.deadline.is_some_and(|deadline| cpu.tick >= deadline);
                let window = primary.contains(PrimaryControls::NMI_WINDOW_EXITING)
                    && !waits_for_sipi
                    && !cpu.nmi_blocked
                    && !cpu.mov_ss_shadow;
                [pick(expired, Event::PreemptionTimer), pick(window, Event::NmiWindow), None]
            }
            Slot::BeforeInterrupt => {
                let open =
                    awake && cpu.rflags().contains(RFlags::IF) && !cpu.sti_shadow && !cpu.mov_ss_shadow;
                let window = primary.contains(PrimaryControls::INTERRUPT_WINDOW_EXITING) && open;
                [pick(window, Event::InterruptWindow), None, None]
            }
            Slot::AfterInterrupt => [None; 3],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::periods;

    #[test]
    fn periods_are_the_changes_of_the_bit_on_the_way() {
        for shift in 0..6_u8 {
            for (from, distance) in [(0, 0), (0, 1), (31, 1), (33, 200), (u64::MAX - 40, 100), (u64::MAX, 1)]
            {
                let (mut counter, mut changes) = (from, 0);
                for _ in 0..distance {
                    let next = u64::wrapping_add(counter, 1);
                    changes += u64::from((next ^ counter) >> shift & 1 != 0);
                    counter = next;
                }
                assert_eq!(periods(from, counter, shift), changes, "bit {shift} from {from:#x}");
            }
        }
    }
}
