//! System calls, as it were: arguments by address, answers as kvm-ioctls gives them.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rootmode_kvm_process::{Reply, call};
use vmm_sys_util::errno::Error;

/// What calls answer.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// `EINVAL`.
const INVALID: i32 = 22;

/// A descriptor of an object.
#[derive(Debug)]
pub(crate) struct Descriptor(OwnedFd);

impl Descriptor {
    pub(crate) const fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn call(&self, number: u32, argument: u64) -> Result<Reply> {
        call(self.raw(), number, argument).map_err(|errno| Error::new(-errno.code()))
    }

    /// An ioctl whose argument is a number.
    pub(crate) fn value(&self, number: u32, argument: u64) -> Result<i32> {
        match self.call(number, argument)? {
            Reply::Value(value) => Ok(value),
            Reply::Descriptor(_) => Err(Error::new(INVALID)),
        }
    }

    /// An ioctl that makes an object.
    pub(crate) fn make(&self, number: u32, argument: u64) -> Result<Self> {
        match self.call(number, argument)? {
            Reply::Descriptor(fd) => Ok(Self(fd)),
            Reply::Value(_) => Err(Error::new(INVALID)),
        }
    }

    /// An ioctl that reads its argument.
    pub(crate) fn put<T>(&self, number: u32, argument: &T) -> Result<i32> {
        self.value(number, std::ptr::from_ref(argument).expose_provenance() as u64)
    }

    /// An ioctl that writes its argument.
    pub(crate) fn fill<T>(&self, number: u32, argument: &mut T) -> Result<i32> {
        self.value(number, std::ptr::from_mut(argument).expose_provenance() as u64)
    }

    /// An ioctl that answers a structure.
    pub(crate) fn get<T: Default>(&self, number: u32) -> Result<T> {
        let mut value = T::default();
        self.fill(number, &mut value)?;
        Ok(value)
    }
}
