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

/// It is held. The value is unlocked before the turn is given on: fields are dropped in their order.
pub(crate) struct Held<'a, T> {
    value: MutexGuard<'a, T>,
    _turn: Turn<'a, T>,
}

/// Somebody's turn, until it is given on.
struct Turn<'a, T>(&'a Fair<T>);

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
        Held { value, _turn: Turn(self) }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.serving += 1;
        self.0.turn.notify_all();
    }
}
