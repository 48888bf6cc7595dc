//! The files of recorded answers, `tests/golden/rules-*.txt`: `reads RULE: PLACE, ...` names what a rule reads, and
//! `STATE | RULE ...` every rule that a state breaks. Written by `rootmode-tests mutation --record`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// A file of recorded answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Golden {
    /// Rules with the places that they read.
    pub reads: Vec<(String, Vec<String>)>,
    /// States with the rules that they break.
    pub states: Vec<(String, BTreeSet<String>)>,
}

impl Golden {
    /// Reads a file.
    ///
    /// # Errors
    /// The line that is neither of the two kinds.
    pub fn parse(text: &str) -> Result<Golden, String> {
        let mut golden = Golden::default();
        for line in text.lines().filter(|line| !line.starts_with("# ") && !line.is_empty()) {
            if let Some((rule, places)) = line.strip_prefix("reads ").and_then(|rest| rest.split_once(": ")) {
                let places =
                    places.split(", ").filter(|place| !place.is_empty()).map(str::to_owned).collect();
                golden.reads.push((rule.to_owned(), places));
            } else if let Some((state, rules)) = line.split_once(" |") {
                let rules = rules.split_whitespace().map(str::to_owned).collect();
                golden.states.push((state.to_owned(), rules));
            } else {
                return Err(format!("neither `reads RULE: PLACES` nor `STATE | RULES`: {line}"));
            }
        }
        Ok(golden)
    }

    /// The places that `rule` reads, as recorded.
    #[must_use]
    pub fn places(&self, rule: &str) -> &[String] {
        self.reads.iter().find(|(id, _)| id == rule).map_or(&[], |(_, places)| places)
    }

    /// The file.
    #[must_use]
    pub fn text(&self, what: &str) -> String {
        let mut text = format!(
            "# {what}\n# Written by `rootmode-tests mutation --record`; read a change before you keep it.\n"
        );
        for (rule, places) in &self.reads {
            let _ = writeln!(text, "reads {rule}: {}", places.join(", "));
        }
        for (state, rules) in &self.states {
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            let _ = writeln!(text, "{}", format!("{state} | {}", rules.join(" ")).trim_end());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_survives_its_text() {
        let golden = Golden {
            reads: vec![("a.b".into(), vec!["X".into(), "capability 480".into()]), ("c".into(), vec![])],
            states: vec![("base; X=1f".into(), ["a.b".to_owned()].into()), ("base".into(), BTreeSet::new())],
        };
        assert_eq!(Golden::parse(&golden.text("what")).unwrap(), golden);
        assert!(Golden::parse("nonsense").is_err());
    }
}
