//! Slow and obvious answers, from the manuals' formulas and the catalogue's sentences.

use rootmode_arch::{Feature, Vendor, msr};
use rootmode_models::kvm::interception::{Access, ApicMode, Confidential, Configuration, Kernel};

use super::draw::FilterDraw;

/// Byte and bit of an access in an MSR permission map (APM Vol. 2 "MSR Intercepts"): blocks of 2 KiB, two bits an MSR.
pub fn svm_position(msr: u32, access: Access) -> Option<(usize, u32)> {
    let blocks: [u64; 3] = [0, 0xc000_0000, 0xc001_0000];
    let msr = u64::from(msr);
    let block = blocks.iter().position(|first| msr >= *first && msr - first < 8192)?;
    let within = msr - blocks[block];
    let write = u32::from(access == Access::Write);
    Some((block * 2048 + within as usize / 4, within as u32 % 4 * 2 + write))
}

/// Byte and bit of an access in a VMX MSR bitmap (SDM Vol. 3C "MSR-Bitmap Address"): four bitmaps of 1 KiB.
pub fn vmx_position(msr: u32, access: Access) -> Option<(usize, u32)> {
    let write = usize::from(access == Access::Write) * 2048;
    let (start, within) = match msr {
        0..=0x1fff => (0, msr),
        0xc000_0000..=0xc000_1fff => (1024, msr - 0xc000_0000),
        _ => return None,
    };
    Some((write + start + within as usize / 8, within % 8))
}

/// Whether the processor leaves the guest, given the bytes of a map and where its bits lie.
pub(super) fn exits(map: &[u8], position: Option<(usize, u32)>) -> bool {
    position.is_none_or(|(byte, bit)| map[byte] >> bit & 1 == 1)
}

/// Whether a drawn filter allows the access: the first range that holds the MSR and names the access decides.
pub fn allows(filter: &FilterDraw, msr: u32, access: Access) -> bool {
    if (0x800..=0x8ff).contains(&msr) {
        return true;
    }
    for range in &filter.ranges {
        let end = u64::from(range.base) + u64::from(range.nmsrs);
        let holds = end < 1 << 32 && u64::from(msr) >= u64::from(range.base) && u64::from(msr) < end;
        if holds && range.accesses.has(access) {
            return range.pattern.allows(msr - range.base);
        }
    }
    filter.default_allow
}

/// The accesses that a configuration passes through, before the filter: MSR, reads, writes.
pub(super) type Open = Vec<(u32, bool, bool)>;

const RW: (bool, bool) = (true, true);
const R: (bool, bool) = (true, false);
const W: (bool, bool) = (false, true);

fn put(open: &mut Open, msrs: &[u32], (read, write): (bool, bool)) {
    open.extend(msrs.iter().map(|msr| (*msr, read, write)));
}

/// What either vendor's table says of the MSRs that both have.
fn common(c: &Configuration, open: &mut Open) {
    let host_ibpb = c.host.has(Feature::SpecCtrl) || c.host.has(Feature::AmdIbpb);
    let guest_ibpb =
        c.guest.has(Feature::SpecCtrl) || c.guest.has(Feature::AmdIbpb) || c.guest.has(Feature::Sbpb);
    if host_ibpb && guest_ibpb {
        put(open, &[0x49], W);
    }
    if c.host.has(Feature::FlushL1d) && c.guest.has(Feature::FlushL1d) {
        put(open, &[0x10b], W);
    }
    if c.kernel >= Kernel::V6_17 && c.disabled_exits.bits() & 0x10 != 0 {
        put(open, &[0xe7, 0xe8], R);
    }
    if c.kernel >= Kernel::V6_18 && c.kvm.has(Feature::Shstk) && c.guest.has(Feature::Shstk) {
        put(open, &[0x6a4, 0x6a5, 0x6a6, 0x6a7], RW);
    }
    put(open, &[0xc000_0100, 0xc000_0101, 0xc000_0102, 0x174], RW);
}

/// What KVM passes through on AMD.
fn open_on_svm(c: &Configuration) -> Open {
    let mut open = Open::with_capacity(80);
    common(c, &mut open);
    put(&mut open, &[0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084], RW);
    if c.guest_vendor == Vendor::Amd {
        put(&mut open, &[0x175, 0x176], RW);
    }
    let has_spec_ctrl = c.guest.has(Feature::SpecCtrl)
        || c.guest.has(Feature::AmdIbrs)
        || c.guest.has(Feature::AmdStibp)
        || c.guest.has(Feature::AmdSsbd);
    if if c.host.has(Feature::VirtualSpecCtrl) { has_spec_ctrl } else { c.spec_ctrl != 0 } {
        put(&mut open, &[0x48], RW);
    }
    let sev_es = c.confidential != Confidential::No;
    let lbr = c.last_branch;
    if lbr.module && lbr.vmcb02.unwrap_or(lbr.vmcb01) {
        put(&mut open, &[0x1db, 0x1dc, 0x1dd, 0x1de], RW);
        if sev_es {
            put(&mut open, &[0x1d9], RW);
        }
    }
    if c.kernel >= Kernel::V6_18 && c.kvm.has(Feature::Shstk) && c.guest.has(Feature::Shstk) {
        put(&mut open, &[0x6a0, 0x6a2], RW);
    }
    if sev_es {
        put(&mut open, &[0xc001_0130, 0xc000_0080, 0x277], RW);
        if c.host.has(Feature::VirtualTscAux) && (c.guest.has(Feature::Rdtscp) || c.guest.has(Feature::Rdpid))
        {
            put(&mut open, &[0xc000_0103], RW);
        }
        if c.kvm.has(Feature::Xsaves) && c.guest.has(Feature::Xsaves) {
            put(&mut open, &[0xda0], RW);
        }
        if c.kernel >= Kernel::V6_18 && c.confidential == (Confidential::SevSnp { secure_tsc: true }) {
            put(&mut open, &[0xc001_0134], R);
        }
    }
    if let (Kernel::Later, Some(pmu)) = (c.kernel, c.pmu) {
        for n in 0..u32::from(pmu.counters) {
            if n < 4 {
                put(&mut open, &[0xc001_0004 + n], RW);
            }
            if n < 6 && c.guest.has(Feature::PerfCtrExtCore) {
                put(&mut open, &[0xc001_0201 + 2 * n], RW);
            }
        }
        if pmu.global {
            put(&mut open, &[0xc000_0300, 0xc000_0301, 0xc000_0302, 0xc000_0303], RW);
        }
    }
    if c.apic == ApicMode::X2Avic {
        put(&mut open, &[0x802, 0x803, 0x808, 0x809, 0x80a, 0x80b, 0x80c, 0x80d, 0x80e, 0x80f], RW);
        put(&mut open, &[0x810, 0x818, 0x820, 0x828, 0x830, 0x831], RW);
        put(&mut open, &[0x833, 0x834, 0x835, 0x836, 0x837, 0x838, 0x839, 0x83e], RW);
    }
    open
}

/// What KVM passes through on Intel.
fn open_on_vmx(c: &Configuration) -> Open {
    let mut open = Open::with_capacity(96);
    common(c, &mut open);
    put(&mut open, &[0x175, 0x176], RW);
    put(&mut open, &[0x10], R);
    if c.disabled_exits.bits() & 8 != 0 {
        put(&mut open, &[0x660, 0x3fc, 0x3fd, 0x3fe], R);
    }
    if let Some(pt) = c.processor_trace {
        put(&mut open, &[0x571, 0x560, 0x561, 0x572], RW);
        (0x580..0x580 + 2 * u32::from(pt.address_pairs)).for_each(|msr| put(&mut open, &[msr], RW));
    }
    if c.xfd_written {
        put(&mut open, &[0x1c4], RW);
    }
    if c.kvm.has(Feature::Xfd) && c.guest.has(Feature::Xfd) {
        put(&mut open, &[0x1c5], R);
    }
    if c.spec_ctrl != 0 {
        put(&mut open, &[0x48], RW);
    }
    let cet = [Feature::Shstk, Feature::Ibt].into_iter().any(|f| c.kvm.has(f) && c.guest.has(f));
    if c.kernel >= Kernel::V6_18 && cet {
        put(&mut open, &[0x6a0, 0x6a2], RW);
    }
    if let (Kernel::Later, Some(pmu)) = (c.kernel, c.pmu) {
        for n in 0..u32::from(pmu.counters).min(4) {
            put(&mut open, &[0xc1 + n], RW);
            if pmu.full_width {
                put(&mut open, &[0x4c1 + n], RW);
            }
        }
        (0..u32::from(pmu.fixed_counters)).for_each(|n| put(&mut open, &[0x309 + n], RW));
        if pmu.global {
            put(&mut open, &[0x38e, 0x38f, 0x390], RW);
        }
    }
    if let ApicMode::VirtualizeX2apic { apicv, ipi } = c.apic {
        put(&mut open, &[0x808], RW);
        if apicv {
            put(&mut open, &[0x802, 0x803, 0x80a, 0x80d, 0x80f, 0x828, 0x830, 0x83e], R);
            (0x810..0x828).for_each(|msr| put(&mut open, &[msr], R));
            (0x832..=0x838).for_each(|msr| put(&mut open, &[msr], R));
            put(&mut open, &[0x80b, 0x83f], W);
            if ipi {
                put(&mut open, &[0x830], W);
            }
        }
    }
    open
}

/// A vendor's processor, as the oracle sees it.
#[derive(Clone, Copy)]
pub(super) struct Processor {
    /// Bytes of the map.
    pub(super) size: usize,
    /// Where bits lie.
    pub(super) position: fn(u32, Access) -> Option<(usize, u32)>,
    open: fn(&Configuration) -> Open,
}

/// AMD: the MSR permission map.
pub(super) const SVM: Processor = Processor { size: 8192, position: svm_position, open: open_on_svm };
/// Intel: the MSR bitmap.
pub(super) const VMX: Processor = Processor { size: 4096, position: vmx_position, open: open_on_vmx };

impl Processor {
    /// The map that a configuration and a filter demand: everything is intercepted but what both let pass.
    pub(super) fn expected_map(&self, config: &Configuration, filter: &FilterDraw) -> Vec<u8> {
        let mut map = vec![0xff; self.size];
        for (msr, read, write) in (self.open)(config) {
            for (access, open) in [(Access::Read, read), (Access::Write, write)] {
                if let (true, Some((byte, bit))) =
                    (open && allows(filter, msr, access), (self.position)(msr, access))
                {
                    map[byte] &= !(1 << bit);
                }
            }
        }
        map
    }

    /// The first access on which two maps differ: MSR and access.
    pub(super) fn first_difference(&self, one: &[u8], other: &[u8]) -> Option<(u32, Access)> {
        let byte = one.iter().zip(other).position(|(a, b)| a != b)?;
        let bit = (one[byte] ^ other[byte]).trailing_zeros();
        let ranges = [0, 0xc000_0000, 0xc001_0000];
        ranges
            .into_iter()
            .flat_map(|first: u32| first..first + 0x2000)
            .flat_map(|msr| Access::ALL.map(|access| (msr, access)))
            .find(|(msr, access)| (self.position)(*msr, *access) == Some((byte, bit)))
    }
}

/// "0xc0000081 (IA32_STAR)".
pub(super) fn name(index: u32) -> String {
    msr::name(index).map_or_else(|| format!("{index:#x}"), |name| format!("{index:#x} ({name})"))
}

/// "byte 0x820 bit 2", or "no bit".
pub(super) fn place(position: Option<(usize, u32)>) -> String {
    position.map_or_else(|| "no bit".to_owned(), |(byte, bit)| format!("byte {byte:#x} bit {bit}"))
}
