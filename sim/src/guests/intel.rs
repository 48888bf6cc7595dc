//! L1 for VMX: a VMCS written from a table of fields, VMLAUNCH once, VMRESUME in a loop, EPT.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::{Cr4, Efer, Gpr, SegmentName, Vendor, msr};
use rootmode_vmx::bitmap::{Access, IoBitmaps, MsrBitmap};
use rootmode_vmx::definitions::controls::{
    EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls,
};
use rootmode_vmx::definitions::exit_reason::ExitReason;
use rootmode_vmx::definitions::field::Field;

use super::emit::L1;
use super::layout::*;
use super::workload::{MSRS, PORTS, Workload};
use super::{GuestError, GuestImage, Initially, leaf};

/// Codes that L1 stops with when something happens that it cannot handle: a VMX instruction failed (the
/// VM-instruction error is in bits 15:8); the entry was refused; an unknown exit.
const FAILED: u32 = 0xf0;
const REFUSED: u32 = 0xf1;
const UNKNOWN: u32 = 0xf2;

/// What a row of the field table adjusts its value by.
#[derive(Clone, Copy)]
enum Adjust {
    /// Nothing.
    None,
    /// The allowed-0 and allowed-1 halves of this capability MSR.
    Capability(u32),
}

/// The field table, the bitmaps and L1's code. With `edits`, L1 writes one list of them before each entry, in order.
pub(super) fn place(
    image: &mut GuestImage,
    workload: &Workload,
    edits: Option<&[Vec<(Field, u64)>]>,
    logged: bool,
) -> Result<(), GuestError> {
    let code = code(workload, edits.is_some(), logged)?;
    image.place(
        "the field table",
        L1_FIELDS,
        fields(workload, code.exit),
        (L1_EDITS - L1_FIELDS) as usize,
    )?;
    if let Some(edits) = edits {
        image.place("L1's edits", L1_EDITS, edit_table(edits), (L1_MSRS - L1_EDITS) as usize)?;
    }
    image.place("the MSR bitmap", MSR_MAP, msr_map(workload), 0x1000)?;
    image.place("the I/O bitmaps", IO_MAP, io_map(workload), 0x2000)?;
    image.place("L1's code", L1_CODE, code.bytes, (VMXON_REGION - L1_CODE) as usize)
}

/// What exits once: the reason, the field of the control, and the control, which L1 clears.
const ONCE: &[(ExitReason, Field, u32)] = &[
    (ExitReason::INTERRUPT_WINDOW, Field::PrimaryControls, PrimaryControls::INTERRUPT_WINDOW_EXITING.0),
    (ExitReason::NMI_WINDOW, Field::PrimaryControls, PrimaryControls::NMI_WINDOW_EXITING.0),
    (ExitReason::INVLPG, Field::PrimaryControls, PrimaryControls::INVLPG_EXITING.0),
    (ExitReason::INVPCID, Field::PrimaryControls, PrimaryControls::INVLPG_EXITING.0),
    (ExitReason::MWAIT, Field::PrimaryControls, PrimaryControls::MWAIT_EXITING.0),
    (ExitReason::RDPMC, Field::PrimaryControls, PrimaryControls::RDPMC_EXITING.0),
    (ExitReason::MOV_DR, Field::PrimaryControls, PrimaryControls::MOV_DR_EXITING.0),
    (ExitReason::MONITOR_TRAP_FLAG, Field::PrimaryControls, PrimaryControls::MONITOR_TRAP_FLAG.0),
    (ExitReason::MONITOR, Field::PrimaryControls, PrimaryControls::MONITOR_EXITING.0),
    (ExitReason::PAUSE, Field::PrimaryControls, PrimaryControls::PAUSE_EXITING.0),
    (ExitReason::GDTR_IDTR_ACCESS, Field::SecondaryControls, SecondaryControls::DESCRIPTOR_TABLE_EXITING.0),
    (ExitReason::LDTR_TR_ACCESS, Field::SecondaryControls, SecondaryControls::DESCRIPTOR_TABLE_EXITING.0),
    (ExitReason::WBINVD, Field::SecondaryControls, SecondaryControls::WBINVD_EXITING.0),
    (ExitReason::RDRAND, Field::SecondaryControls, SecondaryControls::RDRAND_EXITING.0),
    (ExitReason::RDSEED, Field::SecondaryControls, SecondaryControls::RDSEED_EXITING.0),
];

/// Of the drawn mask: behind the rows of [`ONCE`], CR8 exits, the masks of CR0 and CR4, RDTSCP, INVPCID.
const CR8: usize = ONCE.len();
const CR0_MASK: usize = CR8 + 1;
const CR4_MASK: usize = CR8 + 2;
const RDTSCP: usize = CR8 + 3;
const INVPCID: usize = CR8 + 4;

/// Instructions that exit whatever the controls say, and that L1 skips.
const SKIPPED: &[ExitReason] = &[
    ExitReason::INVD,
    ExitReason::GETSEC,
    ExitReason::XSETBV,
    ExitReason::VMCLEAR,
    ExitReason::VMLAUNCH,
    ExitReason::VMPTRLD,
    ExitReason::VMPTRST,
    ExitReason::VMREAD,
    ExitReason::VMRESUME,
    ExitReason::VMWRITE,
    ExitReason::VMXOFF,
    ExitReason::VMXON,
    ExitReason::INVEPT,
    ExitReason::INVVPID,
];

/// Rows of 16 bytes: capability MSR or 0, field encoding, value. An encoding of all ones ends the table.
fn fields(workload: &Workload, exit: u64) -> Vec<u8> {
    let controls = &workload.controls;
    let pick = |on: bool, bits: u32| if on { bits } else { 0 };
    let primary = (PrimaryControls::HLT_EXITING | PrimaryControls::USE_TSC_OFFSETTING).0
        | (PrimaryControls::USE_MSR_BITMAPS | PrimaryControls::ACTIVATE_SECONDARY).0
        | pick(controls.rdtsc, PrimaryControls::RDTSC_EXITING.0)
        | pick(controls.cr3_load, PrimaryControls::CR3_LOAD_EXITING.0)
        | pick(controls.cr3_store, PrimaryControls::CR3_STORE_EXITING.0)
        | pick(controls.io_map, PrimaryControls::USE_IO_BITMAPS.0)
        | pick(!controls.io_map, PrimaryControls::UNCONDITIONAL_IO_EXITING.0);
    let once = |position: usize| controls.once >> position & 1 != 0;
    let drawn = |field: Field| {
        let rows = ONCE.iter().enumerate().filter(|(position, row)| row.1 == field && once(*position));
        rows.fold(0, |bits, (_, row)| bits | row.2)
    };
    let primary = primary
        | drawn(Field::PrimaryControls)
        | pick(once(CR8), (PrimaryControls::CR8_LOAD_EXITING | PrimaryControls::CR8_STORE_EXITING).0);
    let secondary = (SecondaryControls::ENABLE_EPT | SecondaryControls::ENABLE_VPID).0
        | drawn(Field::SecondaryControls)
        | pick(once(RDTSCP), SecondaryControls::ENABLE_RDTSCP.0)
        | pick(once(INVPCID), SecondaryControls::ENABLE_INVPCID.0);
    let windows = pick(primary & PrimaryControls::NMI_WINDOW_EXITING.0 != 0, PinControls::VIRTUAL_NMIS.0);
    let cr0_mask = if once(CR0_MASK) { u64::MAX } else { 0 };
    let cr4_mask = if once(CR4_MASK) { u64::MAX } else { Cr4::VMXE.0 };
    let exit_controls =
        (ExitControls::HOST_ADDRESS_SPACE_SIZE | ExitControls::LOAD_EFER).0 | ExitControls::SAVE_EFER.0;
    let entry_controls = (EntryControls::IA32E_MODE_GUEST | EntryControls::LOAD_EFER).0;
    let efer = (Efer::LME | Efer::LMA | Efer::NXE).0;
    use Adjust::{Capability, None};
    let mut rows: Vec<(Adjust, Field, u64)> = vec![
        (
            Capability(msr::IA32_VMX_TRUE_PINBASED_CTLS),
            Field::PinControls,
            (PinControls::NMI_EXITING.0 | windows).into(),
        ),
        (Capability(msr::IA32_VMX_TRUE_PROCBASED_CTLS), Field::PrimaryControls, primary.into()),
        (Capability(msr::IA32_VMX_PROCBASED_CTLS2), Field::SecondaryControls, secondary.into()),
        (Capability(msr::IA32_VMX_TRUE_EXIT_CTLS), Field::ExitControls, exit_controls.into()),
        (Capability(msr::IA32_VMX_TRUE_ENTRY_CTLS), Field::EntryControls, entry_controls.into()),
        (None, Field::ExceptionBitmap, controls.exceptions.into()),
        (None, Field::TscOffset, controls.tsc_offset),
        (None, Field::Vpid, controls.tag.into()),
        (None, Field::MsrBitmap, MSR_MAP),
        (None, Field::IoBitmapA, IO_MAP),
        (None, Field::IoBitmapB, IO_MAP + 0x1000),
        // Four levels, write-back.
        (None, Field::Eptp, SECOND_STAGE | 0x1e),
        (None, Field::LinkPointer, u64::MAX),
        (None, Field::GuestCr0, 0x8000_0031),
        (None, Field::GuestCr3, L2_PML4),
        (None, Field::GuestCr4, (Cr4::PAE | Cr4::VMXE).0),
        (None, Field::Cr0Mask, cr0_mask),
        (None, Field::Cr0Shadow, 0x8000_0031),
        (None, Field::Cr4Mask, cr4_mask),
        (None, Field::Cr4Shadow, Cr4::PAE.0),
        (None, Field::GuestEfer, efer),
        (None, Field::GuestDr7, 0x400),
        (None, Field::GuestRip, L2_CODE),
        (None, Field::GuestRsp, L2_STACK),
        (None, Field::GuestRflags, 2),
        (None, Field::GuestGdtrBase, L2_GDT),
        (None, Field::GuestGdtrLimit, 39),
        (None, Field::GuestIdtrBase, L2_IDT),
        (None, Field::GuestIdtrLimit, 1023),
        (None, Field::HostCsSelector, CODE_SELECTOR.into()),
        (None, Field::HostTrSelector, TSS_SELECTOR.into()),
        (None, Field::HostTrBase, L1_TSS),
        (None, Field::HostGdtrBase, L1_GDT),
        (None, Field::HostIdtrBase, L1_IDT),
        (None, Field::HostCr3, L1_PML4),
        (None, Field::HostEfer, efer),
        (None, Field::HostRsp, L1_EXIT_STACK),
        (None, Field::HostRip, exit),
    ];
    let data = [
        Field::HostEsSelector,
        Field::HostSsSelector,
        Field::HostDsSelector,
        Field::HostFsSelector,
        Field::HostGsSelector,
    ];
    rows.extend(data.map(|field| (None, field, DATA_SELECTOR.into())));
    for name in SegmentName::ALL {
        let segment = super::l2::segment(name);
        let at = name as u32 * 2;
        for (first, value) in [
            (Field::GuestEsSelector, u64::from(segment.selector.0)),
            (Field::GuestEsLimit, segment.limit.into()),
            (Field::GuestEsRights, segment.rights.0.into()),
            (Field::GuestEsBase, segment.base),
        ] {
            if let Some((field, _)) = Field::from_encoding(first.encoding() + at) {
                rows.push((None, field, value));
            }
        }
    }
    let mut bytes = Vec::new();
    for (adjust, field, value) in rows {
        let capability = if let Capability(index) = adjust { index } else { 0 };
        bytes.extend(capability.to_le_bytes());
        bytes.extend(field.encoding().to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(u32::MAX.to_le_bytes());
    bytes
}

/// Rows of 16 bytes: field encoding, value. All ones end a list, one less the last one.
fn edit_table(edits: &[Vec<(Field, u64)>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut row = |encoding: u32, value: u64| {
        bytes.extend(u64::from(encoding).to_le_bytes());
        bytes.extend(value.to_le_bytes());
    };
    for list in edits {
        for (field, value) in list {
            row(field.encoding(), *value);
        }
        row(u32::MAX, 0);
    }
    row(u32::MAX - 1, 0);
    bytes
}

fn msr_map(workload: &Workload) -> Vec<u8> {
    let mut map = MsrBitmap::INTERCEPT_ALL;
    for (position, (index, _)) in MSRS.iter().enumerate() {
        map.assign(*index, Access::Read, workload.controls.msr_reads >> position & 1 != 0);
        map.assign(*index, Access::Write, workload.controls.msr_writes >> position & 1 != 0);
    }
    map.as_page().to_vec()
}

fn io_map(workload: &Workload) -> Vec<u8> {
    let mut map = IoBitmaps::INTERCEPT_NONE;
    for (position, port) in PORTS.iter().enumerate() {
        map.assign(*port, workload.controls.ports >> position & 1 != 0);
    }
    let (a, b) = map.as_pages();
    [*a, *b].concat()
}

struct Code {
    bytes: Vec<u8>,
    /// Address of the exit handler.
    exit: u64,
}

impl L1 {
    /// VMREAD of `field` into a register. Changes RAX.
    fn vmread(&mut self, to: AsmRegister64, field: Field) -> Result<(), IcedError> {
        self.a.mov(eax, field.encoding())?;
        self.a.vmread(to, rax)
    }
    /// VMWRITE of a register to `field`. Changes RCX.
    fn vmwrite(&mut self, field: Field, from: AsmRegister64) -> Result<(), IcedError> {
        self.a.mov(ecx, field.encoding())?;
        self.a.vmwrite(rcx, from)
    }
    /// Puts `address` where an m64 operand can be. RCX points at it.
    fn pointer(&mut self, address: u64) -> Result<(), IcedError> {
        self.a.mov(rcx, L1_DATA)?;
        self.a.mov(rax, address)?;
        self.a.mov(qword_ptr(rcx + data::POINTER), rax)
    }
}

/// What L1 tries before its first entry and cannot work. What it changes is put right again.
#[derive(Clone, Copy)]
enum Try {
    ClearMisaligned,
    ClearVmxonRegion,
    ResumeClear,
    LaunchWithControls,
    LaunchWithHostState,
    LoadMisaligned,
    LoadVmxonRegion,
    LoadOtherRevision,
    ReadUnsupported,
    WriteUnsupported,
    WriteReadOnly,
    VmxonAgain,
    LaunchBehindMovSs,
    InveptOfNothing,
    InvvpidOfNothing,
    WithoutVmcs,
}

/// An entry that fails with an exit: its reason, and the field to mend with the value that is right.
type Failing = (ExitReason, Field, u32);

/// Behind [`TRIES`] in the drawn mask. RFLAGS are to be 0 without bit 1, and one MSR to be loaded, from where there is none.
const FAILING: [Failing; 2] = [
    (ExitReason::INVALID_GUEST_STATE, Field::GuestRflags, 2),
    (ExitReason::MSR_LOADING, Field::EntryMsrLoadCount, 0),
];

const TRIES: [Try; 16] = [
    Try::ClearMisaligned,
    Try::ClearVmxonRegion,
    Try::ResumeClear,
    Try::LaunchWithControls,
    Try::LaunchWithHostState,
    Try::LoadMisaligned,
    Try::LoadVmxonRegion,
    Try::LoadOtherRevision,
    Try::ReadUnsupported,
    Try::WriteUnsupported,
    Try::WriteReadOnly,
    Try::VmxonAgain,
    Try::LaunchBehindMovSs,
    Try::InveptOfNothing,
    Try::InvvpidOfNothing,
    Try::WithoutVmcs,
];

/// No field has this encoding.
const UNSUPPORTED: u32 = 0x6bfe;

impl L1 {
    /// Does it, and mixes in the flags and the VM-instruction error.
    fn attempt(&mut self, attempt: Try) -> Result<(), IcedError> {
        let wrong = |l1: &mut Self, field: Field, value: u64| -> Result<(), IcedError> {
            l1.a.mov(rdx, value)?;
            l1.vmwrite(field, rdx)
        };
        let region = qword_ptr(rcx + data::POINTER);
        match attempt {
            Try::ClearMisaligned => {
                self.pointer(CONTROL + 1)?;
                self.a.vmclear(region)?;
            }
            Try::ClearVmxonRegion => {
                self.pointer(VMXON_REGION)?;
                self.a.vmclear(region)?;
            }
            Try::ResumeClear => self.a.vmresume()?,
            Try::LaunchWithControls => {
                wrong(self, Field::Cr3TargetCount, 99)?;
                self.a.vmlaunch()?;
            }
            Try::LaunchWithHostState => {
                wrong(self, Field::HostCr3, 1 << 63)?;
                self.a.vmlaunch()?;
            }
            Try::LoadMisaligned => {
                self.pointer(CONTROL + 1)?;
                self.a.vmptrld(region)?;
            }
            Try::LoadVmxonRegion => {
                self.pointer(VMXON_REGION)?;
                self.a.vmptrld(region)?;
            }
            Try::LoadOtherRevision => {
                self.pointer(HOST_VMCB)?;
                self.a.vmptrld(region)?;
            }
            Try::ReadUnsupported => {
                self.a.mov(eax, UNSUPPORTED)?;
                self.a.vmread(rdx, rax)?;
            }
            Try::WriteUnsupported => {
                self.a.mov(eax, UNSUPPORTED)?;
                self.a.vmwrite(rax, rdx)?;
            }
            Try::WriteReadOnly => {
                self.a.mov(edx, 0x1234)?;
                self.vmwrite(Field::ExitQualification, rdx)?;
            }
            Try::VmxonAgain => {
                self.pointer(VMXON_REGION)?;
                self.a.vmxon(region)?;
            }
            Try::LaunchBehindMovSs => {
                self.a.mov(eax, u32::from(DATA_SELECTOR))?;
                self.a.mov(ss, eax)?;
                self.a.vmlaunch()?;
            }
            Try::InveptOfNothing | Try::InvvpidOfNothing => {
                self.a.mov(rcx, L1_DATA)?;
                self.a.xor(eax, eax)?;
                self.a.mov(qword_ptr(rcx + data::DESCRIPTOR), rax)?;
                self.a.mov(qword_ptr(rcx + data::DESCRIPTOR + 8), rax)?;
                let descriptor = xmmword_ptr(rcx + data::DESCRIPTOR);
                match attempt {
                    Try::InveptOfNothing => self.a.invept(rax, descriptor)?,
                    _ => self.a.invvpid(rax, descriptor)?,
                }
            }
            Try::WithoutVmcs => {
                self.pointer(CONTROL)?;
                self.a.vmclear(region)?;
                self.vmread(rdx, Field::GuestRip)?;
            }
        }
        self.a.pushfq()?;
        match attempt {
            Try::LaunchWithControls => wrong(self, Field::Cr3TargetCount, 0)?,
            Try::LaunchWithHostState => wrong(self, Field::HostCr3, L1_PML4)?,
            Try::WithoutVmcs => {
                self.pointer(CONTROL)?;
                self.a.vmptrld(region)?;
            }
            _ => {}
        }
        self.a.pop(rax)?;
        self.a.and(eax, 0x8d5)?;
        self.mix()?;
        self.vmread(rdx, Field::InstructionError)?;
        self.a.mov(rax, rdx)?;
        self.mix()
    }
}

fn code(workload: &Workload, edited: bool, logged: bool) -> Result<Code, IcedError> {
    let mut l1 = L1::new(logged)?;
    let mut failed = l1.a.create_label();
    let mut handler = l1.a.create_label();
    l1.a.mov(rsp, L1_STACK)?;
    l1.look_around()?;
    enter_vmx_operation(&mut l1, failed)?;
    write_fields(&mut l1, failed)?;
    for (position, attempt) in TRIES.into_iter().enumerate() {
        if workload.tries >> position & 1 != 0 {
            l1.attempt(attempt)?;
        }
    }
    // Then one or two entries that fail with an exit, unless the drawn edits are what is to make them fail.
    let failing = FAILING.iter().enumerate();
    let failing: Vec<Failing> = failing
        .filter(|(n, _)| workload.tries >> (TRIES.len() + n) & 1 != 0 && !edited)
        .map(|(_, row)| *row)
        .collect();
    for (_, field, right) in &failing {
        l1.a.mov(edx, u32::from(*right == 0))?;
        l1.vmwrite(*field, rdx)?;
    }
    if edited {
        l1.a.mov(rcx, L1_DATA)?;
        l1.a.mov(rax, L1_EDITS)?;
        l1.a.mov(qword_ptr(rcx + data::EDIT), rax)?;
        write_edits(&mut l1, failed)?;
    }
    for register in [rax, rbx, rcx, rdx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] {
        l1.a.xor(register, register)?;
    }
    l1.a.vmlaunch()?;
    l1.a.jmp(failed)?;

    l1.a.set_label(&mut handler)?;
    l1.save_guest()?;
    // From here: R12 exit reason, R13 qualification, R14 guest-physical address, RBP saved registers.
    l1.vmread(r12, Field::ExitReason)?;
    l1.vmread(r13, Field::ExitQualification)?;
    l1.count_exit()?;
    if l1.logged {
        // Advanced information on EPT violations: L1 did not ask whether the processor has it, and under KVM it does not.
        let mut other = l1.a.create_label();
        l1.a.cmp(r12, i32::from(ExitReason::EPT_VIOLATION.0))?;
        l1.a.jne(other)?;
        l1.a.and(r13, !0xe00)?;
        l1.a.set_label(&mut other)?;
    }
    l1.a.mov(rax, r13)?;
    l1.mix()?;
    for seen in [
        Field::GuestRip,
        Field::GuestRsp,
        Field::GuestRflags,
        Field::GuestCr3,
        Field::GuestCr0,
        Field::GuestCsRights,
        Field::ExitInterruptionInfo,
        Field::IdtVectoringInfo,
    ] {
        l1.vmread(rbx, seen)?;
        l1.a.mov(rax, rbx)?;
        l1.mix()?;
    }
    reinject_interrupted(&mut l1)?;
    let [mut advance, mut resume, mut launch] = core::array::from_fn(|_| l1.a.create_label());
    dispatch(&mut l1, [advance, resume, launch], &failing)?;

    // The instruction is emulated: go on after it.
    l1.a.set_label(&mut advance)?;
    l1.vmread(rbx, Field::ExitInstructionLength)?;
    l1.a.mov(rax, rbx)?;
    l1.mix()?;
    l1.vmread(rdx, Field::GuestRip)?;
    l1.a.add(rdx, rbx)?;
    l1.vmwrite(Field::GuestRip, rdx)?;
    l1.a.set_label(&mut resume)?;
    if edited {
        write_edits(&mut l1, failed)?;
    }
    l1.restore_guest()?;
    l1.a.vmresume()?;
    l1.a.jmp(failed)?;

    l1.a.set_label(&mut launch)?;
    l1.restore_guest()?;
    l1.a.vmlaunch()?;

    // VMfail: the error number goes out with the code; 0 if there is no current VMCS.
    l1.a.set_label(&mut failed)?;
    let mut invalid = l1.a.create_label();
    l1.a.mov(ebx, 0)?;
    l1.a.jb(invalid)?;
    l1.vmread(rbx, Field::InstructionError)?;
    l1.a.set_label(&mut invalid)?;
    l1.a.shl(ebx, 8u32)?;
    l1.a.lea(eax, dword_ptr(rbx + FAILED as i32))?;
    l1.a.jmp(l1.stop)?;
    let (bytes, exit) = l1.assemble(L1_CODE, handler)?;
    Ok(Code { bytes, exit })
}

fn enter_vmx_operation(l1: &mut L1, failed: CodeLabel) -> Result<(), IcedError> {
    let mut locked = l1.a.create_label();
    l1.a.mov(ecx, msr::IA32_FEATURE_CONTROL)?;
    l1.a.rdmsr()?;
    l1.a.test(eax, 1)?;
    l1.a.jne(locked)?;
    l1.a.or(eax, 5)?;
    l1.a.wrmsr()?;
    l1.a.set_label(&mut locked)?;
    l1.a.mov(rax, cr4)?;
    l1.a.or(rax, Cr4::VMXE.0 as i32)?;
    l1.a.mov(cr4, rax)?;
    l1.a.mov(ecx, msr::IA32_VMX_BASIC)?;
    l1.a.rdmsr()?;
    l1.a.and(eax, 0x7fff_ffff)?;
    for region in [VMXON_REGION, CONTROL] {
        l1.a.mov(rcx, region)?;
        l1.a.mov(dword_ptr(rcx), eax)?;
    }
    l1.pointer(VMXON_REGION)?;
    l1.a.vmxon(qword_ptr(rcx + data::POINTER))?;
    l1.a.jbe(failed)?;
    l1.pointer(CONTROL)?;
    l1.a.vmclear(qword_ptr(rcx + data::POINTER))?;
    l1.a.jbe(failed)?;
    l1.a.vmptrld(qword_ptr(rcx + data::POINTER))?;
    l1.a.jbe(failed)
}

/// Writes the table, then CR0 and CR4 as they are.
fn write_fields(l1: &mut L1, failed: CodeLabel) -> Result<(), IcedError> {
    let (mut row, mut plain, mut done) = (l1.a.create_label(), l1.a.create_label(), l1.a.create_label());
    l1.a.mov(rsi, L1_FIELDS)?;
    l1.a.set_label(&mut row)?;
    l1.a.mov(ecx, dword_ptr(rsi))?;
    l1.a.mov(r9d, dword_ptr(rsi + 4))?;
    l1.a.mov(r8, qword_ptr(rsi + 8))?;
    l1.a.cmp(r9d, -1)?;
    l1.a.je(done)?;
    l1.a.test(ecx, ecx)?;
    l1.a.je(plain)?;
    l1.a.rdmsr()?;
    l1.a.or(r8d, eax)?;
    l1.a.and(r8d, edx)?;
    l1.a.set_label(&mut plain)?;
    l1.a.vmwrite(r9, r8)?;
    l1.a.jbe(failed)?;
    l1.a.add(rsi, 16)?;
    l1.a.jmp(row)?;
    l1.a.set_label(&mut done)?;
    l1.a.mov(rdx, cr0)?;
    l1.vmwrite(Field::HostCr0, rdx)?;
    l1.a.mov(rdx, cr4)?;
    l1.vmwrite(Field::HostCr4, rdx)
}

/// Writes the next list of edits.
fn write_edits(l1: &mut L1, failed: CodeLabel) -> Result<(), IcedError> {
    let (mut row, mut done) = (l1.a.create_label(), l1.a.create_label());
    l1.a.mov(rsi, L1_DATA)?;
    l1.a.mov(rsi, qword_ptr(rsi + data::EDIT))?;
    l1.a.set_label(&mut row)?;
    l1.a.mov(r9d, dword_ptr(rsi))?;
    l1.a.mov(r8, qword_ptr(rsi + 8))?;
    l1.a.cmp(r9d, -2)?;
    l1.a.je(done)?;
    l1.a.add(rsi, 16)?;
    l1.a.cmp(r9d, -1)?;
    l1.a.je(done)?;
    l1.a.vmwrite(r9, r8)?;
    l1.a.jbe(failed)?;
    l1.a.jmp(row)?;
    l1.a.set_label(&mut done)?;
    l1.a.mov(rcx, L1_DATA)?;
    l1.a.mov(qword_ptr(rcx + data::EDIT), rsi)
}

/// An event whose delivery the exit interrupted is injected again.
fn reinject_interrupted(l1: &mut L1) -> Result<(), IcedError> {
    let mut none = l1.a.create_label();
    l1.vmread(rbx, Field::IdtVectoringInfo)?;
    l1.a.test(ebx, ebx)?;
    l1.a.jns(none)?;
    l1.a.and(ebx, 0x8000_0fffu32 as i32)?;
    l1.vmwrite(Field::EntryInterruptionInfo, rbx)?;
    l1.vmread(rbx, Field::IdtVectoringErrorCode)?;
    l1.vmwrite(Field::EntryErrorCode, rbx)?;
    l1.vmread(rbx, Field::ExitInstructionLength)?;
    l1.vmwrite(Field::EntryInstructionLength, rbx)?;
    l1.a.set_label(&mut none)?;
    l1.a.nop()
}

/// Takes a control away. Changes RAX, RCX, RDX.
fn clear(l1: &mut L1, field: Field, control: u32) -> Result<(), IcedError> {
    l1.vmread(rdx, field)?;
    l1.a.and(edx, !control as i32)?;
    l1.vmwrite(field, rdx)
}

/// Goes to `advance`, `resume` or `launch`, the latter with what of `mended` made an entry fail.
fn dispatch(
    l1: &mut L1,
    [advance, resume, launch]: [CodeLabel; 3],
    mended: &[Failing],
) -> Result<(), IcedError> {
    let mut next = l1.a.create_label();
    let case = |l1: &mut L1, next: &mut CodeLabel, reason: ExitReason| -> Result<(), IcedError> {
        l1.a.set_label(next)?;
        *next = l1.a.create_label();
        l1.a.cmp(r12, i32::from(reason.0))?;
        l1.a.jne(*next)
    };

    case(l1, &mut next, ExitReason::CPUID)?;
    l1.answer_cpuid()?;
    l1.a.jmp(advance)?;

    case(l1, &mut next, ExitReason::HLT)?;
    l1.a.jmp(advance)?;

    case(l1, &mut next, ExitReason::RDTSC)?;
    l1.a.mov(L1::guest(Gpr::Rax), r12)?;
    l1.a.mov(L1::guest(Gpr::Rdx), r12)?;
    l1.a.jmp(advance)?;

    case(l1, &mut next, ExitReason::RDTSCP)?;
    for gpr in [Gpr::Rax, Gpr::Rcx, Gpr::Rdx] {
        l1.a.mov(L1::guest(gpr), r12)?;
    }
    l1.a.jmp(advance)?;

    // Bits 3:0 of the qualification are the register. Of CR0, CR4 and CR8 L1 lets go.
    case(l1, &mut next, ExitReason::CR_ACCESS)?;
    let (mut store, mut of_cr3, mut masks) = (l1.a.create_label(), l1.a.create_label(), l1.a.create_label());
    l1.a.mov(eax, r13d)?;
    l1.a.and(eax, 0xf)?;
    l1.a.cmp(eax, 3)?;
    l1.a.je(of_cr3)?;
    l1.a.cmp(eax, 8)?;
    l1.a.jne(masks)?;
    let exiting = (PrimaryControls::CR8_LOAD_EXITING | PrimaryControls::CR8_STORE_EXITING).0;
    clear(l1, Field::PrimaryControls, exiting)?;
    l1.a.jmp(resume)?;
    l1.a.set_label(&mut masks)?;
    // CR4.VMXE stays L1's: what would change that alone is skipped.
    l1.vmread(rdx, Field::Cr4Mask)?;
    l1.a.mov(eax, r13d)?;
    l1.a.and(eax, 0xf)?;
    l1.a.shl(eax, 11u32)?;
    l1.a.cmp(rdx, rax)?;
    l1.a.je(advance)?;
    l1.a.xor(edx, edx)?;
    l1.vmwrite(Field::Cr0Mask, rdx)?;
    l1.a.mov(edx, Cr4::VMXE.0 as u32)?;
    l1.vmwrite(Field::Cr4Mask, rdx)?;
    l1.a.jmp(resume)?;
    // L2 moves CR3 through RAX only. Bits 5:4 of the qualification: 0 is a move to CR3, 1 a move from it.
    l1.a.set_label(&mut of_cr3)?;
    l1.a.bt(r13, 4u32)?;
    l1.a.jb(store)?;
    l1.a.mov(rdx, L1::guest(Gpr::Rax))?;
    l1.vmwrite(Field::GuestCr3, rdx)?;
    l1.a.jmp(advance)?;
    l1.a.set_label(&mut store)?;
    l1.vmread(rdx, Field::GuestCr3)?;
    l1.a.mov(L1::guest(Gpr::Rax), rdx)?;
    l1.a.jmp(advance)?;

    case(l1, &mut next, ExitReason::VMCALL)?;
    // A valid event is one to inject; RIP stays with software's, which have the length of VMCALL.
    let (mut more, mut plain) = (l1.a.create_label(), l1.a.create_label());
    l1.a.mov(rdx, L1::guest(Gpr::Rax))?;
    l1.a.test(edx, edx)?;
    l1.a.jns(plain)?;
    l1.a.mov(ebx, edx)?;
    l1.vmwrite(Field::EntryInterruptionInfo, rbx)?;
    l1.a.mov(rdx, L1::guest(Gpr::Rdx))?;
    l1.vmwrite(Field::EntryErrorCode, rdx)?;
    l1.a.mov(edx, 3)?;
    l1.vmwrite(Field::EntryInstructionLength, rdx)?;
    l1.a.shr(ebx, 8u32)?;
    l1.a.and(ebx, 7)?;
    l1.a.sub(ebx, 4)?;
    l1.a.cmp(ebx, 2)?;
    l1.a.jbe(resume)?;
    l1.a.jmp(advance)?;
    l1.a.set_label(&mut plain)?;
    // The last thing that L2 asks for ends VMX operation as well. What is launched cannot be launched again.
    l1.a.cmp(edx, super::l2::END as i32)?;
    l1.a.jne(more)?;
    l1.a.vmlaunch()?;
    l1.vmread(rbx, Field::InstructionError)?;
    l1.a.mov(rax, rbx)?;
    l1.mix()?;
    l1.a.vmxoff()?;
    l1.a.set_label(&mut more)?;
    l1.answer_hypercall()?;
    l1.a.jmp(advance)?;

    // Bit 3 of the qualification says IN.
    case(l1, &mut next, ExitReason::IO_INSTRUCTION)?;
    l1.answer_port(3)?;
    l1.a.jmp(advance)?;

    case(l1, &mut next, ExitReason::RDMSR)?;
    let mut absent = l1.a.create_label();
    l1.a.mov(rcx, L1::guest(Gpr::Rcx))?;
    l1.a.cmp(ecx, super::l2::ABSENT_MSR as i32)?;
    l1.a.je(absent)?;
    l1.answer_rdmsr()?;
    l1.a.jmp(advance)?;
    // #GP(0): type 3, error code delivered.
    l1.a.set_label(&mut absent)?;
    l1.a.mov(edx, 0x8000_0b0du32)?;
    l1.vmwrite(Field::EntryInterruptionInfo, rdx)?;
    l1.a.xor(edx, edx)?;
    l1.vmwrite(Field::EntryErrorCode, rdx)?;
    l1.a.jmp(resume)?;

    case(l1, &mut next, ExitReason::WRMSR)?;
    l1.swallow_wrmsr()?;
    l1.a.jmp(advance)?;

    for reason in [ExitReason::EPT_VIOLATION, ExitReason::EPT_MISCONFIGURATION] {
        case(l1, &mut next, reason)?;
        l1.vmread(r14, Field::GuestPhysicalAddress)?;
        l1.a.mov(rax, r14)?;
        l1.mix()?;
        if reason == ExitReason::EPT_VIOLATION {
            let mut no_linear = l1.a.create_label();
            l1.a.bt(r13, 7u32)?;
            l1.a.jae(no_linear)?;
            l1.vmread(rdx, Field::GuestLinearAddress)?;
            l1.a.mov(rax, rdx)?;
            l1.mix()?;
            l1.a.set_label(&mut no_linear)?;
        }
        l1.map_page(leaf(Vendor::Intel, Initially::Mapped).unwrap_or(0) as i32)?;
        invept(l1)?;
        l1.a.jmp(resume)?;
    }

    // An intercepted exception goes back to L2: the interruption information is the same, NMI unblocking aside.
    case(l1, &mut next, ExitReason::EXCEPTION_OR_NMI)?;
    let mut no_page_fault = l1.a.create_label();
    l1.vmread(rbx, Field::ExitInterruptionInfo)?;
    l1.a.cmp(bl, 14)?;
    l1.a.jne(no_page_fault)?;
    l1.a.mov(cr2, r13)?;
    l1.a.set_label(&mut no_page_fault)?;
    l1.a.and(ebx, 0x8000_0fffu32 as i32)?;
    l1.vmwrite(Field::EntryInterruptionInfo, rbx)?;
    let mut no_code = l1.a.create_label();
    l1.a.bt(ebx, 11u32)?;
    l1.a.jae(no_code)?;
    l1.vmread(rdx, Field::ExitInterruptionErrorCode)?;
    l1.a.mov(rax, rdx)?;
    l1.mix()?;
    l1.vmwrite(Field::EntryErrorCode, rdx)?;
    l1.a.set_label(&mut no_code)?;
    l1.vmread(rdx, Field::ExitInstructionLength)?;
    l1.vmwrite(Field::EntryInstructionLength, rdx)?;
    l1.a.jmp(resume)?;

    for (reason, field, control) in ONCE {
        case(l1, &mut next, *reason)?;
        clear(l1, *field, *control)?;
        l1.a.jmp(resume)?;
    }
    for reason in SKIPPED {
        case(l1, &mut next, *reason)?;
        l1.vmread(rdx, Field::ExitInstructionInfo)?;
        l1.a.mov(rax, rdx)?;
        l1.mix()?;
        l1.a.jmp(advance)?;
    }
    case(l1, &mut next, ExitReason::TRIPLE_FAULT)?;
    l1.a.jmp(l1.finish)?;

    // Bit 31 of the reason: the entry was refused. Anything else is unknown.
    l1.a.set_label(&mut next)?;
    let mut unknown = l1.a.create_label();
    l1.a.test(r12d, r12d)?;
    l1.a.jns(unknown)?;
    for (reason, field, right) in mended {
        let mut other = l1.a.create_label();
        l1.a.cmp(r12w, i32::from(reason.0))?;
        l1.a.jne(other)?;
        l1.a.mov(edx, *right)?;
        l1.vmwrite(*field, rdx)?;
        l1.a.jmp(launch)?;
        l1.a.set_label(&mut other)?;
    }
    l1.a.mov(eax, REFUSED)?;
    l1.a.jmp(l1.stop)?;
    l1.a.set_label(&mut unknown)?;
    l1.a.mov(eax, UNKNOWN)?;
    l1.a.jmp(l1.stop)
}

/// INVEPT of everything that L1's tables gave, single-context. Changes RAX, RCX.
fn invept(l1: &mut L1) -> Result<(), IcedError> {
    l1.a.mov(rcx, L1_DATA)?;
    l1.a.mov(rax, SECOND_STAGE | 0x1e)?;
    l1.a.mov(qword_ptr(rcx + data::DESCRIPTOR), rax)?;
    l1.a.xor(eax, eax)?;
    l1.a.mov(qword_ptr(rcx + data::DESCRIPTOR + 8), rax)?;
    l1.a.inc(eax)?;
    l1.a.invept(rax, xmmword_ptr(rcx + data::DESCRIPTOR))
}
