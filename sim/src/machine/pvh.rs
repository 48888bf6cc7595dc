//! ELF kernels that are entered as Xen enters PVH guests (Xen 4.20, docs/misc/pvh.pandoc "Starting state"; public headers
//! arch-x86/hvm/start_info.h and elfnote.h).

use goblin::elf::Elf;
use rootmode_arch::{Gpr, HostPhysical};
use rootmode_cpu::board::Board;
use rootmode_models::devices::acpi::tables;
use rootmode_models::devices::pc::Configuration;

use super::entry::{COMMAND_LINE, COMMAND_LINE_END};
use super::image::{ImageError, initrd_address, place};
use super::{elf, entry};

/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PHYS32_ENTRY: u32 = 18;
/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// `hvm_start_info`.
const START_INFO: u64 = entry::PARAMETERS;
const MODULE: u64 = START_INFO + 0x80;
const MEMORY_MAP: u64 = START_INFO + 0x100;

/// The physical address of the 32-bit entry that the note of `bytes` gives, if it has one.
pub(super) fn entry_of(bytes: &[u8]) -> Option<u32> {
    let file = Elf::parse(bytes).ok()?;
    let segments = file.iter_note_headers(bytes)?;
    let note =
        segments.filter_map(Result::ok).find(|note| note.name == "Xen" && note.n_type == PHYS32_ENTRY)?;
    note.desc.get(..4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Loads the kernel, tells it where everything is, and sets processor 0 to `start`.
///
/// # Errors
/// [`ImageError`] if the file is damaged or something does not fit.
pub(super) fn load(
    bytes: &[u8],
    start: u32,
    configuration: &Configuration,
    board: &mut Board,
) -> Result<(), ImageError> {
    let (below, _) = configuration.ram();
    let loaded = elf::load(bytes, below, board)?;
    let initrd = &configuration.initrd;
    let disk = initrd_address(initrd, loaded.range.end, u32::MAX.into(), below)?;
    let text = configuration.command_line.as_bytes();
    place("command line", COMMAND_LINE, text.len() as u64 + 1, COMMAND_LINE_END)?;
    let memory = &mut board.memory;
    memory.write(HostPhysical(disk), initrd);
    entry::write_string(memory, COMMAND_LINE, text);
    let map = configuration.memory_map();
    let modules = u32::from(!initrd.is_empty());
    for (offset, value) in [(0, MAGIC), (4, 1), (8, 0), (12, modules), (48, map.len() as u32), (52, 0)] {
        memory.write_u32(HostPhysical(START_INFO + offset), value);
    }
    let module = if initrd.is_empty() { 0 } else { MODULE };
    for (offset, value) in [(16, module), (24, COMMAND_LINE), (32, tables::LOW_MEMORY), (40, MEMORY_MAP)] {
        memory.write_u64(HostPhysical(START_INFO + offset), value);
    }
    for (offset, value) in [(0, disk), (8, initrd.len() as u64), (16, 0), (24, 0)] {
        memory.write_u64(HostPhysical(MODULE + offset), value);
    }
    for (at, (address, bytes, kind)) in (MEMORY_MAP..).step_by(24).zip(map) {
        memory.write_u64(HostPhysical(at), address);
        memory.write_u64(HostPhysical(at + 8), bytes);
        memory.write_u64(HostPhysical(at + 16), kind.into());
    }
    entry::protected(board, start.into(), entry::USUAL);
    board.processors_mut()[0].cpu.gpr[Gpr::Rbx as usize] = START_INFO;
    Ok(())
}
