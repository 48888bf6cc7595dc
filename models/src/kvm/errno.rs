//! [`Errno`]: the error numbers that KVM's ioctls return.

/// An error number of Linux, as a system call returns it (negated).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Errno {
    /// Input or output error; for KVM: the VM is bugged, or a table is wrong.
    Eio = 5,
    /// Out of memory.
    Enomem = 12,
    /// Bad address: user memory could not be read or written.
    Efault = 14,
    /// Invalid argument.
    Einval = 22,
    /// No space left in a table.
    Enospc = 28,
}

impl Errno {
    /// What the system call returns: -5, -12, ...
    pub const fn code(self) -> i32 {
        -(self as i32)
    }
}
