//! One case and its outcome, laid out so that two processes can share them; and where code and data lie.

/// First address of the shared addresses: pages 0 to 9 below. Reachable with 32-bit addresses and displacements.
pub const ARENA: u64 = 0x1000_0000;
/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Pages that exist in both address spaces; the pages between them, and those around them, do not.
pub const PAGES: [(u64, Rights); 6] = [
    (1, Rights::Code),
    (2, Rights::Code),
    (4, Rights::Data),
    (5, Rights::Data),
    (7, Rights::Data),
    (8, Rights::ReadOnly),
];
/// Pages from [`ARENA`] to the end of the last one.
pub const ARENA_PAGES: u64 = 9;
/// The pages of [`Case::memory`], in order.
pub const DATA_PAGES: [u64; 3] = [4, 5, 7];
/// Code starts here.
pub const CODE: u64 = ARENA + PAGE;
/// Behind the last byte of code.
pub const CODE_END: u64 = CODE + 2 * PAGE;
/// The page that may be read only.
pub const READ_ONLY: u64 = ARENA + 8 * PAGE;
/// Bytes of [`Case::memory`].
pub const MEMORY: usize = DATA_PAGES.len() * PAGE as usize;

/// What user mode may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read and execute.
    Code,
    /// Read and write.
    Data,
    /// Read.
    ReadOnly,
}

/// Selectors of user code and data, as Linux sets them up.
pub const CODE_64: u64 = 0x33;
/// 32-bit code.
pub const CODE_32: u64 = 0x23;
/// Data and stack.
pub const DATA_SELECTOR: u64 = 0x2b;
/// [`Registers::selectors`] of every case.
pub const SELECTORS: [u64; 4] = [DATA_SELECTOR, DATA_SELECTOR, 0, 0];

/// The registers of user mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// General registers by number.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// Base of FS.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
    /// CS.
    pub cs: u64,
    /// ES, DS, FS, GS; every case starts with two of [`DATA_SELECTOR`] and two null selectors.
    pub selectors: [u64; 4],
    /// The image that FXSAVE64 makes; the last 96 bytes are not compared.
    pub fx: [u8; 512],
    /// The upper halves of the YMM registers.
    pub upper: [[u8; 16]; 16],
}

/// One case: where to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Case {
    /// Registers; RIP is the address of the instruction.
    pub registers: Registers,
    /// The instruction, and INT3 behind it.
    pub code: [u8; 16],
    /// How many iterations of a REP instruction are run.
    pub steps: u64,
    /// Here, the instruction runs in one go with the INT3 behind it, so that the fast engine takes it; a REP instruction
    /// runs all its steps in one go.
    pub together: bool,
    /// The data pages.
    pub memory: [u8; MEMORY],
}

/// No exception was raised.
pub const COMPLETED: u64 = 0x100;
/// This engine does not model the instruction.
pub const UNMODELLED: u64 = 0x101;

/// What a case led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Outcome {
    /// Registers.
    pub registers: Registers,
    /// Vector of the exception, or [`COMPLETED`], or [`UNMODELLED`].
    pub vector: u64,
    /// Error code.
    pub error: u64,
    /// CR2, for page faults.
    pub cr2: u64,
    /// The data pages.
    pub memory: [u8; MEMORY],
}

impl Outcome {
    /// Takes back the INT3 behind the instruction, at `behind`, if it was reached: the instruction completed.
    pub fn take_back_int3(&mut self, behind: u64) {
        if self.vector == 3 && self.registers.rip == behind + 1 {
            self.vector = COMPLETED;
            self.registers.rip = behind;
        }
    }
}

/// The initial x87 and SSE state.
pub const fn initial_fx() -> [u8; 512] {
    let mut fx = [0; 512];
    fx[0] = 0x7f;
    fx[1] = 0x03;
    fx[24] = 0x80;
    fx[25] = 0x1f;
    fx
}
