//! Interprocessor interrupts (SDM Vol. 3A "Issuing Interprocessor Interrupts", "ICR Operation in x2APIC Mode",
//! "SELF IPI Register").

use super::delivery::SEND_ILLEGAL_VECTOR;
use super::register::*;
use super::{ApicPage, LocalApic, Mode};
use crate::context::{DeliveryMode, InterruptMessage};

/// Bits 19:18 of the interrupt command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Shorthand {
    /// The destination field counts.
    None,
    /// The sender.
    Itself,
    /// Everybody.
    All,
    /// Everybody but the sender.
    Others,
}

/// An interprocessor interrupt on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipi {
    /// Who it is meant for, if not those that the message's destination says.
    pub shorthand: Shorthand,
    /// The destination has 32 bits: the sender is in x2APIC mode.
    pub wide: bool,
    /// What arrives.
    pub message: InterruptMessage,
}

/// What leaves an APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outgoing {
    /// To other APICs.
    Ipi(Ipi),
    /// To the I/O APICs: the level-triggered vector ended.
    EndOfInterrupt(u8),
    /// To the processor with this physical APIC ID: AVIC's doorbell.
    Doorbell(u32),
}

impl<P: ApicPage> LocalApic<P> {
    /// The low half of the interrupt command was written: sends it.
    ///
    /// Level and trigger mode matter to INIT alone, whose de-assert message nobody listens to any more; every other IPI is an
    /// edge. Remote reads and the reserved modes send nothing.
    pub(super) fn command(&mut self) {
        let low = self.page.get(ICR);
        let (level, asserted) = (low & 1 << 15 != 0, low & 1 << 14 != 0);
        let mode = match DeliveryMode::from_bits((low >> 8) as u8) {
            None | Some(DeliveryMode::ExtInt) => return,
            Some(DeliveryMode::Init) if level && !asserted => return,
            Some(mode) => mode,
        };
        let vector = low as u8;
        let shorthand = match low >> 18 & 3 {
            0 => Shorthand::None,
            1 => Shorthand::Itself,
            2 => Shorthand::All,
            _ => Shorthand::Others,
        };
        if matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority) {
            if vector < 16 {
                self.error(SEND_ILLEGAL_VECTOR);
                return;
            }
            if shorthand == Shorthand::Itself {
                self.receive(vector, false);
                return;
            }
        }
        let wide = self.mode == Mode::X2Apic;
        let high = self.page.get(ICR_HIGH);
        let message = InterruptMessage {
            destination: if wide { high } else { high >> 24 },
            logical: low & 1 << 11 != 0,
            mode,
            vector,
            level_triggered: false,
            asserted: true,
        };
        self.outgoing.push(Outgoing::Ipi(Ipi { shorthand, wide, message }));
    }

    /// Sends `ipi` although nobody wrote the interrupt command.
    pub(super) fn send(&mut self, ipi: Ipi) {
        self.outgoing.push(Outgoing::Ipi(ipi));
    }

    /// SELF IPI: a fixed edge-triggered interrupt to itself.
    pub(super) fn self_ipi(&mut self, vector: u8) {
        if vector < 16 {
            self.error(SEND_ILLEGAL_VECTOR);
        } else {
            self.receive(vector, false);
        }
    }
}
