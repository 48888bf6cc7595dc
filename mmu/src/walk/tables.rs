//! x86 page tables, whoever walks them: a guest for its linear addresses, or nested paging for guest-physical ones.
//!
//! Shapes and reserved bits of the entries are those of SDM Vol. 3A "32-Bit Paging", "PAE Paging" and
//! "4-Level Paging and 5-Level Paging", and of APM Vol. 2 "Legacy-Mode Page Translation" and "Long-Mode Page Translation".

use super::EntryMemory;
use super::PagingMode;
use rootmode_arch::HostPhysical;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 51:12.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bits of 51:12 beyond the physical-address width.
pub(super) const fn beyond(physical_width: u8) -> u64 {
    !((1 << physical_width) - 1) & ADDRESS
}

/// What must be 0 in a present PDPTE of PAE paging: bits 63:MAXPHYADDR, 8:5 and 2:1.
pub(super) const fn pdpte_reserved(physical_width: u8) -> u64 {
    !((1 << physical_width) - 1) | 0x1e6
}

/// What decides which bits of entries are reserved, and which entries map pages.
#[derive(Clone, Copy)]
pub(super) struct Format {
    pub(super) mode: PagingMode,
    pub(super) no_execute: bool,
    pub(super) huge_pages: bool,
    pub(super) top_global_reserved: bool,
    pub(super) physical_width: u8,
    /// The C-bit, which is no part of addresses; 0: there is none.
    pub(super) c_bit: u64,
}

impl Format {
    /// Bits that are reserved in every 8-byte entry. PAE entries have no ignored bits in 62:52.
    const fn reserved_everywhere(&self) -> u64 {
        let high = if matches!(self.mode, PagingMode::Pae) { 0x7ff << 52 } else { 0 };
        let beyond = beyond(self.physical_width) & !self.c_bit;
        beyond | high | if self.no_execute { 0 } else { NO_EXECUTE }
    }

    /// Further bits that are reserved in 8-byte entries of `level`. The PAT bit of a large page (12) is not.
    const fn reserved_at(&self, level: u8, leaf: bool) -> u64 {
        match level {
            4 | 5 if self.top_global_reserved => PAGE_SIZE | GLOBAL,
            4 | 5 => PAGE_SIZE,
            3 if leaf && !self.huge_pages => PAGE_SIZE,
            3 if leaf => 0x3fff_e000,
            2 if leaf => 0x1f_e000,
            _ => 0,
        }
    }

    /// Reserved bits of a 4-byte entry: only large pages have any, above the bits of the address that PSE-36 gives
    /// (SDM Vol. 3A "32-Bit Paging": bits 21:(M-19), M the lesser of 40 and MAXPHYADDR).
    const fn reserved_in_4_bytes(&self, level: u8, leaf: bool) -> u64 {
        if level != 2 || !leaf {
            return 0;
        }
        let width = if self.physical_width < 40 { self.physical_width } else { 40 };
        0x3f_e000 & !((1 << (width - 19)) - 1)
    }

    /// The address that an entry holds.
    const fn address(&self, entry: u64) -> u64 {
        entry & ADDRESS & !self.c_bit
    }

    const fn is_leaf<const WIDE: bool>(&self, level: u8, entry: u64) -> bool {
        if level == 1 {
            return true;
        }
        let large = if WIDE { level <= 3 } else { matches!(self.mode, PagingMode::Bits32 { pse: true }) };
        large && entry & PAGE_SIZE != 0
    }
}

/// What all entries on the way from the top table to a page say.
pub(super) struct Path {
    /// The entry that maps the page.
    pub(super) leaf: u64,
    /// R/W, U/S and A flags of all entries, ANDed.
    all: u64,
    /// R/W flags of the entries above the leaf, ANDed.
    above: u64,
    /// XD flag at some level.
    pub(super) no_execute: bool,
    /// log2 of the page's size.
    pub(super) shift: u8,
    /// Physical address of the byte.
    pub(super) target: u64,
}

impl Path {
    pub(super) const fn write(&self) -> bool {
        self.all & WRITE != 0
    }
    pub(super) const fn user(&self) -> bool {
        self.all & USER != 0
    }
    pub(super) const fn dirty(&self) -> bool {
        self.leaf & DIRTY != 0
    }
    pub(super) const fn global(&self) -> bool {
        self.leaf & GLOBAL != 0
    }
    /// Protection key; 0 in the modes that have none, whose bits 62:59 are reserved or absent.
    pub(super) const fn key(&self) -> u8 {
        (self.leaf >> 59 & 15) as u8
    }
    /// SDM Vol. 3A "Shadow-Stack Accesses": read-only and dirty in the leaf, writable at every other level.
    pub(super) const fn shadow_stack(&self) -> bool {
        self.leaf & (WRITE | DIRTY) == DIRTY && self.above & WRITE != 0
    }
    /// Whether accessed flags, and for a write the dirty flag, are already set.
    pub(super) const fn is_marked(&self, write: bool) -> bool {
        self.all & ACCESSED != 0 && (!write || self.dirty())
    }
}

/// Why there is no way.
pub(super) enum End<F> {
    /// The entry is not present.
    Absent(u64),
    /// The entry has a reserved bit set.
    Reserved(u64),
    /// The entry itself cannot be reached.
    Fault(F),
}

#[inline]
fn read<const WIDE: bool, M: EntryMemory>(memory: &mut M, at: HostPhysical) -> u64 {
    if WIDE { memory.entry_u64(at) } else { memory.entry_u32(at).into() }
}

/// Goes down from `table`, of level `TOP`, to the page of `address`; entries are 8 bytes (`WIDE`) or 4. `locate` says
/// where in memory an entry is.
#[inline(always)]
pub(super) fn descend<const WIDE: bool, const TOP: u8, F, M: EntryMemory>(
    memory: &mut M,
    format: &Format,
    mut table: u64,
    address: u64,
    mut locate: impl FnMut(&mut M, u64) -> Result<HostPhysical, F>,
) -> Result<Path, End<F>> {
    let everywhere = if WIDE { format.reserved_everywhere() } else { 0 };
    let (mut all, mut above, mut any) = (!0, !0, 0);
    let mut level = TOP;
    loop {
        let host = locate(memory, table + offset::<WIDE>(level, address)).map_err(End::Fault)?;
        let entry = read::<WIDE, M>(memory, host);
        if entry & PRESENT == 0 {
            return Err(End::Absent(entry));
        }
        let leaf = format.is_leaf::<WIDE>(level, entry);
        let reserved = if WIDE {
            everywhere | format.reserved_at(level, leaf)
        } else {
            format.reserved_in_4_bytes(level, leaf)
        };
        if entry & reserved != 0 {
            return Err(End::Reserved(entry));
        }
        all &= entry;
        any |= entry;
        if leaf {
            let shift = shift::<WIDE>(level);
            let offset = (1 << shift) - 1;
            let mut frame = format.address(entry) & !offset;
            if !WIDE && level == 2 {
                // Bits 20:13 of a 4-MByte page's entry are bits 39:32 of its address.
                frame |= (entry >> 13 & 0xff) << 32;
            }
            return Ok(Path {
                leaf: entry,
                all,
                above,
                no_execute: any & NO_EXECUTE != 0,
                shift,
                target: frame | address & offset,
            });
        }
        above &= entry;
        table = format.address(entry);
        level -= 1;
    }
}

/// Goes the way of a [`descend`] that succeeded once more, and sets accessed flags, and for a write the dirty flag of the
/// leaf, from the top down. `locate` is asked with `false` where an entry is, and with `true` before it changes.
///
/// Flags go into what an entry holds at that moment: tables may be entries of one another.
#[cold]
pub(super) fn mark<const WIDE: bool, F, M: EntryMemory>(
    memory: &mut M,
    format: &Format,
    top: (u64, u8),
    address: u64,
    write: bool,
    mut locate: impl FnMut(&mut M, u64, bool) -> Result<HostPhysical, F>,
) -> Result<(), F> {
    let (mut table, mut level) = top;
    loop {
        let at = table + offset::<WIDE>(level, address);
        let host = locate(memory, at, false)?;
        let entry = read::<WIDE, M>(memory, host);
        let leaf = format.is_leaf::<WIDE>(level, entry);
        let flags = if leaf && write { ACCESSED | DIRTY } else { ACCESSED };
        if entry & flags != flags {
            locate(memory, at, true)?;
            let value = read::<WIDE, M>(memory, host) | flags;
            if WIDE {
                memory.set_entry_u64(host, value);
            } else {
                memory.set_entry_u32(host, value as u32);
            }
        }
        if leaf {
            return Ok(());
        }
        table = format.address(entry);
        level -= 1;
    }
}

/// log2 of what one entry of `level` covers.
const fn shift<const WIDE: bool>(level: u8) -> u8 {
    12 + if WIDE { 9 } else { 10 } * (level - 1)
}

/// Offset of the entry for `address` in its table of `level`.
const fn offset<const WIDE: bool>(level: u8, address: u64) -> u64 {
    let index = address >> shift::<WIDE>(level);
    if WIDE { (index & 0x1ff) * 8 } else { (index & 0x3ff) * 4 }
}
