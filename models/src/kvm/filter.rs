//! The userspace MSR filter (KVM_X86_SET_MSR_FILTER): rules, ABI, swap, and what a refused access leads to.

mod abi;
mod outcome;
mod rules;
mod slot;

pub use abi::{
    FilterError, Layout, MAX_BITMAP_BYTES, Prepared, RANGES, UserFault, UserMemory, parse, prepare,
};
pub use outcome::{
    ExitMask, ExitRecord, Failure, MsrExit, MsrFile, Outcome, Path, Resumed, handle, handle_failure, resume,
};
pub(super) use rules::UNFILTERABLE;
pub use rules::{Filter, FilterRange, MsrBits};
pub use slot::{FilterSlot, SwapStep};
