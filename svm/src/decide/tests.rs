//! The table against the manual's truth tables, its two forms against each other, and its own consistency.

use super::*;
use crate::bitmap::{Iopm, Msrpm, Uniform};
use crate::capabilities::MAX_AMD;
use crate::encode::{ExitCode, IpiFailure, NpfInfo};
use crate::vmcb::{INTERCEPTS, IntCtl, Intercept, Intercepts, NestedControl, VirtExt};
use rootmode_arch::choices::Seeded;
use rootmode_arch::event::*;
use rootmode_arch::{
    Choices, Cr0, EventClass, Gpr, GuestPhysical, Linear, RFlags, SegmentName, Selector, Site, Stage,
};

mod draw;
mod events;
mod instructions;

fn controls(intercepts: &[Intercept]) -> Controls {
    let intercepts = intercepts.iter().fold(Intercepts::NONE, |all, one| all.with(*one));
    Controls { intercepts, traits: Traits::of(&MAX_AMD), ..Controls::default() }
}

/// Exit with maps of zeros.
fn exit(controls: &Controls, state: &State, event: Event) -> Option<Exit> {
    decide(&View { controls, state, maps: &Uniform(false) }, &event)
}
fn code(intercepts: &[Intercept], event: Event) -> Option<u64> {
    exit(&controls(intercepts), &State::default(), event).map(|exit| exit.code.0)
}

#[test]
fn identifiers_are_unique_and_every_row_names_its_section() {
    let rows = Table::BUILT_IN.rows();
    for (index, row) in rows.iter().enumerate() {
        assert!(rows[..index].iter().all(|other| other.id != row.id), "{}", row.id);
        assert!(!row.source.is_empty() && row.code.name().is_some(), "{}", row.id);
        assert_eq!(Table::BUILT_IN.of(row.class).iter().filter(|other| other.id == row.id).count(), 1);
    }
}

#[test]
fn every_intercept_bit_that_the_manual_defines_has_a_row_that_asks_for_it() {
    for intercept in INTERCEPTS {
        let asked = Table::BUILT_IN.rows().iter().any(|row| match row.gate {
            Gate::Open => false,
            Gate::Bit(bit) => bit == intercept.bit && row.code == ExitCode::of(bit),
            Gate::Numbered { first, count } => {
                row.code == ExitCode::of(first) && (first.0..first.0 + count).contains(&intercept.bit.0)
            }
        });
        assert!(asked, "{}", intercept.name);
    }
}

#[test]
fn the_built_in_code_answers_what_the_table_of_rows_answers_and_interest_covers_both() {
    let mut exits = 0;
    for seed in 0..60_000 {
        let mut choices = Seeded::new(seed);
        let (controls, state, event) =
            (draw::controls(&mut choices), draw::state(&mut choices), draw::event(&mut choices));
        for maps in [Uniform(false), Uniform(true)] {
            let view = View { controls: &controls, state: &state, maps: &maps };
            let answer = decide(&view, &event);
            assert_eq!(answer, decide_with(Table::BUILT_IN, &view, &event), "seed {seed} {event:?}");
            if answer.is_some() {
                exits += 1;
                assert!(interest(&controls).contains(event.class()), "seed {seed} {event:?}");
                let stages = Table::BUILT_IN.stages(event.class());
                let offered = [Stage::BeforeExceptions, Stage::AfterPrivilege, Stage::AfterOperands];
                let at = offered.map(|stage| Table::BUILT_IN.decide_at(stage, &view, &event));
                assert!(at.contains(&answer), "seed {seed} {event:?}");
                assert!(stages.is_empty() || at.iter().flatten().count() == 1, "one stage a class");
            }
        }
    }
    assert!(exits > 20_000, "the draws are not all quiet: {exits}");
}

#[test]
fn every_row_decides_some_event() {
    let mut deciding = std::collections::BTreeSet::new();
    for seed in 0..60_000 {
        let mut choices = Seeded::new(seed);
        let (controls, state, event) =
            (draw::controls(&mut choices), draw::state(&mut choices), draw::event(&mut choices));
        let view = View { controls: &controls, state: &state, maps: &Uniform(true) };
        deciding.extend(decide(&view, &event).map(|exit| exit.id));
    }
    let silent: Vec<_> =
        Table::BUILT_IN.rows().iter().map(|row| row.id).filter(|id| !deciding.contains(id)).collect();
    assert_eq!(silent, [""; 0]);
}

/// Every small change of a row: dropped, negated, neighbouring bit or code, another stage.
fn mutants(row: &Row) -> Vec<Row> {
    let mut all = vec![Row { enabled: false, ..*row }, Row { negated: true, ..*row }];
    for step in [1, u8::MAX] {
        let code = ExitCode(row.code.0.wrapping_add_signed(i64::from(step as i8)));
        all.push(Row { code, ..*row });
        let moved = |bit: Intercept| Intercept(bit.0.wrapping_add(step));
        match row.gate {
            Gate::Open => {}
            Gate::Bit(bit) => all.push(Row { gate: Gate::Bit(moved(bit)), ..*row }),
            Gate::Numbered { first, count } => {
                all.push(Row { gate: Gate::Numbered { first: moved(first), count }, ..*row });
            }
        }
    }
    for stage in [Stage::BeforeExceptions, Stage::AfterPrivilege, Stage::AfterOperands] {
        if row.stage.is_some_and(|at| at != stage) {
            all.push(Row { stage: Some(stage), ..*row });
        }
    }
    all
}

#[test]
fn every_mutant_of_a_row_answers_some_event_differently() {
    let mut cases: Vec<Vec<_>> = vec![Vec::new(); EventClass::ALL.len()];
    for seed in 0..40_000 {
        let mut choices = Seeded::new(seed);
        let case = (draw::controls(&mut choices), draw::state(&mut choices), draw::event(&mut choices));
        cases[case.2.class() as usize].push(case);
    }
    let (mut killed, mut survivors) = (0, Vec::new());
    for index in 0..Table::BUILT_IN.rows().len() {
        let row = Table::BUILT_IN.rows()[index];
        for mutant in mutants(&row) {
            let mut table = Table::BUILT_IN.clone();
            table.rows_mut()[index] = mutant;
            let differs = cases[row.class as usize].iter().any(|(controls, state, event)| {
                let view = View { controls, state, maps: &Uniform(true) };
                let at = |table: &Table| {
                    [Stage::BeforeExceptions, Stage::AfterPrivilege, Stage::AfterOperands]
                        .map(|stage| table.decide_at(stage, &view, event))
                };
                at(&table) != at(Table::BUILT_IN)
            });
            if differs {
                killed += 1;
            } else {
                survivors.push(mutant);
            }
        }
    }
    assert!(survivors.is_empty(), "{killed} killed, but not {survivors:#?}");
}

#[test]
fn nothing_with_an_intercept_bit_exits_when_no_bit_is_set() {
    let (controls, state) = (controls(&[]), State::default());
    for seed in 0..20_000 {
        let event = draw::event(&mut Seeded::new(seed));
        let answer = decide(&View { controls: &controls, state: &state, maps: &Uniform(true) }, &event);
        assert_eq!(answer.is_some(), matches!(event, Event::SecondStage(_)), "{event:?}");
    }
}

#[test]
fn stages_are_those_of_the_manuals_table() {
    use EventClass as C;
    let stage = |class| Table::BUILT_IN.of(class)[0].stage;
    for class in
        [C::Pushf, C::Popf, C::Rsm, C::Iret, C::SoftwareInterrupt, C::Vmmcall, C::Xsetbv, C::Cpuid, C::Pause]
    {
        assert_eq!(stage(class), Some(Stage::BeforeExceptions), "{}", class.name());
    }
    for class in [
        C::CrRead,
        C::CrWrite,
        C::Clts,
        C::Lmsw,
        C::Smsw,
        C::DrRead,
        C::DrWrite,
        C::DescriptorTable,
        C::Rdtsc,
        C::Rdtscp,
        C::Rdpmc,
        C::Invd,
        C::Wbinvd,
        C::Hlt,
        C::Invlpg,
        C::Invlpga,
        C::Vmrun,
        C::Vmload,
        C::Vmsave,
        C::Stgi,
        C::Clgi,
        C::Skinit,
        C::Mwait,
        C::Rdpru,
        C::Invlpgb,
        C::Invpcid,
        C::Tlbsync,
        C::PortIo,
        C::Rdmsr,
        C::Wrmsr,
    ] {
        assert_eq!(stage(class), Some(Stage::AfterPrivilege), "{}", class.name());
    }
    assert_eq!(stage(C::Monitor), Some(Stage::AfterOperands), "its byte load comes first");
    for class in [C::Exception, C::ExternalInterrupt, C::Nmi, C::TaskSwitch, C::SecondStage, C::BusLock] {
        assert_eq!(stage(class), None, "{}", class.name());
        assert!(Table::BUILT_IN.stages(class).is_empty());
    }
    for class in [C::Vmx, C::Getsec, C::Rdrand, C::MonitorTrap, C::PreemptionTimer, C::Xsaves] {
        assert!(Table::BUILT_IN.of(class).is_empty(), "{} is not SVM's", class.name());
    }
}

#[test]
fn a_changed_row_changes_the_answer() {
    let on = controls(&[Intercept::RDTSC]);
    let state = State::default();
    let view = View { controls: &on, state: &state, maps: &Uniform(false) };
    let mut table = Table::BUILT_IN.clone();
    let row = table.rows_mut().iter_mut().find(|row| row.id == "rdtsc").unwrap();
    row.gate = Gate::Bit(Intercept::RDPMC);
    assert_eq!(decide_with(&table, &view, &Event::Rdtsc), None);
    let row = table.rows_mut().iter_mut().find(|row| row.id == "rdtsc").unwrap();
    (row.gate, row.negated) = (Gate::Bit(Intercept::RDTSC), true);
    assert_eq!(decide_with(&table, &view, &Event::Rdtsc), None);
    assert!(table.interest(&on).contains(EventClass::Rdtsc), "a negated condition may hold");
    let row = table.rows_mut().iter_mut().find(|row| row.id == "rdtsc").unwrap();
    (row.negated, row.enabled) = (false, false);
    assert_eq!(decide_with(&table, &view, &Event::Rdtsc), None);
    assert!(!table.interest(&on).contains(EventClass::Rdtsc));
}
