//! Every rule has its witnesses, every base is valid, and straight-line code and table never disagree.

use super::*;
use crate::capabilities::GENOA;
use crate::rules::{Judgement, Place, Rule, Verdict, check_entry, judge_all, nearest};
use crate::vmcb::TABLE;
use rootmode_arch::choices::Seeded;

fn violated(case: &Case) -> Vec<&'static str> {
    judge_all(&case.context()).filter(|(_, j)| j.is_violated()).map(|(rule, _)| rule.id).collect()
}

fn verdict_of_the_table(case: &Case) -> Verdict {
    let cx = case.context();
    let mut undecided = Verdict::Enters;
    for (rule, judgement) in judge_all(&cx) {
        match judgement {
            Judgement::Satisfied => {}
            Judgement::Violated => return Verdict::Refused(rule),
            Judgement::Unknown(missing) if undecided == Verdict::Enters => {
                undecided = Verdict::Undecided(rule, missing);
            }
            Judgement::Unknown(_) => {}
        }
    }
    undecided
}

#[test]
fn the_witnesses_are_those_of_the_rules_in_their_order() {
    let rules: Vec<_> = RULES.iter().map(|rule| rule.id).collect();
    let witnesses: Vec<_> = WITNESSES.iter().map(|witness| witness.rule).collect();
    assert_eq!(witnesses, rules);
}

#[test]
fn every_violation_breaks_its_rule_alone_and_vmrun_reports_it() {
    for witness in WITNESSES {
        for index in 0..witness.violations() {
            let case = witness.violation(index);
            assert_eq!(violated(&case), [witness.rule], "violation {index}");
            match check_entry(&case.context()) {
                Verdict::Refused(rule) => assert_eq!(rule.id, witness.rule),
                other => panic!("{} violation {index}: {other:?}", witness.rule),
            }
        }
    }
}

#[test]
fn every_start_and_every_edge_state_enters() {
    for witness in WITNESSES {
        assert_eq!(violated(&witness.start()), [""; 0], "{} start", witness.rule);
        for index in 0..witness.edges() {
            let case = witness.edge(index);
            assert_eq!(check_entry(&case.context()), Verdict::Enters, "{} edge {index}", witness.rule);
            assert_eq!(verdict_of_the_table(&case), Verdict::Enters, "{} edge {index}", witness.rule);
        }
    }
}

#[test]
fn every_violation_has_a_nearest_valid_value_that_leads_into_the_guest() {
    for witness in WITNESSES {
        let rule = Rule::from_id(witness.rule).unwrap();
        for index in 0..witness.violations() {
            let case = witness.violation(index);
            let corrections = nearest(&case.context(), rule);
            assert!(!corrections.is_empty(), "{} violation {index}", witness.rule);
            for correction in corrections.iter() {
                correction.with_applied(&case.context(), |after| {
                    assert_eq!(check_entry(after), Verdict::Enters, "{} {correction:?}", witness.rule);
                });
                if let Place::Vmcb(field) | Place::Vmsa(field) = correction.place {
                    assert_eq!(correction.value & !field.mask(), 0, "{} {correction:?}", witness.rule);
                }
            }
        }
        assert!(nearest(&witness.edge(0).context(), rule).is_empty(), "nothing to correct");
    }
}

/// Answers `flip` with the bits of a number, lowest first.
struct Bits(u32);

impl Choices for Bits {
    fn choose(&mut self, _: Site, n: u64) -> u64 {
        let bit = self.0 & 1;
        self.0 >>= 1;
        u64::from(bit) % n
    }
}

#[test]
fn every_mode_with_every_combination_of_extras_is_valid() {
    let mut combinations = Vec::new();
    for bits in 0..256 {
        let extras = Extras::draw(&mut Bits(bits));
        if !combinations.contains(&extras) {
            combinations.push(extras);
        }
    }
    // Without nested paging: NMI virtualization and CET. With it also AVIC (off, xAVIC, x2AVIC) and SEV (off to SNP).
    assert_eq!(combinations.len(), 4 + 4 * 3 * 4);
    for extras in combinations {
        for mode in Mode::ALL {
            let case = base(mode, extras);
            assert_eq!(check_entry(&case.context()), Verdict::Enters, "{mode:?} {case:?}");
        }
    }
}

#[test]
fn straight_line_code_and_table_agree_on_nearly_valid_states() {
    let mut refused = std::collections::BTreeSet::new();
    let mut entered = 0;
    for seed in 0..20_000 {
        let case = nearly_valid(&mut Seeded::new(seed));
        let verdict = check_entry(&case.context());
        assert_eq!(verdict, verdict_of_the_table(&case), "seed {seed}");
        match verdict {
            Verdict::Enters => entered += 1,
            Verdict::Refused(rule) => {
                refused.insert(rule.id);
            }
            Verdict::Undecided(..) => {}
        }
    }
    assert_eq!(refused.len(), RULES.len(), "the generator reaches every rule");
    assert!(entered > 4_000, "a good part stays inside: {entered}");
}

#[test]
fn forgetting_a_field_never_turns_an_answer_into_its_opposite() {
    for witness in WITNESSES {
        let rule = Rule::from_id(witness.rule).unwrap();
        for (case, expected) in
            [(witness.violation(0), Judgement::Violated), (witness.edge(0), Judgement::Satisfied)]
        {
            let mut unknown = 0;
            for row in TABLE {
                let mut partial = case.clone();
                partial.vmcb.forget(row.field);
                partial.vmsa.forget(row.field);
                match rule.judge(&partial.context()) {
                    Judgement::Unknown(_) => unknown += 1,
                    other => assert_eq!(other, expected, "{} without {}", witness.rule, row.name),
                }
            }
            assert!(expected == Judgement::Satisfied || unknown > 0, "{} reads some field", witness.rule);
        }
    }
}

#[test]
fn without_memory_and_host_only_rules_that_need_them_stay_open() {
    let case = base(Mode::Pae, Extras::NONE);
    let cx = crate::rules::EntryContext::new(&GENOA, &case.vmcb);
    let open: Vec<_> = judge_all(&cx).filter(|(_, j)| !j.is_satisfied()).map(|(rule, _)| rule.id).collect();
    assert_eq!(open, ["svm.pdpe.reserved"]);
    assert!(matches!(check_entry(&cx), Verdict::Undecided(rule, _) if rule.id == "svm.pdpe.reserved"));
}
