//! The MSR maps of both vendors over all 2^32 indices: as rows of `rootmode-tests full`. Judged by the manuals' intervals.

use rayon::prelude::*;
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::interception::{Access as KvmAccess, InterceptMap};
use rootmode_svm::bitmap::{Access as SvmAccess, Msrpm};
use rootmode_vmx::bitmap::{Access as VmxAccess, MsrBitmap};

use crate::table::Row;

/// MSRs `first..=last` have bits from byte `byte` of the map on, `bits` for each MSR, the first of them for reads.
struct Interval {
    first: u64,
    last: u64,
    byte: u64,
    bits: u64,
}

const fn interval(first: u64, byte: u64, bits: u64) -> Interval {
    Interval { first, last: first + 0x1fff, byte, bits }
}

/// SDM Vol. 3C (325384-083, Mar 2024) "MSR-Bitmap Address": reads, then writes.
const VMX: [[Interval; 2]; 2] = [
    [interval(0, 0, 1), interval(0xc000_0000, 1024, 1)],
    [interval(0, 2048, 1), interval(0xc000_0000, 3072, 1)],
];

/// APM Vol. 2 (24593 rev. 3.42, Mar 2024) "MSR Intercepts": the write bit follows the read bit.
const SVM: [Interval; 3] =
    [interval(0, 0, 2), interval(0xc000_0000, 0x800, 2), interval(0xc001_0000, 0x1000, 2)];

/// The number of the bit for an access, counted from bit 0 of byte 0; `None`: the access always exits.
fn bit(intervals: &[Interval], index: u32, within: u64) -> Option<u64> {
    let index = u64::from(index);
    let found = intervals.iter().find(|interval| interval.first <= index && index <= interval.last)?;
    Some(found.byte * 8 + (index - found.first) * found.bits + within)
}

fn of_vmx(index: u32, write: bool) -> Option<u64> {
    bit(&VMX[usize::from(write)], index, 0)
}

fn of_svm(index: u32, write: bool) -> Option<u64> {
    bit(&SVM, index, u64::from(write))
}

/// Where KVM's model takes the bit to be.
fn kvm<M: InterceptMap>(index: u32, write: bool) -> Option<u64> {
    let access = if write { KvmAccess::Write } else { KvmAccess::Read };
    let place = M::locate(index, access, Regressions::NONE)?;
    Some(place.byte as u64 * 8 + u64::from(place.mask.trailing_zeros()))
}

/// Whether the processor's map and KVM's model of it have the bit where the manual has it, and the access exits from
/// maps of ones, and from maps of zeros only without a bit.
fn agrees_on_vmx(index: u32, write: bool) -> bool {
    let access = if write { VmxAccess::Write } else { VmxAccess::Read };
    let expected = of_vmx(index, write);
    let place = MsrBitmap::position(index, access).map(|p| u64::from(p.byte) * 8 + u64::from(p.bit));
    place == expected
        && kvm::<MsrBitmap>(index, write) == expected
        && MsrBitmap::INTERCEPT_ALL.test(index, access)
        && MsrBitmap::INTERCEPT_NONE.test(index, access) == expected.is_none()
}

fn agrees_on_svm(index: u32, write: bool, open: &Msrpm, closed: &Msrpm) -> bool {
    let access = if write { SvmAccess::Write } else { SvmAccess::Read };
    let expected = of_svm(index, write);
    let place = Msrpm::bit(index).map(|read| u64::from(read + access as u32));
    place == expected
        && kvm::<Msrpm>(index, write) == expected
        && closed.test(index, access)
        && open.test(index, access) == expected.is_none()
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Accesses judged.
    pub accesses: u64,
    /// Those that have a bit.
    pub with_a_bit: u64,
    /// Those on which map and manual disagree.
    pub disagreements: u64,
}

impl Sweep {
    const fn plus(self, other: Self) -> Self {
        Self {
            accesses: self.accesses + other.accesses,
            with_a_bit: self.with_a_bit + other.with_a_bit,
            disagreements: self.disagreements + other.disagreements,
        }
    }
}

/// Indices that a worker takes at a time: one size of a covered range.
const BLOCK: u32 = 0x2000;

/// Judges both accesses of every index in the blocks on all cores.
fn sweep(
    blocks: std::ops::Range<u32>,
    expected: fn(u32, bool) -> Option<u64>,
    agrees: impl Fn(u32, bool) -> bool + Sync,
) -> Sweep {
    let block = |number: u32| {
        let mut found = Sweep::default();
        for within in 0..BLOCK {
            for write in [false, true] {
                let index = number * BLOCK + within;
                found.accesses += 1;
                found.with_a_bit += u64::from(expected(index, write).is_some());
                found.disagreements += u64::from(!agrees(index, write));
            }
        }
        found
    };
    blocks.into_par_iter().map(block).reduce(Sweep::default, Sweep::plus)
}

/// VMX's bitmap over `blocks` of 8192 indices.
pub fn vmx(blocks: std::ops::Range<u32>) -> Sweep {
    sweep(blocks, of_vmx, agrees_on_vmx)
}

/// SVM's permission map over `blocks` of 8192 indices.
pub fn svm(blocks: std::ops::Range<u32>) -> Sweep {
    let (open, closed) = (Msrpm::filled(false), Msrpm::filled(true));
    sweep(blocks, of_svm, |index, write| agrees_on_svm(index, write, &open, &closed))
}

/// The rows of the full table: every index there is.
///
/// # Errors
/// None; a proof's signature.
pub fn rows() -> Result<Vec<Row>, String> {
    const ALL: std::ops::Range<u32> = 0..1 << 19;
    let row = |key: &str, what: &str, found: Sweep, bits: u64| {
        let value = format!(
            "{} accesses, {} with a bit, {} disagreements",
            found.accesses, found.with_a_bit, found.disagreements
        );
        let kept = (found.accesses, found.with_a_bit, found.disagreements) == (1 << 33, bits, 0);
        Row::new(key, what, value, "all 2^32 indices, 0 disagreements", kept)
    };
    Ok(vec![
        row(
            "msr-map-vmx",
            "reads and writes of every MSR index, VMX's bitmap and KVM's use of it against the SDM's intervals",
            vmx(ALL),
            4 * 0x2000,
        ),
        row(
            "msr-map-svm",
            "reads and writes of every MSR index, SVM's map and KVM's use of it against the APM's intervals",
            svm(ALL),
            6 * 0x2000,
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_around_every_covered_range_agree_and_have_as_many_bits_as_the_manual() {
        let mut both = [Sweep::default(); 2];
        for middle in [1, 0x6_0000, 0x6_0008] {
            let blocks = middle - 1..middle + 2;
            both = [both[0].plus(vmx(blocks.clone())), both[1].plus(svm(blocks))];
        }
        let accesses = 9 * 2 * u64::from(BLOCK);
        assert_eq!(both[0], Sweep { accesses, with_a_bit: 4 * 0x2000, disagreements: 0 });
        assert_eq!(both[1], Sweep { accesses, with_a_bit: 6 * 0x2000, disagreements: 0 });
    }

    #[test]
    fn a_map_that_is_off_by_one_bit_disagrees_wherever_it_has_bits() {
        let shifted = |index, write| kvm::<Msrpm>(index, write) == of_svm(index, write).map(|bit| bit + 1);
        assert_eq!(sweep(0..2, of_svm, shifted).disagreements, 2 * u64::from(BLOCK));
    }
}
