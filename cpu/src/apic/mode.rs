//! The three modes, and the ways between them that IA32_APIC_BASE allows
//! (SDM Vol. 3A "Local APIC Status and Location", "x2APIC State Transitions").

use super::register::*;
use super::{ApicPage, LocalApic, destination};

/// IA32_APIC_BASE: this is the bootstrap processor.
pub(crate) const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: x2APIC mode (EXTD).
pub(crate) const BASE_X2APIC: u64 = 1 << 10;
/// IA32_APIC_BASE: the APIC is enabled (EN).
pub(crate) const BASE_ENABLE: u64 = 1 << 11;

/// How software reaches the APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Not at all: the processor works like one without an APIC.
    Disabled,
    /// By memory accesses to the page at IA32_APIC_BASE.
    XApic,
    /// By MSRs 0x800 to 0x8ff.
    X2Apic,
}

impl Mode {
    /// The mode that a value of IA32_APIC_BASE says; `None` for x2APIC mode of a disabled APIC.
    pub const fn of(base: u64) -> Option<Self> {
        match (base & BASE_ENABLE != 0, base & BASE_X2APIC != 0) {
            (false, false) => Some(Self::Disabled),
            (true, false) => Some(Self::XApic),
            (true, true) => Some(Self::X2Apic),
            (false, true) => None,
        }
    }

    /// Whether software may go from this mode to `to`: x2APIC mode is entered from xAPIC mode only, and left by disabling.
    pub const fn may_become(self, to: Self) -> bool {
        !matches!((self, to), (Self::Disabled, Self::X2Apic) | (Self::X2Apic, Self::XApic))
    }
}

impl<P: ApicPage> LocalApic<P> {
    /// Goes to `mode`; the caller has checked [`Mode::may_become`].
    ///
    /// Disabling loses all state but the task priority; entering x2APIC mode loses an APIC ID written by software, the logical
    /// destination and the upper half of the interrupt command.
    pub(super) fn set_mode(&mut self, mode: Mode) {
        if mode == self.mode {
            return;
        }
        self.mode = mode;
        match mode {
            Mode::Disabled => self.reset_registers(),
            Mode::XApic => self.update(),
            Mode::X2Apic => {
                self.page.set(ID, self.initial_id);
                self.page.set(LDR, destination::logical_x2apic_id(self.initial_id));
                self.page.set(ICR_HIGH, 0);
            }
        }
    }
}
