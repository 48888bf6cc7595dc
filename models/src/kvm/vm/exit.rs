//! [`ClientExit`]: what a vCPU shows its client when `KVM_RUN` returns, and where the client puts its answer.

/// Why `KVM_RUN` returned. Fields that the client answers in are taken over by the next `KVM_RUN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientExit {
    /// Nothing yet.
    #[default]
    Unknown,
    /// A port access.
    Io {
        /// IN or INS: the client fills `data`.
        input: bool,
        /// Which port.
        port: u16,
        /// Bytes an item: 1, 2 or 4.
        size: u8,
        /// `size` bytes for every item.
        data: Vec<u8>,
    },
    /// An access to guest-physical memory that no slot backs.
    Mmio {
        /// Where.
        address: u64,
        /// The value; the client fills it after a read.
        data: [u8; 8],
        /// Bytes.
        len: u8,
        /// Whether it is a write.
        write: bool,
    },
    /// A hypercall that the client asked for.
    Hypercall {
        /// Number.
        nr: u64,
        /// Arguments.
        args: [u64; 6],
        /// The client's answer.
        ret: u64,
        /// Bit 0: 64-bit mode.
        flags: u64,
    },
    /// The debugger's: a step, a breakpoint.
    Debug {
        /// The exception: 1 or 3.
        exception: u8,
        /// Linear address of the instruction.
        pc: u64,
        /// DR6.
        dr6: u64,
        /// DR7.
        dr7: u64,
    },
    /// HLT.
    Hlt,
    /// An interrupt can be injected now.
    IrqWindowOpen,
    /// A triple fault.
    Shutdown,
    /// The processor refused the vCPU's state.
    FailEntry {
        /// Exit reason or exit code.
        reason: u64,
        /// Physical processor.
        cpu: u32,
    },
    /// A signal.
    Intr,
    /// The guest lowered its task priority.
    SetTpr,
    /// A level-triggered interrupt of the client's I/O APIC ended.
    IoapicEoi {
        /// Its vector.
        vector: u8,
    },
    /// The dirty ring is full.
    DirtyRingFull,
    /// KVM cannot go on.
    InternalError {
        /// `KVM_INTERNAL_ERROR_*`.
        suberror: u32,
        /// What goes with it.
        data: Vec<u64>,
    },
    /// RDMSR that the client decides.
    Rdmsr {
        /// The client's verdict: not 0 is #GP(0).
        error: u8,
        /// `KVM_MSR_EXIT_REASON_*`.
        reason: u32,
        /// Which.
        index: u32,
        /// The client's value.
        data: u64,
    },
    /// WRMSR that the client decides.
    Wrmsr {
        /// The client's verdict: not 0 is #GP(0).
        error: u8,
        /// `KVM_MSR_EXIT_REASON_*`.
        reason: u32,
        /// Which.
        index: u32,
        /// The guest's value.
        data: u64,
    },
}

/// `KVM_INTERNAL_ERROR_EMULATION`.
pub const ERROR_EMULATION: u32 = 1;
/// `KVM_INTERNAL_ERROR_DELIVERY_EV`.
pub const ERROR_DELIVERY: u32 = 3;
/// `KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON`.
pub const ERROR_UNEXPECTED: u32 = 4;

impl ClientExit {
    /// `kvm_run.exit_reason`.
    pub const fn reason(&self) -> u32 {
        match self {
            Self::Unknown => 0,
            Self::Io { .. } => 2,
            Self::Hypercall { .. } => 3,
            Self::Debug { .. } => 4,
            Self::Hlt => 5,
            Self::Mmio { .. } => 6,
            Self::IrqWindowOpen => 7,
            Self::Shutdown => 8,
            Self::FailEntry { .. } => 9,
            Self::Intr => 10,
            Self::SetTpr => 11,
            Self::InternalError { .. } => 17,
            Self::IoapicEoi { .. } => 26,
            Self::Rdmsr { .. } => 29,
            Self::Wrmsr { .. } => 30,
            Self::DirtyRingFull => 31,
        }
    }

    /// The instruction bytes of an emulation failure, as `emulation_failure` carries them.
    pub(super) fn emulation(bytes: [u8; 15], length: u8) -> Self {
        let mut first = [0; 8];
        first[0] = length;
        first[1..].copy_from_slice(&bytes[..7]);
        let mut second = [0; 8];
        second.copy_from_slice(&bytes[7..]);
        let data = vec![1, u64::from_le_bytes(first), u64::from_le_bytes(second)];
        Self::InternalError { suberror: ERROR_EMULATION, data }
    }
}
