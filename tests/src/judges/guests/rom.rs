//! The ROM that runs generated SVM guests: resets their memory, loads registers, VMRUN, and prints what came back.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::layout::*;
use crate::judges::layout::CONTROL_REGION;
use crate::judges::rom::{Printing, Rom, build, print};
use crate::judges::rom_svm::{each_case, enable, fill};

/// Builds the ROM.
///
/// # Errors
///
/// When iced-x86 cannot encode an instruction, which would be a fault of this module.
pub fn rom() -> Result<Rom, IcedError> {
    let mut rom = build(|a, p| {
        enable(a)?;
        fill(a, OPEN_MAPS, MAPS_SIZE, 0)?;
        fill(a, CLOSED_MAPS, MAPS_SIZE, -1)?;
        crate::judges::rom_vmx::print_processor(a, p)?;
        each_case(a, p, clear, run)
    })?;
    rom.add(TABLES_OFFSET, &tables());
    Ok(rom)
}

/// IDTs, GDT and TSS of the guests.
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
    bytes
}

fn clear(a: &mut CodeAssembler) -> Result<(), IcedError> {
    fill(a, CONTROL_REGION, 0x1000, 0)?;
    fill(a, DATA_PAGE, 0x1000, 0)?;
    fill(a, STACK - 0x1000, 0x1000, 0)
}

/// Loads registers, VMRUN, and prints what came back.
fn run(a: &mut CodeAssembler, p: &Printing) -> Result<(), IcedError> {
    let registers = [rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15];
    a.mov(rax, CONTROL_REGION)?;
    a.vmload()?;
    for (n, register) in registers.into_iter().enumerate() {
        a.mov(register, qword_ptr(REGISTERS + 8 * n as u64))?;
    }
    a.vmrun()?;
    for (n, register) in registers.into_iter().enumerate() {
        a.mov(qword_ptr(RESULTS + 8 * n as u64), register)?;
    }
    a.mov(rax, CONTROL_REGION)?;
    a.vmsave()?;
    a.cld()?;
    // RF in frames of 64 and of 32 bits.
    const FLAG: i64 = 1 << 16 | 1 << 48;
    for (n, (page, mask)) in
        [(DATA_PAGE, -1_i64), (STACK - 0x1000, -1), (STACK - 0x1000, !FLAG)].into_iter().enumerate()
    {
        // A sum in which the place counts.
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
        a.mov(qword_ptr(RESULTS + 8 * (registers.len() + n) as u64), rdi)?;
    }
    // A line each: Bochs takes no more than 80 characters.
    let printed = VMCB_FIELDS.iter().map(|(offset, _)| CONTROL_REGION + offset);
    let results = (0..RESULT_NAMES.len() as u64).map(|n| RESULTS + 8 * n);
    for place in printed.chain(results) {
        print(a, "V ")?;
        a.mov(rdi, qword_ptr(place))?;
        a.call(p.hex)?;
        a.call(p.newline)?;
    }
    Ok(())
}
