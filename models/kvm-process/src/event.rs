//! Event counters (`eventfd`) of this process, by descriptors of our own that the client's closing does not touch.

use std::os::fd::{OwnedFd, RawFd};

use rootmode_models::kvm::Errno;
use rootmode_models::kvm::vm::EventCounter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// A counter.
pub(crate) struct Counter {
    fd: OwnedFd,
    id: u64,
}

impl Counter {
    /// The counter behind a descriptor.
    ///
    /// # Errors
    /// [`Errno::Ebadf`] if there is no such descriptor, [`Errno::Einval`] if it is none of a counter.
    pub(crate) fn open(descriptor: RawFd) -> Result<Self, Errno> {
        let information =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).map_err(|_| Errno::Ebadf)?;
        let id = information.lines().find_map(|line| line.strip_prefix("eventfd-id:"));
        let id = id.and_then(|id| id.trim().parse().ok()).ok_or(Errno::Einval)?;
        let own = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|_| Errno::Enomem)?;
        let fd = pidfd_getfd(own, descriptor, PidfdGetfdFlags::empty()).map_err(|_| Errno::Ebadf)?;
        Ok(Self { fd, id })
    }

    /// Whether it can be read or written without waiting.
    fn is_ready(&self, flags: PollFlags) -> bool {
        let mut fds = [PollFd::new(&self.fd, flags)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }
}

impl EventCounter for Counter {
    fn id(&self) -> u64 {
        self.id
    }

    fn signal(&self) {
        if self.is_ready(PollFlags::OUT) {
            // Whoever counts it down in between leaves room, not less of it.
            let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }

    fn take(&self) -> bool {
        self.is_ready(PollFlags::IN) && rustix::io::read(&self.fd, &mut [0; 8]).is_ok()
    }
}
