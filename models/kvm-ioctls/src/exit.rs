//! [`VcpuExit`]: why `run` returned, with the buffers that the client answers in.

use kvm_bindings::{
    KVM_MSR_EXIT_REASON_FILTER, KVM_MSR_EXIT_REASON_INVAL, KVM_MSR_EXIT_REASON_UNKNOWN, kvm_debug_exit_arch,
};
use rootmode_models::kvm::abi::{Debug, Eoi, FailEntry, Hypercall, Io, MemoryFault, Mmio, Msr, Plain, Run};

bitflags::bitflags! {
    /// Why an MSR access came to the client.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MsrExitReason: u32 {
        /// KVM does not know the MSR.
        const Unknown = KVM_MSR_EXIT_REASON_UNKNOWN;
        /// The value is invalid.
        const Inval = KVM_MSR_EXIT_REASON_INVAL;
        /// The filter denies it.
        const Filter = KVM_MSR_EXIT_REASON_FILTER;
    }
}

/// RDMSR that the client decides.
#[derive(Debug)]
pub struct ReadMsrExit<'a> {
    /// Not 0: the guest takes #GP(0).
    pub error: &'a mut u8,
    /// Why.
    pub reason: MsrExitReason,
    /// Which.
    pub index: u32,
    /// The client's value.
    pub data: &'a mut u64,
}

/// WRMSR that the client decides.
#[derive(Debug)]
pub struct WriteMsrExit<'a> {
    /// Not 0: the guest takes #GP(0).
    pub error: &'a mut u8,
    /// Why.
    pub reason: MsrExitReason,
    /// Which.
    pub index: u32,
    /// The guest's value.
    pub data: u64,
}

/// A hypercall that the client asked for.
#[derive(Debug)]
pub struct HypercallExit<'a> {
    /// Number.
    pub nr: u64,
    /// Arguments.
    pub args: [u64; 6],
    /// The client's answer.
    pub ret: &'a mut u64,
    /// The guest is in 64-bit mode.
    pub longmode: u32,
}

/// Why `run` returned.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum VcpuExit<'a> {
    /// OUT: port, bytes.
    IoOut(u16, &'a [u8]),
    /// IN: port, bytes to fill.
    IoIn(u16, &'a mut [u8]),
    /// Read of memory that no slot backs: address, bytes to fill.
    MmioRead(u64, &'a mut [u8]),
    /// Write: address, bytes.
    MmioWrite(u64, &'a [u8]),
    Unknown,
    Exception,
    Hypercall(HypercallExit<'a>),
    Debug(kvm_debug_exit_arch),
    Hlt,
    IrqWindowOpen,
    Shutdown,
    /// Hardware's reason, physical processor.
    FailEntry(u64, u32),
    Intr,
    SetTpr,
    TprAccess,
    Nmi,
    InternalError,
    /// Type, data.
    SystemEvent(u32, &'a [u64]),
    IoapicEoi(u8),
    Hyperv,
    X86Rdmsr(ReadMsrExit<'a>),
    X86Wrmsr(WriteMsrExit<'a>),
    MemoryFault {
        flags: u64,
        gpa: u64,
        size: u64,
    },
    /// A number that is none of the above.
    Unsupported(u32),
}

/// What the client may have answered, until the next `run`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) data: Vec<u8>,
    pub(crate) error: u8,
    pub(crate) word: u64,
}

impl Answers {
    /// The exit that `run` says, with `self` as what it lends.
    pub(crate) fn lend(&mut self, run: &Run, port_data: impl FnOnce(usize) -> Vec<u8>) -> VcpuExit<'_> {
        let bytes = &run.exit;
        match run.exit_reason {
            0 => VcpuExit::Unknown,
            2 => {
                let io = Io::from_bytes(bytes);
                self.data = port_data(usize::from(io.size) * io.count as usize);
                if io.direction == 0 {
                    VcpuExit::IoIn(io.port, &mut self.data)
                } else {
                    VcpuExit::IoOut(io.port, &self.data)
                }
            }
            3 => {
                let call = Hypercall::from_bytes(bytes);
                self.word = call.ret;
                let (nr, args, longmode) = (call.nr, call.args, call.flags as u32);
                VcpuExit::Hypercall(HypercallExit { nr, args, ret: &mut self.word, longmode })
            }
            4 => {
                let debug = Debug::from_bytes(bytes);
                let (exception, pad) = (debug.exception, 0);
                VcpuExit::Debug(kvm_debug_exit_arch {
                    exception,
                    pad,
                    pc: debug.pc,
                    dr6: debug.dr6,
                    dr7: debug.dr7,
                })
            }
            5 => VcpuExit::Hlt,
            6 => {
                let mmio = Mmio::from_bytes(bytes);
                self.data = mmio.data[..(mmio.len as usize).min(8)].to_vec();
                if mmio.is_write == 0 {
                    VcpuExit::MmioRead(mmio.phys_addr, &mut self.data)
                } else {
                    VcpuExit::MmioWrite(mmio.phys_addr, &self.data)
                }
            }
            7 => VcpuExit::IrqWindowOpen,
            8 => VcpuExit::Shutdown,
            9 => {
                let fail = FailEntry::from_bytes(bytes);
                VcpuExit::FailEntry(fail.hardware_entry_failure_reason, fail.cpu)
            }
            10 => VcpuExit::Intr,
            11 => VcpuExit::SetTpr,
            17 => VcpuExit::InternalError,
            26 => VcpuExit::IoapicEoi(Eoi::from_bytes(bytes).vector),
            reason @ (29 | 30) => {
                let msr = Msr::from_bytes(bytes);
                (self.error, self.word) = (msr.error, msr.data);
                let why = MsrExitReason::from_bits_truncate(msr.reason);
                if reason == 29 {
                    VcpuExit::X86Rdmsr(ReadMsrExit {
                        error: &mut self.error,
                        reason: why,
                        index: msr.index,
                        data: &mut self.word,
                    })
                } else {
                    let (index, data) = (msr.index, msr.data);
                    VcpuExit::X86Wrmsr(WriteMsrExit { error: &mut self.error, reason: why, index, data })
                }
            }
            39 => {
                let MemoryFault { flags, gpa, size } = MemoryFault::from_bytes(bytes);
                VcpuExit::MemoryFault { flags, gpa, size }
            }
            other => VcpuExit::Unsupported(other),
        }
    }

    /// Puts the answers back to where the next `run` looks for them. `Some`: port data.
    pub(crate) fn put_back(&self, run: &mut Run) -> Option<&[u8]> {
        let bytes = match run.exit_reason {
            2 => return Some(&self.data),
            3 => Hypercall { ret: self.word, ..Hypercall::from_bytes(&run.exit) }.to_bytes(),
            6 => {
                let mut mmio = Mmio::from_bytes(&run.exit);
                let count = self.data.len().min(8);
                mmio.data[..count].copy_from_slice(&self.data[..count]);
                mmio.to_bytes()
            }
            29 | 30 => Msr { error: self.error, data: self.word, ..Msr::from_bytes(&run.exit) }.to_bytes(),
            _ => return None,
        };
        run.exit[..bytes.len()].copy_from_slice(&bytes);
        None
    }
}
