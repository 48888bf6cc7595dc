//! [`GuestImage`]: what a loader puts into memory and registers before an embedded guest runs.

use super::layout::*;
use rootmode_arch::{DescriptorTable, Vendor};

/// Why a guest could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// An instruction or label that the assembler refused.
    #[error("the embedded guest does not assemble: {0}")]
    Assembler(#[from] iced_x86::IcedError),
    /// A part grew beyond the place that the layout gives it.
    #[error("{part} of the embedded guest has {bytes} bytes, more than the {room} that the layout gives it")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its size.
        bytes: usize,
        /// The room.
        room: usize,
    },
}

/// Bytes for guest-physical memory, and the state in which the processor starts: 64-bit mode, CPL 0, interrupts off,
/// flat segments from the GDT, an available-for-use TSS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestImage {
    /// The extension that L1 uses.
    pub vendor: Vendor,
    /// Guest-physical addresses and the bytes that belong there.
    pub segments: Vec<(u64, Vec<u8>)>,
    /// RIP.
    pub entry: u64,
    /// RSP.
    pub stack: u64,
    /// CR3.
    pub cr3: u64,
    /// GDTR.
    pub gdt: DescriptorTable,
    /// IDTR.
    pub idt: DescriptorTable,
    /// Base of the TSS that TR refers to.
    pub tss: u64,
    /// Bytes of physical memory that the guest expects.
    pub memory: u64,
}

impl GuestImage {
    /// An image of L1 in its usual place, with nothing in memory yet.
    pub(super) const fn new(vendor: Vendor) -> Self {
        Self {
            vendor,
            segments: Vec::new(),
            entry: L1_CODE,
            stack: L1_STACK,
            cr3: L1_PML4,
            gdt: DescriptorTable { base: L1_GDT, limit: 39 },
            idt: DescriptorTable { base: L1_IDT, limit: 511 },
            tss: L1_TSS,
            memory: L1_MEMORY,
        }
    }

    /// Adds bytes at `address`, if there is room for them.
    pub(super) fn place(
        &mut self,
        part: &'static str,
        address: u64,
        bytes: Vec<u8>,
        room: usize,
    ) -> Result<(), GuestError> {
        if bytes.len() > room {
            return Err(GuestError::TooLong { part, bytes: bytes.len(), room });
        }
        self.segments.push((address, bytes));
        Ok(())
    }
}
