//! Bus locks: locked accesses that cross a cache line (APM Vol. 2 (24593 rev. 3.43) "Bus Lock Threshold"). Memory has no
//! types here, so that none comes from uncacheable memory.

use super::Exec;
use crate::decode::{Decoded, Operand};
use crate::fault::Result;
use rootmode_arch::{Event, EventClass, Linear, Stage, Vendor};

/// Bytes of a cache line.
const LINE: u64 = 64;
const LOCK: u8 = 0xf0;

/// Whether the instruction's access to memory is locked: by its prefix, or because it is XCHG.
fn is_locked(op: &Decoded, is_64_bit: bool) -> bool {
    let bytes = &op.current.bytes[..usize::from(op.current.length.min(15))];
    let is_prefix = |byte: u8| {
        matches!(byte, LOCK | 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf2 | 0xf3)
            || is_64_bit && byte & 0xf0 == 0x40
    };
    let prefixes = bytes.iter().take_while(|byte| is_prefix(**byte)).count();
    let is_xchg = matches!(bytes.get(prefixes), Some(0x86 | 0x87));
    op.operands.contains(&Operand::Memory) && (is_xchg || bytes[..prefixes].contains(&LOCK))
}

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
            && is_locked(op, self.cpu.is_64_bit())
        {
            self.raise(&Event::BusLock, Stage::AfterOperands)?;
        }
        Ok(())
    }
}
