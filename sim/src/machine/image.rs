//! [`Image`]: what kind of image a file is, and how it is loaded.
//!
//! - Multiboot 1 kernels: entered as the specification says, in 32-bit protected mode.
//! - ELF64 executables without a Multiboot header: entered in 64-bit mode at CPL 0, interrupts off, with the first 4 GiB
//!   identity-mapped by 2-MByte pages, a flat GDT (code 0x08, data 0x10) and RDI = RSI = 0; the stack is the caller's to set.
//! - Linux bzImages: entered by the 64-bit boot protocol if they have that entry, else by the 32-bit one.
//! - ELF files with a PVH note: entered in 32-bit protected mode as Xen does it.
//! - Anything else is a flat binary: loaded at 0x7c00 and entered there in real mode.

use rootmode_arch::HostPhysical;
use rootmode_cpu::board::Board;
use rootmode_models::devices::pc::Configuration;

use super::{elf, entry, linux, multiboot, pvh};

/// Where a flat binary is loaded and entered.
const FLAT_BASE: u64 = 0x7c00;
/// Where a flat binary must end.
const FLAT_END: u64 = 0xa_0000;

/// What is wrong with an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The ELF structure.
    #[error("not a usable ELF file: {0}")]
    Elf(String),
    /// The Multiboot header.
    #[error("Multiboot header at offset {offset:#x}: {what}")]
    Multiboot {
        /// Offset in the file.
        offset: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The header of a Linux kernel.
    #[error("Linux boot header at offset {offset:#x}: {what}")]
    Linux {
        /// Offset in the file.
        offset: usize,
        /// What is wrong.
        what: String,
    },
    /// A part does not fit into memory.
    #[error("{what} at {address:#x}, {bytes} bytes: does not lie in the machine's memory of {memory} bytes")]
    Place {
        /// Which part.
        what: &'static str,
        /// Where it should go.
        address: u64,
        /// Its size.
        bytes: u64,
        /// Bytes of memory.
        memory: u64,
    },
}

/// A kind of image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A Multiboot 1 kernel.
    Multiboot(multiboot::Header),
    /// A Linux bzImage.
    Linux(linux::Header),
    /// An ELF kernel with a PVH entry, at this physical address.
    Pvh(u32),
    /// A 64-bit ELF executable.
    Elf64,
    /// A flat binary.
    Flat,
}

impl Image {
    /// Looks what `bytes` are.
    ///
    /// # Errors
    /// [`ImageError`] if a Multiboot or Linux header is there and is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        if let Some(header) = multiboot::Header::find(bytes)? {
            return Ok(Self::Multiboot(header));
        }
        if let Some(header) = linux::Header::find(bytes)? {
            return Ok(Self::Linux(header));
        }
        if let Some(entry) = pvh::entry_of(bytes) {
            return Ok(Self::Pvh(entry));
        }
        Ok(if elf::is_64_bit(bytes) { Self::Elf64 } else { Self::Flat })
    }

    /// Puts the image into memory and sets processor 0 to its entry.
    ///
    /// # Errors
    /// [`ImageError`] if it is damaged or does not fit.
    pub(super) fn load(
        &self,
        bytes: &[u8],
        name: &str,
        configuration: &Configuration,
        board: &mut Board,
    ) -> Result<(), ImageError> {
        match self {
            Self::Multiboot(header) => header.load(bytes, name, configuration, board),
            Self::Linux(header) => header.load(bytes, configuration, board),
            Self::Pvh(entry) => pvh::load(bytes, *entry, configuration, board),
            Self::Elf64 => {
                let entry = elf::load(bytes, configuration.memory, board)?.entry;
                entry::long_mode(board, entry, entry::USUAL);
                Ok(())
            }
            Self::Flat => {
                place("flat binary", FLAT_BASE, bytes.len() as u64, FLAT_END.min(configuration.memory))?;
                board.memory.write(HostPhysical(FLAT_BASE), bytes);
                let cpu = &mut board.processors_mut()[0].cpu;
                let cs = cpu.segment_mut(rootmode_arch::SegmentName::Cs);
                cs.selector = rootmode_arch::Selector(0);
                cs.base = 0;
                cpu.rip = FLAT_BASE;
                cpu.refresh();
                Ok(())
            }
        }
    }
}

/// The highest page-aligned place of an initial RAM disk behind the kernel, whose last byte is not above `max`.
///
/// # Errors
/// [`ImageError::Place`] if there is none.
pub(super) fn initrd_address(
    initrd: &[u8],
    kernel_end: u64,
    max: u64,
    memory: u64,
) -> Result<u64, ImageError> {
    let bytes = initrd.len() as u64;
    let end = memory.min(max.saturating_add(1));
    let address = end.saturating_sub(bytes) & !0xfff;
    if address < kernel_end && bytes > 0 {
        return Err(ImageError::Place { what: "initial RAM disk", address: kernel_end, bytes, memory: end });
    }
    Ok(address)
}

/// # Errors
/// [`ImageError::Place`] unless `bytes` bytes at `address` lie below `memory`.
pub(super) fn place(what: &'static str, address: u64, bytes: u64, memory: u64) -> Result<(), ImageError> {
    match address.checked_add(bytes) {
        Some(end) if end <= memory => Ok(()),
        _ => Err(ImageError::Place { what, address, bytes, memory }),
    }
}
