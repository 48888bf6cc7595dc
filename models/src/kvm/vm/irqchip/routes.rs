//! Where the global system interrupts of a VM lead: `KVM_SET_GSI_ROUTING`.

use std::collections::BTreeMap;

use rootmode_cpu::{DeliveryMode, InterruptMessage};

use crate::kvm::Errno;
use crate::kvm::abi::{IrqRoutingEntry, Msi};

/// `KVM_MAX_IRQ_ROUTES`, which `KVM_CAP_IRQ_ROUTING` answers.
pub const MOST_ROUTES: u32 = 4096;
/// `KVM_IRQ_ROUTING_IRQCHIP`, `KVM_IRQ_ROUTING_MSI`.
const TO_CHIP: u32 = 1;
const TO_MSI: u32 = 2;
/// `KVM_IRQCHIP_PIC_MASTER`, `KVM_IRQCHIP_PIC_SLAVE`, `KVM_IRQCHIP_IOAPIC`.
pub(super) const MASTER: u32 = 0;
pub(super) const SLAVE: u32 = 1;
pub(super) const IOAPIC: u32 = 2;

/// An input of a chip in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pin {
    /// An IRQ of the pair of 8259s, 0 to 15.
    Pic(u8),
    /// An input of the I/O APIC, 0 to 23.
    IoApic(u8),
}

/// Where one interrupt leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Chip(Pin),
    Message(InterruptMessage),
}

/// The message that an MSI's address and data mean (SDM Vol. 3A "Message Signalled Interrupts"). Level-triggered ones keep
/// their trigger mode: an I/O APIC outside of the kernel sends them. `None`: the reserved delivery mode.
pub(super) fn message(address_lo: u32, data: u32) -> Option<InterruptMessage> {
    let mode = DeliveryMode::from_bits((data >> 8) as u8).filter(|mode| *mode != DeliveryMode::StartUp)?;
    Some(InterruptMessage {
        destination: address_lo >> 12 & 0xff,
        logical: address_lo & 1 << 2 != 0,
        mode,
        vector: data as u8,
        level_triggered: data & 1 << 15 != 0,
        asserted: true,
    })
}

/// `KVM_MSI_VALID_DEVID`, which means nothing on x86.
const VALID_DEVICE: u32 = 1;

/// `KVM_SIGNAL_MSI`'s argument.
pub(super) fn signal(msi: &Msi) -> Result<Option<InterruptMessage>, Errno> {
    if msi.flags & !VALID_DEVICE != 0 {
        return Err(Errno::Einval);
    }
    Ok(message(msi.address_lo, msi.data))
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes(BTreeMap<u32, Vec<Route>>);

impl Routes {
    /// What `KVM_CREATE_IRQCHIP` leaves: 16 IRQs at both chips, eight more at the I/O APIC alone.
    pub(super) fn of_chips() -> Self {
        let both = (0..16).map(|irq| {
            let pins = [Pin::Pic(irq), Pin::IoApic(irq)];
            (u32::from(irq), pins.map(Route::Chip).to_vec())
        });
        let rest = (16..24).map(|irq| (u32::from(irq), vec![Route::Chip(Pin::IoApic(irq))]));
        Self(both.chain(rest).collect())
    }

    /// `KVM_SET_GSI_ROUTING`. Without chips in the kernel (`split`) there are none to lead to.
    ///
    /// # Errors
    /// [`Errno::Einval`]: what cannot be, or one interrupt to two inputs of one chip or to a message beside anything.
    pub(super) fn of(entries: &[IrqRoutingEntry], split: bool) -> Result<Self, Errno> {
        let mut routes: BTreeMap<u32, Vec<Route>> = BTreeMap::new();
        for entry in entries {
            let route = Self::route(entry, split)?;
            let others = routes.entry(entry.gsi).or_default();
            let chip = |route: &Route| match route {
                Route::Chip(Pin::Pic(irq)) => Some(u32::from(irq / 8)),
                Route::Chip(Pin::IoApic(_)) => Some(IOAPIC),
                Route::Message(_) => None,
            };
            let lonely = others.iter().any(|other| chip(other).is_none() || chip(other) == chip(&route));
            if entry.gsi >= MOST_ROUTES || lonely || !others.is_empty() && chip(&route).is_none() {
                return Err(Errno::Einval);
            }
            others.push(route);
        }
        Ok(Self(routes))
    }

    fn route(entry: &IrqRoutingEntry, split: bool) -> Result<Route, Errno> {
        let [first, second, third, ..] = entry.u;
        match (entry.type_, entry.flags) {
            (TO_CHIP, 0) if !split => Ok(Route::Chip(match (first, second) {
                (MASTER, 0..8) => Pin::Pic(second as u8),
                (SLAVE, 0..8) => Pin::Pic(8 + second as u8),
                (IOAPIC, 0..24) => Pin::IoApic(second as u8),
                _ => return Err(Errno::Einval),
            })),
            (TO_MSI, 0) => {
                // A message in the reserved mode is one that nobody gets.
                let nobody = InterruptMessage { asserted: false, ..NO_MESSAGE };
                Ok(Route::Message(message(first, third).unwrap_or(nobody)))
            }
            _ => Err(Errno::Einval),
        }
    }

    /// Where an interrupt leads.
    pub(super) fn to(&self, gsi: u32) -> &[Route] {
        self.0.get(&gsi).map_or(&[], Vec::as_slice)
    }

    /// The interrupts that lead to an input.
    pub(super) fn from(&self, pin: Pin) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().filter(move |(_, routes)| routes.contains(&Route::Chip(pin))).map(|(gsi, _)| *gsi)
    }

    /// The messages that interrupts below `pins` lead to: inputs of an I/O APIC outside of the kernel.
    pub(super) fn messages(&self, pins: u32) -> impl Iterator<Item = &InterruptMessage> {
        self.0.range(..pins).flat_map(|(_, routes)| routes).filter_map(|route| match route {
            Route::Message(message) => Some(message),
            Route::Chip(_) => None,
        })
    }
}

const NO_MESSAGE: InterruptMessage = InterruptMessage {
    destination: 0,
    logical: false,
    mode: DeliveryMode::Fixed,
    vector: 0,
    level_triggered: false,
    asserted: true,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(gsi: u32, type_: u32, u: [u32; 3]) -> IrqRoutingEntry {
        let [a, b, c] = u;
        IrqRoutingEntry { gsi, type_, flags: 0, pad: 0, u: [a, b, c, 0, 0, 0, 0, 0] }
    }

    /// The answers of Linux 6.18 to the same tables.
    #[test]
    fn tables_are_taken_or_refused_as_linux_does() {
        let chip = |gsi, chip, pin| entry(gsi, 1, [chip, pin, 0]);
        let msi = |gsi| entry(gsi, 2, [0xfee0_0000, 0, 0x41]);
        let taken = |entries: &[IrqRoutingEntry]| Routes::of(entries, false).is_ok();
        assert!(
            taken(&[])
                && taken(&[chip(1, 0, 7)])
                && taken(&[chip(1, 0, 7), chip(1, 2, 6)])
                && taken(&[msi(1)])
        );
        assert!(!taken(&[entry(1, 9, [0; 3])]) && !taken(&[entry(1, 0, [0; 3])]));
        assert!(!taken(&[chip(1, 0, 8)]) && !taken(&[chip(1, 2, 24)]) && !taken(&[chip(1, 3, 1)]));
        assert!(!taken(&[chip(1, 0, 7), chip(1, 0, 6)]), "two inputs of one chip");
        assert!(!taken(&[chip(1, 0, 7), msi(1)]) && !taken(&[msi(1), msi(1)]));
        assert!(taken(&[chip(4095, 0, 7)]) && !taken(&[chip(4096, 0, 7)]));
        assert!(!taken(&[IrqRoutingEntry { flags: 1, ..chip(1, 0, 7) }]));
        assert!(Routes::of(&[chip(1, 0, 7)], true).is_err(), "no chips in the kernel");
        assert!(Routes::of(&[msi(1)], true).is_ok());
    }

    #[test]
    fn an_msi_says_who_gets_what() {
        let sent = message(0xfee0_5004, 0x8141).unwrap_or(NO_MESSAGE);
        assert_eq!((sent.destination, sent.logical, sent.mode), (5, true, DeliveryMode::LowestPriority));
        assert_eq!((sent.vector, sent.level_triggered), (0x41, true));
        assert_eq!(message(0xfee0_0000, 0x0341), None);
    }
}
