//! A host in Rust, a VMCB and a guest: VMRUN as a value, and what the exit wrote.

use iced_x86::code_asm::CodeAssembler;
use iced_x86::{Decoder, DecoderOptions, IcedError};
use rootmode_arch::choices::Choices;
use rootmode_arch::record::{Level, Observer, Payload, Place, Record, Stop};
use rootmode_arch::{
    AccessRights, Cr0, Cr4, DescriptorTable, Efer, Feature, FeatureSet, Gpr, Hardware, HostPhysical, RFlags,
    Segment, SegmentName, Selector, Vendor, msr,
};
use rootmode_cpu::board::Board;
use rootmode_cpu::{Cpu, Fault, Instruction, Model, Outcome, gate_address};
use rootmode_svm::drive::Svm;
use rootmode_svm::vmcb::{IntCtl, NestedControl};
use rootmode_svm::{Field, Intercept, Intercepts, Processor, Vmcb};
use std::sync::{Arc, Mutex};

pub(crate) const CR3: u64 = 0x1000;
pub(crate) const GDT: u64 = 0x5000;
pub(crate) const IDT: u64 = 0x6000;
pub(crate) const TSS: u64 = 0x7000;
/// The same GDT entries' TSSs, for legacy tasks.
pub(crate) const OTHER_TSS: u64 = 0x7800;
pub(crate) const VMCB: u64 = 0x8000;
pub(crate) const HSAVE: u64 = 0x9000;
pub(crate) const MSRPM: u64 = 0xa000;
pub(crate) const IOPM: u64 = 0xc000;
pub(crate) const CODE: u64 = 0x1_0000;
/// Every handler of the guest's: VMMCALL.
pub(crate) const HANDLER: u64 = 0x1_1000;
pub(crate) const DATA: u64 = 0x2_0000;
pub(crate) const STACK: u64 = 0x3_8000;
/// The legacy guest's IDT.
pub(crate) const LEGACY_IDT: u64 = 0x4_0000;
/// The host's IDT, where host code runs.
const HOST_IDT: u64 = 0x4_1000;
/// The nested page tables: their PML4; guest-physical addresses are host-physical in 4-KByte pages below 2 MiB.
pub(crate) const NPT: u64 = 0x5_0000;
const NPT_LEAVES: u64 = 0x5_3000;
/// AVIC: where the guest sees its APIC, the backing pages of three virtual processors, and the tables.
pub(crate) const APIC: u64 = 0x6_0000;
pub(crate) const BACKING: u64 = 0x7_0000;
pub(crate) const OTHER_BACKING: u64 = 0x7_1000;
pub(crate) const THIRD_BACKING: u64 = 0x7_2000;
pub(crate) const PHYSICAL_TABLE: u64 = 0x7_3000;
pub(crate) const LOGICAL_TABLE: u64 = 0x7_4000;
/// A page that nobody uses.
pub(crate) const SPARE: u64 = 0x7_5000;
/// Of the second processor.
pub(crate) const OTHER_VMCB: u64 = 0x7_6000;
const OTHER_HSAVE: u64 = 0x7_7000;
/// The first byte that the guest's page tables do not map.
pub(crate) const UNMAPPED: u64 = 1 << 30;
/// Ticks that a guest gets.
const LIMIT: u64 = 2000;

/// Selectors of the GDT.
pub(crate) const KERNEL_CS: u16 = 0x08;
pub(crate) const USER_CS: u16 = 0x23;
pub(crate) const USER_SS: u16 = 0x1b;
pub(crate) const ABSENT: u16 = 0x28;
pub(crate) const BUSY_TSS: u16 = 0x30;
pub(crate) const TASK: u16 = 0x40;
pub(crate) const SHORT_TASK: u16 = 0x48;
pub(crate) const LEGACY_CS: u16 = 0x50;
/// The 16 bytes of a TSS descriptor of long mode.
pub(crate) const LONG_TASK: u16 = 0x60;

/// What an exit wrote.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: u64,
    pub(crate) info1: u64,
    pub(crate) info2: u64,
    /// EXITINTINFO, the error code in its upper half.
    pub(crate) interrupted: u64,
    pub(crate) next_rip: u64,
    pub(crate) rip: u64,
    /// Guest instruction bytes.
    pub(crate) bytes: Vec<u8>,
}

impl std::fmt::Debug for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, info1, info2, interrupted, next_rip, rip, bytes } = self;
        write!(
            f,
            "Exit {{ code {code:#x}, info1 {info1:#x}, info2 {info2:#x}, interrupted {interrupted:#x}, "
        )?;
        write!(f, "next RIP {next_rip:#x}, RIP {rip:#x}, bytes {bytes:02x?} }}")
    }
}

/// How a VMRUN ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With an exit.
    Exit(Exit),
    /// The guest never left: how the machine stopped.
    Stopped(Stop),
}

/// What a machine recorded of its software's mistakes.
#[derive(Clone, Default)]
pub(crate) struct Records(Arc<Mutex<Vec<Record>>>);

impl Records {
    /// The records since the last call.
    pub(crate) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Records {
    fn observe(&mut self, record: &Record) {
        if matches!(record.payload, Payload::Stale(_) | Payload::Trusted(_)) {
            self.0.lock().unwrap().push(*record);
        }
    }
}

pub(crate) struct Bench {
    pub(crate) board: Board,
    pub(crate) vmcb: Vmcb,
}

/// The code's bytes.
pub(crate) fn assemble(
    bits: u32,
    at: u64,
    build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(bits).expect("16, 32 and 64 are bitnesses");
    build(&mut assembler).expect("test code assembles");
    assembler.assemble(at).expect("test code assembles")
}

/// Length of the first instruction.
pub(crate) fn length(bits: u32, code: &[u8]) -> u64 {
    Decoder::new(bits, code, DecoderOptions::NONE).decode().len() as u64
}

/// `max-amd` and what it leaves out though the extension knows it.
pub(crate) fn features() -> FeatureSet {
    let model = Model::max_amd();
    model.features().with(Feature::Skinit)
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_features(features())
    }

    pub(crate) fn with_features(features: FeatureSet) -> Self {
        Self::on(Board::new(), features)
    }

    /// A machine whose processors have the physical APIC ID tables of extended x2AVIC.
    pub(crate) fn extended() -> Self {
        Self::of(Board::new(), features(), true)
    }

    /// A machine with hostile hardware, which draws from `choices`.
    pub(crate) fn hostile(choices: Box<dyn Choices + Send>) -> (Self, Records) {
        let mut board = Board::new();
        board.set_hardware(Hardware::Hostile);
        board.set_choices(choices);
        let records = Records::default();
        board.set_observer(Some(Box::new(records.clone())));
        (Self::on(board, features()), records)
    }

    fn on(board: Board, features: FeatureSet) -> Self {
        Self::of(board, features, false)
    }

    fn of(mut board: Board, features: FeatureSet, x2avic_extended: bool) -> Self {
        board.gates = true;
        board.memory.add_ram(HostPhysical(0), 0x20_0000).expect("the bench's RAM is well-formed");
        let mut bench = Self { board, vmcb: vmcb() };
        bench.add(features, x2avic_extended);
        bench.tables();
        bench.execute(Instruction::Wrmsr { index: msr::VM_HSAVE_PA, value: HSAVE }).expect("SVM is there");
        bench
    }

    /// Another processor, which runs a guest of its own: the VMCB with `change`, at [`OTHER_VMCB`].
    pub(crate) fn second(&mut self, change: impl FnOnce(&mut Vmcb)) {
        let features = *self.cpu().model.features();
        let index = self.add(features, false);
        let mut vmcb = self.vmcb.clone();
        change(&mut vmcb);
        self.board.memory.write(HostPhysical(OTHER_VMCB), vmcb.as_bytes());
        for instruction in [
            Instruction::Wrmsr { index: msr::VM_HSAVE_PA, value: OTHER_HSAVE },
            Instruction::Vmrun { vmcb: OTHER_VMCB },
        ] {
            self.board.execute(index, &instruction).expect("SVM is there");
        }
    }

    fn add(&mut self, features: FeatureSet, x2avic_extended: bool) -> u8 {
        let model = Model::new(Vendor::Amd, features);
        let mut processor = Processor::new("bench", *model.features(), model.physical_width());
        processor.x2avic_extended = x2avic_extended;
        let mut cpu = Cpu::new(0, model.into());
        cpu.gdtr = DescriptorTable { base: GDT, limit: 0x7f };
        cpu.idtr = DescriptorTable { base: IDT, limit: 0xfff };
        *cpu.segment_mut(SegmentName::Tr) =
            Segment { selector: Selector(BUSY_TSS), rights: AccessRights(0x8b), limit: 0x67, base: TSS };
        cpu.enter_long_mode(CR3, gate_address(0).0, STACK - 0x1000);
        cpu.efer = cpu.efer.with(Efer::SVME);
        cpu.apic.virtual_wire();
        cpu.refresh();
        self.board.add_processor(cpu, Some(Box::new(Svm::new(processor, Level::L1))))
    }

    fn tables(&mut self) {
        self.put(CR3, 0x2000 | 7);
        self.put(0x2000, 0x3000 | 7);
        for n in 0..512 {
            self.put(0x3000 + n * 8, n << 21 | 0x87);
            self.put(NPT_LEAVES + n * 8, n << 12 | 7);
        }
        for (at, next) in [(NPT, 0x1000), (NPT + 0x1000, 0x2000), (NPT + 0x2000, 0x3000)] {
            self.put(at, (NPT + next) | 7);
        }
        let tss = |base: u64, limit: u64, kind: u64| limit | base << 16 | kind << 40;
        let gdt = [
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0x00cf_1300_0000_ffff,
            tss(TSS, 0x67, 0x8b),
            0,
            tss(OTHER_TSS, 0x67, 0x89),
            tss(OTHER_TSS, 0x20, 0x89),
            0x00cf_9b00_0000_ffff,
            0,
            tss(OTHER_TSS, 0x67, 0x89),
            0,
        ];
        for (n, descriptor) in gdt.into_iter().enumerate() {
            self.put(GDT + n as u64 * 8, descriptor);
        }
        for vector in 0..=255 {
            self.handler(vector, 0x8e);
            let legacy = HANDLER & 0xffff | u64::from(LEGACY_CS) << 16 | 0x8e << 40 | (HANDLER >> 16) << 48;
            self.put(LEGACY_IDT + u64::from(vector) * 8, legacy);
        }
        // RSP0.
        self.put(TSS + 4, 0x3_c000);
        let vmmcall = assemble(64, HANDLER, |a| a.vmmcall());
        self.board.memory.write(HostPhysical(HANDLER), &vmmcall);
    }

    /// The 64-bit guest's gate of `vector`; `kind` is byte 5 of the descriptor.
    pub(crate) fn handler(&mut self, vector: u8, kind: u64) {
        let gate = HANDLER & 0xffff | u64::from(KERNEL_CS) << 16 | kind << 40 | (HANDLER >> 16) << 48;
        self.put(IDT + u64::from(vector) * 16, gate);
        self.put(IDT + u64::from(vector) * 16 + 8, 0);
    }

    pub(crate) fn put(&mut self, at: u64, value: u64) {
        self.board.memory.write_u64(HostPhysical(at), value);
    }
    /// A store that the host's own program makes.
    pub(crate) fn host_writes(&mut self, at: u64, value: u64) {
        let cpu = self.cpu();
        let place = Place { tick: cpu.tick, vcpu: cpu.index, rip: cpu.rip };
        self.board.memory.set_writer(Some(place));
        self.put(at, value);
    }
    pub(crate) fn get(&self, at: u64) -> u64 {
        self.board.memory.read_u64(HostPhysical(at))
    }
    pub(crate) fn fill(&mut self, at: u64, length: usize, byte: u8) {
        self.board.memory.write(HostPhysical(at), &vec![byte; length]);
    }
    pub(crate) fn cpu(&mut self) -> &mut Cpu {
        &mut self.board.processors_mut()[0].cpu
    }
    pub(crate) fn set(&mut self, field: Field, value: u64) {
        assert!(self.vmcb.set(field, value), "{field:?} is in the VMCB");
    }
    pub(crate) fn field(&self, field: Field) -> u64 {
        self.vmcb.get(field).expect("the field is in the VMCB")
    }
    /// Changes bits of a field.
    pub(crate) fn or(&mut self, field: Field, bits: u64) {
        self.set(field, self.field(field) | bits);
    }
    pub(crate) fn clear(&mut self, field: Field, bits: u64) {
        self.set(field, self.field(field) & !bits);
    }
    pub(crate) fn intercept(&mut self, intercept: Intercept) {
        let bit = 1 << intercept.bit_in_field();
        self.or(intercept.field().expect("named intercepts have a field"), bit);
    }
    pub(crate) fn int_ctl(&mut self, bits: IntCtl) {
        self.or(Field::IntCtl, bits.0.into());
    }
    /// A general-purpose register of the guest's; RAX and RSP are the VMCB's.
    pub(crate) fn register(&mut self, gpr: Gpr, value: u64) {
        match gpr {
            Gpr::Rax => self.set(Field::Rax, value),
            Gpr::Rsp => self.set(Field::Rsp, value),
            _ => self.cpu().gpr[gpr as usize] = value,
        }
    }
    pub(crate) fn interrupts_on(&mut self) {
        self.or(Field::Rflags, RFlags::IF.0);
    }
    /// The guest runs at CPL 3.
    pub(crate) fn user(&mut self) {
        self.set(Field::Cpl, 3);
        self.set(Field::CsSelector, USER_CS.into());
        self.set(Field::CsAttrib, 0xafb);
        self.set(Field::SsSelector, USER_SS.into());
        self.set(Field::SsAttrib, 0xcf3);
    }
    /// The guest runs in protected mode without paging.
    pub(crate) fn legacy(&mut self) {
        self.set(Field::Efer, Efer::SVME.0);
        self.set(Field::Cr0, (Cr0::PE | Cr0::ET | Cr0::NE).0);
        self.set(Field::Cr4, 0);
        self.set(Field::CsSelector, LEGACY_CS.into());
        self.set(Field::CsAttrib, 0xc9b);
        self.set(Field::IdtrBase, LEGACY_IDT);
        self.set(Field::IdtrLimit, 0x7ff);
    }
    pub(crate) fn nested_paging(&mut self) {
        self.or(Field::NestedControl, NestedControl::NP_ENABLE.0);
        self.set(Field::NestedCr3, NPT);
        self.set(Field::GPat, 0x0007_0406_0007_0406);
    }
    /// The guest is virtual processor 0 of an AVIC; 1 runs, 2 does not, 3 does not exist, 4's page has no legal address.
    pub(crate) fn avic(&mut self) {
        const VALID: u64 = 1 << 63;
        const RUNNING: u64 = 1 << 62;
        self.nested_paging();
        self.int_ctl(IntCtl::AVIC_ENABLE);
        // What nested paging puts there is not what the guest reaches.
        self.put(Self::nested_entry(APIC), SPARE | 7);
        for (field, value) in [
            (Field::AvicApicBar, APIC),
            (Field::AvicBackingPage, BACKING),
            (Field::AvicPhysicalTable, PHYSICAL_TABLE | 7),
            (Field::AvicLogicalTable, LOGICAL_TABLE),
        ] {
            self.set(field, value);
        }
        for (id, entry) in [
            VALID | RUNNING | BACKING,
            VALID | RUNNING | OTHER_BACKING,
            VALID | THIRD_BACKING,
            0,
            VALID | RUNNING | 1 << 50,
        ]
        .into_iter()
        .enumerate()
        {
            self.put(PHYSICAL_TABLE + id as u64 * 8, entry);
        }
        for id in [0, 1, 2] {
            self.board.memory.write_u32(HostPhysical(LOGICAL_TABLE + id * 4), 1 << 31 | id as u32);
        }
        // Flat model.
        self.put(BACKING + 0xe0, u32::MAX.into());
    }
    /// The nested entry of the guest-physical page at `guest`.
    pub(crate) const fn nested_entry(guest: u64) -> u64 {
        NPT_LEAVES + (guest >> 12) * 8
    }
    pub(crate) fn code(&mut self, bytes: &[u8]) {
        self.board.memory.write(HostPhysical(CODE), bytes);
    }
    pub(crate) fn assemble(&mut self, build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
        self.code(&assemble(64, CODE, build));
    }
    pub(crate) fn execute(&mut self, instruction: Instruction) -> Result<Outcome, Fault> {
        self.board.execute(0, &instruction)
    }

    /// Runs code of the host's at `rip`. Its exceptions and interrupts stop the machine: vector v at gate 0x100 + v.
    pub(crate) fn host(&mut self, rip: u64) -> Stop {
        for vector in 0..=255_u8 {
            let target = gate_address(0x100 + u32::from(vector)).0;
            let low =
                target & 0xffff | u64::from(KERNEL_CS) << 16 | 0x8e << 40 | (target >> 16 & 0xffff) << 48;
            self.put(HOST_IDT + u64::from(vector) * 16, low);
            self.put(HOST_IDT + u64::from(vector) * 16 + 8, target >> 32);
        }
        let cpu = self.cpu();
        cpu.idtr = DescriptorTable { base: HOST_IDT, limit: 0xfff };
        cpu.rip = rip;
        let until = self.board.now() + LIMIT;
        self.board.run(until).stop
    }
    /// The host runs at CPL 3.
    pub(crate) fn user_host(&mut self) {
        for (name, selector, rights) in
            [(SegmentName::Cs, USER_CS, 0xa0fb), (SegmentName::Ss, USER_SS, 0xc0f3)]
        {
            let segment = self.cpu().segment_mut(name);
            segment.selector = Selector(selector);
            segment.rights = AccessRights(rights);
        }
        self.cpu().cpl = 3;
        self.cpu().refresh();
    }

    /// VMRUN of the VMCB as it is, and the guest until it exits.
    pub(crate) fn run(&mut self) -> End {
        self.board.memory.write(HostPhysical(VMCB), self.vmcb.as_bytes());
        self.resume()
    }

    /// VMRUN of the VMCB as it lies in memory.
    pub(crate) fn resume(&mut self) -> End {
        self.execute(Instruction::Vmrun { vmcb: VMCB }).expect("VMRUN itself does not fault");
        self.go_on()
    }

    /// What a guest does that has been entered.
    pub(crate) fn go_on(&mut self) -> End {
        let until = self.board.now() + LIMIT;
        let stopped = self.board.run(until).stop;
        if stopped != Stop::Gate(0) {
            return End::Stopped(stopped);
        }
        let mut page = [0; 4096];
        self.board.memory.read(HostPhysical(VMCB), &mut page);
        self.vmcb = Vmcb::from_bytes(page);
        let field = |field| self.vmcb.get(field).unwrap_or(0);
        // A refused entry leaves what was there.
        let fetched = (field(Field::BytesFetched) as usize).min(15);
        let bytes = self.vmcb.bytes_of(Field::InstructionBytes).unwrap_or(&[]);
        End::Exit(Exit {
            code: field(Field::ExitCode),
            info1: field(Field::ExitInfo1),
            info2: field(Field::ExitInfo2),
            interrupted: field(Field::ExitIntInfo) | field(Field::ExitIntInfoError) << 32,
            next_rip: field(Field::NextRip),
            rip: field(Field::Rip),
            bytes: bytes[..fetched].to_vec(),
        })
    }

    /// As [`Self::run`], of a guest that exits.
    pub(crate) fn exit(&mut self) -> Exit {
        match self.run() {
            End::Exit(exit) => exit,
            End::Stopped(stop) => panic!("the guest exits, but the machine stopped: {stop:?}"),
        }
    }
}

/// A VMCB whose guest runs [`CODE`] in 64-bit mode at CPL 0, with the host's page tables; VMRUN, VMMCALL and shutdown exit.
fn vmcb() -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    let intercepts = [Intercept::VMRUN, Intercept::VMMCALL, Intercept::SHUTDOWN];
    vmcb.set_intercepts(intercepts.into_iter().fold(Intercepts::NONE, Intercepts::with));
    for (field, value) in [
        (Field::Asid, 1),
        (Field::MsrpmBase, MSRPM),
        (Field::IopmBase, IOPM),
        (Field::GdtrBase, GDT),
        (Field::GdtrLimit, 0x7f),
        (Field::IdtrBase, IDT),
        (Field::IdtrLimit, 0xfff),
        (Field::Efer, (Efer::SVME | Efer::LME | Efer::LMA | Efer::NXE | Efer::SCE).0),
        (Field::Cr0, (Cr0::PE | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::PG).0),
        (Field::Cr3, CR3),
        (Field::Cr4, (Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT).0),
        (Field::Dr6, 0xffff_0ff0),
        (Field::Dr7, 0x400),
        (Field::Rflags, 2),
        (Field::Rip, CODE),
        (Field::Rsp, STACK),
        (Field::CsSelector, KERNEL_CS.into()),
        (Field::CsAttrib, 0xa9b),
        (Field::CsLimit, u32::MAX.into()),
    ] {
        vmcb.set(field, value);
    }
    for name in [SegmentName::Ds, SegmentName::Es, SegmentName::Ss] {
        let data = AccessRights::from_vmcb(0xc93);
        vmcb.set_segment(name, &Segment { selector: Selector(0x10), rights: data, limit: u32::MAX, base: 0 });
    }
    vmcb
}
