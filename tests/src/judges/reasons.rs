//! Translates what Bochs logs when it refuses an entry into our rules.
//!
//! The table is `tests/judges/bochs-reasons.txt`: a pattern, ` => `, identifiers of the rules that may be behind it
//! (Bochs has one message for several rules now and then). `-` means that the message is no reason.

use super::stanzas::fits;

/// The file.
const TEXT: &str = include_str!("../../judges/bochs-reasons.txt");

/// The table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasons {
    rows: Vec<(String, Vec<String>)>,
}

impl Reasons {
    /// Reads the file.
    ///
    /// # Panics
    ///
    /// When a line of the file, which is part of this crate, has no ` => `.
    #[must_use]
    pub fn bochs() -> Reasons {
        let lines = TEXT.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let row = |line: &str| {
            let (pattern, rules) = line.split_once(" => ").expect("a line of bochs-reasons.txt has ` => `");
            (pattern.to_owned(), rules.split_whitespace().map(str::to_owned).collect())
        };
        Reasons { rows: lines.map(row).collect() }
    }

    /// The rules behind a logged line: `None` when the line is known to be no reason, empty when it is not in the table.
    #[must_use]
    pub fn rules_of(&self, line: &str) -> Option<Vec<String>> {
        match self.rows.iter().find(|(pattern, _)| fits(pattern, line)) {
            Some((_, rules)) if rules == &["-"] => None,
            Some((_, rules)) => Some(rules.clone()),
            None => Some(Vec::new()),
        }
    }

    /// Every rule that the table names.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().flat_map(|(_, rules)| rules.iter()).map(String::as_str).filter(|rule| *rule != "-")
    }
}
