//! What a guest's RDMSR or WRMSR leads to once it has exited: emulation, #GP(0), or an exit to userspace.

use super::Filter;
use crate::kvm::interception::Access;
use crate::kvm::{Errno, Regression, Regressions};

/// Why KVM cannot complete an access by itself; the value is the bit of [`ExitMask`] and of the exit's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Failure {
    /// The value or the MSR's state is invalid.
    Invalid = 1 << 0,
    /// KVM does not know the MSR.
    Unknown = 1 << 1,
    /// The filter denies it.
    Filtered = 1 << 2,
}

/// KVM_CAP_X86_USER_SPACE_MSR (188): the failures that userspace wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ExitMask(u32);

impl ExitMask {
    /// KVM_ENABLE_CAP with this capability: `args[0]` replaces the mask.
    ///
    /// # Errors
    /// [`Errno::Einval`] for an undefined bit.
    pub const fn enable(argument: u64) -> Result<Self, Errno> {
        if argument & !7 != 0 { Err(Errno::Einval) } else { Ok(Self(argument as u32)) }
    }

    /// Whether userspace wants to see `failure`.
    pub const fn has(self, failure: Failure) -> bool {
        self.0 & failure as u32 != 0
    }

    /// The mask.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// The MSRs as KVM emulates them.
pub trait MsrFile {
    /// Reads an MSR.
    ///
    /// # Errors
    /// [`Failure::Unknown`] or [`Failure::Invalid`].
    fn read(&mut self, msr: u32) -> Result<u64, Failure>;
    /// Writes an MSR.
    ///
    /// # Errors
    /// [`Failure::Unknown`] or [`Failure::Invalid`].
    fn write(&mut self, msr: u32, value: u64) -> Result<(), Failure>;
}

/// An exit to userspace: KVM_EXIT_X86_RDMSR (29) or KVM_EXIT_X86_WRMSR (30).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MsrExit {
    /// RDMSR or WRMSR.
    pub access: Access,
    /// Why.
    pub reason: Failure,
    /// The MSR.
    pub index: u32,
    /// EDX:EAX of a write; 0 for a read.
    pub data: u64,
}

/// The `msr` member of `struct kvm_run`'s union, at offset 32: error, 7 bytes of padding, reason, index, data.
pub type ExitRecord = [u8; 24];

impl MsrExit {
    /// `kvm_run.exit_reason`.
    pub const fn exit_reason(&self) -> u32 {
        match self.access {
            Access::Read => 29,
            Access::Write => 30,
        }
    }

    /// The union's bytes, error preset to 0.
    pub fn record(&self) -> ExitRecord {
        let mut bytes = [0; 24];
        bytes[8..12].copy_from_slice(&(self.reason as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.index.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.data.to_le_bytes());
        bytes
    }
}

/// What an access leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done; a read's value goes to EDX:EAX, and RIP advances.
    Done(u64),
    /// #GP(0), and RIP stays.
    Fault,
    /// Userspace decides.
    Exit(MsrExit),
}

/// How an access reaches KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// After a VM exit that is handled in full, or through the emulator.
    Normal,
    /// The WRMSR fast path, with interrupts off right after the exit: TSC_DEADLINE and the x2APIC ICR only.
    Fast,
}

const TSC_DEADLINE: u32 = rootmode_arch::msr::IA32_TSC_DEADLINE;
const X2APIC_ICR: u32 = rootmode_arch::msr::IA32_X2APIC_ICR;

/// Handles an access that exited. `value` is EDX:EAX of a write. With `ignore_msrs`, unknown MSRs read 0 and drop writes.
#[allow(clippy::too_many_arguments, reason = "an access has this many independent inputs")]
pub fn handle(
    access: Access,
    msr: u32,
    value: u64,
    path: Path,
    filter: &Filter,
    mask: ExitMask,
    ignore_msrs: bool,
    file: &mut dyn MsrFile,
    bugs: Regressions,
) -> Outcome {
    let fast = path == Path::Fast && access == Access::Write && matches!(msr, TSC_DEADLINE | X2APIC_ICR);
    let filtered = !(fast && bugs.has(Regression::FastPathIgnoresFilter));
    if filtered && !filter.allows(msr, access, bugs) {
        return handle_failure(access, msr, value, Failure::Filtered, mask, bugs);
    }
    let result = match access {
        Access::Read => file.read(msr),
        Access::Write => file.write(msr, value).map(|()| value),
    };
    match result {
        Ok(value) => Outcome::Done(value),
        Err(Failure::Unknown) if ignore_msrs => Outcome::Done(if access == Access::Read { 0 } else { value }),
        Err(failure) => handle_failure(access, msr, value, failure, mask, bugs),
    }
}

/// An access failed: userspace sees it if it asked for this failure, else the guest gets #GP(0).
pub fn handle_failure(
    access: Access,
    msr: u32,
    value: u64,
    reason: Failure,
    mask: ExitMask,
    bugs: Regressions,
) -> Outcome {
    let wanted = match reason {
        Failure::Filtered if bugs.has(Regression::ExitWithoutMask) => true,
        Failure::Filtered if bugs.has(Regression::FaultDespiteMask) => false,
        Failure::Filtered | Failure::Unknown | Failure::Invalid => mask.has(reason),
    };
    if !wanted {
        return Outcome::Fault;
    }
    let data = if access == Access::Write { value } else { 0 };
    Outcome::Exit(MsrExit { access, reason, index: msr, data })
}

/// How the guest goes on after userspace answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resumed {
    /// RIP advances; of a read, EDX:EAX become this.
    Advanced(Option<u64>),
    /// #GP(0), and RIP stays.
    Fault,
}

/// KVM_RUN again after an exit, with the union as userspace left it.
pub fn resume(exit: &MsrExit, record: &ExitRecord) -> Resumed {
    if record[0] != 0 {
        return Resumed::Fault;
    }
    let data = record[16..24].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    Resumed::Advanced((exit.access == Access::Read).then_some(data))
}
