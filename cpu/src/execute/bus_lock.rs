//! Bus locks: locked accesses that cross a cache line (APM Vol. 2 (24593 rev. 3.43) "Bus Lock Threshold", SDM Vol. 3B
//! "OS Bus-Lock Detection"). Memory has no types here, so that none comes from uncacheable memory.

use super::Exec;
use crate::decode::Decoded;
use crate::fault::Result;
use rootmode_arch::{DebugCtl, Dr6, Event, EventClass, Linear, Stage};

/// Bytes of a cache line.
const LINE: u64 = 64;

impl Exec<'_, '_> {
    /// An instruction is about to write `size` bytes at `linear` that it has read, and nothing stops it any more: a bus lock
    /// if it is locked and crosses a cache line. AMD's processors let the hypervisor stop it; on Intel's both the hypervisor
    /// and the system hear of it when the instruction is complete.
    ///
    /// # Errors
    /// The guest was left.
    #[inline]
    pub(super) fn offer_bus_lock(&mut self, op: &Decoded, linear: Linear, size: u8) -> Result {
        if op.locked && linear.0 % LINE + u64::from(size) > LINE { self.bus_lock() } else { Ok(()) }
    }

    #[cold]
    fn bus_lock(&mut self) -> Result {
        self.offer(EventClass::BusLock, Stage::AfterOperands, |_| Event::BusLock)?;
        if self.cpu.msrs.debugctl & DebugCtl::BLD.0 != 0 && self.cpu.cpl != 0 {
            self.cpu.pending_debug |= Dr6::BLD.0;
            self.cpu.update_attention();
        }
        Ok(())
    }
}
