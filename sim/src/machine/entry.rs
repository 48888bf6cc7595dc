//! The states in which images without firmware are entered: flat 32-bit protected mode, and 64-bit mode over an identity map.

use rootmode_arch::{AccessRights, Cr0, DescriptorTable, Gpr, HostPhysical, Segment, SegmentName, Selector};
use rootmode_cpu::board::Board;
use rootmode_mmu::PhysicalMemory;

/// Page tables and GDT, in low memory that firmware would own.
const TABLES: u64 = 0x9_0000;
/// The GDT behind the tables: PML4, PDPT and four page directories.
const GDT: u64 = TABLES + 0x6000;
/// The page with what a kernel is told, and its command line behind it.
pub(super) const PARAMETERS: u64 = GDT + 0x1000;
pub(super) const COMMAND_LINE: u64 = PARAMETERS + 0x1000;
/// Where the command line ends at the latest, its terminating zero included.
pub(super) const COMMAND_LINE_END: u64 = 0x9_f000;

/// Selectors of the flat code and data segments that an image is entered with.
#[derive(Clone, Copy)]
pub(super) struct Flat {
    pub(super) code: u16,
    pub(super) data: u16,
}

/// What most loaders use.
pub(super) const USUAL: Flat = Flat { code: 0x08, data: 0x10 };

/// Writes `text` and a terminating zero.
pub(super) fn write_string(memory: &mut PhysicalMemory, at: u64, text: &[u8]) {
    memory.write(HostPhysical(at), text);
    memory.write_u8(HostPhysical(at + text.len() as u64), 0);
}

/// 32-bit protected mode: flat segments, without a GDT; paging off, interrupts off.
pub(super) fn protected(board: &mut Board, entry: u64, flat: Flat) {
    let cpu = &mut board.processors_mut()[0].cpu;
    load_segments(cpu, flat, 0xc09b);
    cpu.cr0 = Cr0::PE | Cr0::ET;
    cpu.rip = entry;
    cpu.refresh();
}

/// 64-bit mode at CPL 0, interrupts off, the first 4 GiB identity-mapped by 2-MByte pages, RDX = RDI = RSI = 0.
pub(super) fn long_mode(board: &mut Board, entry: u64, flat: Flat) {
    let write = |board: &mut Board, at: u64, value: u64| board.memory.write_u64(HostPhysical(at), value);
    let (pml4, pdpt, directories) = (TABLES, TABLES + 0x1000, TABLES + 0x2000);
    write(board, pml4, pdpt | 3);
    for gigabyte in 0..4 {
        write(board, pdpt + gigabyte * 8, (directories + gigabyte * 0x1000) | 3);
        for page in 0..512 {
            let address = gigabyte << 30 | page << 21;
            write(board, directories + gigabyte * 0x1000 + page * 8, address | 0x83);
        }
    }
    load_gdt(board, flat, 0x00af_9b00_0000_ffff);
    let cpu = &mut board.processors_mut()[0].cpu;
    cpu.enter_long_mode(pml4, entry, 0);
    load_segments(cpu, flat, 0xa09b);
    cpu.gpr[Gpr::Rdi as usize] = 0;
    cpu.gpr[Gpr::Rsi as usize] = 0;
    cpu.gpr[Gpr::Rdx as usize] = 0;
    cpu.idtr = DescriptorTable { base: 0, limit: 0 };
    cpu.refresh();
}

/// A GDT of 32-bit segments for code entered by [`protected`].
pub(super) fn load_gdt_32(board: &mut Board, flat: Flat) {
    load_gdt(board, flat, 0x00cf_9b00_0000_ffff);
}

fn load_gdt(board: &mut Board, flat: Flat, code: u64) {
    for at in (0..=u64::from(flat.data.max(flat.code))).step_by(8) {
        board.memory.write_u64(HostPhysical(GDT + at), 0);
    }
    board.memory.write_u64(HostPhysical(GDT + u64::from(flat.code)), code);
    board.memory.write_u64(HostPhysical(GDT + u64::from(flat.data)), 0x00cf_9300_0000_ffff);
    board.processors_mut()[0].cpu.gdtr = DescriptorTable { base: GDT, limit: flat.data.max(flat.code) + 7 };
}

fn load_segments(cpu: &mut rootmode_cpu::Cpu, flat: Flat, code_rights: u32) {
    let segment = |selector, rights| Segment {
        selector: Selector(selector),
        rights: AccessRights(rights),
        limit: u32::MAX,
        base: 0,
    };
    for name in [SegmentName::Es, SegmentName::Ss, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs] {
        *cpu.segment_mut(name) = segment(flat.data, 0xc093);
    }
    *cpu.segment_mut(SegmentName::Cs) = segment(flat.code, code_rights);
}
