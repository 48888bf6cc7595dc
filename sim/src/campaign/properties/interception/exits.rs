//! Disabled exits, and what a guest sees of APERF and MPERF.

use rootmode_arch::{Choices, Feature, FeatureSet, Site, Vendor};
use rootmode_models::kvm::interception::{Access, Configuration, InterceptMap, recalculate};
use rootmode_models::kvm::{DisabledExits, Errno, ExitHost, Regressions};
use rootmode_svm::bitmap::Msrpm;
use rootmode_vmx::bitmap::MsrBitmap;

use super::draw::{self, FilterDraw};
use super::oracle::{self, Processor, SVM, VMX};
use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "disabled-exits-accumulate",
        about: "KVM_CAP_X86_DISABLE_EXITS takes allowed bits before the first vCPU, adds them up, and refuses the rest whole.",
        source: "catalogue B-1",
        cost: 1,
        check: accumulate,
    },
    Property {
        name: "aperf-mperf-reads-only",
        about: "With the capability, RDMSR of APERF and MPERF gives the host's value without an exit unless filtered; WRMSR never reaches the host; without it, both fault.",
        source: "catalogue B-2; P-B1 to P-B4",
        cost: 1,
        check: counters,
    },
];

fn host(c: &mut dyn Choices) -> ExitHost {
    let mut features = FeatureSet::none();
    for feature in [Feature::Aperfmperf, Feature::Monitor, Feature::Arat] {
        if c.flip(Site::State) {
            features = features.with(feature);
        }
    }
    ExitHost {
        features,
        monitor_bug: c.choose(Site::State, 4) == 3,
        mitigate_smt_rsb: c.choose(Site::State, 4) == 3,
        no_pause_exits: c.choose(Site::State, 4) == 3,
    }
}

/// The catalogue's sentence about KVM_CHECK_EXTENSION, bit by bit.
fn allowed(host: &ExitHost) -> u64 {
    let mut mask = 4;
    if host.features.has(Feature::Aperfmperf) {
        mask += 16;
    }
    if !host.mitigate_smt_rsb {
        mask += 2 + 8;
        if host.features.has(Feature::Monitor) && host.features.has(Feature::Arat) && !host.monitor_bug {
            mask += 1;
        }
    }
    mask
}

fn accumulate(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let host = host(c);
    let may = allowed(&host);
    let describe =
        |text: String| -> Verdict { Counterexample::new(text).with("host", format!("{host:?}")).into() };
    if host.allowed(bugs).bits() != may {
        return describe(format!(
            "KVM_CHECK_EXTENSION gives {:#x}, expected {may:#x}",
            host.allowed(bugs).bits()
        ));
    }
    let mut mask = host.initial();
    let mut expected = if host.no_pause_exits { 4 } else { 0 };
    let mut vcpus = 0;
    for _ in 0..c.choose(Site::Sequence, 5) {
        if c.choose(Site::Sequence, 4) == 3 {
            vcpus += 1;
            continue;
        }
        let argument = c.choose(Site::State, 64) & if c.flip(Site::State) { may } else { u64::MAX };
        let due = if argument & !may != 0 || vcpus > 0 { Err(Errno::Einval) } else { Ok(()) };
        if due.is_ok() {
            expected |= argument;
        }
        let found = host.enable(mask, argument, vcpus, bugs);
        mask = found.unwrap_or(mask);
        if found.map(|_| ()) != due || mask.bits() != expected {
            return describe(format!(
                "KVM_ENABLE_CAP with {argument:#x} and {vcpus} vCPUs: {found:x?}; expected {due:?} and mask {expected:#x}"
            ));
        }
    }
    for bit in 0..5 {
        let one = DisabledExits::from_bits(1 << bit);
        if mask.has(one, bugs) != (expected >> bit & 1 == 1) {
            return describe(format!("mask {expected:#x}: bit {bit} is reported as {}", mask.has(one, bugs)));
        }
    }
    Verdict::Holds
}

fn counters(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    if c.flip(Site::State) {
        guest::<MsrBitmap>(c, bugs, Vendor::Intel, VMX)
    } else {
        guest::<Msrpm>(c, bugs, Vendor::Amd, SVM)
    }
}

fn guest<M: InterceptMap>(c: &mut dyn Choices, bugs: Regressions, vendor: Vendor, p: Processor) -> Verdict {
    let host = host(c);
    let argument = if c.flip(Site::State) { 16 } else { 0 };
    let mask = host.enable(host.initial(), argument, 0, bugs).unwrap_or(host.initial());
    let filter = if c.flip(Site::State) { draw::filter(c) } else { FilterDraw::OFF };
    let config = Configuration {
        regressions: bugs,
        host: host.features,
        disabled_exits: mask,
        ..Configuration::plain(vendor)
    };
    let map: M = recalculate(&config, &filter.build());
    let msr = if c.flip(Site::State) { 0xe8 } else { 0xe7 };
    let access = draw::access(c);
    let native = !oracle::exits(map.bytes(), (p.position)(msr, access));
    let capability = argument == 16 && host.features.has(Feature::Aperfmperf);
    let expected = capability && access == Access::Read && oracle::allows(&filter, msr, access);
    if native != expected {
        return Counterexample::new(format!(
            "{access} of {} reaches the host's counter: {native}; expected {expected}",
            oracle::name(msr)
        ))
        .with("host has APERF and MPERF", host.features.has(Feature::Aperfmperf))
        .with("userspace disabled their exits", argument == 16)
        .with("filter", format!("{filter:x?}"))
        .into();
    }
    Verdict::Holds
}
