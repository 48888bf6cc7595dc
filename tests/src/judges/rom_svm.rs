//! The 64-bit part of the SVM ROM: enables SVM, prints the processor, then runs every case of the batch.
//!
//! The lines are those of [`super::rom_vmx`]; `X code info` carries EXITCODE and EXITINFO1, and there is no `F`.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::batch::{ENTRY_BYTES, HEADER_BYTES};
use super::layout::{BATCH, CONTROL_REGION, VARIABLES, VMXON_REGION};
use super::rom::{Printing, Rom, build, print};
use super::rom_vmx::print_processor;

/// Where the place in the batch is kept while a case runs.
const POSITION: u64 = VARIABLES;

/// Builds the ROM.
///
/// # Errors
///
/// When iced-x86 cannot encode an instruction, which would be a fault of this module.
pub fn rom() -> Result<Rom, IcedError> {
    build(|a, p| {
        enable(a)?;
        print_processor(a, p)?;
        each_case(a, p, |a| fill(a, CONTROL_REGION, 0x1000, 0), print_exit)
    })
}

/// EFER.SVME and the host save area.
pub(super) fn enable(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ecx, 0xC000_0080u32)?; // IA32_EFER.SVME
    a.rdmsr()?;
    a.or(eax, 0x1000)?;
    a.wrmsr()?;
    a.mov(ecx, 0xC001_0117u32)?; // VM_HSAVE_PA
    a.mov(eax, VMXON_REGION as u32)?;
    a.xor(edx, edx)?;
    a.wrmsr()
}

/// Fills memory with `value`.
pub(super) fn fill(a: &mut CodeAssembler, at: u64, bytes: u64, value: i32) -> Result<(), IcedError> {
    a.mov(edi, at as u32)?;
    a.mov(rax, i64::from(value))?;
    a.mov(ecx, (bytes / 8) as u32)?;
    a.rep().stosq()
}

/// The loop over a batch whose cases are pokes alone: names the case, `clear`s memory, pokes, and `run`s, which may use every
/// register but has to print without moving the stack.
pub(super) fn each_case(
    a: &mut CodeAssembler,
    p: &Printing,
    clear: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    run: impl FnOnce(&mut CodeAssembler, &Printing) -> Result<(), IcedError>,
) -> Result<CodeLabel, IcedError> {
    let (mut next, mut end) = (a.create_label(), a.create_label());
    let (mut pokes, mut pokes_done) = (a.create_label(), a.create_label());
    print(a, "S\n")?;
    a.mov(rsi, BATCH + 4)?;

    a.set_label(&mut next)?;
    a.mov(edi, dword_ptr(rsi))?;
    a.cmp(edi, -1)?;
    a.je(end)?;
    print(a, "B ")?;
    a.call(p.hex)?;
    a.call(p.newline)?;
    a.mov(ebx, dword_ptr(rsi + 4))?;
    a.add(rsi, HEADER_BYTES as i32)?;
    clear(a)?;

    a.set_label(&mut pokes)?;
    a.dec(ebx)?;
    a.js(pokes_done)?;
    a.mov(eax, dword_ptr(rsi))?;
    a.mov(rdi, qword_ptr(rsi + 4))?;
    a.mov(qword_ptr(rax), rdi)?;
    a.add(rsi, ENTRY_BYTES as i32)?;
    a.jmp(pokes)?;
    a.set_label(&mut pokes_done)?;
    a.mov(qword_ptr(POSITION), rsi)?;

    run(a, p)?;
    a.mov(rsi, qword_ptr(POSITION))?;
    a.jmp(next)?;

    a.set_label(&mut end)?;
    print(a, "E\n")?;
    a.jmp(p.shutdown)?;
    // A #VMEXIT continues after VMRUN; there is no separate handler.
    Ok(end)
}

/// VMRUN, and the line about what came back.
fn print_exit(a: &mut CodeAssembler, p: &Printing) -> Result<(), IcedError> {
    a.mov(rax, CONTROL_REGION)?;
    a.vmrun()?;
    print(a, "X ")?;
    for offset in [0x70u64, 0x78] {
        a.mov(rdi, qword_ptr(CONTROL_REGION + offset))?;
        a.call(p.hex)?;
    }
    a.call(p.newline)
}
