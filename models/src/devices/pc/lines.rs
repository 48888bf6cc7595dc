//! Interrupt lines: who drives each, and which inputs of the 8259s and the I/O APIC it reaches.

use super::super::ioapic::{IoApic, PINS};
use super::super::pic::{CASCADE, PicPair};
use rootmode_cpu::Effects;
use rootmode_mmu::Digest;

/// Who drives a line. A line is high while anybody drives it high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Driver {
    /// The device that owns the line.
    Device = 1,
    /// The test device.
    Test = 2,
    /// A high-precision event timer.
    EventTimer = 4,
}

/// The interrupt controllers and the lines that lead to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) pic: PicPair,
    pub(super) ioapic: IoApic,
    /// Bits of the drivers that hold each line high.
    drivers: [u8; PINS as usize],
    /// INTR, as the processors know it.
    intr: bool,
    /// The controllers are somebody else's: lines that changed since he was last told, and their levels.
    outside: Option<Vec<(u8, bool)>>,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self {
            pic: PicPair::new(),
            ioapic: IoApic::new(),
            drivers: [0; PINS as usize],
            intr: false,
            outside: None,
        }
    }

    /// Drives line `irq`, 0 to 23.
    pub(super) fn set(&mut self, irq: u8, driver: Driver, high: bool, effects: &mut Effects) {
        let drivers = &mut self.drivers[usize::from(irq)];
        let before = *drivers;
        *drivers = if high { before | driver as u8 } else { before & !(driver as u8) };
        let after = *drivers;
        if (before != 0) == (after != 0) {
            return;
        }
        if let Some(changes) = &mut self.outside {
            changes.push((irq, after != 0));
            return;
        }
        if irq < 16 {
            self.pic.set_line(irq, after != 0);
        }
        // IRQ 0 is wired to input 2, as the MADT says; input 0 is left open.
        let pin = if irq == 0 { CASCADE } else { irq };
        let level = if pin == CASCADE { (self.drivers[0] | self.drivers[2]) != 0 } else { after != 0 };
        self.ioapic.set_line(pin, level, &mut effects.interrupts);
        self.update_intr(effects);
    }

    /// From now on the lines lead to somebody else's controllers, who begins with these.
    pub(super) fn give(&mut self) -> (PicPair, IoApic) {
        self.outside = Some(Vec::new());
        (std::mem::take(&mut self.pic), std::mem::take(&mut self.ioapic))
    }

    /// Lines that changed since the last call, if the controllers are somebody else's.
    pub(super) fn take_changes(&mut self) -> Vec<(u8, bool)> {
        self.outside.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether anybody would notice an edge of IRQ 0. A timer that nobody hears needs no deadlines.
    pub(super) fn timer_is_heard(&self) -> bool {
        self.pic.accepts(0) || self.ioapic.accepts(CASCADE)
    }

    /// Tells the processors when INTR changed.
    pub(super) fn update_intr(&mut self, effects: &mut Effects) {
        let output = self.pic.output();
        if output != self.intr {
            self.intr = output;
            effects.intr = Some(output);
        }
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        self.pic.digest(digest);
        self.ioapic.digest(digest);
        digest.bytes(&self.drivers);
        digest.u64(u64::from(self.intr));
    }
}
