//! Secondary execution controls: a function of CPUID, whatever came before.

use rootmode_arch::{Choices, Feature, FeatureSet, Site};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::controls::SecondaryWord;

use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "controls-follow-cpuid",
        about: "After any sequence of KVM_SET_CPUID2, L1 can execute exactly what its CPUID shows, and its hypervisor can set exactly the controls of those instructions.",
        source: "catalogue 3.2; P-3.1 to P-3.4",
        cost: 1,
        check: follow,
    },
    Property {
        name: "vmcs02-controls",
        about: "L2 has an instruction only if L1's hypervisor enables it, and neither PML nor shadow VMCSs of L1's.",
        source: "catalogue 3.2, merge of vmcs02",
        cost: 1,
        check: merge,
    },
];

/// Bit, what happens with the control at 1, and what CPUID shows the instruction by.
const ROWS: [(u32, bool, &[Feature]); 6] = [
    (3, true, &[Feature::Rdtscp]),
    (11, false, &[Feature::Rdrand]),
    (12, true, &[Feature::Invpcid]),
    (16, false, &[Feature::Rdseed]),
    (20, true, &[Feature::Xsave, Feature::Xsaves]),
    (26, true, &[Feature::Waitpkg]),
];

const FEATURES: [Feature; 8] = [
    Feature::Rdtscp,
    Feature::Rdrand,
    Feature::Invpcid,
    Feature::Pcid,
    Feature::Rdseed,
    Feature::Xsave,
    Feature::Xsaves,
    Feature::Waitpkg,
];

/// Some of the six controls, and some that CPUID has no say in.
fn word(c: &mut dyn Choices) -> u32 {
    let drawn = c.choose(Site::State, 64);
    let others = c.choose(Site::State, 4) as u32;
    ROWS.iter().enumerate().fold(others << 1, |word, (n, (bit, ..))| word | ((drawn >> n & 1) as u32) << bit)
}

fn follow(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let supported = word(c);
    let offered = word(c) & supported;
    let mut controls = SecondaryWord::new(supported, offered, bugs);
    for _ in 0..1 + c.choose(Site::Sequence, 4) {
        let drawn = c.choose(Site::State, 256);
        let wanted = FEATURES.iter().enumerate().filter(|(n, _)| drawn >> n & 1 != 0);
        let wanted = wanted.fold(FeatureSet::none(), |set, (_, feature)| set.with(*feature));
        let guest = controls.set_cpuid(wanted);
        if let Some(message) = wrong(&controls, supported, offered, &guest) {
            return Counterexample::new(message)
                .with("controls of the processor", format!("{supported:#x}"))
                .with("controls offered to L1", format!("{offered:#x}"))
                .with("CPUID", format!("{guest:?}"))
                .into();
        }
    }
    Verdict::Holds
}

fn wrong(controls: &SecondaryWord, supported: u32, offered: u32, guest: &FeatureSet) -> Option<String> {
    if guest.has(Feature::Invpcid) && !guest.has(Feature::Pcid) {
        return Some("CPUID shows INVPCID without PCID".to_owned());
    }
    let (word, high) = (controls.word(), controls.nested_high());
    let named: u32 = ROWS.iter().map(|(bit, ..)| 1 << bit).sum();
    if (word ^ supported) & !named != 0 || (high ^ offered) & !named != 0 {
        return Some("a control that CPUID has no say in has changed".to_owned());
    }
    for (bit, enables, features) in ROWS {
        let control = 1 << bit;
        let shown = features.iter().all(|feature| guest.has(*feature));
        if supported & control == 0 {
            if (word | high) & control != 0 {
                return Some(format!("bit {bit} is set though the processor has no such control"));
            }
            continue;
        }
        let executes = (word & control != 0) == enables;
        if executes != shown {
            let verb = if executes { "executes" } else { "faults" };
            return Some(format!("the instruction of bit {bit} {verb} against CPUID"));
        }
        if (high & control != 0) != (shown && offered & control != 0) {
            return Some(format!("L1's hypervisor is offered bit {bit} against CPUID"));
        }
    }
    let xsaves = supported >> 20 & 1 != 0 && guest.has(Feature::Xsave) && guest.has(Feature::Xsaves);
    (controls.xsaves_enabled() != xsaves).then(|| "IA32_XSS is switched against CPUID".to_owned())
}

fn merge(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let controls = SecondaryWord::new(u32::MAX, u32::MAX, bugs);
    let (own, of_l1) = (c.choose(Site::State, 1 << 32) as u32, c.choose(Site::State, 1 << 32) as u32);
    let merged = controls.merged(own, of_l1);
    let wrong = (0..32).find(|bit| {
        let [zero, one, both] = [own, of_l1, merged].map(|word| word >> bit & 1 != 0);
        let right = match bit {
            // Virtualized APIC accesses, RDTSCP, APIC registers, interrupt delivery, INVPCID, VMFUNC, XSAVES, user wait.
            0 | 3 | 8 | 9 | 12 | 13 | 20 | 26 => one,
            14 | 17 => false,
            7 => one,
            _ => zero || one,
        };
        both != right
    });
    match wrong {
        Some(bit) => Counterexample::new(format!("bit {bit} of vmcs02's secondary controls is wrong"))
            .with("L0 wants", format!("{own:#x}"))
            .with("vmcs12", format!("{of_l1:#x}"))
            .with("vmcs02", format!("{merged:#x}"))
            .into(),
        None => Verdict::Holds,
    }
}
