//! Strategies of control structures, feature sets and event sequences.

use rootmode_arch::{Event, EventClass, FeatureSet, Site};

use super::{Chosen, chosen, event};

/// A VMCS with capabilities, processor and memory: valid, or one step over one rule's boundary.
pub fn vmcs() -> Chosen<rootmode_vmx::boundary::Drawn> {
    chosen(|mut c| rootmode_vmx::boundary::draw(&mut c))
}

/// A VMCB with processor, host and memory: valid, or a step or two over a boundary.
pub fn vmcb() -> Chosen<rootmode_svm::boundary::Case> {
    chosen(rootmode_svm::boundary::nearly_valid)
}

/// The CPUID features of a guest: those of a model, with a few missing or added.
pub fn cpuid() -> Chosen<FeatureSet> {
    chosen(|c| {
        let models = [
            rootmode_vmx::definitions::models::MAX.features,
            rootmode_vmx::definitions::models::SAPPHIRE_RAPIDS.features,
            *rootmode_svm::capabilities::MAX_AMD.features(),
            *rootmode_svm::capabilities::GENOA.features(),
        ];
        let mut features = models[c.choose(Site::State, 4) as usize];
        for _ in 0..c.choose(Site::State, 6) {
            let table = rootmode_arch::cpuid::TABLE;
            let feature = table[c.choose(Site::State, table.len() as u64) as usize].feature;
            features = if features.has(feature) { features.without(feature) } else { features.with(feature) };
        }
        features
    })
}

/// Up to 16 events of any class.
pub fn events() -> Chosen<Vec<Event>> {
    chosen(|c| {
        let count = c.choose(Site::Sequence, 17);
        (0..count)
            .map(|_| {
                let class = EventClass::ALL[c.choose(Site::Sequence, EventClass::ALL.len() as u64) as usize];
                event::of_class(c, class)
            })
            .collect()
    })
}
