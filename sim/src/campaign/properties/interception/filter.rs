//! The userspace MSR filter: its rules, and its ABI with every error.

use std::sync::Arc;

use rootmode_arch::{Choices, Site};
use rootmode_models::kvm::filter::{FilterSlot, Layout, UserFault, UserMemory};
use rootmode_models::kvm::interception::Access;
use rootmode_models::kvm::{Errno, Regressions};

use super::draw::{self, FilterDraw};
use super::oracle;
use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "filter-first-match",
        about: "The first range of a filter that holds the MSR and names the access decides; x2APIC MSRs are never filtered.",
        source: "catalogue 0.3; P-A9",
        cost: 1,
        check: first_match,
    },
    Property {
        name: "filter-order-of-disjoint-ranges",
        about: "Permuting ranges that do not overlap changes nothing.",
        source: "P-A9",
        cost: 1,
        check: permutation,
    },
    Property {
        name: "filter-abi",
        about: "Every argument of KVM_X86_SET_MSR_FILTER gives the documented code, and an error changes nothing.",
        source: "catalogue 0.3; P-A8",
        cost: 1,
        check: abi,
    },
];

/// An MSR at or near a range of the filter, or any.
fn probe(c: &mut dyn Choices, filter: &FilterDraw) -> u32 {
    let n = filter.ranges.len() as u64;
    match c.choose(Site::State, n + 1) {
        0 => draw::any_msr(c),
        k => {
            let range = &filter.ranges[k as usize - 1];
            let start = if c.flip(Site::State) { range.base.wrapping_add(range.nmsrs) } else { range.base };
            start.wrapping_add(c.choose(Site::State, 3) as u32).wrapping_sub(c.choose(Site::State, 3) as u32)
        }
    }
}

fn first_match(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let filter = draw::filter(c);
    let built = filter.build();
    for _ in 0..4 {
        let (msr, access) = (probe(c, &filter), draw::access(c));
        let (found, expected) = (built.allows(msr, access, bugs), oracle::allows(&filter, msr, access));
        if found != expected {
            return Counterexample::new(format!("{access} of {}: allowed is {found}", oracle::name(msr)))
                .with("expected", expected)
                .with("filter", format!("{filter:x?}"))
                .into();
        }
    }
    Verdict::Holds
}

fn permutation(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let mut filter = draw::filter(c);
    let spans = |r: &draw::RangeDraw| (u64::from(r.base), u64::from(r.base) + u64::from(r.nmsrs));
    let mut kept: Vec<draw::RangeDraw> = Vec::new();
    for range in &filter.ranges {
        let (start, end) = spans(range);
        if kept.iter().map(spans).all(|(s, e)| end <= s || e <= start) {
            kept.push(*range);
        }
    }
    filter.ranges = kept;
    let mut reversed = filter.clone();
    reversed.ranges.reverse();
    let (one, other) = (filter.build(), reversed.build());
    let (msr, access) = (probe(c, &filter), draw::access(c));
    if one.allows(msr, access, bugs) != other.allows(msr, access, bugs) {
        return Counterexample::new(format!("the order of disjoint ranges decides {access} of {msr:#x}"))
            .with("filter", format!("{filter:x?}"))
            .into();
    }
    Verdict::Holds
}

/// One range of an argument as userspace writes it, sensible or not.
struct RawRange {
    slot: usize,
    flags: u32,
    nmsrs: u32,
    base: u32,
    pointer: u64,
}

/// User memory whose bytes follow from their addresses; reading at or above `end` faults.
struct Memory<'a> {
    argument: &'a [u8],
    end: u64,
    allocations: u64,
}

/// Address of the argument; bitmaps lie above.
const ARGUMENT: u64 = 0x1000;
/// Reads of bitmaps at or above fault.
const END: u64 = 0x10_0000;

/// The byte of user memory at `address`.
const fn byte_at(address: u64) -> u8 {
    (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl UserMemory for Memory<'_> {
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), UserFault> {
        if address.checked_add(buffer.len() as u64).is_none_or(|end| end > self.end) {
            return Err(UserFault { address });
        }
        if address == ARGUMENT {
            buffer.copy_from_slice(&self.argument[..buffer.len()]);
        } else {
            buffer.iter_mut().zip(address..).for_each(|(byte, address)| *byte = byte_at(address));
        }
        Ok(())
    }

    fn can_allocate(&mut self, _: usize) -> bool {
        self.allocations = self.allocations.saturating_sub(1);
        self.allocations > 0
    }
}

fn abi(c: &mut dyn Choices, _: Regressions) -> Verdict {
    let layout = if c.flip(Site::State) { Layout::Compat } else { Layout::Bits64 };
    let flags =
        [0, 1, 2, 3, 0x8000_0000][c.choose(Site::State, 5) as usize * c.choose(Site::State, 2) as usize];
    let mut ranges: Vec<RawRange> = Vec::new();
    for _ in 0..c.choose(Site::State, 4) {
        let slot = (ranges.last().map_or(0, |r| r.slot + 1) + c.choose(Site::State, 3) as usize).min(15);
        if ranges.last().is_some_and(|r| r.slot == slot) {
            break;
        }
        ranges.push(RawRange {
            slot,
            flags: [3, 1, 2, 3, 1, 0, 4, 0x8000_0001][c.choose(Site::State, 8) as usize],
            nmsrs: match c.choose(Site::State, 8) {
                0 => 0,
                1 => [64, 65, 63, 12288, 12289, 12352, 0xffff_ffff, 0xffff_ffc0, 0xffff_ffc1, 0x8000_0000]
                    [c.choose(Site::State, 10) as usize],
                _ => 1 + c.choose(Site::State, 200) as u32,
            },
            base: draw::any_msr(c),
            pointer: match c.choose(Site::State, 8) {
                7 => END - c.choose(Site::State, 64),
                k => 0x2000 * (k + 1),
            },
        });
    }
    let argument = encode(layout, flags, &ranges);
    let unreadable = c.choose(Site::State, 32) == 31;
    let allocations = if c.choose(Site::State, 16) == 15 { 1 + c.choose(Site::State, 3) } else { 100 };
    let mut memory =
        Memory { argument: &argument, end: if unreadable { ARGUMENT + 8 } else { END }, allocations };
    let expected = expected_code(flags, &ranges, unreadable, allocations);

    let mut slot = FilterSlot::default();
    let before = slot.current();
    let found = slot.set(layout, ARGUMENT, &mut memory).map_err(|e| e.errno());
    let describe = |text: String| {
        ranges.iter().fold(Counterexample::new(text).with("flags", format!("{flags:#x}")), |example, r| {
            example.with(
                format!("range {}", r.slot),
                format!(
                    "flags {:#x}, {:#x} MSRs from {:#x}, bitmap at {:#x}",
                    r.flags, r.nmsrs, r.base, r.pointer
                ),
            )
        })
    };
    if found != expected {
        return describe(format!("{layout:?}: the call returned {found:?}, documented is {expected:?}"))
            .into();
    }
    let now = slot.current();
    if found.is_err() {
        let same = Arc::ptr_eq(&before, &now);
        return if same { Verdict::Holds } else { describe("an error replaced the filter".into()).into() };
    }
    let (msr, access) = match ranges.len() as u64 {
        0 => (draw::any_msr(c), draw::access(c)),
        n => {
            let range = &ranges[c.choose(Site::State, n) as usize];
            (range.base.wrapping_add(c.choose(Site::State, 70) as u32), draw::access(c))
        }
    };
    let allowed = expected_decision(flags, &ranges, msr, access);
    if now.allows(msr, access, Regressions::NONE) != allowed {
        return describe(format!("{access} of {msr:#x}: expected allowed {allowed}")).into();
    }
    Verdict::Holds
}

fn encode(layout: Layout, flags: u32, ranges: &[RawRange]) -> Vec<u8> {
    let (size, first, distance) = match layout {
        Layout::Bits64 => (392, 8, 24),
        Layout::Compat => (260, 4, 16),
    };
    let mut bytes = vec![0; size];
    bytes[..4].copy_from_slice(&flags.to_le_bytes());
    for range in ranges {
        let at = first + range.slot * distance;
        let words: [u32; 3] = [range.flags, range.nmsrs, range.base];
        for (index, word) in words.into_iter().enumerate() {
            bytes[at + 4 * index..at + 4 * index + 4].copy_from_slice(&word.to_le_bytes());
        }
        let pointer = range.pointer.to_le_bytes();
        match layout {
            Layout::Bits64 => bytes[at + 16..at + 24].copy_from_slice(&pointer),
            Layout::Compat => bytes[at + 12..at + 16].copy_from_slice(&pointer[..4]),
        }
    }
    bytes
}

/// The catalogue's list of errors, in its order.
fn expected_code(flags: u32, ranges: &[RawRange], unreadable: bool, allocations: u64) -> Result<(), Errno> {
    if unreadable {
        return Err(Errno::Efault);
    }
    if flags > 1 || (flags == 1 && ranges.iter().all(|r| r.nmsrs == 0)) {
        return Err(Errno::Einval);
    }
    let mut left = allocations - 1;
    if left == 0 {
        return Err(Errno::Enomem);
    }
    for range in ranges.iter().filter(|r| r.nmsrs != 0) {
        if range.flags == 0 || range.flags > 3 || range.nmsrs > 12288 {
            return Err(Errno::Einval);
        }
        left -= 1;
        if left == 0 {
            return Err(Errno::Enomem);
        }
        if range.pointer + u64::from(range.nmsrs.div_ceil(64)) * 8 > END {
            return Err(Errno::Efault);
        }
    }
    Ok(())
}

fn expected_decision(flags: u32, ranges: &[RawRange], msr: u32, access: Access) -> bool {
    if (0x800..=0x8ff).contains(&msr) {
        return true;
    }
    for range in ranges {
        let (base, end) = (u64::from(range.base), u64::from(range.base) + u64::from(range.nmsrs));
        let named = range.flags >> (access as u32) & 1 == 1;
        if named && end < 1 << 32 && (base..end).contains(&u64::from(msr)) {
            let bit = u64::from(msr) - base;
            return byte_at(range.pointer + bit / 8) >> (bit % 8) & 1 == 1;
        }
    }
    flags == 0
}
