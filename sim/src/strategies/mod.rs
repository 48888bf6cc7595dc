//! Public proptest strategies: VMCSs, VMCBs, bitmaps, filters, CPUID and event sequences just inside and just outside
//! every boundary. They wrap the generators that campaigns use, and shrink the list of choices behind a value, so that a
//! schedule shrinks together with the program it runs.
//!
//! ```
//! use proptest::prelude::*;
//! proptest!(|(map in rootmode::strategies::msrpm(), msr in 0x2000..0xc000_0000_u32)| {
//!     prop_assert!(map.test(msr, rootmode_svm::Access::Read), "an MSR without a bit always exits");
//! });
//! ```

mod chosen;
mod event;
mod interception;
mod states;

pub use chosen::{Chosen, chosen};
pub use interception::{interception_configuration, msr_bitmap, msr_filter, msr_index, msrpm};
pub use states::{cpuid, events, vmcb, vmcs};
