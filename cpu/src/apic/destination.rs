//! Whom a message is meant for (SDM Vol. 3A "Determining IPI Destination", "Logical Destination Mode in x2APIC Mode";
//! APM Vol. 2 "Receiving System and IPI Interrupts").

use super::register::*;
use super::{ApicPage, Ipi, LocalApic, Mode, Shorthand};
use crate::context::{DeliveryMode, InterruptMessage};

/// The numbers of the APICs among `apics` that `ipi` is meant for. `source` is the sender's number, if it has one.
pub fn targets<'a, P: ApicPage + 'a>(
    apics: impl Iterator<Item = (u8, &'a LocalApic<P>)>,
    source: Option<u8>,
    ipi: &Ipi,
) -> Vec<u8> {
    let message = &ipi.message;
    let meant = apics.filter(|(index, apic)| match ipi.shorthand {
        Shorthand::None => apic.is_destination(message, ipi.wide),
        Shorthand::Itself => source == Some(*index),
        Shorthand::All => apic.mode() != Mode::Disabled,
        Shorthand::Others => source != Some(*index) && apic.mode() != Mode::Disabled,
    });
    if message.mode == DeliveryMode::LowestPriority {
        let enabled = meant.filter(|(_, apic)| apic.is_enabled());
        let lowest = enabled.min_by_key(|(_, apic)| apic.processor_priority());
        lowest.map(|(index, _)| index).into_iter().collect()
    } else {
        meant.map(|(index, _)| index).collect()
    }
}

/// The logical x2APIC ID of `id`: its cluster of sixteen in bits 31:16, one bit for its place in the cluster
/// ("Deriving Logical x2APIC ID from the Local x2APIC ID").
pub(super) const fn logical_x2apic_id(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 15)
}

impl<P: ApicPage> LocalApic<P> {
    /// Whether this APIC is a destination of `message`. `wide` messages come from an APIC in x2APIC mode and have 32-bit
    /// destinations; the others have 8-bit ones, and all ones is everybody in either width.
    pub fn is_destination(&self, message: &InterruptMessage, wide: bool) -> bool {
        let destination = if wide { message.destination } else { message.destination & 0xff };
        let broadcast = destination == if wide { u32::MAX } else { 0xff };
        match (self.mode, message.logical) {
            (Mode::Disabled, _) => false,
            _ if broadcast && (self.mode == Mode::XApic || wide || !message.logical) => true,
            (_, false) => destination == self.id(),
            (Mode::X2Apic, true) => {
                let own = self.page.get(LDR);
                destination >> 16 == own >> 16 && destination & own & 0xffff != 0
            }
            (Mode::XApic, true) => destination <= 0xff && self.matches_logical_xapic(destination),
        }
    }

    fn matches_logical_xapic(&self, destination: u32) -> bool {
        let own = self.page.get(LDR) >> 24;
        match self.page.get(DFR) >> 28 {
            0xf => destination & own != 0,
            0 => destination >> 4 == own >> 4 && destination & own & 0xf != 0,
            // The other models are reserved.
            _ => false,
        }
    }
}
