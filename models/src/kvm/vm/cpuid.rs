//! CPUID as the interface passes it, and what this model of KVM supports of a processor.

use std::collections::BTreeMap;

use rootmode_arch::{Feature, Vendor};
use rootmode_cpu::Model;

use super::pv;
use crate::kvm::abi::CpuidEntry2;

/// `KVM_MAX_CPUID_ENTRIES`.
pub const MOST_ENTRIES: usize = 256;
/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`.
const SIGNIFICANT_INDEX: u32 = 1;
/// `KVM_CPUID_SIGNATURE` and `KVM_CPUID_FEATURES`.
const SIGNATURE: u32 = 0x4000_0000;
const FEATURES: u32 = 0x4000_0001;

/// What the processors of hosts lack: what this model of KVM neither uses nor virtualizes.
const NOT_HOSTED: &[Feature] = &[
    Feature::Monitor,
    Feature::Waitpkg,
    Feature::BusLockDetect,
    Feature::Pks,
    Feature::Lam,
    Feature::Shstk,
    Feature::Ibt,
    Feature::Gmet,
    Feature::Avic,
    Feature::X2Avic,
    Feature::VirtualSpecCtrl,
    Feature::BusLockThreshold,
    Feature::IdleHltIntercept,
    Feature::Pdcm,
    Feature::PerfCtrExtCore,
    Feature::PerfMonV2,
    Feature::Aperfmperf,
    Feature::Rdpru,
    Feature::SpecCtrl,
    Feature::Stibp,
    Feature::Ssbd,
    Feature::FlushL1d,
    Feature::AmdIbrs,
    Feature::AmdStibp,
    Feature::AmdSsbd,
];

/// What `KVM_GET_SUPPORTED_CPUID` does not list: what a client may give that has the local APIC in the kernel
/// (`KVM_CAP_TSC_DEADLINE_TIMER`), and parts of SVM that this model of KVM does not show to guests.
const NOT_GIVEN: &[Feature] = &[
    Feature::TscDeadline,
    Feature::LbrVirtualization,
    Feature::SvmLock,
    Feature::TscRateMsr,
    Feature::VirtualVmloadVmsave,
    Feature::VirtualGif,
    Feature::VirtualNmi,
    Feature::ReadOnlyGuestPageTables,
    Feature::TlbiControl,
];

fn without(model: &Model, features: &[Feature]) -> Model {
    let features = model.features().without_all(features);
    Model::part(model.vendor(), model.signature(), model.physical_width(), features)
}

/// The physical processors of a host.
pub fn host_model(vendor: Vendor) -> Model {
    host_of(&Model::max(vendor))
}

/// The same of one that has what `model` has.
pub fn host_of(model: &Model) -> Model {
    without(model, NOT_HOSTED)
}

/// The processor that guests can have on `host`.
pub fn guest_model(host: &Model) -> Model {
    without(host, NOT_GIVEN)
}

/// Whether the answer of `leaf` depends on ECX.
const fn has_subleaves(leaf: u32) -> bool {
    matches!(leaf, 4 | 7 | 0xb | 0xd | 0xf | 0x10 | 0x12 | 0x14 | 0x17 | 0x18 | 0x1d | 0x1f | 0x8000_001d)
}

/// `KVM_GET_SUPPORTED_CPUID`, ascending, with KVM's own leaves last.
pub fn supported(model: &Model) -> Vec<CpuidEntry2> {
    let entry = |function, index, [eax, ebx, ecx, edx]: [u32; 4]| CpuidEntry2 {
        function,
        index,
        flags: if has_subleaves(function) { SIGNIFICANT_INDEX } else { 0 },
        eax,
        ebx,
        ecx,
        edx,
        padding: [0; 3],
    };
    let mut entries: Vec<_> = model
        .leaves()
        .iter()
        .map(|((leaf, subleaf), registers)| entry(*leaf, *subleaf, *registers))
        .collect();
    // "KVMKVMKVM".
    entries.push(entry(SIGNATURE, 0, [FEATURES, 0x4b4d_564b, 0x564b_4d56, 0x4d]));
    entries.push(entry(FEATURES, 0, [pv::FEATURES, 0, 0, 0]));
    entries
}

/// The processor that `entries` describe. The first entry of a leaf and subleaf counts, as KVM looks them up.
pub(super) fn model_of(vendor: Vendor, entries: &[CpuidEntry2]) -> Model {
    let mut leaves = BTreeMap::new();
    for entry in entries {
        let index = if entry.flags & SIGNIFICANT_INDEX != 0 { entry.index } else { 0 };
        leaves.entry((entry.function, index)).or_insert([entry.eax, entry.ebx, entry.ecx, entry.edx]);
    }
    Model::from_leaves(vendor, leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supported_leaves_make_the_supported_processor() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            let model = guest_model(&host_model(vendor));
            let entries = supported(&model);
            assert!(entries.len() <= MOST_ENTRIES);
            assert!(entries.is_sorted_by_key(|e| (e.function >> 30 == 1, e.function, e.index)));
            let again = model_of(vendor, &entries);
            assert_eq!(again.features(), model.features());
            let [own, other] = match vendor {
                Vendor::Intel => [Feature::Vmx, Feature::Svm],
                Vendor::Amd => [Feature::Svm, Feature::Vmx],
            };
            assert!(again.has(own) && !again.has(other), "a guest can be a hypervisor");
            assert!(NOT_GIVEN.iter().all(|feature| !again.has(*feature)), "what is absent is not advertised");
        }
    }
}
