//! The flip test: every control that the processor offers has a scenario that tells when it alone flips, and every exit
//! reason one that checks all exit fields. Reasons that have none are listed with why.

use super::bench::{End, offered};
use super::scenarios::{Scenario, all};
use rootmode_vmx::definitions::controls::Word;
use rootmode_vmx::{
    Control, EntryControls, ExitControls, ExitReason, PinControls, PrimaryControls, SecondaryControls,
    TertiaryControls, VmFunctions,
};
use std::collections::BTreeSet;

/// Exit reasons that no guest of this model can cause.
const UNREACHABLE_REASONS: &[(&str, &[ExitReason])] = &[
    ("no dual-monitor treatment of SMIs", &[ExitReason::IO_SMI, ExitReason::OTHER_SMI]),
    ("RSM exits in SMM only, GETSEC with CR4.SMXE only", &[ExitReason::RSM, ExitReason::GETSEC]),
    ("nothing ever goes wrong", &[ExitReason::MACHINE_CHECK_DURING_ENTRY]),
    ("the model has neither SGX nor PCONFIG", &[ExitReason::ENCLS, ExitReason::ENCLV, ExitReason::PCONFIG]),
    ("no sub-page permissions", &[ExitReason::SPP_EVENT]),
    ("the model has no key locker", &[ExitReason::LOADIWKEY]),
    ("the model has no ENQCMD", &[ExitReason::ENQCMD_PASID, ExitReason::ENQCMDS_PASID]),
    ("instruction timeouts are not told", &[ExitReason::INSTRUCTION_TIMEOUT]),
    ("no SEAM", &[ExitReason::SEAMCALL, ExitReason::TDCALL]),
    ("the model has no MSR-list instructions", &[ExitReason::RDMSRLIST, ExitReason::WRMSRLIST]),
];

/// The control of one bit.
pub(crate) const fn control(word: Word, bits: u64) -> Control {
    Control { word, bit: bits.trailing_zeros() as u8 }
}

impl From<PinControls> for Flip {
    fn from(bits: PinControls) -> Self {
        Self(control(Word::Pin, bits.0.into()))
    }
}
impl From<PrimaryControls> for Flip {
    fn from(bits: PrimaryControls) -> Self {
        Self(control(Word::Primary, bits.0.into()))
    }
}
impl From<SecondaryControls> for Flip {
    fn from(bits: SecondaryControls) -> Self {
        Self(control(Word::Secondary, bits.0.into()))
    }
}
impl From<TertiaryControls> for Flip {
    fn from(bits: TertiaryControls) -> Self {
        Self(control(Word::Tertiary, bits.0))
    }
}
impl From<VmFunctions> for Flip {
    fn from(bits: VmFunctions) -> Self {
        Self(control(Word::VmFunction, bits.0))
    }
}
impl From<ExitControls> for Flip {
    fn from(bits: ExitControls) -> Self {
        Self(control(Word::Exit, bits.0.into()))
    }
}
impl From<EntryControls> for Flip {
    fn from(bits: EntryControls) -> Self {
        Self(control(Word::Entry, bits.0.into()))
    }
}

/// The control that a scenario flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flip(pub(crate) Control);

/// Every control that the processor lets software choose.
fn settable() -> BTreeSet<Control> {
    let offered = offered();
    let mut set = BTreeSet::new();
    for word in Word::ALL {
        let Some(allowed) = offered.allowed(word) else { continue };
        let free = allowed.permitted & !allowed.required;
        set.extend((0..64).filter(|bit| free >> bit & 1 != 0).map(|bit| Control { word, bit }));
    }
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
fn every_scenario_tells_when_its_control_alone_flips() {
    for scenario in all() {
        if let Some(control) = scenario.control {
            assert_ne!(scenario.run(&[control]), expected(&scenario), "{}", scenario.name);
        }
    }
}

#[test]
fn every_settable_control_has_a_scenario() {
    let told: BTreeSet<Control> = all().iter().filter_map(|scenario| scenario.control).collect();
    let missing: Vec<_> = settable()
        .difference(&told)
        .map(|control| control.row().map_or("a bit without a name", |row| row.name))
        .collect();
    assert!(missing.is_empty(), "controls without a scenario: {missing:?}");
}

#[test]
fn every_exit_reason_has_a_scenario_or_a_reason_why_not() {
    let mut reasons: BTreeSet<u16> = all().iter().map(|scenario| scenario.expected.reason as u16).collect();
    reasons.extend(UNREACHABLE_REASONS.iter().flat_map(|(_, reasons)| reasons.iter().map(|reason| reason.0)));
    let missing: Vec<_> = ExitReason::TABLE.iter().filter(|row| !reasons.contains(&row.0.0)).collect();
    assert!(missing.is_empty(), "exit reasons without a scenario: {missing:?}");
}
