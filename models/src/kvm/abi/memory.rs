//! Structures about guest memory, and about MSR filters, whose bitmaps lie in the client's memory.

use super::plain::structures;

/// `KVM_MEM_LOG_DIRTY_PAGES`, a flag of [`UserspaceMemoryRegion`].
pub const MEM_LOG_DIRTY_PAGES: u32 = 1;
/// `KVM_MEM_READONLY`, a flag of [`UserspaceMemoryRegion`].
pub const MEM_READONLY: u32 = 2;

structures! {
    UserspaceMemoryRegion = "kvm_userspace_memory_region" {
        slot: u32, flags: u32, guest_phys_addr: u64, memory_size: u64, userspace_addr: u64,
    }
    UserspaceMemoryRegion2 = "kvm_userspace_memory_region2" {
        slot: u32, flags: u32, guest_phys_addr: u64, memory_size: u64, userspace_addr: u64,
        guest_memfd_offset: u64, guest_memfd: u32, pad1: u32, pad2: [u64; 14],
    }
    DirtyLog = "kvm_dirty_log" { slot: u32, padding1: u32, dirty_bitmap: u64, }
    ClearDirtyLog = "kvm_clear_dirty_log" { slot: u32, num_pages: u32, first_page: u64, dirty_bitmap: u64, }
    DirtyGfn = "kvm_dirty_gfn" { flags: u32, slot: u32, offset: u64, }
    MemoryAttributes = "kvm_memory_attributes" { address: u64, size: u64, attributes: u64, flags: u64, }
    CreateGuestMemfd = "kvm_create_guest_memfd" { size: u64, flags: u64, reserved: [u64; 6], }
    PreFaultMemory = "kvm_pre_fault_memory" { gpa: u64, size: u64, flags: u64, padding: [u64; 5], }
    CoalescedMmioZone = "kvm_coalesced_mmio_zone" { addr: u64, size: u32, pio: u32, }
    CoalescedMmio = "kvm_coalesced_mmio" { phys_addr: u64, len: u32, pio: u32, data: [u8; 8], }
    /// The head; entries fill the rest of the page.
    CoalescedMmioRing = "kvm_coalesced_mmio_ring" { first: u32, last: u32, }
    MsrFilterRange = "kvm_msr_filter_range" { flags: u32, nmsrs: u32, base: u32, pad: u32, bitmap: u64, }
    MsrFilter = "kvm_msr_filter" { flags: u32, pad: u32, ranges: [MsrFilterRange; 16], }
    /// The head; the set follows.
    SignalMask = "kvm_signal_mask" { len: u32, }
}
