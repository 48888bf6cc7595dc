//! The part of the VMX ROM that launches a case from 32-bit protected mode with PAE paging and takes its VM exits.
//!
//! The 64-bit part comes here in compatibility mode, outside VMX operation, with the VMCS in memory; it gets back
//! what happened in a few variables.

use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, Code, IcedError, Instruction};

use super::layout::{HOST_PAE_TABLE, HOST_PML4, ROM_BASE, STACK_TOP, VARIABLES};
use super::rom::{CODE64, DATA, GDT_POINTER_ADDRESS, Rom, SPACE, SPACE_END};
use super::rom_vmx::{HOST_CR4, VMCS_OPERAND, VMXON_OPERAND};

/// Where the 64-bit part jumps to, with the selector of 32-bit code.
pub(super) const ENTRY: u64 = ROM_BASE + SPACE as u64;

/// Variable: where to go on in 64-bit mode.
pub(super) const CONTINUE: u64 = VARIABLES + 0x20;
/// Variable: 0 for VMfail, 1 for a VM exit.
pub(super) const KIND: u64 = VARIABLES + 0x28;
/// Variable: flags, or exit reason.
pub(super) const FIRST: u64 = VARIABLES + 0x2C;
/// Variable: VM-instruction error, or exit qualification.
pub(super) const SECOND: u64 = VARIABLES + 0x30;

/// Offset of the instruction that is executed first after the return to 64-bit mode.
const LANDING: usize = SPACE_END - 0x100;

/// Adds the code to `rom` and returns the address of its exit handler.
pub(super) fn add(rom: &mut Rom) -> Result<u64, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let (mut exit, mut back) = (a.create_label(), a.create_label());
    let paged = 0x8000_0021u32;

    data_segments(&mut a)?;
    leave_paging(&mut a, 0)?;
    a.mov(eax, HOST_PAE_TABLE as u32)?;
    a.mov(cr3, eax)?;
    a.mov(eax, paged)?;
    a.mov(cr0, eax)?;
    a.vmxon(qword_ptr(VMXON_OPERAND as u32))?;
    a.vmptrld(qword_ptr(VMCS_OPERAND as u32))?;
    a.vmlaunch()?;
    a.pushfd()?;
    a.pop(ebx)?;
    a.and(ebx, 0x41)?;
    a.mov(dword_ptr(FIRST as u32), ebx)?;
    a.mov(dword_ptr(KIND as u32), 0)?;
    a.mov(eax, 0x4400)?;
    a.vmread(ebx, eax)?;
    a.mov(dword_ptr(SECOND as u32), ebx)?;
    a.jmp(back)?;

    a.set_label(&mut exit)?;
    a.mov(eax, HOST_CR4 as u32)?;
    a.mov(cr4, eax)?;
    a.mov(eax, HOST_PAE_TABLE as u32)?;
    a.mov(cr3, eax)?;
    a.mov(eax, paged)?;
    a.mov(cr0, eax)?;
    a.lgdt(fword_ptr(GDT_POINTER_ADDRESS as u32))?;
    data_segments(&mut a)?;
    a.mov(dword_ptr(KIND as u32), 1)?;
    for (field, variable) in [(0x4402u32, FIRST), (0x6400, SECOND)] {
        a.mov(eax, field)?;
        a.vmread(ebx, eax)?;
        a.mov(dword_ptr(variable as u32), ebx)?;
    }

    a.set_label(&mut back)?;
    a.vmclear(qword_ptr(VMCS_OPERAND as u32))?;
    a.vmxoff()?;
    leave_paging(&mut a, 0x100)?;
    a.mov(eax, HOST_PML4 as u32)?;
    a.mov(cr3, eax)?;
    a.mov(eax, paged)?;
    a.mov(cr0, eax)?;
    let landing = (ROM_BASE + LANDING as u64) as u32;
    a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, CODE64, landing)?)?;

    let code = a.assemble_options(ENTRY, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let handler = code.label_ip(&exit)?;
    assert!(SPACE + code.inner.code_buffer.len() <= LANDING, "the 32-bit part ends before the landing");
    rom.add(SPACE, &code.inner.code_buffer);

    let mut a = CodeAssembler::new(64)?;
    a.jmp(qword_ptr(CONTINUE))?;
    rom.add(LANDING, &a.assemble(ROM_BASE + LANDING as u64)?);
    Ok(handler)
}

fn data_segments(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, u32::from(DATA))?;
    for segment in [ds, es, ss] {
        a.mov(segment, eax)?;
    }
    a.mov(esp, STACK_TOP as u32)
}

/// Clears CR0.PG and writes IA32_EFER, which is `efer`.
fn leave_paging(a: &mut CodeAssembler, efer: u32) -> Result<(), IcedError> {
    a.mov(eax, 0x21)?;
    a.mov(cr0, eax)?;
    a.mov(ecx, 0xC000_0080u32)?;
    a.mov(eax, efer)?;
    a.xor(edx, edx)?;
    a.wrmsr()
}
