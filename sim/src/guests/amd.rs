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
    image.place("L1's code", L1_CODE, code(logged)?, (VMXON_REGION - L1_CODE) as usize)
}

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
        (Field::IdtrLimit, 511),
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

fn code(logged: bool) -> Result<Vec<u8>, IcedError> {
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
    dispatch(&mut l1, advance, resume)?;

    // The instruction is emulated: go on after it.
    l1.a.set_label(&mut advance)?;
    l1.a.mov(rax, field(Field::NextRip))?;
    l1.mix()?;
    l1.a.mov(rax, field(Field::NextRip))?;
    l1.a.mov(field(Field::Rip), rax)?;

    l1.a.set_label(&mut resume)?;
    l1.a.mov(rax, L1::guest(Gpr::Rax))?;
    l1.a.mov(field(Field::Rax), rax)?;
    // Only what this L1 never changes is clean.
    l1.a.mov(
        dword_ptr(rsi + Field::CleanBits.row().offset as i32),
        (Clean::I | Clean::IOPM | Clean::DT).0 as i32,
    )?;
    l1.restore_guest()?;
    l1.a.jmp(enter)?;
    Ok(l1.assemble(L1_CODE, enter)?.0)
}

/// An event whose delivery the exit interrupted is injected again, except INT3, which L2 executes again.
fn reinject_interrupted(l1: &mut L1) -> Result<(), IcedError> {
    let (mut none, mut done) = (l1.a.create_label(), l1.a.create_label());
    l1.a.mov(eax, field(Field::ExitIntInfo))?;
    l1.a.mov(ecx, field(Field::ExitIntInfoError))?;
    l1.a.test(eax, eax)?;
    l1.a.jns(none)?;
    l1.a.cmp(al, 3)?;
    l1.a.je(none)?;
    l1.a.mov(field(Field::EventInj), eax)?;
    l1.a.mov(field(Field::EventInjError), ecx)?;
    l1.a.jmp(done)?;
    l1.a.set_label(&mut none)?;
    l1.a.xor(eax, eax)?;
    l1.a.mov(field(Field::EventInj), eax)?;
    l1.a.set_label(&mut done)?;
    l1.a.nop()
}

fn dispatch(l1: &mut L1, advance: CodeLabel, resume: CodeLabel) -> Result<(), IcedError> {
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

    // EXITCODE -1: the VMCB was refused. Anything else is unknown.
    case(l1, &mut next, -1)?;
    l1.a.mov(eax, REFUSED)?;
    l1.a.jmp(l1.stop)?;
    l1.a.set_label(&mut next)?;
    l1.a.mov(eax, UNKNOWN)?;
    l1.a.jmp(l1.stop)
}
