//! Coalesced writes: zones in which the guest's writes are collected in a ring, until the client looks at it.

use crate::kvm::Errno;
use crate::kvm::abi::{CoalescedMmio, CoalescedMmioZone, PAGE, Plain};

use super::guard::Sent;

/// Entries of a ring of one page, of which one stays free.
pub const RING_ENTRIES: usize = (PAGE as usize - 8) / CoalescedMmio::SIZE;

/// A VM's zones and what was collected.
#[derive(Clone, Debug, Default)]
pub(super) struct Coalesced {
    zones: Vec<CoalescedMmioZone>,
    ring: Vec<CoalescedMmio>,
}

impl Coalesced {
    /// `KVM_REGISTER_COALESCED_MMIO`.
    pub(super) fn register(&mut self, zone: &CoalescedMmioZone) -> Result<(), Errno> {
        if zone.pio > 1 {
            return Err(Errno::Einval);
        }
        self.zones.push(*zone);
        Ok(())
    }

    /// `KVM_UNREGISTER_COALESCED_MMIO`: every zone within this one goes.
    pub(super) fn unregister(&mut self, zone: &CoalescedMmioZone) -> Result<(), Errno> {
        if zone.pio > 1 {
            return Err(Errno::Einval);
        }
        let end = zone.addr.saturating_add(zone.size.into());
        self.zones.retain(|other| {
            let other_end = other.addr.saturating_add(other.size.into());
            other.pio != zone.pio || other.addr < zone.addr || other_end > end
        });
        Ok(())
    }

    /// Collects a write, if a zone has it and the ring has room.
    pub(super) fn takes(&mut self, sent: &Sent) -> bool {
        let (phys_addr, len, data, pio) = match *sent {
            Sent::Mmio { address, size, value } => (address.0, u32::from(size), value.to_le_bytes(), 0),
            Sent::Port { port, size, value } => {
                (port.into(), u32::from(size), u64::from(value).to_le_bytes(), 1)
            }
        };
        let inside = |zone: &CoalescedMmioZone| {
            zone.pio == pio
                && phys_addr >= zone.addr
                && phys_addr + u64::from(len) <= zone.addr.saturating_add(zone.size.into())
        };
        if self.ring.len() >= RING_ENTRIES - 1 || !self.zones.iter().any(inside) {
            return false;
        }
        let mut entry = CoalescedMmio { phys_addr, len, pio, data: [0; 8] };
        let count = (len as usize).min(8);
        entry.data[..count].copy_from_slice(&data[..count]);
        self.ring.push(entry);
        true
    }

    /// What was collected, oldest first; the ring is empty afterwards.
    pub(super) fn take(&mut self) -> Vec<CoalescedMmio> {
        std::mem::take(&mut self.ring)
    }
}
