//! What a property is: a name, where its claim comes from, and a check that draws its case from [`Choices`].

use rootmode_arch::Choices;
use rootmode_models::kvm::Regressions;

/// A claim that must hold for every case that the choices can draw.
#[derive(Clone, Copy)]
pub struct Property {
    /// Name on the command line, such as `merge-is-or`.
    pub name: &'static str,
    /// The claim in one sentence.
    pub about: &'static str,
    /// Where the claim comes from: manual and section title, or catalogue entry.
    pub source: &'static str,
    /// How many plain cases one case of this property costs, at least 1; a campaign runs so many fewer of it.
    pub cost: u64,
    /// Draws one case and judges it. The regressions are switched on in the model, never in the oracle.
    pub check: fn(&mut dyn Choices, Regressions) -> Verdict,
}

impl Property {
    /// Cases of this property in a campaign of `cases` cases per property: at least one, unless `cases` is 0.
    pub const fn cases_of(&self, cases: u64) -> u64 {
        cases.div_ceil(self.cost)
    }
}

/// The judgement of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The claim held.
    Holds,
    /// The drawn case does not meet the claim's precondition.
    Skipped,
    /// The claim was broken.
    Fails(Counterexample),
}

/// What a person needs to understand a broken claim.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counterexample {
    /// What was expected and what was found, in one sentence.
    pub message: String,
    /// Names and values of the case, in the order in which they should be read.
    pub details: Vec<(String, String)>,
}

impl Counterexample {
    /// A counterexample without details yet.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), details: Vec::new() }
    }

    /// Adds one named value.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl std::fmt::Display) -> Self {
        self.details.push((name.into(), value.to_string()));
        self
    }
}

impl From<Counterexample> for Verdict {
    fn from(counterexample: Counterexample) -> Self {
        Self::Fails(counterexample)
    }
}
