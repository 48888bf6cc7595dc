//! [`recalculate`]: the map as a function; [`Intercepts`]: a vCPU's map, changed step by step as KVM does.

use super::{Access, Accesses, Condition, Configuration, InterceptMap, Kernel, Part, Row, or_into};
use crate::kvm::{Filter, Regression};

/// Why everything is recalculated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The vCPU was created.
    Created,
    /// The vCPU was reset (INIT, or KVM's own reset).
    Reset,
    /// KVM_SET_CPUID2.
    CpuidSet,
    /// The filter changed; the request is served before the next entry.
    FilterChanged,
}

/// The map that configuration and filter determine: the fixed point of every history of [`Intercepts`].
///
/// ```
/// use rootmode_arch::Vendor;
/// use rootmode_models::kvm::interception::{Access, Configuration, InterceptMap, recalculate};
/// use rootmode_models::kvm::{Filter, Regressions};
/// use rootmode_svm::bitmap::Msrpm;
/// let map: Msrpm = recalculate(&Configuration::plain(Vendor::Amd), &Filter::off());
/// assert!(!map.intercepts(0xc000_0100, Access::Write, Regressions::NONE));
/// assert!(map.intercepts(0xc001_0130, Access::Write, Regressions::NONE));
/// ```
pub fn recalculate<M: InterceptMap>(config: &Configuration, filter: &Filter) -> M {
    let mut intercepts = Intercepts::closed();
    intercepts.recalculate(config, filter, Cause::Created);
    intercepts.set_apic_mode(config, filter);
    intercepts.map
}

/// The MSR intercepts of one vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercepts<M> {
    /// The map of vmcb01 or vmcs01.
    pub map: M,
    /// The map changed since it was last merged for a nested guest: an enlightened merge may not be skipped.
    pub force_merge: bool,
    /// The VMCB's clean bit 31 (or the enlightened VMCS's): tells a Hyper-V below that the map is unchanged.
    pub hyperv_clean: bool,
    /// A request to recalculate waits for the next entry.
    pub recalculation_requested: bool,
    /// What LBR virtualization was when the LBR rows were last evaluated.
    lbr_seen: Option<bool>,
    /// Accesses that a shadow map of wanted pass-throughs holds by mistake.
    shadow: Vec<(u32, Access)>,
}

impl<M: InterceptMap> Intercepts<M> {
    /// Everything is intercepted: the state before creation is complete.
    pub fn closed() -> Self {
        Self {
            map: M::closed(),
            force_merge: true,
            hyperv_clean: false,
            recalculation_requested: false,
            lbr_seen: None,
            shadow: Vec::new(),
        }
    }

    /// Intercepts `accesses` to `msr`, or passes them through as far as the filter allows; others stay as they are.
    pub fn set_intercept(
        &mut self,
        config: &Configuration,
        filter: &Filter,
        msr: u32,
        accesses: Accesses,
        intercept: bool,
    ) {
        let bugs = config.regressions;
        let intercept = intercept != bugs.has(Regression::InterceptPolaritySwapped);
        for access in accesses.iter() {
            let denied = !allows(config, filter, msr, access);
            if intercept && bugs.has(Regression::ShadowRecordsOtherAccess) {
                self.shadow.push((msr, access.other()));
            }
            self.put(config, msr, access, intercept || denied);
        }
        self.mark_changed(config);
    }

    /// A guest's write of a non-zero SPEC_CTRL was emulated: further accesses need not exit.
    pub fn spec_ctrl_written(&mut self, config: &Configuration, filter: &Filter) {
        self.apply(config, filter, |row| row.msrs().any(|msr| msr == rootmode_arch::msr::IA32_SPEC_CTRL));
    }

    /// A guest's write of a non-zero XFD was emulated: further accesses need not exit.
    pub fn xfd_written(&mut self, config: &Configuration, filter: &Filter) {
        self.apply(config, filter, |row| row.when == Condition::XfdWritten);
    }

    /// Evaluates the rows of every [`Part`] but the APIC's.
    pub fn recalculate(&mut self, config: &Configuration, filter: &Filter, cause: Cause) {
        let bugs = config.regressions;
        match cause {
            Cause::Reset if bugs.has(Regression::ResetDoesNotRecalculate) => return,
            Cause::CpuidSet if bugs.has(Regression::CpuidDoesNotRecalculate) => return,
            Cause::Created | Cause::Reset | Cause::CpuidSet | Cause::FilterChanged => {}
        }
        let filtering = cause == Cause::FilterChanged;
        let before = (filtering && bugs.has(Regression::DenialNeverLifted)).then(|| self.map.clone());
        self.apply(config, filter, |row| {
            row.part == Part::Always
                && !(filtering && row.since > Kernel::V6_12 && bugs.has(Regression::UnlistedMsrNotRefiltered))
        });
        self.last_branch_changed(config, filter);
        if let Some(before) = before {
            or_into(self.map.bytes_mut(), before.bytes());
        }
        for (msr, access) in self.shadow.clone() {
            self.put(config, msr, access, !filter.allows(msr, access, bugs));
        }
    }

    /// LBR virtualization of the current VMCB may have been switched.
    pub fn last_branch_changed(&mut self, config: &Configuration, filter: &Filter) {
        let enabled = config.last_branch.current();
        let unchanged = self.lbr_seen.replace(enabled) == Some(enabled);
        if unchanged && config.regressions.has(Regression::LbrRecalcSkipped) {
            return;
        }
        self.apply(config, filter, |row| row.part == Part::LastBranch);
    }

    /// The APIC's mode may have changed.
    pub fn set_apic_mode(&mut self, config: &Configuration, filter: &Filter) {
        self.apply(config, filter, |row| row.part == Part::Apic);
    }

    /// Serves requests, as KVM does before every entry; true if the map was recalculated. While L2 runs, its map must
    /// then be tightened.
    pub fn before_entry(&mut self, config: &Configuration, filter: &Filter) -> bool {
        let requested = core::mem::take(&mut self.recalculation_requested);
        if requested {
            self.recalculate(config, filter, Cause::FilterChanged);
        }
        requested
    }

    /// Whether writes of SPEC_CTRL reach the processor, so that the guest's value must be read back after an exit.
    pub fn must_save_spec_ctrl(&self, config: &Configuration) -> bool {
        let bugs = config.regressions;
        !bugs.has(Regression::SpecCtrlNotSaved)
            && !self.map.intercepts(rootmode_arch::msr::IA32_SPEC_CTRL, Access::Write, bugs)
    }

    /// Evaluates the rows that `select` takes; what no row names was intercepted from the start.
    fn apply(&mut self, config: &Configuration, filter: &Filter, select: impl Fn(&Row) -> bool) {
        let bugs = config.regressions;
        for row in M::rows(bugs.tables()).iter().filter(|row| select(row)) {
            let wanted = row.since <= config.kernel && row.when.holds(config) != row.negated;
            let keeps_open = row.when == Condition::AperfMperf && bugs.has(Regression::AperfNeverSetAgain);
            let accesses = match (row.accesses, row.when) {
                (Accesses::W, _) if bugs.has(Regression::CommandReadPassed) => Accesses::RW,
                (_, Condition::AperfMperf) if bugs.has(Regression::AperfWritePassed) => Accesses::RW,
                (accesses, _) => accesses,
            };
            for msr in row.msrs() {
                for access in accesses.iter() {
                    let open = wanted && allows(config, filter, msr, access);
                    let skip = if open {
                        bugs.has(Regression::RecalcOnlySets)
                    } else {
                        keeps_open || bugs.has(Regression::RecalcOnlyClears)
                    };
                    if !skip {
                        self.put(config, msr, access, !open);
                    }
                }
            }
        }
        self.mark_changed(config);
    }

    fn put(&mut self, config: &Configuration, msr: u32, access: Access, intercept: bool) {
        self.map.put(msr, access, intercept, config.regressions);
    }

    /// Whoever keeps a copy of the map must look at it again.
    fn mark_changed(&mut self, config: &Configuration) {
        if !config.regressions.has(Regression::MapChangeNotFlagged) {
            self.force_merge = true;
            self.hyperv_clean = false;
        }
    }
}

/// What the filter says, for the MSRs that KVM passes through.
fn allows(config: &Configuration, filter: &Filter, msr: u32, access: Access) -> bool {
    let bugs = config.regressions;
    let unfiltered = bugs.has(Regression::AperfIgnoresFilter) && matches!(msr, 0xe7 | 0xe8);
    unfiltered || filter.allows(msr, access, bugs)
}
