//! Loading the segments of ELF executables.

use std::ops::Range;

use goblin::elf::{Elf, program_header::PT_LOAD};
use rootmode_arch::HostPhysical;
use rootmode_cpu::board::Board;

use super::image::{ImageError, place};

/// What a loader must know of a loaded executable.
pub(super) struct Loaded {
    /// The entry point, as a physical address.
    pub(super) entry: u64,
    /// From the lowest segment's first byte to behind the highest one's last.
    pub(super) range: Range<u64>,
}

/// Whether `bytes` begin like a 64-bit ELF file.
pub(super) fn is_64_bit(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02")
}

/// Loads the segments of an ELF32 or ELF64 file at their physical addresses.
///
/// # Errors
/// [`ImageError`] if the file is damaged or a segment does not fit.
pub(super) fn load(bytes: &[u8], memory: u64, board: &mut Board) -> Result<Loaded, ImageError> {
    let file = Elf::parse(bytes).map_err(|error| ImageError::Elf(error.to_string()))?;
    let mut entry = file.entry;
    let mut range: Option<Range<u64>> = None;
    for (number, header) in file.program_headers.iter().enumerate().filter(|(_, h)| h.p_type == PT_LOAD) {
        let start = usize::try_from(header.p_offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(header.p_filesz).unwrap_or(usize::MAX));
        let Some(contents) = bytes.get(start..end) else {
            return Err(ImageError::Elf(format!(
                "segment {number} lies at {start:#x}..{end:#x} of a file of {:#x} bytes",
                bytes.len()
            )));
        };
        let length = header.p_memsz.max(header.p_filesz);
        place("segment", header.p_paddr, length, memory)?;
        board.memory.write(HostPhysical(header.p_paddr), contents);
        // The entry point is a linear address; the first instructions run where linear is physical.
        if (header.p_vaddr..header.p_vaddr.saturating_add(header.p_memsz)).contains(&file.entry) {
            entry = file.entry - header.p_vaddr + header.p_paddr;
        }
        let (start, end) = (header.p_paddr, header.p_paddr + length);
        range = Some(range.map_or(start..end, |range| range.start.min(start)..range.end.max(end)));
    }
    let range = range.ok_or_else(|| ImageError::Elf("it has nothing to load".into()))?;
    Ok(Loaded { entry, range })
}
