//! KVM_CAP_X86_DISABLE_EXITS (143): which exits userspace gave up, as one VM-wide 64-bit mask.

use rootmode_arch::{Feature, FeatureSet};

use super::{Errno, Regression, Regressions};

/// A set of exits that userspace disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct DisabledExits(u64);

impl DisabledExits {
    /// MWAIT executes natively.
    pub const MWAIT: Self = Self(1 << 0);
    /// HLT executes natively.
    pub const HLT: Self = Self(1 << 1);
    /// PAUSE executes natively.
    pub const PAUSE: Self = Self(1 << 2);
    /// The C-state residency MSRs are readable.
    pub const CSTATE: Self = Self(1 << 3);
    /// APERF and MPERF are readable.
    pub const APERF_MPERF: Self = Self(1 << 4);
    /// Every bit that the interface defines.
    pub const KNOWN: Self = Self(0x1f);
    /// Nothing is disabled.
    pub const NONE: Self = Self(0);

    /// The set with this mask, as given by userspace.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The mask.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The union.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the exits of `one`, a set of one, are disabled.
    pub const fn has(self, one: Self, bugs: Regressions) -> bool {
        if bugs.has(Regression::DisabledExitsTruncated) {
            return self.0 & one.0 & 1 != 0;
        }
        self.0 & one.0 != 0
    }
}

/// What decides which exits a host lets userspace disable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitHost {
    /// The host processor's features; APERFMPERF, MONITOR and ARAT matter.
    pub features: FeatureSet,
    /// The processor has the MONITOR bug.
    pub monitor_bug: bool,
    /// Module parameter `mitigate_smt_rsb`.
    pub mitigate_smt_rsb: bool,
    /// PAUSE exits are unavailable, so that the vendor module disables them itself.
    pub no_pause_exits: bool,
}

impl ExitHost {
    /// What KVM_CHECK_EXTENSION answers: the exits that may be disabled.
    pub const fn allowed(&self, bugs: Regressions) -> DisabledExits {
        let mut allowed = DisabledExits::PAUSE;
        if self.features.has(Feature::Aperfmperf) || bugs.has(Regression::OfferedWithoutHostFeature) {
            allowed = allowed.with(DisabledExits::APERF_MPERF);
        }
        if !self.mitigate_smt_rsb {
            allowed = allowed.with(DisabledExits::HLT).with(DisabledExits::CSTATE);
            if self.features.has(Feature::Monitor) && !self.monitor_bug && self.features.has(Feature::Arat) {
                allowed = allowed.with(DisabledExits::MWAIT);
            }
        }
        allowed
    }

    /// The mask of a new VM.
    pub const fn initial(&self) -> DisabledExits {
        if self.no_pause_exits { DisabledExits::PAUSE } else { DisabledExits::NONE }
    }

    /// KVM_ENABLE_CAP with this capability: `args[0]` is added to the VM's mask.
    ///
    /// # Errors
    /// [`Errno::Einval`] if a bit is not allowed on this host, or if a vCPU exists; then nothing changes.
    pub const fn enable(
        &self,
        current: DisabledExits,
        argument: u64,
        vcpus: usize,
        bugs: Regressions,
    ) -> Result<DisabledExits, Errno> {
        let allowed = self.allowed(bugs);
        let mut argument = argument;
        if bugs.has(Regression::UnsupportedExitIgnored) {
            argument &= allowed.bits();
        }
        if argument & !allowed.bits() != 0 {
            return Err(Errno::Einval);
        }
        if vcpus > 0 && !bugs.has(Regression::DisabledExitsAfterVcpu) {
            return Err(Errno::Einval);
        }
        if bugs.has(Regression::DisabledExitsAssigned) {
            return Ok(DisabledExits(argument));
        }
        Ok(DisabledExits(current.0 | argument))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Regressions = Regressions::NONE;

    fn host(features: &[Feature]) -> ExitHost {
        ExitHost {
            features: FeatureSet::none().with_all(features),
            monitor_bug: false,
            mitigate_smt_rsb: false,
            no_pause_exits: false,
        }
    }

    #[test]
    fn a_host_offers_what_it_can_disable() {
        let full = host(&[Feature::Aperfmperf, Feature::Monitor, Feature::Arat]);
        assert_eq!(full.allowed(NONE), DisabledExits::KNOWN);
        assert_eq!(ExitHost { monitor_bug: true, ..full }.allowed(NONE).bits(), 0x1e);
        assert_eq!(ExitHost { mitigate_smt_rsb: true, ..full }.allowed(NONE).bits(), 0x14);
        assert_eq!(host(&[]).allowed(NONE).bits(), 0x0e);
    }

    #[test]
    fn calls_accumulate_and_a_refused_call_changes_nothing() {
        let host = host(&[Feature::Aperfmperf]);
        let one = host.enable(host.initial(), 2, 0, NONE).unwrap();
        assert_eq!(host.enable(one, 16, 0, NONE).unwrap().bits(), 18);
        assert_eq!(host.enable(one, 16 | 1, 0, NONE), Err(Errno::Einval), "MWAIT needs MONITOR and ARAT");
        assert_eq!(host.enable(one, 16, 1, NONE), Err(Errno::Einval), "a vCPU exists");
    }
}
