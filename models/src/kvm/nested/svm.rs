//! Nested SVM: vmcb02's permission map, and who handles VMEXIT_MSR.

use core::ops::Range;

use rootmode_svm::bitmap::Msrpm;

use super::{ChunkList, GuestMemory, Handler, Unreadable};
use crate::kvm::interception::{Access, InterceptMap, Intercepts, Position, or_into};
use crate::kvm::{Regression, Regressions};

/// What L1's VMCB says about MSR intercepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vmcb12 {
    /// Guest-physical address of the VMCB.
    pub address: u64,
    /// The MSR_PROT intercept.
    pub msr_prot: bool,
    /// MSRPM_BASE_PA with bits 11:0 cleared.
    pub msrpm_base: u64,
    /// The vCPU may use Hyper-V hypercalls.
    pub hypercalls: bool,
    /// The enlightenment `msr_bitmap` is on.
    pub enlightened: bool,
    /// Clean bit 31: L1 promises that nothing changed.
    pub clean: bool,
}

/// Which map L2 runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActiveMap {
    /// vmcb01's: L1 intercepts no MSR.
    Msrpm01,
    /// The merged one.
    Msrpm02,
}

/// L1's map could not be read. VMRUN then ends in VMEXIT_INVALID; on the way back from a snapshot, KVM_RUN ends in an
/// internal error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("merging the MSR permission maps: {0}")]
pub struct MergeFailed(#[from] pub Unreadable);

/// A vCPU's map for nested guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedMsrpm {
    /// msrpm02.
    pub map: Msrpm,
    /// What the current or last L2 ran under.
    pub active: ActiveMap,
    last_vmcb12: Option<u64>,
}

impl NestedMsrpm {
    /// The state when EFER.SVME is set: everything is intercepted.
    pub fn new(bugs: Regressions) -> Self {
        let mut map = Msrpm::closed();
        if bugs.has(Regression::NestedMapStartsOpen) {
            for access in Access::ALL {
                map.put(rootmode_arch::msr::IA32_STAR, access, false, bugs);
                map.put(rootmode_arch::msr::SEV_ES_GHCB, access, false, bugs);
            }
        }
        Self { map, active: ActiveMap::Msrpm01, last_vmcb12: None }
    }

    /// VMRUN by L1, after its checks: merges the maps and chooses the one that L2 runs under.
    ///
    /// # Errors
    /// [`MergeFailed`]: the next VMRUN merges again, whatever L1 promises.
    pub fn vmrun(
        &mut self,
        vcpu: &mut Intercepts<Msrpm>,
        vmcb12: &Vmcb12,
        chunks: &ChunkList,
        memory: &mut dyn GuestMemory,
        bugs: Regressions,
    ) -> Result<ActiveMap, MergeFailed> {
        if self.last_vmcb12 != Some(vmcb12.address) && !bugs.has(Regression::NewVmcb12NotForced) {
            vcpu.force_merge = true;
        }
        self.last_vmcb12 = Some(vmcb12.address);
        if bugs.has(Regression::MapFlaggedWithoutChange) {
            vcpu.force_merge = true;
        }
        self.merge(vcpu, vmcb12, chunks, memory, bugs)
    }

    /// Merges the maps, also when nested state is restored.
    ///
    /// # Errors
    /// [`MergeFailed`]; chunks before the unreadable one are already merged.
    pub fn merge(
        &mut self,
        vcpu: &mut Intercepts<Msrpm>,
        vmcb12: &Vmcb12,
        chunks: &ChunkList,
        memory: &mut dyn GuestMemory,
        bugs: Regressions,
    ) -> Result<ActiveMap, MergeFailed> {
        let skips = !vcpu.force_merge && vmcb12.promises_no_change(bugs);
        let skips_first = skips && bugs.has(Regression::SkipBeforeMsrProt);
        if !vmcb12.msr_prot && !skips_first {
            // Intercepts of L0 and L1 are ORed, so that L0's map still counts.
            let stale = bugs.has(Regression::NestedMapKeptWithoutMsrProt);
            self.active = if stale { self.active } else { ActiveMap::Msrpm01 };
            return Ok(self.active);
        }
        if skips {
            self.active = ActiveMap::Msrpm02;
            return Ok(self.active);
        }
        // Until the merge has succeeded, no promise of L1 may skip the next one.
        if bugs.has(Regression::RecalcFlagClearedFirst) {
            vcpu.force_merge = false;
        } else if !bugs.has(Regression::FailedMergeNotForced) {
            vcpu.force_merge = true;
        }
        let size = chunks.size().bytes();
        for run in chunks.byte_runs() {
            if run.len() > size && self.merge_run(&run, vcpu, vmcb12, memory, bugs) {
                continue;
            }
            // One by one, as KVM does: an unreadable chunk leaves those before it merged.
            for offset in run.step_by(size) {
                self.merge_chunk(offset..offset + size, vcpu, vmcb12, memory, bugs)?;
            }
        }
        vcpu.force_merge = false;
        self.active = ActiveMap::Msrpm02;
        Ok(self.active)
    }

    /// Merges the chunk of at most 8 bytes at `place`.
    fn merge_chunk(
        &mut self,
        place: Range<usize>,
        vcpu: &Intercepts<Msrpm>,
        vmcb12: &Vmcb12,
        memory: &mut dyn GuestMemory,
        bugs: Regressions,
    ) -> Result<(), Unreadable> {
        let mut l1 = [0; 8];
        let l1 = &mut l1[..place.len()];
        match memory.read(vmcb12.msrpm_base + place.start as u64, l1) {
            Err(_) if bugs.has(Regression::MergeReadFailureIgnored) => return Ok(()),
            result => result?,
        }
        if let Some(l0) = vcpu.map.as_bytes().get(place.clone()) {
            combine(&mut self.map.as_bytes_mut()[place], l0, l1, bugs);
        }
        Ok(())
    }

    /// Merges the chunks of `run` with one read; false, and nothing has changed, if they cannot be read together.
    fn merge_run(
        &mut self,
        run: &Range<usize>,
        vcpu: &Intercepts<Msrpm>,
        vmcb12: &Vmcb12,
        memory: &mut dyn GuestMemory,
        bugs: Regressions,
    ) -> bool {
        let mut l1 = [0; Msrpm::SIZE];
        let (Some(l0), Some(l1)) = (vcpu.map.as_bytes().get(run.clone()), l1.get_mut(run.clone())) else {
            return false;
        };
        let readable = memory.read(vmcb12.msrpm_base + run.start as u64, l1).is_ok();
        if readable {
            combine(&mut self.map.as_bytes_mut()[run.clone()], l0, l1, bugs);
        }
        readable
    }

    /// vmcb01's map was recalculated while L2 runs: what it now intercepts, L2 must not reach any more.
    pub fn tighten(&mut self, vcpu: &Intercepts<Msrpm>, bugs: Regressions) {
        if !bugs.has(Regression::NestedMapNotRefiltered) {
            or_into(self.map.as_bytes_mut(), vcpu.map.as_bytes());
        }
    }

    /// The map that the processor uses while L2 runs.
    pub fn active_map<'a>(&'a self, vcpu: &'a Intercepts<Msrpm>) -> &'a Msrpm {
        match self.active {
            ActiveMap::Msrpm01 => &vcpu.map,
            ActiveMap::Msrpm02 => &self.map,
        }
    }

    /// Whether L2's writes of SPEC_CTRL reach the processor, so that the value must be read back after an exit.
    pub fn must_save_spec_ctrl(&self, vcpu: &Intercepts<Msrpm>, bugs: Regressions) -> bool {
        let map =
            if bugs.has(Regression::QueryConsultsUnusedMap) { &self.map } else { self.active_map(vcpu) };
        !bugs.has(Regression::SpecCtrlNotSaved)
            && !map.intercepts(rootmode_arch::msr::IA32_SPEC_CTRL, Access::Write, bugs)
    }
}

/// Chunks of L2's map from those of L0 and L1, all of one length.
fn combine(l2: &mut [u8], l0: &[u8], l1: &[u8], bugs: Regressions) {
    // One loop for each operation, so that none of them asks about bugs at every byte.
    fn each(l2: &mut [u8], l0: &[u8], l1: &[u8], operation: impl Fn(u8, u8) -> u8) {
        l2.iter_mut().zip(l0.iter().zip(l1)).for_each(|(l2, (l0, l1))| *l2 = operation(*l0, *l1));
    }
    if bugs.has(Regression::MergeAnds) {
        each(l2, l0, l1, |l0, l1| l0 & l1);
    } else if bugs.has(Regression::MergeTakesL1Only) {
        l2.copy_from_slice(l1);
    } else if bugs.has(Regression::MergeTakesL0Only) {
        l2.copy_from_slice(l0);
    } else {
        each(l2, l0, l1, |l0, l1| l0 | l1);
    }
}

impl Vmcb12 {
    /// Whether L1 has, and uses, the right to promise that its map is unchanged.
    fn promises_no_change(&self, bugs: Regressions) -> bool {
        let enlightened = self.enlightened || bugs.has(Regression::SkipOnCleanBitAlone);
        let clean = self.clean || bugs.has(Regression::SkipOnEnlightenmentAlone);
        self.hypercalls && enlightened && clean
    }

    /// Whether vmcb02 has the MSR_PROT intercept: always, because L0 has it.
    pub const fn vmcb02_msr_prot(&self, bugs: Regressions) -> bool {
        let l0 = !bugs.has(Regression::MsrProtDropped);
        l0 || self.msr_prot
    }
}

/// Where KVM looks in L1's map for an access of L2; `None`: the map does not cover the MSR.
pub fn msr_exit_place(msr: u32, access: Access, bugs: Regressions) -> Option<Position> {
    let mut place = match Msrpm::locate(msr, access, bugs) {
        Some(place) => place,
        // -22 taken as the number of a bit.
        None if bugs.has(Regression::NegativeBitNumberUsed) => {
            Position { byte: 0xffff_ffea / 8, mask: 1 << 2 }
        }
        None => return None,
    };
    if bugs.has(Regression::ExitMaskAssumesFirstMsr) {
        place.mask = 1 << access as u8;
    }
    Some(place)
}

/// Who handles VMEXIT_MSR from L2. Reads one byte of L1's map at most.
pub fn msr_exit_handler(
    vmcb12: &Vmcb12,
    msr: u32,
    access: Access,
    memory: &mut dyn GuestMemory,
    bugs: Regressions,
) -> Handler {
    if !vmcb12.msr_prot {
        return Handler::L0;
    }
    let Some(place) = msr_exit_place(msr, access, bugs) else { return Handler::L1 };
    let mut byte = [0];
    match memory.read(vmcb12.msrpm_base + place.byte as u64, &mut byte) {
        Ok(()) if byte[0] & place.mask == 0 => Handler::L0,
        _ => Handler::L1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::nested::ChunkSize;

    /// One map at address 0x4000 with a byte that cannot be read; counts the reads.
    struct Holed {
        map: Msrpm,
        hole: usize,
        reads: usize,
    }

    impl GuestMemory for Holed {
        fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), Unreadable> {
            self.reads += 1;
            let start = address as usize - 0x4000;
            let place = start..start + buffer.len();
            if place.contains(&self.hole) {
                return Err(Unreadable { address });
            }
            buffer.copy_from_slice(&self.map.as_bytes()[place]);
            Ok(())
        }
    }

    /// Maps of L0 and L1 in which every byte differs from its neighbours, merged chunk by chunk as the OR of the two.
    fn merged(
        size: ChunkSize,
        hole: usize,
    ) -> (NestedMsrpm, Holed, Result<ActiveMap, MergeFailed>, [u8; 8192]) {
        let none = Regressions::NONE;
        let l0 = std::array::from_fn(|n| (n * 7) as u8);
        let l1: [u8; 8192] = std::array::from_fn(|n| (n * 13 >> 4) as u8);
        let vmcb12 = Vmcb12 {
            address: 0x1000,
            msr_prot: true,
            msrpm_base: 0x4000,
            hypercalls: false,
            enlightened: false,
            clean: false,
        };
        let mut vcpu = Intercepts::<Msrpm>::closed();
        vcpu.map = Msrpm::from_bytes(l0);
        let mut memory = Holed { map: Msrpm::from_bytes(l1), hole, reads: 0 };
        let mut nested = NestedMsrpm::new(none);
        let found = nested.vmrun(&mut vcpu, &vmcb12, &ChunkList::whole(size), &mut memory, none);
        let end = hole / size.bytes() * size.bytes();
        let expected = std::array::from_fn(|n| if n < end { l0[n] | l1[n] } else { 0xff });
        (nested, memory, found, expected)
    }

    #[test]
    fn all_chunks_together_take_one_read_and_give_the_or_of_both_maps() {
        for size in [ChunkSize::Four, ChunkSize::Eight] {
            let (nested, memory, found, expected) = merged(size, Msrpm::SIZE);
            assert_eq!((found, memory.reads), (Ok(ActiveMap::Msrpm02), 1));
            assert_eq!(nested.map.as_bytes(), &expected);
        }
    }

    #[test]
    fn an_unreadable_chunk_fails_at_its_address_and_leaves_those_before_it_merged() {
        for (size, hole, address) in
            [(ChunkSize::Four, 0, 0x4000), (ChunkSize::Four, 5006, 0x538c), (ChunkSize::Eight, 5006, 0x5388)]
        {
            let (nested, _, found, expected) = merged(size, hole);
            assert_eq!(found, Err(MergeFailed(Unreadable { address })));
            assert_eq!(nested.map.as_bytes(), &expected);
        }
    }
}
