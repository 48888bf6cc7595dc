//! A host in Rust, a VMCS and a guest: VM entry as a value, and what the exit wrote.

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use rootmode_arch::record::{Level, Stop};
use rootmode_arch::{
    AccessRights, Cr0, Cr4, DescriptorTable, Efer, Gpr, HostPhysical, RFlags, Segment, SegmentName, Selector,
    msr,
};
use rootmode_cpu::board::Board;
use rootmode_cpu::{Cpu, Fault, Instruction, Message, Model, Outcome, gate_address};
use rootmode_vmx::drive::offered::{Offer, REVISION, capabilities};
use rootmode_vmx::drive::{Vmx, segment_fields};
use rootmode_vmx::{
    Capabilities, EntryControls, ExitControls, Field, PinControls, PrimaryControls, SecondaryControls, Vmcs,
};

pub(crate) const CR3: u64 = 0x1000;
pub(crate) const GDT: u64 = 0x5000;
pub(crate) const IDT: u64 = 0x6000;
pub(crate) const TSS: u64 = 0x7000;
pub(crate) const OTHER_TSS: u64 = 0x7800;
pub(crate) const VMXON: u64 = 0x8000;
pub(crate) const VMCS: u64 = 0x9000;
pub(crate) const SHADOW: u64 = 0xa000;
/// VMREAD bitmap; the VMWRITE bitmap follows.
pub(crate) const SHADOW_BITMAPS: u64 = 0xb000;
/// I/O bitmaps A and B.
pub(crate) const IO_BITMAPS: u64 = 0xd000;
pub(crate) const MSR_BITMAP: u64 = 0xf000;
pub(crate) const CODE: u64 = 0x1_0000;
/// Every handler of the guest's: VMCALL.
pub(crate) const HANDLER: u64 = 0x1_1000;
pub(crate) const VIRTUAL_APIC: u64 = 0x1_2000;
pub(crate) const APIC_ACCESS: u64 = 0x1_3000;
/// Posted-interrupt descriptor.
pub(crate) const DESCRIPTOR: u64 = 0x1_4000;
pub(crate) const PID_TABLE: u64 = 0x1_5000;
pub(crate) const PML: u64 = 0x1_6000;
pub(crate) const EXCEPTION_AREA: u64 = 0x1_7000;
pub(crate) const EPTP_LIST: u64 = 0x1_8000;
pub(crate) const MSR_AREA: u64 = 0x1_9000;
pub(crate) const DATA: u64 = 0x2_0000;
pub(crate) const STACK: u64 = 0x3_8000;
/// EPT: its PML4; guest-physical addresses are host-physical in 4-KByte pages below 2 MiB.
pub(crate) const EPT: u64 = 0x5_0000;
const EPT_LEAVES: u64 = 0x5_3000;
/// The same with other leaves.
pub(crate) const OTHER_EPT: u64 = 0x6_0000;
/// EPTP bits beside the address: write-back, four levels.
pub(crate) const EPTP: u64 = 0x1e;
/// Ticks that a guest gets.
const LIMIT: u64 = 2000;

pub(crate) const KERNEL_CS: u16 = 0x08;
pub(crate) const KERNEL_SS: u16 = 0x10;
pub(crate) const BUSY_TSS: u16 = 0x30;
pub(crate) const TASK: u16 = 0x40;

/// What an exit wrote: all exit-information fields, and what else the bench looks at.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) reason: u64,
    pub(crate) qualification: u64,
    /// Interruption information, the error code in its upper half.
    pub(crate) interruption: u64,
    /// IDT-vectoring information, likewise.
    pub(crate) vectoring: u64,
    pub(crate) length: u64,
    pub(crate) information: u64,
    pub(crate) linear: u64,
    pub(crate) physical: u64,
    pub(crate) rip: u64,
    pub(crate) activity: u64,
    pub(crate) interruptibility: u64,
    pub(crate) pending_debug: u64,
    /// What the scenario observes.
    pub(crate) seen: u64,
}

impl std::fmt::Debug for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values = [
            ("reason", self.reason),
            ("qualification", self.qualification),
            ("interruption", self.interruption),
            ("vectoring", self.vectoring),
            ("length", self.length),
            ("information", self.information),
            ("linear", self.linear),
            ("physical", self.physical),
            ("rip", self.rip),
            ("activity", self.activity),
            ("interruptibility", self.interruptibility),
            ("pending_debug", self.pending_debug),
            ("seen", self.seen),
        ];
        write!(f, "Exit {{")?;
        for (name, value) in values.into_iter().filter(|(_, value)| *value != 0) {
            write!(f, " {name}: {value:#x}")?;
        }
        write!(f, " }}")
    }
}

/// How a VM entry ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With an exit, be it that of a failed entry.
    Exit(Exit),
    /// VMfailValid with this number.
    Fail(u64),
    /// The guest never left: how the machine stopped.
    Stopped(Stop),
}

pub(crate) struct Bench {
    pub(crate) board: Board,
    pub(crate) vmcs: Vmcs,
    launched: bool,
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

pub(crate) fn model() -> Model {
    Model::max_intel()
}

/// What the bench's processor offers.
pub(crate) fn offered() -> Capabilities {
    capabilities(&Offer::FULL, &model())
}

impl Bench {
    pub(crate) fn new() -> Self {
        let model = model();
        let mut board = Board::new();
        board.gates = true;
        board.memory.add_ram(HostPhysical(0), 0x20_0000).expect("the bench's RAM is well-formed");
        let vmx = Vmx::new(&model, Level::L1);
        let mut cpu = Cpu::new(0, model.into());
        cpu.gdtr = DescriptorTable { base: GDT, limit: 0x7f };
        cpu.idtr = DescriptorTable { base: IDT, limit: 0xfff };
        *cpu.segment_mut(SegmentName::Tr) =
            Segment { selector: Selector(BUSY_TSS), rights: AccessRights(0x8b), limit: 0x67, base: TSS };
        cpu.enter_long_mode(CR3, gate_address(0).0, STACK - 0x1000);
        cpu.cr4 = cpu.cr4 | Cr4::VMXE;
        cpu.apic.virtual_wire();
        cpu.refresh();
        board.add_processor(cpu, Some(Box::new(vmx)));
        let mut bench = Self { board, vmcs: vmcs(), launched: false };
        bench.tables();
        for region in [VMXON, VMCS] {
            bench.board.memory.write_u32(HostPhysical(region), REVISION);
        }
        bench.board.memory.write_u32(HostPhysical(SHADOW), REVISION | 1 << 31);
        bench.execute(Instruction::Vmxon { region: VMXON }).expect("VMXON does not fault");
        bench.load();
        bench
    }

    /// VMCLEAR and VMPTRLD.
    pub(crate) fn load(&mut self) {
        self.execute(Instruction::Vmclear { region: VMCS }).expect("VMCLEAR does not fault");
        self.execute(Instruction::Vmptrld { region: VMCS }).expect("VMPTRLD does not fault");
        self.launched = false;
    }

    fn tables(&mut self) {
        self.put(CR3, 0x2000 | 7);
        self.put(0x2000, 0x3000 | 7);
        for n in 0..512 {
            self.put(0x3000 + n * 8, n << 21 | 0x87);
            self.put(EPT_LEAVES + n * 8, n << 12 | 0x37);
            self.put(OTHER_EPT + 0x3000 + n * 8, n << 12 | 0x37);
        }
        for root in [EPT, OTHER_EPT] {
            for (at, next) in [(0, 0x1000), (0x1000, 0x2000), (0x2000, 0x3000)] {
                self.put(root + at, (root + next) | 7);
            }
        }
        let tss = |base: u64, limit: u64, kind: u64| limit | base << 16 | kind << 40;
        let gdt = [
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0x00cf_9b00_0000_ffff,
            tss(TSS, 0x67, 0x8b),
            0,
            tss(OTHER_TSS, 0x67, 0x89),
            0,
        ];
        for (n, descriptor) in gdt.into_iter().enumerate() {
            self.put(GDT + n as u64 * 8, descriptor);
        }
        for vector in 0..=255_u64 {
            let gate = HANDLER & 0xffff | u64::from(KERNEL_CS) << 16 | 0x8e << 40 | (HANDLER >> 16) << 48;
            self.put(IDT + vector * 16, gate);
            self.put(IDT + vector * 16 + 8, 0);
        }
        self.put(TSS + 4, 0x3_c000);
        let vmcall = assemble(64, HANDLER, |a| a.vmcall());
        self.board.memory.write(HostPhysical(HANDLER), &vmcall);
    }

    pub(crate) fn put(&mut self, at: u64, value: u64) {
        self.board.memory.write_u64(HostPhysical(at), value);
    }
    pub(crate) fn get(&self, at: u64) -> u64 {
        self.board.memory.read_u64(HostPhysical(at))
    }
    pub(crate) fn cpu(&mut self) -> &mut Cpu {
        &mut self.board.processors_mut()[0].cpu
    }
    pub(crate) fn set(&mut self, field: Field, value: u64) {
        self.vmcs.set(field, value);
    }
    pub(crate) fn field(&self, field: Field) -> u64 {
        self.vmcs.value(field)
    }
    pub(crate) fn or(&mut self, field: Field, bits: u64) {
        self.set(field, self.field(field) | bits);
    }
    pub(crate) fn clear(&mut self, field: Field, bits: u64) {
        self.set(field, self.field(field) & !bits);
    }
    pub(crate) fn pin(&mut self, controls: PinControls) {
        self.or(Field::PinControls, controls.0.into());
    }
    pub(crate) fn primary(&mut self, controls: PrimaryControls) {
        self.or(Field::PrimaryControls, controls.0.into());
    }
    pub(crate) fn secondary(&mut self, controls: SecondaryControls) {
        self.or(Field::SecondaryControls, controls.0.into());
    }
    pub(crate) fn exit_controls(&mut self, controls: ExitControls) {
        self.or(Field::ExitControls, controls.0.into());
    }
    pub(crate) fn register(&mut self, gpr: Gpr, value: u64) {
        self.cpu().gpr[gpr as usize] = value;
    }
    pub(crate) fn interrupts_on(&mut self) {
        self.or(Field::GuestRflags, RFlags::IF.0);
    }
    pub(crate) fn post(&mut self, message: Message) {
        self.cpu().post(message);
    }
    /// EPT with every page readable, writable and executable.
    pub(crate) fn ept(&mut self) {
        self.secondary(SecondaryControls::ENABLE_EPT);
        self.set(Field::Eptp, EPT | EPTP);
    }
    /// The EPT entry of the guest-physical page at `guest`.
    pub(crate) const fn ept_entry(guest: u64) -> u64 {
        EPT_LEAVES + (guest >> 12) * 8
    }
    /// A TPR shadow with `tpr`.
    pub(crate) fn tpr_shadow(&mut self, tpr: u64) {
        self.primary(PrimaryControls::USE_TPR_SHADOW);
        self.put(VIRTUAL_APIC + 0x80, tpr);
    }
    /// Virtual-interrupt delivery, with the controls that it needs.
    pub(crate) fn virtual_interrupts(&mut self) {
        self.tpr_shadow(0);
        self.pin(PinControls::EXTERNAL_INTERRUPT_EXITING);
        self.secondary(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);
    }
    /// x2APIC accesses are virtualized, and no other MSR exits.
    pub(crate) fn virtual_x2apic(&mut self) {
        self.primary(PrimaryControls::USE_MSR_BITMAPS);
        self.secondary(SecondaryControls::VIRTUALIZE_X2APIC);
    }
    /// The guest runs in protected mode without paging.
    pub(crate) fn legacy(&mut self) {
        self.ept();
        self.secondary(SecondaryControls::UNRESTRICTED_GUEST);
        self.clear(Field::EntryControls, EntryControls::IA32E_MODE_GUEST.0.into());
        self.set(Field::GuestCr0, (Cr0::PE | Cr0::ET | Cr0::NE).0);
        self.set(Field::GuestCr4, Cr4::VMXE.0);
        self.set(Field::GuestCsRights, 0xc09b);
        self.set(Field::GuestTrRights, 0x8b);
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
    pub(crate) fn vmread(&mut self, field: Field) -> u64 {
        match self.execute(Instruction::Vmread { encoding: field.encoding().into() }) {
            Ok(Outcome::Value(value)) => value,
            _ => 0,
        }
    }

    /// VMLAUNCH or VMRESUME of the VMCS as the bench has it, and the guest until it exits.
    pub(crate) fn run(&mut self) -> End {
        match self.enter() {
            Outcome::Entered => self.go_on(),
            _ => End::Fail(self.vmread(Field::InstructionError)),
        }
    }

    /// VMLAUNCH or VMRESUME alone.
    pub(crate) fn enter(&mut self) -> Outcome {
        for field in Field::ALL {
            if let Some(value) = self.vmcs.get(field) {
                self.execute(Instruction::Vmwrite { encoding: field.encoding().into(), value })
                    .expect("VMWRITE does not fault");
            }
        }
        let entry = if self.launched { Instruction::Vmresume } else { Instruction::Vmlaunch };
        self.execute(entry).expect("VM entry itself does not fault")
    }

    /// The guest for so many ticks, which it does not leave.
    pub(crate) fn ticks(&mut self, count: u64) {
        let until = self.cpu().tick + count;
        assert_eq!(self.board.run(until).stop, Stop::Limit);
    }

    /// What a guest does that has been entered.
    pub(crate) fn go_on(&mut self) -> End {
        let until = self.cpu().tick + LIMIT;
        let stopped = self.board.run(until).stop;
        if stopped != Stop::Gate(0) {
            return End::Stopped(stopped);
        }
        for field in Field::ALL {
            if self.vmcs.get(field).is_some() {
                let value = self.vmread(field);
                self.vmcs.set(field, value);
            }
        }
        let with_code = |bench: &mut Self, information, code| {
            let (information, code) = (bench.vmread(information), bench.vmread(code));
            information | if information >> 11 & 1 != 0 { code << 32 } else { 0 }
        };
        let reason = self.vmread(Field::ExitReason);
        self.launched |= reason >> 31 == 0;
        End::Exit(Exit {
            reason,
            qualification: self.vmread(Field::ExitQualification),
            interruption: with_code(self, Field::ExitInterruptionInfo, Field::ExitInterruptionErrorCode),
            vectoring: with_code(self, Field::IdtVectoringInfo, Field::IdtVectoringErrorCode),
            length: self.vmread(Field::ExitInstructionLength),
            information: self.vmread(Field::ExitInstructionInfo),
            linear: self.vmread(Field::GuestLinearAddress),
            physical: self.vmread(Field::GuestPhysicalAddress),
            rip: self.vmread(Field::GuestRip),
            activity: self.vmread(Field::GuestActivity),
            interruptibility: self.vmread(Field::GuestInterruptibility),
            pending_debug: self.vmread(Field::GuestPendingDebug),
            seen: 0,
        })
    }

    /// As [`Self::run`], of a guest that exits.
    pub(crate) fn exit(&mut self) -> Exit {
        match self.run() {
            End::Exit(exit) => exit,
            end => panic!("the guest exits, but the entry ended so: {end:?}"),
        }
    }
}

/// A VMCS whose guest runs [`CODE`] in 64-bit mode at CPL 0, with the host's page tables and no control that is not needed.
fn vmcs() -> Vmcs {
    let offered = offered();
    let required = |index: u32| offered.value(index) & 0xffff_ffff;
    let mut vmcs = Vmcs::unknown();
    for (field, value) in [
        (Field::PinControls, required(msr::IA32_VMX_TRUE_PINBASED_CTLS)),
        (
            Field::PrimaryControls,
            required(msr::IA32_VMX_TRUE_PROCBASED_CTLS) | u64::from(PrimaryControls::ACTIVATE_SECONDARY.0),
        ),
        (Field::SecondaryControls, 0),
        (Field::TertiaryControls, 0),
        (
            Field::ExitControls,
            required(msr::IA32_VMX_TRUE_EXIT_CTLS) | u64::from(ExitControls::HOST_ADDRESS_SPACE_SIZE.0),
        ),
        (
            Field::EntryControls,
            required(msr::IA32_VMX_TRUE_ENTRY_CTLS) | u64::from(EntryControls::IA32E_MODE_GUEST.0),
        ),
        (Field::VmFunctionControls, 0),
        (Field::IoBitmapA, IO_BITMAPS),
        (Field::IoBitmapB, IO_BITMAPS + 0x1000),
        (Field::MsrBitmap, MSR_BITMAP),
        (Field::VmreadBitmap, SHADOW_BITMAPS),
        (Field::VmwriteBitmap, SHADOW_BITMAPS + 0x1000),
        (Field::VirtualApicAddress, VIRTUAL_APIC),
        (Field::ApicAccessAddress, APIC_ACCESS),
        (Field::PostedInterruptDescriptor, DESCRIPTOR),
        (Field::PidPointerTable, PID_TABLE),
        (Field::PmlAddress, PML),
        (Field::VirtualizationExceptionAddress, EXCEPTION_AREA),
        (Field::EptpListAddress, EPTP_LIST),
        (Field::ExitMsrLoadAddress, MSR_AREA),
        (Field::EntryMsrLoadAddress, MSR_AREA),
        (Field::Vpid, 1),
        (Field::TscMultiplier, 1 << 48),
        (Field::LinkPointer, u64::MAX),
        (Field::GuestCr0, (Cr0::PE | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::PG).0),
        (Field::GuestCr3, CR3),
        (Field::GuestCr4, (Cr4::PAE | Cr4::VMXE).0),
        (Field::GuestDr7, 0x400),
        (Field::GuestPat, 0x0007_0406_0007_0406),
        (Field::GuestEfer, (Efer::LME | Efer::LMA).0),
        (Field::GuestRflags, 2),
        (Field::GuestRip, CODE),
        (Field::GuestRsp, STACK),
        (Field::GuestGdtrBase, GDT),
        (Field::GuestGdtrLimit, 0x7f),
        (Field::GuestIdtrBase, IDT),
        (Field::GuestIdtrLimit, 0xfff),
        (Field::GuestActivity, 0),
        (Field::GuestInterruptibility, 0),
        (Field::GuestPendingDebug, 0),
        (Field::EntryInterruptionInfo, 0),
        (Field::HostCr0, (Cr0::PE | Cr0::ET | Cr0::NE | Cr0::PG).0),
        (Field::HostCr3, CR3),
        (Field::HostCr4, (Cr4::PAE | Cr4::VMXE).0),
        (Field::HostEfer, (Efer::LME | Efer::LMA).0),
        (Field::HostPat, 0x0007_0406_0007_0406),
        (Field::HostCsSelector, KERNEL_CS.into()),
        (Field::HostSsSelector, KERNEL_SS.into()),
        (Field::HostTrSelector, BUSY_TSS.into()),
        (Field::HostTrBase, TSS),
        (Field::HostGdtrBase, GDT),
        (Field::HostIdtrBase, IDT),
        (Field::HostRip, gate_address(0).0),
    ] {
        vmcs.set(field, value);
    }
    for (name, selector, rights, limit, base) in [
        (SegmentName::Cs, KERNEL_CS, 0xa09b, u32::MAX, 0),
        (SegmentName::Ss, KERNEL_SS, 0xc093, u32::MAX, 0),
        (SegmentName::Ds, KERNEL_SS, 0xc093, u32::MAX, 0),
        (SegmentName::Es, KERNEL_SS, 0xc093, u32::MAX, 0),
        (SegmentName::Fs, 0, 0x1_0000, 0, 0),
        (SegmentName::Gs, 0, 0x1_0000, 0, 0),
        (SegmentName::Ldtr, 0, 0x1_0000, 0, 0),
        (SegmentName::Tr, BUSY_TSS, 0x8b, 0x67, TSS),
    ] {
        let values = [selector.into(), limit.into(), rights, base];
        for (field, value) in segment_fields(name).into_iter().zip(values) {
            vmcs.set(field, value);
        }
    }
    vmcs
}
