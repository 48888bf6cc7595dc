//! Tests of the local APIC, one file a chapter of the manual.

mod commands;
mod destinations;
mod modes;
mod priorities;
mod registers;
mod timers;

use super::register::*;
use super::{Abilities, ApicPage, Clock, LocalApic, Mode, OwnPage};
use crate::time::Rate;

pub(super) const NOW: Clock = Clock { tick: 1000, tsc: 4000 };

pub(super) const INTEL: Abilities = Abilities {
    intel: true,
    x2apic: true,
    tsc_deadline: true,
    cmci: false,
    suppress_eoi: true,
    timer_clock: Rate { counts: 1, ticks: 1 },
};

pub(super) const AMD: Abilities = Abilities { intel: false, tsc_deadline: false, ..INTEL };

/// In xAPIC mode, as after power-up.
pub(super) fn fresh(abilities: Abilities, id: u32) -> LocalApic {
    LocalApic::new(OwnPage::default(), abilities, id)
}

/// In xAPIC mode, enabled by software.
pub(super) fn xapic() -> LocalApic {
    let mut apic = fresh(INTEL, 3);
    write(&mut apic, SVR, 0x1ff);
    apic
}

/// In x2APIC mode, enabled by software.
pub(super) fn x2apic(abilities: Abilities) -> LocalApic {
    let mut apic = fresh(abilities, 3);
    write(&mut apic, SVR, 0x1ff);
    apic.set_mode(Mode::X2Apic);
    apic
}

pub(super) fn read(apic: &mut LocalApic, offset: u16) -> u32 {
    apic.read(offset, 4, NOW) as u32
}

pub(super) fn write(apic: &mut LocalApic, offset: u16, value: u32) {
    apic.write(offset, 4, value.into(), NOW);
}

/// The vectors in the 256-bit register at `base`, ascending.
pub(super) fn vectors(apic: &LocalApic, base: u16) -> Vec<u8> {
    let bit = |v: &u8| apic.page().get(base + u16::from(v / 32) * 16) >> (v % 32) & 1 != 0;
    (0..=255).filter(bit).collect()
}
