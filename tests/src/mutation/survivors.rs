//! The file of survivors: mutants that answer as the original does, with the argument.
//!
//! A stanza `[table]` has a line `row: what was done = because ...` for each.

use crate::judges::stanzas::{StanzaError, parse};

/// The file.
const TEXT: &str = include_str!("../../golden/survivors.txt");

/// The survivors of `table` that have an argument.
///
/// # Panics
/// When the file, which is part of this crate, is malformed.
#[must_use]
pub fn of(table: &str) -> Vec<String> {
    let listed = read(TEXT).expect("tests/golden/survivors.txt is well-formed");
    listed.into_iter().filter(|(of, _, _)| of == table).map(|(_, mutant, _)| mutant).collect()
}

/// Every listed survivor: table, mutant, argument.
///
/// # Errors
/// [`StanzaError`] with the line, when the text is malformed or an argument is empty.
pub fn read(text: &str) -> Result<Vec<(String, String, String)>, StanzaError> {
    let mut listed = Vec::new();
    for stanza in parse(text)? {
        for (mutant, because) in stanza.entries() {
            if because.is_empty() {
                return Err(stanza.wrong(format!("`{mutant}` has no argument")));
            }
            listed.push((stanza.name.clone(), mutant.to_owned(), because.to_owned()));
        }
    }
    Ok(listed)
}
