//! Random tables, registers and accesses: mostly legal, so that walks go deep, each thing odd now and then.

use crate::world::{PAGES, USED, World};
use rootmode_arch::choices::Seeded;
use rootmode_arch::{Cr3, HostPhysical};
use rootmode_mmu::{Access, AccessKind, Ept, Npt, Paging, PagingMode, SecondStage};

/// Source of everything random.
pub(crate) struct Draw(Seeded);

/// What the entries of a region look like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Narrow,
    Pae,
    Long,
    Ept,
}

/// The second stage's first page of leaves.
const LAST_LAYER: u64 = PAGES / 2 + 4;
const WIDTHS: [u8; 7] = [32, 36, 39, 40, 46, 48, 52];
/// The C-bit that entries now and then have.
const C_BIT: u32 = 51;
const KINDS: [AccessKind; 5] = [
    AccessKind::Read,
    AccessKind::Write,
    AccessKind::Execute,
    AccessKind::ShadowStackRead,
    AccessKind::ShadowStackWrite,
];

impl Draw {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(Seeded::new(seed))
    }
    pub(crate) const fn bits(&mut self) -> u64 {
        self.0.next()
    }
    pub(crate) const fn below(&mut self, n: u64) -> u64 {
        (self.0.next() >> 32) * n >> 32
    }
    pub(crate) const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    fn flip(&mut self) -> bool {
        self.one_in(2)
    }

    /// A frame: a page of `first..first + PAGES / 2`, a small multiple of a large page, or something far away.
    fn frame(&mut self, first: u64, large: bool) -> u64 {
        match self.below(16) {
            0 => self.bits() & 0x000f_ffff_ffff_f000,
            1 => self.below(4) << 30,
            2..=9 if large => self.below(4) << 21,
            10..=14 if large => self.below(4) << 22,
            _ => (first + self.below(PAGES / 2)) << 12,
        }
    }

    /// An 8-byte entry of x86 tables.
    fn wide(&mut self, first: u64, pae: bool) -> u64 {
        let large = self.one_in(5);
        let mut entry = self.frame(first, large) | 7 | u64::from(large) << 7;
        for (bit, odds) in [(0, 24), (1, 6), (2, 3), (5, 2), (6, 2), (8, 3), (12, 40), (63, 8)] {
            entry ^= u64::from(self.one_in(odds)) << bit;
        }
        if self.one_in(40) {
            entry |= 1 << (13 + self.below(39));
        }
        entry |= u64::from(self.one_in(24)) << C_BIT;
        if self.one_in(if pae { 40 } else { 2 }) {
            entry |= self.below(1 << 11) << 52;
        }
        entry
    }

    /// A PDPTE: also what a PAE entry must not look like.
    fn pdpte(&mut self, first: u64) -> u64 {
        let mut entry = (first + self.below(PAGES / 2)) << 12 | 1;
        if self.one_in(12) {
            entry ^= 1 << self.below(64);
        }
        entry ^= u64::from(self.one_in(24)) << C_BIT;
        entry
    }

    /// A 4-byte entry.
    fn narrow(&mut self, first: u64) -> u64 {
        let large = self.one_in(5);
        let mut entry = self.frame(first, large) & 0xffff_f000 | 7 | u64::from(large) << 7;
        for (bit, odds) in [(0, 24), (1, 5), (2, 3), (5, 2), (6, 2), (8, 3), (12, 40)] {
            entry ^= u64::from(self.one_in(odds)) << bit;
        }
        if large && self.flip() {
            entry = entry & !0x3f_e000 | (self.below(1 << 9) & self.below(1 << 9)) << 13;
        }
        entry
    }

    /// An entry of the second stage's page `page`. The pages are in layers, so that one walk in a few meets something
    /// odd although it makes twenty steps: each leads to the next one, the last ones to the guest's half.
    fn second(&mut self, style: Style, page: u64) -> u64 {
        let leaf = page >= LAST_LAYER;
        let large = !leaf && self.one_in(24);
        let frame = match self.below(40) {
            0 => self.frame(PAGES / 2, large),
            _ if large => self.below(2) << 30,
            _ if leaf => self.below(PAGES / 2) << 12,
            _ => (page + 1) << 12,
        };
        let mut entry = frame | 7 | u64::from(large) << 7;
        let odd: &[(u32, u64)] = match style {
            Style::Ept => {
                entry |= 1 << 10 | u64::from((leaf || large) && self.flip()) * 6 << 3;
                &[(0, 60), (1, 30), (2, 12), (6, 2), (10, 12), (8, 2), (9, 2), (63, 3)]
            }
            _ => &[(0, 60), (1, 30), (2, 60), (5, 2), (6, 2), (8, 40), (12, 200), (63, 24)],
        };
        for (bit, odds) in odd {
            let meaningless_in_tables = style == Style::Ept && *bit == 6 && !leaf;
            entry ^= u64::from(!meaningless_in_tables && self.one_in(*odds)) << bit;
        }
        if self.one_in(60) {
            entry |= 1 << (3 + self.below(50));
        }
        if style == Style::Ept && self.one_in(60) {
            entry &= !0x407;
        }
        entry |= u64::from(style != Style::Ept && self.one_in(60)) << C_BIT;
        if style == Style::Narrow { entry & 0xffff_ffff } else { entry }
    }

    /// An entry of the guest's half.
    fn first(&mut self, style: Style, pdpt: bool) -> u64 {
        match style {
            Style::Narrow => self.narrow(0) | self.narrow(0) << 32,
            Style::Pae if pdpt => self.pdpte(0),
            Style::Pae => self.wide(0, true),
            Style::Long | Style::Ept => self.wide(0, false),
        }
    }

    /// Tables of the guest in the first half, of the second stage in the second half.
    pub(crate) fn world(&mut self, guest: Style, second: Style) -> World {
        let mut bytes = vec![0; PAGES as usize * 4096];
        for page in 0..PAGES {
            let pdpt = guest == Style::Pae && self.one_in(4);
            for at in (0..USED).step_by(8) {
                let entry = if page < PAGES / 2 {
                    self.first(guest, pdpt)
                } else if second == Style::Narrow {
                    self.second(second, page) | self.second(second, page) << 32
                } else if second == Style::Pae && page == LAST_LAYER - 2 {
                    (page + 1) << 12 | u64::from(!self.one_in(30)) | u64::from(self.one_in(60)) << 5
                } else {
                    self.second(second, page)
                };
                let at = page as usize * 4096 + at;
                bytes[at..at + 8].copy_from_slice(&entry.to_le_bytes());
            }
        }
        World { bytes }
    }

    /// The mode in which tables of `style` are mostly legal, and now and then another.
    pub(crate) fn mode(&mut self, style: Style) -> PagingMode {
        let style = match self.below(40) {
            0 => Style::Narrow,
            1 => Style::Pae,
            2 => Style::Long,
            3 => return PagingMode::None,
            _ => style,
        };
        match style {
            Style::Narrow => PagingMode::Bits32 { pse: !self.one_in(3) },
            Style::Pae => PagingMode::Pae,
            Style::Long | Style::Ept if self.flip() => PagingMode::Level5,
            Style::Long | Style::Ept => PagingMode::Level4,
        }
    }

    fn width(&mut self) -> u8 {
        if self.flip() { 52 } else { WIDTHS[self.below(7) as usize] }
    }

    pub(crate) fn paging(&mut self, style: Style) -> Paging {
        let mode = self.mode(style);
        let physical_width = self.width();
        let mut cr3 = self.below(PAGES / 2) << 12 | self.below(1 << 12);
        if mode == PagingMode::Pae && !self.one_in(8) {
            cr3 &= !0xfe0;
        }
        let mut pdptes = [0; 4];
        for entry in &mut pdptes {
            *entry = self.below(PAGES / 2) << 12 | self.below(4) << 3 | u64::from(!self.one_in(10));
        }
        Paging {
            cr3: Cr3(cr3 | self.below(4) << 61),
            pdptes,
            mode,
            write_protect: self.flip(),
            no_execute: !self.one_in(3),
            smep: self.flip(),
            smap: self.one_in(3),
            pcide: self.flip(),
            global: self.flip(),
            huge_pages: !self.one_in(4),
            protection_keys: self.flip(),
            supervisor_keys: self.flip(),
            lam_supervisor: self.flip(),
            top_global_reserved: self.one_in(4),
            pkru: self.bits() as u32,
            pkrs: self.bits() as u32,
            physical_width,
            c_bit: self.c_bit(),
        }
    }

    /// Where the C-bit is, if there is one.
    fn c_bit(&mut self) -> u64 {
        match self.below(4) {
            0 => 1 << C_BIT,
            1 => 1 << 47,
            _ => 0,
        }
    }

    pub(crate) fn access(&mut self) -> Access {
        Access { kind: KINDS[self.below(5) as usize], user: self.one_in(3), smap_override: self.flip() }
    }

    /// Few indices are used at each level; bits that must not matter are random outside long modes.
    pub(crate) fn linear(&mut self, mode: PagingMode) -> u64 {
        let few = |draw: &mut Self, shift: u32, n: u64| draw.below(n) << shift;
        let offset = self.bits() & 0xfff;
        match mode {
            PagingMode::Bits32 { .. } => self.bits() << 32 | few(self, 22, 16) | few(self, 12, 16) | offset,
            PagingMode::None if self.one_in(4) => self.bits(),
            PagingMode::None => self.bits() << 32 | few(self, 12, PAGES) | offset,
            PagingMode::Pae => {
                self.bits() << 32 | few(self, 30, 4) | few(self, 21, 8) | few(self, 12, 8) | offset
            }
            _ => {
                few(self, 48, 8)
                    | few(self, 39, 8)
                    | few(self, 30, 8)
                    | few(self, 21, 8)
                    | few(self, 12, 8)
                    | offset
            }
        }
    }

    /// The top of a second stage of `levels` layers, or now and then any page.
    fn root(&mut self, levels: u64) -> HostPhysical {
        let page = if self.one_in(50) { PAGES / 2 + self.below(PAGES / 2) } else { LAST_LAYER + 1 - levels };
        HostPhysical(page << 12)
    }

    pub(crate) fn ept(&mut self) -> SecondStage {
        let five_level = self.one_in(3);
        SecondStage::Ept(Ept {
            root: self.root(if five_level { 5 } else { 4 }),
            five_level,
            accessed_dirty: self.flip(),
            mode_based_execute: self.flip(),
            execute_only: self.flip(),
            huge_pages: !self.one_in(4),
            physical_width: self.width(),
        })
    }

    pub(crate) fn npt(&mut self, style: Style) -> SecondStage {
        let mode = match self.mode(style) {
            PagingMode::None => PagingMode::Level4,
            mode => mode,
        };
        let levels = match mode {
            PagingMode::Level5 => 5,
            PagingMode::Level4 | PagingMode::None => 4,
            PagingMode::Pae => 3,
            PagingMode::Bits32 { .. } => 2,
        };
        SecondStage::Npt(Npt {
            root: self.root(levels),
            mode,
            no_execute: !self.one_in(6),
            smep: self.flip(),
            execute_trap: self.one_in(3),
            huge_pages: !self.one_in(4),
            physical_width: self.width(),
            c_bit: self.c_bit(),
        })
    }
}
