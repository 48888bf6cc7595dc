//! KVM as an executable model: L0's tasks, MSR interception as pure functions of configuration, and known bugs as data.

pub mod host;
mod regression;

pub use regression::{Origin, Regression, Regressions, Row as RegressionRow};
