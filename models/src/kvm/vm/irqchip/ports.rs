//! What a guest reaches of the chips: their ports, and the windows of the local and the I/O APIC.

use rootmode_cpu::apic::Mode;

use super::Irqchip;
use super::routes::Pin;
use crate::devices::ioapic;
use crate::kvm::host::Machine;
use crate::kvm::vm::guard::{Need, Sent};

/// Bytes of the I/O APIC's window that KVM answers.
const IOAPIC_BYTES: u64 = 0x100;
/// Port 0x61.
const SPEAKER: u16 = 0x61;

impl Irqchip {
    /// The value that a vCPU reads, if a chip in the kernel has it. `apic_base`: its IA32_APIC_BASE.
    pub(crate) fn read(
        &mut self,
        machine: &mut Machine,
        vcpu: usize,
        apic_base: u64,
        need: Need,
    ) -> Option<u64> {
        match need {
            Need::Mmio { address, size } => self.read_memory(machine, vcpu, apic_base, address.0, size),
            Need::Port { port, size } if self.is_full() => self.read_port(machine, port, size),
            Need::Port { .. } => None,
        }
    }

    /// A vCPU's write; whether a chip in the kernel has it.
    pub(crate) fn write(&mut self, machine: &mut Machine, vcpu: usize, apic_base: u64, sent: &Sent) -> bool {
        match *sent {
            Sent::Mmio { address, size, value } => {
                self.write_memory(machine, vcpu, apic_base, address.0, size, value)
            }
            Sent::Port { port, size, value } => self.is_full() && self.write_port(machine, port, size, value),
        }
    }

    fn read_memory(
        &mut self,
        machine: &mut Machine,
        vcpu: usize,
        base: u64,
        at: u64,
        size: u8,
    ) -> Option<u64> {
        let mode = self.apic(vcpu)?.mode();
        if at & !0xfff == base & !0xfff {
            // Where the registers would be, KVM answers ones in the other modes.
            return match mode {
                Mode::XApic => {
                    self.with_apic(machine, vcpu, |apic, clock| apic.read((at & 0xfff) as u16, size, clock))
                }
                _ => Some(u64::MAX),
            };
        }
        (self.is_full() && at.wrapping_sub(ioapic::BASE) < IOAPIC_BYTES)
            .then(|| self.ioapic.read(at - ioapic::BASE, size))
    }

    fn write_memory(
        &mut self,
        machine: &mut Machine,
        vcpu: usize,
        base: u64,
        at: u64,
        size: u8,
        value: u64,
    ) -> bool {
        let Some(mode) = self.apic(vcpu).map(rootmode_cpu::apic::LocalApic::mode) else { return false };
        if at & !0xfff == base & !0xfff {
            if mode == Mode::XApic {
                self.with_apic(machine, vcpu, |apic, clock| {
                    apic.write((at & 0xfff) as u16, size, value, clock);
                });
            }
            return true;
        }
        if !self.is_full() || at.wrapping_sub(ioapic::BASE) >= IOAPIC_BYTES {
            return false;
        }
        self.ioapic.write(at - ioapic::BASE, size, value, &mut self.sent);
        self.settle(machine, Some(vcpu));
        true
    }

    fn read_port(&mut self, machine: &mut Machine, port: u16, size: u8) -> Option<u64> {
        let now = self.now(machine);
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => {
                // KVM's answers bytes only.
                let value = if size == 1 { self.pic_access(|pic| pic.read(port)) } else { 0 };
                self.settle(machine, None);
                Some(value.into())
            }
            0x40..=0x43 | SPEAKER if self.pit.is_some() && (port != SPEAKER || self.speaker) => {
                self.pit.as_mut().map(|pit| pit.read(port, now).into())
            }
            _ => None,
        }
    }

    fn write_port(&mut self, machine: &mut Machine, port: u16, size: u8, value: u32) -> bool {
        let now = self.now(machine);
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => {
                if size == 1 {
                    self.pic_access(|pic| pic.write(port, value as u8));
                }
            }
            0x40..=0x43 | SPEAKER if self.pit.is_some() && (port != SPEAKER || self.speaker) => {
                self.settle_pit(now);
                if let Some(pit) = &mut self.pit {
                    pit.write(port, value as u8, now);
                }
                self.follow_pit(now);
            }
            _ => return false,
        }
        self.settle(machine, None);
        true
    }

    /// The latest time that the board or a processor has reached.
    fn now(&self, machine: &Machine) -> u64 {
        machine.cpu().tick.max(machine.board.now())
    }

    /// Does something to the 8259s, and says so where an interrupt ended by it.
    fn pic_access<T>(&mut self, f: impl FnOnce(&mut crate::devices::pic::PicPair) -> T) -> T {
        let in_service =
            |chip: &Self| u16::from(chip.pic.save(false).isr) | u16::from(chip.pic.save(true).isr) << 8;
        let before = in_service(self);
        let result = f(&mut self.pic);
        let ended = before & !in_service(self);
        for irq in (0..16).filter(|irq| ended & 1 << irq != 0) {
            self.acknowledged(Pin::Pic(irq));
        }
        result
    }

    /// The acknowledge cycle of the 8259s. With automatic EOI the interrupt ends by it.
    pub(super) fn acknowledge_pic(&mut self) -> u8 {
        let waiting = |chip: &Self| {
            let irq = |slave| chip.pic.save(slave);
            [
                u16::from(irq(false).irr) | u16::from(irq(true).irr) << 8,
                u16::from(irq(false).isr) | u16::from(irq(true).isr) << 8,
            ]
        };
        let [requested, _] = waiting(self);
        let vector = self.pic.acknowledge();
        let [still, in_service] = waiting(self);
        let taken = requested & !still & !in_service;
        for irq in (0..16).filter(|irq| taken & 1 << irq != 0) {
            self.acknowledged(Pin::Pic(irq));
        }
        vector
    }
}
