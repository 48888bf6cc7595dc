//! The same ROM on this simulator's processor: a board with nothing but memory, a log port and a switch.

use rootmode_arch::choices::Tame;
use rootmode_arch::cpuid::TABLE;
use rootmode_arch::record::{Level, Stop};
use rootmode_arch::{FeatureSet, HostPhysical, Vendor};
use rootmode_cpu::board::Board;
use rootmode_cpu::{Bus, Cpu, Effects, Model, Virtualization};
use rootmode_mmu::PhysicalMemory;
use rootmode_svm::Processor;
use rootmode_svm::drive::Svm;
use rootmode_vmx::drive::Vmx;

use crate::judges::judge::Extension;
use crate::judges::layout::{IMAGE, IMAGE_SIZE, MEMORY_MIB, ROM_BASE, ROM_SIZE};
use crate::judges::rom::LOG_PORT;

/// Ticks that a batch gets.
const LIMIT: u64 = 1 << 34;

#[derive(Default)]
struct Ports {
    log: Vec<u8>,
}

impl Bus for Ports {
    fn read_port(&mut self, _: u16, size: u8, _: u64, _: &mut Effects) -> u32 {
        u32::MAX >> (32 - 8 * u32::from(size))
    }
    fn write_port(&mut self, port: u16, _: u8, value: u32, _: u64, effects: &mut Effects) {
        match u32::from(port) {
            LOG_PORT => self.log.push(value as u8),
            0xf4 => effects.stop = Some(Stop::PowerOff),
            _ => {}
        }
    }
    fn read_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: &mut Effects) -> u64 {
        u64::MAX
    }
    fn write_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: u64, _: &mut Effects) {}
    fn deadline(&mut self, _: u32, _: u64, _: &mut PhysicalMemory, _: &mut Effects) {}
}

/// The features that a processor of ours has in common with the judging machine's.
#[must_use]
pub fn common(extension: Extension, theirs: &FeatureSet) -> FeatureSet {
    let ours = match extension {
        Extension::Vmx => *Model::max_intel().features(),
        Extension::Svm => *Model::max_amd().features(),
    };
    let both =
        TABLE.iter().map(|row| row.feature).filter(|feature| ours.has(*feature) && theirs.has(*feature));
    both.fold(FeatureSet::none(), FeatureSet::with)
}

/// What the ROM `image` prints on a processor with `features`.
///
/// # Panics
///
/// Never: the memory is well-formed.
#[must_use]
pub fn run(extension: Extension, image: &[u8], features: FeatureSet) -> String {
    let mut board = Board::new();
    board.set_choices(Box::new(Tame));
    board.set_bus(Box::<Ports>::default());
    let memory = &mut board.memory;
    memory.add_ram(HostPhysical(0), MEMORY_MIB << 20).expect("the first region cannot overlap");
    memory.add_ram(HostPhysical(IMAGE), IMAGE_SIZE as u64).expect("the image lies far above it");
    memory.write(HostPhysical(IMAGE), image);
    memory.write(HostPhysical(ROM_BASE), &image[IMAGE_SIZE - ROM_SIZE..]);
    let (model, virtualization): (_, Box<dyn Virtualization>) = match extension {
        Extension::Vmx => {
            let model = Model::new(Vendor::Intel, features);
            let vmx = Vmx::new(&model, Level::L1);
            (model, Box::new(vmx))
        }
        Extension::Svm => {
            let model = Model::new(Vendor::Amd, features);
            let processor = Processor::new("here", features, model.physical_width());
            (model, Box::new(Svm::new(processor, Level::L1)))
        }
    };
    board.add_processor(Cpu::new(0, model.into()), Some(virtualization));
    board.run(LIMIT);
    let ports = (board.bus() as &dyn std::any::Any).downcast_ref::<Ports>();
    ports.map_or_else(String::new, |ports| String::from_utf8_lossy(&ports.log).into_owned())
}
