//! Where everything lies in L1's physical memory and in L2's guest-physical memory.

/// Bytes of L1's physical memory.
pub const L1_MEMORY: u64 = 16 << 20;
/// Port that prints a byte.
pub const PRINT_PORT: u32 = 0xe9;
/// Port whose 32-bit write stops the machine with the written value.
pub const SHUTDOWN_PORT: u32 = 0xf4;

/// L1's page tables: PML4, then PDPT, then one page directory of 2 MiB pages; identity.
pub const L1_PML4: u64 = 0x1000;
/// L1's GDT: null, code, data, TSS (16 bytes).
pub const L1_GDT: u64 = 0x5000;
/// L1's 64-bit TSS.
pub const L1_TSS: u64 = 0x5800;
/// L1's IDT (all gates absent: an exception in L1 ends in a triple fault).
pub const L1_IDT: u64 = 0x6000;
/// Top of L1's stack while it starts.
pub const L1_STACK: u64 = 0x8000;
/// Top of the stack on which L1 handles exits; L2's registers are pushed here first.
pub const L1_EXIT_STACK: u64 = 0xa000;
/// L1's variables, see [`data`].
pub const L1_DATA: u64 = 0xb000;
/// Table of fields that L1 writes into its control structure.
pub const L1_FIELDS: u64 = 0xc000;
/// What L1 changes before each entry, of programs that do.
pub const L1_EDITS: u64 = 0xe000;
/// MSR-load area of such programs.
pub const L1_MSRS: u64 = 0xf000;
/// L1's code.
pub const L1_CODE: u64 = 0x10000;
/// VMXON region, or the host save area.
pub const VMXON_REGION: u64 = 0x20000;
/// VMCS region, or VMCB.
pub const CONTROL: u64 = 0x21000;
/// VMCB in which L1 keeps its own VMLOAD state.
pub const HOST_VMCB: u64 = 0x22000;
/// MSR bitmap (one page) or MSR permission map (two).
pub const MSR_MAP: u64 = 0x24000;
/// I/O bitmaps A and B (two pages) or the I/O permission map (three).
pub const IO_MAP: u64 = 0x26000;
/// Second-stage tables, levels 4, 3, 2, 1, one page each.
pub const SECOND_STAGE: u64 = 0x2a000;
/// The second stage's last level: 512 entries for the first 2 MiB.
pub const SECOND_STAGE_LEAVES: u64 = SECOND_STAGE + 0x3000;
/// Count of exits by reason or code, 8 bytes each.
pub const COUNTS: u64 = 0x30000;
/// Reasons and codes below this are counted.
pub const COUNTED: u64 = 0x410;
/// L2's guest-physical address 0 in L1's physical memory.
pub const L2_BASE: u64 = 0x20_0000;
/// Of programs that keep a log: the values that went into the checksum, 8 bytes each.
pub const L1_LOG: u64 = 0x50_0000;
/// Bytes of L2's guest-physical memory.
pub const L2_MEMORY: u64 = 2 << 20;

/// Offsets of L1's variables from [`L1_DATA`].
pub mod data {
    /// Checksum over everything L1 has seen.
    pub const CHECKSUM: i32 = 0;
    /// Exits seen.
    pub const EXITS: i32 = 8;
    /// A pointer operand for VMXON, VMCLEAR and VMPTRLD.
    pub const POINTER: i32 = 16;
    /// INVEPT descriptor, 16 bytes.
    pub const DESCRIPTOR: i32 = 32;
    /// Whether L2 has been entered once.
    pub const LAUNCHED: i32 = 48;
    /// Where the next change of the VMCS is read.
    pub const EDIT: i32 = 56;
    /// Where a software interrupt returns to that L1 injects; 0 if it injects none.
    pub const RETURN: i32 = 72;
    /// How many values the log has.
    pub const LOGGED: i32 = 64;
}

/// L2's paging structures: PML4, PDPT, page directory, page table.
pub const L2_PML4: u64 = 0x1000;
/// L2's GDT: null, code, data, TSS.
pub const L2_GDT: u64 = 0x5000;
/// L2's IDT, 64 gates.
pub const L2_IDT: u64 = 0x6000;
/// Top of L2's stack.
pub const L2_STACK: u64 = 0x8000;
/// L2's 64-bit TSS.
pub const L2_TSS: u64 = 0x8000;
/// L2's exception handlers.
pub const L2_HANDLERS: u64 = 0x9000;
/// Where L2's instructions store what nobody wants.
pub const L2_SCRATCH: u64 = 0xa000;
/// L2's program.
pub const L2_CODE: u64 = 0x10000;
/// First of [`WINDOW_PAGES`] pages whose second-stage entries are chosen.
pub const WINDOW: u64 = 0x40000;
/// Pages in the window.
pub const WINDOW_PAGES: u64 = 16;
/// First of [`WINDOW_PAGES`] linear pages that L2's own page table leaves absent.
pub const ABSENT: u64 = 0x80000;

/// Selector of the code segment, of L1 and L2.
pub const CODE_SELECTOR: u16 = 0x08;
/// Selector of the data segment.
pub const DATA_SELECTOR: u16 = 0x10;
/// Selector of the TSS.
pub const TSS_SELECTOR: u16 = 0x18;
