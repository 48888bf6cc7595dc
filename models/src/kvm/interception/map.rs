//! [`InterceptMap`]: KVM's own arithmetic on the two vendors' maps, with one interface and one polarity.

use rootmode_svm::bitmap::Msrpm;
use rootmode_vmx::bitmap::MsrBitmap;

use super::{Access, Row};
use crate::kvm::{Regression, Regressions, Tables};

/// Where the bit of an MSR and an access lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Offset in the map, in bytes.
    pub byte: usize,
    /// The bit, as a mask for the byte.
    pub mask: u8,
}

/// A map of MSR intercepts; a one intercepts.
pub trait InterceptMap: Clone + PartialEq {
    /// What KVM passes through on this vendor's processors.
    fn rows(tables: &Tables) -> &'static [Row];
    /// A map that intercepts everything.
    fn closed() -> Self;
    /// The map's bytes, as they lie in memory.
    fn bytes(&self) -> &[u8];
    /// The map's bytes, to be changed.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Where KVM takes the bit of `msr` and `access` to be; `None`: the map does not cover the MSR.
    fn locate(msr: u32, access: Access, bugs: Regressions) -> Option<Position>;

    /// Whether the map intercepts the access. An MSR that it does not cover always is intercepted.
    fn intercepts(&self, msr: u32, access: Access, bugs: Regressions) -> bool {
        let Some(position) = Self::locate(msr, access, bugs) else {
            return !bugs.has(Regression::OutOfRangeNotIntercepted);
        };
        self.bytes()[position.byte] & position.mask != 0
    }

    /// Sets or clears the bit; true if it changed. Nothing happens to an MSR that the map does not cover.
    fn put(&mut self, msr: u32, access: Access, intercept: bool, bugs: Regressions) -> bool {
        let Some(mut position) = Self::locate(msr, access, bugs) else { return false };
        if bugs.has(Regression::BothBitsWritten) {
            position.mask |= Self::locate(msr, access.other(), bugs).map_or(0, |other| other.mask);
        }
        let byte = &mut self.bytes_mut()[position.byte];
        let before = *byte;
        *byte = if intercept { before | position.mask } else { before & !position.mask };
        *byte != before
    }
}

/// MSRs in each range that a map covers.
const RANGE: u32 = 0x2000;

/// MSRs whose bits lie side by side, as KVM has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrRange {
    /// First MSR.
    pub first: u32,
    /// Number of MSRs.
    pub count: u32,
    /// Number of the first bit of the first MSR.
    pub bit: u32,
}

/// Where KVM takes the bits of a map to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLayout {
    /// The covered MSRs.
    pub ranges: [MsrRange; 3],
    /// Bits from one MSR to the next.
    pub per_msr: u32,
    /// Distance of each access's bit from the first bit of its MSR, by [`Access`].
    pub accesses: [u32; 2],
}

/// MSR permission maps: blocks of 2 KiB, two bits an MSR.
pub(crate) const MSRPM: MapLayout = MapLayout {
    ranges: [
        MsrRange { first: 0, count: RANGE, bit: 0 },
        MsrRange { first: 0xc000_0000, count: RANGE, bit: 0x4000 },
        MsrRange { first: 0xc001_0000, count: RANGE, bit: 0x8000 },
    ],
    per_msr: 2,
    accesses: [0, 1],
};

/// MSR bitmaps: two ranges of 1 KiB for reads, the same again for writes. The third range is empty: it is AMD's.
pub(crate) const MSR_BITMAP: MapLayout = MapLayout {
    ranges: [
        MsrRange { first: 0, count: RANGE, bit: 0 },
        MsrRange { first: 0xc000_0000, count: RANGE, bit: 0x2000 },
        MsrRange { first: 0xc001_0000, count: 0, bit: 0x2000 },
    ],
    per_msr: 1,
    accesses: [0, 0x4000],
};

impl MapLayout {
    /// Bit number `bit` of a map of `bytes` bytes; what lies behind its end starts again, so that a wrong layout does not
    /// leave the map.
    const fn position(bit: u32, bytes: u32) -> Position {
        Position { byte: (bit / 8 % bytes) as usize, mask: 1 << (bit % 8) }
    }
}

/// The number of the read bit of `msr` in an MSR permission map; the write bit is the next one.
pub(crate) fn msrpm_bit(msr: u32, bugs: Regressions) -> Option<u32> {
    let layout = &bugs.tables().msrpm;
    let covers = |range: &&MsrRange| {
        let count = if bugs.has(Regression::RangeTestByHighBits) { 0x1_0000 } else { range.count };
        msr.wrapping_sub(range.first) < count
    };
    let first = match layout.ranges.iter().find(covers) {
        Some(range) if range.first == 0xc001_0000 && bugs.has(Regression::BlockTwoAliasesBlockOne) => {
            MsrRange { bit: layout.ranges[1].bit, ..*range }
        }
        Some(range) => *range,
        // The position that the old code computed from its "no offset" value, cut to the map so that the model survives.
        None if bugs.has(Regression::OutOfRangeWraps) => MsrRange { first: 0, count: RANGE, bit: 0xc000 },
        None => return None,
    };
    let within = msr.wrapping_sub(first.first) & (RANGE - 1);
    Some(first.bit.wrapping_add(within * layout.per_msr))
}

impl InterceptMap for Msrpm {
    fn rows(tables: &Tables) -> &'static [Row] {
        tables.svm
    }

    fn closed() -> Self {
        Self::filled(true)
    }

    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.as_bytes_mut()
    }

    fn locate(msr: u32, access: Access, bugs: Regressions) -> Option<Position> {
        let read = msrpm_bit(msr, bugs)?;
        let bit = read.wrapping_add(bugs.tables().msrpm.accesses[access as usize]);
        Some(MapLayout::position(bit, Self::SIZE as u32))
    }
}

impl InterceptMap for MsrBitmap {
    fn rows(tables: &Tables) -> &'static [Row] {
        tables.vmx
    }

    fn closed() -> Self {
        Self::INTERCEPT_ALL
    }

    fn bytes(&self) -> &[u8] {
        self.as_page()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.as_page_mut()
    }

    fn locate(msr: u32, access: Access, bugs: Regressions) -> Option<Position> {
        let layout = &bugs.tables().msr_bitmap;
        let covers = |range: &&MsrRange| {
            let third = range.first == 0xc001_0000 && bugs.has(Regression::VmxCoversThirdBlock);
            msr.wrapping_sub(range.first) < if third { RANGE } else { range.count }
        };
        let range = layout.ranges.iter().find(covers)?;
        let misplaced = range.first == 0xc000_0000 && bugs.has(Regression::VmxHighRangeOffsetWrong);
        let first = if misplaced { 0 } else { range.bit };
        let distance = match access {
            Access::Write if bugs.has(Regression::VmxWriteHalfMisplaced) => 0x2000,
            _ => layout.accesses[access as usize],
        };
        let within = (msr.wrapping_sub(range.first) & (RANGE - 1)) * layout.per_msr;
        Some(MapLayout::position(first.wrapping_add(within).wrapping_add(distance), 4096))
    }
}

/// Adds the intercepts of `from` to `into`; both have one length.
pub(crate) fn or_into(into: &mut [u8], from: &[u8]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into |= from);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Regressions = Regressions::NONE;

    /// APM "MSR Intercepts" as intervals: block 0, 1 and 2, 2 KiB each, two bits an MSR.
    fn svm(msr: u32, access: Access) -> Option<(usize, u32)> {
        let firsts = [0_u64, 0xc000_0000, 0xc001_0000];
        let (block, first) =
            firsts.iter().enumerate().find(|(_, f)| (**f..**f + 0x2000).contains(&u64::from(msr)))?;
        let bit = block as u64 * 0x4000 + (u64::from(msr) - first) * 2 + access as u64;
        Some((bit as usize / 8, bit as u32 % 8))
    }

    /// SDM "MSR-Bitmap Address" as intervals: four bitmaps of 1 KiB.
    fn vmx(msr: u32, access: Access) -> Option<(usize, u32)> {
        let start = match (msr, access) {
            (0..=0x1fff, Access::Read) => 0,
            (0xc000_0000..=0xc000_1fff, Access::Read) => 0x400,
            (0..=0x1fff, Access::Write) => 0x800,
            (0xc000_0000..=0xc000_1fff, Access::Write) => 0xc00,
            _ => return None,
        };
        Some((start + (msr % 0x2000) as usize / 8, msr % 8))
    }

    fn check<M: InterceptMap>(msr: u32, formula: fn(u32, Access) -> Option<(usize, u32)>, open: &M) {
        for access in Access::ALL {
            let found = M::locate(msr, access, NONE).map(|p| (p.byte, p.mask.trailing_zeros()));
            assert_eq!(found, formula(msr, access), "{access} of {msr:#x}");
            assert_eq!(
                open.intercepts(msr, access, NONE),
                formula(msr, access).is_none(),
                "{access} of {msr:#x}"
            );
        }
    }

    fn sweep<M: InterceptMap>(formula: fn(u32, Access) -> Option<(usize, u32)>) {
        let mut open = M::closed();
        open.bytes_mut().fill(0);
        // Whether an index has bits depends on its upper 19 bits alone, so two ends and a middle decide each interval.
        for interval in 0..=u32::MAX >> 13 {
            for within in [0, 0x1000, 0x1fff] {
                check::<M>(interval << 13 | within, formula, &open);
            }
        }
        for first in [0, 0xc000_0000, 0xc001_0000_u32] {
            (first..first + 0x2000).for_each(|msr| check::<M>(msr, formula, &open));
        }
    }

    #[test]
    fn over_all_indices_a_permission_map_is_used_as_the_apm_lays_it_out() {
        sweep::<Msrpm>(svm);
    }

    #[test]
    fn over_all_indices_an_msr_bitmap_is_used_as_the_sdm_lays_it_out() {
        sweep::<MsrBitmap>(vmx);
    }

    #[test]
    fn worked_positions_hold() {
        for (msr, bit, byte) in [
            (0x48, 144, 0x12),
            (0x10b, 534, 0x42),
            (0x176, 748, 0x5d),
            (0xda0, 6976, 0x368),
            (0xc000_0080, 16640, 0x820),
            (0xc000_0103, 16902, 0x840),
            (0xc001_0004, 32776, 0x1001),
            (0xc001_0130, 33376, 0x104c),
        ] {
            assert_eq!(msrpm_bit(msr, NONE), Some(bit), "{msr:#x}");
            assert_eq!(Msrpm::locate(msr, Access::Write, NONE).unwrap().byte, byte, "{msr:#x}");
        }
    }
}
