//! One case: a machine, its random state, and what it is given to execute.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use iced_x86::{Code, Decoder, DecoderOptions};
use rootmode::machine::{Machine, Parts};
use rootmode::processor::Processor;
use rootmode_arch::choices::Seeded;
use rootmode_arch::record::{Observer, Payload, Record, Stop};
use rootmode_arch::{
    AccessRights, Cr0, Cr4, DescriptorTable, Efer, Hardware, HostPhysical, Linear, RFlags, Segment,
    SegmentName, Selector, Vendor, vector,
};
use rootmode_cpu::board::Snapshot;
use rootmode_cpu::{Activity, Cpu, Instruction, Model};
use rootmode_mmu::{Access, PageKind, look};
use rootmode_models::devices::pc::Configuration;

use crate::native::encodings::{Template, encodings};
use crate::native::scope::provided;

/// Bytes of RAM.
const MEMORY: u64 = 4 << 20;
/// Steps of a case.
const STEPS: u64 = 48;

// Where things lie; everything is mapped onto itself.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
/// 32-bit paging's directory, of 4-MByte pages.
const DIRECTORY_32: u64 = 0x4000;
const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const TSS: u64 = 0x7000;
const LDT: u64 = 0x9000;
const REGION: u64 = 0xa000;
const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;
const DATA_BYTES: u64 = 0x2_0000;

/// The mode in which a case starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Real,
    Virtual8086,
    Protected16,
    Protected32,
    Compatibility,
    Long,
}

const MODES: [Mode; 8] = [
    Mode::Real,
    Mode::Virtual8086,
    Mode::Protected16,
    Mode::Protected32,
    Mode::Compatibility,
    Mode::Long,
    Mode::Long,
    Mode::Long,
];

/// Exceptions that tell that the instruction is known. A #UD can become a #GP, #PF, #TS, #NP, #SS or #DF on its way.
const TELLING: [u8; 10] = [
    vector::DE,
    vector::DB,
    vector::BP,
    vector::OF,
    vector::BR,
    vector::NM,
    vector::MF,
    vector::AC,
    vector::XM,
    vector::CP,
];

/// Sees deliveries that may have begun as a #UD.
struct Watcher(Arc<AtomicBool>);

impl Observer for Watcher {
    fn observe(&mut self, record: &Record) {
        if let Payload::Delivery { vector, .. } = record.payload
            && vector < 32
            && !TELLING.contains(&vector)
        {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A machine that runs cases.
pub(super) struct Rig {
    machine: Machine,
    fresh: Snapshot,
    doubtful: Arc<AtomicBool>,
    vendor: Vendor,
    forms: Arc<Forms>,
}

/// The forms that a processor has, ascending, and their encodings, in code of 16, 32 and 64 bits.
pub(super) type Forms = [Vec<(Code, Vec<Template>)>; 3];

fn find_forms(model: &Model) -> Forms {
    let has = |code: Code| code.cpuid_features().iter().all(|f| provided(*f, &|feature| model.has(feature)));
    [16, 32, 64].map(|bits| {
        let all = encodings(bits, model.vendor() == Vendor::Amd);
        all.into_iter().filter(|(code, _)| has(*code)).collect()
    })
}

impl Rig {
    /// A machine with the vendor's fullest processor. `forms` are that processor's, if another rig has found them already.
    pub(super) fn new(vendor: Vendor, forms: Option<Arc<Forms>>) -> Result<Self, String> {
        let amd = vendor == Vendor::Amd;
        let cpu = Processor::named(if amd { "max-amd" } else { "max-intel" }).map_err(|e| e.to_string())?;
        let parts = Parts {
            cpu,
            configuration: Configuration { memory: MEMORY, ..Configuration::default() },
            firmware: None,
            image: Some(vec![0xf4]),
            hardware: Hardware::Tame,
            watch: None,
            name: "fuzz".to_owned(),
        };
        let mut machine = Machine::new(&parts, Box::new(Seeded::new(0))).map_err(|e| e.to_string())?;
        let doubtful = Arc::new(AtomicBool::new(false));
        machine.board.set_observer(Some(Box::new(Watcher(Arc::clone(&doubtful)))));
        let model = &machine.board.processors()[0].cpu.model;
        let forms = forms.unwrap_or_else(|| Arc::new(find_forms(model)));
        let fresh = machine.snapshot().map_err(|e| e.to_string())?;
        Ok(Self { machine, fresh, doubtful, vendor, forms })
    }

    /// The processor's forms.
    pub(super) fn forms(&self) -> Arc<Forms> {
        Arc::clone(&self.forms)
    }

    /// Runs case `number` of `seed`; adds to `reached` what did not raise #UD. Answers the number of steps.
    pub(super) fn run(&mut self, seed: u64, number: u64, reached: &mut BTreeSet<Code>) -> u64 {
        let mut random = Seeded::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        let restored = self.machine.restore(&self.fresh);
        debug_assert!(restored.is_ok(), "a snapshot of this machine");
        self.machine.board.set_choices(Box::new(Seeded::new(number)));
        self.set_up(&mut random);
        for step in 0..STEPS {
            let Some(at) = self.place() else { return step };
            if random.next().is_multiple_of(3) {
                let register = random.next() as usize % 16;
                self.cpu().gpr[register] = value(&mut random);
            }
            let bits = self.bits();
            let code = self.write_code(&mut random, at, bits);
            self.doubtful.store(false, Ordering::Relaxed);
            let before = self.cpu().tick;
            let stopped = self.machine.board.run(before + 1);
            if !self.doubtful.load(Ordering::Relaxed)
                && self.cpu().tick > before
                && let Some(code) = code
            {
                reached.insert(code);
            }
            match stopped.stop {
                Stop::Limit => {}
                // Whatever it waits for, or whatever it cannot fetch: on with something else.
                Stop::Idle | Stop::Unmodelled(_) | Stop::NoProgress | Stop::Gate(_) => self.reset_flow(),
                _ => return step + 1,
            }
        }
        STEPS
    }

    fn cpu(&mut self) -> &mut Cpu {
        &mut self.machine.board.processors_mut()[0].cpu
    }

    /// Where in RAM the next instruction lies. Where there is none, the processor is sent to one.
    fn place(&mut self) -> Option<HostPhysical> {
        for _ in 0..2 {
            let cpu = &self.machine.board.processors()[0].cpu;
            let wide = cpu.segment(SegmentName::Cs).base.wrapping_add(cpu.rip) & 0xffff_ffff;
            let linear = Linear(if cpu.is_64_bit() { cpu.rip } else { wide });
            let memory = &self.machine.board.memory;
            let second = &cpu.published.second_stage;
            let found = look(memory, cpu.paging(), second, linear, Access::fetch(cpu.cpl)).0;
            if cpu.activity == Activity::Active
                && let Ok(translation) = found
                && memory.kind(translation.host) == PageKind::Ram
                && translation.host.0 >= CODE
                && translation.host.page_offset() < 4096 - 16
            {
                return Some(translation.host);
            }
            self.reset_flow();
        }
        None
    }

    /// Goes on at the start of the code.
    fn reset_flow(&mut self) {
        let cpu = self.cpu();
        cpu.activity = Activity::Active;
        cpu.rip = CODE.wrapping_sub(cpu.segment(SegmentName::Cs).base) & 0xffff_ffff;
        cpu.refresh();
    }

    fn bits(&mut self) -> u32 {
        let cpu = self.cpu();
        let rights = cpu.segment(SegmentName::Cs).rights;
        if cpu.is_64_bit() {
            64
        } else if rights.contains(AccessRights::DB) {
            32
        } else {
            16
        }
    }

    /// Puts an instruction, or random bytes, at `at`. The form, if it is one that the processor has.
    fn write_code(&mut self, random: &mut Seeded, at: HostPhysical, bits: u32) -> Option<Code> {
        let forms = &self.forms[bits.trailing_zeros() as usize - 4];
        let mut bytes: [u8; 15] = std::array::from_fn(|_| random.next() as u8);
        if !random.next().is_multiple_of(8) {
            let (_, templates) = &forms[random.next() as usize % forms.len()];
            let template = &templates[random.next() as usize % templates.len()];
            let modrm = if random.next().is_multiple_of(2) {
                template.modrm
            } else {
                // Other registers and memory operands of the same group member.
                template.modrm & 0x38 | random.next() as u8 & 0xc7
            };
            let extra: &[u8] = [&[][..], &[], &[], &[0xf0], &[0x64], &[0xf3]][random.next() as usize % 6];
            // Half of the forms with VEX have no register there.
            let vvvv = if random.next().is_multiple_of(2) { random.next() as u8 } else { 0 };
            let encoded = template.bytes(bits, extra, random.next() as u8, vvvv, modrm, &bytes);
            bytes[..encoded.len()].copy_from_slice(&encoded);
        }
        self.machine.board.memory.write(at, &bytes);
        let amd = self.vendor == Vendor::Amd;
        let options = if amd { DecoderOptions::AMD } else { DecoderOptions::NONE };
        let code = Decoder::with_ip(bits, &bytes, 0, options).decode().code();
        forms.binary_search_by_key(&code, |(known, _)| *known).is_ok().then_some(code)
    }

    /// Tables, registers and a mode.
    fn set_up(&mut self, random: &mut Seeded) {
        let mode = MODES[random.next() as usize % MODES.len()];
        let level = if random.next().is_multiple_of(3) { 3 } else { 0 };
        let memory = &mut self.machine.board.memory;
        for at in (DATA..DATA + DATA_BYTES).step_by(8) {
            memory
                .write_u64(HostPhysical(at), if random.next().is_multiple_of(4) { random.next() } else { 0 });
        }
        let mut put = |at: u64, value: u64| memory.write_u64(HostPhysical(at), value);
        put(PML4, PDPT | 7);
        put(PDPT, DIRECTORY | 7);
        for n in 0..2 {
            put(DIRECTORY + n * 8, n << 21 | 0x87);
        }
        put(DIRECTORY_32, 0x87);
        let (type_tss, wide) = if mode == Mode::Protected16 { (0x81, 4) } else { (0x89, 8) };
        let descriptors = [
            0,
            0x00cf_9b00_0000_ffff,                                      // 08: 32-bit code
            0x00cf_9300_0000_ffff,                                      // 10: data
            0x00cf_fb00_0000_ffff,                                      // 18: code, DPL 3
            0x00cf_f300_0000_ffff,                                      // 20: data, DPL 3
            0x008f_9b00_0000_ffff,                                      // 28: 16-bit code
            0x00af_9b00_0000_ffff,                                      // 30: 64-bit code
            0x00af_fb00_0000_ffff,                                      // 38: 64-bit code, DPL 3
            TSS << 16 | type_tss << 40 | 0x2067,                        // 40: TSS
            0,                                                          //     its upper half
            LDT << 16 | 0x82 << 40 | 0xff,                              // 50: LDT
            0,                                                          //
            CODE & 0xffff | 0x08 << 16 | 0xec << 40 | CODE >> 16 << 48, // 60: call gate, DPL 3
            0x008f_fb00_0000_ffff,                                      // 68: 16-bit code, DPL 3
        ];
        for (n, descriptor) in (0..).zip(descriptors) {
            put(GDT + n * 8, descriptor);
            put(LDT + n * 8, descriptor);
        }
        let long = matches!(mode, Mode::Long | Mode::Compatibility);
        for n in 0..256 {
            let handler = CODE + n * 0x20;
            let kind = if wide == 4 { 0x86 } else { 0x8e + (n & 1) } | if n & 2 != 0 { 0x60 } else { 0 };
            let selector = if long {
                0x30
            } else if wide == 4 {
                0x28
            } else {
                0x08
            };
            let gate = handler & 0xffff | selector << 16 | kind << 40 | handler >> 16 << 48;
            if long {
                put(IDT + n * 16, gate);
                put(IDT + n * 16 + 8, 0);
            } else if mode == Mode::Real {
                put(IDT + n / 2 * 8, 0x1000_0000_1000_0000 | (n * 0x20) << 32 | (n - n % 2) * 0x20);
            } else {
                put(IDT + n * 8, gate);
            }
        }
        // Stacks of inner levels: of all three formats of a TSS.
        for at in (4..0x64).step_by(8) {
            put(TSS + at, DATA + 0x8000);
        }
        let vendor = self.vendor;
        let cpu = self.cpu();
        registers(cpu, random, mode, level);
        cpu.refresh();
        if mode == Mode::Long && level == 0 && random.next().is_multiple_of(2) {
            self.enter_operation(vendor);
        }
    }

    /// Into VMX operation with a current VMCS, or to where VMRUN is allowed.
    fn enter_operation(&mut self, vendor: Vendor) {
        let board = &mut self.machine.board;
        match vendor {
            Vendor::Intel => {
                let cpu = &mut board.processors_mut()[0].cpu;
                cpu.cr4 = cpu.cr4.with(Cr4::VMXE);
                cpu.msrs.feature_control = 5;
                let basic =
                    board.execute(0, &Instruction::Rdmsr { index: rootmode_arch::msr::IA32_VMX_BASIC });
                let revision = match basic {
                    Ok(rootmode_cpu::Outcome::Value(value)) => value as u32 & 0x7fff_ffff,
                    _ => 0,
                };
                for region in [REGION, REGION + 0x1000] {
                    board.memory.write_u32(HostPhysical(region), revision);
                }
                // Where the random registers do not allow it, the case goes on without.
                let _ = board.execute(0, &Instruction::Vmxon { region: REGION });
                let _ = board.execute(0, &Instruction::Vmptrld { region: REGION + 0x1000 });
            }
            Vendor::Amd => {
                let cpu = &mut board.processors_mut()[0].cpu;
                cpu.efer = cpu.efer.with(Efer::SVME);
                cpu.refresh();
            }
        }
    }
}

/// A value of a register: near data, small, at a boundary, or anything.
fn value(random: &mut Seeded) -> u64 {
    match random.next() % 8 {
        0..4 => DATA + random.next() % DATA_BYTES,
        4 => random.next() % 256,
        5 => 1_u64.rotate_left(random.next() as u32).wrapping_sub(random.next() % 2),
        6 => 0_u64.wrapping_sub(random.next() % 64),
        _ => random.next(),
    }
}

fn registers(cpu: &mut Cpu, random: &mut Seeded, mode: Mode, level: u8) {
    for register in &mut cpu.gpr {
        *register = value(random);
    }
    cpu.gpr[4] = DATA + 0x1_0000 + random.next() % 64 * 8;
    let allowed = cpu.model.cr4_bits().0;
    let wanted = Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::OSXSAVE | Cr4::FSGSBASE | Cr4::PSE;
    let drawn = random.next() & random.next() & !(Cr4::VMXE | Cr4::LA57 | Cr4::PCIDE | Cr4::PAE | Cr4::CET).0;
    cpu.cr4 = Cr4((wanted.0 | drawn) & allowed & !(Cr4::SMEP | Cr4::SMAP).0);
    cpu.cr0 = Cr0::ET | Cr0::NE | Cr0::PE;
    if random.next().is_multiple_of(8) {
        cpu.cr0 = Cr0(cpu.cr0.0 | random.next() & (Cr0::TS | Cr0::EM | Cr0::MP | Cr0::AM).0);
    }
    cpu.load_components(7, 0);
    cpu.efer = Efer::SCE | Efer::NXE;
    cpu.gdtr = DescriptorTable { base: GDT, limit: 0x6f };
    cpu.idtr = DescriptorTable { base: IDT, limit: 0xfff };
    cpu.msrs.star = 0x0018_0008 << 32;
    (cpu.msrs.lstar, cpu.msrs.cstar) = (CODE + 0x3000, CODE + 0x3100);
    (cpu.msrs.sysenter_cs, cpu.msrs.sysenter_esp, cpu.msrs.sysenter_eip) = (8, DATA + 0x9000, CODE + 0x3200);
    let mut flags = RFlags(random.next() & 0x8d5 | RFlags::ONE.0 | 3 << 12);
    if random.next().is_multiple_of(16) {
        flags = flags.with(RFlags::TF);
    }
    let user = level == 3 && !matches!(mode, Mode::Real);
    let (code, data): (u16, u16) = match mode {
        Mode::Real => (0x1000, 0x2000),
        Mode::Virtual8086 => (0x1000, 0x2000),
        Mode::Protected16 => (if user { 0x6b } else { 0x28 }, if user { 0x23 } else { 0x10 }),
        Mode::Protected32 | Mode::Compatibility => {
            (if user { 0x1b } else { 0x08 }, if user { 0x23 } else { 0x10 })
        }
        Mode::Long => (if user { 0x3b } else { 0x30 }, if user { 0x23 } else { 0x10 }),
    };
    let flat = !matches!(mode, Mode::Real | Mode::Virtual8086);
    let dpl = if user || mode == Mode::Virtual8086 { 0x60 } else { 0 };
    let base = |selector: u16| if flat { 0 } else { u64::from(selector) << 4 };
    let limit = if flat { u32::MAX } else { 0xffff };
    for name in SegmentName::ALL {
        *cpu.segment_mut(name) = Segment {
            selector: Selector(data),
            rights: AccessRights(if flat { 0xc093 } else { 0x93 } | dpl),
            limit,
            base: base(data),
        };
    }
    let code_type = match mode {
        Mode::Real => 0x9b,
        Mode::Virtual8086 => 0x93,
        Mode::Protected16 => 0x809b,
        Mode::Protected32 | Mode::Compatibility => 0xc09b,
        Mode::Long => 0xa09b,
    };
    *cpu.segment_mut(SegmentName::Cs) =
        Segment { selector: Selector(code), rights: AccessRights(code_type | dpl), limit, base: base(code) };
    *cpu.segment_mut(SegmentName::Tr) =
        Segment { selector: Selector(0x40), rights: AccessRights(0x8b), limit: 0x2067, base: TSS };
    *cpu.segment_mut(SegmentName::Ldtr) =
        Segment { selector: Selector(0x50), rights: AccessRights(0x82), limit: 0xff, base: LDT };
    cpu.rip = CODE - base(code);
    if !flat {
        cpu.gpr[4] = 0x8000 + random.next() % 64 * 2;
    }
    match mode {
        Mode::Real => {
            cpu.cr0 = cpu.cr0.without(Cr0::PE);
            cpu.idtr.limit = 0x3ff;
        }
        Mode::Long | Mode::Compatibility => {
            cpu.cr0 = cpu.cr0.with(Cr0::PG);
            cpu.cr3.0 = PML4;
            cpu.cr4 = cpu.cr4.with(Cr4::PAE);
            cpu.efer = cpu.efer.with(Efer::LME).with(Efer::LMA);
        }
        Mode::Virtual8086 => flags = flags.with(RFlags::VM),
        Mode::Protected16 | Mode::Protected32 => {
            if random.next().is_multiple_of(2) {
                cpu.cr0 = cpu.cr0.with(Cr0::PG);
                cpu.cr3.0 = DIRECTORY_32;
            }
        }
    }
    cpu.cpl = if user || mode == Mode::Virtual8086 { 3 } else { 0 };
    // RSM exists in SMM only.
    cpu.smm = random.next().is_multiple_of(16);
    cpu.activity = Activity::Active;
    cpu.set_rflags(flags);
}
