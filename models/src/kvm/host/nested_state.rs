//! [`NestedState`]: a vCPU's use of VMX or SVM, as it is saved and restored (`KVM_GET_NESTED_STATE`, `KVM_SET_NESTED_STATE`).

use rootmode_svm::Vmcb;
use rootmode_vmx::Vmcs;

/// A vCPU's use of its processor's extension.
#[derive(Clone, Debug)]
pub enum NestedState {
    /// Of VMX. `None`: L1 is not in VMX operation.
    Vmx(Option<VmxState>),
    /// Of SVM.
    Svm(SvmState),
}

/// L1's VMX operation.
#[derive(Clone, Debug)]
pub struct VmxState {
    /// The VMXON pointer.
    pub vmxon: u64,
    /// The current-VMCS pointer with the VMCS's data and whether it was launched.
    pub current: Option<(u64, Box<Vmcs>, bool)>,
    /// L2 runs; whether its entry is still to come.
    pub running: Option<bool>,
    /// A monitor trap flag's exit waits.
    pub trap: bool,
}

/// L1's use of SVM.
#[derive(Clone, Debug)]
pub struct SvmState {
    /// The global interrupt flag.
    pub gif: bool,
    /// L2 runs: where L1's VMCB is, its controls with L1's own state in the state-save area, and whether the entry is still
    /// to come.
    pub running: Option<(u64, Box<Vmcb>, bool)>,
}
