//! The flip test: every intercept and enable bit has a scenario that tells when it alone flips, and every exit code one that
//! checks all exit fields. What has none is listed with its reason, and must change nothing.

use super::bench::End;
use super::scenarios::{Bit, Scenario, all};
use rootmode_svm::encode::EXIT_CODES;
use rootmode_svm::vmcb::{INTERCEPTS, IntCtl, NestedControl, VirtExt};
use rootmode_svm::{Field, Intercept};
use std::collections::BTreeSet;

/// Intercepts of what no guest of these models can do.
const UNREACHABLE: &[(&str, &[u8])] = &[
    ("MOV of a control register that does not exist is #UD", &[1, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15]),
    ("likewise, written", &[17, 21, 22, 23, 25, 26, 27, 28, 29, 30, 31]),
    ("MOV of a debug register that does not exist is #UD", &[40, 41, 42, 43, 44, 45, 46, 47]),
    ("likewise, written", &[56, 57, 58, 59, 60, 61, 62, 63]),
    ("no exception has the vector", &[66, 73, 79, 84, 86, 87, 88, 89, 90, 91, 95]),
    ("#MC: nothing ever goes wrong", &[82]),
    ("#HV: no SEV-SNP; #VC is the guest's, see `encrypted`", &[92, 93]),
    ("FERR_FREEZE: no model freezes", &[126]),
    ("MONITOR, MWAIT, RDPRU: the model has none", &[138, 139, 140, 142]),
    ("write traps are for SEV-ES guests: see `encrypted`", &[143]),
    ("likewise", &[144, 145, 146, 147, 148, 149, 150, 151, 152, 153, 154, 155, 156, 157, 158, 159]),
    ("INVLPGB, MCOMMIT, TLBSYNC: the model has none", &[160, 161, 163, 164]),
];

/// Enable bits of what the model does not have.
const ABSENT: &[(&str, Field, u64)] = &[
    ("SEV and SEV-ES: see `encrypted`", Field::NestedControl, 3 << 1),
    ("supervisor shadow stacks, VTE, read-only tables, INVLPGB", Field::NestedControl, 0xf << 4),
    ("virtualization of IBS and PMC", Field::VirtExt, 3 << 2),
];

/// Exit codes that no guest of these models can cause, besides those of [`UNREACHABLE`] intercepts.
const UNREACHABLE_CODES: &[(&str, u64)] = &[
    ("VMGEXIT: SEV-ES guests only, see `encrypted`", 0x403),
    ("BUSY: no SEV-SNP", -2_i64 as u64),
    ("IDLE_REQUIRED: no SEV-SNP", -3_i64 as u64),
    ("INVALID_PMC: no SEV-SNP", -4_i64 as u64),
];

fn unreachable() -> BTreeSet<Bit> {
    let intercepts = UNREACHABLE.iter().flat_map(|(_, bits)| bits.iter());
    let mut set: BTreeSet<Bit> = intercepts.map(|bit| Intercept(*bit).into()).collect();
    for (_, field, mask) in ABSENT {
        set.extend((0..64).filter(|bit| mask >> bit & 1 != 0).map(|bit| Bit(*field, bit)));
    }
    set
}

/// Every intercept and enable bit of the VMCB.
fn every_bit() -> BTreeSet<Bit> {
    let mut set: BTreeSet<Bit> = INTERCEPTS.iter().map(|row| row.bit.into()).collect();
    for (field, table) in [
        (Field::IntCtl, IntCtl::TABLE),
        (Field::NestedControl, NestedControl::TABLE),
        (Field::VirtExt, VirtExt::TABLE),
    ] {
        set.extend(table.iter().map(|bit| Bit(field, bit.bit)));
    }
    // V_TPR, V_INTR_PRIO, the interrupt shadow.
    set.extend((0..4).chain(16..20).map(|bit| Bit(Field::IntCtl, bit)));
    set.insert(Bit(Field::InterruptState, 0));
    set
}

fn expected(scenario: &Scenario) -> End {
    End::Exit(scenario.expected.clone())
}

#[test]
fn every_scenario_exits_as_the_manual_says() {
    let wrong: Vec<_> = all()
        .iter()
        .map(|scenario| (scenario, scenario.run(&[])))
        .filter(|(scenario, end)| *end != expected(scenario))
        .map(|(scenario, end)| format!("{}: {end:x?}, not {:?}", scenario.name, scenario.expected))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_scenario_tells_when_its_bit_alone_flips() {
    for scenario in all() {
        assert_ne!(scenario.run(&[scenario.bit]), expected(&scenario), "{}", scenario.name);
    }
}

#[test]
fn every_intercept_and_enable_bit_has_a_scenario_or_a_reason_why_not() {
    let told: BTreeSet<Bit> = all().iter().map(|scenario| scenario.bit).collect();
    let mut covered = unreachable();
    assert!(told.is_disjoint(&covered), "reachable after all: {:?}", told.intersection(&covered));
    covered.extend(told);
    let missing: Vec<_> = every_bit().difference(&covered).copied().collect();
    assert!(missing.is_empty(), "bits without a scenario: {missing:?}");
}

#[test]
fn bits_that_nothing_reaches_change_nothing() {
    let bits: Vec<Bit> = unreachable().into_iter().collect();
    for scenario in all() {
        assert_eq!(scenario.run(&bits), expected(&scenario), "{}", scenario.name);
    }
}

#[test]
fn every_exit_code_has_a_scenario_or_a_reason_why_not() {
    let mut codes: BTreeSet<u64> = all().iter().map(|scenario| scenario.expected.code).collect();
    codes.extend(UNREACHABLE.iter().flat_map(|(_, bits)| bits.iter().map(|bit| u64::from(*bit))));
    codes.extend(UNREACHABLE_CODES.iter().map(|(_, code)| *code));
    let named = INTERCEPTS.iter().map(|row| row.bit.0.into()).chain(EXIT_CODES.iter().map(|row| row.code.0));
    let missing: Vec<_> = named.filter(|code| !codes.contains(code)).collect();
    assert!(missing.is_empty(), "exit codes without a scenario: {missing:x?}");
}
