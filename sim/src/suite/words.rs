//! A shell's words, as far as test lists use them: quotes, backslashes, and backticks around commands that we know.

/// What a list asks that only a shell could answer, and we do not start one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    /// Backticks around an unknown command.
    #[error("`{0}` would have to be run by a shell")]
    Command(String),
    /// A quote that does not end.
    #[error("a quote does not end: {0}")]
    Quote(String),
}

/// The words of `text`; `command` answers what stands in backticks.
pub(super) fn split(text: &str, command: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\'', None) | ('"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => match chars.next() {
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            ('`', None | Some('"')) => {
                let inside: String = chars.by_ref().take_while(|c| *c != '`').collect();
                let output = command(&inside).ok_or(WordsError::Command(inside))?;
                word.get_or_insert_default().push_str(&output);
            }
            (' ' | '\t' | '\n', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(WordsError::Quote(text.to_owned()));
    }
    words.extend(word);
    Ok(words)
}
