//! The format of the two data files of the judges: stanzas of `key = value` lines under a `[name]`, `#` comments.
//!
//! A line that starts with blanks continues the value above it.

/// One stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// What stands between the brackets.
    pub name: String,
    /// Line of the name, counted from 1.
    pub line: usize,
    entries: Vec<(String, String)>,
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StanzaError {
    /// A line is neither a name, nor an entry, nor a comment.
    #[error("line {line}: expected `[name]` or `key = value`, found `{text}`")]
    Line {
        /// Number of the line, counted from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A stanza lacks an entry that its file demands, or has one that cannot be understood.
    #[error("line {line}: [{name}]: {what}")]
    Entry {
        /// Line of the stanza's name.
        line: usize,
        /// The stanza's name.
        name: String,
        /// What is wrong.
        what: String,
    },
}

impl Stanza {
    /// The value of `key`, if there is one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Every entry, in order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// [`StanzaError::Entry`] when there is none.
    pub fn demand(&self, key: &str) -> Result<&str, StanzaError> {
        self.get(key).filter(|value| !value.is_empty()).ok_or_else(|| self.wrong(format!("lacks `{key}`")))
    }

    /// An error about this stanza.
    #[must_use]
    pub fn wrong(&self, what: String) -> StanzaError {
        StanzaError::Entry { line: self.line, name: self.name.clone(), what }
    }
}

/// Reads all stanzas of a file.
///
/// # Errors
///
/// [`StanzaError::Line`] for the first line that fits nowhere.
pub fn parse(text: &str) -> Result<Vec<Stanza>, StanzaError> {
    let mut stanzas: Vec<Stanza> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = || StanzaError::Line { line: number + 1, text: line.to_owned() };
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            stanzas.push(Stanza { name: name.to_owned(), line: number + 1, entries: Vec::new() });
            continue;
        }
        let stanza = stanzas.last_mut().ok_or_else(wrong)?;
        if line.starts_with(char::is_whitespace) {
            let (_, value) = stanza.entries.last_mut().ok_or_else(wrong)?;
            value.push(' ');
            value.push_str(trimmed);
        } else {
            let (key, value) = line.split_once('=').ok_or_else(wrong)?;
            stanza.entries.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    Ok(stanzas)
}

/// Whether `text` fits `pattern`, in which `*` stands for any characters.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_everything_else_for_itself() {
        for (pattern, text, expected) in [
            ("VMFAIL: a", "VMFAIL: a", true),
            ("VMFAIL: a", "VMFAIL: ab", false),
            ("guest *.AR/LIMIT", "guest CS.AR/LIMIT", true),
            ("guest *.AR/LIMIT", "guest CS.AR", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("a*", "a", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn an_indented_line_continues_the_value_above() {
        let stanzas = parse("# c\n[one]\nbecause = first\n  second\nrule = X\n").unwrap();
        assert_eq!(stanzas[0].get("because"), Some("first second"));
        assert_eq!(stanzas[0].get("rule"), Some("X"));
        assert!(matches!(parse("rule = X"), Err(StanzaError::Line { line: 1, .. })));
    }
}
