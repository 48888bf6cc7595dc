//! MSR interception of a nested guest (L2): the maps of L0 and L1 merged, and who handles an exit.

mod chunks;
mod memory;
mod svm;
mod vmx;

pub use chunks::{ChunkList, ChunkSize, MergeListError, merge_msrs};
pub use memory::{GuestMemory, Unreadable};
pub use svm::{
    ActiveMap, MergeFailed, NestedMsrpm, Vmcb12, msr_exit_handler as svm_msr_exit_handler,
    msr_exit_place as svm_msr_exit_place,
};
pub use vmx::{NestedBitmap, VMX_MERGED, VirtualApic, Vmcs12, msr_exit_handler as vmx_msr_exit_handler};

/// Who handles an exit from L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handler {
    /// The host: the access is emulated, and the filter applies.
    L0,
    /// The guest hypervisor sees the exit.
    L1,
}
