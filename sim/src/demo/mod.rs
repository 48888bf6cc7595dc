//! The embedded demonstration, as data: nested runs on both vendors, the same bare, and the digest of everything seen.
//!
//! [`nested_run`] is step 1, [`compare_ways`] step 2, [`digest`] step 5 of the default run. The command line prints them.

mod digest;
mod nested;

pub use digest::{digest, fingerprint};
pub use nested::{CodeCount, NestedRun, OPERATIONS, compare_ways, nested_run};
