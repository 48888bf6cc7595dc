//! `explain`: why an entry was refused, from what Linux, QEMU or a person wrote down about it.
//!
//! ```
//! let text = "vendor = amd\ncpu = amd-genoa\nsave.cr0 = 0x20000011\n";
//! let explanation = rootmode::explain::explain(text, None).unwrap();
//! assert_eq!(explanation.entries[0].broken[0].rule, "svm.cr0.nw-without-cd");
//! ```

mod cpu;
mod findings;
mod refused;
mod rules;
mod svm;
mod vmx;

pub use cpu::{Cpu, UnknownCpu};
pub use refused::{Refusals, Refused};
pub use rules::{RuleRow, rule_rows, rules_page};

use rootmode_traces::dump::{DumpState, Unreadable, parse};
use serde::Serialize;

/// Everything that can be said about a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// One for each control structure in the text, in order.
    pub entries: Vec<Entry>,
    /// What looked like a part of a dump and could not be read, by line.
    pub unreadable: Vec<String>,
    /// Lines in the text.
    pub lines: u32,
}

/// One refused (or valid) entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// `VMX` or `SVM`.
    pub extension: &'static str,
    /// First and last line in the text.
    pub lines: (u32, u32),
    /// The processor model whose capabilities were used.
    pub processor: String,
    /// Whether that model is an assumption, rather than named by the text or the command line.
    pub assumed_processor: bool,
    /// What the text says that the processor reported.
    pub recorded: Option<String>,
    /// What the processor would report, if a rule is broken.
    pub would_report: Option<String>,
    /// The broken rules, the likeliest cause first.
    pub broken: Vec<Broken>,
    /// Rules that cannot be judged because something is missing.
    pub unjudged: Vec<Unjudged>,
    /// How many rules are satisfied.
    pub satisfied: usize,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Stable identifier.
    pub rule: &'static str,
    /// What is demanded.
    pub demand: String,
    /// Manual, edition and section title.
    pub source: String,
    /// The values that break it.
    pub values: Vec<Value>,
    /// The nearest valid values: alternatives, each alone satisfies the rule.
    pub nearest: Vec<Change>,
    /// What the processor reports for this rule.
    pub report: String,
    /// Whether it is broken only on the assumed processor: another one may allow the values.
    pub assumed: bool,
}

/// A value that a rule looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Value {
    /// The manual's name.
    pub name: String,
    /// The value, in hexadecimal; absent where the text does not have it.
    pub value: Option<String>,
    /// The line of the text that it came from.
    pub line: Option<u32>,
}

/// A proposed change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What to change.
    pub name: String,
    /// The value now.
    pub from: Option<String>,
    /// The value to write instead.
    pub to: String,
}

/// A rule that cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unjudged {
    /// Stable identifier.
    pub rule: &'static str,
    /// What is missing.
    pub missing: String,
}

/// Judges every control structure in `text`. `cpu` overrides what the text says about the processor.
///
/// # Errors
/// [`UnknownCpu`] if the text names a processor model that does not exist.
pub fn explain(text: &str, cpu: Option<Cpu>) -> Result<Explanation, UnknownCpu> {
    let parsed = parse(text);
    let named = parsed.settings.cpu.as_ref().map(|cpu| Cpu::from_name(&cpu.value)).transpose()?;
    let cpu = cpu.or(named);
    let entries = parsed
        .dumps
        .iter()
        .map(|dump| match &dump.state {
            DumpState::Vmcs(vmcs) => vmx::entry(dump, vmcs, &parsed.settings, cpu),
            DumpState::Vmcb(vmcb) => svm::entry(dump, vmcb, &parsed.settings, cpu),
        })
        .collect();
    let unreadable = parsed.unreadable.iter().map(Unreadable::to_string).collect();
    Ok(Explanation { entries, unreadable, lines: parsed.lines })
}
