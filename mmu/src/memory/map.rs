//! [`MemoryMap`]: what of its RAM a memory shows, and where. A chipset hides RAM behind devices, shows it to loads and not to
//! stores, or only to processors in system-management mode, and can hold an address line low.
//!
//! The map changes rarely: what it makes of the RAM is computed when it does, as two lists of regions, so that an access
//! costs what it costs without one.

use super::{PageKind, PhysicalMemory, Region};
use rootmode_arch::HostPhysical;

/// Address line 20 (A20M#: SDM Vol. 3B "MS-DOS Compatibility Sub-Mode", "Real-Address Mode").
const LINE_20: u64 = 1 << 20;

/// Where an access to a range goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decode {
    /// To the RAM there.
    Ram,
    /// Past it, to where nobody answers.
    Elsewhere,
    /// To the RAM for a processor in system-management mode, past it for others.
    Management,
    /// To the RAM that lies here: a ROM that shows itself in two places.
    Alias(HostPhysical),
}

/// A range whose RAM is not simply there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shadow {
    /// Its first byte, a page's.
    pub base: HostPhysical,
    /// Its size, a number of whole pages.
    pub bytes: u64,
    /// Loads and fetches.
    pub loads: Decode,
    /// Stores.
    pub stores: Decode,
}

/// What a chipset makes of RAM. The default shows all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct MemoryMap {
    /// Address line 20 is held low: every odd MiB is the even one below it.
    pub line_20_low: bool,
    /// Ranges that do not overlap; all else is as it lies.
    pub shadows: Vec<Shadow>,
}

/// The map at work, for processors in one mode.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// RAM that loads reach, largest first.
    loads: Vec<Region>,
    /// RAM that stores reach.
    stores: Vec<Region>,
    /// Address bits that are held low.
    held: u64,
}

impl View {
    fn of(regions: &[Region], map: &MemoryMap, management: bool) -> Self {
        let side = |decode: fn(&Shadow) -> Decode| {
            let mut shown = regions.to_vec();
            for shadow in &map.shadows {
                let from = match decode(shadow) {
                    Decode::Ram => continue,
                    Decode::Management if management => continue,
                    Decode::Management | Decode::Elsewhere => None,
                    Decode::Alias(from) => Some(from.0),
                };
                cut(&mut shown, shadow.base.0, shadow.bytes);
                let source = regions.iter().find_map(|r| {
                    let inside = from?.checked_sub(r.base)?;
                    let bytes = shadow.bytes.min(r.bytes.checked_sub(inside)?);
                    Some(Region { base: shadow.base.0, bytes, offset: r.offset + inside as usize })
                });
                shown.extend(source.filter(|region| region.bytes > 0));
            }
            shown.sort_by_key(|region| std::cmp::Reverse(region.bytes));
            shown
        };
        Self {
            loads: side(|shadow| shadow.loads),
            stores: side(|shadow| shadow.stores),
            held: if map.line_20_low { LINE_20 } else { 0 },
        }
    }

    /// The offset of `address` among `regions`, and how many bytes are contiguous there.
    #[inline]
    fn locate(&self, regions: &[Region], address: u64) -> Option<(usize, usize)> {
        let at = address & !self.held;
        for region in regions {
            let inside = at.wrapping_sub(region.base);
            if inside < region.bytes {
                let mut rest = region.bytes - inside;
                if self.held != 0 {
                    rest = rest.min(LINE_20 - (at & (LINE_20 - 1)));
                }
                return Some((region.offset + inside as usize, rest as usize));
            }
        }
        None
    }
}

/// Takes the range out of `regions`.
fn cut(regions: &mut Vec<Region>, base: u64, bytes: u64) {
    let end = base + bytes;
    *regions = regions
        .iter()
        .flat_map(|r| {
            let r_end = r.base + r.bytes;
            let below = Region { bytes: base.clamp(r.base, r_end) - r.base, ..*r };
            let skipped = end.clamp(r.base, r_end) - r.base;
            let above = Region {
                base: r.base + skipped,
                bytes: r.bytes - skipped,
                offset: r.offset + skipped as usize,
            };
            [below, above].into_iter().filter(|part| part.bytes > 0)
        })
        .collect();
}

impl PhysicalMemory {
    /// What is shown.
    pub const fn map(&self) -> &MemoryMap {
        &self.map
    }

    /// Shows something else. Whoever keeps translations drops them: what a page is may have changed.
    pub fn set_map(&mut self, map: MemoryMap) {
        self.map = map;
        self.show();
    }

    /// Whether accesses are those of a processor in system-management mode from now on.
    #[inline]
    pub fn set_management(&mut self, management: bool) {
        if self.management != management {
            self.management = management;
            self.show();
        }
    }

    /// Computes what is shown again.
    pub(super) fn show(&mut self) {
        self.view = View::of(&self.regions, &self.map, self.management);
        self.layout += 1;
        self.epoch += 1;
    }

    /// `address` as it appears on the address lines.
    pub const fn on_lines(&self, address: HostPhysical) -> HostPhysical {
        HostPhysical(address.0 & !self.view.held)
    }

    /// The offset of what a load from `address` finds, and how many bytes go on there.
    #[inline]
    pub(super) fn locate(&self, address: u64) -> Option<(usize, usize)> {
        self.view.locate(&self.view.loads, address)
    }

    /// The same for a store.
    #[inline]
    pub(super) fn locate_store(&self, address: u64) -> Option<(usize, usize)> {
        self.view.locate(&self.view.stores, address)
    }

    /// What lies behind the page of `address`.
    pub fn kind(&self, address: HostPhysical) -> PageKind {
        let at = self.on_lines(address).0;
        match (self.locate(at), self.locate_store(at)) {
            (Some((load, _)), Some((store, _))) if load == store => PageKind::Ram,
            (None, None) if self.windows.iter().any(|w| at.wrapping_sub(w.base) < w.bytes) => PageKind::Mmio,
            (None, None) => PageKind::Absent,
            _ => PageKind::Shadow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: u64 = 0x30_0000;
    const ROM: u64 = 0x80_0000;
    const ROM_BYTES: u64 = 0x2000;

    /// One byte's way, from the map's own words.
    fn place(map: &MemoryMap, management: bool, address: u64, store: bool) -> Option<u64> {
        let address = if map.line_20_low && address >> 20 & 1 == 1 { address - LINE_20 } else { address };
        let inside = |s: &&Shadow| (s.base.0..s.base.0 + s.bytes).contains(&address);
        let address = match map.shadows.iter().find(inside) {
            None => address,
            Some(shadow) => match if store { shadow.stores } else { shadow.loads } {
                Decode::Ram => address,
                Decode::Management if management => address,
                Decode::Management | Decode::Elsewhere => return None,
                Decode::Alias(from) => address - shadow.base.0 + from.0,
            },
        };
        (address < RAM || (ROM..ROM + ROM_BYTES).contains(&address)).then_some(address)
    }

    #[test]
    fn accesses_go_where_the_map_says_byte_by_byte() {
        let mut state = 1_u64;
        let mut draw = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut kinds = [0; 5];
        for _ in 0..300 {
            let mut memory = PhysicalMemory::new();
            memory.add_ram(HostPhysical(0), RAM).unwrap();
            memory.add_ram(HostPhysical(ROM), ROM_BYTES).unwrap();
            let pick = |draw: &mut dyn FnMut(u64) -> u64| match draw(4) {
                0 => Decode::Ram,
                1 => Decode::Elsewhere,
                2 => Decode::Management,
                _ => Decode::Alias(HostPhysical(ROM + draw(2) * 0x1000)),
            };
            let mut shadows = Vec::new();
            for n in 0..4 {
                let base = HostPhysical(0xf_8000 + n * 0x4000 + draw(2) * 0x1000);
                let bytes = 0x1000 * (1 + draw(3));
                shadows.push(Shadow { base, bytes, loads: pick(&mut draw), stores: pick(&mut draw) });
            }
            let map = MemoryMap { line_20_low: draw(3) == 0, shadows };
            // Both kinds of ROM pages, and RAM, differ everywhere.
            let byte = |at: u64| (at * 7 + (at >> 8) * 3 + (at >> 16) * 5 + 1) as u8;
            for (from, bytes) in
                [(0x0, 0x2_0000_u64), (0xf_0000, 0x3_0000), (0x1f_0000, 0x2_0000), (ROM, ROM_BYTES)]
            {
                let bytes: Vec<u8> = (from..from + bytes).map(byte).collect();
                memory.write(HostPhysical(from), &bytes);
            }
            memory.set_map(map.clone());
            for _ in 0..60 {
                let management = draw(2) == 0;
                memory.set_management(management);
                let at = if draw(4) == 0 { draw(0x1_8000) } else { 0xf_7ff0 + draw(0x1_4020) };
                kinds[memory.kind(HostPhysical(at)) as usize] += 1;
                let count = 1 + draw(16);
                let mut found = vec![0; count as usize];
                memory.read(HostPhysical(at), &mut found);
                let way = |n, store| place(&map, management, at + n, store);
                let expected: Vec<u8> = (0..count).map(|n| way(n, false).map_or(0xff, byte)).collect();
                assert_eq!(found, expected, "{map:x?} {at:#x}");
                assert_eq!(memory.read_u32(HostPhysical(at)).to_le_bytes()[0], expected[0]);
                // A store changes what its way says, and nothing else.
                memory.write(HostPhysical(at), &vec![0xa5; count as usize]);
                memory.set_map(MemoryMap::default());
                for n in 0..count {
                    for spot in [at + n, (at + n) & !LINE_20, ROM + (n & 0x1fff)] {
                        let hit = (0..count).any(|n| way(n, true) == Some(spot));
                        let there = memory.read_u8(HostPhysical(spot));
                        let absent = place(&MemoryMap::default(), false, spot, false).is_none();
                        let wanted = if absent {
                            0xff
                        } else if hit {
                            0xa5
                        } else {
                            byte(spot)
                        };
                        assert_eq!(there, wanted, "{map:x?} store at {at:#x}, {spot:#x}");
                    }
                }
                for spot in (0..count).filter_map(|n| way(n, true)) {
                    memory.write_u8(HostPhysical(spot), byte(spot));
                }
                memory.set_map(map.clone());
            }
        }
        assert!(kinds[PageKind::Ram as usize] > 100 && kinds[PageKind::Shadow as usize] > 100, "{kinds:?}");
    }
}
