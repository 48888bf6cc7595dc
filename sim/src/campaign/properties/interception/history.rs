//! Recalculation: after any history, the map is the function of configuration and filter that the tables describe.

use std::sync::Arc;

use rootmode_arch::{Choices, Site, Vendor};
use rootmode_models::kvm::filter::{FilterSlot, SwapStep};
use rootmode_models::kvm::interception::{
    Access, Cause, Configuration, InterceptMap, Intercepts, ProtectedAccess, host_access, recalculate,
};
use rootmode_models::kvm::{Errno, Regressions};
use rootmode_svm::bitmap::Msrpm;
use rootmode_vmx::bitmap::MsrBitmap;

use super::draw::{self, FilterDraw, Machine};
use super::oracle::{self, Processor, SVM, VMX};
use crate::campaign::{Counterexample, Property, Verdict};

const TABLES: &str = "catalogue A2, A-16, A-17, A-19 to A-21; P-A2, P-A3, P-A4, P-A6";

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "svm-map-is-a-function",
        about: "For any configuration and filter, the map passes through what the SVM table says, and nothing else.",
        source: TABLES,
        cost: 1,
        check: |c, bugs| function::<Msrpm>(c, bugs, Vendor::Amd, SVM),
    },
    Property {
        name: "vmx-map-is-a-function",
        about: "For any configuration and filter, the map passes through what the VMX table says, and nothing else.",
        source: TABLES,
        cost: 1,
        check: |c, bugs| function::<MsrBitmap>(c, bugs, Vendor::Intel, VMX),
    },
    Property {
        name: "svm-map-forgets-history",
        about: "After any sequence of filter, CPUID, reset, LBR, APIC and SPEC_CTRL events, the map is what the end state demands.",
        source: TABLES,
        cost: 1,
        check: |c, bugs| history::<Msrpm>(c, bugs, Vendor::Amd, SVM),
    },
    Property {
        name: "vmx-map-forgets-history",
        about: "After any sequence of filter, CPUID, reset, XFD, APIC and SPEC_CTRL events, the map is what the end state demands.",
        source: TABLES,
        cost: 1,
        check: |c, bugs| history::<MsrBitmap>(c, bugs, Vendor::Intel, VMX),
    },
    Property {
        name: "recalculation-is-idempotent",
        about: "A second recalculation changes no bit.",
        source: "P-A1",
        cost: 1,
        check: |c, bugs| either(c, bugs, idempotent::<Msrpm>, idempotent::<MsrBitmap>),
    },
    Property {
        name: "set-intercept-touches-only-its-access",
        about: "set_intercept changes the named accesses only, also after the next recalculation.",
        source: "catalogue A-12",
        cost: 1,
        check: |c, bugs| either(c, bugs, set_intercept::<Msrpm>, set_intercept::<MsrBitmap>),
    },
    Property {
        name: "command-and-counter-bits-stay-closed",
        about: "Reads of command MSRs, writes of counters, and the LVT timer are never passed through.",
        source: "P-A6",
        cost: 1,
        check: |c, bugs| either(c, bugs, never_open::<Msrpm>, never_open::<MsrBitmap>),
    },
    Property {
        name: "changed-map-is-announced",
        about: "Whatever changes the map forces the next nested merge and clears the Hyper-V clean bit.",
        source: "catalogue A-12; P-A14",
        cost: 1,
        check: |c, bugs| either(c, bugs, announced::<Msrpm>, announced::<MsrBitmap>),
    },
    Property {
        name: "open-spec-ctrl-is-saved",
        about: "SPEC_CTRL is read back after an exit if, and only if, the guest can write it without one.",
        source: "P-A7",
        cost: 1,
        check: |c, bugs| either(c, bugs, saved::<Msrpm>, saved::<MsrBitmap>),
    },
    Property {
        name: "protected-msrs-are-refused-to-the-host",
        about: "Userspace is refused exactly those MSRs of an encrypted guest that the guest writes without an exit.",
        source: "catalogue A-22",
        cost: 1,
        check: protected,
    },
];

type Check = fn(&mut dyn Choices, Regressions, Vendor, Processor) -> Verdict;

/// The same claim on either vendor's map.
fn either(c: &mut dyn Choices, bugs: Regressions, svm: Check, vmx: Check) -> Verdict {
    if c.flip(Site::State) { vmx(c, bugs, Vendor::Intel, VMX) } else { svm(c, bugs, Vendor::Amd, SVM) }
}

/// A configuration with everything, APIC included, and a filter.
fn situation(c: &mut dyn Choices, bugs: Regressions, vendor: Vendor) -> (Machine, Configuration, FilterDraw) {
    let machine = Machine::draw(c, vendor);
    let config = machine.configuration(c, bugs);
    let filter = if c.flip(Site::State) { draw::filter(c) } else { FilterDraw::OFF };
    (machine, config, filter)
}

/// Compares a map with what configuration and filter demand.
fn compare(
    map: &[u8],
    processor: Processor,
    config: &Configuration,
    filter: &FilterDraw,
    events: &[String],
) -> Verdict {
    let expected = processor.expected_map(config, filter);
    if map == expected {
        return Verdict::Holds;
    }
    let example = match processor.first_difference(map, &expected) {
        None => Counterexample::new("a reserved bit of the map was cleared"),
        Some((msr, access)) => {
            let position = (processor.position)(msr, access);
            let found = if oracle::exits(map, position) { "intercepted" } else { "passed through" };
            let due = if oracle::exits(&expected, position) { "intercepted" } else { "passed through" };
            Counterexample::new(format!("{access} of {} is {found}, and should be {due}", oracle::name(msr)))
                .with("where", oracle::place(position))
                .with("filter allows it", oracle::allows(filter, msr, access))
        }
    };
    let features = |set: rootmode_arch::FeatureSet| format!("{:?}", set.iter().collect::<Vec<_>>());
    let example =
        events.iter().enumerate().fold(example, |e, (n, text)| e.with(format!("event {}", n + 1), text));
    example
        .with("host", features(config.host))
        .with("KVM", features(config.kvm))
        .with("guest", format!("{:?}, {}", config.guest_vendor, features(config.guest)))
        .with("rest", rest(config))
        .with("filter", format!("{filter:x?}"))
        .into()
}

fn rest(c: &Configuration) -> String {
    format!(
        "{:?}, disabled exits {:#x}, SPEC_CTRL {:#x}, {:?}, {:?}, {:?}, PT {:?}, XFD written {}, PMU {:?}",
        c.kernel,
        c.disabled_exits.bits(),
        c.spec_ctrl,
        c.confidential,
        c.last_branch,
        c.apic,
        c.processor_trace,
        c.xfd_written,
        c.pmu
    )
}

fn function<M: InterceptMap>(
    c: &mut dyn Choices,
    bugs: Regressions,
    vendor: Vendor,
    p: Processor,
) -> Verdict {
    let (_, mut config, filter) = situation(c, bugs, vendor);
    config.spec_ctrl = c.choose(Site::State, 2);
    config.xfd_written = vendor == Vendor::Intel && c.flip(Site::State);
    config.last_branch.vmcb02 =
        [None, Some(false), Some(true)][c.choose(Site::State, 3) as usize].filter(|_| vendor == Vendor::Amd);
    let map: M = recalculate(&config, &filter.build());
    compare(map.bytes(), p, &config, &filter, &[])
}

/// A vCPU, its configuration, and the VM's filter slot.
struct Vcpu<M> {
    intercepts: Intercepts<M>,
    config: Configuration,
    slot: FilterSlot,
    filter: FilterDraw,
}

impl<M: InterceptMap> Vcpu<M> {
    fn created(config: Configuration) -> Self {
        let mut intercepts = Intercepts::closed();
        let slot = FilterSlot::default();
        intercepts.recalculate(&config, &slot.current(), Cause::Created);
        intercepts.set_apic_mode(&config, &slot.current());
        Self { intercepts, config, slot, filter: FilterDraw::OFF }
    }

    fn enter(&mut self) {
        self.intercepts.before_entry(&self.config, &self.slot.current());
    }

    /// One event; the answer says what it was.
    fn event(&mut self, c: &mut dyn Choices, machine: &Machine) -> String {
        let filter = self.slot.current();
        match c.choose(Site::Sequence, 8) {
            0 => {
                self.filter = draw::filter(c);
                let built = Arc::new(self.filter.build());
                let entry_between = c.flip(Site::Sequence);
                for (n, step) in FilterSlot::steps(self.config.regressions).iter().enumerate() {
                    if n > 0 && entry_between {
                        self.enter();
                    }
                    match step {
                        SwapStep::Publish => self.slot.publish(Arc::clone(&built)),
                        SwapStep::Request => self.intercepts.recalculation_requested = true,
                    }
                }
                format!("new filter{}", if entry_between { ", with an entry half way" } else { "" })
            }
            1 => {
                machine.redraw_guest(c, &mut self.config);
                self.intercepts.recalculate(&self.config, &filter, Cause::CpuidSet);
                "CPUID set".into()
            }
            2 => {
                self.config.spec_ctrl = 0;
                self.config.xfd_written = false;
                self.config.last_branch.vmcb02 = None;
                self.config.last_branch.vmcb01 = false;
                machine.redraw_exits(c, &mut self.config);
                self.intercepts.recalculate(&self.config, &filter, Cause::Reset);
                "reset".into()
            }
            3 if machine.has_last_branch() => {
                let on = c.flip(Site::Sequence);
                let nested = c.flip(Site::Sequence);
                if nested {
                    self.config.last_branch.vmcb02 = Some(on);
                } else {
                    self.config.last_branch.vmcb02 = None;
                    self.config.last_branch.vmcb01 = on;
                }
                self.intercepts.last_branch_changed(&self.config, &filter);
                format!(
                    "LBR virtualization of {} {}",
                    if nested { "vmcb02" } else { "vmcb01" },
                    if on { "on" } else { "off" }
                )
            }
            4 => {
                machine.redraw_apic(c, &mut self.config);
                self.intercepts.set_apic_mode(&self.config, &filter);
                format!("APIC {:?}", self.config.apic)
            }
            5 => {
                self.config.spec_ctrl = 1;
                self.intercepts.spec_ctrl_written(&self.config, &filter);
                "SPEC_CTRL written".into()
            }
            6 => {
                self.config.xfd_written = true;
                self.intercepts.xfd_written(&self.config, &filter);
                "XFD written".into()
            }
            _ => {
                self.enter();
                "entry".into()
            }
        }
    }
}

fn history<M: InterceptMap>(c: &mut dyn Choices, bugs: Regressions, vendor: Vendor, p: Processor) -> Verdict {
    let machine = Machine::draw(c, vendor);
    let mut vcpu = Vcpu::<M>::created(machine.configuration(c, bugs));
    let count = c.choose(Site::Sequence, 6);
    let events: Vec<String> = (0..count).map(|_| vcpu.event(c, &machine)).collect();
    vcpu.enter();
    compare(vcpu.intercepts.map.bytes(), p, &vcpu.config, &vcpu.filter, &events)
}

fn idempotent<M: InterceptMap>(
    c: &mut dyn Choices,
    bugs: Regressions,
    vendor: Vendor,
    p: Processor,
) -> Verdict {
    let (_, config, filter) = situation(c, bugs, vendor);
    let built = filter.build();
    let mut vcpu = Intercepts::<M>::closed();
    vcpu.recalculate(&config, &built, Cause::Created);
    let once = vcpu.map.clone();
    vcpu.recalculate(&config, &built, Cause::FilterChanged);
    match p.first_difference(once.bytes(), vcpu.map.bytes()) {
        None => Verdict::Holds,
        Some((msr, access)) => {
            Counterexample::new(format!("the second recalculation changed {access} of {}", oracle::name(msr)))
                .into()
        }
    }
}

fn set_intercept<M: InterceptMap>(
    c: &mut dyn Choices,
    bugs: Regressions,
    vendor: Vendor,
    p: Processor,
) -> Verdict {
    let mut config = Configuration { regressions: bugs, ..Configuration::plain(vendor) };
    config.spec_ctrl = c.choose(Site::State, 2);
    let filter = draw::filter(c);
    let built = filter.build();
    let mut vcpu = Intercepts::<M>::closed();
    vcpu.recalculate(&config, &built, Cause::Created);
    let (msr, accesses, intercept) = (draw::any_msr(c), draw::accesses(c), c.flip(Site::State));
    let mut expected = vcpu.map.bytes().to_vec();
    for access in accesses.iter() {
        if let Some((byte, bit)) = (p.position)(msr, access) {
            let closed = intercept || !oracle::allows(&filter, msr, access);
            expected[byte] = expected[byte] & !(1 << bit) | u8::from(closed) << bit;
        }
    }
    vcpu.set_intercept(&config, &built, msr, accesses, intercept);
    let verb = if intercept { "intercepting" } else { "passing through" };
    if let Some((other, access)) = p.first_difference(vcpu.map.bytes(), &expected) {
        let exits = oracle::exits(vcpu.map.bytes(), (p.position)(other, access));
        let state = if exits { "intercepted" } else { "passed through" };
        return Counterexample::new(format!(
            "after {verb} {accesses:?} of {}, {access} of {} is {state}",
            oracle::name(msr),
            oracle::name(other)
        ))
        .into();
    }
    let untouched = expected;
    vcpu.recalculate(&config, &built, Cause::FilterChanged);
    for access in Access::ALL {
        let position = (p.position)(msr, access);
        let (before, after) =
            (oracle::exits(&untouched, position), oracle::exits(vcpu.map.bytes(), position));
        let table = oracle::exits(&p.expected_map(&config, &filter), position);
        if after != before && after != table {
            return Counterexample::new(format!(
                "after {verb} {accesses:?} of {}, a recalculation opened {access}",
                oracle::name(msr)
            ))
            .into();
        }
    }
    Verdict::Holds
}

fn never_open<M: InterceptMap>(
    c: &mut dyn Choices,
    bugs: Regressions,
    vendor: Vendor,
    p: Processor,
) -> Verdict {
    let (_, config, _) = situation(c, bugs, vendor);
    let map: M = recalculate(&config, &FilterDraw::OFF.build());
    let reads = [0x49, 0x10b].map(|msr| (msr, Access::Read));
    let writes = [0x10, 0xe7, 0xe8, 0x660, 0x3fc, 0x3fd, 0x3fe, 0x1c5, 0x832].map(|msr| (msr, Access::Write));
    for (msr, access) in reads.into_iter().chain(writes) {
        let position = (p.position)(msr, access);
        if !oracle::exits(map.bytes(), position) {
            return Counterexample::new(format!("{access} of {} is passed through", oracle::name(msr)))
                .with("where", oracle::place(position))
                .with("configuration", rest(&config))
                .into();
        }
    }
    Verdict::Holds
}

fn announced<M: InterceptMap>(
    c: &mut dyn Choices,
    bugs: Regressions,
    vendor: Vendor,
    _: Processor,
) -> Verdict {
    let machine = Machine::draw(c, vendor);
    let mut vcpu = Vcpu::<M>::created(machine.configuration(c, bugs));
    // As after an entry to L2, with everything merged and announced.
    vcpu.intercepts.force_merge = false;
    vcpu.intercepts.hyperv_clean = true;
    let before = vcpu.intercepts.map.clone();
    let event = vcpu.event(c, &machine);
    vcpu.enter();
    let quiet = !vcpu.intercepts.force_merge || vcpu.intercepts.hyperv_clean;
    if vcpu.intercepts.map != before && quiet {
        return Counterexample::new(format!("the map changed ({event}), and nobody is told"))
            .with("merge forced", vcpu.intercepts.force_merge)
            .with("Hyper-V clean bit", vcpu.intercepts.hyperv_clean)
            .into();
    }
    Verdict::Holds
}

fn saved<M: InterceptMap>(c: &mut dyn Choices, bugs: Regressions, vendor: Vendor, p: Processor) -> Verdict {
    let (_, mut config, filter) = situation(c, bugs, vendor);
    config.spec_ctrl = c.choose(Site::State, 2);
    let mut vcpu = Intercepts::<M>::closed();
    vcpu.recalculate(&config, &filter.build(), Cause::Created);
    let open = !oracle::exits(vcpu.map.bytes(), (p.position)(0x48, Access::Write));
    if vcpu.must_save_spec_ctrl(&config) != open {
        return Counterexample::new(format!(
            "the guest writes SPEC_CTRL without an exit: {open}; saved: {}",
            !open
        ))
        .into();
    }
    Verdict::Holds
}

fn protected(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let (_, config, filter) = situation(c, bugs, Vendor::Amd);
    let (encrypted, strict) = (!c.flip(Site::State), c.flip(Site::State));
    let msr = draw::any_msr(c);
    let map: Msrpm = recalculate(&config, &filter.build());
    let open = !oracle::exits(map.as_bytes(), oracle::svm_position(msr, Access::Write));
    let sev_es = config.confidential != rootmode_models::kvm::interception::Confidential::No;
    let expected = match (sev_es && encrypted && open, strict) {
        (false, _) => ProtectedAccess::Handled,
        (true, true) => ProtectedAccess::Refused(Err(Errno::Einval)),
        (true, false) => ProtectedAccess::Refused(Ok(())),
    };
    let found = host_access(&config, &map, msr, encrypted, strict);
    if found != expected {
        return Counterexample::new(format!("userspace's access to {}: {found:?}", oracle::name(msr)))
            .with("expected", format!("{expected:?}"))
            .with("guest", format!("{:?}", config.confidential))
            .into();
    }
    Verdict::Holds
}
