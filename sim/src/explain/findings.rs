//! What the judgements of one control structure add up to, on either vendor: the broken rules ranked, the rest counted.

use rootmode_traces::dump::Dump;

use super::{Broken, Change, Entry, Unjudged, Value};

/// Collects judgements.
#[derive(Default)]
pub(super) struct Findings {
    /// With whether the rule's report is what the text recorded.
    broken: Vec<(bool, Broken)>,
    /// With the same, and how likely the rule is the cause.
    unjudged: Vec<(bool, usize, Unjudged)>,
    satisfied: usize,
}

/// What an entry says beside its rules.
pub(super) struct Situation<'a> {
    /// `VMX` or `SVM`.
    pub(super) extension: &'static str,
    /// Where the control structure was found.
    pub(super) dump: &'a Dump,
    /// The processor model whose capabilities were used.
    pub(super) processor: &'a str,
    /// Whether nothing named that model.
    pub(super) assumed_processor: bool,
    /// What the text says that the processor reported.
    pub(super) recorded: Option<String>,
}

impl Findings {
    pub(super) const fn satisfied(&mut self) {
        self.satisfied += 1;
    }

    /// `fits_record`: the processor would report the rule as the text says. `likelihood` orders rules that fit equally.
    pub(super) fn unjudged(
        &mut self,
        rule: &'static str,
        missing: String,
        fits_record: bool,
        likelihood: usize,
    ) {
        self.unjudged.push((fits_record, likelihood, Unjudged { rule, missing }));
    }

    /// `fits_record`: the processor would report the rule as the text says.
    pub(super) fn broken(&mut self, fits_record: bool, rule: Broken) {
        self.broken.push((fits_record, rule));
    }

    /// Whether a broken rule would be reported as the text says.
    pub(super) fn explain_record(&self) -> bool {
        self.broken.iter().any(|(fits_record, _)| *fits_record)
    }

    /// Broken rules that fit what was recorded come first, then those that no processor allows, then table order.
    pub(super) fn into_entry(mut self, situation: Situation<'_>) -> Entry {
        self.broken.sort_by_key(|(fits_record, rule)| (!fits_record, rule.assumed));
        self.unjudged
            .sort_by_key(|(fits_record, likelihood, _)| std::cmp::Reverse((*fits_record, *likelihood)));
        let broken: Vec<Broken> = self.broken.into_iter().map(|(_, rule)| rule).collect();
        Entry {
            extension: situation.extension,
            lines: situation.dump.lines,
            processor: situation.processor.to_owned(),
            assumed_processor: situation.assumed_processor,
            recorded: situation.recorded,
            would_report: broken.first().map(|rule| rule.report.clone()),
            broken,
            unjudged: self.unjudged.into_iter().map(|(_, _, row)| row).collect(),
            satisfied: self.satisfied,
        }
    }
}

impl Broken {
    /// A broken rule without values and proposals yet.
    pub(super) fn new(
        rule: &'static str,
        demand: &str,
        source: String,
        report: String,
        assumed: bool,
    ) -> Self {
        let demand = demand.to_owned();
        Self { rule, demand, source, values: Vec::new(), nearest: Vec::new(), report, assumed }
    }

    /// Adds a value that the rule looked at, if the text has it.
    pub(super) fn add_value(&mut self, name: &str, value: Option<u64>, line: Option<u32>) {
        if value.is_some() {
            self.values.push(Value { name: name.to_owned(), value: value.map(hex), line });
        }
    }

    /// Adds an alternative that satisfies the rule, after those that are there.
    pub(super) fn add_nearest(&mut self, name: String, from: Option<u64>, to: u64) {
        self.nearest.push(Change { name, from: from.map(hex), to: hex(to) });
    }
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}
