//! Bus locks: locked accesses that cross a cache line (APM Vol. 2 (24593 rev. 3.43) "Bus Lock Threshold"). Memory has no
//! types here, so that none comes from uncacheable memory.

use super::Exec;
use crate::decode::Decoded;
use crate::fault::Result;
use rootmode_arch::{Event, EventClass, Linear, Stage, Vendor};

/// Bytes of a cache line.
const LINE: u64 = 64;

impl Exec<'_, '_> {
    /// An instruction is about to write `size` bytes at `linear` that it has read: a bus lock if it is locked and crosses a
    /// cache line. AMD's processors tell the hypervisor before it happens.
    ///
    /// # Errors
    /// The guest was left.
    #[inline]
    pub(super) fn offer_bus_lock(&mut self, op: &Decoded, linear: Linear, size: u8) -> Result {
        if self.cpu.published.intercepts.contains(EventClass::BusLock)
            && linear.0 % LINE + u64::from(size) > LINE
            && self.cpu.model.vendor() == Vendor::Amd
            && op.locked
        {
            self.raise(&Event::BusLock, Stage::AfterOperands)?;
        }
        Ok(())
    }
}
