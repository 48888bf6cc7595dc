//! Physical memory, the hardware page walkers and the TLB.
//!
//! - [`memory`]: [`PhysicalMemory`], the only way to touch guest bytes: owned RAM, MMIO windows, watch marks.
//! - [`walk`]: linear to guest-physical to host-physical, one or two stages, with exact faults and A/D updates.
//! - [`tlb`]: what the processor remembers of walks, tagged, deterministic, part of the machine's state.
//! - [`stale`]: uses of stale translations that the manuals do not allow, for machines that look for them.
//! - [`Digest`]: the portable fingerprint of a machine's state.
//!
//! ```
//! use rootmode_arch::HostPhysical;
//! use rootmode_mmu::PhysicalMemory;
//! let mut memory = PhysicalMemory::new();
//! memory.add_ram(HostPhysical(0), 0x10_0000)?;
//! memory.write_u64(HostPhysical(0x1000), 0x1122_3344_5566_7788);
//! assert_eq!(memory.read_u16(HostPhysical(0x1001)), 0x6677);
//! # Ok::<(), rootmode_mmu::LayoutError>(())
//! ```
#![forbid(unsafe_code)]

mod digest;
pub mod memory;
pub mod stale;
pub mod tlb;
pub mod walk;

pub use digest::Digest;
pub use memory::{Decode, LayoutError, MemoryMap, MemorySnapshot, PageKind, PhysicalMemory, Shadow, Watch};
pub use tlb::{Bank, Key, Lookup, Tag, Tlb};
pub use walk::{
    Access, AccessKind, EntryMemory, Ept, Npt, Paging, PagingMode, PdpteFault, SecondStage, Translation,
    WalkFault, WalkMemo, load_pdptes, look, translate, translate_guest_physical,
};
