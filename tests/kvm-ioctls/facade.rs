//! The vmm-sys-util crate with two functions changed: ioctls, and opening `/dev/kvm`, go to the model in this process.
//!
//! `rootmode-tests kvm-ioctls` puts it in the crate's place, beside an unmodified kvm-ioctls.

pub use real::*;

/// Opens a file, or what `/dev/kvm` would be. It takes the C library's `open`'s place for this program: nothing here ever
/// reaches a device of that name, and none need exist.
///
/// # Safety
/// As the C library's: `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const std::ffi::c_char, flags: i32, mode: u32) -> i32 {
    // SAFETY: the caller passes a C string.
    let name = unsafe { std::ffi::CStr::from_ptr(path) };
    if name.to_bytes() != b"/dev/kvm" {
        // SAFETY: it is the same call, past the C library.
        return unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as i32 };
    }
    match rootmode_kvm_process::open(flags & libc::O_CLOEXEC != 0) {
        Ok(fd) => std::os::fd::IntoRawFd::into_raw_fd(fd),
        Err(error) => failed(error.code()),
    }
}

/// What a system call that failed with `code` (-22, ...) returns.
fn failed(code: i32) -> i32 {
    nix::errno::Errno::from_raw(-code).set();
    -1
}

/// As vmm-sys-util's, but for where the calls go.
pub mod ioctl {
    use std::os::fd::AsRawFd;
    use std::os::raw::{c_int, c_ulong};

    pub use real::ioctl::*;

    fn forward(fd: &impl AsRawFd, number: c_ulong, argument: u64) -> c_int {
        match rootmode_kvm_process::ioctl(fd.as_raw_fd(), number as u32, argument) {
            Ok(value) => value,
            Err(errno) => super::failed(errno.code()),
        }
    }

    /// # Safety
    /// None is needed.
    pub unsafe fn ioctl<F: AsRawFd>(fd: &F, req: c_ulong) -> c_int {
        forward(fd, req, 0)
    }

    /// # Safety
    /// None is needed.
    pub unsafe fn ioctl_with_val<F: AsRawFd>(fd: &F, req: c_ulong, arg: c_ulong) -> c_int {
        forward(fd, req, arg)
    }

    /// # Safety
    /// `arg` is what the call expects.
    pub unsafe fn ioctl_with_ref<F: AsRawFd, T>(fd: &F, req: c_ulong, arg: &T) -> c_int {
        forward(fd, req, std::ptr::from_ref(arg).expose_provenance() as u64)
    }

    /// # Safety
    /// `arg` is what the call expects.
    pub unsafe fn ioctl_with_mut_ref<F: AsRawFd, T>(fd: &F, req: c_ulong, arg: &mut T) -> c_int {
        forward(fd, req, std::ptr::from_mut(arg).expose_provenance() as u64)
    }

    /// # Safety
    /// `arg` is what the call expects.
    pub unsafe fn ioctl_with_ptr<F: AsRawFd, T>(fd: &F, req: c_ulong, arg: *const T) -> c_int {
        forward(fd, req, arg.expose_provenance() as u64)
    }

    /// # Safety
    /// `arg` is what the call expects.
    pub unsafe fn ioctl_with_mut_ptr<F: AsRawFd, T>(fd: &F, req: c_ulong, arg: *mut T) -> c_int {
        forward(fd, req, arg.expose_provenance() as u64)
    }
}
