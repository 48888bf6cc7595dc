//! L0's share of host-physical memory: page frames for its own structures.

use std::collections::BTreeSet;

use rootmode_arch::HostPhysical;
use rootmode_mmu::{LayoutError, PhysicalMemory};

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
