//! L2: exception handlers and the drawn operations, as 64-bit code at fixed guest-physical addresses.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::{AccessRights, Segment, SegmentName, Selector, Vendor};

use super::layout::{
    ABSENT, CODE_SELECTOR, DATA_SELECTOR, L2_CODE, L2_HANDLERS, L2_TSS, TSS_SELECTOR, WINDOW,
};
use super::workload::{Operation, Workload};

/// RAX of the hypercall with which L2 ends.
pub const END: u32 = 0xe0d;
/// An MSR index that no model has.
pub const ABSENT_MSR: u32 = 0x0bad_0000;

/// Code, and (vector, address) of each handler in it.
type Handlers = (Vec<u8>, Vec<(u8, u64)>);

/// The handlers' code, and (vector, address) of each: #BP returns; #UD and #GP skip two bytes, #PF skips three.
pub(super) fn handlers() -> Result<Handlers, IcedError> {
    let mut code = Vec::new();
    let mut entries = Vec::new();
    for (vector, error_code, skip) in [(3u8, false, 0), (6, false, 2), (13, true, 2), (14, true, 3)] {
        let address = L2_HANDLERS + code.len() as u64;
        let mut a = CodeAssembler::new(64)?;
        a.rol(rbx, 9u32)?;
        a.xor(rbx, i32::from(vector))?;
        if error_code {
            a.xor(rbx, qword_ptr(rsp))?;
            a.add(rsp, 8)?;
        }
        if vector == 14 {
            a.mov(rax, cr2)?;
            a.xor(rbx, rax)?;
        }
        if skip != 0 {
            a.add(qword_ptr(rsp), skip)?;
        }
        a.iretq()?;
        entries.push((vector, address));
        code.extend(a.assemble(address)?);
    }
    Ok((code, entries))
}

fn fold(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.rol(rbx, 7u32)?;
    a.xor(rbx, rax)
}

fn fold_edx_eax(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.shl(rdx, 32u32)?;
    a.or(rax, rdx)?;
    fold(a)
}

fn emit(a: &mut CodeAssembler, vendor: Vendor, operation: Operation) -> Result<(), IcedError> {
    match operation {
        Operation::Compute { rounds } => {
            let mut again = a.create_label();
            a.mov(ecx, i32::from(rounds))?;
            a.set_label(&mut again)?;
            a.lea(rax, qword_ptr(rbx + rcx * 4 + 1))?;
            fold(a)?;
            a.dec(ecx)?;
            a.jnz(again)
        }
        Operation::Cpuid { leaf } => {
            a.push(rbx)?;
            a.mov(eax, leaf)?;
            a.xor(ecx, ecx)?;
            a.cpuid()?;
            a.add(rax, rbx)?;
            a.add(rax, rcx)?;
            a.add(rax, rdx)?;
            a.pop(rbx)?;
            fold(a)
        }
        Operation::ReadMsr { index } => {
            a.mov(ecx, index)?;
            a.rdmsr()?;
            fold_edx_eax(a)
        }
        Operation::AbsentMsr => {
            a.mov(ecx, ABSENT_MSR)?;
            a.rdmsr()
        }
        Operation::WriteMsr { index, value } => {
            a.mov(ecx, index)?;
            a.mov(eax, value as u32)?;
            a.mov(edx, (value >> 32) as u32)?;
            a.wrmsr()
        }
        Operation::In { port, size } => {
            a.mov(edx, u32::from(port))?;
            a.xor(eax, eax)?;
            match size {
                1 => a.in_(al, dx)?,
                2 => a.in_(ax, dx)?,
                _ => a.in_(eax, dx)?,
            }
            fold(a)
        }
        Operation::Out { port, size } => {
            a.mov(edx, u32::from(port))?;
            a.mov(rax, rbx)?;
            match size {
                1 => a.out(dx, al),
                2 => a.out(dx, ax),
                _ => a.out(dx, eax),
            }
        }
        Operation::Hypercall { number } => {
            a.mov(eax, number)?;
            hypercall(a, vendor)?;
            fold(a)
        }
        Operation::Touch { page, write } => touch(a, WINDOW + u64::from(page) * 0x1000 + 0x18, write),
        Operation::Fault { page, write } => touch(a, ABSENT + u64::from(page) * 0x1000 + 0x20, write),
        Operation::Halt => a.hlt(),
        Operation::Undefined => a.ud2(),
        Operation::Breakpoint => a.int3(),
        Operation::ReadTsc => {
            a.rdtsc()?;
            fold_edx_eax(a)
        }
        Operation::ReloadCr3 => {
            a.mov(rax, cr3)?;
            a.mov(cr3, rax)?;
            fold(a)
        }
    }
}

fn hypercall(a: &mut CodeAssembler, vendor: Vendor) -> Result<(), IcedError> {
    match vendor {
        Vendor::Intel => a.vmcall(),
        Vendor::Amd => a.vmmcall(),
    }
}

/// A load or store of three bytes of code, so that the #PF handler can skip it.
fn touch(a: &mut CodeAssembler, address: u64, write: bool) -> Result<(), IcedError> {
    a.mov(rdi, address)?;
    if write {
        a.mov(qword_ptr(rdi), rbx)?;
        Ok(())
    } else {
        a.xor(eax, eax)?;
        a.mov(rax, qword_ptr(rdi))?;
        fold(a)
    }
}

/// The program: every operation in order, then the hypercall that ends it with the accumulator in RBX.
pub(super) fn program(workload: &Workload) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    a.mov(rbx, 0x9e37_79b9_7f4a_7c15u64)?;
    for operation in &workload.operations {
        emit(&mut a, workload.vendor, *operation)?;
    }
    a.mov(eax, END)?;
    hypercall(&mut a, workload.vendor)?;
    a.hlt()?;
    a.assemble(L2_CODE)
}

/// The segment registers with which L2 starts: flat 64-bit code and data, an unusable LDT, a busy TSS.
pub(super) fn segment(name: SegmentName) -> Segment {
    let (selector, rights, limit, base) = match name {
        SegmentName::Cs => (CODE_SELECTOR, 0xa09b, 0xffff_ffff, 0),
        SegmentName::Ldtr => (0, 0x1_0000, 0, 0),
        SegmentName::Tr => (TSS_SELECTOR, 0x8b, 0x67, L2_TSS),
        _ => (DATA_SELECTOR, 0xc093, 0xffff_ffff, 0),
    };
    Segment { selector: Selector(selector), rights: AccessRights(rights), limit, base }
}
