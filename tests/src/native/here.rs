//! Runs cases here: a processor in user mode over page tables that map the same addresses as the host's child has.

use super::draw::Drawn;
use super::state::*;
use rootmode_arch::choices::Tame;
use rootmode_arch::{
    AccessRights, Cr0, Cr4, DescriptorTable, Feature, HostPhysical, RFlags, Segment, SegmentName, Selector,
};
use rootmode_cpu::vectors::{Vectors, X87};
use rootmode_cpu::{Activity, Context, Cpu, Effects, EmptyBus, F80, Model, Processor, RunEnd};
use rootmode_mmu::PhysicalMemory;
use std::sync::Arc;

/// Physical places of tables; the first 2 MiB are mapped for the supervisor at [`KERNEL`].
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const TABLE: u64 = 0x4000;
const KERNEL_PDPT: u64 = 0x5000;
const KERNEL_DIRECTORY: u64 = 0x6000;
const GDT: u64 = 0x7000;
const IDT: u64 = 0x8000;
const TSS: u64 = 0x9000;
const STACK: u64 = 0x2_0000;
const HANDLERS: u64 = 0x3_0000;
/// Where the arena lies.
const FRAMES: u64 = 0x10_0000;
/// Linear address of physical address 0.
const KERNEL: u64 = 0xffff_ff00_0000_0000;

/// A processor that runs cases.
pub struct Here {
    processor: Processor,
    memory: PhysicalMemory,
}

impl std::fmt::Debug for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Here")
    }
}

impl Here {
    /// A processor of `model`; the read-only page holds `read_only`. With `protection_keys`, user mode has them, and they are
    /// PKRU: every page here has key 0.
    pub fn new(model: Model, read_only: &[u8; PAGE as usize], protection_keys: Option<u32>) -> Self {
        let mut memory = PhysicalMemory::new();
        memory.add_ram(HostPhysical(0), 0x20_0000).expect("the first region overlaps nothing");
        let mut entry =
            |at: u64, index: u64, value: u64| memory.write_u64(HostPhysical(at + index * 8), value);
        entry(PML4, 0, PDPT | 7);
        entry(PML4, KERNEL >> 39 & 511, KERNEL_PDPT | 3);
        entry(PDPT, ARENA >> 30, DIRECTORY | 7);
        entry(DIRECTORY, ARENA >> 21 & 511, TABLE | 7);
        entry(KERNEL_PDPT, 0, KERNEL_DIRECTORY | 3);
        entry(KERNEL_DIRECTORY, 0, 0x83);
        for (page, rights) in PAGES {
            let flags = match rights {
                Rights::Code => 5,
                Rights::Data => 7 | 1 << 63,
                Rights::ReadOnly => 5 | 1 << 63,
            };
            entry(TABLE, page, FRAMES + page * PAGE | flags);
        }
        let descriptors = [
            (2, 0x00af_9b00_0000_ffff_u64),
            (3, 0x00cf_9300_0000_ffff),
            (CODE_32 >> 3, 0x00cf_fb00_0000_ffff),
            (DATA_SELECTOR >> 3, 0x00cf_f300_0000_ffff),
            (CODE_64 >> 3, 0x00af_fb00_0000_ffff),
        ];
        descriptors.into_iter().for_each(|(n, descriptor)| entry(GDT, n, descriptor));
        for vector in 0..256 {
            let handler = KERNEL + HANDLERS + vector * 16;
            // Only INT3 and INTO may be used by user mode, as on Linux.
            let dpl = if matches!(vector, 3 | 4) { 3 << 45 } else { 0 };
            let low = handler & 0xffff | 0x10 << 16 | 0x8e << 40 | dpl | (handler >> 16 & 0xffff) << 48;
            entry(IDT, vector * 2, low);
            entry(IDT, vector * 2 + 1, handler >> 32);
        }
        // HLT: what is left of a case that faulted.
        memory.write(HostPhysical(HANDLERS), &[0xf4; 0x1000]);
        memory.write_u64(HostPhysical(TSS + 4), KERNEL + STACK);
        memory.write(HostPhysical(FRAMES + READ_ONLY - ARENA), read_only);
        let mut cpu = Cpu::new(0, Arc::new(model));
        cpu.enter_long_mode(PML4, CODE, 0);
        cpu.cr0 = cpu.cr0 | Cr0::AM;
        cpu.cr4 = Cr4((cpu.cr4 | Cr4::FSGSBASE | Cr4::OSXMMEXCPT | Cr4::OSXSAVE).0 & cpu.model.cr4_bits().0);
        if let Some(rights) = protection_keys.filter(|_| cpu.model.has(Feature::Pku)) {
            cpu.cr4 = cpu.cr4 | Cr4::PKE;
            cpu.pkru = rights;
        }
        // x87 and SSE; AVX where the model has it, as Linux enables it.
        cpu.xcr0 = if cpu.model.has(Feature::Avx) { 7 } else { 3 };
        cpu.gdtr = DescriptorTable { base: KERNEL + GDT, limit: 0x37 };
        cpu.idtr = DescriptorTable { base: KERNEL + IDT, limit: 0xfff };
        *cpu.segment_mut(SegmentName::Tr) =
            Segment { selector: Selector(0x40), rights: AccessRights(0x8b), limit: 0x67, base: KERNEL + TSS };
        Self { processor: Processor::new(cpu, None), memory }
    }

    /// Runs a case.
    pub fn run(&mut self, Drawn { case, instruction }: &Drawn) -> Box<Outcome> {
        self.load(case);
        let (mut bus, mut choices, mut effects) = (EmptyBus, Tame, Effects::default());
        let mut context = Context {
            memory: &mut self.memory,
            bus: &mut bus,
            choices: &mut choices,
            observer: None,
            effects: &mut effects,
            gates: false,
        };
        let mut end = RunEnd::Budget;
        if case.together {
            let ticks = if instruction.is_string_instruction() { case.steps } else { 2 };
            end = self.processor.run(&mut context, self.processor.cpu.tick + ticks);
        } else {
            for _ in 0..case.steps {
                end = self.processor.run(&mut context, self.processor.cpu.tick + 1);
                let cpu = &self.processor.cpu;
                if end != RunEnd::Budget || cpu.rip != case.registers.rip {
                    break;
                }
            }
        }
        let mut outcome = self.outcome(end);
        if case.together {
            outcome.take_back_int3(case.registers.rip + instruction.len() as u64);
        }
        outcome
    }

    fn load(&mut self, case: &Case) {
        for (n, page) in DATA_PAGES.into_iter().enumerate() {
            let bytes = &case.memory[n * PAGE as usize..][..PAGE as usize];
            self.memory.write(HostPhysical(FRAMES + page * PAGE), bytes);
        }
        let length = ((CODE_END - case.registers.rip) as usize).min(case.code.len());
        self.memory.write(HostPhysical(FRAMES + case.registers.rip - ARENA), &case.code[..length]);
        let cpu = &mut self.processor.cpu;
        let registers = &case.registers;
        cpu.gpr = registers.gpr;
        cpu.rip = registers.rip;
        cpu.cpl = 3;
        cpu.activity = Activity::Active;
        let flat = |selector: u64, rights| Segment {
            selector: Selector(selector as u16),
            rights: AccessRights(rights),
            limit: u32::MAX,
            base: 0,
        };
        for name in [SegmentName::Es, SegmentName::Ss, SegmentName::Ds] {
            *cpu.segment_mut(name) = flat(DATA_SELECTOR, 0xc0f3);
        }
        let null = |base| Segment { rights: AccessRights::UNUSABLE, base, ..Segment::default() };
        *cpu.segment_mut(SegmentName::Fs) = null(registers.fs_base);
        *cpu.segment_mut(SegmentName::Gs) = null(registers.gs_base);
        let rights = if registers.cs == CODE_64 { 0xa0fb } else { 0xc0fb };
        *cpu.segment_mut(SegmentName::Cs) = flat(registers.cs, rights);
        cpu.vectors = vectors(registers);
        cpu.set_rflags(RFlags(registers.rflags));
        cpu.refresh();
    }

    fn outcome(&self, end: RunEnd) -> Box<Outcome> {
        let cpu = &self.processor.cpu;
        let mut outcome = Box::new(Outcome {
            registers: Registers {
                gpr: cpu.gpr,
                rip: cpu.rip,
                rflags: cpu.saved_flags().0,
                fs_base: cpu.segment(SegmentName::Fs).base,
                gs_base: cpu.segment(SegmentName::Gs).base,
                cs: u64::from(cpu.segment(SegmentName::Cs).selector.0),
                selectors: [SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs]
                    .map(|name| u64::from(cpu.segment(name).selector.0)),
                fx: image(&cpu.vectors),
                upper: core::array::from_fn(|n| cpu.vectors.halves(n as u8)[1].to_le_bytes()),
            },
            vector: if matches!(end, RunEnd::Budget | RunEnd::Asleep) { COMPLETED } else { UNMODELLED },
            error: 0,
            cr2: 0,
            memory: [0; MEMORY],
        });
        for (n, page) in DATA_PAGES.into_iter().enumerate() {
            let bytes = &mut outcome.memory[n * PAGE as usize..][..PAGE as usize];
            self.memory.read(HostPhysical(FRAMES + page * PAGE), bytes);
        }
        let handler = cpu.rip.wrapping_sub(KERNEL + HANDLERS) / 16;
        if cpu.cpl == 0 && handler < 256 {
            self.delivered(&mut outcome, handler);
        }
        outcome
    }

    /// The state before the exception, from the frame that its delivery left.
    fn delivered(&self, outcome: &mut Outcome, vector: u64) {
        let has_code = matches!(vector, 8 | 10..=14 | 17 | 21);
        let frame = STACK - if has_code { 48 } else { 40 };
        let slot = |n: u64| self.memory.read_u64(HostPhysical(frame + n * 8));
        let first = u64::from(has_code);
        outcome.vector = vector;
        outcome.error = if has_code { slot(0) } else { 0 };
        outcome.cr2 = self.processor.cpu.cr2;
        outcome.registers.rip = slot(first);
        outcome.registers.cs = slot(first + 1);
        outcome.registers.rflags = slot(first + 2);
        outcome.registers.gpr[4] = slot(first + 3);
    }
}

/// The registers of an FXSAVE image (SDM Vol. 1 "FXSAVE Area"), and the upper halves of YMM registers.
fn vectors(registers: &Registers) -> Vectors {
    let fx = &registers.fx;
    let word = |at: usize| u16::from_le_bytes([fx[at], fx[at + 1]]);
    let quad = |at: usize| {
        u64::from(word(at))
            | u64::from(word(at + 2)) << 16
            | u64::from(word(at + 4)) << 32
            | u64::from(word(at + 6)) << 48
    };
    let mut x87 = X87 { control: word(0), status: word(2), used: fx[4], ..X87::INITIAL };
    // The image has the stack's order.
    for n in 0..8 {
        let register = (usize::from(x87.top()) + n) % 8;
        x87.registers[register] = F80 { significand: quad(32 + n * 16), exponent: word(40 + n * 16) };
    }
    let mut vectors = Vectors { x87, ..Vectors::RESET };
    vectors.mxcsr = u32::from(word(24)) | u32::from(word(26)) << 16;
    for n in 0..16_u8 {
        let at = 160 + usize::from(n) * 16;
        let upper = u128::from_le_bytes(registers.upper[usize::from(n)]);
        vectors.set_halves(n, [u128::from(quad(at)) | u128::from(quad(at + 8)) << 64, upper]);
    }
    vectors
}

/// The FXSAVE image of registers; without the last instruction's address and opcode.
fn image(vectors: &Vectors) -> [u8; 512] {
    let mut fx = [0; 512];
    let x87 = &vectors.x87;
    fx[..2].copy_from_slice(&x87.control.to_le_bytes());
    fx[2..4].copy_from_slice(&x87.status.to_le_bytes());
    fx[4] = x87.used;
    fx[24..28].copy_from_slice(&vectors.mxcsr.to_le_bytes());
    for n in 0..8 {
        let register = x87.registers[(usize::from(x87.top()) + n) % 8];
        fx[32 + n * 16..][..8].copy_from_slice(&register.significand.to_le_bytes());
        fx[40 + n * 16..][..2].copy_from_slice(&register.exponent.to_le_bytes());
    }
    for n in 0..16_u8 {
        fx[160 + usize::from(n) * 16..][..16].copy_from_slice(&vectors.xmm(n).to_le_bytes());
    }
    fx
}
