//! [`Errno`]: the error numbers that KVM's ioctls return.

/// An error number of Linux, as a system call returns it (negated).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Errno {
    /// Not permitted.
    Eperm = 1,
    /// No such thing.
    Enoent = 2,
    /// Interrupted.
    Eintr = 4,
    /// Input or output error; for KVM: the VM is bugged, or a table is wrong.
    Eio = 5,
    /// No such device or address.
    Enxio = 6,
    /// A list is too long, or does not fit.
    E2big = 7,
    /// No such descriptor.
    Ebadf = 9,
    /// Try again.
    Eagain = 11,
    /// Out of memory.
    Enomem = 12,
    /// Bad address: user memory could not be read or written.
    Efault = 14,
    /// In use.
    Ebusy = 16,
    /// Exists already.
    Eexist = 17,
    /// No such device.
    Enodev = 19,
    /// Invalid argument.
    Einval = 22,
    /// No such ioctl on this descriptor.
    Enotty = 25,
    /// No space left in a table.
    Enospc = 28,
}

impl Errno {
    /// What the system call returns: -5, -12, ...
    pub const fn code(self) -> i32 {
        -(self as i32)
    }
}
