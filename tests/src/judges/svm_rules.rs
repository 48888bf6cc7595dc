//! Our verdict on an SVM case: the rules of `rootmode-svm` for the processor that the machine describes.

use std::sync::LazyLock;

use rootmode_arch::{Cr0, Cr4, Efer, HostPhysical};
use rootmode_svm::Vmcb;
use rootmode_svm::capabilities::Processor;
use rootmode_svm::rules::{EntryContext, Host, Judgement, PhysicalMemory, judge_all};

use super::arena::arena;
use super::layout::{ARENA, GUEST_PAE_TABLE};
use super::svm_cases::Run;
use super::transcript;
use super::verdict::{Stage, Violation};

static ARENA_BYTES: LazyLock<Vec<u8>> = LazyLock::new(arena);

/// The processor of a machine, as our rules want it.
#[must_use]
pub fn processor(described: &transcript::Processor) -> Processor {
    let [eax, ebx, ..] = described.cpuid(0x8000_000A, 0);
    let mut processor = Processor::new("judge", described.features(), described.physical_address_bits());
    processor.revision = eax as u8;
    processor.asids = ebx;
    processor
}

/// The ROM's own state at VMRUN.
pub(crate) const HOST: Host =
    Host { cr0: Some(Cr0(0x8000_0031)), cr4: Some(Cr4(0x20)), efer: Some(Efer(0x1500)), ..Host::LONG_MODE };

/// The VMCB of `run`, as our rules want it.
pub(crate) fn vmcb(run: &Run) -> Vmcb {
    let mut bytes = [0; 4096];
    bytes.copy_from_slice(run.vmcb.bytes());
    Vmcb::from_bytes(bytes)
}

/// The rules that `run` breaks, in the order of the table.
///
/// `None` when a rule depends on memory whose content nobody decided.
#[must_use]
pub fn violations(processor: &Processor, run: &Run) -> Option<Vec<Violation>> {
    let vmcb = vmcb(run);
    let memory = Memory { pdptes: run.pdptes };
    let context = EntryContext::new(processor, &vmcb).with_host(HOST).with_memory(&memory);
    judge_all(&context)
        .filter_map(|(rule, judgement)| match judgement {
            Judgement::Satisfied => None,
            Judgement::Violated => Some(Some(Violation { rule: rule.id.to_owned(), stage: Stage::Invalid })),
            Judgement::Unknown(_) => Some(None),
        })
        .collect()
}

/// The arena, with the case's PDPTEs in it; the rest is not known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// The case's PDPTEs.
    pub(crate) pdptes: [u64; 4],
}

impl PhysicalMemory for Memory {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        let of_pdptes = address.0.wrapping_sub(GUEST_PAE_TABLE);
        if of_pdptes < 32 {
            return Some(self.pdptes[of_pdptes as usize / 8]);
        }
        let at = usize::try_from(address.0.checked_sub(ARENA)?).ok()?;
        let bytes = ARENA_BYTES.get(at..at.checked_add(8)?)?;
        Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }
}
