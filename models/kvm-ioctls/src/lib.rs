//! The model of KVM with the names of the kvm-ioctls crate, to be put in its place:
//!
//! ```toml
//! [patch.crates-io]
//! kvm-ioctls = { path = "models/kvm-ioctls" }
//! ```
//!
//! A program then needs neither `/dev/kvm` nor a processor with virtualization; its VMs run on the model, and
//! `ROOTMODE_VENDOR=amd` gives them AMD's processors. What the model lacks is not here, so that a program that needs it
//! does not compile. `examples/tiny_vmm.rs` is a whole client.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod call;
mod cap;
mod chips;
mod exit;
mod system;
mod vcpu;
mod vm;

pub use cap::Cap;
pub use chips::NoDatamatch;
pub use exit::{HypercallExit, MsrExitReason, ReadMsrExit, VcpuExit, WriteMsrExit};
pub use system::Kvm;
pub use vcpu::VcpuFd;
pub use vm::{IoEventAddress, VmFd};
pub use vmm_sys_util::errno::Error;
