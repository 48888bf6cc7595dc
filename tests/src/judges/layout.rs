//! Where everything lies in the physical memory of a judging machine: fixed, low, and far enough apart that a
//! case whose address has one bit flipped never reaches what the harness itself needs.

/// Size of the whole ROM image, which ends at 4 GiB: the largest that Bochs takes.
pub const IMAGE_SIZE: usize = 0x20_0000;
/// Where the image starts.
pub const IMAGE: u64 = 0x1_0000_0000 - IMAGE_SIZE as u64;
/// Size of the code at the end of the image, which is mirrored below 1 MiB.
pub const ROM_SIZE: usize = 0x1_0000;
/// Where the mirror of the code below 1 MiB starts.
pub const ROM_BASE: u64 = 0xF_0000;
/// Where the image holds what the boot code copies to [`GUEST_CODE`] (one page) and then to [`ARENA`].
pub const COPIED: usize = IMAGE_SIZE - ROM_SIZE - 0x1000 - ARENA_SIZE;

/// The batch of cases: the start of the image, where no case can overwrite it.
pub const BATCH: u64 = IMAGE;
/// Bytes that a batch may have.
pub const BATCH_SIZE: usize = COPIED;

/// The host's page tables: PML4, page-directory pointers, two directories of 2 MiB pages (identity: the first GiB
/// and the fourth, where the image is).
pub const HOST_PML4: u64 = 0x1_0000;
/// The page-directory pointers of a host in PAE mode, above the same directories.
pub const HOST_PAE_TABLE: u64 = HOST_PML4 + 0x4000;
/// The host's variables (current position in the batch, the VMCS pointer operands).
pub const VARIABLES: u64 = 0x9000;
/// Top of the host's stack.
pub const STACK_TOP: u64 = 0x8800;
/// The VMXON region, or on AMD the host save area.
pub const VMXON_REGION: u64 = 0x4000;
/// The VMCS region of every case, or the VMCB.
pub const CONTROL_REGION: u64 = 0x5000;

/// One page full of `CPUID`, mapped one to one by every guest: whatever enters and fetches leaves at once.
pub const GUEST_CODE: u64 = 0x7000;

/// The arena: pages that the boot code copies out of the image (page tables of guests, bitmaps, areas that a case fills).
pub const ARENA: u64 = 0x84_0000;

/// PML4 of a guest in 64-bit mode.
pub const GUEST_PML4: u64 = ARENA;
/// Page-directory pointers below [`GUEST_PML4`]; also the PDPTEs of a PAE guest, which lie in the same page at +0x800.
pub const GUEST_PDPT: u64 = ARENA + 0x1000;
/// Page directory below [`GUEST_PDPT`].
pub const GUEST_PD: u64 = ARENA + 0x2000;
/// Page table below [`GUEST_PD`]: maps [`GUEST_CODE`] only.
pub const GUEST_PT: u64 = ARENA + 0x3000;
/// CR3 of a PAE guest: 32-byte aligned, inside the page of [`GUEST_PAE_TABLE`].
pub const GUEST_PAE_TABLE: u64 = ARENA + 0x4000;
/// Page directory of a guest with 32-bit paging.
pub const GUEST_PD32: u64 = ARENA + 0x5000;
/// Page table of a guest with 32-bit paging.
pub const GUEST_PT32: u64 = ARENA + 0x6000;
/// Root of the second stage (EPT PML4, or the nested PML4).
pub const SECOND_STAGE: u64 = ARENA + 0x8000;
/// I/O bitmap A; B follows. On AMD the IOPM (three pages).
pub const IO_BITMAPS: u64 = ARENA + 0x1_0000;
/// MSR bitmap, or MSRPM (two pages).
pub const MSR_BITMAP: u64 = ARENA + 0x1_4000;
/// VMREAD bitmap; the VMWRITE bitmap follows.
pub const SHADOW_BITMAPS: u64 = ARENA + 0x1_6000;
/// Virtual-APIC page.
pub const VIRTUAL_APIC: u64 = ARENA + 0x1_8000;
/// APIC-access page.
pub const APIC_ACCESS: u64 = ARENA + 0x1_9000;
/// Posted-interrupt descriptor.
pub const POSTED_DESCRIPTOR: u64 = ARENA + 0x1_A000;
/// Area of VM-entry MSR-load entries.
pub const ENTRY_MSR_LOAD: u64 = ARENA + 0x1_B000;
/// Area of VM-exit MSR-store entries.
pub const EXIT_MSR_STORE: u64 = ARENA + 0x1_C000;
/// Area of VM-exit MSR-load entries.
pub const EXIT_MSR_LOAD: u64 = ARENA + 0x1_D000;
/// The region that a VMCS link pointer may name.
pub const LINK_VMCS: u64 = ARENA + 0x1_E000;
/// Page-modification log.
pub const PML_LOG: u64 = ARENA + 0x1_F000;
/// Virtualization-exception information area.
pub const VE_INFORMATION: u64 = ARENA + 0x2_0000;
/// EPTP list, and a spare page for anything else that only has to be an address.
pub const SPARE: u64 = ARENA + 0x2_1000;
/// Bytes of the arena.
pub const ARENA_SIZE: usize = 0x2_2000;

/// Memory of the machine, in MiB.
pub const MEMORY_MIB: u64 = 32;
