//! Known disagreements between our rules and a judging machine, each settled by a section of the manual.
//!
//! They are data, in `tests/judges/disagreements.txt`. A stanza says in which way a machine departs:
//!
//! - `lacks = RULE…`: the machine does not check these rules (or not in every case that breaks them). Our verdict
//!   without them has to be the machine's.
//! - `adds = PATTERN`: the machine refuses, with a logged reason that fits, what the manual allows; a machine that
//!   gives no reasons has `adds = *`.
//! - `reports = OURS as THEIRS`: both refuse for the same rules and the machine reports it differently.
//! - `order = yes`: several rules are broken whose order the manual leaves open.
//!
//! `when = FACT…` narrows a stanza to cases of which one of these facts, computed by the generators, is true.
//! `peer` names the machines, `decides` the manual's section, `because` the argument, `fault` whose it is
//! (`peer`, or `latitude` where the manual allows both).

use super::stanzas::{Stanza, StanzaError, fits, parse};
use super::transcript::{End, Outcome};
use super::verdict::{Stage, Verdict, Violation, ours};

/// The file.
const TEXT: &str = include_str!("../../judges/disagreements.txt");

/// One known disagreement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Its name.
    pub name: String,
    /// Names of the machines that show it.
    pub peers: Vec<String>,
    /// In which way the machine departs.
    pub kind: Kind,
    /// Facts of which one has to be true of the case; none: any case.
    pub when: Vec<String>,
    /// The section of the manual that decides.
    pub decides: String,
    /// The argument.
    pub because: String,
}

/// In which way a machine departs from our rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It does not check these rules.
    Lacks(Vec<String>),
    /// It refuses with a reason like this what is allowed.
    Adds(String),
    /// It reports the first verdict, in our words, as the second.
    Reports(String, String),
    /// It came to one of several broken rules first.
    Order,
}

/// Reads the file.
///
/// # Errors
///
/// [`StanzaError`] with the line, when the file is malformed.
pub fn known() -> Result<Vec<Disagreement>, StanzaError> {
    parse(TEXT)?.iter().map(read).collect()
}

fn read(stanza: &Stanza) -> Result<Disagreement, StanzaError> {
    let words = |value: &str| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let kind = if let Some(rules) = stanza.get("lacks") {
        Kind::Lacks(words(rules))
    } else if let Some(pattern) = stanza.get("adds") {
        Kind::Adds(pattern.to_owned())
    } else if let Some(pair) = stanza.get("reports") {
        let (ours, theirs) = pair
            .split_once(" as ")
            .ok_or_else(|| stanza.wrong("`reports` needs `OURS as THEIRS`".to_owned()))?;
        Kind::Reports(ours.to_owned(), theirs.to_owned())
    } else {
        stanza.demand("order")?;
        Kind::Order
    };
    if !matches!(stanza.demand("fault")?, "peer" | "latitude") {
        return Err(stanza.wrong("`fault` is neither `peer` nor `latitude`".to_owned()));
    }
    Ok(Disagreement {
        name: stanza.name.clone(),
        peers: words(stanza.demand("peer")?),
        kind,
        when: stanza.get("when").map(words).unwrap_or_default(),
        decides: stanza.demand("decides")?.to_owned(),
        because: stanza.demand("because")?.to_owned(),
    })
}

/// How a case that both judged compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same verdict, and the machine's reason among the rules that we found broken.
    Agrees,
    /// A known disagreement: its name.
    Explained(String),
    /// Neither.
    Unexplained(String),
}

/// A case and what our rules say of it.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// The rules that it breaks.
    pub violations: &'a [Violation],
    /// Facts about it that stanzas may name.
    pub facts: &'a [&'static str],
}

impl Disagreement {
    fn concerns(&self, peer: &str, facts: &[&'static str]) -> bool {
        self.peers.iter().any(|name| name == peer)
            && (self.when.is_empty() || self.when.iter().any(|fact| facts.contains(&fact.as_str())))
    }
}

/// Compares what our rules say of a case with what a machine named `peer` said, `verdict`, and logged, `outcome`.
///
/// `rules_of` translates a logged reason into our rules; `None` means that the machine gives no reasons, or that this
/// line is not one.
#[must_use]
pub fn compare(
    known: &[Disagreement],
    peer: &str,
    judged: Judged<'_>,
    verdict: Verdict,
    outcome: &Outcome,
    rules_of: impl Fn(&str) -> Option<Vec<String>>,
) -> Comparison {
    let violations = judged.violations;
    let here: Vec<&Disagreement> = known.iter().filter(|d| d.concerns(peer, judged.facts)).collect();
    let mine = ours(violations);
    let reason = outcome.logged.iter().find_map(|line| rules_of(line).map(|rules| (line, rules)));
    // A machine that was lost after it had refused the entry says why, but not how.
    let refused_and_lost = outcome.end == End::Lost && reason.is_some();
    let verdict = if refused_and_lost && mine != Verdict::Enters { mine } else { verdict };
    if mine == verdict {
        return match reason {
            Some((line, rules)) if verdict != Verdict::Enters => {
                if violations.iter().any(|violation| rules.contains(&violation.rule)) {
                    Comparison::Agrees
                } else {
                    explain_refusal(&here, outcome).map_or_else(
                        || {
                            Comparison::Unexplained(format!(
                                "same verdict, but its reason is not ours: {line}"
                            ))
                        },
                        Comparison::Explained,
                    )
                }
            }
            _ => Comparison::Agrees,
        };
    }
    // Without the rules that the machine lacks, all of them or any one alone, do we say the same?
    let lacking: Vec<(&String, &Disagreement)> = here
        .iter()
        .filter_map(|d| if let Kind::Lacks(rules) = &d.kind { Some((rules, *d)) } else { None })
        .flat_map(|(rules, d)| rules.iter().map(move |rule| (rule, d)))
        .filter(|(rule, _)| violations.iter().any(|violation| violation.rule == **rule))
        .collect();
    if let Some((_, first)) = lacking.first() {
        let rest = violations.iter().filter(|v| !lacking.iter().any(|(rule, _)| **rule == v.rule));
        if same_but_for_order(ours(rest.clone()), verdict, rest) {
            return Comparison::Explained(first.name.clone());
        }
        for (rule, disagreement) in &lacking {
            if ours(violations.iter().filter(|v| v.rule != **rule)) == verdict {
                return Comparison::Explained(disagreement.name.clone());
            }
        }
    }
    if verdict != Verdict::Enters
        && let Some(name) = explain_refusal(&here, outcome)
    {
        return Comparison::Explained(name);
    }
    for disagreement in &here {
        let matches = match &disagreement.kind {
            Kind::Reports(from, to) => fits(from, &mine.to_string()) && fits(to, &verdict.to_string()),
            Kind::Order => same_but_for_order(mine, verdict, violations),
            _ => false,
        };
        if matches {
            return Comparison::Explained(disagreement.name.clone());
        }
    }
    Comparison::Unexplained(format!("we say {mine}, it says {verdict}"))
}

/// Whether one of the violations leads to `verdict` within the same group of checks whose order is left open: controls
/// and host state; guest state.
fn same_but_for_order<'a>(
    mine: Verdict,
    verdict: Verdict,
    violations: impl IntoIterator<Item = &'a Violation>,
) -> bool {
    let group = |verdict: Verdict| match verdict {
        Verdict::Enters => 0,
        Verdict::Fails(Stage::Controls(_) | Stage::Host) => 1,
        Verdict::Fails(Stage::Guest(_)) => 2,
        Verdict::Fails(Stage::MsrLoad(_)) => 3,
        Verdict::Fails(Stage::Invalid) => 4,
    };
    mine == verdict
        || group(mine) == group(verdict)
            && violations.into_iter().any(|violation| Verdict::Fails(violation.stage) == verdict)
}

/// The known disagreement that explains why the machine refuses what we do not.
fn explain_refusal(here: &[&Disagreement], outcome: &Outcome) -> Option<String> {
    let says = |pattern: &str| pattern == "*" || outcome.logged.iter().any(|line| fits(pattern, line));
    here.iter().find(|d| matches!(&d.kind, Kind::Adds(pattern) if says(pattern))).map(|d| d.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
[no-cr3]\npeer = box\nlacks = cr3\nfault = peer\ndecides = A\nbecause = B\n\
[wrong-cs]\npeer = box\nadds = CS is *\nwhen = odd\nfault = peer\ndecides = A\nbecause = B\n\
[order]\npeer = box\norder = yes\nfault = latitude\ndecides = A\nbecause = B\n";

    fn violation(rule: &str, stage: Stage) -> Violation {
        Violation { rule: rule.to_owned(), stage }
    }

    /// Compares with a machine that logs `logged` and gives its rules as the words of the line.
    fn judge(
        violations: &[Violation],
        verdict: Verdict,
        logged: &[&str],
        facts: &[&'static str],
    ) -> Comparison {
        let known: Vec<Disagreement> = parse(FILE).unwrap().iter().map(|s| read(s).unwrap()).collect();
        let logged = logged.iter().map(|line| (*line).to_owned()).collect();
        let end = End::Failed { flags: 0, error: 0 };
        let outcome = Outcome { id: 0, end, logged };
        let rules_of = |line: &str| Some(line.split(' ').map(str::to_owned).collect());
        compare(&known, "box", Judged { violations, facts }, verdict, &outcome, rules_of)
    }

    #[test]
    fn the_same_verdict_agrees_only_if_the_reason_is_one_of_our_rules() {
        let broken = [violation("rip", Stage::Guest(0))];
        let fails = Verdict::Fails(Stage::Guest(0));
        assert_eq!(judge(&broken, fails, &["rip"], &[]), Comparison::Agrees);
        assert!(matches!(judge(&broken, fails, &["rflags"], &[]), Comparison::Unexplained(_)));
        assert_eq!(judge(&[], Verdict::Enters, &[], &[]), Comparison::Agrees);
    }

    #[test]
    fn a_machine_that_is_lost_after_refusing_is_judged_by_its_reason() {
        let violations = [violation("rip", Stage::Guest(0))];
        let outcome = |line: &str| Outcome { id: 0, end: End::Lost, logged: vec![line.to_owned()] };
        let judged = Judged { violations: &violations, facts: &[] };
        let rules_of = |line: &str| Some(vec![line.to_owned()]);
        let judge = |line| compare(&[], "box", judged, Verdict::Enters, &outcome(line), rules_of);
        assert_eq!(judge("rip"), Comparison::Agrees);
        assert!(matches!(judge("rflags"), Comparison::Unexplained(_)));
    }

    #[test]
    fn a_rule_that_the_machine_lacks_explains_only_what_follows_without_it() {
        let cr3 = violation("cr3", Stage::Guest(0));
        let host = violation("host", Stage::Host);
        let explained = Comparison::Explained("no-cr3".to_owned());
        assert_eq!(judge(std::slice::from_ref(&cr3), Verdict::Enters, &[], &[]), explained);
        assert!(matches!(judge(&[cr3, host], Verdict::Enters, &[], &[]), Comparison::Unexplained(_)));
    }

    #[test]
    fn a_refusal_of_what_is_allowed_is_explained_by_its_reason_where_the_fact_holds() {
        let fails = Verdict::Fails(Stage::Guest(0));
        let explained = Comparison::Explained("wrong-cs".to_owned());
        assert_eq!(judge(&[], fails, &["CS is bad"], &["odd"]), explained);
        assert!(matches!(judge(&[], fails, &["CS is bad"], &[]), Comparison::Unexplained(_)));
        assert!(matches!(judge(&[], fails, &["DS is bad"], &["odd"]), Comparison::Unexplained(_)));
        assert!(matches!(judge(&[], fails, &[], &["odd"]), Comparison::Unexplained(_)));
    }

    #[test]
    fn the_order_is_open_within_a_group_of_checks_and_not_between_groups() {
        let both = [violation("link", Stage::Guest(4)), violation("pdpte", Stage::Guest(2))];
        let explained = Comparison::Explained("order".to_owned());
        assert_eq!(judge(&both, Verdict::Fails(Stage::Guest(2)), &["pdpte"], &[]), explained);
        let apart = [violation("link", Stage::Guest(4)), violation("pin", Stage::Controls(7))];
        assert!(matches!(
            judge(&apart, Verdict::Fails(Stage::Guest(4)), &["link"], &[]),
            Comparison::Unexplained(_)
        ));
    }
}
