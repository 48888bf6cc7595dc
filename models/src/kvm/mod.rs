//! KVM as an executable model: L0's tasks, MSR interception as pure functions of configuration, and known bugs as data.

pub mod abi;
pub mod controls;
mod disabled_exits;
mod errno;
pub mod filter;
pub mod host;
pub mod interception;
pub mod ioctl;
pub mod nested;
pub mod posted;
mod regression;
pub mod rtit;
mod slots;
mod tables;
pub mod trace;
pub mod user_return;
pub mod vm;

pub use disabled_exits::{DisabledExits, ExitHost};
pub use errno::Errno;
pub use filter::Filter;
pub use regression::{
    Behaviour, LEFT_OUT as REGRESSIONS_LEFT_OUT, Origin, Regression, Regressions, Row as RegressionRow,
    Version as KernelVersion,
};
pub use tables::Tables;
