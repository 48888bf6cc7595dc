//! Where the generated guests' memory lies, and what the ROM prints of each.

use crate::judges::layout::{ROM_BASE, VARIABLES};
use crate::judges::rom::SPACE;

/// RBX to R15 before VMRUN, in the order of [`RESULT_NAMES`].
pub const REGISTERS: u64 = VARIABLES + 0x100;
/// The same after it, and sums over the data page and the stack page, the latter also without bits 16 and 48 of each word.
pub const RESULTS: u64 = VARIABLES + 0x200;

/// Offset in the ROM of the guests' IDTs, GDT and TSS.
pub const TABLES_OFFSET: usize = SPACE;
/// Bytes of them.
pub const TABLES_SIZE: usize = 0x1a00;
/// The IDT of 64-bit guests: every handler is [`HANDLER`].
pub const IDT64: u64 = ROM_BASE + SPACE as u64;
/// The IDT of 32-bit guests.
pub const IDT32: u64 = IDT64 + 0x1000;
/// The guests' GDT.
pub const GDT: u64 = IDT64 + 0x1800;
/// The guests' TSS.
pub const TSS: u64 = IDT64 + 0x1900;

/// Selectors of the guests' GDT.
pub const CODE64: u16 = 0x08;
/// Data at CPL 0.
pub const DATA: u16 = 0x10;
/// Data at CPL 3.
pub const USER_DATA: u16 = 0x1b;
/// 64-bit code at CPL 3.
pub const USER_CODE: u16 = 0x23;
/// 32-bit code at CPL 0.
pub const CODE32: u16 = 0x28;
/// The TSS.
pub const TASK: u16 = 0x30;

/// PML4, page-directory pointers and directory of the guests: identity in pages of 2 MiB.
pub const PML4: u64 = 0xa0_0000;
/// The page-directory pointers of PAE guests.
pub const PAE_TABLE: u64 = PML4 + 0x3000;
/// The nested tables.
pub const NESTED: u64 = PML4 + 0x8000;
/// I/O and MSR permission maps that intercept nothing: 3 pages, then 2.
pub const OPEN_MAPS: u64 = 0xb0_0000;
/// Those that intercept everything.
pub const CLOSED_MAPS: u64 = 0xb1_0000;
/// Bytes of both maps.
pub const MAPS_SIZE: u64 = 0x6000;
/// Offset of the MSR map behind the I/O map.
pub const MSR_MAP: u64 = 0x3000;
/// The guests' code.
pub const CODE: u64 = 0xc0_0000;
/// Every handler of the guests: VMMCALL.
pub const HANDLER: u64 = CODE + 0x800;
/// Bytes of code that a case stores.
pub const CODE_SIZE: usize = 128;
/// A page that guests may write.
pub const DATA_PAGE: u64 = 0x100_0000;
/// Top of the guests' stack.
pub const STACK: u64 = 0x120_1000;
/// In the guests' tables: the supervisor's, read-only, absent.
pub const SUPERVISOR: u64 = 0x140_0000;
/// Read-only.
pub const READ_ONLY: u64 = 0x160_0000;
/// Absent.
pub const ABSENT: u64 = 0x180_0000;
/// In the nested tables alone: read-only, absent.
pub const NESTED_READ_ONLY: u64 = 0x1a0_0000;
/// Absent.
pub const NESTED_ABSENT: u64 = 0x1c0_0000;

/// What is printed of a VMCB: eight bytes at each offset.
pub const VMCB_FIELDS: &[(u64, &str)] = &[
    (0x70, "EXITCODE"),
    (0x78, "EXITINFO1"),
    (0x80, "EXITINFO2"),
    (0x88, "EXITINTINFO"),
    (0x60, "VINTR"),
    (0x68, "SHADOW"),
    (0xa8, "EVENTINJ"),
    (0x410, "CS"),
    (0x420, "SS"),
    (0x460, "GDTR.LIMIT"),
    (0x468, "GDTR.BASE"),
    (0x480, "IDTR.LIMIT"),
    (0x488, "IDTR.BASE"),
    (0x4c8, "CPL"),
    (0x4d0, "EFER"),
    (0x548, "CR4"),
    (0x550, "CR3"),
    (0x558, "CR0"),
    (0x560, "DR7"),
    (0x568, "DR6"),
    (0x570, "RFLAGS"),
    (0x578, "RIP"),
    (0x5d8, "RSP"),
    (0x5f8, "RAX"),
    (0x640, "CR2"),
    (0x600, "STAR"),
    (0x608, "LSTAR"),
    (0x618, "SFMASK"),
    (0x620, "KERNEL_GS_BASE"),
    (0x628, "SYSENTER_CS"),
    (0x630, "SYSENTER_ESP"),
    (0x448, "FS.BASE"),
    (0x458, "GS.BASE"),
];

/// What is printed behind it.
pub const RESULT_NAMES: &[&str] = &[
    "RBX",
    "RCX",
    "RDX",
    "RSI",
    "RDI",
    "RBP",
    "R8",
    "R9",
    "R10",
    "R11",
    "R12",
    "R13",
    "R14",
    "R15",
    "data",
    "stack",
    "stack-but-rf",
];
