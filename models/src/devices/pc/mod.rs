//! The chipset: every device of the machine behind one [`Bus`], with its ports, windows and interrupt lines.
//!
//! ```
//! use rootmode_cpu::board::Board;
//! use rootmode_models::devices::pc::{Configuration, Pc};
//! let mut board = Board::new();
//! Pc::install(&Configuration { processors: 2, memory: 64 << 20, ..Configuration::default() }, &mut board)?;
//! // Processors and an image follow. Between runs: what the guest printed, keys for it.
//! board.with_bus(|bus, _, tick, effects| {
//!     let pc = Pc::of_mut(bus).expect("a Pc is installed");
//!     assert!(pc.take_serial_output().is_empty());
//!     pc.serial_input(b"x", tick, effects);
//! });
//! // A snapshot of every device, and back.
//! let snapshot = Pc::of(board.bus()).expect("a Pc is installed").clone();
//! board.set_bus(Box::new(snapshot));
//! # Ok::<(), rootmode_mmu::LayoutError>(())
//! ```

mod bus;
mod configuration;
mod firmware;
mod lines;
mod ports;
mod timers;

pub use configuration::{Configuration, FIRMWARE_END, HIGH_RAM, PCI_HOLE};

use super::GuestMemory;
use super::acpi::{power, tables};
use super::fw_cfg::{self, FwCfg};
use super::hpet::{self, Hpet};
use super::ioapic::{self, IoApic};
use super::keyboard::{self, Keyboard};
use super::pci::test_device::PciTestDevice;
use super::pci::{self, PciBus};
use super::pic::PicPair;
use super::pit::Pit;
use super::rtc::{self, Rtc};
use super::test_device::{self, TestDevice};
use super::uart::{self, Uart};
use lines::{Driver, Lines};
use ports::{Port, PortTable};
use rootmode_arch::HostPhysical;
use rootmode_arch::record::Stop;
use rootmode_cpu::board::Board;
use rootmode_cpu::{Bus, Effects, Message};
use rootmode_mmu::{Decode, LayoutError, MemoryMap, Shadow};
use std::any::Any;
use timers::{Timer, Timers};

/// A byte written here goes to the debug console; reads answer 0xe9, which says that it exists.
pub const DEBUG_CONSOLE: u16 = 0xe9;
/// A write here stops the machine with the written value (QEMU's isa-debug-exit).
pub const DEBUG_EXIT: u16 = 0xf4;
/// The text "Shutdown", written here byte by byte, powers the machine off (as in Bochs).
pub const SHUTDOWN: u16 = 0x8900;
/// Codes written here are forgotten.
pub const DIAGNOSTIC: u16 = 0x80;
/// Fast A20 gate (bit 1) and reset (bit 0).
pub const SYSTEM_CONTROL: u16 = 0x92;
/// Reset control register: bit 2 resets, bit 1 says that it is a hard reset.
pub const RESET_CONTROL: u16 = 0xcf9;

const SHUTDOWN_TEXT: &[u8] = b"Shutdown";

/// The chips that a kernel with interrupt controllers of its own has in the chipset's place.
#[derive(Clone, Debug)]
pub struct Chips {
    /// The 8259s.
    pub pic: PicPair,
    /// The I/O APIC.
    pub ioapic: IoApic,
    /// The 8254.
    pub pit: Pit,
}

/// The chipset. `Clone` is its snapshot.
#[derive(Clone, Debug)]
pub struct Pc {
    processors: u8,
    /// Bytes of firmware below 4 GiB.
    firmware: u64,
    ports: PortTable,
    lines: Lines,
    timers: Timers,
    pit: Pit,
    /// The next tick at which OUT of counter 0 changes; `u64::MAX` if it does not.
    pit_event: u64,
    rtc: Rtc,
    hpet: Hpet,
    uart: Uart,
    keyboard: Keyboard,
    power: power::Power,
    fw_cfg: FwCfg,
    pci: PciBus,
    pci_test: PciTestDevice,
    test: TestDevice,
    system_control: u8,
    reset_control: u8,
    /// How much of the shutdown text has been written.
    shutdown: u8,
    serial_output: Vec<u8>,
    console_output: Vec<u8>,
}

impl Pc {
    /// Ranges of physical addresses whose accesses must reach the bus: (base, bytes).
    pub const WINDOWS: [(HostPhysical, u64); 4] = [
        (HostPhysical(PCI_HOLE), 0xfec0_0000 - PCI_HOLE),
        (HostPhysical(ioapic::BASE), ioapic::SIZE),
        // A page, of which the registers take the first part.
        (HostPhysical(hpet::BASE), 0x1000),
        (HostPhysical(test_device::MEMORY), test_device::MEMORY_SIZE),
    ];

    /// Puts memory, windows and a chipset on an empty board and starts the chipset. Without firmware, low memory gets
    /// [`Pc::acpi_tables`] and [`Pc::firmware_remains`].
    ///
    /// # Errors
    /// [`LayoutError`] if the configured memory is not a number of whole pages, or the board has something in the way.
    pub fn install(configuration: &Configuration, board: &mut Board) -> Result<(), LayoutError> {
        for (base, bytes) in Self::ram(configuration) {
            board.memory.add_ram(base, bytes)?;
        }
        for (base, bytes) in Self::WINDOWS {
            board.memory.add_mmio(base, bytes)?;
        }
        if configuration.firmware == 0 {
            let tables = Self::acpi_tables(configuration);
            for (address, bytes) in Self::firmware_remains().into_iter().chain([tables]) {
                board.memory.write(address, &bytes);
            }
        }
        board.set_bus(Box::new(Self::new(configuration)));
        board.with_bus(|bus, _, tick, effects| {
            if let Some(pc) = Self::of_mut(bus) {
                pc.start(tick, effects);
            }
        });
        Ok(())
    }

    /// The chipset behind a bus, if it is one.
    pub fn of(bus: &dyn Bus) -> Option<&Self> {
        (bus as &dyn Any).downcast_ref()
    }

    /// The chipset behind a bus, if it is one.
    pub fn of_mut(bus: &mut dyn Bus) -> Option<&mut Self> {
        (bus as &mut dyn Any).downcast_mut()
    }

    /// Ranges of RAM: (base, bytes).
    pub fn ram(configuration: &Configuration) -> Vec<(HostPhysical, u64)> {
        let (below, above) = configuration.ram();
        let mut ram = vec![(HostPhysical(0), below)];
        if above > 0 {
            ram.push((HostPhysical(HIGH_RAM), above));
        }
        ram
    }

    /// The ACPI tables and where a loader that takes the place of firmware writes them.
    pub fn acpi_tables(configuration: &Configuration) -> (HostPhysical, Vec<u8>) {
        (HostPhysical(tables::LOW_MEMORY), tables::in_low_memory(configuration.processors))
    }

    /// A chipset at tick 0. Without firmware its devices are as firmware leaves them; a loader then also writes
    /// [`Pc::firmware_remains`] and [`Pc::acpi_tables`] to memory.
    pub fn new(configuration: &Configuration) -> Self {
        let (below, above) = configuration.ram();
        let mut rtc = Rtc::new(configuration.date);
        rtc.describe(below, above, configuration.processors);
        let mut pc = Self {
            processors: configuration.processors,
            firmware: configuration.firmware,
            ports: PortTable::new(),
            lines: Lines::new(),
            timers: Timers::default(),
            pit: Pit::new(),
            pit_event: u64::MAX,
            rtc,
            hpet: Hpet::new(),
            uart: Uart::new(),
            keyboard: Keyboard::new(),
            power: power::Power::new(),
            fw_cfg: FwCfg::new(configuration.fw_cfg()),
            pci: if configuration.firmware > 0 { PciBus::after_reset() } else { PciBus::new() },
            pci_test: PciTestDevice::new(),
            test: TestDevice::new(),
            system_control: 0x02,
            reset_control: 0,
            shutdown: 0,
            serial_output: Vec::new(),
            console_output: Vec::new(),
        };
        pc.wire_ports();
        if configuration.firmware == 0 {
            pc.initialize_as_firmware();
        }
        pc
    }

    /// Gives interrupt controllers and timer away, as they are: their ports and lines are somebody else's from now on
    /// ([`Pc::take_lines`]). Deadlines have to be asked for again ([`Pc::start`]).
    pub fn give_chips(&mut self) -> Chips {
        let (pic, ioapic) = self.lines.give();
        for port in [Port::Pic, Port::Pit] {
            self.ports.relocate(port, None);
        }
        self.pit_event = u64::MAX;
        self.timers = Timers::default();
        Chips { pic, ioapic, pit: std::mem::take(&mut self.pit) }
    }

    /// The lines that changed since the last call and their levels, in order, if the controllers were given away.
    pub fn take_lines(&mut self) -> Vec<(u8, bool)> {
        self.lines.take_changes()
    }

    /// A deadline has come: [`Bus::deadline`] of whoever has the guest's memory elsewhere.
    pub fn expire(&mut self, source: u32, tick: u64, memory: &mut impl GuestMemory, effects: &mut Effects) {
        match self.timers.take(source) {
            Some(Timer::Pit) => self.settle_pit(tick, effects),
            Some(Timer::Rtc) => self.settle_rtc(tick, effects),
            Some(Timer::Uart) => self.settle_uart(tick, effects),
            Some(Timer::Power) => self.settle_power(tick, effects),
            Some(Timer::Hpet) => self.settle_hpet(tick, effects),
            Some(Timer::Transfer) => self.fw_cfg.transfer(memory),
            None => {}
        }
    }

    fn wire_ports(&mut self) {
        for (first, count, device) in [
            (0x20, 2, Port::Pic),
            (0xa0, 2, Port::Pic),
            (0x4d0, 2, Port::Pic),
            (0x40, 4, Port::Pit),
            (0x61, 1, Port::Pit),
            (0x70, 2, Port::Rtc),
            (keyboard::DATA, 1, Port::Keyboard),
            (keyboard::COMMAND, 1, Port::Keyboard),
            (DIAGNOSTIC, 1, Port::Diagnostic),
            (SYSTEM_CONTROL, 1, Port::SystemControl),
            (uart::COM1, 8, Port::Uart),
            (power::SMI_COMMAND, 2, Port::Apm),
            (fw_cfg::SELECTOR, 2, Port::FwCfg),
            (fw_cfg::DMA, 8, Port::FwCfg),
            (pci::ADDRESS, 4, Port::PciAddress),
            (pci::DATA, 4, Port::PciData),
            (test_device::READ_BACK, 4, Port::TestRegister),
            (test_device::FLUSH, 4, Port::TestFlush),
            (test_device::READ_BACK_BYTES, 4, Port::TestRegister),
            (test_device::LINES, test_device::LINE_COUNT, Port::TestLines),
            // The debug console takes one byte from the test device, which has the same register at 0xe1.
            (DEBUG_CONSOLE, 1, Port::Print),
            (DEBUG_EXIT, 4, Port::DebugExit),
            (SHUTDOWN, 1, Port::Shutdown),
        ] {
            self.ports.set(first, count, device);
        }
        self.relocate();
    }

    /// Follows the functions whose ports software can move.
    fn relocate(&mut self) {
        let power = self.pci.power_base().map(|base| (base, power::SIZE));
        self.ports.relocate(Port::Power, power);
        let test = self.pci.test_ports().map(|base| (base, pci::test_device::PORT_COUNT));
        self.ports.relocate(Port::PciTest, test);
    }

    /// Bytes from the outside world to the serial port.
    pub fn serial_input(&mut self, bytes: &[u8], tick: u64, effects: &mut Effects) {
        self.uart.receive(bytes, tick);
        self.settle_uart(tick, effects);
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self, tick: u64, effects: &mut Effects) {
        self.power.press_power_button();
        self.settle_power(tick, effects);
    }

    /// What the guest sent through the serial port since the last call. Not part of the machine's state.
    pub fn take_serial_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.serial_output)
    }

    /// What the guest wrote to the debug console since the last call. Not part of the machine's state.
    pub fn take_console_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.console_output)
    }

    /// Whether address line 20 passes.
    pub fn a20(&self) -> bool {
        self.keyboard.a20()
    }

    /// What the chipset makes of the RAM.
    pub fn memory_map(&self) -> MemoryMap {
        let rom = (self.firmware > 0).then(|| Shadow {
            base: HostPhysical(FIRMWARE_END - self.firmware),
            bytes: self.firmware,
            loads: Decode::Ram,
            stores: Decode::Elsewhere,
        });
        MemoryMap { line_20_low: !self.a20(), shadows: self.pci.shadows().into_iter().chain(rom).collect() }
    }

    /// Brings IRQ 0 to where OUT of counter 0 is at `tick`, through every edge on the way: a pulse is shorter than a slice.
    fn settle_pit(&mut self, tick: u64, effects: &mut Effects) {
        // An edge more changes nothing when nobody was called for the ones before: it finds the line as they did.
        const EDGES: u32 = 16;
        for _ in 0..EDGES {
            if self.pit_event > tick {
                break;
            }
            let event = self.pit_event;
            self.drive_pit(event, effects);
            self.pit_event = self.pit.next_event(event).unwrap_or(u64::MAX);
        }
        if self.pit_event <= tick {
            self.follow_pit(tick, effects);
        } else {
            self.arm_pit(effects);
        }
    }

    /// Brings IRQ 0 to where OUT of counter 0 is after a write, or after edges without number.
    fn follow_pit(&mut self, tick: u64, effects: &mut Effects) {
        self.drive_pit(tick, effects);
        self.pit_event = self.pit.next_event(tick).unwrap_or(u64::MAX);
        self.arm_pit(effects);
    }

    /// With legacy replacement the interval timer and the clock have no lines (IA-PC HPET 1.0a "Legacy Replacement Option").
    fn drive_pit(&mut self, tick: u64, effects: &mut Effects) {
        let high = self.pit.out0(tick) && !self.hpet.replaces_legacy();
        self.lines.set(0, Driver::Device, high, effects);
    }

    /// Brings the lines of the event timers to where they are at `tick`.
    fn settle_hpet(&mut self, tick: u64, effects: &mut Effects) {
        for hpet::Request { line } in self.hpet.advance(tick) {
            self.lines.set(line, Driver::EventTimer, true, effects);
            self.lines.set(line, Driver::EventTimer, false, effects);
        }
        self.hold_levels(effects);
        self.timers.arm(Timer::Hpet, self.hpet.next_event(), effects);
    }

    fn hold_levels(&mut self, effects: &mut Effects) {
        let levels = self.hpet.levels();
        for line in 0..ioapic::PINS {
            self.lines.set(line, Driver::EventTimer, levels & 1 << line != 0, effects);
        }
    }

    fn write_hpet(&mut self, offset: u64, size: u8, value: u64, tick: u64, effects: &mut Effects) {
        self.settle_hpet(tick, effects);
        self.settle_pit(tick, effects);
        self.hpet.write(offset, size, value);
        self.settle_hpet(tick, effects);
        self.follow_pit(tick, effects);
        self.settle_rtc(tick, effects);
    }

    fn arm_pit(&mut self, effects: &mut Effects) {
        if self.pit_event != u64::MAX && self.lines.timer_is_heard() {
            self.timers.arm(Timer::Pit, Some(self.pit_event), effects);
        }
    }

    fn settle_rtc(&mut self, tick: u64, effects: &mut Effects) {
        let high = self.rtc.interrupt(tick) && !self.hpet.replaces_legacy();
        self.lines.set(rtc::IRQ, Driver::Device, high, effects);
        self.timers.arm(Timer::Rtc, self.rtc.next_event(tick), effects);
    }

    fn settle_uart(&mut self, tick: u64, effects: &mut Effects) {
        self.lines.set(uart::COM1_IRQ, Driver::Device, self.uart.interrupt(tick), effects);
        self.timers.arm(Timer::Uart, self.uart.next_event(tick), effects);
    }

    fn settle_keyboard(&mut self, effects: &mut Effects) {
        for (irq, high) in keyboard::IRQ.into_iter().zip(self.keyboard.interrupts()) {
            self.lines.set(irq, Driver::Device, high, effects);
        }
    }

    fn settle_power(&mut self, tick: u64, effects: &mut Effects) {
        let high = self.power.interrupt(tick);
        self.lines.set(power::SCI_IRQ, Driver::Device, high, effects);
        self.timers.arm(Timer::Power, self.power.next_event(tick), effects);
    }

    /// The INIT line of every processor. Without firmware it leads nowhere, so it counts as a reset of the machine.
    fn reset_processors(&self, effects: &mut Effects) {
        if self.firmware > 0 {
            effects.messages.extend((0..self.processors).map(|index| (index, Message::Init)));
        } else {
            effects.stop = Some(Stop::Reset);
        }
    }
}

#[cfg(test)]
mod tests;
