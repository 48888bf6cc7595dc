//! A reproducer: one small text file from which a counterexample can be run again.
//!
//! ```text
//! rootmode reproducer 1
//! property = msr-exit-routing
//! regressions = MSR-M03
//! expect = fails
//! message = L1 intercepts the read of 0xc0000081, L0 handled it
//! choices:
//! state 2 1
//! ```

use std::fmt::Write as _;

use rootmode_arch::choices::{Choice, ChoiceError, Recorded, format_choices, parse_choices};
use rootmode_models::kvm::{Regression, Regressions};

use super::case::judge;
use super::property::{Property, Verdict};

const HEADER: &str = "rootmode reproducer 1";

/// A property, what was switched on, the choices, and what is expected of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reproducer {
    /// The property's name.
    pub property: String,
    /// Switched on in the model.
    pub regressions: Regressions,
    /// Whether the property failed when the file was written.
    pub expect_failure: bool,
    /// What it showed; empty if it held.
    pub message: String,
    /// The choices that make the case.
    pub choices: Vec<Choice>,
}

/// Why a reproducer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReproducerError {
    /// The first line is something else.
    #[error("line 1: expected `{HEADER}`, found `{0}`")]
    Header(String),
    /// A line of the head is not `key = value`.
    #[error(
        "line {line}: `{text}`: expected `property`, `regressions`, `expect` or `message`, then `= value`, or `choices:`"
    )]
    Key {
        /// Line number, from 1.
        line: usize,
        /// The text.
        text: String,
    },
    /// A value that is none of those allowed.
    #[error("line {line}: unknown {what} `{value}`")]
    Value {
        /// Line number, from 1.
        line: usize,
        /// What the value names.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// No `property` line.
    #[error("the file names no property")]
    NoProperty,
    /// A bad line after `choices:`; line numbers count from there.
    #[error("after `choices:`, {0}")]
    Choices(#[from] ChoiceError),
}

impl Reproducer {
    /// The file's text.
    pub fn to_text(&self) -> String {
        let names: Vec<_> = self.regressions.iter().map(|r| r.id()).collect();
        let mut text = format!("{HEADER}\nproperty = {}\n", self.property);
        let _ = writeln!(text, "regressions = {}", names.join(" "));
        let _ = writeln!(text, "expect = {}", if self.expect_failure { "fails" } else { "holds" });
        let _ = writeln!(text, "message = {}", self.message.replace('\n', " "));
        text + "choices:\n" + &format_choices(&self.choices)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// The first line that cannot be understood, by number.
    pub fn parse(text: &str) -> Result<Self, ReproducerError> {
        let (head, list) = text.split_once("choices:").unwrap_or((text, ""));
        let mut lines = head.lines().enumerate();
        let first = lines.next().map_or("", |(_, l)| l.trim());
        if first != HEADER {
            return Err(ReproducerError::Header(first.to_owned()));
        }
        let mut property = None;
        let mut regressions = Regressions::NONE;
        let mut expect_failure = true;
        let mut message = String::new();
        for (index, raw) in lines {
            let line = index + 1;
            if raw.trim().is_empty() {
                continue;
            }
            let key_error = || ReproducerError::Key { line, text: raw.to_owned() };
            let (key, value) = raw.split_once('=').ok_or_else(key_error)?;
            let value = value.trim();
            let unknown = |what, value: &str| ReproducerError::Value { line, what, value: value.to_owned() };
            match key.trim() {
                "property" => property = Some(value.to_owned()),
                "regressions" => {
                    for id in value.split_whitespace() {
                        let found = Regression::from_id(id).ok_or_else(|| unknown("regression", id))?;
                        regressions = regressions.with(found);
                    }
                }
                "expect" => {
                    expect_failure = match value {
                        "fails" => true,
                        "holds" => false,
                        _ => return Err(unknown("expectation", value)),
                    }
                }
                "message" => message = value.to_owned(),
                _ => return Err(key_error()),
            }
        }
        Ok(Self {
            property: property.ok_or(ReproducerError::NoProperty)?,
            regressions,
            expect_failure,
            message,
            choices: parse_choices(list)?,
        })
    }

    /// Runs the case again.
    pub fn run(&self, property: &Property) -> Verdict {
        judge(property, &mut Recorded::new(self.choices.clone()), self.regressions)
    }

    /// A test that replays the case and demands that the property holds, ready to paste.
    pub fn to_rust_test(&self) -> String {
        let name: String =
            self.property.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        format!(
            "#[test]\nfn {name}_holds_for_this_case() {{\n    // {}\n    let reproducer = rootmode::campaign::Reproducer::parse(\n        \"{}\",\n    )\n    .expect(\"the text is whole\");\n    assert_eq!(rootmode::campaign::replay(&reproducer), Some(rootmode::campaign::Verdict::Holds));\n}}\n",
            self.message.replace('\n', " "),
            self.to_text().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n\\\n         ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Reproducer {
        Reproducer {
            property: "some-property".into(),
            regressions: Regression::ALL.iter().take(2).fold(Regressions::NONE, |set, r| set.with(*r)),
            expect_failure: true,
            message: "expected \"1\", found 0".into(),
            choices: parse_choices("state 10 3\ntask 2 1\n").unwrap(),
        }
    }

    #[test]
    fn a_reproducer_survives_its_text() {
        assert_eq!(Reproducer::parse(&sample().to_text()), Ok(sample()));
    }

    #[test]
    fn errors_name_the_line() {
        let parse = |text: &str| Reproducer::parse(text).unwrap_err().to_string();
        assert!(parse("").starts_with("line 1"));
        assert!(parse("rootmode reproducer 1\nproperty = a\nregressions = MSR-X\n").starts_with("line 3"));
        assert!(parse("rootmode reproducer 1\nnonsense\n").starts_with("line 2"));
        assert!(parse("rootmode reproducer 1\nproperty = a\nchoices:\ntask 2 5\n").contains("line 2"));
        assert_eq!(parse("rootmode reproducer 1\n"), "the file names no property");
    }
}
