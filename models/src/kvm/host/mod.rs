//! L0: a host whose supervisor is Rust. Its tasks are `async fn`s that can be preempted at named points.
//!
//! [`Host`] is a board with a physical processor, on which L0 executes its instructions as values. L1 runs as its guest,
//! and what L1 does with VMX or SVM, L0 emulates (nested virtualization): `vmx/` and `svm/`.

mod backend;
mod executor;
mod frames;
mod machine;
mod nested_state;
mod point;
mod second_stage;
mod state;
mod supervisor;
mod svm;
mod vmx;
mod worker;

use std::sync::{Arc, Mutex};

use rootmode_arch::Vendor;

use crate::kvm::Filter;
use crate::kvm::interception::Configuration;

pub(crate) use executor::finish;
pub(crate) use vmx::{lock, nested_capabilities};

pub use backend::{
    Arrival, Backend, Cause, Debugging, Entry, Exit, Injection, Nested, Shadowed, Task, Touched,
};
pub use executor::{Executor, Flag, Lock, Step, Tasks, Yield};
pub use frames::Frames;
pub use machine::{Ended, HostBug, Machine, Request};
pub use nested_state::{NestedState, SvmState, VmxState};
pub use point::{Point, Wait};
pub use second_stage::{Access12, Guest12, Mapped12, Refused, Rights, Tables};
pub(crate) use state::Start;
pub use state::State;
pub use supervisor::{Host, HostConfig, SLOT_BASE};

/// A vCPU of `start`'s vendor on physical processor `processor`, set up and not entered yet.
///
/// # Errors
/// [`HostBug`] if L0 cannot set itself up.
pub(crate) fn backend(
    machine: Arc<Mutex<Machine>>,
    processor: u8,
    tasks: Tasks,
    mmu: Lock,
    start: &Start,
    configuration: Configuration,
    filter: Filter,
) -> Result<Box<dyn Backend>, HostBug> {
    Ok(match start.model.vendor() {
        Vendor::Intel => {
            Box::new(vmx::VmxVcpu::new(machine, processor, tasks, mmu, start, configuration, filter)?)
        }
        Vendor::Amd => {
            Box::new(svm::SvmVcpu::new(machine, processor, tasks, mmu, start, configuration, filter)?)
        }
    })
}
