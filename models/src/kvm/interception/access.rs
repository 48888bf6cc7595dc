//! [`Access`] and [`Accesses`]: one way to access an MSR, and a set of them.

use rootmode_svm::bitmap as svm;
use rootmode_vmx::bitmap as vmx;

/// Which way an MSR is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Access {
    /// RDMSR.
    Read,
    /// WRMSR.
    Write,
}

impl Access {
    /// Both, reads first.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Read => Self::Write,
            Self::Write => Self::Read,
        }
    }
}

impl core::fmt::Display for Access {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Read => "RDMSR",
            Self::Write => "WRMSR",
        })
    }
}

impl From<Access> for svm::Access {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
        }
    }
}

impl From<Access> for vmx::Access {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
        }
    }
}

/// A set of accesses: what KVM calls the type of an intercept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accesses(u8);

impl Accesses {
    /// Reads only.
    pub const R: Self = Self(1);
    /// Writes only.
    pub const W: Self = Self(2);
    /// Both.
    pub const RW: Self = Self(3);

    /// Whether the set has `access`.
    pub const fn has(self, access: Access) -> bool {
        self.0 >> access as u8 & 1 != 0
    }

    /// The members, reads first.
    pub fn iter(self) -> impl Iterator<Item = Access> {
        Access::ALL.into_iter().filter(move |access| self.has(*access))
    }
}
