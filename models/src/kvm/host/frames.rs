//! L0's share of host-physical memory: page frames for its own structures, and the slot that is L1's memory.

use std::collections::BTreeSet;

use rootmode_arch::{GuestPhysical, HostPhysical};
use rootmode_mmu::{LayoutError, PhysicalMemory};

use crate::kvm::nested::{GuestMemory, Unreadable};

/// Where L0's frames start. Frame 0 stays unused, so that a null pointer is never a table.
const FIRST: u64 = 0x1000;
/// Bytes of L0's own memory.
const OWN: u64 = 8 << 20;

/// Page frames, handed out lowest first; given-back ones are used again last in, first out.
#[derive(Clone, Debug)]
pub struct Frames {
    next: u64,
    free: Vec<HostPhysical>,
    held: BTreeSet<u64>,
}

impl Frames {
    /// L0's memory as a new region of `memory`.
    ///
    /// # Errors
    /// [`LayoutError`] if something is there already.
    pub fn new(memory: &mut PhysicalMemory) -> Result<Self, LayoutError> {
        memory.add_ram(HostPhysical(0), OWN)?;
        Ok(Self { next: FIRST, free: Vec::new(), held: BTreeSet::new() })
    }

    /// `count` adjacent zeroed frames; `None` if L0's memory is used up.
    pub fn take(&mut self, memory: &mut PhysicalMemory, count: u64) -> Option<HostPhysical> {
        let at = match self.free.pop_if(|_| count == 1) {
            Some(frame) => frame,
            None => {
                let at = HostPhysical(self.next);
                self.next += count * 4096;
                at
            }
        };
        if at.0 + count * 4096 > OWN {
            return None;
        }
        self.held.extend((0..count).map(|page| at.0 + page * 4096));
        for page in 0..count {
            memory.write(at.offset(page * 4096), &[0; 4096]);
        }
        Some(at)
    }

    /// The frames that are handed out, by address.
    pub const fn held(&self) -> &BTreeSet<u64> {
        &self.held
    }

    /// Gives one frame back.
    pub fn give_back(&mut self, frame: HostPhysical) {
        self.held.remove(&frame.0);
        self.free.push(frame);
    }
}

/// A memory slot: a range of guest-physical addresses that occupies a window of host-physical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Guest-physical address of the first byte.
    pub guest: GuestPhysical,
    /// Host-physical address of the first byte.
    pub base: HostPhysical,
    /// Size.
    pub bytes: u64,
}

impl Slot {
    /// Where `guest` lies; `None` outside the slot.
    pub const fn host(&self, guest: GuestPhysical) -> Option<HostPhysical> {
        let inside = guest.0.wrapping_sub(self.guest.0);
        if inside < self.bytes { Some(self.base.offset(inside)) } else { None }
    }
}

/// The memory slots of a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots(pub Vec<Slot>);

impl Slots {
    /// Where `guest` lies; `None` outside every slot.
    pub fn host(&self, guest: GuestPhysical) -> Option<HostPhysical> {
        self.0.iter().find_map(|slot| slot.host(guest))
    }
}

/// L1's memory for the pure functions that read L1's maps.
pub(super) struct SlotReader<'a> {
    pub(super) memory: &'a PhysicalMemory,
    pub(super) slots: &'a Slots,
}

impl GuestMemory for SlotReader<'_> {
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), Unreadable> {
        let mut done = 0;
        while done < buffer.len() {
            let at = address.checked_add(done as u64).ok_or(Unreadable { address })?;
            let host = self.slots.host(GuestPhysical(at)).ok_or(Unreadable { address })?;
            let count = (buffer.len() - done).min(4096 - (at & 0xfff) as usize);
            self.memory.read(host, &mut buffer[done..done + count]);
            done += count;
        }
        Ok(())
    }
}

impl SlotReader<'_> {
    /// The 8 bytes at a guest-physical address; `None` outside the slots.
    pub(super) fn quadword(&self, address: u64) -> Option<u64> {
        self.slots.host(GuestPhysical(address)).map(|host| self.memory.read_u64(host))
    }
}
