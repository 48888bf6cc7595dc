//! A guest hypervisor on the bare machine: it uses the processor's own VMX or SVM.

use std::sync::Arc;

use rootmode_arch::choices::Choices;
use rootmode_arch::record::Level;
use rootmode_arch::{
    AccessRights, Cr4, Feature, Hardware, HostPhysical, Segment, SegmentName, Selector, Vendor,
};
use rootmode_cpu::board::Board;
use rootmode_cpu::{Cpu, Model, Virtualization};
use rootmode_models::devices::TestPorts;
use rootmode_models::kvm::vm::host_model;
use rootmode_vmx::drive::offered::Offer;

use super::run::{Contents, Recorder, Run};
use crate::guests::GuestImage;
use crate::guests::layout::TSS_SELECTOR;

/// What the processors of [`host_model`] have and L1 is not shown: its MSRs are not switched for nested guests.
const NOT_NESTED: &[Feature] = &[Feature::Mtrr, Feature::ArchCapabilities];

/// The processor model on which both ways run L1: what this simulator has and the model of KVM virtualizes.
pub fn model(vendor: Vendor) -> Model {
    Model::new(vendor, host_model(vendor).features().without_all(NOT_NESTED))
}

/// The extension of a processor of `model` whose host-mode software is at `level`.
pub fn extension(model: &Model, level: Level) -> Box<dyn Virtualization> {
    crate::processor::extension(model, &Offer::FULL, level, None)
}

/// The processor as the image wants it.
pub fn start_state(image: &GuestImage, model: Model) -> Cpu {
    let mut cpu = Cpu::new(0, Arc::new(model));
    cpu.enter_long_mode(image.cr3, image.entry, image.stack);
    // The models have no FXSR, so nothing that an entry checks may say otherwise.
    cpu.cr4 = Cr4::PAE | Cr4::PGE;
    cpu.gdtr = image.gdt;
    cpu.idtr = image.idt;
    *cpu.segment_mut(SegmentName::Tr) = Segment {
        selector: Selector(TSS_SELECTOR),
        rights: AccessRights(0x8b),
        limit: 0x67,
        base: image.tss,
    };
    cpu.refresh();
    cpu
}

/// A board on which `image` is about to start, with its ports.
pub fn bare_board(image: &GuestImage, hardware: Hardware, choices: Box<dyn Choices + Send>) -> Board {
    board_of(image, model(image.vendor), hardware, choices)
}

/// The same with a processor of `model`.
pub fn board_of(
    image: &GuestImage,
    model: Model,
    hardware: Hardware,
    choices: Box<dyn Choices + Send>,
) -> Board {
    let mut board = Board::new();
    board
        .memory
        .add_ram(HostPhysical(0), image.memory)
        .expect("the first region fits into an empty address space");
    for (address, bytes) in &image.segments {
        board.memory.write(HostPhysical(*address), bytes);
    }
    board.set_bus(Box::new(TestPorts));
    board.set_choices(choices);
    board.set_hardware(hardware);
    let extension = extension(&model, Level::L1);
    board.add_processor(start_state(image, model), Some(extension));
    board
}

/// Runs `image` bare for at most `limit` ticks.
pub fn run_bare(image: &GuestImage, choices: Box<dyn Choices + Send>, limit: u64) -> Run {
    run_bare_with(image, &[], choices, limit)
}

/// The same on a machine with more memory: addresses and sizes.
pub fn run_bare_with(
    image: &GuestImage,
    more: &[(HostPhysical, u64)],
    choices: Box<dyn Choices + Send>,
    limit: u64,
) -> Run {
    let mut board = bare_board(image, Hardware::Tame, choices);
    for (address, bytes) in more {
        board.memory.add_ram(*address, *bytes).expect("nothing else lies there");
    }
    let recorder = Recorder::default();
    board.set_observer(Some(Box::new(recorder.clone())));
    let stopped = board.run(limit);
    let cpu = &board.processors()[0].cpu;
    let mut registers = [0; 17];
    registers[..16].copy_from_slice(&cpu.gpr);
    registers[16] = cpu.rip;
    let memory = Contents::read(image.memory, |at, page| board.memory.read(HostPhysical(at), page));
    Run { stop: stopped.stop, ticks: stopped.tick, records: recorder.take(), memory, registers }
}
