//! [`Fair`]: a lock that is given in the order in which it was asked for, so that vCPUs in a loop starve nobody.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Queue {
    next: u64,
    serving: u64,
}

/// The lock.
pub(crate) struct Fair<T> {
    queue: Mutex<Queue>,
    turn: Condvar,
    value: Mutex<T>,
}

/// It is held.
pub(crate) struct Held<'a, T> {
    fair: &'a Fair<T>,
    /// Until it is given on.
    value: Option<MutexGuard<'a, T>>,
}

impl<T> Fair<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { queue: Mutex::default(), turn: Condvar::new(), value: Mutex::new(value) }
    }

    /// Waits for its turn.
    pub(crate) fn lock(&self) -> Held<'_, T> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let own = queue.next;
        queue.next += 1;
        while queue.serving != own {
            queue = self.turn.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        Held { fair: self, value: Some(value) }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_deref().expect("the value is given on by drop alone")
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_deref_mut().expect("the value is given on by drop alone")
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        let mut queue = self.fair.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.serving += 1;
        self.fair.turn.notify_all();
    }
}
