//! MSR interception of a nested guest (L2): the maps of L0 and L1 merged, and who handles an exit.

mod chunks;
mod memory;
mod svm;
mod vmx;

pub(super) use chunks::SVM_MERGED;
pub use chunks::{ChunkList, ChunkSize, MergeListError, merge_msrs};
pub use memory::{GuestMemory, Unreadable};
pub use svm::{
    ActiveMap, MergeFailed, NestedMsrpm, Vmcb12, msr_exit_handler as svm_msr_exit_handler,
    msr_exit_place as svm_msr_exit_place,
};
pub use vmx::{
    NestedBitmap, VirtualApic, VirtualRegister, Vmcs12, X2apicRules, msr_exit_handler as vmx_msr_exit_handler,
};
pub(super) use vmx::{VMX_MERGED, VMX_X2APIC};

use super::interception::{Accesses, Kernel};

/// An MSR whose pass-through reaches L2 if both hypervisors let it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergedMsr {
    /// The MSR.
    pub msr: u32,
    /// The accesses that are merged.
    pub accesses: Accesses,
    /// The first kernel that does so.
    pub since: Kernel,
}

impl MergedMsr {
    const fn new(msr: u32, accesses: Accesses, since: Kernel) -> Self {
        Self { msr, accesses, since }
    }
}

/// Who handles an exit from L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handler {
    /// The host: the access is emulated, and the filter applies.
    L0,
    /// The guest hypervisor sees the exit.
    L1,
}
