//! Multiboot 1 kernels (Multiboot Specification 0.6.96, "The layout of Multiboot header", "Machine state",
//! "Boot information format").

use std::ops::Range;

use rootmode_arch::{Gpr, HostPhysical};
use rootmode_cpu::board::Board;
use rootmode_models::devices::pc::Configuration;

use super::image::{ImageError, place};
use super::{elf, entry};

const MAGIC: u32 = 0x1bad_b002;
const LOADED: u64 = 0x2bad_b002;
/// The header lies within the first bytes of the file.
const SEARCH: usize = 8192;
/// Flags: the header says where to load.
const HAS_ADDRESSES: u32 = 1 << 16;
/// Flags that a loader must understand: alignment of modules, memory information. Video modes are not among them.
const UNDERSTOOD: u32 = 3;
/// Where the boot information lies, in low memory, unless the kernel lies there.
const INFORMATION: u64 = 0x9500;
/// Bytes of boot information before its strings.
const STRINGS: u64 = 0x400;
/// The loader's name.
const LOADER: &[u8] = b"rootmode";
/// Where it ends at the latest.
const INFORMATION_END: u64 = 0x9_0000;

/// Where a Multiboot header is and what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    offset: usize,
    addresses: Option<Addresses>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    header: u32,
    load: u32,
    load_end: u32,
    bss_end: u32,
    entry: u32,
}

impl Header {
    /// The header of `bytes`, if there is one.
    ///
    /// # Errors
    /// [`ImageError`] if it asks for something that no loader of this kind does.
    pub fn find(bytes: &[u8]) -> Result<Option<Self>, ImageError> {
        let word =
            |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let end = bytes.len().min(SEARCH).saturating_sub(11);
        let found = (0..end).step_by(4).find(|at| {
            let [magic, flags, checksum] = [word(*at), word(at + 4), word(at + 8)];
            magic == MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0
        });
        let Some(offset) = found else { return Ok(None) };
        let flags = word(offset + 4);
        if flags & 0xffff & !UNDERSTOOD & !4 != 0 {
            return Err(ImageError::Multiboot { offset, what: "asks for features that are not known" });
        }
        let addresses = (flags & HAS_ADDRESSES != 0).then(|| Addresses {
            header: word(offset + 12),
            load: word(offset + 16),
            load_end: word(offset + 20),
            bss_end: word(offset + 24),
            entry: word(offset + 28),
        });
        Ok(Some(Self { offset, addresses }))
    }

    /// Loads the kernel and its boot information, and sets processor 0 to its entry.
    pub(super) fn load(
        &self,
        bytes: &[u8],
        name: &str,
        configuration: &Configuration,
        board: &mut Board,
    ) -> Result<(), ImageError> {
        let memory = configuration.ram().0;
        let elf::Loaded { entry: start, range } = match self.addresses {
            None => elf::load(bytes, memory, board)?,
            Some(addresses) => self.load_flat(&addresses, bytes, memory, board)?,
        };
        let information = Information { name, configuration, kernel: range };
        let at = information.write(board)?;
        enter(board, start, at);
        Ok(())
    }

    fn load_flat(
        &self,
        addresses: &Addresses,
        bytes: &[u8],
        memory: u64,
        board: &mut Board,
    ) -> Result<elf::Loaded, ImageError> {
        let wrong = |what| ImageError::Multiboot { offset: self.offset, what };
        let before = addresses.header.checked_sub(addresses.load);
        let before = before.ok_or_else(|| wrong("its address lies below the load address"))? as usize;
        let start =
            self.offset.checked_sub(before).ok_or_else(|| wrong("the load address lies before the file"))?;
        let length = match addresses.load_end {
            0 => bytes.len() - start,
            end => end
                .checked_sub(addresses.load)
                .ok_or_else(|| wrong("the load end lies below its start"))? as usize,
        };
        let contents = bytes
            .get(start..start.saturating_add(length))
            .ok_or_else(|| wrong("the load end lies behind the file"))?;
        let load = u64::from(addresses.load);
        let end = (load + length as u64).max(u64::from(addresses.bss_end));
        place("kernel", load, end - load, memory)?;
        board.memory.write(HostPhysical(load), contents);
        Ok(elf::Loaded { entry: addresses.entry.into(), range: load..end })
    }
}

/// What the kernel is told.
struct Information<'a> {
    name: &'a str,
    configuration: &'a Configuration,
    /// Where the kernel lies.
    kernel: Range<u64>,
}

impl Information<'_> {
    /// The first page behind the kernel.
    const fn behind(&self) -> u64 {
        (self.kernel.end + 0xfff) & !0xfff
    }

    /// Writes it, and answers where.
    fn write(&self, board: &mut Board) -> Result<u64, ImageError> {
        let memory = &mut board.memory;
        let (below, _) = self.configuration.ram();
        let command_line = format!("{} {}", self.name, self.configuration.command_line);
        let end = |start: u64| start + STRINGS + (command_line.len() + LOADER.len()) as u64 + 2;
        let free = self.kernel.start >= end(INFORMATION) || self.kernel.end <= INFORMATION;
        let information = if free { INFORMATION } else { self.behind() };
        place("boot information", information, end(information) - information, INFORMATION_END)?;
        let mut put = |offset: u64, value: u32| memory.write_u32(HostPhysical(information + offset), value);
        let mut flags = 0x1 | 0x4 | 0x8 | 0x40 | 0x200;
        put(4, (below.min(0xa_0000) >> 10) as u32);
        put(8, (below.saturating_sub(0x10_0000) >> 10) as u32);
        let strings = information + STRINGS;
        let loader = strings + command_line.len() as u64 + 1;
        put(16, strings as u32);
        put(64, loader as u32);
        let module = information + 0x80;
        let map = information + 0x100;
        let initrd = &self.configuration.initrd;
        if !initrd.is_empty() {
            put(20, 1);
            put(24, module as u32);
        }
        let entries = self.configuration.memory_map();
        put(44, entries.len() as u32 * 24);
        put(48, map as u32);
        if initrd.is_empty() {
            flags &= !0x8;
        }
        put(0, flags);
        for (at, (address, bytes, kind)) in (map..).step_by(24).zip(entries) {
            memory.write_u32(HostPhysical(at), 20);
            memory.write_u64(HostPhysical(at + 4), address);
            memory.write_u64(HostPhysical(at + 12), bytes);
            memory.write_u32(HostPhysical(at + 20), kind);
        }
        for (at, text) in [(strings, command_line.as_bytes()), (loader, LOADER)] {
            entry::write_string(memory, at, text);
        }
        if !initrd.is_empty() {
            let start = if free { self.behind() } else { (end(information) + 0xfff) & !0xfff };
            place("initial RAM disk", start, initrd.len() as u64, below)?;
            memory.write(HostPhysical(start), initrd);
            let end = start + initrd.len() as u64;
            for (offset, value) in [(0, start), (4, end), (8, strings), (12, 0)] {
                memory.write_u32(HostPhysical(module + offset), value as u32);
            }
        }
        Ok(information)
    }
}

/// "Machine state".
fn enter(board: &mut Board, start: u64, information: u64) {
    entry::protected(board, start, entry::USUAL);
    let cpu = &mut board.processors_mut()[0].cpu;
    cpu.gpr[Gpr::Rax as usize] = LOADED;
    cpu.gpr[Gpr::Rbx as usize] = information;
}
