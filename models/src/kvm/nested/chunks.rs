//! [`ChunkList`]: which chunks of L1's permission map are merged, derived from the MSRs that KVM may pass to L2.

use core::ops::Range;

use rootmode_arch::msr;

use super::MergedMsr;
use crate::kvm::interception::{Access, Accesses, InterceptMap, Kernel};
use crate::kvm::{Errno, Regression, Regressions};
use rootmode_svm::bitmap::Msrpm;

/// The MSRs that KVM merges on AMD processors, with the first kernel that does. SEV-ES-only MSRs are left out, because
/// nothing nests in an SEV-ES guest; so are CET and x2APIC MSRs.
pub(crate) const SVM_MERGED: &[MergedMsr] = &[
    MergedMsr::new(msr::IA32_STAR, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_SYSENTER_CS, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_SYSENTER_EIP, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_SYSENTER_ESP, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_GS_BASE, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_FS_BASE, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_KERNEL_GS_BASE, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_LSTAR, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_CSTAR, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_FMASK, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_SPEC_CTRL, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_PRED_CMD, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_FLUSH_CMD, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_APERF, Accesses::RW, Kernel::V6_17),
    MergedMsr::new(msr::IA32_MPERF, Accesses::RW, Kernel::V6_17),
    MergedMsr::new(msr::LASTBRANCHFROMIP, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::LASTBRANCHTOIP, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::LASTINTFROMIP, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::LASTINTTOIP, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::PERF_LEGACY_CTR0, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_LEGACY_CTR1, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_LEGACY_CTR2, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_LEGACY_CTR3, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_CTR0, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_CTR1, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_CTR2, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_CTR3, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_CTR4, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_CTR5, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_CNTR_GLOBAL_STATUS, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_CNTR_GLOBAL_CTL, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_CNTR_GLOBAL_STATUS_CLR, Accesses::RW, Kernel::Later),
    MergedMsr::new(msr::PERF_CNTR_GLOBAL_STATUS_SET, Accesses::RW, Kernel::Later),
];

/// Bytes that one read of L1's map takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkSize {
    /// 32 bits: 16 MSRs (before 6.17, and 32-bit kernels).
    Four = 4,
    /// 64 bits: 32 MSRs.
    Eight = 8,
}

impl ChunkSize {
    /// In bytes.
    pub const fn bytes(self) -> usize {
        self as usize
    }
}

/// Why the list cannot be made: a bug in KVM's own tables, which must stop the module from loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeListError {
    /// More chunks than the table has places.
    #[error("the chunk of MSR {msr:#x} does not fit into a table of {capacity}")]
    Full {
        /// The MSR whose chunk does not fit.
        msr: u32,
        /// Places.
        capacity: usize,
    },
    /// The map does not cover an MSR of the list.
    #[error("MSR {0:#x} has no bit in a permission map")]
    OutOfRange(u32),
}

impl MergeListError {
    /// What the module's initialisation returns.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Full { .. } => Errno::Enospc,
            Self::OutOfRange(_) => Errno::Eio,
        }
    }
}

/// The MSRs that `kernel` merges on AMD processors.
pub fn merge_msrs(kernel: Kernel, bugs: Regressions) -> impl Iterator<Item = u32> {
    let left_out = move |msr| bugs.has(Regression::NestedSvmLacksAperfMperf) && matches!(msr, 0xe7 | 0xe8);
    let x2apic = bugs.has(Regression::X2apicChunkMerged).then_some(msr::IA32_X2APIC_TPR);
    let sentinel = bugs.has(Regression::SentinelIsAnMsr).then_some(u32::MAX);
    bugs.tables()
        .svm_merged
        .iter()
        .filter(move |row| row.since <= kernel)
        .map(|row| row.msr)
        .filter(move |msr| !left_out(*msr))
        .chain(x2apic)
        .chain(sentinel)
}

/// The chunks to merge, each once, in the order of the MSRs that brought them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkList {
    size: ChunkSize,
    /// Offsets in the map, in chunks: neighbours that follow each other in the list form one range.
    runs: Vec<Range<usize>>,
}

impl ChunkList {
    /// The list of `kernel`, in a table of `capacity` places.
    ///
    /// # Errors
    /// See [`MergeListError`]; no VM can be created then.
    pub fn new(
        kernel: Kernel,
        size: ChunkSize,
        capacity: usize,
        bugs: Regressions,
    ) -> Result<Self, MergeListError> {
        let mut list = Self { size, runs: Vec::with_capacity(capacity.min(16)) };
        for msr in merge_msrs(kernel, bugs) {
            let position = Msrpm::locate(msr, Access::Read, bugs).ok_or(MergeListError::OutOfRange(msr))?;
            let width = if bugs.has(Regression::ChunkUnitsMixed) { 12 - size.bytes() } else { size.bytes() };
            let index = position.byte / width;
            if list.indices().any(|known| known == index) {
                continue;
            }
            if list.indices().count() == capacity {
                if bugs.has(Regression::MergeTableOverflowIgnored) {
                    break;
                }
                return Err(MergeListError::Full { msr, capacity });
            }
            list.push(index);
        }
        Ok(list)
    }

    /// Every chunk of both pages, in ascending order: what a kernel without a list would have to merge.
    pub fn whole(size: ChunkSize) -> Self {
        let all = 0..Msrpm::SIZE / size.bytes();
        Self { size, runs: Vec::from([all]) }
    }

    fn push(&mut self, index: usize) {
        match self.runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => self.runs.push(index..index + 1),
        }
    }

    /// Width of a chunk.
    pub const fn size(&self) -> ChunkSize {
        self.size
    }

    /// Offset of each chunk in the map, in chunks.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.runs.iter().cloned().flatten()
    }

    /// Offsets of runs of chunks in the map, in bytes, in the order of the list.
    pub fn byte_runs(&self) -> impl Iterator<Item = Range<usize>> {
        let size = self.size.bytes();
        self.runs.iter().map(move |run| run.start * size..run.end * size)
    }

    /// Places that upstream's table has for 8-byte chunks in `kernel`: exactly as many as needed.
    pub const fn upstream_capacity(kernel: Kernel) -> usize {
        match kernel {
            Kernel::V6_12 => 6,
            Kernel::V6_17 | Kernel::V6_18 => 7,
            Kernel::Later => 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(kernel: Kernel, size: ChunkSize) -> Vec<usize> {
        ChunkList::new(kernel, size, 16, Regressions::NONE).unwrap().indices().collect()
    }

    #[test]
    fn the_chunks_are_those_of_the_catalogue() {
        assert_eq!(indices(Kernel::V6_12, ChunkSize::Four), [520, 23, 528, 4, 16, 29]);
        assert_eq!(indices(Kernel::V6_12, ChunkSize::Eight), [260, 11, 264, 2, 8, 14]);
        assert_eq!(indices(Kernel::V6_17, ChunkSize::Eight), [260, 11, 264, 2, 8, 7, 14]);
        assert_eq!(indices(Kernel::Later, ChunkSize::Eight), [260, 11, 264, 2, 8, 7, 14, 512, 528, 280]);
    }

    #[test]
    fn neighbours_become_one_run_only_if_they_follow_each_other() {
        let mut list = ChunkList { size: ChunkSize::Four, runs: Vec::new() };
        [8, 7, 9, 10, 11, 3].into_iter().for_each(|index| list.push(index));
        assert_eq!(list.byte_runs().collect::<Vec<_>>(), [32..36, 28..32, 36..48, 12..16]);
        assert_eq!(list.indices().collect::<Vec<_>>(), [8, 7, 9, 10, 11, 3]);
    }

    #[test]
    fn upstreams_table_holds_exactly_the_chunks_it_needs() {
        for kernel in Kernel::ALL {
            let capacity = ChunkList::upstream_capacity(kernel);
            assert_eq!(indices(kernel, ChunkSize::Eight).len(), capacity);
            let error =
                ChunkList::new(kernel, ChunkSize::Eight, capacity - 1, Regressions::NONE).unwrap_err();
            assert_eq!(error.errno(), Errno::Enospc);
        }
    }
}
