//! L0: a host whose supervisor is Rust. Its tasks are `async fn`s that can be preempted at named points.
//!
//! [`Host`] is a board with a physical processor, on which L0 executes its instructions as values. L1 runs as its guest,
//! and what L1 does with VMX or SVM, L0 emulates (nested virtualization): `vmx/` and `svm/`.

mod executor;
mod frames;
mod machine;
mod point;
mod second_stage;
mod supervisor;
mod svm;
mod vmx;
mod worker;

pub use executor::{Executor, Lock, Step, Tasks, Yield};
pub use frames::{Frames, Slot};
pub use machine::{HostBug, Machine};
pub use point::{Point, Wait};
pub use second_stage::{Access12, Guest12, Mapped12, Refused, Rights, Tables};
pub use supervisor::{Host, HostConfig, SLOT_BASE};
