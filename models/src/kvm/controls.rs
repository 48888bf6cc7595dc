//! Secondary execution controls that depend on the guest's CPUID: L1's word, what its hypervisor may set, and vmcs02's word.

use rootmode_arch::{Feature, FeatureSet};
use rootmode_vmx::SecondaryControls;

use super::{Regression, Regressions};

/// A control that follows the guest's CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjusted {
    /// The control.
    pub control: SecondaryControls,
    /// It makes an instruction exit, so that it is off when the guest has the instruction; else it enables one.
    pub exiting: bool,
    /// The guest has the instruction if its CPUID has all of these.
    pub features: &'static [Feature],
}

const fn row(control: SecondaryControls, exiting: bool, features: &'static [Feature]) -> Adjusted {
    Adjusted { control, exiting, features }
}

/// Every control of that kind.
pub const ADJUSTED: [Adjusted; 6] = [
    row(SecondaryControls::ENABLE_RDTSCP, false, &[Feature::Rdtscp]),
    row(SecondaryControls::RDRAND_EXITING, true, &[Feature::Rdrand]),
    row(SecondaryControls::ENABLE_INVPCID, false, &[Feature::Invpcid]),
    row(SecondaryControls::RDSEED_EXITING, true, &[Feature::Rdseed]),
    row(SecondaryControls::ENABLE_XSAVES, false, &[Feature::Xsave, Feature::Xsaves]),
    row(SecondaryControls::ENABLE_USER_WAIT, false, &[Feature::Waitpkg]),
];

/// Controls of vmcs02 that come from vmcs12 alone.
pub const FROM_VMCS12: u32 = SecondaryControls::VIRTUALIZE_APIC_ACCESSES.0
    | SecondaryControls::ENABLE_INVPCID.0
    | SecondaryControls::ENABLE_RDTSCP.0
    | SecondaryControls::ENABLE_XSAVES.0
    | SecondaryControls::ENABLE_USER_WAIT.0
    | SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY.0
    | SecondaryControls::APIC_REGISTER_VIRTUALIZATION.0
    | SecondaryControls::ENABLE_VM_FUNCTIONS.0;

/// Controls that the hardware does not get from vmcs12.
pub const NOT_FROM_VMCS12: u32 = SecondaryControls::ENABLE_PML.0 | SecondaryControls::VMCS_SHADOWING.0;

/// The secondary controls of a vCPU.
#[derive(Clone, Copy, Debug)]
pub struct SecondaryWord {
    /// What processor and KVM support together.
    supported: u32,
    /// What L1's hypervisor could be offered, whatever its CPUID.
    offered: u32,
    word: u32,
    nested_high: u32,
    xsaves_enabled: bool,
    bugs: Regressions,
}

impl SecondaryWord {
    /// Of a vCPU without CPUID. `offered`: the allowed-1 settings of L1's IA32_VMX_PROCBASED_CTLS2 as far as modules and
    /// hardware decide.
    pub const fn new(supported: u32, offered: u32, bugs: Regressions) -> Self {
        Self { supported, offered, word: supported, nested_high: offered, xsaves_enabled: false, bugs }
    }

    /// L1's word.
    pub const fn word(&self) -> u32 {
        self.word
    }

    /// The upper half of L1's IA32_VMX_PROCBASED_CTLS2.
    pub const fn nested_high(&self) -> u32 {
        self.nested_high
    }

    /// The guest has XSAVES, so that IA32_XSS is switched for it.
    pub const fn xsaves_enabled(&self) -> bool {
        self.xsaves_enabled
    }

    /// KVM_SET_CPUID2 with `guest`; what KVM makes of it.
    pub fn set_cpuid(&mut self, guest: FeatureSet) -> FeatureSet {
        let bugs = self.bugs;
        let mut guest = guest;
        // Without the control INVPCID is undefined, which no processor that enumerates it does.
        let has_control = self.supported & SecondaryControls::ENABLE_INVPCID.0 != 0;
        if !guest.has(Feature::Pcid) && (has_control || !bugs.has(Regression::InvpcidKeptWithoutControl)) {
            guest = guest.without(Feature::Invpcid);
        }
        self.word = self.supported;
        for adjusted in &ADJUSTED {
            self.adjust(adjusted, &guest);
        }
        guest
    }

    fn adjust(&mut self, adjusted: &Adjusted, guest: &FeatureSet) {
        let bugs = self.bugs;
        let bit = adjusted.control.0;
        let exposed = adjusted.features.iter().all(|feature| guest.has(*feature));
        if adjusted.control == SecondaryControls::ENABLE_XSAVES {
            self.xsaves_enabled = exposed && self.supported & bit != 0;
            if bugs.has(Regression::XsavesAlwaysEnabled) {
                return;
            }
        }
        if self.supported & bit == 0 {
            if bugs.has(Regression::AdjustsAbsentControl) {
                self.word |= if exposed == adjusted.exiting { 0 } else { bit };
                self.nested_high |= if exposed { bit } else { 0 };
            }
            return;
        }
        let exiting = adjusted.exiting && !bugs.has(Regression::ExitingTreatedAsEnabling);
        if exposed == exiting {
            self.word &= !bit;
        }
        let offers = if adjusted.exiting && bugs.has(Regression::NestedFollowsControl) {
            self.word & bit != 0
        } else {
            exposed
        };
        if !offers && !bugs.has(Regression::NestedOnlyGains) {
            self.nested_high &= !bit;
        } else if offers {
            self.nested_high |= bit & self.offered;
        }
    }

    /// vmcs02's word for a vmcs12 that has `vmcs12`, where L0 itself wants `vmcs01`.
    pub const fn merged(&self, vmcs01: u32, vmcs12: u32) -> u32 {
        let own = if self.bugs.has(Regression::Vmcs02InheritsInstructions) { 0 } else { FROM_VMCS12 };
        let merged = vmcs01 & !own & !NOT_FROM_VMCS12 | vmcs12 & !NOT_FROM_VMCS12;
        if vmcs12 & SecondaryControls::UNRESTRICTED_GUEST.0 == 0 {
            return merged & !SecondaryControls::UNRESTRICTED_GUEST.0;
        }
        merged
    }
}
