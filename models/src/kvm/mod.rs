//! KVM as an executable model: L0's tasks, MSR interception as pure functions of configuration, and known bugs as data.

mod disabled_exits;
mod errno;
pub mod filter;
pub mod host;
pub mod interception;
pub mod nested;
mod regression;
mod tables;

pub use disabled_exits::{DisabledExits, ExitHost};
pub use errno::Errno;
pub use filter::Filter;
pub use regression::{Origin, Regression, Regressions, Row as RegressionRow};
pub use tables::Tables;
