//! Suites: kvm-unit-tests' directories and lists in the same grammar, run on machines of our own.
//!
//! [`Definition::parse_all`] reads a list; [`plan`] fans every definition out over its variants and decides, in upstream's
//! order, which are skipped and why; [`execute`](fn@execute) runs the rest in parallel and answers in the list's order; [`report`] prints
//! text, TAP 13, JUnit and JSON; [`expect`] compares with a golden list. Facts about the grammar, the order of filters and
//! exit statuses: kvm-unit-tests, `docs/unittests.md`, `scripts/common.bash`, `scripts/runtime.bash`.
//!
//! ```
//! use rootmode::suite::{Definition, Request, plan};
//! let list = Definition::parse_all("[memory]\nfile = memory.flat\ngroups = nodefault\n");
//! let cases = plan(&list, std::path::Path::new("."), &Request::default());
//! assert_eq!(cases[0].skipped.as_deref(), Some("test marked as manual run only"));
//! ```

mod case;
mod definition;
mod execute;
pub mod expect;
mod outcome;
mod qemu;
pub mod report;
#[cfg(test)]
mod tests;
mod words;

pub use case::{Case, Generator, Request, on_processors, plan, processors};
pub use definition::Definition;
pub use execute::execute;
pub use outcome::{Kind, Line, Outcome, Verdict};
