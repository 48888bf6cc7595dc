//! The guest: its program, and the handler of #VC.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::{encryption, msr};
use rootmode_svm::vmcb::Intercept;

use super::super::layout::*;
use super::protocol::*;
use super::{GHCB, INPUT, KEPT_MSR, TEXT};

/// The guest's ends that are not 0.
#[derive(Clone, Copy)]
pub(super) enum Wrong {
    Protocol = 1,
    Status,
    Vendor,
    Leaf,
    Msr,
    Input,
    Answer,
    Event,
}

fn vmgexit(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.db(&[0xf3, 0x0f, 0x01, 0xd9])
}

/// Writes RAX to the GHCB MSR. Changes RCX, RDX.
fn write_ghcb(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ecx, msr::SEV_ES_GHCB)?;
    a.mov(rdx, rax)?;
    a.shr(rdx, 32_u32)?;
    a.wrmsr()
}

/// Ends with the termination request.
fn terminate(a: &mut CodeAssembler, reason: u32) -> Result<(), IcedError> {
    a.mov(eax, reason << 16 | TERMINATE as u32)?;
    write_ghcb(a)?;
    vmgexit(a)?;
    a.hlt()
}

/// Ends with `wrong` unless the last comparison found its operands equal.
fn expect_equal(a: &mut CodeAssembler, wrong: Wrong) -> Result<(), IcedError> {
    let mut right = a.create_label();
    a.je(right)?;
    terminate(a, wrong as u32)?;
    a.set_label(&mut right)?;
    // A label needs an instruction of its own.
    a.nop()
}

/// #VC: puts the request into the GHCB, and goes on behind the instruction with the answer.
pub(super) fn handler() -> Result<Vec<u8>, IcedError> {
    const RIP: i32 = 0x18;
    let mut a = CodeAssembler::new(64)?;
    let (mut next, mut ask) = (a.create_label(), a.create_label());
    a.push(rdi)?;
    a.push(rsi)?;
    // The error code and RIP are behind the two.
    a.mov(edi, GHCB as u32)?;
    a.mov(rsi, qword_ptr(rsp + 0x10))?;
    a.mov(shared(ghcb::EXITCODE), rsi)?;
    a.mov(shared(ghcb::EXITINFO1), 0)?;
    a.mov(shared(ghcb::EXITINFO2), 0)?;
    for (field, register) in [(ghcb::RAX, rax), (ghcb::RBX, rbx), (ghcb::RCX, rcx), (ghcb::RDX, rdx)] {
        a.mov(shared(field), register)?;
    }
    case(&mut a, &mut next, esi, Intercept::CPUID.0.into())?;
    a.add(qword_ptr(rsp + RIP), 2)?;
    a.jmp(ask)?;
    // 0F 30 is WRMSR, 0F 32 RDMSR.
    case(&mut a, &mut next, esi, Intercept::MSR_PROT.0.into())?;
    a.mov(rsi, qword_ptr(rsp + RIP))?;
    a.xor(eax, eax)?;
    a.cmp(byte_ptr(rsi + 1), 0x30)?;
    a.sete(al)?;
    a.mov(shared(ghcb::EXITINFO1), rax)?;
    a.add(qword_ptr(rsp + RIP), 2)?;
    a.jmp(ask)?;
    // EC is IN AL, DX; EE is OUT DX, AL: 8 bits (bit 4), with 64-bit addresses (bit 9).
    case(&mut a, &mut next, esi, Intercept::IOIO_PROT.0.into())?;
    a.mov(rsi, qword_ptr(rsp + RIP))?;
    a.xor(eax, eax)?;
    a.cmp(byte_ptr(rsi), 0xec_u32 as i32)?;
    a.sete(al)?;
    a.or(eax, 1 << 4 | 1 << 9)?;
    a.movzx(edx, dx)?;
    a.shl(edx, 16_u32)?;
    a.or(eax, edx)?;
    a.mov(shared(ghcb::EXITINFO1), rax)?;
    a.inc(qword_ptr(rsp + RIP))?;
    a.jmp(ask)?;
    a.set_label(&mut next)?;
    terminate(&mut a, Wrong::Event as u32)?;

    a.set_label(&mut ask)?;
    a.mov(rax, ghcb::LOW)?;
    a.mov(shared(ghcb::VALID), rax)?;
    a.mov(rax, ghcb::REQUEST | ghcb::REGISTERS)?;
    a.mov(shared(ghcb::VALID + 8), rax)?;
    a.mov(word_ptr(rdi + ghcb::VERSION), 1)?;
    a.mov(dword_ptr(rdi + ghcb::USAGE), 0)?;
    vmgexit(&mut a)?;
    a.cmp(dword_ptr(rdi + ghcb::EXITINFO1), 0)?;
    expect_equal(&mut a, Wrong::Answer)?;
    for (field, register) in [(ghcb::RAX, rax), (ghcb::RBX, rbx), (ghcb::RCX, rcx), (ghcb::RDX, rdx)] {
        a.mov(register, shared(field))?;
    }
    a.pop(rsi)?;
    a.pop(rdi)?;
    a.add(rsp, 8)?;
    a.iretq()?;
    a.assemble(L2_HANDLERS)
}

/// The program.
pub(super) fn code() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    // Protocol and C-bit.
    a.mov(eax, INFORMATION_REQUEST)?;
    write_ghcb(&mut a)?;
    vmgexit(&mut a)?;
    a.rdmsr()?;
    a.cmp(eax, (u32::from(encryption::C_BIT) << 24) as i32 | INFORMATION)?;
    expect_equal(&mut a, Wrong::Protocol)?;
    // SEV_STATUS: SEV and SEV-ES.
    a.mov(ecx, msr::SEV_STATUS)?;
    a.rdmsr()?;
    a.cmp(eax, 3)?;
    expect_equal(&mut a, Wrong::Status)?;
    // EBX of CPUID 0 by the MSR alone: "Auth".
    a.mov(eax, 1 << 30 | CPUID_REQUEST)?;
    write_ghcb(&mut a)?;
    vmgexit(&mut a)?;
    a.rdmsr()?;
    a.cmp(edx, i32::from_le_bytes(*b"Auth"))?;
    expect_equal(&mut a, Wrong::Vendor)?;
    // From here on by #VC.
    a.mov(eax, GHCB as u32)?;
    write_ghcb(&mut a)?;
    a.xor(eax, eax)?;
    a.xor(ecx, ecx)?;
    a.cpuid()?;
    a.cmp(ecx, i32::from_le_bytes(*b"cAMD"))?;
    expect_equal(&mut a, Wrong::Leaf)?;
    a.mov(ecx, KEPT_MSR)?;
    a.mov(eax, 0x1234)?;
    a.mov(edx, 0x77)?;
    a.wrmsr()?;
    a.xor(eax, eax)?;
    a.xor(edx, edx)?;
    a.rdmsr()?;
    a.shl(rdx, 32_u32)?;
    a.or(rax, rdx)?;
    a.mov(rdx, 0x77_0000_1234_u64)?;
    a.cmp(rax, rdx)?;
    expect_equal(&mut a, Wrong::Msr)?;
    a.mov(edx, 0x3f8)?;
    a.in_(al, dx)?;
    a.cmp(al, INPUT)?;
    expect_equal(&mut a, Wrong::Input)?;
    // Automatic exits: a page that comes when it is touched, HLT.
    a.mov(rdi, WINDOW)?;
    a.mov(qword_ptr(rdi), rdi)?;
    a.hlt()?;
    a.mov(edx, PRINT_PORT)?;
    for byte in TEXT.bytes() {
        a.mov(al, i32::from(byte))?;
        a.out(dx, al)?;
    }
    terminate(&mut a, 0)?;
    a.assemble(L2_CODE)
}
