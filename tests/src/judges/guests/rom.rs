//! The ROM that runs generated guests: resets their memory, loads registers, enters them, and prints what came back.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::layout::*;
use crate::judges::judge::Extension;
use crate::judges::layout::CONTROL_REGION;
use crate::judges::rom::{self, Printing, Rom, build, print};
use crate::judges::rom_svm::{self, each_case, fill};
use crate::judges::rom_vmx::{self, CAPABILITY_MSRS, VMCS_OPERAND, VMXON_OPERAND};
use crate::judges::vmcs::{FIELDS, HOST_RIP};

/// Builds the ROM.
///
/// # Errors
///
/// When iced-x86 cannot encode an instruction, which would be a fault of this module.
pub fn rom(extension: Extension) -> Result<Rom, IcedError> {
    let mut rom = build(|a, p| {
        fill(a, OPEN_MAPS, MAPS_SIZE, 0)?;
        fill(a, CLOSED_MAPS, MAPS_SIZE, -1)?;
        rom_vmx::print_processor(a, p)?;
        match extension {
            Extension::Svm => {
                rom_svm::enable(a)?;
                let clear =
                    |a: &mut CodeAssembler| fill(a, CONTROL_REGION, 0x1000, 0).and_then(|()| clear(a));
                each_case(a, p, clear, run_svm)
            }
            Extension::Vmx => {
                rom_vmx::enable(a)?;
                // Those up to the TRUE registers, which every processor has here.
                rom_vmx::print_capabilities(a, p, &CAPABILITY_MSRS[..17])?;
                a.vmxon(qword_ptr(VMXON_OPERAND))?;
                let clear = |a: &mut CodeAssembler| fill(a, FIELD_VALUES, 0x1000, 0).and_then(|()| clear(a));
                each_case(a, p, clear, run_vmx)
            }
        }
    })?;
    rom.add(TABLES_OFFSET, &tables());
    Ok(rom)
}

/// IDTs, GDT and TSS of the guests, and encodings of VMCS fields.
fn tables() -> Vec<u8> {
    let mut bytes = vec![0; TABLES_SIZE];
    let mut put = |at: u64, value: u64| {
        let at = (at - IDT64) as usize;
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    for vector in 0..256 {
        let gate = |selector: u64, low: u64, kind: u64| {
            low & 0xffff | selector << 16 | kind << 40 | (low >> 16 & 0xffff) << 48
        };
        // INT3 and INTO may be executed at CPL 3.
        let kind = if matches!(vector, 3 | 4) { 0xee } else { 0x8e };
        put(IDT64 + vector * 16, gate(CODE64.into(), HANDLER, kind));
        put(IDT32 + vector * 8, gate(CODE32.into(), HANDLER, kind));
    }
    for (selector, descriptor) in [
        (CODE64, 0x00af_9b00_0000_ffff_u64),
        (DATA, 0x00cf_9300_0000_ffff),
        (USER_DATA & !3, 0x00cf_f300_0000_ffff),
        (USER_CODE & !3, 0x00af_fb00_0000_ffff),
        (CODE32, 0x00cf_9b00_0000_ffff),
        (TASK, 0x67 | (TSS & 0xff_ffff) << 16 | 0x8b << 40),
    ] {
        put(GDT + u64::from(selector), descriptor);
    }
    // RSP0.
    put(TSS, (STACK - 0x800) << 32);
    let encodings = FIELDS.iter().chain(VMCS_FIELDS).map(|(encoding, _)| *encoding);
    bytes.extend(encodings.flat_map(u32::to_le_bytes));
    bytes
}

fn clear(a: &mut CodeAssembler) -> Result<(), IcedError> {
    fill(a, DATA_PAGE, 0x1000, 0)?;
    fill(a, STACK - 0x1000, 0x1000, 0)
}

/// What VMRUN and VMLAUNCH leave as it is.
const REGISTERS_OF_BOTH: [AsmRegister64; 14] =
    [rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15];

fn load_registers(a: &mut CodeAssembler) -> Result<(), IcedError> {
    for (n, register) in REGISTERS_OF_BOTH.into_iter().enumerate() {
        a.mov(register, qword_ptr(REGISTERS + 8 * n as u64))?;
    }
    Ok(())
}

fn store_registers(a: &mut CodeAssembler) -> Result<(), IcedError> {
    for (n, register) in REGISTERS_OF_BOTH.into_iter().enumerate() {
        a.mov(qword_ptr(RESULTS + 8 * n as u64), register)?;
    }
    Ok(())
}

/// Loads registers, VMRUN, and prints what came back.
fn run_svm(a: &mut CodeAssembler, p: &Printing) -> Result<(), IcedError> {
    a.mov(rax, CONTROL_REGION)?;
    a.vmload()?;
    // Bochs's VMRUN does not load it.
    a.mov(rax, qword_ptr(CONTROL_REGION + VMCB_CR2))?;
    a.mov(cr2, rax)?;
    a.mov(rax, CONTROL_REGION)?;
    load_registers(a)?;
    a.vmrun()?;
    store_registers(a)?;
    a.mov(rax, CONTROL_REGION)?;
    a.vmsave()?;
    sums(a)?;
    for (offset, _) in VMCB_FIELDS {
        print_word(a, p, CONTROL_REGION + offset)?;
    }
    print_results(a, p)
}

/// Writes the VMCS, loads what it does not hold, VMLAUNCH, and prints what came back.
fn run_vmx(a: &mut CodeAssembler, p: &Printing) -> Result<(), IcedError> {
    let (mut exited, mut done) = (a.create_label(), a.create_label());
    a.vmclear(qword_ptr(VMCS_OPERAND))?;
    a.vmptrld(qword_ptr(VMCS_OPERAND))?;
    a.mov(r8, ENCODINGS)?;
    a.mov(esi, FIELD_VALUES as u32)?;
    a.mov(ecx, FIELDS.len() as u32)?;
    let mut field = a.create_label();
    a.set_label(&mut field)?;
    a.mov(eax, dword_ptr(r8))?;
    a.vmwrite(rax, qword_ptr(rsi))?;
    a.add(r8, 4)?;
    a.add(rsi, 8)?;
    a.dec(ecx)?;
    a.jne(field)?;
    a.lea(rax, ptr(exited))?;
    a.mov(ecx, HOST_RIP)?;
    a.vmwrite(rcx, rax)?;
    // IRET: NMIs are not blocked, whatever the last guest did.
    let mut unblocked = a.create_label();
    a.mov(rcx, rsp)?;
    a.push(i32::from(rom::DATA))?;
    a.push(rcx)?;
    a.pushfq()?;
    a.push(i32::from(rom::CODE64))?;
    a.lea(rcx, ptr(unblocked))?;
    a.push(rcx)?;
    a.iretq()?;
    a.set_label(&mut unblocked)?;
    a.xor(eax, eax)?;
    for register in [dr0, dr1, dr2, dr3] {
        a.mov(register, rax)?;
    }
    a.mov(cr8, rax)?;
    a.mov(eax, 0xffff_0ff0_u32)?;
    a.mov(dr6, rax)?;
    a.fninit()?;
    for (state, _) in VMX_STATE {
        if let State::Msr(index) = state {
            a.mov(ecx, *index)?;
            a.xor(eax, eax)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
        }
    }
    a.mov(rax, qword_ptr(CR2_VALUE))?;
    a.mov(cr2, rax)?;
    load_registers(a)?;
    a.mov(rax, qword_ptr(RAX_VALUE))?;
    a.vmlaunch()?;
    // VMfail: the error number, and what no reason has.
    a.mov(eax, 0x4400)?;
    a.vmread(rdi, rax)?;
    a.bts(rdi, 32)?;
    a.jmp(done)?;

    a.set_label(&mut exited)?;
    a.mov(qword_ptr(STATES + 8), rax)?;
    store_registers(a)?;
    a.mov(eax, 0x4402)?;
    a.vmread(rdi, rax)?;
    a.set_label(&mut done)?;
    a.mov(qword_ptr(STATES), rdi)?;
    for (n, (state, _)) in VMX_STATE.iter().enumerate() {
        match state {
            State::Rax => continue,
            State::Cr2 => a.mov(rax, cr2)?,
            State::Dr1 => a.mov(rax, dr1)?,
            State::Dr6 => a.mov(rax, dr6)?,
            State::Msr(index) => {
                a.mov(ecx, *index)?;
                a.rdmsr()?;
                a.shl(rdx, 32)?;
                a.or(rax, rdx)?;
            }
        }
        a.mov(qword_ptr(STATES + 8 + 8 * n as u64), rax)?;
    }
    sums(a)?;
    print_word(a, p, STATES)?;
    a.mov(r8, ENCODINGS + 4 * FIELDS.len() as u64)?;
    a.mov(ebx, VMCS_FIELDS.len() as u32)?;
    let mut field = a.create_label();
    a.set_label(&mut field)?;
    print(a, "V ")?;
    a.xor(edi, edi)?;
    a.mov(eax, dword_ptr(r8))?;
    a.vmread(rdi, rax)?;
    a.call(p.hex)?;
    a.call(p.newline)?;
    a.add(r8, 4)?;
    a.dec(ebx)?;
    a.jne(field)?;
    for n in 0..VMX_STATE.len() as u64 {
        print_word(a, p, STATES + 8 + 8 * n)?;
    }
    print_results(a, p)
}

/// Sums of the guest's memory, in which the place counts.
fn sums(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.cld()?;
    // RF in frames of 64 and of 32 bits.
    const FLAG: i64 = 1 << 16 | 1 << 48;
    for (n, (page, mask)) in
        [(DATA_PAGE, -1_i64), (STACK - 0x1000, -1), (STACK - 0x1000, !FLAG)].into_iter().enumerate()
    {
        a.mov(rbx, mask)?;
        a.mov(esi, page as u32)?;
        a.mov(ecx, 512)?;
        a.xor(edi, edi)?;
        let mut word = a.create_label();
        a.set_label(&mut word)?;
        a.rol(rdi, 7)?;
        a.mov(rax, qword_ptr(rsi))?;
        a.and(rax, rbx)?;
        a.add(rdi, rax)?;
        a.add(rsi, 8)?;
        a.dec(ecx)?;
        a.jne(word)?;
        a.mov(qword_ptr(RESULTS + 8 * (REGISTERS_OF_BOTH.len() + n) as u64), rdi)?;
    }
    Ok(())
}

fn print_results(a: &mut CodeAssembler, p: &Printing) -> Result<(), IcedError> {
    (0..RESULT_NAMES.len() as u64).try_for_each(|n| print_word(a, p, RESULTS + 8 * n))
}

/// A line for each value: Bochs takes no more than 80 characters.
fn print_word(a: &mut CodeAssembler, p: &Printing, place: u64) -> Result<(), IcedError> {
    print(a, "V ")?;
    a.mov(rdi, qword_ptr(place))?;
    a.call(p.hex)?;
    a.call(p.newline)
}
