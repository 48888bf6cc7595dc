//! [`Regression`]: KVM's known bugs as data, each switchable in the model at the place of its fix.
//!
//! None is on by default, and with none every property holds. With one on, the model does what the code once did
//! (or still does, or would do after an easy mistake), and a property fails.
//!
//! ```
//! use rootmode_models::kvm::{Regression, Regressions};
//! let on = Regressions::NONE.with(Regression::ExitMaskAssumesFirstMsr);
//! assert_eq!(Regression::ExitMaskAssumesFirstMsr.id(), "MSR-M03");
//! assert!(on.has(Regression::from_id("msr-m03").unwrap()));
//! ```

#[cfg(test)]
mod catalogue;
mod kernel;
mod table;

pub use kernel::{Behaviour, Version};
pub use table::Regression;

use super::Tables;

/// Where a regression comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A kernel was released with it.
    Released,
    /// A patch was posted with it, and review or testing found it before a release.
    Posted,
    /// A mistake that is easy to make here; nobody is known to have made it.
    Imagined,
}

/// What is known about a [`Regression`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The regression.
    pub regression: Regression,
    /// Stable identifier, such as `MSR-M03`: the catalogue's, with `.2`, `.3` for its variants.
    pub id: &'static str,
    /// What the code did.
    pub about: &'static str,
    /// Released, posted or imagined.
    pub origin: Origin,
    /// The upstream change that fixes it, or that it endangers.
    pub upstream: &'static str,
    /// What must be the case for it to show.
    pub precondition: &'static str,
    /// The outcome with the bug.
    pub wrong: &'static str,
    /// The outcome without.
    pub right: &'static str,
    /// The first kernel, or the posting, that has it; `None`: imagined, or not known.
    pub introduced: Option<&'static str>,
    /// The first kernel without it; `None`: never in a kernel, or still there.
    pub fixed_in: Option<&'static str>,
    /// Whether upstream, as last read (December 2025), still does it.
    pub still_upstream: bool,
}

/// What is wrong with the model, nothing as a rule: a set of regressions, and [`Tables`] that may be changed ones. Part of
/// the model's configuration.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Regressions {
    bits: [u128; 2],
    tables: &'static Tables,
}

const _: () = assert!(Regression::ALL.len() <= 256, "Regressions is 256 bits wide");

impl Regressions {
    /// The empty set: the model as it should be.
    pub const NONE: Self = Self { bits: [0; 2], tables: Tables::KVM };

    /// The set with `regression` added.
    #[must_use]
    pub const fn with(self, regression: Regression) -> Self {
        let mut bits = self.bits;
        bits[regression as usize / 128] |= 1 << (regression as u8 % 128);
        Self { bits, ..self }
    }

    /// The same regressions in a model that goes by `tables`; for mutations.
    #[must_use]
    pub const fn by(self, tables: &'static Tables) -> Self {
        Self { tables, ..self }
    }

    /// The tables that the model goes by.
    #[inline]
    pub const fn tables(self) -> &'static Tables {
        self.tables
    }

    /// Whether `regression` is in the set.
    pub const fn has(self, regression: Regression) -> bool {
        self.bits[regression as usize / 128] >> (regression as u8 % 128) & 1 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.bits[0] == 0 && self.bits[1] == 0
    }

    /// The members, in table order.
    pub fn iter(self) -> impl Iterator<Item = Regression> {
        Regression::ALL.iter().copied().filter(move |r| self.has(*r))
    }
}

impl Default for Regressions {
    fn default() -> Self {
        Self::NONE
    }
}

impl core::fmt::Debug for Regressions {
    /// The identifiers of the set.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.iter().map(Regression::id)).finish()
    }
}

impl FromIterator<Regression> for Regressions {
    fn from_iter<I: IntoIterator<Item = Regression>>(iter: I) -> Self {
        iter.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Identifiers of the catalogue that no regression has, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[(
    "M-7.1b",
    "no bug of its own: M-7.1 seen by a generator that does not vary the privilege level; the properties' one does",
)];

impl Regression {
    /// The stable identifier.
    pub const fn id(self) -> &'static str {
        self.row().id
    }

    /// The regression with this identifier, in any case of letters.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.id().eq_ignore_ascii_case(id))
    }
}

impl core::fmt::Display for Regression {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique_and_lead_back_to_their_regression() {
        for &regression in Regression::ALL {
            assert_eq!(Regression::from_id(regression.id()), Some(regression));
            assert_eq!(regression.row().regression, regression);
        }
        assert_eq!(Regression::from_id("MSR-M00"), None);
    }

    #[test]
    fn every_row_tells_its_story_and_its_kernels_fit_its_origin() {
        for row in Regression::ALL.iter().map(|r| r.row()) {
            for text in [row.about, row.upstream, row.precondition, row.wrong, row.right] {
                assert!(text.len() > 8, "{}: `{text}` says too little", row.id);
            }
            match row.origin {
                Origin::Released => assert!(row.introduced.is_some(), "{}", row.id),
                Origin::Posted => assert!(row.introduced.is_some() && !row.still_upstream, "{}", row.id),
                Origin::Imagined => assert_eq!((row.introduced, row.fixed_in), (None, None), "{}", row.id),
            }
            assert_eq!(
                row.still_upstream,
                row.origin == Origin::Released && row.fixed_in.is_none(),
                "{}",
                row.id
            );
        }
    }

    #[test]
    fn a_set_contains_exactly_what_was_added() {
        let set: Regressions =
            [Regression::ExitMaskAssumesFirstMsr, Regression::BothBitsWritten].into_iter().collect();
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Regression::ExitMaskAssumesFirstMsr, Regression::BothBitsWritten]
        );
        assert!(Regressions::NONE.is_empty() && !set.is_empty());
    }
}
