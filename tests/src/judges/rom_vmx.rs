//! The 64-bit part of the VMX ROM: enables VMX, prints the capabilities, then launches every case of the batch.
//!
//! Lines it prints, all numbers hexadecimal:
//! `U encoding` a field that the processor does not have; `M index value` a model-specific register; `P leaf subleaf eax ebx ecx edx` a CPUID leaf; `S` the first case follows;
//! `B id` a case is about to be launched; `F flags error` VMfail with CF and ZF and the VM-instruction error;
//! `X reason qualification` a VM exit; `E` the end of the batch.

use iced_x86::code_asm::*;
use iced_x86::{Code, IcedError, Instruction};

use super::batch::Way;
use super::batch::{ENTRY_BYTES, HEADER_BYTES};
use super::layout::{BATCH, CONTROL_REGION, HOST_PML4, STACK_TOP, VARIABLES, VMXON_REGION};
use super::rom::{CODE32, DATA, GDT_POINTER_ADDRESS, Printing, Rom, build, print};
use super::rom_vmx_legacy;

/// CR4 of the host while it runs: PAE and VMXE.
pub const HOST_CR4: u64 = 0x2020;

/// Model-specific registers that the ROM prints.
pub const CAPABILITY_MSRS: [u32; 20] = [
    0x480, 0x481, 0x482, 0x483, 0x484, 0x485, 0x486, 0x487, 0x488, 0x489, 0x48A, 0x48B, 0x48C, 0x48D, 0x48E,
    0x48F, 0x490, 0x491, 0x492, 0x493,
];

/// CPUID leaves and subleaves that the ROM prints: where the feature table looks, the largest leaves, address widths.
pub const CPUID_LEAVES: [(u32, u32); 16] = [
    (0, 0),
    (1, 0),
    (7, 0),
    (7, 1),
    (7, 2),
    (0xD, 0),
    (0xD, 1),
    (0x14, 0),
    (0x19, 0),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0007, 0),
    (0x8000_0008, 0),
    (0x8000_000A, 0),
    (0x8000_001F, 0),
    (0x8000_0021, 0),
];

const POSITION: u64 = VARIABLES;
/// Holds the address of the VMXON region.
pub(super) const VMXON_OPERAND: u64 = VARIABLES + 8;
/// Holds the address of the VMCS region of every case.
pub(super) const VMCS_OPERAND: u64 = VARIABLES + 16;

/// Builds the ROM.
///
/// # Errors
///
/// When iced-x86 cannot encode an instruction, which would be a fault of this module.
pub fn rom() -> Result<(Rom, ExitHandlers), IcedError> {
    let mut rom = build(|a, p| {
        enable(a)?;
        print_capabilities(a, p, &CAPABILITY_MSRS)?;
        print_processor(a, p)?;
        cases(a, p)
    })?;
    let legacy = rom_vmx_legacy::add(&mut rom)?;
    let handlers = ExitHandlers { long: rom.exit_handler, legacy };
    Ok((rom, handlers))
}

/// Where VM exits arrive: what HOST_RIP has to be. Zeros on a machine without VMX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitHandlers {
    /// For a host in 64-bit mode.
    pub long: u64,
    /// For a host in 32-bit mode.
    pub legacy: u64,
}

pub(super) fn enable(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ecx, 0x3A)?; // IA32_FEATURE_CONTROL: locked, VMX outside SMX
    a.rdmsr()?;
    a.or(eax, 5)?;
    a.wrmsr()?;
    a.mov(rax, HOST_CR4)?;
    a.mov(cr4, rax)?;
    a.mov(ecx, 0x480)?;
    a.rdmsr()?;
    a.and(eax, 0x7fff_ffff)?;
    a.mov(dword_ptr(VMXON_REGION), eax)?;
    a.mov(dword_ptr(CONTROL_REGION), eax)?;
    a.mov(rax, VMXON_REGION)?;
    a.mov(qword_ptr(VMXON_OPERAND), rax)?;
    a.mov(rax, CONTROL_REGION)?;
    a.mov(qword_ptr(VMCS_OPERAND), rax)?;
    Ok(())
}

pub(super) fn print_capabilities(
    a: &mut CodeAssembler,
    p: &Printing,
    indices: &[u32],
) -> Result<(), IcedError> {
    for index in indices.iter().copied() {
        print(a, "M ")?;
        a.mov(edi, index)?;
        a.call(p.hex)?;
        a.mov(ecx, index)?;
        a.rdmsr()?;
        a.shl(rdx, 32)?;
        a.or(rax, rdx)?;
        a.mov(rdi, rax)?;
        a.call(p.hex)?;
        a.call(p.newline)?;
    }
    Ok(())
}

/// Prints the CPUID leaves.
pub(super) fn print_processor(a: &mut CodeAssembler, p: &Printing) -> Result<(), IcedError> {
    for (leaf, subleaf) in CPUID_LEAVES {
        print(a, "P ")?;
        for number in [leaf, subleaf] {
            a.mov(edi, number)?;
            a.call(p.hex)?;
        }
        a.mov(eax, leaf)?;
        a.mov(ecx, subleaf)?;
        a.cpuid()?;
        a.mov(r8d, ebx)?;
        a.mov(r9d, ecx)?;
        a.mov(r10d, edx)?;
        for register in [eax, r8d, r9d, r10d] {
            a.mov(edi, register)?;
            a.call(p.hex)?;
        }
        a.call(p.newline)?;
    }
    Ok(())
}

/// Has [`rom_vmx_legacy`] launch the case in 32-bit mode, prints what it brings back, and goes on at `next`.
fn legacy_launch(a: &mut CodeAssembler, p: &Printing, next: CodeLabel) -> Result<(), IcedError> {
    let (mut back, mut exited, mut done) = (a.create_label(), a.create_label(), a.create_label());
    // The VMCS goes to memory and VMX ends, because CR0.PG has to be cleared to change between the modes.
    a.vmclear(qword_ptr(VMCS_OPERAND))?;
    a.vmxoff()?;
    a.lea(rax, ptr(back))?;
    a.mov(qword_ptr(rom_vmx_legacy::CONTINUE), rax)?;
    a.push(i32::from(CODE32))?;
    a.mov(eax, rom_vmx_legacy::ENTRY as u32)?;
    a.push(rax)?;
    a.add_instruction(Instruction::with(Code::Retfq))?;

    a.set_label(&mut back)?;
    a.mov(eax, u32::from(DATA))?;
    for segment in [ds, es, ss] {
        a.mov(segment, eax)?;
    }
    a.mov(rsp, STACK_TOP)?;
    a.vmxon(qword_ptr(VMXON_OPERAND))?;
    a.cmp(dword_ptr(rom_vmx_legacy::KIND), 0)?;
    a.jne(exited)?;
    print(a, "F ")?;
    a.jmp(done)?;
    a.set_label(&mut exited)?;
    print(a, "X ")?;
    a.set_label(&mut done)?;
    for variable in [rom_vmx_legacy::FIRST, rom_vmx_legacy::SECOND] {
        a.mov(edi, dword_ptr(variable))?;
        a.call(p.hex)?;
    }
    a.call(p.newline)?;
    a.mov(rsi, qword_ptr(POSITION))?;
    a.jmp(next)?;
    Ok(())
}

/// Points R8 to the encodings at the start of the batch and sets EBX to their number.
fn start_of_batch(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(r8, BATCH)?;
    a.mov(ebx, dword_ptr(r8))?;
    a.add(r8, 4)?;
    Ok(())
}

/// Prints which of the fields that the batch starts from VMWRITE refuses; leaves RSI at the first case.
fn print_missing_fields(a: &mut CodeAssembler, p: &Printing) -> Result<(), IcedError> {
    let (mut next, mut present, mut done) = (a.create_label(), a.create_label(), a.create_label());
    a.vmclear(qword_ptr(VMCS_OPERAND))?;
    a.vmptrld(qword_ptr(VMCS_OPERAND))?;
    start_of_batch(a)?;
    a.set_label(&mut next)?;
    a.dec(ebx)?;
    a.js(done)?;
    a.xor(edi, edi)?;
    a.mov(eax, dword_ptr(r8))?;
    a.vmwrite(rax, rdi)?;
    a.ja(present)?;
    print(a, "U ")?;
    a.mov(edi, dword_ptr(r8))?;
    a.call(p.hex)?;
    a.call(p.newline)?;
    a.set_label(&mut present)?;
    a.add(r8, 4)?;
    a.jmp(next)?;
    a.set_label(&mut done)?;
    a.mov(rsi, r8)?;
    Ok(())
}

fn cases(a: &mut CodeAssembler, p: &Printing) -> Result<CodeLabel, IcedError> {
    let (mut next, mut end, mut exit) = (a.create_label(), a.create_label(), a.create_label());
    let (mut pokes, mut pokes_done) = (a.create_label(), a.create_label());
    let (mut fields, mut fields_done) = (a.create_label(), a.create_label());
    let (mut zeros, mut zeros_done) = (a.create_label(), a.create_label());

    a.vmxon(qword_ptr(VMXON_OPERAND))?;
    print_missing_fields(a, p)?;
    print(a, "S\n")?;

    a.set_label(&mut next)?;
    a.mov(edi, dword_ptr(rsi))?;
    a.cmp(edi, -1)?;
    a.je(end)?;
    print(a, "B ")?;
    a.call(p.hex)?;
    a.call(p.newline)?;
    a.mov(ebx, dword_ptr(rsi + 4))?; // pokes
    a.mov(ebp, dword_ptr(rsi + 8))?; // fields
    a.mov(r12d, dword_ptr(rsi + 12))?; // way of launching
    a.add(rsi, HEADER_BYTES as i32)?;

    a.set_label(&mut pokes)?;
    a.dec(ebx)?;
    a.js(pokes_done)?;
    a.mov(eax, dword_ptr(rsi))?;
    a.mov(rdi, qword_ptr(rsi + 4))?;
    a.mov(qword_ptr(rax), rdi)?;
    a.add(rsi, ENTRY_BYTES as i32)?;
    a.jmp(pokes)?;
    a.set_label(&mut pokes_done)?;

    a.vmclear(qword_ptr(VMCS_OPERAND))?;
    a.vmptrld(qword_ptr(VMCS_OPERAND))?;
    start_of_batch(a)?;
    a.xor(edi, edi)?;
    a.set_label(&mut zeros)?;
    a.dec(ebx)?;
    a.js(zeros_done)?;
    a.mov(eax, dword_ptr(r8))?;
    a.vmwrite(rax, rdi)?;
    a.add(r8, 4)?;
    a.jmp(zeros)?;
    a.set_label(&mut zeros_done)?;
    a.nop()?; // an instruction has one label

    a.set_label(&mut fields)?;
    a.dec(ebp)?;
    a.js(fields_done)?;
    a.mov(eax, dword_ptr(rsi))?;
    a.vmwrite(rax, qword_ptr(rsi + 4))?;
    a.add(rsi, ENTRY_BYTES as i32)?;
    a.jmp(fields)?;
    a.set_label(&mut fields_done)?;
    a.mov(qword_ptr(POSITION), rsi)?;

    let (mut resume, mut after_mov_ss, mut without, mut legacy, mut failed) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label(), a.create_label());
    for (way, label) in [
        (Way::Resume, resume),
        (Way::AfterMovSs, after_mov_ss),
        (Way::WithoutVmcs, without),
        (Way::Legacy, legacy),
    ] {
        a.cmp(r12d, way as i32)?;
        a.je(label)?;
    }
    a.vmlaunch()?;
    a.jmp(failed)?;
    a.set_label(&mut resume)?;
    a.vmresume()?;
    a.jmp(failed)?;
    a.set_label(&mut after_mov_ss)?;
    a.mov(eax, u32::from(DATA))?;
    a.mov(ss, eax)?;
    a.vmlaunch()?;
    a.jmp(failed)?;
    a.set_label(&mut without)?;
    a.vmclear(qword_ptr(VMCS_OPERAND))?;
    a.vmlaunch()?;
    a.jmp(failed)?;
    a.set_label(&mut legacy)?;
    legacy_launch(a, p, next)?;

    a.set_label(&mut failed)?;
    a.pushfq()?;
    a.pop(rdi)?;
    a.and(edi, 0x41)?;
    print(a, "F ")?;
    a.call(p.hex)?;
    a.xor(edi, edi)?; // stays 0 where there is no current VMCS to read from
    a.mov(eax, 0x4400)?;
    a.vmread(rdi, rax)?;
    a.call(p.hex)?;
    a.call(p.newline)?;
    a.mov(rsi, qword_ptr(POSITION))?;
    a.jmp(next)?;

    // After a VM exit the processor has whatever host state the case named (it passed the checks): take back ours,
    // without touching the stack before it is known.
    a.set_label(&mut exit)?;
    a.mov(rax, HOST_CR4)?;
    a.mov(cr4, rax)?;
    a.mov(rax, HOST_PML4)?;
    a.mov(cr3, rax)?;
    a.mov(rax, 0x8000_0021u64)?;
    a.mov(cr0, rax)?;
    a.mov(rsp, STACK_TOP)?;
    a.lgdt(qword_ptr(GDT_POINTER_ADDRESS))?;
    a.mov(eax, u32::from(DATA))?;
    for segment in [ds, es, ss] {
        a.mov(segment, eax)?;
    }
    a.mov(ecx, 0xC000_0080u32)?; // IA32_EFER: LMA and LME
    a.mov(eax, 0x500)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    print(a, "X ")?;
    for field in [0x4402u32, 0x6400] {
        a.mov(eax, field)?;
        a.vmread(rdi, rax)?;
        a.call(p.hex)?;
    }
    a.call(p.newline)?;
    a.mov(rsi, qword_ptr(POSITION))?;
    a.jmp(next)?;

    a.set_label(&mut end)?;
    print(a, "E\n")?;
    a.jmp(p.shutdown)?;
    Ok(exit)
}
