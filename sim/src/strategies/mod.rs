//! Public proptest strategies. They wrap the generators that campaigns use, and shrink the list of choices behind a
//! value, so that a schedule shrinks together with the program it runs.
//!
//! ```
//! use proptest::prelude::*;
//! use rootmode::strategies::chosen;
//! use rootmode_arch::Site;
//! proptest!(|(n in chosen(|c| c.choose(Site::State, 10)))| prop_assert!(n < 10));
//! ```

mod chosen;
mod interception;

pub use chosen::{Chosen, chosen};
pub use interception::{interception_configuration, msr_bitmap, msr_filter, msr_index, msrpm};
