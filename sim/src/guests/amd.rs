//! L1 for SVM: a VMCB built as data, VMRUN in a loop, nested paging.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::{Efer, Gpr, SegmentName, Vendor, msr};
use rootmode_svm::vmcb::{Clean, EventInfo, EventKind, Field, Intercept, Intercepts, NestedControl, Vmcb};
use rootmode_svm::{Access, Iopm, Msrpm};

use super::emit::L1;
use super::layout::*;
use super::workload::{MSRS, PORTS, Workload};
use super::{GuestError, GuestImage, Initially, leaf};

/// Codes that L1 stops with when something happens that it cannot handle: the entry was refused; an unknown exit.
const REFUSED: u32 = 0xf1;
const UNKNOWN: u32 = 0xf2;

/// The VMCB, the permission maps and L1's code.
pub(super) fn place(image: &mut GuestImage, workload: &Workload, logged: bool) -> Result<(), GuestError> {
    image.place("the VMCB", CONTROL, vmcb(workload).as_bytes().to_vec(), 0x1000)?;
    image.place("the MSR permission map", MSR_MAP, msr_map(workload), 0x2000)?;
    image.place("the I/O permission map", IO_MAP, io_map(workload), 0x3000)?;
    image.place("L1's code", L1_CODE, code(workload, logged)?, (VMXON_REGION - L1_CODE) as usize)
}

/// What exits once: codes of intercepts.
const ONCE: &[u8] = &[
    // CR0, CR2, CR4, CR8.
    0x00, 0x02, 0x04, 0x08, 0x10, 0x12, 0x14, 0x18, // DR0 to DR3, DR6, DR7.
    0x20, 0x21, 0x22, 0x23, 0x26, 0x27, 0x30, 0x31, 0x32, 0x33, 0x36, 0x37, // #DE, #DB, #NM.
    0x40, 0x41, 0x47, // Selective CR0, descriptor tables.
    0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, // RDPMC, PUSHF, POPF, RSM, IRET, INT n.
    0x6f, 0x70, 0x71, 0x73, 0x74,
    0x75, // INVD, PAUSE, INVLPG, RDTSCP, WBINVD, MONITOR, MWAIT, MWAIT armed, XSETBV.
    0x76, 0x77, 0x79, 0x87, 0x89, 0x8a, 0x8b, 0x8c, 0x8d,
];

fn intercepts(workload: &Workload) -> Intercepts {
    let controls = &workload.controls;
    let always = [
        Intercept::HLT,
        Intercept::MSR_PROT,
        Intercept::VMRUN,
        Intercept::VMMCALL,
        Intercept::VMLOAD,
        Intercept::VMSAVE,
        Intercept::STGI,
        Intercept::CLGI,
        Intercept::SKINIT,
        Intercept::INVLPGA,
        Intercept::SHUTDOWN,
        // If a nested page fault of L0's interrupts its delivery, nothing says that it was no debug exception.
        Intercept::ICEBP,
    ];
    let chosen = [
        (controls.rdtsc, Intercept::RDTSC),
        (controls.cr3_load, Intercept::CR3_WRITE),
        (controls.cr3_store, Intercept::CR3_READ),
        (controls.cpuid, Intercept::CPUID),
        (controls.io_map, Intercept::IOIO_PROT),
    ];
    let mut set = Intercepts::NONE;
    for intercept in always {
        set = set.with(intercept);
    }
    for (on, intercept) in chosen {
        if on {
            set = set.with(intercept);
        }
    }
    for vector in 0..32 {
        if controls.exceptions >> vector & 1 != 0 {
            set = set.with(Intercept::exception(vector));
        }
    }
    for (position, code) in ONCE.iter().enumerate() {
        if controls.once >> position & 1 != 0 {
            set = set.with(Intercept(*code));
        }
    }
    set
}

fn vmcb(workload: &Workload) -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    vmcb.set_intercepts(intercepts(workload));
    let fields = [
        (Field::IopmBase, IO_MAP),
        (Field::MsrpmBase, MSR_MAP),
        (Field::TscOffset, workload.controls.tsc_offset),
        (Field::Asid, workload.controls.tag.into()),
        (Field::NestedControl, NestedControl::NP_ENABLE.0),
        (Field::NestedCr3, SECOND_STAGE),
        (Field::GdtrBase, L2_GDT),
        (Field::GdtrLimit, 39),
        (Field::IdtrBase, L2_IDT),
        (Field::IdtrLimit, 1023),
        (Field::Efer, (Efer::SVME | Efer::LME | Efer::LMA | Efer::NXE).0),
        (Field::Cr0, 0x8000_0031),
        (Field::Cr3, L2_PML4),
        (Field::Cr4, 0x20),
        (Field::Dr6, 0xffff_0ff0),
        (Field::Dr7, 0x400),
        (Field::Rflags, 2),
        (Field::Rip, L2_CODE),
        (Field::Rsp, L2_STACK),
        (Field::GPat, 0x0007_0406_0007_0406),
    ];
    for (field, value) in fields {
        vmcb.set(field, value);
    }
    for name in SegmentName::ALL {
        vmcb.set_segment(name, &super::l2::segment(name));
    }
    vmcb
}

fn msr_map(workload: &Workload) -> Vec<u8> {
    let mut map = Msrpm::filled(true);
    for (position, (index, _)) in MSRS.iter().enumerate() {
        map.assign(*index, Access::Read, workload.controls.msr_reads >> position & 1 != 0);
        map.assign(*index, Access::Write, workload.controls.msr_writes >> position & 1 != 0);
    }
    map.as_bytes().to_vec()
}

fn io_map(workload: &Workload) -> Vec<u8> {
    let mut map = Iopm::filled(false);
    for (position, port) in PORTS.iter().enumerate() {
        if workload.controls.ports >> position & 1 != 0 {
            map.set(u32::from(*port));
        }
    }
    map.as_bytes().to_vec()
}

/// A field of the VMCB whose address is in RSI.
fn field(field: Field) -> AsmMemoryOperand {
    let at = rsi + field.row().offset as i32;
    match field.size() {
        1 => byte_ptr(at),
        4 => dword_ptr(at),
        _ => qword_ptr(at),
    }
}

/// What L1 tries before its first entry: fields with values that no entry accepts, and with those that are right.
const TRIES: &[(Field, u32, u32)] = &[
    (Field::Asid, 0, 1),
    // CD = 0, NW = 1.
    (Field::Cr0, 0xa000_0031, 0x8000_0031),
    // A reserved bit.
    (Field::Cr4, 0x0100_0020, 0x20),
    // SVME = 0.
    (Field::Efer, 0xd00, 0x1d00),
    // A type that is reserved.
    (Field::EventInj, 0x8000_0120, 0),
    // PG with LME, without PAE.
    (Field::Cr4, 0, 0x20),
];

/// L1 tries what cannot work.
fn try_all(l1: &mut L1, workload: &Workload) -> Result<(), IcedError> {
    for (position, (wrong, value, right)) in TRIES.iter().enumerate() {
        if workload.tries >> position & 1 == 0 {
            continue;
        }
        l1.a.mov(rsi, CONTROL)?;
        let at = dword_ptr(rsi + wrong.row().offset as i32);
        l1.a.mov(at, *value as i32)?;
        l1.a.clgi()?;
        l1.a.mov(rax, CONTROL)?;
        l1.a.vmrun()?;
        l1.a.stgi()?;
        l1.a.mov(rsi, CONTROL)?;
        let right = if *wrong == Field::Asid { u32::from(workload.controls.tag) } else { *right };
        l1.a.mov(at, right as i32)?;
        l1.a.mov(rax, field(Field::ExitCode))?;
        l1.mix()?;
    }
    if workload.tries >> TRIES.len() & 1 != 0 {
        l1.a.mov(rax, WINDOW)?;
        l1.a.mov(ecx, u32::from(workload.controls.tag))?;
        l1.a.invlpga()?;
    }
    Ok(())
}

fn code(workload: &Workload, logged: bool) -> Result<Vec<u8>, IcedError> {
    let mut l1 = L1::new(logged)?;
    l1.a.mov(rsp, L1_STACK)?;
    l1.look_around()?;
    // Enable SVM and say where the processor keeps L1's state.
    l1.a.mov(ecx, msr::IA32_EFER)?;
    l1.a.rdmsr()?;
    l1.a.or(eax, Efer::SVME.0 as i32)?;
    l1.a.wrmsr()?;
    l1.a.mov(ecx, msr::VM_HSAVE_PA)?;
    l1.a.mov(eax, VMXON_REGION as u32)?;
    l1.a.xor(edx, edx)?;
    l1.a.wrmsr()?;
    l1.a.mov(rax, HOST_VMCB)?;
    l1.a.vmsave()?;
    try_all(&mut l1, workload)?;
    l1.a.mov(rsp, L1_EXIT_STACK)?;
    for register in [rbx, rcx, rdx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] {
        l1.a.xor(register, register)?;
    }

    let mut enter = l1.a.create_label();
    l1.a.set_label(&mut enter)?;
    l1.a.clgi()?;
    l1.a.mov(rax, CONTROL)?;
    l1.a.vmload()?;
    l1.a.vmrun()?;
    l1.a.vmsave()?;
    l1.save_guest()?;
    l1.a.mov(rax, HOST_VMCB)?;
    l1.a.vmload()?;
    l1.a.stgi()?;
    l1.a.mov(rsi, CONTROL)?;
    l1.a.mov(rax, field(Field::Rax))?;
    l1.a.mov(L1::guest(Gpr::Rax), rax)?;
    // From here: R12 exit code, R13 EXITINFO1, R14 EXITINFO2, RBP saved registers, RSI VMCB.
    l1.a.mov(r12, field(Field::ExitCode))?;
    l1.a.mov(r13, field(Field::ExitInfo1))?;
    l1.a.mov(r14, field(Field::ExitInfo2))?;
    l1.count_exit()?;
    for seen in [Field::Rip, Field::Rsp, Field::Rflags, Field::Cr3, Field::Cr0] {
        l1.a.mov(rax, field(seen))?;
        l1.mix()?;
    }
    for seen in [Field::ExitIntInfo, Field::ExitIntInfoError] {
        l1.a.mov(eax, field(seen))?;
        l1.mix()?;
    }
    reinject_interrupted(&mut l1)?;
    let mut resume = l1.a.create_label();
    let mut advance = l1.a.create_label();
    let mut enter_with = l1.a.create_label();
    dispatch(&mut l1, advance, resume, enter_with)?;

    // The instruction is emulated: go on after it.
    l1.a.set_label(&mut advance)?;
    l1.a.mov(rax, field(Field::NextRip))?;
    l1.mix()?;
    l1.a.mov(rax, field(Field::NextRip))?;
    l1.a.mov(field(Field::Rip), rax)?;

    l1.a.set_label(&mut resume)?;
    // What this L1 did not change is clean.
    l1.a.mov(edx, (Clean::I | Clean::IOPM | Clean::DT).0)?;
    l1.a.set_label(&mut enter_with)?;
    l1.a.mov(rax, L1::guest(Gpr::Rax))?;
    l1.a.mov(field(Field::Rax), rax)?;
    l1.a.mov(dword_ptr(rsi + Field::CleanBits.row().offset as i32), edx)?;
    l1.restore_guest()?;
    l1.a.jmp(enter)?;
    Ok(l1.assemble(L1_CODE, enter)?.0)
}

/// An event whose delivery the exit interrupted is injected again, except INT3 and INT n, which L2 executes again.
fn reinject_interrupted(l1: &mut L1) -> Result<(), IcedError> {
    let (mut none, mut done, mut again) = (l1.a.create_label(), l1.a.create_label(), l1.a.create_label());
    l1.a.mov(rdi, L1_DATA)?;
    l1.a.mov(eax, field(Field::ExitIntInfo))?;
    l1.a.mov(ecx, field(Field::ExitIntInfoError))?;
    l1.a.test(eax, eax)?;
    l1.a.jns(none)?;
    l1.a.cmp(al, 3)?;
    l1.a.je(none)?;
    l1.a.mov(edx, eax)?;
    l1.a.and(edx, 0x700)?;
    l1.a.cmp(edx, 0x400)?;
    l1.a.jne(again)?;
    l1.a.mov(rdx, qword_ptr(rdi + data::RETURN))?;
    l1.a.test(rdx, rdx)?;
    l1.a.je(none)?;
    l1.a.mov(field(Field::NextRip), rdx)?;
    l1.a.set_label(&mut again)?;
    l1.a.mov(field(Field::EventInj), eax)?;
    l1.a.mov(field(Field::EventInjError), ecx)?;
    l1.a.jmp(done)?;
    l1.a.set_label(&mut none)?;
    l1.a.xor(eax, eax)?;
    l1.a.mov(field(Field::EventInj), eax)?;
    l1.a.mov(qword_ptr(rdi + data::RETURN), rax)?;
    l1.a.set_label(&mut done)?;
    l1.a.nop()
}

/// `enter_with`: with the clean bits in EDX.
fn dispatch(
    l1: &mut L1,
    advance: CodeLabel,
    resume: CodeLabel,
    enter_with: CodeLabel,
) -> Result<(), IcedError> {
    let mut next = l1.a.create_label();
    let case = |l1: &mut L1, next: &mut CodeLabel, code: i32| -> Result<(), IcedError> {
        l1.a.set_label(next)?;
        *next = l1.a.create_label();
        l1.a.cmp(r12, code)?;
        l1.a.jne(*next)
    };
    let instruction = |intercept: Intercept| i32::from(intercept.0);

    case(l1, &mut next, instruction(Intercept::CPUID))?;
    l1.answer_cpuid()?;
    l1.a.jmp(advance)?;

    case(l1, &mut next, instruction(Intercept::HLT))?;
    l1.a.jmp(advance)?;

    case(l1, &mut next, instruction(Intercept::RDTSC))?;
    l1.a.mov(L1::guest(Gpr::Rax), rsi)?;
    l1.a.mov(L1::guest(Gpr::Rdx), rsi)?;
    l1.a.jmp(advance)?;

    // L2 moves CR3 through RAX only.
    case(l1, &mut next, instruction(Intercept::CR3_READ))?;
    l1.a.mov(rax, field(Field::Cr3))?;
    l1.a.mov(L1::guest(Gpr::Rax), rax)?;
    l1.a.jmp(advance)?;
    case(l1, &mut next, instruction(Intercept::CR3_WRITE))?;
    l1.a.mov(rax, L1::guest(Gpr::Rax))?;
    l1.a.mov(field(Field::Cr3), rax)?;
    l1.a.jmp(advance)?;

    case(l1, &mut next, instruction(Intercept::VMMCALL))?;
    // A valid event is one to inject.
    let mut plain = l1.a.create_label();
    l1.a.mov(rax, L1::guest(Gpr::Rax))?;
    l1.a.test(eax, eax)?;
    l1.a.jns(plain)?;
    l1.a.mov(field(Field::EventInj), eax)?;
    l1.a.mov(rdx, L1::guest(Gpr::Rdx))?;
    l1.a.mov(field(Field::EventInjError), edx)?;
    l1.a.shr(eax, 8u32)?;
    l1.a.and(eax, 7)?;
    l1.a.cmp(eax, i32::from(EventKind::SoftwareInterrupt as u8))?;
    l1.a.jne(advance)?;
    // It returns to the next RIP, which the exit left.
    l1.a.mov(rax, field(Field::NextRip))?;
    l1.a.mov(rcx, L1_DATA)?;
    l1.a.mov(qword_ptr(rcx + data::RETURN), rax)?;
    l1.a.jmp(resume)?;
    l1.a.set_label(&mut plain)?;
    l1.answer_hypercall()?;
    l1.a.jmp(advance)?;

    // EXITINFO2 is the address of the next instruction; EXITINFO1 bit 0 says IN.
    case(l1, &mut next, instruction(Intercept::IOIO_PROT))?;
    l1.a.mov(rax, r13)?;
    l1.mix()?;
    l1.answer_port(0)?;
    l1.a.mov(field(Field::Rip), r14)?;
    l1.a.jmp(resume)?;

    case(l1, &mut next, instruction(Intercept::MSR_PROT))?;
    let mut absent = l1.a.create_label();
    let mut write = l1.a.create_label();
    l1.a.mov(rcx, L1::guest(Gpr::Rcx))?;
    l1.a.cmp(ecx, super::l2::ABSENT_MSR as i32)?;
    l1.a.je(absent)?;
    l1.a.test(r13, r13)?;
    l1.a.jne(write)?;
    l1.answer_rdmsr()?;
    l1.a.jmp(advance)?;
    l1.a.set_label(&mut write)?;
    l1.swallow_wrmsr()?;
    l1.a.jmp(advance)?;
    l1.a.set_label(&mut absent)?;
    let general_protection = EventInfo::new(EventKind::Exception, 13, Some(0)).0;
    l1.a.mov(field(Field::EventInj), general_protection as u32 as i32)?;
    l1.a.mov(field(Field::EventInjError), 0)?;
    l1.a.jmp(resume)?;

    case(l1, &mut next, 0x400)?;
    l1.a.mov(rax, r13)?;
    l1.mix()?;
    l1.a.mov(rax, r14)?;
    l1.mix()?;
    l1.map_page(leaf(Vendor::Amd, Initially::Mapped).unwrap_or(0) as i32)?;
    l1.a.mov(field(Field::TlbControl), 1)?;
    l1.a.jmp(resume)?;

    // #BP: RIP is at INT3; what is injected returns behind it.
    case(l1, &mut next, i32::from(Intercept::exception(3).0))?;
    l1.a.mov(rax, field(Field::NextRip))?;
    l1.a.mov(field(Field::Rip), rax)?;
    l1.a.mov(field(Field::EventInj), EventInfo::new(EventKind::Exception, 3, None).0 as u32 as i32)?;
    l1.a.jmp(resume)?;
    case(l1, &mut next, i32::from(Intercept::exception(6).0))?;
    l1.a.mov(field(Field::EventInj), EventInfo::new(EventKind::Exception, 6, None).0 as u32 as i32)?;
    l1.a.jmp(resume)?;
    for vector in [13u8, 14] {
        case(l1, &mut next, i32::from(Intercept::exception(vector).0))?;
        l1.a.mov(rax, r13)?;
        l1.mix()?;
        if vector == 14 {
            l1.a.mov(rax, r14)?;
            l1.mix()?;
            l1.a.mov(field(Field::Cr2), r14)?;
        }
        let event = EventInfo::new(EventKind::Exception, vector, Some(0)).0;
        l1.a.mov(field(Field::EventInj), event as u32 as i32)?;
        l1.a.mov(field(Field::EventInjError), r13d)?;
        l1.a.jmp(resume)?;
    }

    for intercept in [
        Intercept::VMRUN,
        Intercept::VMLOAD,
        Intercept::VMSAVE,
        Intercept::STGI,
        Intercept::CLGI,
        Intercept::SKINIT,
        Intercept::INVLPGA,
        Intercept::ICEBP,
    ] {
        case(l1, &mut next, instruction(intercept))?;
        l1.a.jmp(advance)?;
    }
    case(l1, &mut next, instruction(Intercept::SHUTDOWN))?;
    l1.a.jmp(l1.finish)?;

    // EXITCODE -1: the VMCB was refused. Other intercepts are taken away: their code is the number of their bit.
    case(l1, &mut next, -1)?;
    l1.a.mov(eax, REFUSED)?;
    l1.a.jmp(l1.stop)?;
    l1.a.set_label(&mut next)?;
    let mut unknown = l1.a.create_label();
    l1.a.mov(rax, r13)?;
    l1.mix()?;
    l1.a.cmp(r12, 0xc0)?;
    l1.a.jae(unknown)?;
    l1.a.btr(qword_ptr(rsi), r12)?;
    l1.a.jae(unknown)?;
    l1.a.mov(edx, (Clean::IOPM | Clean::DT).0)?;
    l1.a.jmp(enter_with)?;
    l1.a.set_label(&mut unknown)?;
    l1.a.mov(eax, UNKNOWN)?;
    l1.a.jmp(l1.stop)
}
