//! The boot ROM that both judging machines share: from the reset vector to 64-bit mode, and routines that print.
//!
//! Generated with iced-x86, so that no assembler is needed at run time. The vendor's part ([`super::rom_vmx`],
//! [`super::rom_svm`]) is appended as 64-bit code.

use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, Code, IcedError, Instruction};

use super::arena::{arena, guest_code};
use super::layout::{
    ARENA, ARENA_SIZE, BATCH_SIZE, COPIED, GUEST_CODE, HOST_PAE_TABLE, HOST_PML4, IMAGE, IMAGE_SIZE,
    ROM_BASE, ROM_SIZE, STACK_TOP,
};

/// Port whose bytes reach the emulator's log (Bochs's BIOS information port; QEMU's `isa-debugcon` is put there).
pub const LOG_PORT: u32 = 0x402;

/// Selector of the host's 64-bit code segment.
pub const CODE64: u16 = 0x18;
/// Selector of the host's data segment.
pub const DATA: u16 = 0x10;
/// Selector of the host's TSS descriptor (never loaded; a VM exit needs one that is not null).
pub const TSS: u16 = 0x20;

/// Selector of the host's 32-bit code segment.
pub const CODE32: u16 = 0x08;
const REAL_START: usize = 0xE000;
const GDT: usize = 0xE100;
const GDT_POINTER: usize = 0xE180;
const PROTECTED_START: usize = 0xE200;
const LONG_START: usize = 0x1000;

/// Offset of the space for [`Rom::add`], up to [`SPACE_END`].
pub const SPACE: usize = 0xC000;
/// End of that space.
pub const SPACE_END: usize = REAL_START;

const RESET: usize = 0xFFF0;

/// Linear address of the pseudo-descriptor that `LGDT` reads to come back to the host's GDT.
pub const GDT_POINTER_ADDRESS: u64 = ROM_BASE + GDT_POINTER as u64;
/// Linear address of the host's GDT.
pub const GDT_ADDRESS: u64 = ROM_BASE + GDT as u64;

/// A finished ROM.
pub struct Rom {
    code: Vec<u8>,
    /// Linear address of the label that the vendor's part named as its exit handler, if it has one.
    pub exit_handler: u64,
}

/// Labels of the printing routines.
///
/// All of them use RAX, RCX, RDX and RDI and keep the other registers.
pub struct Printing {
    /// Prints the byte in AL.
    pub byte: CodeLabel,
    /// Prints RDI in hexadecimal without leading zeros, then a space.
    pub hex: CodeLabel,
    /// Ends the line.
    pub newline: CodeLabel,
    /// Ends the emulator.
    pub shutdown: CodeLabel,
}

/// Builds the ROM: boot code, then whatever `body` adds to the 64-bit part; `body` returns its exit handler's label.
///
/// # Errors
///
/// When iced-x86 cannot encode an instruction, which would be a fault of this module.
pub fn build(
    body: impl FnOnce(&mut CodeAssembler, &Printing) -> Result<CodeLabel, IcedError>,
) -> Result<Rom, IcedError> {
    let mut image = vec![0xF4u8; ROM_SIZE]; // HLT
    place(&mut image, REAL_START, &real_mode()?);
    place(&mut image, GDT, &descriptors());
    place(&mut image, GDT_POINTER, &gdt_pointer());
    place(&mut image, PROTECTED_START, &protected_mode()?);
    let (code, exit_handler) = long_mode(body)?;
    assert!(LONG_START + code.len() <= SPACE, "the 64-bit part fits below what is added");
    place(&mut image, LONG_START, &code);
    // JMP F000:REAL_START, the first instruction after reset.
    place(&mut image, RESET, &[0xEA, REAL_START as u8, (REAL_START >> 8) as u8, 0x00, 0xF0]);
    Ok(Rom { code: image, exit_handler })
}

impl Rom {
    /// Puts more code at `offset` in the mirrored part.
    pub fn add(&mut self, offset: usize, code: &[u8]) {
        place(&mut self.code, offset, code);
    }

    /// The whole image: the batch, what is copied to memory, the code.
    ///
    /// # Panics
    ///
    /// When `batch` is longer than [`BATCH_SIZE`].
    #[must_use]
    pub fn image(&self, batch: &[u8]) -> Vec<u8> {
        assert!(batch.len() <= BATCH_SIZE, "the batch of {} bytes fits into the image", batch.len());
        let mut image = vec![0xFF; IMAGE_SIZE];
        place(&mut image, 0, batch);
        place(&mut image, COPIED, &guest_code());
        place(&mut image, COPIED + 0x1000, &arena());
        place(&mut image, IMAGE_SIZE - ROM_SIZE, &self.code);
        image
    }
}

/// Prints the bytes of `text`.
///
/// # Errors
///
/// As for [`build`].
pub fn print(a: &mut CodeAssembler, text: &str) -> Result<(), IcedError> {
    a.mov(edx, LOG_PORT)?;
    for byte in text.bytes() {
        a.mov(al, u32::from(byte))?;
        a.out(dx, al)?;
    }
    Ok(())
}

fn place(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn descriptors() -> Vec<u8> {
    let table: [u64; 6] = [
        0,
        0x00cf_9b00_0000_ffff, // 32-bit code
        0x00cf_9300_0000_ffff, // data
        0x00af_9b00_0000_ffff, // 64-bit code
        0x0000_8b00_0000_0067, // busy 64-bit TSS at 0
        0,
    ];
    table.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

fn gdt_pointer() -> Vec<u8> {
    let mut bytes = 47u16.to_le_bytes().to_vec();
    bytes.extend(GDT_ADDRESS.to_le_bytes());
    bytes
}

fn real_mode() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    a.cli()?;
    a.mov(al, 2)?; // A20 on, through the system control port
    a.out(0x92, al)?;
    // `LGDT [CS:…]` with a 32-bit operand: the pointer lies in this segment.
    a.db(&[0x2E, 0x66, 0x0F, 0x01, 0x16, GDT_POINTER as u8, (GDT_POINTER >> 8) as u8])?;
    a.mov(eax, cr0)?;
    a.or(eax, 1)?;
    a.mov(cr0, eax)?;
    a.add_instruction(Instruction::with_far_branch(
        Code::Jmp_ptr1632,
        CODE32,
        (ROM_BASE + PROTECTED_START as u64) as u32,
    )?)?;
    a.assemble(REAL_START as u64)
}

fn protected_mode() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    a.mov(eax, u32::from(DATA))?;
    for segment in [ds, es, ss, fs, gs] {
        a.mov(segment, eax)?;
    }
    a.mov(esp, STACK_TOP as u32)?;
    a.cld()?;
    let copied = IMAGE as u32 + COPIED as u32;
    for (from, to, bytes) in [(copied, GUEST_CODE, 0x1000), (copied + 0x1000, ARENA, ARENA_SIZE as u32)] {
        a.mov(esi, from)?;
        a.mov(edi, to as u32)?;
        a.mov(ecx, bytes / 4)?;
        a.rep().movsd()?;
    }
    // Page tables: clear five pages, then one PML4E, two PDPTEs (again for PAE) and twice 512 identity PDEs of 2 MiB.
    a.mov(edi, HOST_PML4 as u32)?;
    a.xor(eax, eax)?;
    a.mov(ecx, 5 * 1024)?;
    a.rep().stosd()?;
    a.mov(dword_ptr(HOST_PML4 as u32), (HOST_PML4 as u32 + 0x1000) | 3)?;
    for (gigabyte, directory) in [(0u32, HOST_PML4 as u32 + 0x2000), (3, HOST_PML4 as u32 + 0x3000)] {
        a.mov(dword_ptr(HOST_PML4 as u32 + 0x1000 + 8 * gigabyte), directory | 3)?;
        a.mov(dword_ptr(HOST_PAE_TABLE as u32 + 8 * gigabyte), directory | 1)?;
        a.mov(edi, directory)?;
        a.mov(eax, gigabyte << 30 | 0x83)?;
        a.mov(ecx, 512)?;
        let mut next = a.create_label();
        a.set_label(&mut next)?;
        a.mov(dword_ptr(edi), eax)?;
        a.add(edi, 8)?;
        a.add(eax, 0x20_0000)?;
        a.dec(ecx)?;
        a.jne(next)?;
    }
    a.mov(eax, HOST_PML4 as u32)?;
    a.mov(cr3, eax)?;
    a.mov(eax, 0x20)?; // CR4.PAE
    a.mov(cr4, eax)?;
    a.mov(ecx, 0xC000_0080u32)?; // IA32_EFER.LME
    a.rdmsr()?;
    a.or(eax, 0x100)?;
    a.wrmsr()?;
    a.mov(eax, cr0)?;
    a.or(eax, 0x8000_0021u32)?; // PG, NE, PE
    a.and(eax, 0x9fff_ffffu32)?; // caches on: CD and NW are set after reset
    a.mov(cr0, eax)?;
    a.add_instruction(Instruction::with_far_branch(
        Code::Jmp_ptr1632,
        CODE64,
        (ROM_BASE + LONG_START as u64) as u32,
    )?)?;
    a.assemble(ROM_BASE + PROTECTED_START as u64)
}

fn long_mode(
    body: impl FnOnce(&mut CodeAssembler, &Printing) -> Result<CodeLabel, IcedError>,
) -> Result<(Vec<u8>, u64), IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut start = a.create_label();
    let printing = Printing {
        byte: a.create_label(),
        hex: a.create_label(),
        newline: a.create_label(),
        shutdown: a.create_label(),
    };
    a.jmp(start)?;
    printing_routines(&mut a, &printing)?;
    a.set_label(&mut start)?;
    a.mov(eax, u32::from(DATA))?;
    for segment in [ds, es, ss] {
        a.mov(segment, eax)?;
    }
    a.mov(rsp, STACK_TOP)?;
    let exit = body(&mut a, &printing)?;
    let result = a.assemble_options(
        ROM_BASE + LONG_START as u64,
        BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS,
    )?;
    let exit = result.label_ip(&exit)?;
    Ok((result.inner.code_buffer, exit))
}

fn printing_routines(a: &mut CodeAssembler, p: &Printing) -> Result<(), IcedError> {
    let (mut byte, mut hex, mut newline, mut shutdown) = (p.byte, p.hex, p.newline, p.shutdown);

    a.set_label(&mut byte)?;
    a.mov(edx, LOG_PORT)?;
    a.out(dx, al)?;
    a.ret()?;

    a.set_label(&mut hex)?;
    let (mut skip, mut print_digit, mut letter_done, mut done) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.mov(edx, LOG_PORT)?;
    a.mov(ecx, 16)?;
    // Leading zeros are skipped, but never the last digit.
    a.set_label(&mut skip)?;
    a.rol(rdi, 4)?;
    a.mov(eax, edi)?;
    a.and(eax, 15)?;
    a.jne(print_digit)?;
    a.dec(ecx)?;
    a.jne(skip)?;
    a.inc(ecx)?;
    a.set_label(&mut print_digit)?;
    a.mov(eax, edi)?;
    a.and(eax, 15)?;
    a.add(al, i32::from(b'0'))?;
    a.cmp(al, i32::from(b'9'))?;
    a.jbe(letter_done)?;
    a.add(al, 7)?;
    a.set_label(&mut letter_done)?;
    a.out(dx, al)?;
    a.dec(ecx)?;
    a.je(done)?;
    a.rol(rdi, 4)?;
    a.jmp(print_digit)?;
    a.set_label(&mut done)?;
    a.mov(al, u32::from(b' '))?;
    a.out(dx, al)?;
    a.ret()?;

    a.set_label(&mut newline)?;
    a.mov(edx, LOG_PORT)?;
    a.mov(al, 10)?;
    a.out(dx, al)?;
    a.ret()?;

    // Bochs leaves when "Shutdown" is written to port 0x8900, QEMU through `isa-debug-exit` at 0xF4.
    a.set_label(&mut shutdown)?;
    a.mov(edx, 0x8900)?;
    for letter in "Shutdown".bytes() {
        a.mov(al, u32::from(letter))?;
        a.out(dx, al)?;
    }
    a.mov(al, 0)?;
    a.out(0xF4, al)?;
    a.cli()?;
    a.hlt()?;
    Ok(())
}
