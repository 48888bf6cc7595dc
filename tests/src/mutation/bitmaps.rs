//! Mutants of the layouts of the processors' bitmaps: ranges moved and cut, reads and writes swapped, bits next to the right
//! ones, ports forgotten, polarity turned.
//!
//! MSRs are judged by the formulas of the campaigns' oracle over all 2^32 indices (by interval: both ends, their
//! neighbours, and every index within), ports by the list of ports that an access touches, encodings and leaves by one
//! sentence of the manual each. Each look-up sees maps in which one bit alone differs from all others.

use rootmode::campaign::properties::interception::oracle::{svm_position, vmx_position};
use rootmode_models::kvm::interception::Access;
use rootmode_svm::bitmap::{IopmLayout, MsrpmLayout, PermissionMaps};
use rootmode_vmx::bitmap::{BitmapPage, Bitmaps, IoLayout, LeafLayout, MsrBitmapLayout, VmcsLayout};

use super::Report;

/// A mutant and what was done.
type Mutants<T> = Vec<(String, T)>;

/// A copy of a layout, changed.
fn change<T: Copy>(mutants: &mut Mutants<T>, original: &T, what: impl Into<String>, how: impl Fn(&mut T)) {
    let mut mutant = *original;
    how(&mut mutant);
    mutants.push((what.into(), mutant));
}

/// Sizes of port accesses in bytes.
const SIZES: [u8; 3] = [1, 2, 4];

/// Maps of either vendor in which bit `bit` alone is `value`.
#[derive(Clone, Copy)]
struct Only {
    bit: u32,
    value: bool,
}

impl Only {
    fn at(self, bit: u32) -> bool {
        (bit == self.bit) == self.value
    }
}

impl PermissionMaps for Only {
    fn msrpm(&self, bit: u32) -> bool {
        self.at(bit)
    }
    fn iopm(&self, bit: u32) -> bool {
        self.at(bit)
    }
}

/// The same for VMX; the I/O bitmaps count on from page A to page B.
impl Bitmaps for Only {
    fn byte(&self, page: BitmapPage, offset: u16) -> u8 {
        let first = u32::from(offset) * 8 + if page == BitmapPage::IoB { 0x8000 } else { 0 };
        (0..8).fold(0, |byte, bit| byte | u8::from(self.at(first + bit)) << bit)
    }
}

/// Indices that decide about all 2^32: those of every range that either vendor covers and twice as many behind it, and the
/// ends and neighbours of every interval that a single bit or two bits of the index make.
fn indices() -> Vec<u32> {
    let mut all: Vec<u32> = [0u32, 0xc000_0000, 0xc001_0000]
        .into_iter()
        .flat_map(|first| (0..0x4004u32).map(move |n| first.wrapping_sub(4).wrapping_add(n)))
        .collect();
    for base in [0u32, 0xc000_0000, 0xc001_0000] {
        for shift in 12..32 {
            all.extend((0..3).map(|n| (base ^ 1 << shift).wrapping_add(n).wrapping_sub(1)));
        }
    }
    all
}

/// Whether `exits` differs somewhere from what the bits at `position` demand.
fn msrs_noticed(
    indices: &[u32],
    position: fn(u32, Access) -> Option<(usize, u32)>,
    exits: impl Fn(Only, u32, Access) -> bool,
) -> bool {
    indices.iter().any(|&index| {
        Access::ALL.into_iter().any(|access| {
            let bit = position(index, access).map(|(byte, bit)| byte as u32 * 8 + bit);
            [true, false].into_iter().any(|value| {
                let maps = Only { bit: bit.unwrap_or(0), value };
                exits(maps, index, access) != bit.is_none_or(|_| value)
            })
        })
    })
}

/// Mutates the layout of the MSR permission map.
#[must_use]
pub fn run_msrpm() -> Report {
    let original = MsrpmLayout::PROCESSOR;
    let mut mutants = Mutants::new();
    for at in 0..original.ranges.len() {
        let mut range = |what: &str, how: &dyn Fn(&mut rootmode_svm::bitmap::MsrRange)| {
            change(&mut mutants, &original, format!("range {at}: {what}"), |l| how(&mut l.ranges[at]));
        };
        range("dropped", &|r| r.count = 0);
        range("first + 1", &|r| r.first += 1);
        range("first - 1", &|r| r.first = r.first.wrapping_sub(1));
        range("count + 1", &|r| r.count += 1);
        range("count - 1", &|r| r.count -= 1);
        range("count of all", &|r| r.count = u32::MAX);
        for step in [1, 2, 8, 32, 64, 0x4000] {
            range(&format!("bit + {step}"), &|r| r.bit += step);
            range(&format!("bit - {step}"), &|r| r.bit = r.bit.wrapping_sub(step));
        }
        let next = (at + 1) % original.ranges.len();
        change(&mut mutants, &original, format!("range {at}: bits swapped with range {next}"), |l| {
            (l.ranges[at].bit, l.ranges[next].bit) = (l.ranges[next].bit, l.ranges[at].bit);
        });
        change(&mut mutants, &original, format!("range {at}: MSRs swapped with range {next}"), |l| {
            (l.ranges[at].first, l.ranges[next].first) = (l.ranges[next].first, l.ranges[at].first);
        });
    }
    for per_msr in [0, 1, 3, 4] {
        change(&mut mutants, &original, format!("{per_msr} bits an MSR"), |l| l.per_msr = per_msr);
    }
    for accesses in [[1, 0], [0, 0], [1, 1], [1, 2], [0, 2]] {
        change(&mut mutants, &original, format!("bits of accesses {accesses:?}"), |l| l.accesses = accesses);
    }
    change(&mut mutants, &original, "uncovered: negated", |l| l.uncovered = false);
    change(&mut mutants, &original, "intercepting: negated", |l| l.intercepting = false);
    let mut report = Report::new("bitmap-msrpm");
    let indices = indices();
    for (what, mutant) in mutants {
        let killed = msrs_noticed(&indices, svm_position, |maps, index, access| {
            mutant.intercepted(&maps, index, access.into())
        });
        report.count(|| what, killed);
    }
    report
}

/// Mutates the layout of the VMX MSR bitmap.
#[must_use]
pub fn run_msr_bitmap() -> Report {
    let original = MsrBitmapLayout::PROCESSOR;
    let mut mutants = Mutants::new();
    for at in 0..original.ranges.len() {
        let mut range = |what: &str, how: &dyn Fn(&mut rootmode_vmx::bitmap::MsrRange)| {
            change(&mut mutants, &original, format!("range {at}: {what}"), |l| how(&mut l.ranges[at]));
        };
        range("dropped", &|r| r.count = 0);
        range("first + 1", &|r| r.first += 1);
        range("first - 1", &|r| r.first = r.first.wrapping_sub(1));
        range("count + 1", &|r| r.count += 1);
        range("count - 1", &|r| r.count -= 1);
        range("count of all", &|r| r.count = u32::MAX);
        for step in [1, 8, 32, 64, 0x2000, 0x4000] {
            range(&format!("bit + {step}"), &|r| r.bit = r.bit.wrapping_add(step));
            range(&format!("bit - {step}"), &|r| r.bit = r.bit.wrapping_sub(step));
        }
    }
    change(&mut mutants, &original, "bits of the ranges swapped", |l| {
        (l.ranges[0].bit, l.ranges[1].bit) = (l.ranges[1].bit, l.ranges[0].bit);
    });
    change(&mut mutants, &original, "range 1: from the third block", |l| l.ranges[1].first = 0xc001_0000);
    for accesses in
        [[0x4000, 0], [0, 0], [0x4000, 0x4000], [0, 0x2000], [1, 0x4000], [0, 0x4001], [0, 0x3fff]]
    {
        change(&mut mutants, &original, format!("bits of accesses {accesses:x?}"), |l| l.accesses = accesses);
    }
    change(&mut mutants, &original, "uncovered: negated", |l| l.uncovered = false);
    change(&mut mutants, &original, "exiting: negated", |l| l.exiting = false);
    let mut report = Report::new("bitmap-msr");
    let indices = indices();
    for (what, mutant) in mutants {
        let killed = msrs_noticed(&indices, vmx_position, |maps, index, access| {
            mutant.exits(&maps, index, access.into())
        });
        report.count(|| what, killed);
    }
    report
}

/// Whether `exits` differs somewhere from the list of the ports that an access touches: each bit alone set or clear, asked
/// by every access that touches its port or a neighbour of it. Bits from 0x10000 on stand for what lies behind the last
/// port; `wraps`: an access that gets there exits whatever the bits say.
fn ports_noticed(bits: u32, wraps: bool, exits: impl Fn(Only, u16, u8) -> bool) -> bool {
    (0..bits).any(|bit| {
        (bit.saturating_sub(4)..=(bit + 1).min(0xffff)).any(|port| {
            SIZES.into_iter().any(|size| {
                let touched = port..port + u32::from(size);
                let beyond = wraps && touched.end > 0x1_0000;
                [true, false].into_iter().any(|value| {
                    let mut ports = touched.clone().filter(|p| !wraps || *p <= 0xffff);
                    let expected = beyond || ports.any(|p| (p == bit) == value);
                    exits(Only { bit, value }, port as u16, size) != expected
                })
            })
        })
    })
}

/// Other numbers of ports that an access of some size could look at, with what was done.
fn other_ports(ports: [u8; 5]) -> impl Iterator<Item = (String, [u8; 5])> {
    SIZES.into_iter().flat_map(move |size| {
        let with = |count: u8| {
            let mut other = ports;
            other[usize::from(size)] = count;
            (format!("{count} ports of an access of {size} bytes"), other)
        };
        [with(size - 1), with(size + 1), with(if size == 4 { 2 } else { 4 })]
    })
}

/// Mutates the layout of the I/O permission map.
#[must_use]
pub fn run_iopm() -> Report {
    let original = IopmLayout::PROCESSOR;
    let mut mutants = Mutants::new();
    for step in [1, 2, 8, 0x8000] {
        change(&mut mutants, &original, format!("bit + {step}"), |l| l.bit += step);
        change(&mut mutants, &original, format!("bit - {step}"), |l| l.bit = l.bit.wrapping_sub(step));
    }
    for per_port in [0, 2] {
        change(&mut mutants, &original, format!("{per_port} bits a port"), |l| l.per_port = per_port);
    }
    for last in [0x1_0001, 0x1_0000, 0xffff, 0xfffe, 0x7fff] {
        change(&mut mutants, &original, format!("last bit {last:#x}"), |l| l.last = last);
    }
    for (what, ports) in other_ports(original.ports) {
        change(&mut mutants, &original, what, |l| l.ports = ports);
    }
    change(&mut mutants, &original, "intercepting: negated", |l| l.intercepting = false);
    let mut report = Report::new("bitmap-iopm");
    for (what, mutant) in mutants {
        let killed = ports_noticed(0x1_0003, false, |maps, port, size| mutant.intercepted(&maps, port, size));
        report.count(|| what, killed);
    }
    report
}

/// Mutates the layout of the VMX I/O bitmaps.
#[must_use]
pub fn run_io_bitmaps() -> Report {
    let original = IoLayout::PROCESSOR;
    let mut mutants = Mutants::new();
    for first in [0, 0x7fff, 0x8001, 0xffff] {
        change(&mut mutants, &original, format!("bitmap B from {first:#x}"), |l| l.first_of_b = first);
    }
    for bit in 0..15 {
        change(&mut mutants, &original, format!("bit {bit} of the port ignored"), |l| l.within ^= 1 << bit);
    }
    for (what, ports) in other_ports(original.ports) {
        change(&mut mutants, &original, what, |l| l.ports = ports);
    }
    change(&mut mutants, &original, "wrapping: negated", |l| l.wrapping = false);
    change(&mut mutants, &original, "exiting: negated", |l| l.exiting = false);
    let mut report = Report::new("bitmap-io");
    for (what, mutant) in mutants {
        let killed = ports_noticed(0x1_0000, true, |maps, port, size| mutant.exits(&maps, port, size));
        report.count(|| what, killed);
    }
    report
}

/// Mutates the layouts of the VMCS-shadowing and of the leaf bitmaps.
#[must_use]
pub fn run_small() -> Report {
    let mut report = Report::new("bitmap-vmcs-and-leaf");
    let mut shadowing = Mutants::new();
    let vmcs = VmcsLayout::PROCESSOR;
    for last in [0, 0x3fff, 0x7ffe, 0x8000, 0xffff, u64::from(u32::MAX), u64::MAX] {
        change(&mut shadowing, &vmcs, format!("shadowing: last encoding {last:#x}"), |l| l.last = last);
    }
    change(&mut shadowing, &vmcs, "shadowing: uncovered negated", |l| l.uncovered = false);
    change(&mut shadowing, &vmcs, "shadowing: exiting negated", |l| l.exiting = false);
    for (what, mutant) in shadowing {
        // "Bits 63:15 are not all 0" exits; else the bit of that number decides.
        let encodings = (0..0x8010).chain((15..64).map(|bit| 1 << bit | 0x1234));
        let killed = encodings.into_iter().any(|encoding: u64| {
            [true, false].into_iter().any(|value| {
                let maps = Only { bit: encoding as u32 & 0x7fff, value };
                mutant.exits(&maps, BitmapPage::Vmread, encoding) != (encoding >> 15 != 0 || value)
            })
        });
        report.count(|| what, killed);
    }
    let mut leaves = Mutants::new();
    let leaf = LeafLayout::PROCESSOR;
    for shared in [0, 31, 62, 64, u32::MAX] {
        change(&mut leaves, &leaf, format!("leaves: shared bit from {shared}"), |l| l.shared = shared);
    }
    change(&mut leaves, &leaf, "leaves: exiting negated", |l| l.exiting = false);
    for (what, mutant) in leaves {
        // Bit n for leaf n from 0 to 62, bit 63 for every other.
        let killed = (0..64).any(|bit| {
            (0..200).chain([0x8000_0000, u32::MAX]).any(|leaf: u32| {
                let expected = if bit == 63 { leaf > 62 } else { leaf == bit };
                mutant.exits(1 << bit, leaf) != expected || mutant.exits(!(1 << bit), leaf) == expected
            })
        });
        report.count(|| what, killed);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_own_layouts_give_the_judges_nothing_to_notice() {
        let indices = indices();
        let (msrpm, msr) = (MsrpmLayout::PROCESSOR, MsrBitmapLayout::PROCESSOR);
        assert!(!msrs_noticed(&indices, svm_position, |maps, i, a| msrpm.intercepted(&maps, i, a.into())));
        assert!(!msrs_noticed(&indices, vmx_position, |maps, i, a| msr.exits(&maps, i, a.into())));
        let (iopm, io) = (IopmLayout::PROCESSOR, IoLayout::PROCESSOR);
        assert!(!ports_noticed(0x1_0003, false, |maps, port, size| iopm.intercepted(&maps, port, size)));
        assert!(!ports_noticed(0x1_0000, true, |maps, port, size| io.exits(&maps, port, size)));
    }
}
