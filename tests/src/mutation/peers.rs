//! The recorded verdicts of Bochs and QEMU as judges of mutated rules, and of our own rules as they are.

use std::sync::{Arc, LazyLock};

use rootmode_svm::vmcb::Vmsa;
use rootmode_vmx::rules::{Judgement, RULES as VMX_RULES};

use super::rules::{Answer, Change, Subject};
use super::rules_svm::{self, Svm};
use super::rules_vmx::{self, Vmx};
use crate::judges::disagreements::{Comparison, Disagreement, Judged, compare, known};
use crate::judges::reasons::Reasons;
use crate::judges::recorded::{FILES, launch, parse, svm_run};
use crate::judges::transcript::Outcome;
use crate::judges::verdict::{Stage, Verdict, Violation, of_svm, of_vmx};
use crate::judges::{Extension, Judge, svm_cases, svm_rules, vmx_cases, vmx_rules};

/// A recorded case, ready to be judged.
struct Case<S: Subject> {
    judge: Judge,
    state: S::State,
    facts: Vec<&'static str>,
    violations: Vec<(usize, Violation)>,
    verdict: Verdict,
    outcome: Outcome,
}

/// How our rules and the recorded verdicts of one judge compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Cases.
    pub cases: usize,
    /// Same verdict, and the machine's reason among our broken rules.
    pub agreed: usize,
    /// Known disagreements.
    pub explained: usize,
    /// Everything else: number of the case, and how it differs.
    pub unexplained: Vec<(usize, String)>,
}

struct Peers {
    known: Vec<Disagreement>,
    reasons: Reasons,
    vmx: Vec<Case<Vmx>>,
    svm: Vec<Case<Svm>>,
}

static PEERS: LazyLock<Peers> = LazyLock::new(|| {
    let mut peers = Peers {
        known: known().expect("tests/judges/disagreements.txt is well-formed"),
        reasons: Reasons::bochs(),
        vmx: Vec::new(),
        svm: Vec::new(),
    };
    for (name, text) in FILES {
        let judge = Judge::by_name(name).expect("recordings are named after judges");
        let recorded = parse(text).unwrap_or_else(|error| panic!("tests/judges/golden-{name}.txt: {error}"));
        let processor = recorded.processor;
        let (of_machine, svm_processor) = (vmx_rules::describe(&processor), svm_rules::processor(&processor));
        for (case, outcome) in recorded.cases {
            match judge.extension {
                Extension::Vmx => {
                    let launch = launch(&case);
                    let mut vmcs = rootmode_vmx::Vmcs::zeroed();
                    for (encoding, value) in launch.vmcs.fields() {
                        vmcs.write_encoding(encoding, value);
                    }
                    let state = rules_vmx::State {
                        vmcs,
                        capabilities: of_machine.capabilities,
                        processor: of_machine.processor_at(case.way),
                        memory: Arc::new(vmx_rules::Decided::new(&of_machine, &case)),
                        memory_shift: None,
                    };
                    let (facts, verdict) = (vmx_cases::facts(&launch), of_vmx(&outcome));
                    let violations = violations::<Vmx>(&state, vmx_violation);
                    peers.vmx.push(Case { judge, state, facts, violations, verdict, outcome });
                }
                Extension::Svm => {
                    let run = svm_run(&case);
                    let state = rules_svm::State {
                        processor: svm_processor,
                        vmcb: svm_rules::vmcb(&run),
                        vmsa: Vmsa::zeroed(),
                        encrypted: false,
                        host: svm_rules::HOST,
                        memory: Arc::new(svm_rules::Memory { pdptes: run.pdptes }),
                        memory_shift: None,
                    };
                    let (facts, verdict) = (svm_cases::facts(&processor, &run), of_svm(&outcome));
                    let violations = violations::<Svm>(&state, svm_violation);
                    peers.svm.push(Case { judge, state, facts, violations, verdict, outcome });
                }
            }
        }
    }
    peers
});

fn vmx_violation(rule: usize, index: u32) -> Violation {
    let row = &VMX_RULES[rule];
    let judgement = Judgement::Violated { index: (index != 0).then_some(index) };
    Violation { rule: row.id.to_owned(), stage: vmx_rules::stage(row.report_for(judgement)) }
}

fn svm_violation(rule: usize, _: u32) -> Violation {
    Violation { rule: rootmode_svm::rules::RULES[rule].id.to_owned(), stage: Stage::Invalid }
}

fn violations<S: Subject>(
    state: &S::State,
    violation: fn(usize, u32) -> Violation,
) -> Vec<(usize, Violation)> {
    let of_rule = |rule| match S::ask(rule, state) {
        Answer::Broken(index) => Some((rule, violation(rule, index))),
        _ => None,
    };
    (0..S::ids().len()).filter_map(of_rule).collect()
}

fn comparison<S: Subject>(case: &Case<S>, violations: &[Violation]) -> Comparison {
    let rules_of = |line: &str| if case.judge.is_bochs() { PEERS.reasons.rules_of(line) } else { None };
    let judged = Judged { violations, facts: &case.facts };
    compare(&PEERS.known, case.judge.name, judged, case.verdict, &case.outcome, rules_of)
}

fn notices<S: Subject>(
    cases: &[Case<S>],
    rule: usize,
    change: &Change<S::Place>,
    violation: fn(usize, u32) -> Violation,
) -> bool {
    cases.iter().any(|case| {
        let before = case.violations.iter().find(|(broken, _)| *broken == rule);
        let mut state = case.state.clone();
        let now = match change.ask::<S>(rule, &mut state, &case.state) {
            Answer::Broken(index) => Some((rule, violation(rule, index))),
            _ => None,
        };
        if before == now.as_ref() {
            return false;
        }
        let others = case.violations.iter().filter(|(broken, _)| *broken != rule);
        let mut changed: Vec<(usize, Violation)> = others.cloned().chain(now).collect();
        changed.sort_by_key(|(broken, _)| *broken);
        let changed: Vec<Violation> = changed.into_iter().map(|(_, violation)| violation).collect();
        matches!(comparison(case, &changed), Comparison::Unexplained(_))
    })
}

/// Whether some recorded verdict on VM entry contradicts the changed rule.
#[must_use]
pub fn vmx_notices(rule: usize, change: &Change<rules_vmx::Place>) -> bool {
    notices(&PEERS.vmx, rule, change, vmx_violation)
}

/// Whether some recorded verdict on VMRUN contradicts the changed rule.
#[must_use]
pub fn svm_notices(rule: usize, change: &Change<rules_svm::Place>) -> bool {
    notices(&PEERS.svm, rule, change, svm_violation)
}

/// Compares our rules as they are with everything that the judge called `name` said.
#[must_use]
pub fn replay(name: &str) -> Replay {
    let mut replay = Replay::default();
    let vmx = PEERS.vmx.iter().filter(|case| case.judge.name == name).map(compared);
    let svm = PEERS.svm.iter().filter(|case| case.judge.name == name).map(compared);
    for (number, comparison) in vmx.chain(svm).enumerate() {
        replay.cases += 1;
        match comparison {
            Comparison::Agrees => replay.agreed += 1,
            Comparison::Explained(_) => replay.explained += 1,
            Comparison::Unexplained(what) => replay.unexplained.push((number, what)),
        }
    }
    replay
}

fn compared<S: Subject>(case: &Case<S>) -> Comparison {
    let violations: Vec<Violation> = case.violations.iter().map(|(_, violation)| violation.clone()).collect();
    comparison(case, &violations)
}
