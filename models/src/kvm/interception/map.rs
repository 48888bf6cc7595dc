//! [`InterceptMap`]: KVM's own arithmetic on the two vendors' maps, with one interface and one polarity.

use rootmode_svm::bitmap::Msrpm;
use rootmode_vmx::bitmap::MsrBitmap;

use super::{Access, Row};
use crate::kvm::{Regression, Regressions};

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
    const TABLE: &'static [Row];

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

/// The number of the read bit of `msr` in an MSR permission map; the write bit is the next one.
pub(crate) fn msrpm_bit(msr: u32, bugs: Regressions) -> Option<u32> {
    let covered =
        if bugs.has(Regression::RangeTestByHighBits) { msr & 0xffff_0000 } else { msr & !(RANGE - 1) };
    let block = match covered {
        0 => 0,
        0xc000_0000 => 1,
        0xc001_0000 if bugs.has(Regression::BlockTwoAliasesBlockOne) => 1,
        0xc001_0000 => 2,
        // The position that the old code computed from its "no offset" value, cut to the map so that the model survives.
        _ if bugs.has(Regression::OutOfRangeWraps) => 3,
        _ => return None,
    };
    Some(block * 2 * RANGE + (msr & (RANGE - 1)) * 2)
}

impl InterceptMap for Msrpm {
    const TABLE: &'static [Row] = super::svm::TABLE;

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
        let bit = msrpm_bit(msr, bugs)? + access as u32;
        Some(Position { byte: bit as usize / 8, mask: 1 << (bit % 8) })
    }
}

impl InterceptMap for MsrBitmap {
    const TABLE: &'static [Row] = super::vmx::TABLE;

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
        let range = match msr & !(RANGE - 1) {
            0 => 0,
            0xc000_0000 if bugs.has(Regression::VmxHighRangeOffsetWrong) => 0,
            0xc000_0000 => 0x400,
            0xc001_0000 if bugs.has(Regression::VmxCoversThirdBlock) => 0x400,
            _ => return None,
        };
        let half = match access {
            Access::Read => 0,
            Access::Write if bugs.has(Regression::VmxWriteHalfMisplaced) => 0x400,
            Access::Write => 0x800,
        };
        let within = msr & (RANGE - 1);
        Some(Position { byte: half + range + within as usize / 8, mask: 1 << (within % 8) })
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
