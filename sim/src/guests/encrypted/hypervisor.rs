//! The hypervisor: it runs the guest, maps its memory, and answers what it asks through its GHCB.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::{Efer, encryption, msr};
use rootmode_svm::vmcb::{Field, Intercept};

use super::super::emit::L1;
use super::super::layout::*;
use super::INPUT;
use super::protocol::*;

/// Codes that L1 stops with: an exit that it does not know; a request without what the protocol demands.
const UNKNOWN: u32 = 0xf2;
pub(super) const MALFORMED: u32 = 0xf3;

/// A field of the VMCB whose address is in RSI.
fn control(field: Field) -> AsmMemoryOperand {
    let at = rsi + i32::from(field.row().offset);
    if field.size() == 1 { byte_ptr(at) } else { qword_ptr(at) }
}

/// Sets bits of an MSR's low half.
fn set_bits(a: &mut CodeAssembler, index: u32, bits: u32) -> Result<(), IcedError> {
    a.mov(ecx, index)?;
    a.rdmsr()?;
    a.or(eax, bits as i32)?;
    a.wrmsr()
}

/// Its code, for `L1_CODE`.
pub(super) fn code() -> Result<Vec<u8>, IcedError> {
    let mut l1 = L1::new(false)?;
    let stop = l1.stop;
    let a = &mut l1.a;
    // SmmLock and MemEncryptionModEn, without which there is no SEV.
    set_bits(a, msr::HWCR, 1)?;
    set_bits(a, msr::SYSCFG, 1 << 23)?;
    set_bits(a, msr::IA32_EFER, Efer::SVME.0 as u32)?;
    a.mov(ecx, msr::VM_HSAVE_PA)?;
    a.mov(eax, VMXON_REGION as u32)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    // What #VMEXIT loads from there and VMRUN does not save: the segments of VMSAVE, XCR0.
    a.mov(rax, VMXON_REGION)?;
    a.vmsave()?;
    let xcr0 = Field::Xcr0.row().offset;
    a.mov(qword_ptr(rax + 0x400 + i32::from(xcr0)), 1)?;
    a.mov(rsp, L1_EXIT_STACK)?;

    let mut enter = a.create_label();
    a.set_label(&mut enter)?;
    a.mov(rax, CONTROL)?;
    a.vmrun()?;
    a.mov(rsi, CONTROL)?;
    a.mov(r12, control(Field::ExitCode))?;
    let (mut next, mut known) = (a.create_label(), a.create_label());
    a.cmp(r12, COUNTED as i32)?;
    a.jb(known)?;
    a.mov(eax, UNKNOWN)?;
    a.jmp(stop)?;
    a.set_label(&mut known)?;
    a.mov(rcx, COUNTS)?;
    a.inc(qword_ptr(rcx + r12 * 8))?;

    case(a, &mut next, r12d, 0x78)?;
    a.jmp(enter)?;
    // Maps the page of EXITINFO2.
    case(a, &mut next, r12d, 0x400)?;
    a.mov(rcx, control(Field::ExitInfo2))?;
    a.shr(rcx, 12_u32)?;
    a.mov(rax, rcx)?;
    a.shl(rax, 12_u32)?;
    a.add(rax, L2_BASE as i32 | 7)?;
    a.lea(rcx, qword_ptr(rcx * 8 + SECOND_STAGE_LEAVES as i32))?;
    a.mov(qword_ptr(rcx), rax)?;
    a.mov(control(Field::TlbControl), 1)?;
    a.jmp(enter)?;
    case(a, &mut next, r12d, 0x403)?;
    serve(a, enter, stop)?;
    a.set_label(&mut next)?;
    a.mov(eax, UNKNOWN)?;
    a.jmp(stop)?;
    Ok(l1.assemble(L1_CODE, enter)?.0)
}

/// VMGEXIT: what the GHCB MSR asks for, or, if it is an address, the GHCB.
fn serve(a: &mut CodeAssembler, enter: CodeLabel, stop: CodeLabel) -> Result<(), IcedError> {
    let mut next = a.create_label();
    a.mov(rdi, control(Field::GhcbAddress))?;
    a.mov(ebx, edi)?;
    a.and(ebx, 0xfff)?;
    // Versions 1 to 1 of the protocol, and the C-bit.
    case(a, &mut next, ebx, INFORMATION_REQUEST)?;
    a.mov(rax, 1_u64 << 48 | 1 << 32 | u64::from(encryption::C_BIT) << 24 | INFORMATION as u64)?;
    a.mov(control(Field::GhcbAddress), rax)?;
    a.jmp(enter)?;
    // Bits 63:32 the function, 31:30 the register; EBX, as this guest asks for no other.
    case(a, &mut next, ebx, CPUID_REQUEST)?;
    a.mov(rax, rdi)?;
    a.shr(rax, 32_u32)?;
    a.xor(ecx, ecx)?;
    a.cpuid()?;
    a.mov(eax, ebx)?;
    a.shl(rax, 32_u32)?;
    a.or(rax, 1 << 30 | CPUID_ANSWER)?;
    a.mov(control(Field::GhcbAddress), rax)?;
    a.jmp(enter)?;
    // Bits 23:16 the reason.
    case(a, &mut next, ebx, TERMINATE)?;
    a.mov(eax, edi)?;
    a.shr(eax, 16_u32)?;
    a.jmp(stop)?;
    case(a, &mut next, ebx, 0)?;
    a.add(rdi, L2_BASE as i32)?;
    let mut complete = a.create_label();
    a.mov(rax, ghcb::REQUEST)?;
    a.mov(rcx, shared(ghcb::VALID + 8))?;
    a.and(rcx, rax)?;
    a.cmp(rcx, rax)?;
    a.je(complete)?;
    a.set_label(&mut next)?;
    a.mov(eax, MALFORMED)?;
    a.jmp(stop)?;
    a.set_label(&mut complete)?;
    request(a, enter, stop)
}

/// A request in the GHCB. Registers of the host's are lost at every exit: all is in memory.
fn request(a: &mut CodeAssembler, enter: CodeLabel, stop: CodeLabel) -> Result<(), IcedError> {
    let (mut next, mut done, mut other) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(rbp, shared(ghcb::EXITCODE))?;
    a.mov(r13, shared(ghcb::EXITINFO1))?;
    case(a, &mut next, ebp, Intercept::CPUID.0.into())?;
    a.mov(rax, shared(ghcb::RAX))?;
    a.mov(rcx, shared(ghcb::RCX))?;
    a.cpuid()?;
    for (field, register) in [(ghcb::RAX, rax), (ghcb::RBX, rbx), (ghcb::RCX, rcx), (ghcb::RDX, rdx)] {
        a.mov(shared(field), register)?;
    }
    a.jmp(done)?;
    // EXITINFO1: bit 0 IN, bits 31:16 the port.
    case(a, &mut next, ebp, Intercept::IOIO_PROT.0.into())?;
    a.mov(rdx, r13)?;
    a.shr(edx, 16_u32)?;
    a.test(r13b, 1)?;
    a.jnz(other)?;
    a.mov(rax, shared(ghcb::RAX))?;
    a.out(dx, al)?;
    a.jmp(done)?;
    a.set_label(&mut other)?;
    a.mov(shared(ghcb::RAX), INPUT)?;
    a.jmp(done)?;
    // EXITINFO1: 1 for WRMSR.
    case(a, &mut next, ebp, Intercept::MSR_PROT.0.into())?;
    let mut read = a.create_label();
    a.mov(rcx, L1_DATA)?;
    a.test(r13d, r13d)?;
    a.jz(read)?;
    for (at, field) in [(0, ghcb::RAX), (8, ghcb::RDX)] {
        a.mov(rax, shared(field))?;
        a.mov(qword_ptr(rcx + at), rax)?;
    }
    a.jmp(done)?;
    a.set_label(&mut read)?;
    for (at, field) in [(0, ghcb::RAX), (8, ghcb::RDX)] {
        a.mov(rax, qword_ptr(rcx + at))?;
        a.mov(shared(field), rax)?;
    }
    a.set_label(&mut done)?;
    a.mov(shared(ghcb::EXITINFO1), 0)?;
    a.mov(shared(ghcb::EXITINFO2), 0)?;
    a.jmp(enter)?;
    a.set_label(&mut next)?;
    a.mov(eax, MALFORMED)?;
    a.jmp(stop)
}
