//! Which kernels a known bug is in.

use super::{Origin, Regression, Regressions, Row};

/// A kernel's version: 6.1 is `Version(6, 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16, pub u16);

impl Version {
    /// The version that `text` begins with, such as `6.1` or `linux-6.12.3`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("linux-").unwrap_or(text);
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        let major = parts.next()?.parse().ok()?;
        Some(Self(major, parts.next()?.parse().ok()?))
    }
}

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Which KVM the model is: what its documentation promises, or a kernel with the bugs that are known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Behaviour {
    /// `contract`.
    #[default]
    Contract,
    /// `linux-6.1` and the like.
    Linux(Version),
}

impl Behaviour {
    /// The behaviour called so.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "contract" {
            return Some(Self::Contract);
        }
        text.strip_prefix("linux-").and_then(Version::parse).map(Self::Linux)
    }

    /// The known bugs of released kernels that it has.
    pub fn regressions(self) -> Regressions {
        let Self::Linux(version) = self else { return Regressions::NONE };
        Regression::ALL.iter().copied().filter(|regression| regression.row().is_in(version)).collect()
    }
}

impl Row {
    /// Whether the released kernel has the bug, as far as is known. What was only posted or imagined is in none; what is in
    /// since "before" some version counts as always there until it was fixed.
    pub fn is_in(&self, kernel: Version) -> bool {
        if self.origin != Origin::Released {
            return false;
        }
        let since = self.introduced.and_then(Version::parse);
        // "after 6.17": 6.17 itself still has it.
        let last = self.fixed_in.and_then(|text| text.strip_prefix("after ")).and_then(Version::parse);
        let fixed = self.fixed_in.and_then(Version::parse);
        since.is_none_or(|since| kernel >= since)
            && last.is_none_or(|last| kernel <= last)
            && fixed.is_none_or(|fixed| kernel < fixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_not_texts() {
        assert_eq!(Version::parse("6.1"), Some(Version(6, 1)));
        assert_eq!(Version::parse("linux-6.12.3"), Some(Version(6, 12)));
        assert!(Version(6, 9) < Version(6, 12));
        assert_eq!(Version::parse("before 6.1"), None);
        assert_eq!(Version::parse("contract"), None);
    }

    #[test]
    fn a_kernel_differs_from_the_contract_by_the_bugs_that_are_listed_for_it() {
        assert_eq!(Behaviour::parse("contract").map(Behaviour::regressions), Some(Regressions::NONE));
        assert_eq!(Behaviour::parse("6.1"), None);
        for text in ["linux-5.10", "linux-6.1", "linux-6.12"] {
            let behaviour = Behaviour::parse(text).expect("the name of a kernel");
            let Behaviour::Linux(version) = behaviour else { panic!("{text} is a kernel") };
            for regression in Regression::ALL {
                let row = regression.row();
                assert_eq!(behaviour.regressions().has(*regression), row.is_in(version), "{text} {}", row.id);
            }
        }
        let has = |text, id| {
            let set = Behaviour::parse(text).map(Behaviour::regressions).expect("the name of a kernel");
            set.has(Regression::from_id(id).expect("an identifier"))
        };
        assert!(has("linux-5.10", "M-11.1") && !has("linux-6.1", "M-11.1"));
        assert!(has("linux-6.1", "M-11.8") && !has("linux-6.12", "M-11.8"));
        assert!(!has("linux-6.12", "M-7.1c"), "fixed there");
    }

    #[test]
    fn a_kernel_has_what_was_introduced_and_not_yet_fixed() {
        let row = |id| Regression::from_id(id).map(Regression::row);
        let m01 = row("MSR-M01").expect("the first row");
        assert!(m01.is_in(Version(6, 1)) && m01.is_in(Version(6, 16)) && !m01.is_in(Version(6, 17)));
        let m19 = row("MSR-M19").expect("it is fixed after 6.17");
        assert!(!m19.is_in(Version(4, 15)) && m19.is_in(Version(6, 17)) && !m19.is_in(Version(6, 18)));
        for row in Regression::ALL.iter().map(|r| r.row()) {
            let newest = row.is_in(Version(99, 0));
            assert_eq!(newest, row.still_upstream, "{}: what nobody fixed is still there", row.id);
            if let Some(first) = row.introduced.and_then(Version::parse).filter(|v| v.1 > 0) {
                assert!(!row.is_in(Version(first.0, first.1 - 1)), "{}: not before it came", row.id);
            }
        }
    }
}
