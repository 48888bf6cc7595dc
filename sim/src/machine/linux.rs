//! Linux kernels: bzImages by the boot protocol's 64-bit and 32-bit entries (Linux 6.12, Documentation/arch/x86/boot.rst
//! "The Real-Mode Kernel Header", "64-bit Boot Protocol", "32-bit Boot Protocol"; zero-page.rst).

use rootmode_arch::{Gpr, HostPhysical};
use rootmode_cpu::board::Board;
use rootmode_models::devices::acpi::tables;
use rootmode_models::devices::pc::Configuration;

use super::entry::{self, COMMAND_LINE, COMMAND_LINE_END, Flat};
use super::image::{ImageError, initrd_address, place};

/// `boot_params`.
const ZERO_PAGE: u64 = entry::PARAMETERS;
/// `__BOOT_CS` and `__BOOT_DS`.
const BOOT: Flat = Flat { code: 0x10, data: 0x18 };
/// Where a kernel that cannot be moved goes.
const ONE_MEGABYTE: u64 = 0x10_0000;
/// Offset of the 64-bit entry in the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
/// The oldest protocol whose kernels tell where they may lie and how much memory they need: 2.10, of Linux 2.6.31.
const OLDEST: u16 = 0x020a;
/// `type_of_loader`: not assigned.
const LOADER: u8 = 0xff;

/// Offsets in a bzImage's first sectors, and in `boot_params`.
mod at {
    pub(super) const ACPI_RSDP: u64 = 0x070;
    pub(super) const E820_ENTRIES: u64 = 0x1e8;
    pub(super) const SETUP_SECTS: usize = 0x1f1;
    pub(super) const BOOT_FLAG: usize = 0x1fe;
    pub(super) const JUMP: usize = 0x200;
    pub(super) const MAGIC: usize = 0x202;
    pub(super) const VERSION: usize = 0x206;
    pub(super) const TYPE_OF_LOADER: u64 = 0x210;
    pub(super) const LOADFLAGS: usize = 0x211;
    pub(super) const CODE32_START: u64 = 0x214;
    pub(super) const RAMDISK_IMAGE: u64 = 0x218;
    pub(super) const RAMDISK_SIZE: u64 = 0x21c;
    pub(super) const CMD_LINE_PTR: u64 = 0x228;
    pub(super) const INITRD_ADDR_MAX: usize = 0x22c;
    pub(super) const RELOCATABLE: usize = 0x234;
    pub(super) const XLOADFLAGS: usize = 0x236;
    pub(super) const CMDLINE_SIZE: usize = 0x238;
    pub(super) const PREF_ADDRESS: usize = 0x258;
    pub(super) const INIT_SIZE: usize = 0x260;
    pub(super) const E820_TABLE: u64 = 0x2d0;
}

/// What a bzImage's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the protected-mode kernel begins in the file.
    kernel: usize,
    /// Where the header ends in the file.
    end: usize,
    entry_64: bool,
    relocatable: bool,
    preferred: u64,
    /// Bytes that the kernel needs from its start on until it knows the memory map.
    init_size: u64,
    initrd_max: u64,
    command_line_max: u64,
}

impl Header {
    /// The header of `bytes`, if they are a Linux kernel.
    ///
    /// # Errors
    /// [`ImageError::Linux`] if its protocol is older than 2.10, if it is loaded low, or if it is cut off.
    pub fn find(bytes: &[u8]) -> Result<Option<Self>, ImageError> {
        let number = |at: usize, size: usize| {
            let mut value = [0; 8];
            value[..size].copy_from_slice(&bytes[at..at + size]);
            u64::from_le_bytes(value)
        };
        if bytes.len() < at::INIT_SIZE + 4
            || number(at::BOOT_FLAG, 2) != 0xaa55
            || bytes[at::MAGIC..at::MAGIC + 4] != *b"HdrS"
        {
            return Ok(None);
        }
        let wrong = |offset, what: String| Err(ImageError::Linux { offset, what });
        let version = number(at::VERSION, 2) as u16;
        if version < OLDEST {
            let what = format!("boot protocol {}.{:02}; 2.10 is the oldest", version >> 8, version & 0xff);
            return wrong(at::VERSION, what);
        }
        if number(at::LOADFLAGS, 1) & 1 == 0 {
            return wrong(at::LOADFLAGS, "a zImage, which is loaded low; only bzImages are".into());
        }
        let sectors = match number(at::SETUP_SECTS, 1) {
            0 => 4,
            sectors => sectors as usize,
        };
        let kernel = (sectors + 1) * 512;
        let end = at::MAGIC + usize::from(bytes[at::JUMP + 1]);
        if bytes.len() <= kernel || end > kernel {
            let what = format!("{sectors} sectors of setup code; the file has {} bytes", bytes.len());
            return wrong(at::SETUP_SECTS, what);
        }
        Ok(Some(Self {
            kernel,
            end,
            entry_64: number(at::XLOADFLAGS, 2) & 1 != 0 && version >= 0x020c,
            relocatable: number(at::RELOCATABLE, 1) != 0,
            preferred: number(at::PREF_ADDRESS, 8),
            init_size: number(at::INIT_SIZE, 4),
            initrd_max: number(at::INITRD_ADDR_MAX, 4),
            command_line_max: number(at::CMDLINE_SIZE, 4),
        }))
    }

    /// Loads the kernel, its parameters, command line and initial RAM disk, and sets processor 0 to its entry.
    pub(super) fn load(
        &self,
        bytes: &[u8],
        configuration: &Configuration,
        board: &mut Board,
    ) -> Result<(), ImageError> {
        let (below, _) = configuration.ram();
        let contents = &bytes[self.kernel..];
        let length = self.init_size.max(contents.len() as u64);
        let fits = |start: u64| start.checked_add(length).is_some_and(|end| end <= below);
        let start = if self.relocatable && !fits(self.preferred) { ONE_MEGABYTE } else { self.preferred };
        place("kernel with the memory that it needs to start", start, length, below)?;
        let text = configuration.command_line.as_bytes();
        if text.len() as u64 > self.command_line_max.min(COMMAND_LINE_END - COMMAND_LINE - 1) {
            let what = format!(
                "the kernel takes a command line of at most {} bytes; this one has {}",
                self.command_line_max,
                text.len()
            );
            return Err(ImageError::Linux { offset: at::CMDLINE_SIZE, what });
        }
        let initrd = &configuration.initrd;
        let disk = initrd_address(initrd, start + length, self.initrd_max, below)?;
        let memory = &mut board.memory;
        memory.write(HostPhysical(start), contents);
        memory.write(HostPhysical(disk), initrd);
        entry::write_string(memory, COMMAND_LINE, text);

        memory.write(HostPhysical(ZERO_PAGE), &[0; 4096]);
        memory.write(HostPhysical(ZERO_PAGE + at::SETUP_SECTS as u64), &bytes[at::SETUP_SECTS..self.end]);
        memory.write_u64(HostPhysical(ZERO_PAGE + at::ACPI_RSDP), tables::LOW_MEMORY);
        memory.write_u8(HostPhysical(ZERO_PAGE + at::TYPE_OF_LOADER), LOADER);
        for (offset, value) in [
            (at::CODE32_START, start),
            (at::CMD_LINE_PTR, COMMAND_LINE),
            (at::RAMDISK_IMAGE, if initrd.is_empty() { 0 } else { disk }),
            (at::RAMDISK_SIZE, initrd.len() as u64),
        ] {
            memory.write_u32(HostPhysical(ZERO_PAGE + offset), value as u32);
        }
        let map = configuration.memory_map();
        memory.write_u8(HostPhysical(ZERO_PAGE + at::E820_ENTRIES), map.len() as u8);
        for (at, (address, bytes, kind)) in (ZERO_PAGE + at::E820_TABLE..).step_by(20).zip(map) {
            memory.write_u64(HostPhysical(at), address);
            memory.write_u64(HostPhysical(at + 8), bytes);
            memory.write_u32(HostPhysical(at + 16), kind);
        }
        if self.entry_64 {
            entry::long_mode(board, start + ENTRY_64, BOOT);
        } else {
            entry::protected(board, start, BOOT);
            entry::load_gdt_32(board, BOOT);
        }
        board.processors_mut()[0].cpu.gpr[Gpr::Rsi as usize] = ZERO_PAGE;
        Ok(())
    }
}
