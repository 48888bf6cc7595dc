//! The model's KVM in this process: descriptors like those of `/dev/kvm`, and the ioctls on them.
//!
//! Guest memory is this process's memory, as with a real kernel. Whoever has a descriptor calls [`ioctl`] with the number
//! and the argument that the system call would take.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod event;
mod fair;
mod kernel;
mod memory;

pub use kernel::{Reply, call, ioctl, open, release};
