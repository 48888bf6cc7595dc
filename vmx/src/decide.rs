//! Intercept decisions: `decide` answers whether an event makes the guest exit and what the exit reports.

mod view;

pub use view::{Controls, PauseLoop, Processor, Traits, View};
