//! [`Machine`]: a PC as a product: board, processors, chipset and an image, ready to run.

mod elf;
mod entry;
mod hostile;
mod image;
mod linux;
mod multiboot;
mod pvh;
mod system;
#[cfg(test)]
mod tests;

pub use hostile::{Findings, describe, describe_held, describe_trusted};
pub use image::{Image, ImageError};
pub use system::System;

use rootmode_arch::choices::Choices;
use rootmode_arch::record::{Level, Stop};
use rootmode_arch::{Hardware, HostPhysical};
use rootmode_cpu::Cpu;
use rootmode_cpu::board::{Board, Snapshot, SnapshotError, Stopped};
use rootmode_mmu::LayoutError;
use rootmode_models::devices::pc::{Configuration, FIRMWARE_END, Pc};

use crate::processor::Processor;

/// Processors a machine may have.
pub const PROCESSORS: std::ops::RangeInclusive<u8> = 1..=64;

/// Watchers of both extensions; the machine tells the one of its processor's.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Of VMX.
    pub vmx: rootmode_vmx::drive::Watcher,
    /// Of SVM.
    pub svm: rootmode_svm::drive::Watcher,
}

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Which processor.
    pub cpu: Processor,
    /// Chipset, memory, number of processors, command line, initial RAM disk.
    pub configuration: Configuration,
    /// Firmware at the reset vector.
    pub firmware: Option<Vec<u8>>,
    /// What runs. Without it the processor starts at the reset vector.
    pub image: Option<Vec<u8>>,
    /// How it uses the latitude that the manuals leave. Findings go to the board's observer.
    pub hardware: Hardware,
    /// Who watches guests being entered and left.
    pub watch: Option<Watch>,
    /// The image's name, the first word of its command line.
    pub name: String,
}

impl Parts {
    /// A machine with one processor and the smallest memory that is usual, to run `image`.
    pub fn of_image(image: Vec<u8>) -> Self {
        Self {
            cpu: Processor::default(),
            configuration: Configuration::default(),
            firmware: None,
            image: Some(image),
            hardware: Hardware::Tame,
            watch: None,
            name: String::new(),
        }
    }
}

/// Why a machine cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// The memory's size.
    #[error("memory: {0}")]
    Memory(#[from] LayoutError),
    /// The number of processors.
    #[error("{0} processors: from {start} to {end} are possible", start = PROCESSORS.start(), end = PROCESSORS.end())]
    Processors(u8),
    /// The image.
    #[error("image: {0}")]
    Image(#[from] ImageError),
    /// The firmware.
    #[error("firmware of {0} bytes: its size must be a multiple of 4096, at most 16 MiB")]
    Firmware(usize),
    /// Neither an image nor firmware.
    #[error("nothing to run: name an image, or firmware")]
    Nothing,
}

/// A PC.
pub struct Machine {
    /// Memory, processors, clock and bus.
    pub board: Board,
}

impl Machine {
    /// Builds a machine whose choices come from `choices`.
    ///
    /// # Errors
    /// [`MachineError`] if parts do not fit.
    pub fn new(parts: &Parts, choices: Box<dyn Choices + Send>) -> Result<Self, MachineError> {
        let count = parts.configuration.processors;
        if !PROCESSORS.contains(&count) {
            return Err(MachineError::Processors(count));
        }
        if parts.image.is_none() && parts.firmware.is_none() {
            return Err(MachineError::Nothing);
        }
        let mut configuration = parts.configuration.clone();
        configuration.firmware = parts.firmware.as_ref().map_or(0, |rom| rom.len() as u64);
        let mut board = Board::new();
        board.set_choices(choices);
        board.set_hardware(parts.hardware);
        if let Some(rom) = &parts.firmware {
            load_firmware(&mut board, rom)?;
        }
        Pc::install(&configuration, &mut board)?;
        for index in 0..count {
            let cpu = Cpu::new(index, parts.cpu.model().clone());
            board.add_processor(cpu, parts.cpu.extension(Level::L1, parts.watch.as_ref()));
        }
        if parts.firmware.is_none() {
            // Firmware lets the 8259's interrupts through the first processor's APIC.
            board.processors_mut()[0].cpu.apic.virtual_wire();
            // It has also executed FNINIT on every processor.
            for processor in board.processors_mut() {
                processor.cpu.vectors.x87 = rootmode_cpu::vectors::X87::INITIAL;
            }
            install_smm_handlers(&mut board);
        }
        if let Some(bytes) = &parts.image {
            let image = Image::parse(bytes)?;
            image.load(bytes, &parts.name, &configuration, &mut board)?;
        }
        for processor in board.processors_mut().iter_mut().skip(1) {
            processor.cpu.activity = rootmode_cpu::Activity::WaitForSipi;
            processor.cpu.refresh();
        }
        Ok(Self { board })
    }

    /// Runs until machine time reaches `limit`, or something stops the machine.
    pub fn run(&mut self, limit: u64) -> Stopped {
        self.board.run(limit)
    }

    /// The whole machine as it is. Taking a snapshot changes nothing, and costs what was written since the last one.
    ///
    /// # Errors
    /// [`SnapshotError::Choices`] if the source of choices cannot be copied.
    pub fn snapshot(&mut self) -> Result<Snapshot, SnapshotError> {
        self.board.snapshot()
    }

    /// Continues from `snapshot`, which is of this machine or of one of the same parts.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing was changed.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.board.restore(snapshot)
    }

    /// What the guest printed since the last call: the serial port, then the debug console.
    pub fn take_output(&mut self) -> (Vec<u8>, Vec<u8>) {
        self.board.with_bus(|bus, _, _, _| match Pc::of_mut(bus) {
            Some(pc) => (pc.take_serial_output(), pc.take_console_output()),
            None => (Vec::new(), Vec::new()),
        })
    }

    /// Bytes for the guest's serial port, from outside.
    pub fn serial_input(&mut self, bytes: &[u8]) {
        self.board.with_bus(|bus, _, tick, effects| {
            if let Some(pc) = Pc::of_mut(bus) {
                pc.serial_input(bytes, tick, effects);
            }
        });
    }
}

/// The process's exit status for a stop, as QEMU gives it: isa-debug-exit's `value << 1 | 1`; 0 for power-off.
pub const fn exit_status(stop: Stop) -> u8 {
    match stop {
        Stop::Requested(value) => (value << 1 | 1) as u8,
        Stop::PowerOff => 0,
        _ => 3,
    }
}

/// The compatible SMM segment: RAM behind the video memory of a PC, which the chipset shows in SMM alone.
const SMRAM: u32 = 0xa_0000;
/// Distance of two processors' SMBASEs: the size of a state-save area, so that none overlaps another.
const SMBASE_STRIDE: u32 = 0x200;
/// Processors whose entries, from 0x8000 on, end before their state-save areas, which begin at 0xfe00.
const SMBASE_GROUP: u32 = 32;
/// Distance of two such groups: the second one's entries follow the first one's state-save areas.
const SMBASE_GROUP_STRIDE: u32 = 0xc000;

/// What firmware leaves behind: each processor's SMBASE in SMRAM, and RSM as its handler
/// (SDM Vol. 3C "SMRAM", "SMBASE Relocation"; APM Vol. 2 "SMM Resources").
fn install_smm_handlers(board: &mut Board) {
    for index in 0..board.processors().len() {
        let base = smbase(index as u32);
        board.processors_mut()[index].cpu.smbase = base;
        board.memory.set_management(true);
        board.memory.write(HostPhysical(u64::from(base) + 0x8000), &[0x0f, 0xaa]);
        board.memory.set_management(false);
    }
}

/// Where firmware puts a processor's SMBASE.
const fn smbase(index: u32) -> u32 {
    SMRAM + SMBASE_GROUP_STRIDE * (index / SMBASE_GROUP) + SMBASE_STRIDE * (index % SMBASE_GROUP)
}

/// Puts firmware right below 4 GiB, before there is a chipset that keeps stores from it. The chipset shows its last 128 KiB
/// below 1 MiB as well.
fn load_firmware(board: &mut Board, rom: &[u8]) -> Result<(), MachineError> {
    if rom.is_empty() || !rom.len().is_multiple_of(4096) || rom.len() > 16 << 20 {
        return Err(MachineError::Firmware(rom.len()));
    }
    let base = HostPhysical(FIRMWARE_END - rom.len() as u64);
    board.memory.add_ram(base, rom.len() as u64)?;
    board.memory.write(base, rom);
    Ok(())
}
