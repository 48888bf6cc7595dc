//! L0: a host whose supervisor is Rust. Its tasks are `async fn`s that can be preempted at named points.

mod executor;
mod point;

pub use executor::{Executor, Lock, Step, Tasks, Yield};
pub use point::{Point, Wait};
