//! An APIC as whoever virtualizes one keeps it: its registers out and in, other abilities, any mode.

use super::register::{ID, LDR, LVT_TIMER, TIMER_CURRENT, TIMER_INITIAL, VERSION};
use super::{Abilities, ApicPage, Clock, LocalApic, Mode, TimerMode, destination};

/// The 32 bits at every multiple of 16 of the page.
pub type Registers = [u32; 64];

impl<P: ApicPage> LocalApic<P> {
    /// The registers as software reads them now.
    pub fn registers(&self, clock: Clock) -> Registers {
        let mut registers = [0; 64];
        for (register, offset) in registers.iter_mut().zip((0..0x400).step_by(16)) {
            *register =
                if offset == TIMER_CURRENT { self.value(offset, clock) } else { self.page.get(offset) };
        }
        registers
    }

    /// Takes these registers, whatever they are; the ID and the version stay the APIC's own. The timer goes on from the
    /// current count that they say.
    pub fn restore(&mut self, registers: &Registers, clock: Clock) {
        for (register, offset) in registers.iter().zip((0..0x400).step_by(16)) {
            if offset != VERSION && (offset != ID || self.mode != Mode::X2Apic) {
                self.page.set(offset, *register);
            }
        }
        let deadline = self.timer.deadline;
        self.timer = super::Timer::default();
        match TimerMode::of(self.page.get(LVT_TIMER)) {
            TimerMode::TscDeadline => self.timer.deadline = deadline,
            _ => {
                let current = registers[usize::from(TIMER_CURRENT >> 4)];
                self.timer.start(current.min(self.page.get(TIMER_INITIAL)), self.rate(), clock);
            }
        }
        self.update();
    }

    /// It can do this from now on.
    pub fn set_abilities(&mut self, abilities: Abilities) {
        self.abilities = abilities;
        self.page.set(VERSION, self.reset_value(VERSION));
    }

    /// Goes to `mode` by any way, as a hypervisor's client may ask for.
    pub fn force_mode(&mut self, mode: Mode) {
        let from = self.mode;
        self.set_mode(mode);
        if from == Mode::X2Apic && mode == Mode::XApic {
            self.page.set(ID, self.initial_id << 24);
            self.page.set(LDR, 0);
        }
        if mode == Mode::X2Apic {
            self.page.set(LDR, destination::logical_x2apic_id(self.initial_id));
        }
    }

    /// Whether `vector` came by a level.
    pub fn is_level(&self, vector: u8) -> bool {
        self.page.contains(super::register::TMR, vector)
    }
}

#[cfg(test)]
mod tests {
    use super::super::register::{LVT_LINT0, SVR, TIMER_DIVIDE};
    use super::super::{OwnPage, TimerMode};
    use super::*;
    use crate::Model;

    fn apic() -> LocalApic {
        LocalApic::new(OwnPage::default(), Abilities::of(&Model::max_intel()), 3)
    }

    const fn at(tick: u64) -> Clock {
        Clock { tick, tsc: tick * 4 }
    }

    #[test]
    fn an_apic_goes_on_in_another_one_where_it_was() {
        let mut first = apic();
        first.virtual_wire();
        first.write(TIMER_DIVIDE, 4, 0xb, at(0));
        first.write(LVT_TIMER, 4, 0x2_0040, at(0));
        first.write(TIMER_INITIAL, 4, 1000, at(0));
        first.receive(0x55, true);
        let saved = first.registers(at(600));
        assert_eq!(saved[usize::from(TIMER_CURRENT >> 4)], 400);
        let mut second = apic();
        second.restore(&saved, at(5000));
        assert_eq!(second.deliverable(), Some(0x55));
        assert!(second.is_level(0x55));
        assert_eq!(second.next_expiry(at(5000)), Some(5400));
        assert_eq!(
            TimerMode::of(second.registers(at(5000))[usize::from(LVT_TIMER >> 4)]),
            TimerMode::Periodic
        );
        second.expire(at(5400));
        assert_eq!(second.next_expiry(at(5400)), Some(6400), "the period is the initial count");
        assert_eq!(second.registers(at(5400))[usize::from(LVT_LINT0 >> 4)], 0x700);
    }

    #[test]
    fn a_client_may_choose_any_mode() {
        let mut apic = apic();
        apic.restore(&[0x1ff; 64], at(0));
        apic.force_mode(Mode::X2Apic);
        assert_eq!((apic.id(), apic.registers(at(0))[usize::from(LDR >> 4)]), (3, 8));
        apic.force_mode(Mode::XApic);
        assert_eq!((apic.id(), apic.registers(at(0))[usize::from(SVR >> 4)]), (3, 0x1ff));
    }
}
