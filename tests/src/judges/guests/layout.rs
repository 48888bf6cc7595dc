//! Where the generated guests' memory lies, and what the ROM prints of each.

use crate::judges::layout::{ROM_BASE, VARIABLES};
use crate::judges::rom::SPACE;

/// RBX to R15 before VMRUN, in the order of [`RESULT_NAMES`].
pub const REGISTERS: u64 = VARIABLES + 0x100;
/// The same after it, and sums over the data page and the stack page, the latter also without bits 16 and 48 of each word.
pub const RESULTS: u64 = VARIABLES + 0x200;

/// RAX before VMLAUNCH.
pub const RAX_VALUE: u64 = VARIABLES + 0x300;
/// CR2 before VMLAUNCH.
pub const CR2_VALUE: u64 = VARIABLES + 0x308;
/// What a VMX guest leaves: reason, then in the order of [`VMX_STATE`].
pub const STATES: u64 = VARIABLES + 0x400;
/// Values of VMCS fields before VMLAUNCH, in the order of [`FIELDS`](crate::judges::vmcs::FIELDS).
pub const FIELD_VALUES: u64 = VARIABLES + 0x1000;

/// Offset in the ROM of the guests' IDTs, GDT and TSS.
pub const TABLES_OFFSET: usize = SPACE;
/// Bytes of them.
pub const TABLES_SIZE: usize = 0x1a00;
/// Encodings of the VMCS fields that are written and then of those that are printed, behind the tables.
pub const ENCODINGS: u64 = IDT64 + TABLES_SIZE as u64;
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

/// Offset of CR2 in a VMCB.
pub const VMCB_CR2: u64 = 0x640;

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
    (VMCB_CR2, "CR2"),
    (0x600, "STAR"),
    (0x608, "LSTAR"),
    (0x618, "SFMASK"),
    (0x620, "KERNEL_GS_BASE"),
    (0x628, "SYSENTER_CS"),
    (0x630, "SYSENTER_ESP"),
    (0x448, "FS.BASE"),
    (0x458, "GS.BASE"),
];

/// What is printed of a VMCS, by encoding.
pub const VMCS_FIELDS: &[(u32, &str)] = &[
    (0x6400, "QUALIFICATION"),
    (0x640a, "LINEAR-ADDRESS"),
    (0x2400, "PHYSICAL-ADDRESS"),
    (0x4404, "INTERRUPTION-INFO"),
    (0x4406, "INTERRUPTION-ERROR"),
    (0x4408, "VECTORING-INFO"),
    (0x440a, "VECTORING-ERROR"),
    (0x440c, "INSTRUCTION-LENGTH"),
    (0x440e, "INSTRUCTION-INFO"),
    (0x4016, "ENTRY-INTERRUPTION-INFO"),
    (0x4012, "ENTRY-CONTROLS"),
    (0x4824, "INTERRUPTIBILITY"),
    (0x4826, "ACTIVITY"),
    (0x6822, "PENDING-DEBUG"),
    (0x6800, "CR0"),
    (0x6802, "CR3"),
    (0x6804, "CR4"),
    (0x681a, "DR7"),
    (0x681c, "RSP"),
    (0x681e, "RIP"),
    (0x6820, "RFLAGS"),
    (0x2806, "EFER"),
    (0x2804, "PAT"),
    (0x280a, "PDPTE0"),
    (0x0802, "CS"),
    (0x0804, "SS"),
    (0x0806, "DS"),
    (0x080c, "LDTR"),
    (0x080e, "TR"),
    (0x4802, "CS.LIMIT"),
    (0x4804, "SS.LIMIT"),
    (0x4816, "CS.RIGHTS"),
    (0x4818, "SS.RIGHTS"),
    (0x481a, "DS.RIGHTS"),
    (0x4820, "LDTR.RIGHTS"),
    (0x4822, "TR.RIGHTS"),
    (0x6808, "CS.BASE"),
    (0x680e, "FS.BASE"),
    (0x6810, "GS.BASE"),
    (0x6814, "TR.BASE"),
    (0x4810, "GDTR.LIMIT"),
    (0x6816, "GDTR.BASE"),
    (0x4812, "IDTR.LIMIT"),
    (0x6818, "IDTR.BASE"),
    (0x482a, "SYSENTER_CS"),
    (0x6824, "SYSENTER_ESP"),
    (0x6826, "SYSENTER_EIP"),
];

/// What of the processor is printed behind it.
pub const VMX_STATE: &[(State, &str)] = &[
    (State::Rax, "RAX"),
    (State::Cr2, "CR2"),
    (State::Dr1, "DR1"),
    (State::Dr6, "DR6"),
    (State::Msr(0xc000_0081), "STAR"),
    (State::Msr(0xc000_0082), "LSTAR"),
    (State::Msr(0xc000_0084), "SFMASK"),
    (State::Msr(0xc000_0102), "KERNEL_GS_BASE"),
    (State::Msr(0xc000_0103), "TSC_AUX"),
];

/// A register that a VM exit leaves as the guest had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// RAX.
    Rax,
    /// CR2.
    Cr2,
    /// DR1.
    Dr1,
    /// DR6.
    Dr6,
    /// An MSR.
    Msr(u32),
}

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
