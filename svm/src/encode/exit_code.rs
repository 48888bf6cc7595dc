//! Exit codes (APM Vol. 2 (24593 rev. 3.43) "SVM Intercept Exit Codes").

use crate::vmcb::Intercept;

/// EXITCODE: 64 bits; the codes below 0xc0 are the numbers of the intercepts that cause them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ExitCode(pub u64);

/// A row of the table of exit codes that no intercept bit stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCodeRow {
    /// The code.
    pub code: ExitCode,
    /// The manual's name without the prefix `VMEXIT_`.
    pub name: &'static str,
    /// What causes it.
    pub text: &'static str,
}

macro_rules! exit_codes {
    ($($name:ident = $code:literal $text:literal;)*) => {
        #[allow(missing_docs, reason = "each has its text")]
        impl ExitCode {
            $(#[doc = concat!($text, ".")] pub const $name: Self = Self($code as u64);)*
        }

        /// Every exit code that no intercept bit stands for; the others are in [`crate::vmcb::INTERCEPTS`].
        pub const EXIT_CODES: &[ExitCodeRow] =
            &[$(ExitCodeRow { code: ExitCode::$name, name: stringify!($name), text: $text }),*];
    };
}

exit_codes! {
    NPF = 0x400 "nested page fault";
    AVIC_INCOMPLETE_IPI = 0x401 "an IPI of the guest could not be delivered to every target";
    AVIC_NOACCEL = 0x402 "access to a virtual APIC register that AVIC does not handle";
    VMGEXIT = 0x403 "VMGEXIT of an SEV-ES guest";
    INVALID = -1i64 "invalid guest state in the VMCB";
    BUSY = -2i64 "the BUSY bit was set in the VMSA";
    IDLE_REQUIRED = -3i64 "the sibling thread is not idle";
    INVALID_PMC = -4i64 "invalid performance-counter state in the VMSA";
}

impl ExitCode {
    /// The code of an intercept's exit.
    pub const fn of(intercept: Intercept) -> Self {
        Self(intercept.0 as u64)
    }
    /// The intercept whose number the code is, if it is one of the table's.
    pub fn intercept(self) -> Option<Intercept> {
        u8::try_from(self.0).ok().map(Intercept).filter(|i| i.row().is_some())
    }
    /// The manual's name without the prefix `VMEXIT_`; `None` if no exit has the code.
    pub fn name(self) -> Option<&'static str> {
        match self.intercept().and_then(Intercept::row) {
            Some(row) => Some(row.name),
            None => EXIT_CODES.iter().find(|row| row.code == self).map(|row| row.name),
        }
    }
    /// The code called `name` (without the prefix).
    pub fn from_name(name: &str) -> Option<Self> {
        match Intercept::from_name(name) {
            Some(intercept) => Some(Self::of(intercept)),
            None => EXIT_CODES.iter().find(|row| row.name == name).map(|row| row.code),
        }
    }
    /// Whether VMRUN wrote the code without running the guest.
    pub const fn is_entry_failure(self) -> bool {
        matches!(self, Self::INVALID | Self::BUSY | Self::IDLE_REQUIRED | Self::INVALID_PMC)
    }
}

impl core::fmt::Display for ExitCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "VMEXIT_{name}"),
            None => write!(f, "exit code {:#x}", self.0),
        }
    }
}

impl core::fmt::Debug for ExitCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ExitCode({:#x} {self})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_numbers_of_the_manual() {
        for (name, code) in [
            ("CR0_READ", 0x00),
            ("CR8_WRITE", 0x18),
            ("DR7_WRITE", 0x37),
            ("EXCP_PF", 0x4e),
            ("INTR", 0x60),
            ("CR0_SEL_WRITE", 0x65),
            ("TR_WRITE", 0x6d),
            ("CPUID", 0x72),
            ("SWINT", 0x75),
            ("IOIO_PROT", 0x7b),
            ("MSR_PROT", 0x7c),
            ("SHUTDOWN", 0x7f),
            ("VMRUN", 0x80),
            ("MWAIT_CONDITIONAL", 0x8c),
            ("RDPRU", 0x8e),
            ("EFER_WRITE_TRAP", 0x8f),
            ("CR15_WRITE_TRAP", 0x9f),
            ("INVPCID", 0xa2),
            ("BUSLOCK", 0xa5),
            ("IDLE_HLT", 0xa6),
            ("NPF", 0x400),
            ("VMGEXIT", 0x403),
            ("INVALID", u64::MAX),
            ("INVALID_PMC", u64::MAX - 3),
        ] {
            let got = ExitCode::from_name(name).unwrap();
            assert_eq!((got.0, got.name()), (code, Some(name)));
        }
        for code in [0xa7, 0xff, 0x100, 0x404, 0xffff_ffff] {
            assert_eq!(ExitCode(code).name(), None, "{code:#x}");
        }
        assert!(ExitCode::INVALID.is_entry_failure() && !ExitCode::NPF.is_entry_failure());
    }
}
