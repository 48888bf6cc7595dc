//! A small machine for tests: identity-mapped memory, a GDT, an IDT, a TSS, code from the iced-x86 assembler.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "every test file uses a part of it")]

pub mod witness;

use iced_x86::code_asm::CodeAssembler;
use rootmode_arch::choices::{Choices, Tame};
use rootmode_arch::{AccessRights, DescriptorTable, HostPhysical, Segment, SegmentName, Selector};
use rootmode_cpu::{Bus, Context, Cpu, Effects, EmptyBus, Model, Processor, RunEnd};
use rootmode_mmu::PhysicalMemory;
use std::sync::Arc;

/// Where code is put.
pub const CODE: u64 = 0x1_0000;
/// Where test data lies.
pub const DATA: u64 = 0x2_0000;
/// The initial stack pointer.
pub const STACK: u64 = 0x3_8000;
pub const GDT: u64 = 0x5000;
pub const IDT: u64 = 0x6000;
pub const TSS: u64 = 0x7000;
/// The PML4; identity-maps 1 GiB with 2-MiB pages, user-accessible.
pub const CR3: u64 = 0x1000;
/// Kernel and user selectors.
pub const KERNEL_CS: u64 = 0x08;
pub const USER_CS: u64 = 0x23;
pub const USER_SS: u64 = 0x1b;

pub struct Rig {
    pub memory: PhysicalMemory,
    pub processor: Processor,
    pub bus: Box<dyn Bus>,
    pub choices: Box<dyn Choices>,
    pub effects: Effects,
}

impl Rig {
    pub fn new() -> Self {
        Self::with_model(Model::max_intel())
    }

    pub fn with_model(model: Model) -> Self {
        let mut memory = PhysicalMemory::new();
        memory.add_ram(HostPhysical(0), 0x20_0000).expect("the rig is well-formed");
        memory.write_u64(HostPhysical(CR3), 0x2000 | 7);
        memory.write_u64(HostPhysical(0x2000), 0x3000 | 7);
        for n in 0..512 {
            memory.write_u64(HostPhysical(0x3000 + n * 8), n << 21 | 0x87);
        }
        let gdt =
            [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];
        for (n, descriptor) in gdt.iter().enumerate() {
            memory.write_u64(HostPhysical(GDT + n as u64 * 8), *descriptor);
        }
        let mut cpu = Cpu::new(0, Arc::new(model));
        cpu.gdtr = DescriptorTable { base: GDT, limit: 0x7f };
        cpu.idtr = DescriptorTable { base: IDT, limit: 0xfff };
        *cpu.segment_mut(SegmentName::Tr) =
            Segment { selector: Selector(0x30), rights: AccessRights(0x8b), limit: 0x67, base: TSS };
        memory.write_u64(HostPhysical(TSS + 4), 0x3_c000);
        cpu.enter_long_mode(CR3, CODE, STACK);
        cpu.apic.virtual_wire();
        let processor = Processor::new(cpu, None);
        Self {
            memory,
            processor,
            bus: Box::new(EmptyBus),
            choices: Box::new(Tame),
            effects: Effects::default(),
        }
    }

    /// Assembles at [`CODE`].
    pub fn code(&mut self, build: impl FnOnce(&mut CodeAssembler)) {
        self.code_at(CODE, build);
    }

    pub fn code_at(&mut self, at: u64, build: impl FnOnce(&mut CodeAssembler)) {
        let mut assembler = CodeAssembler::new(64).expect("the rig is well-formed");
        build(&mut assembler);
        let bytes = assembler.assemble(at).expect("the rig is well-formed");
        self.memory.write(HostPhysical(at), &bytes);
    }

    /// An IDT gate: `kind` 0xe (interrupt) or 0xf (trap).
    pub fn gate(&mut self, vector: u8, handler: u64, kind: u64, dpl: u64, ist: u64) {
        let low = handler & 0xffff
            | KERNEL_CS << 16
            | ist << 32
            | kind << 40
            | dpl << 45
            | 1 << 47
            | (handler >> 16 & 0xffff) << 48;
        self.memory.write_u64(HostPhysical(IDT + u64::from(vector) * 16), low);
        self.memory.write_u64(HostPhysical(IDT + u64::from(vector) * 16 + 8), handler >> 32);
    }

    pub fn run(&mut self, ticks: u64) -> RunEnd {
        let until = self.processor.cpu.tick + ticks;
        let mut context = Context {
            memory: &mut self.memory,
            bus: &mut *self.bus,
            choices: &mut *self.choices,
            observer: None,
            effects: &mut self.effects,
            gates: false,
        };
        self.processor.run(&mut context, until)
    }

    pub fn cpu(&mut self) -> &mut Cpu {
        &mut self.processor.cpu
    }

    pub fn read(&self, at: u64) -> u64 {
        self.memory.read_u64(HostPhysical(at))
    }
}
