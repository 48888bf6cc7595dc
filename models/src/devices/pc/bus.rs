//! The chipset as the processors' bus.

use super::ports::Port;
use super::timers::Timer;
use super::{DEBUG_CONSOLE, Driver, Pc, RESET_CONTROL, SHUTDOWN_TEXT};
use crate::devices::acpi::power::Sleep;
use crate::devices::pci::test_device::{MEMORY_SIZE as PCI_MEMORY_SIZE, Window};
use crate::devices::{hpet, ioapic, test_device, uart};
use rootmode_arch::HostPhysical;
use rootmode_arch::record::Stop;
use rootmode_cpu::{Bus, Effects};
use rootmode_mmu::{Digest, PhysicalMemory};

const HPET_END: u64 = hpet::BASE + hpet::SIZE;

const fn ones(size: u8) -> u32 {
    u32::MAX >> (32 - 8 * size as u32)
}

impl Pc {
    /// The byte ports. Wider accesses are split, as an ISA bus does.
    fn read_byte(&mut self, port: u16, tick: u64, effects: &mut Effects) -> u8 {
        match self.ports.get(port) {
            Port::Pic => {
                self.settle_pit(tick, effects);
                let value = self.lines.pic.read(port);
                self.lines.update_intr(effects);
                value
            }
            Port::Pit => self.pit.read(port, tick),
            Port::Rtc if port & 1 != 0 => {
                let value = self.rtc.read(tick);
                self.settle_rtc(tick, effects);
                value
            }
            Port::Keyboard => {
                let value = self.keyboard.read(port);
                self.settle_keyboard(effects);
                value
            }
            Port::SystemControl => self.system_control & !3 | u8::from(self.keyboard.a20()) << 1,
            Port::Uart => {
                let value = self.uart.read(port - uart::COM1, tick);
                self.settle_uart(tick, effects);
                value
            }
            Port::Apm => self.power.read_apm(port),
            Port::FwCfg => self.fw_cfg.read(port),
            Port::PciAddress if port == RESET_CONTROL => self.reset_control,
            Port::TestRegister => self.test.read(port),
            Port::PciTest => self.pci_test.read(self.pci_test_offset(port)),
            Port::Print => DEBUG_CONSOLE as u8,
            _ => 0xff,
        }
    }

    fn write_byte(&mut self, port: u16, value: u8, tick: u64, effects: &mut Effects) {
        match self.ports.get(port) {
            Port::Pic => {
                self.settle_pit(tick, effects);
                self.lines.pic.write(port, value);
                self.lines.update_intr(effects);
                self.settle_pit(tick, effects);
            }
            Port::Pit => {
                self.settle_pit(tick, effects);
                self.pit.write(port, value, tick);
                self.follow_pit(tick, effects);
            }
            Port::Rtc if port & 1 == 0 => self.rtc.select(value),
            Port::Rtc => {
                self.rtc.write(value, tick);
                self.settle_rtc(tick, effects);
            }
            Port::Keyboard => {
                let open = self.keyboard.a20();
                if self.keyboard.write(port, value) {
                    self.reset_processors(effects);
                }
                self.follow_a20(open, effects);
                self.settle_keyboard(effects);
            }
            Port::SystemControl => {
                let resets = value & !self.system_control & 1 != 0;
                self.system_control = value;
                let open = self.keyboard.a20();
                self.keyboard.set_a20(value & 2 != 0);
                self.follow_a20(open, effects);
                if resets {
                    self.reset_processors(effects);
                }
            }
            Port::Uart => {
                if let Some(byte) = self.uart.write(port - uart::COM1, value, tick) {
                    self.serial_output.push(byte);
                }
                self.settle_uart(tick, effects);
            }
            Port::Apm => {
                self.power.write_apm(port, value);
                self.settle_power(tick, effects);
            }
            Port::PciAddress if port == RESET_CONTROL => self.control_reset(value, effects),
            Port::TestRegister => self.test.write(port, value),
            Port::TestLines => {
                let line = (port - test_device::LINES) as u8;
                self.lines.set(line, Driver::Test, value != 0, effects);
            }
            Port::PciTest => self.pci_test.write(Window::Ports, self.pci_test_offset(port), value),
            Port::Print => self.console_output.push(value),
            Port::Shutdown => self.spell_shutdown(value, effects),
            _ => {}
        }
    }

    /// A read from a port that belongs to a device. Kept out of line: the look into the table is all that a port needs
    /// which nobody listens to.
    #[inline(never)]
    fn read_device(&mut self, device: Port, port: u16, size: u8, tick: u64, effects: &mut Effects) -> u32 {
        match device {
            Port::DebugExit => ones(size),
            Port::Power => {
                let base = self.pci.power_base().unwrap_or(port);
                let value = self.power.read(port - base, size, tick);
                self.settle_power(tick, effects);
                value
            }
            Port::PciAddress if size == 4 => self.pci.address(),
            Port::PciData => self.pci.read(port, size),
            _ => (0..u16::from(size)).fold(0, |value, i| {
                value | u32::from(self.read_byte(port.wrapping_add(i), tick, effects)) << (8 * i)
            }),
        }
    }

    /// The same for a write.
    #[inline(never)]
    fn write_device(
        &mut self,
        device: Port,
        port: u16,
        size: u8,
        value: u32,
        tick: u64,
        effects: &mut Effects,
    ) {
        match device {
            Port::TestFlush => {}
            Port::DebugExit => effects.stop = Some(Stop::Requested(value & ones(size))),
            Port::Power => {
                let base = self.pci.power_base().unwrap_or(port);
                if let Some(Sleep::S5) = self.power.write(port - base, size, value, tick) {
                    effects.stop = Some(Stop::PowerOff);
                }
                self.settle_power(tick, effects);
            }
            Port::FwCfg => {
                if self.fw_cfg.write(port, size, value) {
                    self.timers.arm(Timer::Transfer, Some(tick), effects);
                }
            }
            Port::PciAddress if size == 4 => self.pci.set_address(value),
            Port::PciData => {
                let shadows = self.pci.shadows();
                if self.pci.write(port, size, value) {
                    self.relocate();
                }
                if self.pci.shadows() != shadows {
                    effects.memory_map = Some(self.memory_map());
                }
            }
            _ => {
                for (i, byte) in (0..u16::from(size)).zip(value.to_le_bytes()) {
                    self.write_byte(port.wrapping_add(i), byte, tick, effects);
                }
            }
        }
    }

    /// After the gate of address line 20 may have moved; it was `open`.
    fn follow_a20(&self, open: bool, effects: &mut Effects) {
        if self.keyboard.a20() != open {
            effects.memory_map = Some(self.memory_map());
        }
    }

    fn pci_test_offset(&self, port: u16) -> u64 {
        u64::from(port - self.pci.test_ports().unwrap_or(port))
    }

    /// A rising bit 2 resets: everything, or only the processors.
    fn control_reset(&mut self, value: u8, effects: &mut Effects) {
        let resets = value & !self.reset_control & 4 != 0;
        self.reset_control = value & 0x0e;
        if resets && value & 2 != 0 {
            effects.stop = Some(Stop::Reset);
        } else if resets {
            self.reset_processors(effects);
        }
    }

    fn spell_shutdown(&mut self, value: u8, effects: &mut Effects) {
        let expected = SHUTDOWN_TEXT.get(usize::from(self.shutdown));
        self.shutdown =
            if expected == Some(&value) { self.shutdown + 1 } else { u8::from(value == SHUTDOWN_TEXT[0]) };
        if usize::from(self.shutdown) == SHUTDOWN_TEXT.len() {
            self.shutdown = 0;
            effects.stop = Some(Stop::PowerOff);
        }
    }

    /// The offset of an address in the memory of the PCI test device, if it is there.
    fn pci_memory_offset(&self, address: u64) -> Option<u64> {
        let base = self.pci.test_memory()?;
        Some(address.wrapping_sub(base)).filter(|offset| *offset < PCI_MEMORY_SIZE)
    }
}

impl Bus for Pc {
    #[inline]
    fn read_port(&mut self, port: u16, size: u8, tick: u64, effects: &mut Effects) -> u32 {
        match self.ports.get(port) {
            Port::Absent | Port::Diagnostic => ones(size),
            device => self.read_device(device, port, size, tick, effects),
        }
    }

    #[inline]
    fn write_port(&mut self, port: u16, size: u8, value: u32, tick: u64, effects: &mut Effects) {
        match self.ports.get(port) {
            Port::Absent | Port::Diagnostic => {}
            device => self.write_device(device, port, size, value, tick, effects),
        }
    }

    fn read_mmio(&mut self, address: HostPhysical, size: u8, tick: u64, effects: &mut Effects) -> u64 {
        match address.0 {
            at @ hpet::BASE..HPET_END => {
                self.settle_hpet(tick, effects);
                self.hpet.read(at - hpet::BASE, size)
            }
            at @ ioapic::BASE..0xfec0_1000 => self.lines.ioapic.read(at - ioapic::BASE, size),
            at @ test_device::MEMORY..0xff01_0000 => self.test.read_memory(at - test_device::MEMORY, size),
            at => match self.pci_memory_offset(at) {
                Some(offset) => (0..u64::from(size))
                    .fold(0, |value, i| value | u64::from(self.pci_test.read(offset + i)) << (8 * i)),
                None => u64::MAX >> (64 - 8 * u32::from(size)),
            },
        }
    }

    fn write_mmio(&mut self, address: HostPhysical, size: u8, value: u64, tick: u64, effects: &mut Effects) {
        match address.0 {
            at @ ioapic::BASE..0xfec0_1000 => {
                // Edges before this write find the old entry; after it, the timer may be heard.
                self.settle_pit(tick, effects);
                self.lines.ioapic.write(at - ioapic::BASE, size, value, &mut effects.interrupts);
                self.settle_pit(tick, effects);
            }
            at @ hpet::BASE..HPET_END => self.write_hpet(at - hpet::BASE, size, value, tick, effects),
            at @ test_device::MEMORY..0xff01_0000 => {
                self.test.write_memory(at - test_device::MEMORY, size, value);
            }
            at => {
                if let Some(offset) = self.pci_memory_offset(at) {
                    for (i, byte) in (0..u64::from(size)).zip(value.to_le_bytes()) {
                        self.pci_test.write(Window::Memory, offset + i, byte);
                    }
                }
            }
        }
    }

    fn deadline(&mut self, source: u32, tick: u64, memory: &mut PhysicalMemory, effects: &mut Effects) {
        self.expire(source, tick, memory, effects);
    }

    fn acknowledge(&mut self, tick: u64, effects: &mut Effects) -> u8 {
        self.settle_pit(tick, effects);
        let vector = self.lines.pic.acknowledge();
        self.lines.update_intr(effects);
        vector
    }

    fn end_of_interrupt(&mut self, vector: u8, _: u64, effects: &mut Effects) {
        self.lines.ioapic.end_of_interrupt(vector, &mut effects.interrupts);
    }

    fn copy(&self) -> Option<Box<dyn Bus>> {
        Some(Box::new(self.clone()))
    }

    fn digest(&self, digest: &mut Digest) {
        self.lines.digest(digest);
        self.timers.digest(digest);
        self.pit.digest(digest);
        self.rtc.digest(digest);
        self.hpet.digest(digest);
        self.uart.digest(digest);
        self.keyboard.digest(digest);
        self.power.digest(digest);
        self.fw_cfg.digest(digest);
        self.pci.digest(digest);
        self.pci_test.digest(digest);
        self.test.digest(digest);
        digest.all(&[
            self.pit_event,
            u64::from(self.system_control),
            u64::from(self.reset_control),
            u64::from(self.shutdown),
        ]);
    }
}
