//! L2: exception handlers and the drawn operations, as 64-bit code at fixed guest-physical addresses.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::{AccessRights, Segment, SegmentName, Selector, Vendor};

use super::layout::{
    ABSENT, CODE_SELECTOR, DATA_SELECTOR, L2_CODE, L2_HANDLERS, L2_SCRATCH, L2_TSS, TSS_SELECTOR, WINDOW,
};
use super::workload::{Operation, Workload};

/// RAX of the hypercall with which L2 ends.
pub const END: u32 = 0xe0d;
/// An MSR index that no model has.
pub const ABSENT_MSR: u32 = 0x0bad_0000;

/// An instruction that a hypervisor may want to see, with what it needs. RDI is [`L2_SCRATCH`], RCX and RDX are 0.
#[derive(PartialEq, Eq)]
pub struct Sensitive {
    /// Its mnemonic, and what it is about.
    name: &'static str,
    /// RAX.
    rax: u64,
    /// Encoding; of those that change what L2 goes on with, also of what keeps that in bounds.
    code: &'static [u8],
    /// RAX enters the accumulator.
    result: bool,
}

impl core::fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}

const fn shows(name: &'static str, code: &'static [u8]) -> Sensitive {
    Sensitive { name, rax: 0, code, result: true }
}

const fn does(name: &'static str, value: u64, code: &'static [u8]) -> Sensitive {
    Sensitive { name, rax: value, code, result: false }
}

/// They are there on both vendors' processors: those of the other one's extension are undefined.
pub(super) const SENSITIVE: &[Sensitive] = &[
    does("INVD", 0, &[0x0f, 0x08]),
    does("WBINVD", 0, &[0x0f, 0x09]),
    does("INVLPG", 0, &[0x0f, 0x01, 0x3f]),
    does("RDPMC", 0, &[0x0f, 0x33]),
    shows("RDTSCP", &[0x0f, 0x01, 0xf9]),
    does("PAUSE", 0, &[0xf3, 0x90]),
    // Then a store to the line.
    does("MONITOR", L2_SCRATCH, &[0x0f, 0x01, 0xc8, 0x48, 0x89, 0x00]),
    does("MWAIT", 0, &[0x0f, 0x01, 0xc9]),
    shows("MOV RAX, DR0", &[0x0f, 0x21, 0xc0]),
    shows("MOV RAX, DR1", &[0x0f, 0x21, 0xc8]),
    shows("MOV RAX, DR2", &[0x0f, 0x21, 0xd0]),
    shows("MOV RAX, DR3", &[0x0f, 0x21, 0xd8]),
    shows("MOV RAX, DR6", &[0x0f, 0x21, 0xf0]),
    shows("MOV RAX, DR7", &[0x0f, 0x21, 0xf8]),
    does("MOV DR0, RAX", 0x1000, &[0x0f, 0x23, 0xc0]),
    does("MOV DR1, RAX", 0x2000, &[0x0f, 0x23, 0xc8]),
    does("MOV DR2, RAX", 0x3000, &[0x0f, 0x23, 0xd0]),
    does("MOV DR3, RAX", 0xffff_8000_0000_0000, &[0x0f, 0x23, 0xd8]),
    does("MOV DR6, RAX", 0xffff_0ff1, &[0x0f, 0x23, 0xf0]),
    does("MOV DR7, RAX", 0x400, &[0x0f, 0x23, 0xf8]),
    shows("MOV RAX, CR0", &[0x0f, 0x20, 0xc0]),
    shows("MOV RAX, CR2", &[0x0f, 0x20, 0xd0]),
    shows("MOV RAX, CR4", &[0x0f, 0x20, 0xe0]),
    shows("MOV RAX, CR8", &[0x44, 0x0f, 0x20, 0xc0]),
    does("MOV CR2, RAX", 0x1234_5678, &[0x0f, 0x22, 0xd0]),
    does("MOV CR8, RAX: 5, then 0", 5, &[0x44, 0x0f, 0x22, 0xc0, 0x31, 0xc0, 0x44, 0x0f, 0x22, 0xc0]),
    // BTC between reading and writing.
    does("MOV CR0, RAX: MP", 0, &[0x0f, 0x20, 0xc0, 0x48, 0x0f, 0xba, 0xf8, 1, 0x0f, 0x22, 0xc0]),
    does("MOV CR0, RAX: TS", 0, &[0x0f, 0x20, 0xc0, 0x48, 0x0f, 0xba, 0xf8, 3, 0x0f, 0x22, 0xc0]),
    does("MOV CR0, RAX: AM", 0, &[0x0f, 0x20, 0xc0, 0x48, 0x0f, 0xba, 0xf8, 18, 0x0f, 0x22, 0xc0]),
    does("MOV CR0, RAX: PG", 0, &[0x0f, 0x20, 0xc0, 0x48, 0x0f, 0xba, 0xf8, 31, 0x0f, 0x22, 0xc0]),
    does("MOV CR4, RAX: TSD", 0, &[0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf8, 2, 0x0f, 0x22, 0xe0]),
    does("MOV CR4, RAX: DE", 0, &[0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf8, 3, 0x0f, 0x22, 0xe0]),
    does("MOV CR4, RAX: PGE", 0, &[0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf8, 7, 0x0f, 0x22, 0xe0]),
    does("MOV CR4, RAX: PCE", 0, &[0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf8, 8, 0x0f, 0x22, 0xe0]),
    does("MOV CR4, RAX: VMXE", 0, &[0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf8, 13, 0x0f, 0x22, 0xe0]),
    does("MOV CR4, RAX: OSXSAVE", 0, &[0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf8, 18, 0x0f, 0x22, 0xe0]),
    does("CLTS", 0, &[0x0f, 0x06]),
    does("LMSW: TS", 0x39, &[0x0f, 0x01, 0xf0]),
    shows("SMSW", &[0x0f, 0x01, 0xe0]),
    shows("SGDT", &[0x0f, 0x01, 0x07, 0x48, 0x8b, 0x07]),
    shows("SIDT", &[0x0f, 0x01, 0x0f, 0x48, 0x8b, 0x07]),
    shows("SLDT", &[0x0f, 0x00, 0xc0]),
    shows("STR", &[0x0f, 0x00, 0xc8]),
    // Of what was stored.
    does("LGDT", 0, &[0x0f, 0x01, 0x07, 0x0f, 0x01, 0x17]),
    does("LIDT", 0, &[0x0f, 0x01, 0x0f, 0x0f, 0x01, 0x1f]),
    does("LLDT", 0, &[0x0f, 0x00, 0xd0]),
    does("LTR: busy", 0x18, &[0x0f, 0x00, 0xd8]),
    does("XSETBV", 1, &[0x0f, 0x01, 0xd1]),
    does("RDRAND", 0, &[0x0f, 0xc7, 0xf0]),
    does("RDSEED", 0, &[0x0f, 0xc7, 0xf8]),
    does("INVPCID", 2, &[0x66, 0x0f, 0x38, 0x82, 0x07]),
    shows("PUSHF", &[0x9c, 0x58]),
    does("POPF", 0, &[0x9c, 0x9d]),
    does("INT 33", 0, &[0xcd, 0x21]),
    does("INT1", 0, &[0xf1]),
    does("DIV by 0", 0, &[0xf7, 0xf1]),
    does("STI", 0, &[0xfb, 0x90, 0xfa]),
    // With CR0.TS set before.
    does("FNOP: #NM", 0, &[0x0f, 0x20, 0xc0, 0x0c, 0x08, 0x0f, 0x22, 0xc0, 0xd9, 0xd0]),
    does("GETSEC", 0, &[0x0f, 0x37]),
    does("RSM", 0, &[0x0f, 0xaa]),
    does("VMCLEAR", 0, &[0x66, 0x0f, 0xc7, 0x37]),
    does("VMPTRLD", 0, &[0x0f, 0xc7, 0x37]),
    does("VMPTRST", 0, &[0x0f, 0xc7, 0x3f]),
    does("VMREAD", 0, &[0x0f, 0x78, 0xc8]),
    does("VMWRITE", 0, &[0x0f, 0x79, 0xc8]),
    does("VMLAUNCH", 0, &[0x0f, 0x01, 0xc2]),
    does("VMRESUME", 0, &[0x0f, 0x01, 0xc3]),
    does("VMXOFF", 0, &[0x0f, 0x01, 0xc4]),
    does("VMXON", 0, &[0xf3, 0x0f, 0xc7, 0x37]),
    does("INVEPT", 1, &[0x66, 0x0f, 0x38, 0x80, 0x07]),
    does("INVVPID", 1, &[0x66, 0x0f, 0x38, 0x81, 0x07]),
    does("VMFUNC", 0, &[0x0f, 0x01, 0xd4]),
    does("VMRUN", L2_SCRATCH, &[0x0f, 0x01, 0xd8]),
    does("VMLOAD", L2_SCRATCH, &[0x0f, 0x01, 0xda]),
    does("VMSAVE", L2_SCRATCH, &[0x0f, 0x01, 0xdb]),
    does("STGI", 0, &[0x0f, 0x01, 0xdc]),
    does("CLGI", 0, &[0x0f, 0x01, 0xdd]),
    does("SKINIT", 0, &[0x0f, 0x01, 0xde]),
    does("INVLPGA", 0, &[0x0f, 0x01, 0xdf]),
];

/// Code, and (vector, address) of each handler in it.
type Handlers = (Vec<u8>, Vec<(u8, u64)>);

/// The handlers' code, and (vector, address) of each: faults go to where R15 says, or skip two bytes, #PF three; others return.
pub(super) fn handlers() -> Result<Handlers, IcedError> {
    let mut code = Vec::new();
    let mut entries = Vec::new();
    let faults = [(0u8, false, 2), (6, false, 2), (7, false, 2), (13, true, 2), (14, true, 3)];
    let others = [1, 2, 3, 0x20, 0x21].map(|vector| (vector, false, 0));
    for (vector, error_code, skip) in faults.into_iter().chain(others) {
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
            let (mut plain, mut done) = (a.create_label(), a.create_label());
            a.test(r15, r15)?;
            a.je(plain)?;
            a.mov(qword_ptr(rsp), r15)?;
            a.jmp(done)?;
            a.set_label(&mut plain)?;
            a.add(qword_ptr(rsp), skip)?;
            a.set_label(&mut done)?;
            a.nop()?;
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
        Operation::Execute { instruction } => {
            a.mov(rdi, L2_SCRATCH)?;
            a.mov(rax, instruction.rax)?;
            a.xor(ecx, ecx)?;
            a.xor(edx, edx)?;
            guarded(a, |a| a.db(instruction.code))?;
            if instruction.result { fold(a) } else { a.xor(eax, eax) }
        }
        Operation::Inject { event } => {
            a.sti()?;
            a.mov(eax, event)?;
            a.mov(edx, 8)?;
            guarded(a, |a| hypercall(a, vendor))?;
            a.cli()
        }
    }
}

/// What faults in `body` goes on behind it.
fn guarded(
    a: &mut CodeAssembler,
    body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let mut after = a.create_label();
    a.lea(r15, qword_ptr(after))?;
    body(a)?;
    a.set_label(&mut after)?;
    a.xor(r15d, r15d)
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
    if workload.shutdown {
        // A table of interrupts without one.
        a.push(0)?;
        a.push(0)?;
        a.lidt(ptr(rsp))?;
        a.ud2()?;
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
