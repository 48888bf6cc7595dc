//! What differs and why: `tests/judges/guests.txt`, stanzas that each settle a difference by a section of the manual.

use crate::judges::stanzas::{StanzaError, fits, parse};

const TEXT: &str = include_str!("../../../judges/guests.txt");

/// A settled difference.
#[derive(Clone, Debug)]
pub struct Settled {
    /// What tables call it.
    pub name: String,
    peers: Vec<String>,
    /// Patterns of what differs, as [`super::Difference`] prints it.
    differences: Vec<String>,
    /// Facts that must all hold.
    facts: Vec<String>,
}

impl Settled {
    /// Whether it explains `difference` of `peer`'s guest with `facts`.
    #[must_use]
    pub fn explains(&self, peer: &str, facts: &[String], difference: &str) -> bool {
        self.peers.iter().any(|known| known == peer)
            && self.facts.iter().all(|wanted| {
                wanted.split('|').any(|option| facts.iter().any(|fact| fits(option.trim(), fact)))
            })
            && self.differences.iter().any(|pattern| fits(pattern, difference))
    }
}

/// Reads the file.
///
/// # Errors
///
/// [`StanzaError`] where it is malformed: every stanza names its peers, what differs, a section of the manual and a reason.
pub fn settled() -> Result<Vec<Settled>, StanzaError> {
    let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    parse(TEXT)?
        .into_iter()
        .map(|stanza| {
            stanza.demand("section")?;
            stanza.demand("because")?;
            Ok(Settled {
                name: stanza.name.clone(),
                peers: words(stanza.demand("peers")?),
                differences: words(stanza.demand("differences")?),
                facts: words(stanza.get("facts").unwrap_or_default()),
            })
        })
        .collect()
}
